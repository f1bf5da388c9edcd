//! `merge`, `discard`, `prune`: what they take, and what they refuse.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::review::run_with_files;
use crate::support::{PROGRAM, Repo, wait_for};

/// A run with files, main having gone on since: a merge is no fast-forward.
fn diverged(goal: &str) -> (Repo, String) {
    let repo = Repo::new();
    let run = run_with_files(&repo, goal);
    repo.write("other", "x");
    repo.git(&["add", "other"]);
    repo.git(&["commit", "-qm", "main goes on"]);
    (repo, run)
}

fn is_merged(repo: &Repo, run: &str) -> bool {
    repo.agentloop(&["show", run, "--json"]).expect(0).json()["merged"] == true
}

#[test]
fn merge_takes_the_work_in_each_of_git_s_ways() {
    for (flag, commits) in [("", 1), ("--ff", 1), ("--no-ff", 1), ("--squash", 1), ("--rebase", 2)] {
        let flags = if flag.is_empty() { vec![] } else { vec![flag] };
        let (repo, run) = diverged("write files");
        let main = repo.git(&["rev-parse", "HEAD"]);
        assert!(!is_merged(&repo, &run));
        let merge = || repo.agentloop(&[&["merge", &run][..], &flags].concat());
        merge().expect(0);
        assert!(is_merged(&repo, &run), "{flag}");
        assert_eq!(repo.git(&["rev-list", "--count", "--first-parent", &format!("{main}..HEAD")]), commits.to_string());
        assert_eq!(repo.git(&["diff", "--stat", &format!("agentloop/{run}"), "HEAD", "--", "made-build.txt"]), "");
        assert_eq!(repo.git(&["status", "--porcelain"]), "");
        let trailer = repo.git(&["log", "-1", "--format=%(trailers:key=Agentloop-Run,valueonly)"]);
        assert_eq!(trailer.trim(), run, "{flag}");
        let subject = repo.git(&["log", "-1", "--format=%s"]);
        match flag {
            "--rebase" => assert!(subject.starts_with("agentloop: iteration 2/4"), "{subject}"),
            _ => assert_eq!(subject, "write files", "{flag}"),
        }
        // Once more is nothing to do.
        let again = repo.git(&["rev-parse", "HEAD"]);
        let said = merge().expect(0).stderr;
        assert_eq!(repo.git(&["rev-parse", "HEAD"]), again, "{flag}");
        let is_told = said.contains("its work is in your branch already");
        assert_eq!(is_told, ["--squash", "--rebase"].contains(&flag), "{flag}: {said}");
    }
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let forward = repo.agentloop(&["merge", "--ff"]).expect(0);
    assert!(forward.stderr.starts_with(&format!("taking agentloop/{run}: goal complete after 2 iterations")));
    assert!(!format!("{forward:?}").contains("ignored"), "{forward:?}");
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), repo.git(&["rev-parse", &format!("agentloop/{run}")]));
}

#[test]
fn a_merge_is_one_commit_with_the_goal_as_its_subject() {
    for (goal, subject) in [
        ("write files\n\nand say so", "write files"),
        ("#7: write files", "Merge #7: write files"),
        (
            "let the login page say why it refuses a password, and in the user's language",
            "let the login page say why it refuses a password, and in…",
        ),
    ] {
        // A setting of the user's would have it otherwise; an editor drops what looks like a comment.
        for (ff, edit) in [("true", "--no-edit"), ("only", "--edit"), ("false", "--no-edit")] {
            let repo = Repo::new();
            let run = run_with_files(&repo, goal);
            let branch = format!("agentloop/{run}");
            let ends = format!("{} {}", repo.git(&["rev-parse", "HEAD"]), repo.git(&["rev-parse", &branch]));
            repo.git(&["config", "merge.ff", ff]);
            let mut merge = repo.command(PROGRAM);
            assert!(merge.env("GIT_EDITOR", "true").args(["merge", edit]).output().unwrap().status.success());
            assert_eq!(repo.git(&["log", "-1", "--format=%P"]), ends, "{goal} {ff}");
            assert_eq!(repo.git(&["log", "-1", "--format=%s"]), subject);
            let body = repo.git(&["log", "-1", "--format=%b"]);
            assert_eq!(
                body.contains(&format!("    {}", goal.lines().next().unwrap())),
                !subject.contains(goal),
                "{body}"
            );
            assert_eq!(repo.git(&["log", "-1", "--format=%(trailers:key=Agentloop-Run,valueonly)"]).trim(), run);
            assert_eq!(repo.git(&["diff", "--stat", "HEAD", &branch]), "");
            assert!(is_merged(&repo, &run));
        }
    }
}

