//! Repositories as they are found: what git makes of a setting, a submodule or a worker's habits loses nobody's work.

use std::path::Path;

use serde_json::Value;

use crate::fanout::{RUN, plan, scripted};
use crate::support::{PROGRAM, Ran, Repo};

/// A repository whose submodule `lib` is initialised, and the submodule as a repository of its own.
fn superproject() -> (Repo, String) {
    let repo = Repo::new();
    let origin = repo.home().join("origin");
    let origin = origin.to_str().unwrap();
    repo.git(&["init", "-q", "-b", "main", origin]);
    std::fs::create_dir(Path::new(origin).join("info")).unwrap();
    for (name, content) in [("a.txt", "one\n"), ("description", "tracked\n"), ("info/exclude", "tracked\n")] {
        std::fs::write(Path::new(origin).join(name), content).unwrap();
    }
    repo.git(&["-C", origin, "add", "-A"]);
    let commit = ["-c", "user.name=A", "-c", "user.email=a@example.com", "commit", "-qm", "first"];
    repo.git(&[&["-C", origin][..], &commit].concat());
    repo.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", origin, "lib"]);
    repo.commit("a submodule");
    repo.git(&["-C", "lib", "config", "user.name", "A"]);
    repo.git(&["-C", "lib", "config", "user.email", "a@example.com"]);
    let lib = repo.path().join("lib").to_str().unwrap().to_owned();
    (repo, lib)
}

/// A scripted run of one worker in `dir`; its result.
#[track_caller]
fn run_in(repo: &Repo, dir: &str, work: &str) -> Value {
    scripted(repo, &plan(&["one"]), work, "true");
    let agent = repo.git(&["config", "agentloop.backend.scripted.command"]);
    repo.git(&["config", "--global", "agentloop.backend.scripted.command", &agent]);
    let mut command = repo.command(PROGRAM);
    command.current_dir(dir).args(RUN).args(["--criteria", "x"]).env("AGENTLOOP_CLEANUP", "never");
    Ran::of(&command.output().unwrap()).expect(0).json()
}

