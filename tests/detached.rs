//! Runs whose driver is a process of its own.

use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use crate::support::{PROGRAM, Repo, wait_for};

#[test]
fn a_detached_run_is_on_record_the_moment_its_start_returns() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "20"]);
    for round in 0..200 {
        let started = repo.agentloop(&["run", "-d", "a goal", "--backend", "mock", "--json"]).expect(0).json();
        let run = started["run_id"].as_str().unwrap();
        let status = repo.status(run);
        let state = status["state"].as_str().unwrap();
        assert!(matches!(state, "running" | "completed"), "round {round}: {status}");
    }
    wait_for("all runs", || {
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        listed.as_array().unwrap().iter().all(|run| run["state"] == "completed").then_some(())
    });
    repo.assert_sound();
}

#[test]
fn killing_the_starter_s_process_group_leaves_the_run_alive() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "300"]);
    let shell = format!("{PROGRAM} run -d 'a goal' --backend mock --json && sleep 1000");
    let mut starter = repo
        .command("sh")
        .args(["-c", &shell])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let run = wait_for("the run", || {
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        Some(listed.as_array()?.first()?["run_id"].as_str()?.to_owned())
    });
    let group = rustix::process::Pid::from_raw(i32::try_from(starter.id()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    starter.wait().unwrap();
    assert_eq!(repo.status(&run)["running"], true);
    let status = repo.await_status(&run, |status| status["running"] == false);
    assert_eq!(status["state"], "completed");
}

#[test]
fn what_a_detached_start_refuses_it_refuses_before_it_returns() {
    let repo = Repo::new();
    let refused = repo.agentloop(&["run", "-d", "a goal", "--backend", "mock", "--base", "no-such-rev"]).expect(2);
    assert!(refused.stderr.contains("no-such-rev"), "{}", refused.stderr);
    assert_eq!(repo.git(&["for-each-ref", "refs/notes", "refs/heads/agentloop"]), "");
}

#[test]
fn twenty_runs_at_once_all_complete() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "file-{subgoal}=x\n"]);
    let children: Vec<_> =
        (0..20).map(|number| repo.spawn(&["run", &format!("goal {number}"), "--backend", "mock", "--json"])).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().iter().filter(|run| run["state"] == "completed").count(), 20);
    repo.assert_sound();
}

#[test]
fn a_driver_that_somebody_stopped_hears_cancel_all_the_same() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "60000"]);
    let run = repo.agentloop(&["run", "a goal", "--backend", "mock", "-d", "--json"]).expect(0).json();
    let run = run["run_id"].as_str().unwrap();
    let lock = std::fs::read_to_string(repo.path().join(format!(".git/agentloop/{run}/lock"))).unwrap();
    let driver = lock.split_whitespace().next().unwrap().to_owned();
    assert!(repo.command("kill").args(["-STOP", &driver]).status().unwrap().success());
    repo.agentloop(&["cancel", run]).expect(0);
    assert_eq!(repo.status(run)["state"], "cancelled");
}

#[test]
fn a_suspended_run_goes_on_with_its_answers() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.questions", r#"["Which framework?", "Which database?"]"#]);
    let asked = repo.agentloop(&["run", "build an API", "--backend", "mock", "--ask", "--json"]).expect(3).json();
    assert_eq!(asked["status"], "needs_input");
    assert_eq!(asked["questions"].as_array().unwrap().len(), 2);
    let (run, token) = (asked["run_id"].as_str().unwrap(), asked["token"].as_str().unwrap());
    assert_eq!(repo.status(run)["state"], "needs_input");

    let one = repo.agentloop(&["answer", run, "FastAPI"]).expect(2);
    assert!(one.stderr.contains("asks 2 questions, and was given 1 answer"), "{}", one.stderr);
    let forged =
        repo.agentloop(&["run", "--resume", &format!("{run}.forged"), "--answer", "a", "--answer", "b"]).expect(2);
    assert!(forged.stderr.contains("token"), "{}", forged.stderr);
    let done = repo
        .agentloop(&["run", "--resume", token, "--answer", "FastAPI", "--answer", "Postgres", "--json"])
        .expect(0)
        .json();
    assert_eq!(done["completed"], true);
    let replayed = repo.agentloop(&["run", "--resume", token, "--answer", "a", "--answer", "b"]).expect(2);
    assert!(replayed.stderr.contains("waits with no questions"), "{}", replayed.stderr);
}
