//! Submodules in worktrees: filled without the network, and what is done in them neither lost nor anybody else's.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::fanout::{RUN, assert_cleared, plan, scripted};
use crate::sharing::{bare, clone_of};
use crate::support::Repo;

const LOCAL: [&str; 2] = ["-c", "protocol.file.allow=always"];

/// A repository whose submodule `lib` (named otherwise) has one of its own, both initialised, and what they were cloned
/// from is gone: whoever wants to fetch fails.
fn with_submodules() -> Repo {
    let repo = Repo::new();
    let at = |name: &str| repo.home().join("origins").join(name).to_str().unwrap().to_owned();
    let git = |name: &str, words: &[&str]| repo.git(&[&["-C", &at(name)][..], &LOCAL, words].concat());
    for name in ["inner", "lib"] {
        repo.git(&["init", "-q", "-b", "main", &at(name)]);
        git(name, &["config", "user.name", "A User"]);
        git(name, &["config", "user.email", "user@example.com"]);
        std::fs::write(Path::new(&at(name)).join("file"), format!("{name}\n")).unwrap();
        git(name, &["add", "."]);
        git(name, &["commit", "-qm", "first"]);
    }
    git("lib", &["submodule", "--quiet", "add", &at("inner"), "inner"]);
    git("lib", &["commit", "-qm", "inner"]);
    repo.git(&[&LOCAL[..], &["submodule", "--quiet", "add", "--name", "the library", &at("lib"), "lib"]].concat());
    repo.git(&["commit", "-qm", "a submodule"]);
    repo.git(&[&LOCAL[..], &["submodule", "--quiet", "update", "--init", "--recursive"]].concat());
    std::fs::rename(repo.home().join("origins"), repo.home().join("gone")).unwrap();
    repo
}

/// What no run may change of the user's clones.
fn clones(repo: &Repo) -> BTreeMap<String, Vec<u8>> {
    let lib = repo.path().join(".git/modules/the library");
    let files = ["HEAD", "index", "config", "modules/inner/HEAD", "modules/inner/index", "modules/inner/config"];
    files.iter().map(|name| ((*name).to_owned(), std::fs::read(lib.join(name)).unwrap())).collect()
}