fn remarks(repo: &Repo, run: &str) -> String {
    let events = repo.events(run);
    let noted = events.iter().filter_map(|event| event["data"]["remarks"].as_array());
    noted.flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_worktree_has_its_own_files_whatever_core_worktree_says() {
    let repo = Repo::new();
    repo.git(&["config", "core.worktree", repo.path().to_str().unwrap()]);
    repo.git(&["config", "extensions.worktreeConfig", "true"]);
    repo.write("README", "hello\nan edit of the user\n");
    let before = repo.fingerprint();
    let ended = run_in(&repo, repo.path().to_str().unwrap(), "git rev-parse --show-toplevel > where; git add where");
    assert_eq!(ended["worktree"]["changed_files"], serde_json::json!(["where"]));
    let run = ended["run_id"].as_str().unwrap();
    let seen = repo.git(&["show", &format!("agentloop/{run}:where")]);
    assert!(seen.contains("repo.agentloop/"), "{seen}");
    let mut after = repo.fingerprint();
    after.insert(".git/config".to_owned(), before[".git/config"].clone()); // the agent is set there
    assert_eq!(after, before);
}

#[test]
fn a_submodule_s_worktree_goes_beside_the_superproject_and_has_its_own_files() {
    for set in [None, Some("extensions.worktreeConfig")] {
        let (repo, lib) = superproject();
        if let Some(set) = set {
            repo.git(&["-C", &lib, "config", set, "true"]);
        }
        let git_dir = repo.path().join(".git/modules/lib");
        let description = std::fs::read(git_dir.join("description")).unwrap();
        let ended = run_in(&repo, &lib, "pwd > where");
        assert_eq!(ended["worktree"]["changed_files"], serde_json::json!(["where"]), "{set:?}");
        assert_eq!(std::fs::read(git_dir.join("description")).unwrap(), description, "{set:?}");
        assert!(!git_dir.join("a.txt").exists(), "{set:?}");
        let run = ended["run_id"].as_str().unwrap();
        let place = repo.git(&["-C", &lib, "show", &format!("agentloop/{run}:where")]);
        let beside = repo.home().canonicalize().unwrap().join("repo.agentloop");
        assert!(Path::new(&place).starts_with(&beside), "{place}");
    }
}

#[test]
fn no_setting_of_display_hides_work() {
    let (repo, _) = superproject();
    for (key, value) in
        [("status.showUntrackedFiles", "no"), ("submodule.lib.ignore", "all"), ("diff.ignoreSubmodules", "all")]
    {
        repo.git(&["config", "--global", key, value]);
    }
    let stray = repo.path().join("written-into-checkout");
    let work = format!("echo new > lib/new-file; echo x > '{}'", stray.display());
    let ended = run_in(&repo, repo.path().to_str().unwrap(), &work);
    let run = ended["run_id"].as_str().unwrap();
    let commit = repo.git(&["rev-parse", &format!("agentloop/{run}:lib")]);
    assert_eq!(repo.git(&["-C", "lib", "show", &format!("{commit}:new-file")]), "new");
    assert!(remarks(&repo, run).contains("written-into-checkout"), "{}", remarks(&repo, run));
}

#[test]
fn outside_of_a_sparse_checkout_git_s_rules_hold() {
    let repo = Repo::new();
    repo.write("svc/a/x.txt", "a\n");
    repo.write("svc/b/y.txt", "b\n");
    repo.write(".gitattributes", "* text=auto\n");
    repo.commit("services");
    repo.git(&["sparse-checkout", "set", "svc/a"]);
    let work = r#"mkdir -p svc/b; printf "one\r\ntwo\r\n" > svc/b/new.txt; echo more >> svc/a/x.txt"#;
    let ended = run_in(&repo, repo.path().to_str().unwrap(), work);
    assert_eq!(ended["worktree"]["changed_files"], serde_json::json!(["svc/a/x.txt", "svc/b/new.txt"]));
    let run = ended["run_id"].as_str().unwrap();
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:svc/b/new.txt")]), "one\ntwo");
    assert_eq!(remarks(&repo, run), "");
}

#[test]
fn the_hint_for_a_branch_that_is_in_the_way_can_be_run() {
    for (make, name) in [
        ("git checkout -q -b agentloop", "refs/heads/agentloop"),
        ("git notes --ref agentloop add -m x", "refs/notes/agentloop"),
    ] {
        let repo = Repo::new();
        let shell = |line: &str| Ran::of(&repo.command("sh").args(["-c", line]).output().unwrap()).expect(0);
        shell(make);
        let refused = repo.agentloop(&["run", "a goal", "--backend", "mock"]).expect(2);
        assert!(refused.stderr.contains(name), "{}", refused.stderr);
        let hint = refused.stderr.lines().find_map(|line| line.strip_prefix("hint: rename it: ")).unwrap();
        shell(hint);
        shell("git rev-parse -q --verify HEAD");
        repo.mock_run("a goal", &["--criteria", "x"]);
    }
}

#[test]
fn worktrees_inside_of_the_checkout_are_not_seen_there() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.worktreeDir", "work/trees"]);
    let ended = run_in(&repo, repo.path().to_str().unwrap(), "echo x > made");
    let run = ended["run_id"].as_str().unwrap();
    assert!(ended["worktree"]["path"].as_str().unwrap().contains("/repo/work/trees/"));
    assert_eq!(repo.git(&["status", "--porcelain", "--untracked-files=all"]), "");
    repo.agentloop(&["discard", run, "--yes"]).expect(0);
    assert!(!repo.path().join("work/trees").exists(), "a folder without worktrees goes");
}

