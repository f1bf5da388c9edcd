//! `merge --with-agent`: conflicts that the integrator resolves in a worktree apart, and what the checkout sees of it.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use crate::fanout::{RUN, assert_cleared, plan, scripted};
use crate::support::{PROGRAM, Repo, processes_with, wait_for};

/// Keeps both sides of the conflict.
const KEEP_BOTH: &str = "sed -i '/^||||||| /,/^=======$/d;/^<<<<<<< /d;/^>>>>>>> /d' README";

/// A run that changed a file which `main` has changed otherwise since, and the integrator's script.
pub fn conflicting(integrate: &str, arguments: &[&str]) -> (Repo, String) {
    let repo = Repo::new();
    scripted(&repo, &plan(&["greet"]), "echo run > README; echo new > new.txt", integrate);
    let result = repo.agentloop(&[&RUN[..], arguments].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap().to_owned();
    repo.write("README", "main\n");
    repo.git(&["commit", "-qam", "greet otherwise"]);
    (repo, run)
}

/// What the integrator was asked.
fn prompts(repo: &Repo) -> Vec<String> {
    let home = std::fs::read_dir(repo.home()).unwrap().flatten();
    let asked = home.filter(|entry| entry.file_name().to_string_lossy().starts_with("prompt-integrator-HEAD-"));
    asked.map(|entry| std::fs::read_to_string(entry.path()).unwrap()).collect()
}

fn merge(repo: &Repo, run: &str, more: &[&str]) -> crate::support::Ran {
    repo.agentloop(&[&["merge", run, "--with-agent"], more].concat())
}

#[test]
fn a_resolved_conflict_is_one_merge_that_the_branch_goes_on_with() {
    for squash in [false, true] {
        let (repo, run) = conflicting(KEEP_BOTH, &["--verify", "grep -q run README"]);
        let (main, tip) = (repo.git(&["rev-parse", "HEAD"]), repo.git(&["rev-parse", &format!("agentloop/{run}")]));
        repo.write("mine.txt", "not committed\n");
        repo.write("staged.txt", "staged\n");
        repo.git(&["add", "staged.txt"]);
        if squash {
            repo.git(&["commit", "-qm", "staged"]);
        }
        let main = if squash { repo.git(&["rev-parse", "HEAD"]) } else { main };
        let log = repo.git(&["rev-parse", &format!("refs/notes/agentloop/{run}")]);
        let merged = merge(&repo, &run, if squash { &["--squash"] } else { &[] }).expect(0);
        let parents = repo.git(&["log", "-1", "--format=%P"]);
        assert_eq!(parents, if squash { main.clone() } else { format!("{main} {tip}") });
        assert_eq!(repo.git(&["show", "HEAD:README"]), "main\nrun");
        assert_eq!(repo.git(&["show", "HEAD:new.txt"]), "new");
        let status = repo.git(&["status", "--porcelain"]);
        assert_eq!(status, if squash { "?? mine.txt" } else { "A  staged.txt\n?? mine.txt" });
        let trailers = repo.git(&["log", "-1", "--format=%(trailers)"]);
        assert!(trailers.contains(&format!("Agentloop-Run: {run}\n")), "{trailers}");
        assert!(trailers.contains("Agentloop-Agent: integrator=scripted"), "{trailers}");
        assert_eq!(repo.git(&["log", "-1", "--format=%an"]), "A User");
        let reflog = repo.git(&["reflog", "-1", "--format=%gs"]);
        assert_eq!(reflog, format!("merge agentloop/{run}: Fast-forward"));
        for words in ["conflict in README", "scripted resolves it in ", "check passed: grep -q run README"] {
            assert!(merged.stderr.contains(words), "{}", merged.stderr);
        }
        let asked = &prompts(&repo)[0];
        for words in ["a goal", "greet otherwise", "agentloop: iteration 1/4", "+main", "+run", &tip] {
            assert!(asked.contains(words), "{words} is missing in\n{asked}");
        }
        assert_eq!(repo.agentloop(&["show", &run, "--json"]).expect(0).json()["merged"], true);
        // The run's record is as it was; what the integrator printed is beside the workers' transcripts.
        assert_eq!(repo.git(&["rev-parse", &format!("refs/notes/agentloop/{run}")]), log);
        let kept = format!("iter1/HEAD-{}.merge", &tip[..12]);
        assert!(repo.agentloop(&["output", &run, &kept]).expect(0).stdout.contains("resolved"));
        assert_cleared(&repo, &run);
        repo.assert_sound();
    }
}

#[test]
fn a_conflict_that_stays_open_leaves_the_checkout_as_it_was() {
    let goes_wrong = "echo worse > README";
    for (integrate, arguments, why) in [
        ("echo I cannot", &[][..], "conflict markers are left in README"),
        ("git checkout -q --ours README; rm -f new.txt", &[], "nothing of the work that was to be merged"),
        ("echo broken >&2; exit 1", &[], "broken"),
        (
            goes_wrong,
            &["--verify", "grep -q run README"],
            "the check 'grep -q run README' fails on the merge: exit code 1",
        ),
    ] {
        let (repo, run) = conflicting(integrate, arguments);
        let before = repo.fingerprint();
        let failed = merge(&repo, &run, &[]).expect(2);
        assert!(
            failed.stderr.contains("error: the conflict is not resolved, and your checkout is as it was"),
            "{failed:?}"
        );
        assert!(failed.stderr.contains(why), "{integrate}: {}", failed.stderr);
        assert_eq!(failed.stderr.matches("scripted resolves it in").count(), 2, "it was told once what was wrong");
        assert!(prompts(&repo)[0].contains(why), "{:?}", prompts(&repo));
        assert_eq!(repo.fingerprint(), before, "{integrate}");
        assert_cleared(&repo, &run);
        repo.assert_sound();
        // The user can still do it themselves.
        repo.agentloop(&["merge", &run]).expect(1);
        assert!(
            repo.git(&["status", "--porcelain"]).contains("AA README") || repo.path().join(".git/MERGE_HEAD").exists()
        );
    }
}

#[test]
fn a_second_try_hears_what_was_wrong_with_the_first() {
    let second = "if grep -q 'fails on the merge' \"$HOME/prompt-$name-$AGENTLOOP_SUBGOAL-$AGENTLOOP_ITERATION\"; \
                  then echo run and main > README; else echo worse > README; fi";
    let (repo, run) = conflicting(second, &["--verify", "grep -q run README"]);
    // What a worker's place is made fit with, the integrator's is.
    let setup = repo.script("setup", "pwd >> \"$HOME/set-up\"");
    repo.git(&["config", "agentloop.setup", &setup]);
    merge(&repo, &run, &[]).expect(0);
    assert_eq!(repo.git(&["show", "HEAD:README"]), "run and main");
    let set_up = std::fs::read_to_string(repo.home().join("set-up")).unwrap();
    assert!(set_up.trim_end().ends_with(&format!("{run}.w1")), "{set_up}");
    assert_eq!(repo.git(&["rev-list", "--count", "--first-parent", "HEAD~1..HEAD"]), "1");
    assert_cleared(&repo, &run);
}

#[test]
fn what_cannot_be_taken_is_refused_before_an_agent_is_asked() {
    let (repo, run) = conflicting(KEEP_BOTH, &[]);
    for path in ["README", "new.txt"] {
        let was = std::fs::read_to_string(repo.path().join(path)).ok();
        repo.write(path, "mine\n");
        let before = repo.fingerprint();
        let refused = merge(&repo, &run, &[]).expect(2).stderr;
        assert!(refused.contains(&format!("uncommitted changes to what the merge would change: {path}")), "{refused}");
        assert_eq!(repo.fingerprint(), before);
        match was {
            Some(text) => repo.write(path, &text),
            None => std::fs::remove_file(repo.path().join(path)).unwrap(),
        }
    }
    repo.agentloop(&["merge", &run]).expect(1);
    let refused = merge(&repo, &run, &[]).expect(2).stderr;
    assert!(refused.contains("a merge is under way") && refused.contains("git merge --abort"), "{refused}");
    repo.git(&["merge", "--abort"]);
    assert_ne!(repo.try_git(&["rebase", "-q", "--exec", "false", "HEAD~1"]).code, 0);
    let refused = merge(&repo, &run, &[]).expect(2).stderr;
    assert!(refused.contains("a rebase is under way") && refused.contains("git rebase --abort"), "{refused}");
    repo.git(&["rebase", "--abort"]);
    let refused = merge(&repo, &run, &["--rebase"]).expect(2).stderr;
    assert!(refused.contains(&format!("'git agentloop merge {run} --squash --with-agent' takes the run")), "{refused}");
    assert!(merge(&repo, &run, &["--integrator", "no_such"]).expect(2).stderr.contains("no_such"));
    assert!(repo.agentloop(&["merge", &run, "--integrator", "mock"]).expect(2).stderr.contains("--with-agent"));
    // What a log from elsewhere names is not run; nor are its checks, even where somebody names the agent.
    std::fs::remove_file(repo.kept(&run).join("authority")).unwrap();
    let refused = merge(&repo, &run, &[]).expect(2).stderr;
    assert!(refused.contains(&format!("git agentloop merge {run} --with-agent --integrator scripted")), "{refused}");
    assert!(prompts(&repo).is_empty());
    let merged = merge(&repo, &run, &["--integrator", "scripted"]).expect(0);
    assert!(!merged.stderr.contains("check passed"), "{}", merged.stderr);
    // Without a conflict it is the merge that it is without.
    assert!(merge(&repo, &run, &[]).expect(0).stdout.contains("Already up to date"));
}

#[test]
fn a_branch_that_goes_on_meanwhile_is_not_overwritten() {
    let elsewhere = "git -C \"$HOME/repo\" commit -q --allow-empty -m meanwhile";
    let (repo, run) = conflicting(&format!("{KEEP_BOTH}; {elsewhere}"), &[]);
    let failed = merge(&repo, &run, &[]).expect(2).stderr;
    assert!(failed.contains("HEAD has moved meanwhile"), "{failed}");
    assert_eq!(repo.git(&["log", "-1", "--format=%s"]), "meanwhile");
    assert_eq!(repo.git(&["status", "--porcelain"]), "");
    // What was paid for is a merge away.
    let hint = failed.lines().find(|line| line.starts_with("hint: ")).unwrap();
    let command = hint.split('\'').nth(1).unwrap();
    let words: Vec<&str> = command.split(' ').skip(1).collect();
    repo.git(&[&words[..], &["--no-edit"]].concat());
    assert_eq!(repo.git(&["show", "HEAD:README"]), "main\nrun");
}

#[test]
fn a_file_that_comes_meanwhile_is_not_overwritten() {
    let (repo, run) = conflicting(&format!("{KEEP_BOTH}; echo mine > \"$HOME/repo/new.txt\""), &[]);
    let main = repo.git(&["rev-parse", "HEAD"]);
    let failed = merge(&repo, &run, &[]).expect(2).stderr;
    assert!(failed.contains("new.txt") && failed.contains("git did not take the resolved merge"), "{failed}");
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), main);
    assert_eq!(std::fs::read_to_string(repo.path().join("new.txt")).unwrap(), "mine\n");
    std::fs::remove_file(repo.path().join("new.txt")).unwrap();
    let commit = failed.lines().last().unwrap().rsplit(' ').next().unwrap();
    repo.git(&["merge", "-q", commit]);
    assert_eq!(repo.git(&["show", "HEAD:README"]), "main\nrun");
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), commit, "it was paid for once");
}