#[test]
fn of_a_run_that_changed_no_file_a_merge_takes_the_history() {
    let repo = Repo::new();
    let main = repo.git(&["rev-parse", "HEAD"]);
    let run = repo.mock_run("look around", &[])["run_id"].as_str().unwrap().to_owned();
    for way in ["--squash", "--rebase"] {
        let said = repo.agentloop(&["merge", &run, way]).expect(0);
        assert!(said.stderr.ends_with("it changed no file: there is nothing to take\n"), "{said:?}");
    }
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), main);
    let said = repo.agentloop(&["merge", &run, "--no-ff", "--no-edit"]).expect(0);
    assert!(said.stderr.contains("it changed no file: only its history is taken\n"), "{said:?}");
    assert_eq!(repo.git(&["rev-parse", "HEAD^2"]), repo.git(&["rev-parse", &format!("agentloop/{run}")]));
    assert!(repo.git(&["log", "-1", "--format=%(trailers)"]).contains(&format!("Agentloop-Run: {run}")));
}

#[test]
fn merge_stops_where_git_stops() {
    let (repo, run) = diverged("write files");
    // What is not committed and would be overwritten.
    repo.write("made-build.txt", "mine\n");
    for way in ["--no-ff", "--squash", "--rebase"] {
        let refused = repo.agentloop(&["merge", &run, way]);
        assert_ne!(refused.code, 0, "{way}");
        assert!(refused.stderr.contains("made-build.txt"), "{way}: {}", refused.stderr);
        assert_eq!(std::fs::read_to_string(repo.path().join("made-build.txt")).unwrap(), "mine\n");
        repo.try_git(&["cherry-pick", "--abort"]);
    }
    std::fs::remove_file(repo.path().join("made-build.txt")).unwrap();
    // Staged changes of the user's do not get into a commit of ours.
    repo.write("staged", "mine\n");
    repo.git(&["add", "staged"]);
    for way in ["--squash", "--rebase"] {
        let refused = repo.agentloop(&["merge", &run, way]).expect(2).stderr;
        assert!(refused.contains("staged changes") && refused.contains("git stash"), "{refused}");
    }
    repo.git(&["commit", "-qm", "staged"]);
    // A conflict is left for the user, as git leaves it; the words of the commit are drafted already.
    repo.write("made-build.txt", "ours\n");
    repo.commit("the same file");
    let head = repo.git(&["rev-parse", "HEAD"]);
    let preview = repo.agentloop(&["merge", &run, "--squash"]).expect(1);
    assert!(preview.stdout.contains("CONFLICT") && preview.stdout.contains("made-build.txt"), "{preview:?}");
    assert_eq!(repo.git(&["diff", "--name-only", "--diff-filter=U"]), "made-build.txt");
    repo.write("made-build.txt", "both\n");
    repo.git(&["add", "made-build.txt"]);
    repo.git(&["commit", "-q", "--no-edit"]);
    assert!(is_merged(&repo, &run), "the draft names what was taken");
    repo.git(&["reset", "-q", "--hard", &head]);
    repo.agentloop(&["merge", &run]).expect(1);
    assert!(repo.path().join(".git/MERGE_HEAD").exists());
    // In the middle of it, git refuses to begin another.
    let refused = repo.agentloop(&["merge", &run]);
    assert!(refused.code == 128 && refused.stderr.contains("unmerged files"), "{refused:?}");
    repo.git(&["merge", "--abort"]);
    assert_eq!(repo.git(&["rev-parse", "HEAD"]), head);
}

