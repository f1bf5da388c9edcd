//! Cancel and Ctrl-C: no process of the run is left, and what was there is a commit.

use std::io::BufRead as _;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::fanout::{RUN, plan, scripted};
use crate::support::{PROGRAM, Repo, processes_with, wait_for};

/// A worker that writes a file, starts children in sessions of their own that ignore SIGTERM, and never ends.
const WORKER: &str = r#"
read -r role
cat > /dev/null
case "$role" in
*criteria*) echo 'it works' ;;
*decomposer*) echo '["work for ever"]' ;;
*subagent*)
    echo partial > partial.txt
    setsid sh -c 'trap "" TERM; while :; do sleep 1; done' &
    setsid env -i sh -c 'trap "" TERM; setsid sleep 1001 & while :; do sleep 1; done' &
    trap "" TERM
    touch "$READY"
    while :; do sleep 1; done ;;
esac
"#;

fn busy_repo() -> (Repo, String) {
    let repo = Repo::new();
    let ready = repo.home().join("ready");
    let body = WORKER.replace("$READY", ready.to_str().unwrap());
    let agent = repo.script("worker", &body);
    repo.git(&["config", "agentloop.backend.busy.command", &agent]);
    (repo, ready.to_str().unwrap().to_owned())
}

fn assert_stopped(repo: &Repo, run: &str) {
    let result = repo.agentloop(&["result", run, "--json"]).expect(4).json();
    assert_eq!(result["status"], "cancelled");
    assert_eq!(result["stop_reason"], "cancelled");
    let branch = format!("agentloop/{run}");
    assert_eq!(repo.git(&["show", &format!("{branch}:partial.txt")]), "partial");
    assert!(repo.git(&["log", "-1", "--format=%(trailers)", &branch]).contains("Agentloop-Verdict: partial"));
    wait_for("the end of every process of the run", || {
        let own = repo.home().to_str().unwrap();
        (processes_with(run).is_empty() && processes_with(own).is_empty()).then_some(())
    });
    repo.assert_sound();
}

fn newest(repo: &Repo) -> String {
    repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned()
}

fn interrupt(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn ctrl_c_stops_everything_and_keeps_the_work() {
    let (repo, ready) = busy_repo();
    let mut child = repo.spawn(&["run", "never ends", "--backend", "busy"]);
    wait_for("the worker", || std::fs::exists(&ready).unwrap().then_some(()));
    interrupt(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_stopped(&repo, &newest(&repo));
}

#[test]
fn a_terminal_that_is_closed_is_a_ctrl_c() {
    let (repo, ready) = busy_repo();
    let mut child = repo.spawn(&["run", "never ends", "--backend", "busy"]);
    wait_for("the worker", || std::fs::exists(&ready).unwrap().then_some(()));
    // The terminal is gone, too.
    drop((child.stdout.take(), child.stderr.take()));
    for _ in 0..2 {
        interrupt(&child, Signal::HUP);
    }
    child.wait().unwrap();
    assert_stopped(&repo, &newest(&repo));
}

#[test]
fn and_not_where_nohup_was_asked_for() {
    let repo = Repo::new();
    let wait = "touch \"$HOME/ready\"; while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done";
    scripted(&repo, &plan(&["a"]), wait, "true");
    let mut child = repo.command("nohup").arg(PROGRAM).args(RUN).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the worker", || repo.home().join("ready").exists().then_some(()));
    interrupt(&child, Signal::HUP);
    std::fs::write(repo.home().join("go"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_ctrl_c_leaves_nobody_at_work() {
    let (repo, ready) = busy_repo();
    let mut child = repo.spawn(&["run", "never ends", "--backend", "busy"]);
    wait_for("the worker", || std::fs::exists(&ready).unwrap().then_some(()));
    let run = newest(&repo);
    interrupt(&child, Signal::INT);
    let said = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    said.map(Result::unwrap).find(|line| line.starts_with("stopping: ")).unwrap();
    interrupt(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_eq!((processes_with(&run), processes_with(repo.home().to_str().unwrap())), (Vec::new(), Vec::new()));
    assert_eq!(repo.status(&run)["state"], "interrupted");
}

#[test]
fn cancel_stops_a_detached_run() {
    let (repo, ready) = busy_repo();
    repo.agentloop(&["run", "-d", "never ends", "--backend", "busy"]).expect(0);
    wait_for("the worker", || std::fs::exists(&ready).unwrap().then_some(()));
    let run = newest(&repo);
    let cancelled = repo.agentloop(&["cancel", &run]).expect(0);
    assert!(cancelled.stderr.starts_with("stopping: its workers are given time"), "{}", cancelled.stderr);
    assert_stopped(&repo, &run);
    let again = repo.agentloop(&["cancel", &run]).expect(2);
    assert!(again.stderr.contains("has ended"), "{}", again.stderr);
}

#[test]
fn cancel_ends_a_run_whose_driver_was_killed() {
    let (repo, ready) = busy_repo();
    let mut child = repo.spawn(&["run", "never ends", "--backend", "busy", "--verify", "false"]);
    wait_for("the worker", || std::fs::exists(&ready).unwrap().then_some(()));
    interrupt(&child, Signal::KILL);
    child.wait().unwrap();
    let run = newest(&repo);
    assert_eq!(repo.status(&run)["state"], "interrupted");
    assert!(!processes_with(&run).is_empty(), "the orphans that this test is about");
    // To end it takes none of its agents.
    repo.git(&["config", "--remove-section", "agentloop.backend.busy"]);
    repo.agentloop(&["cancel", &run]).expect(0);
    let result = repo.agentloop(&["result", &run, "--json"]).expect(4).json();
    assert_eq!(result["status"], "cancelled");
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:partial.txt")]), "partial");
    let resumed = repo.events(&run).into_iter().find(|event| event["kind"] == "run_resumed").unwrap();
    assert!(resumed["data"]["options"].is_null(), "whoever resumes it must meet the same checks: {resumed}");
    wait_for("the end of every process that carries the run's id", || processes_with(&run).is_empty().then_some(()));
}

#[test]
fn a_cancelled_run_can_be_resumed() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "500"]);
    repo.git(&["config", "agentloop.mock.edit", "file-{subgoal}=x\n"]);
    repo.agentloop(&["run", "-d", "a goal", "--backend", "mock"]).expect(0);
    let run = newest(&repo);
    repo.await_status(&run, |status| status["phase"] == "execute");
    repo.agentloop(&["cancel", &run]).expect(0);
    assert_eq!(repo.status(&run)["state"], "cancelled");
    repo.git(&["config", "agentloop.mock.delay", "0"]);
    let result = repo.agentloop(&["resume", &run, "--json"]).expect(0).json();
    assert_eq!(result["completed"], true);
    let again = repo.agentloop(&["resume", &run]).expect(2);
    assert!(again.stderr.contains("has reached its goal"), "{}", again.stderr);
}

#[test]
fn a_dead_run_is_ended_also_where_its_prompts_are_gone() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "30000"]);
    let mut child = repo.spawn(&["run", "a goal", "--backend", "mock"]);
    let run =
        wait_for("the run", || Some(repo.agentloop(&["list", "--json"]).json()[0]["run_id"].as_str()?.to_owned()));
    child.kill().unwrap();
    child.wait().unwrap();
    repo.git(&["config", "agentloop.prompts", "nowhere"]);
    repo.agentloop(&["cancel", &run]).expect(0);
    assert_eq!(repo.status(&run)["state"], "cancelled");
    let told = repo.agentloop(&["resume", &run]).expect(2).stderr;
    assert!(told.contains("agentloop.prompts"), "{told}");
}
