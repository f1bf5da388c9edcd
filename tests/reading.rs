//! `status`, `tail`, `result`, `list` give the same answers from anywhere git has the record.

mod showing;

use serde_json::Value;

use crate::support::Repo;

/// What the reading verbs say of `run`, but for what belongs to this machine.
fn answers(repo: &Repo, run: &str) -> Vec<Value> {
    let verbs: [&[&str]; 4] = [
        &["status", run, "--json"],
        &["tail", run, "--json", "--limit", "100000"],
        &["result", run, "--json"],
        &["list", "--json"],
    ];
    let mut answers: Vec<Value> = verbs.iter().map(|verb| repo.agentloop(verb).expect(0).json()).collect();
    answers[2]["worktree"]["path"] = Value::Null;
    answers
}

#[test]
fn an_ended_run_reads_the_same_without_its_worktree_and_in_a_clone() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}.txt={iteration}\n"]);
    let result = repo.mock_run("write three files", &["--verify", "true"]);
    let run = result["run_id"].as_str().unwrap();
    let path = result["worktree"]["path"].as_str().unwrap().to_owned();
    assert_eq!(result["worktree"]["changed_files"].as_array().unwrap().len(), 3);
    let before = answers(&repo, run);

    repo.git(&["worktree", "remove", "--force", &path]);
    assert_eq!(answers(&repo, run), before);
    repo.git(&["gc", "-q"]);
    assert_eq!(answers(&repo, run), before);

    let home = tempfile::tempdir().unwrap();
    let clone = home.path().join("clone");
    repo.git(&["clone", "-q", repo.path().to_str().unwrap(), clone.to_str().unwrap()]);
    let clone = Repo::at(home, clone);
    let branch = format!("refs/heads/agentloop/{run}:refs/heads/agentloop/{run}");
    let notes = format!("refs/notes/agentloop/{run}:refs/notes/agentloop/{run}");
    clone.git(&["fetch", "-q", "origin", &branch, &notes]);
    // But for who can vouch for it.
    let mut unverified = before;
    unverified[0]["verified"] = false.into();
    unverified[2]["verified"] = false.into();
    unverified[3][0]["verified"] = false.into();
    assert_eq!(answers(&clone, run), unverified);
}

#[test]
fn what_a_log_from_elsewhere_wants_to_run_is_asked_for_again() {
    let repo = Repo::new();
    let proof = repo.home().join("ran");
    let check = format!("touch {}", proof.display());
    repo.git(&["config", "agentloop.mock.acceptIteration", "9"]);
    let arguments =
        ["run", "a goal", "--backend", "mock", "--max-iterations", "1", "--verify", &check, "--permissions", "all"];
    repo.agentloop(&arguments).expect(1);
    assert!(proof.exists());
    std::fs::remove_file(&proof).unwrap();
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();

    let home = tempfile::tempdir().unwrap();
    let clone = home.path().join("clone");
    repo.git(&["clone", "-q", repo.path().to_str().unwrap(), clone.to_str().unwrap()]);
    let clone = Repo::at(home, clone);
    let both = [
        format!("refs/heads/agentloop/{run}:refs/heads/agentloop/{run}"),
        format!("refs/notes/agentloop/{run}:refs/notes/agentloop/{run}"),
    ];
    clone.git(&["fetch", "-q", "origin", &both[0], &both[1]]);
    let refused = clone.agentloop(&["resume", &run, "--max-iterations", "2"]).expect(2);
    assert!(refused.stderr.contains("was started in another clone"), "{}", refused.stderr);
    assert!(refused.stderr.contains("--verify") && refused.stderr.contains("--permissions all"), "{}", refused.stderr);
    assert!(!proof.exists(), "a command from a fetched log was run");
    assert_eq!(clone.kinds(&run), repo.kinds(&run), "a refused resume left something behind");

    clone.git(&["config", "agentloop.mock.acceptIteration", "9"]);
    let given =
        ["resume", &run, "--max-iterations", "2", "--verify", "true", "--permissions", "ask", "--backend", "mock"];
    clone.agentloop(&given).expect(1);
    assert!(!proof.exists());
}