#[test]
fn merge_refuses_what_is_not_whole() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "30000"]);
    repo.agentloop(&["run", "a goal", "--backend", "mock", "-d"]).expect(0);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    for verb in ["merge", "discard"] {
        let mut arguments = vec![verb, &run];
        arguments.extend((verb == "discard").then_some("--yes"));
        let refused = repo.agentloop(&arguments).expect(2).stderr;
        assert!(refused.contains(&format!("{run} is running")), "{refused}");
    }
    repo.agentloop(&["cancel", &run]).expect(0);
    assert!(repo.agentloop(&["discard", &run]).expect(2).stderr.contains("--yes"));
    let bare = repo.home().join("bare");
    repo.git(&["clone", "-q", "--bare", repo.path().to_str().unwrap(), bare.to_str().unwrap()]);
    repo.git(&["--git-dir", bare.to_str().unwrap(), "fetch", "-q", ".", "HEAD"]);
    repo.git(&[
        "push",
        "-q",
        bare.to_str().unwrap(),
        &format!("refs/notes/agentloop/{run}:refs/notes/agentloop/{run}"),
    ]);
    let mut command = repo.command(PROGRAM);
    let refused = command.current_dir(&bare).args(["merge", &run]).output().unwrap();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bare"), "{refused:?}");
}

/// Commits that are reachable from some ref.
fn reachable(repo: &Repo) -> BTreeSet<String> {
    repo.git(&["rev-list", "--all"]).lines().map(ToOwned::to_owned).collect()
}

/// Runs the printed command as a user would, who has the program installed.
pub fn undo(repo: &Repo, command: &str) {
    let folder = std::path::Path::new(PROGRAM).parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path))).unwrap();
    let ran = repo.command("sh").env("PATH", path).args(["-ec", command]).output().unwrap();
    assert!(ran.status.success(), "{command}: {ran:?}");
}

#[test]
fn discard_keeps_everything_and_its_undo_works() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let worktree =
        repo.agentloop(&["result", "--json"]).expect(0).json()["worktree"]["path"].as_str().unwrap().to_owned();
    std::fs::write(format!("{worktree}/unsaved"), "precious\n").unwrap();
    let (before, list) = (reachable(&repo), repo.agentloop(&["list", "--json"]).expect(0).stdout);
    let tail = repo.agentloop(&["tail", &run, "--json"]).expect(0).stdout;
    let print = repo.fingerprint();

    let removal = repo.agentloop(&["discard", &run, "--yes", "--json"]).expect(0).json();
    assert_eq!(removal["undo"], format!("git agentloop restore {run}"));
    assert_eq!(repo.fingerprint(), print);
    assert!(!std::path::Path::new(&worktree).exists());
    assert!(!repo.path().join(".git/agentloop").join(&run).exists());
    assert_eq!(repo.agentloop(&["list", "--json"]).expect(0).json(), serde_json::json!([]));
    assert_eq!(
        repo.git(&["for-each-ref", "--format=%(refname)", "refs/heads/agentloop", "refs/notes", "refs/agentloop/run"]),
        ""
    );
    assert!(before.is_subset(&reachable(&repo)), "something is unreachable");
    let kept = removal["kept"][0].as_str().unwrap();
    let rescue = kept.split(' ').find(|word| word.starts_with("refs/")).unwrap();
    assert_eq!(repo.git(&["show", &format!("{rescue}:unsaved")]), "precious");

    // Whoever comes too late hears how to have it back.
    let told = repo.agentloop(&["show", &run]).expect(2).stderr;
    let hint = format!("error: {run} was discarded\nhint: to have it back: {}\n", removal["undo"].as_str().unwrap());
    assert_eq!(told, hint);

    undo(&repo, removal["undo"].as_str().unwrap());
    assert_eq!(repo.agentloop(&["list", "--json"]).expect(0).stdout, list);
    assert_eq!(repo.agentloop(&["tail", &run, "--json"]).expect(0).stdout, tail);
    repo.assert_sound();
}

