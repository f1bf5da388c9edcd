//! Usage limits whose reset an agent tells in words: until when a run waits, and what ends the wait.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::UNIX_EPOCH;

use jiff::{ToSpan as _, Zoned};
use serde_json::{Value, json};

use crate::support::{PROGRAM, Ran, Repo, hermetic, wait_for};

/// The machine's zone in these tests.
const ZONE: &str = "Asia/Kolkata";

/// What Claude Code prints.
fn claude(words: &str) -> String {
    json!({"type": "result", "subtype": "success", "is_error": true, "result": words, "usage": {}}).to_string()
}

/// What Codex prints.
fn codex(words: &str) -> String {
    let lines = [
        json!({"type": "thread.started", "thread_id": "t"}),
        json!({"type": "error", "message": words}),
        json!({"type": "turn.failed", "error": {"message": words}}),
    ];
    lines.map(|line| line.to_string()).join("\n")
}

/// `run` with an agent that prints `answer` to whatever it is asked, on a machine in [`ZONE`].
fn run(repo: &Repo, backend: &str, answer: &str, arguments: &[&str]) -> Ran {
    let said = repo.home().join("answer");
    std::fs::write(&said, answer).unwrap();
    let bin = repo.home().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in ["claude", "codex"] {
        std::fs::write(bin.join(name), format!("#!/bin/sh\ncat '{}'; exit 1\n", said.display())).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(PROGRAM);
    hermetic(&mut command, repo.home());
    let dirs = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(std::iter::once(bin).chain(std::env::split_paths(&dirs))).unwrap();
    command.env("PATH", path).env("TZ", ZONE).current_dir(repo.path());
    command.args(["run", "x", "--criteria", "y", "--backend", backend]).args(arguments);
    Ran::of(&command.output().unwrap())
}

/// The event with which a run begins to wait.
fn await_waiting(repo: &Repo, id: &str) -> Value {
    let is_waiting = |event: &Value| event["kind"] == "waiting";
    wait_for("the run to wait", || repo.events(id).into_iter().find(is_waiting))
}

#[test]
fn a_run_waits_until_the_moment_that_the_words_name() {
    let now = Zoned::now().in_tz(ZONE).unwrap();
    let tokyo = now.in_tz("Asia/Tokyo").unwrap();
    let (soon, far) = (now.checked_add(3.hours()).unwrap(), now.checked_add(50.hours()).unwrap());
    let bare = soon.strftime("%-I:%M%P");
    let cases = [
        ("claude_code", claude(&format!("You've hit your session limit · resets {bare}")), 3.0),
        (
            "claude_code",
            claude(&format!(
                "You've hit your limit · resets {} (Asia/Tokyo)",
                tokyo.checked_add(3.hours()).unwrap().strftime("%-I:%M%P")
            )),
            3.0,
        ),
        (
            "claude_code",
            claude(&format!("You've hit your weekly limit · resets {}", far.strftime("%b %-d, %-I:%M%P"))),
            50.0,
        ),
        ("claude_code", claude(&format!("Spending cap reached resets {bare} (IST)")), 3.0),
        ("claude_code", claude(&format!("Claude AI usage limit reached|{}", soon.timestamp().as_second())), 3.0),
        (
            "codex",
            codex(&format!(
                "You've hit your usage limit. Upgrade to Pro or try again at {}.",
                soon.strftime("%-I:%M %p")
            )),
            3.0,
        ),
        (
            "codex",
            codex(&format!("You've hit your usage limit. Try again at {}.", far.strftime("%b %-dth, %Y %-I:%M %p"))),
            50.0,
        ),
        ("codex", codex("You've hit your usage limit. Try again in 2 days 2 hours 5 minutes."), 50.08),
    ];
    for (backend, answer, hours) in cases {
        let repo = Repo::new();
        let id =
            run(&repo, backend, &answer, &["-d", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
        let waiting = await_waiting(&repo, &id);
        let until = waiting["data"]["until"].as_f64().unwrap();
        let named = UNIX_EPOCH.elapsed().unwrap().as_secs_f64() + hours * 3600.0;
        assert!((until - named).abs() < 150.0, "{answer}: waits {} s too long", until - named);
        repo.agentloop(&["cancel", &id]).expect(0);
    }
}

#[test]
fn a_wait_says_until_when_and_why_and_ends_with_the_budget() {
    let until = Zoned::now().in_tz(ZONE).unwrap().checked_add(3.hours()).unwrap();
    let words = format!("You've hit your usage limit. Try again at {}.", until.strftime("%-I:%M %p"));
    let repo = Repo::new();
    let ran = run(&repo, "codex", &codex(&words), &["--json", "--max-seconds", "3"]).expect(1);
    assert_eq!(ran.json()["stop_reason"], "max_seconds", "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!(" for codex, attempt 1 failed: {words}")), "{}", ran.stderr);

    let repo = Repo::new();
    let id =
        run(&repo, "codex", &codex(&words), &["-d", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    let waits_until = await_waiting(&repo, &id)["data"]["until"].clone();
    let status = repo.status(&id);
    assert_eq!(status["waiting"], json!({ "until": waits_until, "why": format!("codex: {words}") }), "{status:#}");
    let shown = repo.agentloop_with(&["status", &id], &[("TZ", ZONE)]).expect(0).stdout;
    assert!(
        shown.contains("\nwaiting: until ") && shown.contains(&until.strftime("%H:%M, codex: ").to_string()),
        "{shown}"
    );
    let tail = repo.agentloop_with(&["tail", &id], &[("TZ", ZONE)]).expect(0).stdout;
    assert!(
        tail.contains(&format!(" for codex, attempt 1 failed: {words}"))
            && tail.contains(&until.strftime(" (until %H:%M) ").to_string())
            || tail.contains(&until.strftime(" (until %b %-d, %H:%M) ").to_string()),
        "{tail}"
    );
    repo.agentloop(&["cancel", &id]).expect(0);

    let repo = Repo::new();
    let result = run(&repo, "codex", &codex(&words), &["--json", "--no-wait"]).expect(1).json();
    assert_eq!(result["stop_reason"], "usage_limit", "{result:#}");
    let hint = result["hint"].as_str().unwrap();
    assert!(hint.contains("it resets at ") && hint.contains(&until.strftime("%H:%M").to_string()), "{hint}");
}