fn remarks(repo: &Repo, run: &str) -> String {
    let events = repo.events(run);
    let noted = events.iter().filter_map(|event| event["data"]["remarks"].as_array());
    noted.flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[test]
fn workers_find_them_filled_and_what_they_do_there_is_kept() {
    let repo = with_submodules();
    let look = "git status --porcelain > \"$HOME/status-$AGENTLOOP_SUBGOAL-$AGENTLOOP_ITERATION\"
        git -C lib config remote.origin.url > \"$HOME/url\"
        cat lib/file lib/inner/file > \"$HOME/seen-$AGENTLOOP_SUBGOAL-$AGENTLOOP_ITERATION\"
        case $AGENTLOOP_SUBGOAL-$AGENTLOOP_ITERATION in
        one-1) echo edited >> lib/file; echo new > lib/new; echo deep >> lib/inner/file ;;
        one-2) cd lib; echo again >> file; git add .; git commit -qm 'by a worker'; cd ..; git add lib; git commit -qm 'with it' ;;
        *) echo x >> made ;;
        esac";
    scripted(&repo, &plan(&["one", "two"]), look, "true");
    let check = repo.script("check", "cat lib/file lib/inner/file >> \"$HOME/checked\"; grep -q again lib/file");
    let (before, theirs) = (repo.fingerprint(), clones(&repo));
    let result = repo.agentloop(&[&RUN[..], &["--verify", &check]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let told = |name: &str| std::fs::read_to_string(repo.home().join(name)).unwrap();
    for worker in ["one-1", "two-1", "one-2", "two-2"] {
        assert_eq!(told(&format!("status-{worker}")), "", "{worker}");
        let seen = if worker.ends_with('1') { "lib\ninner\n" } else { "lib\nedited\ninner\ndeep\n" };
        assert_eq!(told(&format!("seen-{worker}")), seen, "{worker}");
    }
    assert!(told("url").ends_with("origins/lib\n"), "{}", told("url"));
    // First on the base.
    assert_eq!(told("checked"), "lib\ninner\nlib\nedited\ninner\ndeep\nlib\nedited\nagain\ninner\ndeep\n");
    assert!(remarks(&repo, run).contains("the submodule 'lib/inner' is "), "{}", remarks(&repo, run));
    assert_eq!((repo.fingerprint(), clones(&repo)), (before, theirs), "the user's own was touched");
    assert_cleared(&repo, run);
    repo.assert_sound();
    // What goes with the run is kept in the user's clones too, and comes back.
    let refs = || {
        let of = |dir: &str| repo.git(&["-C", dir, "for-each-ref", "--format=%(refname)", "refs/agentloop/run"]);
        (of("lib"), of("lib/inner"))
    };
    let kept = refs();
    assert!(kept.0.contains(run) && kept.1.contains(run), "{kept:?}");
    let removal = repo.agentloop(&["discard", run, "--yes", "--json"]).expect(0).json();
    assert_eq!(refs(), (String::new(), String::new()));
    assert!(removal["kept"].to_string().contains("of a submodule, in "), "{removal:#}");
    crate::taking::undo(&repo, removal["undo"].as_str().unwrap());
    assert_eq!(refs(), kept);
    repo.agentloop(&["tail", run]).expect(0);
    // Whoever merges the run has everything that it names, without a fetch.
    repo.agentloop(&["discard", run, "--yes"]).expect(0);
    let rescued = repo.git(&["for-each-ref", "--format=%(refname)", "refs/agentloop/rescue/**/heads/agentloop/*"]);
    repo.git(&["merge", "-q", rescued.lines().last().unwrap()]);
    // What discard takes away, prune does too, once the run is merged.
    crate::taking::undo(&repo, removal["undo"].as_str().unwrap());
    let said = repo.agentloop(&["prune", "--older-than", "0s"]).expect(0).stdout;
    assert!(said.contains(" of a submodule, in ") && refs() == kept, "{said}");
    let pruned = repo.agentloop(&["prune", "--older-than", "0s", "--yes", "--json"]).expect(0).json();
    assert_eq!(refs(), (String::new(), String::new()));
    crate::taking::undo(&repo, pruned[0]["removal"]["undo"].as_str().unwrap());
    assert_eq!(refs(), kept);
    repo.agentloop(&["discard", run, "--yes"]).expect(0);
    repo.git(&["submodule", "--quiet", "update", "--recursive"]);
    let read = |name: &str| std::fs::read_to_string(repo.path().join(name)).unwrap();
    assert_eq!((read("lib/file"), read("lib/inner/file")), ("lib\nedited\nagain\n".into(), "inner\ndeep\n".into()));
    assert_eq!(read("lib/new"), "new\n");
    repo.git(&["-C", "lib", "fsck", "--strict", "--no-dangling"]);
}

#[test]
fn a_pointer_that_is_moved_and_a_submodule_that_is_removed_are_as_the_worker_left_them() {
    for (deed, left) in [
        ("old=$(git -C lib rev-parse HEAD~1); git update-index --cacheinfo 160000,$old,lib; git commit -qm back", true),
        ("git rm -q lib; git commit -qm 'no lib'", false),
        ("git rm -q lib", false),
    ] {
        let repo = with_submodules();
        let work = format!("[ $AGENTLOOP_SUBGOAL = two ] || {{ {deed}; }}; echo x > made-$AGENTLOOP_SUBGOAL");
        scripted(&repo, &plan(&["one", "two"]), &work, "true");
        let check =
            repo.script("check", "ls -A lib > \"$HOME/checked\" 2>&1; git status --porcelain >> \"$HOME/checked\"");
        let before = repo.fingerprint();
        let result = repo.agentloop(&[&RUN[..], &["--verify", &check]].concat()).expect(0).json();
        let tree = repo.git(&["ls-tree", &format!("agentloop/{}", result["run_id"].as_str().unwrap()), "lib"]);
        let checked = std::fs::read_to_string(repo.home().join("checked")).unwrap();
        if left {
            let old = repo.git(&["-C", "lib", "rev-parse", "HEAD~1"]);
            assert!(tree.starts_with(&format!("160000 commit {old}")), "{tree}");
            assert!(checked.starts_with(".git\nfile\n"), "{checked}");
        } else {
            assert_eq!(tree, "");
            assert!(checked.contains("No such file"), "{checked}");
        }
        assert_eq!(repo.fingerprint(), before);
        repo.assert_sound();
    }
}

#[test]
fn a_submodule_that_a_worker_leads_to_the_user_s_is_not_committed_to() {
    let theirs = "$HOME/repo/.git/modules/the library";
    for deed in [
        "rm -rf lib; ln -s \"$HOME/repo/lib\" lib".to_owned(),
        format!("echo \"gitdir: {theirs}\" > lib/.git; echo more >> lib/file"),
    ] {
        let repo = with_submodules();
        repo.write("lib/file", "unsaved\n");
        // Alone, and as one of two.
        for ids in [&["one"][..], &["one", "two"]] {
            scripted(&repo, &plan(ids), &format!("{deed}; echo x > made-$AGENTLOOP_SUBGOAL"), "true");
            let of_theirs = || (repo.fingerprint(), clones(&repo), repo.git(&["-C", "lib", "for-each-ref"]));
            let before = of_theirs();
            let result = repo.agentloop(&RUN).expect(0).json();
            assert!(of_theirs() == before, "{deed}: the user's submodule was touched");
            let told = remarks(&repo, result["run_id"].as_str().unwrap());
            assert!(told.contains("the submodule 'lib' leads elsewhere"), "{deed}: {told}");
        }
    }
}

#[test]
fn what_a_run_did_in_one_is_not_looked_for_in_another_clone() {
    let repo = with_submodules();
    let bare = bare(&repo);
    // What users have set for their own work with them.
    repo.git(&["config", "push.recurseSubmodules", "check"]);
    repo.git(&["config", "submodule.recurse", "true"]);
    scripted(&repo, &plan(&["one", "two"]), "echo $AGENTLOOP_SUBGOAL >> lib/$AGENTLOOP_SUBGOAL", "true");
    let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    assert!(repo.git(&["diff", "--submodule=diff", &format!("main...agentloop/{run}")]).contains("lib/"));
    repo.agentloop(&["sync"]).expect(0);
    let clone = clone_of(&bare);
    clone.git(&["submodule", "--quiet", "init"]);
    let gone = repo.home().join("gone/lib");
    clone.git(&["config", "submodule.the library.url", gone.to_str().unwrap()]);
    clone.git(&[&LOCAL[..], &["submodule", "--quiet", "update"]].concat());
    let synced = clone.agentloop(&["sync"]).expect(0).stdout;
    assert!(synced.starts_with("fetched  a-goal-"), "{synced}");
}

#[test]
fn what_cannot_be_filled_is_said_and_stops_nothing() {
    let repo = with_submodules();
    // A commit that the user's clone never had.
    let missing = "1".repeat(40);
    repo.git(&["update-index", "--cacheinfo", &format!("160000,{missing},lib")]);
    repo.git(&["commit", "-qm", "ahead of its clone"]);
    scripted(&repo, &plan(&["one", "two"]), "ls lib; echo x > made-$AGENTLOOP_SUBGOAL", "true");
    let result = repo.agentloop(&RUN).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    assert!(remarks(&repo, run).contains("'lib' cannot be had at 111111111111 without the network"));
    let tree = repo.git(&["ls-tree", &format!("agentloop/{run}"), "lib"]);
    assert!(tree.contains(&missing), "{tree}");
    assert_cleared(&repo, run);
    // One that the user has not initialised is not missed.
    let repo = with_submodules();
    repo.git(&["submodule", "--quiet", "deinit", "-f", "lib"]);
    std::fs::remove_dir_all(repo.path().join(".git/modules")).unwrap();
    scripted(&repo, &plan(&["one"]), "ls -A lib > \"$HOME/listed\"; echo x > made", "true");
    let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(repo.home().join("listed")).unwrap(), "");
    assert_eq!(remarks(&repo, &run), "");
}