#[test]
fn restore_brings_back_what_went_last_and_nothing_else() {
    let repo = Repo::new();
    assert!(repo.agentloop(&["restore"]).expect(2).stderr.contains("no run was discarded or pruned here"));
    let run = run_with_files(&repo, "write files");
    let refuse = |arguments: &[&str], words: &str| {
        let refused = repo.agentloop(arguments).expect(2).stderr;
        assert!(refused.contains(words) && refused.contains("\nhint: "), "{refused}");
    };
    refuse(&["restore", &run], "was discarded or pruned that is not here");
    refuse(&["restore", "nosuch"], "no run matches 'nosuch'");
    let refs = || repo.git(&["for-each-ref", "refs/heads", "refs/notes", "refs/agentloop/run"]);
    let before = refs();
    for name in [&run, "write", "", &format!("agentloop/{run}")] {
        repo.agentloop(&["discard", &run, "--yes"]).expect(0);
        assert_ne!(refs(), before);
        let named = if name.is_empty() { vec!["restore"] } else { vec!["restore", name] };
        let shown = repo.agentloop(&named).expect(0).stdout;
        assert!(shown.starts_with(&format!("restored {run}\n  refs/")), "{shown}");
        assert_eq!(refs(), before, "{name}");
    }
    refuse(&["restore"], "was discarded or pruned that is not here");
    // First pruned, then discarded: each is undone by itself.
    repo.agentloop(&["merge", &run]).expect(0);
    let main = repo.git(&["rev-parse", "main"]);
    let before = refs();
    repo.agentloop(&["prune", "--older-than", "0s", "--yes"]).expect(0);
    let pruned = refs();
    repo.agentloop(&["discard", &run, "--yes"]).expect(0);
    let restored = repo.agentloop(&["restore", &run, "--json"]).expect(0).json();
    assert_eq!((restored["run_id"].as_str(), refs()), (Some(run.as_str()), pruned));
    repo.agentloop(&["restore", &run]).expect(0);
    assert_eq!(refs(), before);
    // What is in the way stays, and so does all that was put away; refs that are not a run's are not made.
    repo.agentloop(&["discard", &run, "--yes"]).expect(0);
    let branch = format!("refs/heads/agentloop/{run}");
    repo.git(&["update-ref", &branch, &main]);
    let away = repo.git(&["for-each-ref"]);
    refuse(&["restore", &run], &format!("'{branch}' is here already"));
    assert_eq!(repo.git(&["for-each-ref"]), away);
    repo.git(&["update-ref", "-d", &branch]);
    let rescued = repo.git(&["for-each-ref", "--format=%(refname)", "refs/agentloop/rescue"]);
    let newest = rescued.lines().find_map(|name| name.strip_suffix(&format!("/notes/agentloop/{run}"))).unwrap();
    for name in rescued.lines().filter_map(|name| name.strip_suffix(&format!("/notes/agentloop/{run}"))) {
        repo.git(&["update-ref", &format!("{name}/heads/theirs"), &main]);
    }
    assert!(newest.contains(&run));
    repo.agentloop(&["restore", &run]).expect(0);
    assert_eq!(refs(), before);
    repo.assert_sound();
}

#[test]
fn what_stands_in_a_worktree_without_a_commit_is_kept() {
    for deed in ["git checkout -q --orphan fresh", "echo nonsense > \"$(git rev-parse --git-dir)/HEAD\""] {
        let repo = Repo::new();
        let run = run_with_files(&repo, "write files");
        let result = repo.agentloop(&["result", "--json"]).expect(0).json();
        let worktree = result["worktree"]["path"].as_str().unwrap();
        let done = repo.command("sh").args(["-ec", deed]).current_dir(worktree).status().unwrap();
        assert!(done.success(), "{deed}");
        std::fs::write(format!("{worktree}/unsaved"), "precious\n").unwrap();
        // What git cannot keep is not taken away.
        std::fs::write(format!("{worktree}/git~1"), "precious\n").unwrap();
        let refused = repo.agentloop(&["discard", &run, "--yes"]).expect(2).stderr;
        assert!(refused.contains("git cannot keep") && refused.contains("git~1"), "{refused}");
        std::fs::remove_file(format!("{worktree}/git~1")).unwrap();
        repo.agentloop(&["discard", &run, "--yes"]).expect(0);
        let rescued = repo.git(&["for-each-ref", "--format=%(refname)", "refs/agentloop/rescue/*/*"]);
        let holds = |name: &str| repo.try_git(&["show", &format!("{name}:unsaved")]).stdout == "precious\n";
        assert!(rescued.lines().any(holds), "{deed}: {rescued}");
    }
}