#[test]
fn a_kill_at_any_instant_leaves_the_checkout_as_it_was_or_merged() {
    let (repo, run) = conflicting(&format!("sleep 0.2; {KEEP_BOTH}"), &[]);
    let (main, before) = (repo.git(&["rev-parse", "HEAD"]), repo.fingerprint());
    let work = |print: BTreeMap<String, Vec<u8>>| {
        let files = print.into_iter().filter(|(name, _)| name != ".git/index");
        files.collect::<BTreeMap<_, _>>()
    };
    for round in 0..16_u64 {
        let mut command = repo.command(PROGRAM);
        command.args(["merge", &run, "--with-agent"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Spread over the time that it takes on this machine, the beginning and the end included.
        std::thread::sleep(Duration::from_millis(55 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        // The integrator, and a git that was started, come to ends of their own.
        wait_for("git to end", || processes_with(repo.home().to_str().unwrap()).is_empty().then_some(()));
        repo.assert_sound();
        if repo.git(&["rev-parse", "HEAD"]) == main {
            assert_eq!(work(repo.fingerprint()), work(before.clone()), "round {round}");
        } else {
            assert_eq!(repo.git(&["show", "HEAD:README"]), "main\nrun", "round {round}");
            repo.git(&["reset", "-q", "--hard", &main]);
        }
        assert_eq!(repo.git(&["status", "--porcelain"]), "", "round {round}");
    }
    merge(&repo, &run, &[]).expect(0);
    assert_eq!(repo.git(&["show", "HEAD:README"]), "main\nrun");
    assert_cleared(&repo, &run);
    repo.assert_sound();
}

#[test]
fn hooks_hear_the_message_as_they_do_at_a_merge_of_ones_own() {
    let hook = |repo: &Repo, name: &str, body: &str| {
        let path = repo.path().join(".git/hooks").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    for (way, source) in [(&["--no-ff"][..], "merge"), (&["--squash"], "squash")] {
        let (repo, run) = conflicting(KEEP_BOTH, &[]);
        let main = repo.git(&["rev-parse", "HEAD"]);
        hook(&repo, "prepare-commit-msg", "echo \"$2 $(git rev-parse HEAD)\" > \"$HOME/prepared\"");
        // As Gerrit has it.
        hook(&repo, "commit-msg", "git interpret-trailers --in-place --trailer 'Change-Id: I123' \"$1\"");
        merge(&repo, &run, way).expect(0);
        assert_eq!(std::fs::read_to_string(repo.home().join("prepared")).unwrap(), format!("{source} {main}\n"));
        let trailers = repo.git(&["log", "-1", "--format=%(trailers)"]);
        assert!(trailers.contains("Change-Id: I123") && trailers.contains("Agentloop-Run: "), "{trailers}");

        // One that refuses costs neither the checkout nor what was paid for.
        repo.git(&["reset", "-q", "--hard", &main]);
        hook(&repo, "commit-msg", "grep -q ^Ticket: \"$1\" || { echo no ticket >&2; exit 1; }");
        let before = repo.fingerprint();
        let refused = merge(&repo, &run, way).expect(2).stderr;
        assert!(refused.contains("no ticket\nerror: your commit-msg hook refuses the message"), "{refused}");
        assert_eq!(repo.fingerprint(), before);
        assert!(!repo.path().join(".git/agentloop").join(&run).join("MERGE_MSG").exists());
        let command = refused.lines().last().unwrap().split_once(": to take it").map(|(_, rest)| rest).unwrap();
        let command = command.split_once(": ").unwrap().1;
        let editor = repo.script("editor", "echo 'Ticket: 7' >> \"$1\"");
        let taken = repo.command("sh").env("GIT_EDITOR", editor).args(["-ec", command]).output().unwrap();
        assert!(taken.status.success(), "{command}: {taken:?}");
        assert_eq!(repo.git(&["show", "HEAD:README"]), "main\nrun");
        assert!(repo.git(&["log", "-1", "--format=%B"]).contains("Ticket: 7"));
    }
}