#[test]
fn a_worker_that_leaves_head_on_an_older_commit_reverts_nothing() {
    let repo = Repo::new();
    repo.write("later", "came in later\n");
    repo.commit("second");
    // Before the run's start commit, and the base.
    let work = "[ $AGENTLOOP_SUBGOAL = one ] && git checkout -q --detach HEAD~2; echo x > made-$AGENTLOOP_SUBGOAL";
    scripted(&repo, &plan(&["one", "two"]), work, "true");
    let ended = repo.agentloop(&[&RUN[..], &["--criteria", "x"]].concat()).expect(0).json();
    assert_eq!(ended["worktree"]["changed_files"], serde_json::json!(["made-one", "made-two"]));
    let run = ended["run_id"].as_str().unwrap();
    assert!(remarks(&repo, run).contains("left HEAD at the older commit"), "{}", remarks(&repo, run));
}

#[test]
fn what_workers_stash_is_kept_and_named() {
    let repo = Repo::new();
    let work = "echo $AGENTLOOP_SUBGOAL >> README; git stash -q; echo x > made-$AGENTLOOP_SUBGOAL";
    scripted(&repo, &plan(&["one", "two"]), work, "true");
    let ended = repo.agentloop(&[&RUN[..], &["--criteria", "x"]].concat()).expect(0).json();
    let run = ended["run_id"].as_str().unwrap();
    let rescued = repo.git(&["for-each-ref", "--format=%(refname)", &format!("refs/agentloop/rescue/{run}/")]);
    let kept: Vec<String> = rescued.lines().map(|name| repo.git(&["show", &format!("{name}:README")])).collect();
    for subgoal in ["one", "two"] {
        assert!(kept.contains(&format!("hello\n{subgoal}")), "{subgoal}: {kept:?}");
    }
    assert!(rescued.lines().all(|name| remarks(&repo, run).contains(name)), "{}", remarks(&repo, run));
}

#[test]
fn a_tag_that_bears_the_branch_s_name_is_not_merged_in_its_place() {
    let repo = Repo::new();
    let ended = run_in(&repo, repo.path().to_str().unwrap(), "echo x > made");
    let run = ended["run_id"].as_str().unwrap();
    repo.git(&["tag", &format!("agentloop/{run}"), "main"]);
    repo.agentloop(&["merge", run]).expect(0);
    assert_eq!(repo.git(&["show", "HEAD:made"]), "x");
}

#[test]
fn whoever_shares_the_repository_can_write_beside_us() {
    use std::os::unix::fs::PermissionsExt as _;
    let repo = Repo::init("repo", &["--shared=group"]);
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
    repo.mock_run("a goal", &["--criteria", "x"]);
    let mut closed = Vec::new();
    let mut folders =
        vec![repo.path().join(".git/objects"), repo.path().join(".git/refs"), repo.path().join(".git/logs")];
    while let Some(folder) = folders.pop() {
        let about = folder.metadata().unwrap();
        if about.permissions().mode() & 0o2070 != 0o2070 {
            closed.push(folder.clone());
        }
        let entries = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
        folders.extend(entries.filter(|path| path.is_dir()));
    }
    assert_eq!(closed, Vec::<std::path::PathBuf>::new(), "folders that the group cannot write to");
}

#[test]
fn a_protected_file_whose_name_is_no_text_stays_as_it_is() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let repo = Repo::new();
    repo.write("guarded/plain", "kept\n");
    std::fs::write(repo.path().join("guarded").join(OsStr::from_bytes(b"a\xff")), "kept\n").unwrap();
    repo.commit("guarded");
    scripted(&repo, &plan(&["one"]), "for file in guarded/*; do echo changed > \"$file\"; done; echo x > made", "true");
    let more = ["--criteria", "x", "--protect", "guarded", "--max-iterations", "1"];
    let ended = repo.agentloop(&[&RUN[..], &more].concat()).json();
    let run = ended["run_id"].as_str().unwrap();
    assert_eq!(ended["worktree"]["changed_files"], serde_json::json!(["made"]));
    assert_eq!(
        repo.git(&["ls-tree", &format!("agentloop/{run}"), "guarded/"]),
        repo.git(&["ls-tree", "main", "guarded/"])
    );
}