#[test]
fn a_branch_that_is_checked_out_is_not_taken_away() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    repo.git(&["switch", "-q", &format!("agentloop/{run}")]);
    let before = repo.fingerprint();
    let refused = repo.agentloop(&["discard", &run, "--yes"]).expect(2).stderr;
    assert!(refused.contains("is checked out in") && refused.contains("switch -"), "{refused}");
    assert_eq!(repo.fingerprint(), before);
    repo.agentloop(&["show", &run]).expect(0);
}

#[test]
fn prune_says_first_and_takes_only_merged_runs() {
    let repo = Repo::new();
    let merged = run_with_files(&repo, "merge me");
    repo.agentloop(&["merge", &merged]).expect(0);
    let open = run_with_files(&repo, "leave me");
    repo.git(&["config", "agentloop.mock.delay", "30000"]);
    repo.agentloop(&["run", "live", "--backend", "mock", "-d"]).expect(0);
    // From its first call on, nothing of it moves for half a minute.
    wait_for("the live run's first call", || repo.kinds("live").contains(&"agent_started".to_owned()).then_some(()));
    assert!(repo.agentloop(&["prune"]).expect(0).stdout.starts_with("nothing to prune"));
    let before = repo.git(&["for-each-ref"]);
    let said = repo.agentloop(&["prune", "--older-than", "0s"]).expect(0).stdout;
    assert!(
        said.contains(&format!("would remove {merged}\n")) && said.contains("prune --older-than 0s --yes"),
        "{said}"
    );
    assert!(!said.contains(&open) && !said.contains("live-"), "{said}");
    assert_eq!(repo.git(&["for-each-ref"]), before);

    let list = repo.agentloop(&["list", "--json"]).expect(0).stdout;
    let done = repo.agentloop(&["prune", "--older-than", "0s", "--yes", "--json"]).expect(0).json();
    assert_eq!(done.as_array().unwrap().len(), 1);
    assert_eq!(done[0]["run_id"], merged.as_str());
    assert_eq!(repo.git(&["branch", "--list", "--format=%(refname:lstrip=2)", "agentloop/*"]).lines().count(), 2);
    // Its record stays, and still says that it is merged.
    let now = |text: &str| -> Vec<Value> {
        let all: Vec<Value> = serde_json::from_str(text).unwrap();
        all.into_iter().filter(|one| one["running"] == false).collect()
    };
    assert_eq!(now(&repo.agentloop(&["list", "--json"]).expect(0).stdout), now(&list));
    repo.agentloop(&["result", &merged]).expect(0);
    undo(&repo, done[0]["removal"]["undo"].as_str().unwrap());
    // One that cannot go keeps no other from it, and what went is told with the way back.
    let look = repo.home().join("look");
    repo.git(&["worktree", "add", "-q", look.to_str().unwrap(), &format!("agentloop/{merged}")]);
    repo.agentloop(&["merge", &open]).expect(0);
    let some = repo.agentloop(&["prune", "--older-than", "0s", "--yes"]).expect(2);
    assert!(some.stdout.contains(&format!("removed {open}\n")) && some.stdout.contains("undo: "), "{}", some.stdout);
    assert!(some.stderr.contains("is checked out in"), "{}", some.stderr);
    repo.agentloop(&["cancel"]).expect(0);
    repo.assert_sound();
    for wrong in ["x", "3y", "-1d", "", "NaN", "1e300"] {
        assert!(
            repo.agentloop(&["prune", "--older-than", wrong])
                .expect(2)
                .stderr
                .contains("for --older-than (expected a duration"),
            "{wrong}"
        );
    }
}
