//! A fresh worktree works: ignored files, setup, environment, hooks.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
use git_agentloop::ledger::{Ledger as _, Outfit, Preferences, Provision as _, Wanted};
use git_agentloop::run::goal::{Isolation, RunId};
use serde_json::Value;

use crate::fanout::{RUN, assert_cleared, plan, scripted};
use crate::support::{PROGRAM, Repo, processes_with, wait_for};

/// A repository whose `.gitignore` names `patterns`.
fn ignoring(patterns: &str) -> Repo {
    let repo = Repo::new();
    repo.write(".gitignore", patterns);
    repo.commit("what is ignored");
    repo
}

/// What workers wrote to HOME under this name, a line each.
fn told(repo: &Repo, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repo.home().join(name)).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

fn provisioned(repo: &Repo, run: &str) -> Vec<Value> {
    let events = repo.events(run).into_iter();
    events.filter(|event| event["kind"] == "provisioned").map(|event| event["data"].clone()).collect()
}

#[test]
fn ignored_files_that_are_named_come_along_and_nothing_else() {
    let repo = ignoring(".env\n*.local\nnode_modules\n.venv\nbuild/\nlinks/\n");
    repo.git(&["config", "--add", "agentloop.copy", ".env"]);
    repo.git(&["config", "--add", "agentloop.copy", "/links/"]);
    repo.write(".worktreeinclude", "# what a worktree needs\nnode_modules\n.venv\n*.local\n!secret.local\nplain.txt\n");
    repo.write(".env", "KEY=1");
    repo.write("deep/down/.env", "KEY=2");
    repo.write("a.local", "a");
    repo.write("secret.local", "s");
    repo.write("plain.txt", "neither tracked nor ignored");
    repo.write("build/out.o", "not named");
    repo.write("node_modules/p/index.js", "1");
    repo.write("node_modules/dep/.git/HEAD", "ref: refs/heads/main\n");
    repo.write("node_modules/dep/x.js", "2");
    repo.git(&["init", "-q", "node_modules/dep"]);
    repo.write(".venv/.gitignore", "*\n");
    repo.write(".venv/bin/python", "#!/bin/sh\n");
    let at = |name: &str| repo.path().join(name);
    std::fs::set_permissions(at(".venv/bin/python"), std::fs::Permissions::from_mode(0o555)).unwrap();
    std::fs::set_permissions(at(".venv/bin"), std::fs::Permissions::from_mode(0o555)).unwrap();
    std::fs::create_dir(at("links")).unwrap();
    std::fs::write(repo.home().join("outside"), "outside").unwrap();
    symlink(at("README"), at("links/into")).unwrap();
    symlink("../README", at("links/beside")).unwrap();
    symlink("../../outside", at("links/out")).unwrap();
    symlink("nowhere", at("links/dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("links/socket")).unwrap();
    std::fs::hard_link(at(".env"), at("links/hard")).unwrap();
    let look = "git status --porcelain > \"$HOME/status-$AGENTLOOP_SUBGOAL\"
        find . -name .git -prune -o \\( -type f -o -type l \\) -print | sort > \"$HOME/files-$AGENTLOOP_SUBGOAL\"
        for link in links/*; do echo \"$link $(readlink $link)\"; done > \"$HOME/links-$AGENTLOOP_SUBGOAL\"
        stat -c '%h %a %n' .env links/hard .venv/bin .venv/bin/python > \"$HOME/stat-$AGENTLOOP_SUBGOAL\"
        pwd > \"$HOME/pwd-$AGENTLOOP_SUBGOAL\"; echo x > made-$AGENTLOOP_SUBGOAL";
    scripted(&repo, &plan(&["one", "two"]), look, "true");
    let before = repo.fingerprint();
    let result = repo.agentloop(&RUN).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let wanted = "./.env ./.gitignore ./.venv/.gitignore ./.venv/bin/python ./README ./a.local ./deep/down/.env \
                  ./links/beside ./links/dangling ./links/hard ./links/into ./links/out ./node_modules/dep/x.js \
                  ./node_modules/p/index.js";
    for id in ["one", "two"] {
        assert_eq!(told(&repo, &format!("status-{id}")), Vec::<String>::new());
        assert_eq!(told(&repo, &format!("files-{id}")).join(" "), wanted);
        let pwd = told(&repo, &format!("pwd-{id}")).remove(0);
        let outside = repo.home().canonicalize().unwrap().join("outside");
        let links = [
            "links/beside ../README".to_owned(),
            "links/dangling nowhere".to_owned(),
            "links/hard ".to_owned(),
            format!("links/into {pwd}/README"),
            format!("links/out {}", outside.display()),
        ];
        assert_eq!(told(&repo, &format!("links-{id}")), links);
        let stat = ["1 644 .env", "1 644 links/hard", "2 755 .venv/bin", "1 555 .venv/bin/python"];
        assert_eq!(told(&repo, &format!("stat-{id}")), stat, "no hard links, modes as they are");
    }
    let files = repo.git(&["ls-tree", "-r", "--name-only", &format!("agentloop/{run}")]);
    assert_eq!(files, ".gitignore\nREADME\nmade-one\nmade-two");
    let own = &provisioned(&repo, run)[0];
    assert!(own["copied"].as_u64().unwrap() > 11 && own.get("remarks").is_none(), "{own}");
    // The time of a copy is that of what it is a copy of.
    let kept = Path::new(result["worktree"]["path"].as_str().unwrap()).join(".env").metadata().unwrap();
    assert_eq!(kept.mtime(), at(".env").metadata().unwrap().mtime());
    assert_eq!(repo.fingerprint(), before);
    std::fs::set_permissions(at(".venv/bin"), std::fs::Permissions::from_mode(0o755)).unwrap();
    assert_cleared(&repo, run);
    repo.assert_sound();
    repo.agentloop(&["discard", run, "--yes"]).expect(0);
    assert_eq!(repo.git(&["worktree", "list"]).lines().count(), 1, "read-only files hold nothing up");
}

#[test]
fn what_a_worktree_has_or_would_not_ignore_stays_out() {
    // At its base another branch tracks `.env`, ignores less, and has links where the checkout has folders.
    let repo = Repo::new();
    repo.write(".env", "TRACKED=1\n");
    std::fs::create_dir(repo.home().join("elsewhere")).unwrap();
    symlink(repo.home().join("elsewhere"), repo.path().join("config")).unwrap();
    repo.write(".gitignore", "config/*\n");
    repo.commit("old");
    repo.git(&["branch", "old"]);
    repo.git(&["rm", "-q", "--cached", ".env", "config"]);
    std::fs::remove_file(repo.path().join("config")).unwrap();
    repo.write(".gitignore", ".env\n*.local\nconfig/\n");
    repo.git(&["add", ".gitignore"]);
    repo.git(&["commit", "-qm", "new"]);
    repo.write(".env", "MINE=1\n");
    repo.write("new.local", "x");
    repo.write("config/key", "k");
    repo.git(&["config", "agentloop.copy", "*"]);
    scripted(&repo, &plan(&["one"]), "cat .env; git status --porcelain; ls", "true");
    let result = repo.agentloop(&[&RUN[..], &["--base", "old"]].concat()).expect(0).json();
    assert_eq!(result["history"][0]["results"][0]["ok"], true);
    let run = result["run_id"].as_str().unwrap();
    let output = repo.agentloop(&["output", run, "iter1/one"]).expect(0).stdout;
    assert!(output.contains("TRACKED=1\nREADME\nconfig"), "{output}");
    assert_eq!(std::fs::read_dir(repo.home().join("elsewhere")).unwrap().count(), 0, "a link led out of the worktree");
    assert!(provisioned(&repo, run).is_empty(), "{:?}", provisioned(&repo, run));
}

#[test]
fn what_was_copied_is_never_committed() {
    let repo = ignoring(".env\nnode_modules\n");
    repo.git(&["config", "agentloop.copy", ".env"]);
    repo.git(&["config", "--add", "agentloop.copy", "node_modules"]);
    repo.write(".env", "KEY=secret\n");
    for number in 0..20 {
        repo.write(&format!("node_modules/p{number}/x.js"), "x");
    }
    let work = "if [ $AGENTLOOP_SUBGOAL = one ]; then rm .gitignore; else git add -f .env; git commit -qm mine; fi\n\
                echo x > made-$AGENTLOOP_SUBGOAL";
    for (plan, files) in [(plan(&["one", "two"]), "README\nmade-one\nmade-two"), (plan(&["one"]), "README\nmade-one")] {
        scripted(&repo, &plan, work, "true");
        let result = repo.agentloop(&RUN).expect(0).json();
        let run = result["run_id"].as_str().unwrap();
        assert_eq!(repo.git(&["ls-tree", "-r", "--name-only", &format!("agentloop/{run}")]), files);
        let remarks = repo.events(run).iter().map(|event| event["data"]["remarks"].to_string()).collect::<String>();
        assert!(remarks.contains("does not ignore '.env' and 20 more any more"), "{remarks}");
        assert_cleared(&repo, run);
    }
    repo.assert_sound();
}

#[test]
fn a_worktree_that_is_used_again_gets_what_is_missing() {
    let repo = ignoring("*.local\n");
    repo.git(&["config", "agentloop.copy", "*.local"]);
    repo.write("a.local", "a\n");
    repo.write("b.local", "b\n");
    let work =
        "cat a.local b.local >> \"$HOME/seen\"; rm a.local; echo changed > b.local; echo x >> made-$AGENTLOOP_SUBGOAL";
    scripted(&repo, &plan(&["one", "two"]), work, "true");
    let check = repo.script("check", "test $(grep -c x made-one) = 2");
    repo.agentloop(&[&RUN[..], &["--verify", &check, "--sequential"]].concat()).expect(0);
    // One place serves both workers of both iterations.
    assert_eq!(told(&repo, "seen"), ["a", "b", "a", "changed", "a", "changed", "a", "changed"]);
}

#[test]
fn a_setup_command_is_run_once_in_each_new_worktree() {
    let repo = Repo::new();
    let setup = repo.script(
        "setup",
        "echo \"$PWD $AGENTLOOP_RUN $AGENTLOOP_ITERATION ${AGENTLOOP_SUBGOAL-none} $AGENTLOOP_PORT $1\" >> \"$HOME/setup.log\"\n\
         echo out of setup; touch untracked",
    );
    repo.git(&["config", "agentloop.setup", &format!("{setup} 'one word'")]);
    let work =
        "echo \"$PWD $AGENTLOOP_PORT\" >> \"$HOME/work.log\"; rm -f untracked; echo x >> made-$AGENTLOOP_SUBGOAL";
    scripted(&repo, &plan(&["one", "two"]), work, "true");
    let check = repo.script(
        "check",
        "echo \"$PWD $AGENTLOOP_RUN $AGENTLOOP_ITERATION ${AGENTLOOP_SUBGOAL-none} $AGENTLOOP_PORT\" >> \"$HOME/check.log\"\n\
         test $(grep -c x made-one) = 2",
    );
    let result = repo
        .agentloop_with(&[&RUN[..], &["--verify", &check]].concat(), &[("AGENTLOOP_SUBGOAL", "another run's")])
        .expect(0)
        .json();
    let run = result["run_id"].as_str().unwrap();
    let lines = told(&repo, "setup.log");
    let words: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    assert_eq!(words.len(), 3, "{lines:?}");
    let places: BTreeSet<&str> = words.iter().map(|words| words[0].rsplit('/').next().unwrap()).collect();
    let wanted = [run.to_owned(), format!("{run}.w1"), format!("{run}.w2")];
    assert_eq!(places, wanted.iter().map(String::as_str).collect());
    assert_eq!((words[0][1], words[0][2], words[0][3], words[0][5]), (run, "0", "none", "one"));
    assert_eq!(words[0][6], "word");
    let workers: BTreeSet<(&str, &str)> = words[1..].iter().map(|words| (words[2], words[3])).collect();
    assert_eq!(workers, BTreeSet::from([("1", "one"), ("1", "two")]));
    // Every place has ports of its own, and keeps them.
    let ports: BTreeSet<(&str, &str)> = words.iter().map(|words| (words[0], words[4])).collect();
    let bases: BTreeSet<u16> = ports.iter().map(|(_, port)| port.parse().unwrap()).collect();
    assert!(bases.len() == 3 && bases.iter().all(|base| base % 10 == 0), "{ports:?}");
    let worked = told(&repo, "work.log");
    assert_eq!(worked.len(), 4);
    assert!(worked.iter().all(|line| ports.contains(&line.split_once(' ').unwrap())), "{worked:?} {ports:?}");
    let checked = told(&repo, "check.log");
    let port = words[0][4];
    let wanted: Vec<String> =
        (0..3).map(|iteration| format!("{} {run} {iteration} none {port}", words[0][0])).collect();
    assert_eq!(checked, wanted, "on the base, and after each iteration");
    // Its output is on record, and what it left that git does not ignore is said.
    let events = provisioned(&repo, run);
    assert_eq!(events.len(), 3);
    assert_eq!(events[0]["setup"][0]["stdout"], "out of setup\n");
    assert_eq!(events[0]["setup"][0]["ok"], true);
    assert!(events[0]["remarks"][0].as_str().unwrap().ends_with("and it was restored: untracked"), "{}", events[0]);
    assert!(events[1]["remarks"][0].as_str().unwrap().ends_with("part of the work: untracked"), "{}", events[1]);
    let story = repo.agentloop(&["tail", run]).expect(0).stdout;
    assert!(story.contains("worktree of one: "), "{story}");
}

#[test]
fn a_setup_command_that_fails_says_so_and_is_run_again() {
    let repo = Repo::new();
    let setup = repo.script(
        "setup",
        "echo run >> \"$HOME/setup.log\"; test -e \"$HOME/mended\" || { echo 'no registry' >&2; echo 'give up' >&2; exit 7; }",
    );
    repo.git(&["config", "agentloop.setup", &setup]);
    scripted(&repo, &plan(&["one"]), "echo x > made", "true");
    let before = repo.fingerprint();
    let failed = repo.agentloop(&RUN).expect(2);
    let result = failed.json();
    let run = result["run_id"].as_str().unwrap();
    for words in [setup.as_str(), "exit code 7", "no registry\ngive up", &format!("resume {run}")] {
        let said = result["summary"].as_str().unwrap().to_owned() + &failed.stderr;
        assert!(said.contains(words), "{words}: {said}\n{result:#}");
    }
    assert_eq!(result["stop_reason"], "run_error");
    assert_eq!(provisioned(&repo, run)[0]["setup"][0]["exit_code"], 7);
    assert_eq!(repo.fingerprint(), before);
    std::fs::write(repo.home().join("mended"), "").unwrap();
    repo.agentloop(&["resume", run, "--json"]).expect(0);
    assert_eq!(told(&repo, "setup.log").len(), 3, "in the run's worktree again, and in its worker's");
    assert_cleared(&repo, run);
    repo.assert_sound();
}

#[test]
fn a_worker_whose_setup_fails_is_not_called() {
    let repo = Repo::new();
    let setup = repo.script("setup", "case $PWD in *.w1) echo broken; exit 1 ;; esac");
    repo.git(&["config", "agentloop.setup", &setup]);
    scripted(&repo, &plan(&["one", "two"]), "echo x >> \"$HOME/worked\"", "true");
    let result = repo.agentloop(&[&RUN[..], &["--sequential"]].concat()).expect(2).json();
    let run = result["run_id"].as_str().unwrap();
    assert!(result["summary"].as_str().unwrap().contains(".w1': exit code 1: broken"), "{}", result["summary"]);
    assert_eq!(told(&repo, "worked"), Vec::<String>::new());
    assert_cleared(&repo, run);
    repo.git(&["config", "--unset", "agentloop.setup"]);
    repo.agentloop(&["resume", run, "--json"]).expect(0);
    assert_eq!(told(&repo, "worked").len(), 2);
}

#[test]
fn a_setup_command_is_stopped_in_time_and_with_the_run() {
    let repo = Repo::new();
    let setup = repo
        .script("setup", "echo run >> \"$HOME/setup.log\"; test -e \"$HOME/mended\" || { sleep 1005 & sleep 1005; }");
    repo.git(&["config", "agentloop.setup", &setup]);
    repo.git(&["config", "agentloop.setupTimeout", "0.3"]);
    scripted(&repo, &plan(&["one"]), "echo x > made", "true");
    let result = repo.agentloop(&RUN).expect(2).json();
    assert!(result["summary"].as_str().unwrap().contains("timed out after 0.3 s"), "{}", result["summary"]);
    repo.git(&["config", "--unset", "agentloop.setupTimeout"]);
    let mut child = repo.spawn(&RUN);
    wait_for("the setup command", || (told(&repo, "setup.log").len() == 2).then_some(()));
    let run = repo.agentloop(&["list", "--json"]).json()[0]["run_id"].as_str().unwrap().to_owned();
    repo.agentloop(&["cancel", &run]).expect(0);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_eq!(processes_with(&run), Vec::<u32>::new());
    // It never came to its end there: whoever goes on begins with it.
    std::fs::write(repo.home().join("mended"), "").unwrap();
    repo.agentloop(&["resume", &run, "--json"]).expect(0);
    assert_eq!(told(&repo, "setup.log").len(), 4, "in the run's worktree again, and in its worker's");
}

#[test]
fn setup_is_never_taken_from_a_log() {
    let repo = Repo::new();
    let setup = repo.script("setup", "echo run >> \"$HOME/setup.log\"");
    repo.git(&["config", "agentloop.setup", &setup]);
    scripted(&repo, &plan(&["one"]), "echo x > made", "true");
    let check = repo.script("check", "false");
    let arguments = [&RUN[..], &["--verify", &check, "--max-iterations", "1"]].concat();
    let run = repo.agentloop(&arguments).expect(1).json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(told(&repo, "setup.log").len(), 2);
    let clone = repo.home().join("clone");
    repo.git(&["clone", "-q", "--no-local", ".", clone.to_str().unwrap()]);
    let refs = ["+refs/heads/agentloop/*:refs/heads/agentloop/*", "+refs/notes/agentloop/*:refs/notes/agentloop/*"];
    repo.git(&[&["-C", clone.to_str().unwrap(), "fetch", "-q", "origin"][..], &refs].concat());
    let agent = repo.git(&["config", "agentloop.backend.scripted.command"]);
    repo.git(&["-C", clone.to_str().unwrap(), "config", "agentloop.backend.scripted.command", &agent]);
    let resume =
        ["resume", &run, "--max-iterations", "2", "--verify", "true", "--permissions", "edit", "--backend", "scripted"];
    let mut command = repo.command(PROGRAM);
    let output = command.current_dir(&clone).args(resume).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(told(&repo, "setup.log").len(), 2, "the other clone's configuration names no setup");
}

#[test]
fn setups_that_are_none_are_refused_before_anything_begins() {
    let repo = Repo::new();
    let wrong =
        [("setup", "unclosed 'quote"), ("setupTimeout", "-1"), ("reviewBytes", "many"), ("prompts", "/nowhere")];
    for (key, value) in wrong.map(|(key, value)| (format!("agentloop.{key}"), value)) {
        let key = key.as_str();
        repo.git(&["config", key, value]);
        let refused = repo.agentloop(&["run", "x", "--backend", "mock"]).expect(2);
        assert!(refused.stderr.contains(key) && refused.stderr.contains("hint: "), "{}", refused.stderr);
        repo.git(&["config", "--unset", key]);
    }
    assert_eq!(repo.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
}

#[test]
fn hooks_are_there_as_in_any_worktree() {
    let hook = "#!/bin/sh\necho \"$(basename \"$PWD\")\" >> \"$HOME/hooked\"\n";
    let work = "echo x > made-$AGENTLOOP_SUBGOAL; git add .; git commit -qm own";
    // Where git has them by itself; in a tracked folder; in one that a tool made and had ignored.
    for (folder, path) in [(".git/hooks", None), ("githooks", Some("githooks")), (".husky/_", Some(".husky/_"))] {
        let repo = ignoring("");
        repo.write(&format!("{folder}/pre-commit"), hook);
        let file = repo.path().join(folder).join("pre-commit");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        if folder == "githooks" {
            repo.commit("hooks");
        } else {
            repo.write(&format!("{folder}/.gitignore"), "*\n");
        }
        if let Some(path) = path {
            repo.git(&["config", "core.hooksPath", path]);
        }
        scripted(&repo, &plan(&["one", "two"]), work, "true");
        let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
        let hooked: BTreeSet<String> = told(&repo, "hooked").into_iter().collect();
        assert_eq!(hooked, BTreeSet::from([format!("{run}.w1"), format!("{run}.w2")]), "{folder}: ours run no hooks");
    }
}

#[test]
fn a_resumed_run_may_share_its_worktree_or_not() {
    let repo = Repo::new();
    scripted(
        &repo,
        &plan(&["one", "two"]),
        "basename \"$PWD\" >> \"$HOME/places\"; echo x >> made-$AGENTLOOP_SUBGOAL",
        "true",
    );
    let arguments = [&RUN[..], &["--verify", "false", "--max-iterations", "1", "--isolation", "shared"]].concat();
    let run = repo.agentloop(&arguments).expect(1).json()["run_id"].as_str().unwrap().to_owned();
    let resume = ["resume", &run, "--max-iterations", "2", "--verify", "true", "--isolation"];
    let refused = repo.agentloop(&[&resume[..], &["none"]].concat()).expect(2);
    assert!(
        refused.stderr.contains("a worktree of its own") && refused.stderr.contains("hint: "),
        "{}",
        refused.stderr
    );
    repo.agentloop(&[&resume[..], &["worktree"]].concat()).expect(0);
    let mut places = told(&repo, "places");
    places.sort();
    assert_eq!(places, [run.clone(), run.clone(), format!("{run}.w1"), format!("{run}.w2")]);
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:made-two")]), "x\nx");
    assert_cleared(&repo, &run);
}

#[test]
fn a_copy_that_was_cut_short_is_made_again_and_a_workers_own_is_not() {
    let repo = ignoring(".env\nother.local\n*.local\n");
    repo.write(".env", "the whole of it\n");
    repo.write("other.local", "x\n");
    let opened = Repository::open(Some(repo.path())).unwrap();
    let base = opened.resolve_base(None).unwrap();
    let run = RunId::new("copy", 7);
    let new = NewRecord {
        run,
        base,
        message: "agentloop: copy\n".to_owned(),
        isolation: Isolation::Worktree,
        preferences: Preferences::default(),
    };
    let ledger = GitLedger::create(opened, new).unwrap();
    let place = ledger.workspace().unwrap().path;
    let copy = [".env".to_owned(), "*.local".to_owned()];
    // Its driver was told to stop, then killed in the middle of a file.
    let stopped = ledger.provision(&place, &Wanted { copy: &copy, go_on: &|| false }).unwrap();
    assert_eq!(stopped, Outfit::default());
    std::fs::write(place.join(".env"), "the wh").unwrap();
    let wanted = Wanted { copy: &copy, go_on: &|| true };
    assert_eq!(ledger.provision(&place, &wanted).unwrap().copied, 2);
    assert_eq!(std::fs::read_to_string(place.join(".env")).unwrap(), "the whole of it\n");
    std::fs::write(place.join(".env"), "a worker's").unwrap();
    std::fs::remove_file(place.join("other.local")).unwrap();
    assert_eq!(ledger.provision(&place, &wanted).unwrap().copied, 1);
    assert_eq!(std::fs::read_to_string(place.join(".env")).unwrap(), "a worker's");
    assert!(ledger.uncommitted(&place).unwrap().is_empty());
}

#[test]
fn files_that_cannot_be_read_are_named_and_the_rest_is_there() {
    let repo = ignoring("*.local\n");
    repo.git(&["config", "agentloop.copy", "*.local"]);
    repo.write("closed.local", "x\n");
    repo.write("open.local", "x\n");
    let closed = repo.path().join("closed.local");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&closed).is_ok() {
        eprintln!("left out: whoever runs this may read everything");
        return;
    }
    scripted(&repo, &plan(&["one"]), "test -e open.local && echo x > made", "true");
    let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    let remarks = provisioned(&repo, &run)[0]["remarks"].to_string();
    assert!(remarks.contains("closed.local (Permission denied"), "{remarks}");
}