#[test]
fn another_process_sees_a_run_while_it_runs() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "400"]);
    let mut child = repo.spawn(&["run", "a slow goal", "--backend", "mock", "--json"]);
    let status = crate::support::wait_for("the run", || {
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        listed.as_array()?.first().cloned()
    });
    let run = status["run_id"].as_str().unwrap().to_owned();
    let status = repo.await_status(&run, |status| status["phase"] == "execute");
    assert_eq!((&status["running"], &status["state"]), (&Value::Bool(true), &Value::from("running")));
    let result = repo.agentloop(&["result", &run, "--json"]).expect(0).json();
    assert_eq!((&result["status"], &result["completed"]), (&Value::from("running"), &Value::Bool(false)));
    let waited = repo.agentloop(&["result", &run, "--wait", "--json"]).expect(0).json();
    assert!(child.wait().unwrap().success());
    assert_eq!((&waited["status"], &waited["completed"]), (&Value::from("completed"), &Value::Bool(true)));
}

#[test]
fn a_tail_in_small_pages_is_the_whole_log_once_and_in_order() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let (mut cursor, mut seen) = (0, Vec::new());
    loop {
        let page =
            repo.agentloop(&["tail", &run, "--cursor", &cursor.to_string(), "--limit", "3", "--json"]).expect(0).json();
        seen.extend(page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()));
        cursor = page["cursor"].as_u64().unwrap();
        if page["more"] == false {
            break;
        }
    }
    let all: Vec<u64> = (1..=seen.len() as u64).collect();
    assert_eq!(seen, all);
    assert_eq!(repo.events(&run).len(), all.len());
}

#[test]
fn transcripts_are_kept_apart_from_the_log() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let listed = repo.agentloop(&["output", &run]).expect(0).stdout;
    assert_eq!(listed.lines().count(), 6, "{listed}");
    let first = listed.lines().next().unwrap().trim_end_matches(".out").rsplit_once('/').unwrap().0.to_owned();
    assert!(!repo.agentloop(&["output", &run, &first]).expect(0).stdout.is_empty());
    let of_run = repo.agentloop(&["output", &run, &first]).expect(0).stdout;
    assert_eq!(repo.agentloop(&["output", &first]).expect(0).stdout, of_run, "without a run, the newest is meant");
    assert_eq!(repo.agentloop(&["output", "-f", &first]).expect(0).stdout, of_run);
    let unnamed = repo.agentloop(&["output", &run, "-f"]).expect(2).stderr;
    assert!(unnamed.contains("-f follows one worker or check") && unnamed.contains("hint: "), "{unnamed}");
    let unknown = repo.agentloop(&["output", &run, "iter9/nothing"]).expect(2);
    assert!(unknown.stderr.contains("has no transcript 'iter9/nothing'"), "{}", unknown.stderr);
}

#[test]
fn a_transcript_that_moves_to_its_ref_is_never_missed() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use git_agentloop::app::{self, Site};
    use git_agentloop::ledger::git::{GitLedger, OnRecord, Repository};
    use git_agentloop::ledger::{Ledger as _, Preferences};
    use git_agentloop::run::goal::Isolation;
    const TRANSCRIPTS: usize = 1_000;
    let repo = Repo::new();
    let run = repo.mock_run("x", &[])["run_id"].as_str().unwrap().to_owned();
    let known = OnRecord {
        run: run.parse().unwrap(),
        tip: repo.git(&["rev-parse", &format!("agentloop/{run}")]),
        isolation: Isolation::Worktree,
        preferences: Preferences::default(),
    };
    let ledger = GitLedger::open(Repository::open(Some(repo.path())).unwrap(), known).unwrap();
    let site = Site::open(Some(repo.path())).unwrap();
    let newest = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // As a worker does it.
        scope.spawn(|| {
            for number in 1..=TRANSCRIPTS {
                let path = format!("iter9/s{}/{number}.out", number % 20);
                let file = ledger.scratch().join(&path);
                std::fs::create_dir_all(file.parent().unwrap()).unwrap();
                std::fs::write(&file, "printed").unwrap();
                newest.store(number, Ordering::SeqCst);
                ledger.store_output(&path, b"printed").unwrap();
                std::fs::remove_file(file).unwrap();
            }
        });
        while newest.load(Ordering::SeqCst) < TRANSCRIPTS {
            let number = newest.load(Ordering::SeqCst);
            if number > 0 {
                let which = format!("iter9/s{}/{number}", number % 20);
                let found = app::output(&site, Some(&run), Some(&which)).unwrap();
                assert_eq!(found.text.as_deref(), Some(&b"printed"[..]), "{which}");
            }
        }
    });
}
