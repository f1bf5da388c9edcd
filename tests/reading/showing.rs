//! Why a check failed is shown where it failed, and all that it printed is kept.

use serde_json::json;

use crate::mcp::client::Client;
use crate::support::Repo;

/// A run whose check fails after it has printed forty lines, a terminal's escape and a secret; the run's id, and what
/// was shown while it went on.
fn red(repo: &Repo, settings: &[&str]) -> (String, String) {
    let check = repo.script(
        "check",
        "seq 1 40\nprintf 'assertion failed: \\033[31msum\\033[2J of ghp_%036d\\n' 7\nseq 41 45\necho late words >&2\nexit 3",
    );
    for setting in settings {
        let (key, value) = setting.split_once('=').unwrap();
        repo.git(&["config", key, value]);
    }
    let arguments = ["run", "a goal", "--backend", "mock", "--verify", "true", "--verify", &check];
    let ran = repo.agentloop(&[&arguments[..], &["--max-iterations", "1", "--no-baseline"]].concat()).expect(1);
    let run = repo.git(&["for-each-ref", "--format=%(refname:lstrip=3)", "refs/notes/agentloop/"]);
    (run, ran.stderr + &ran.stdout)
}

#[test]
fn the_last_lines_of_a_red_check_are_shown_wherever_the_run_is() {
    let repo = Repo::new();
    let (run, live) = red(&repo, &[]);
    let all = format!("all of it: git agentloop output {run} iter1/check2");
    let tail = repo.agentloop(&["tail", &run]).expect(0).stdout;
    let show = repo.agentloop(&["show", &run]).expect(0).stdout;
    let result = repo.agentloop(&["result", &run]).expect(1).stdout;
    for (place, text) in [("run", &live), ("tail", &tail), ("show", &show), ("result", &result)] {
        assert!(text.contains("exit code 3"), "{place}: {text}");
        for line in ["38", "assertion failed: sum of [redacted]", "45", "late words", &all] {
            assert!(text.lines().any(|shown| shown.trim() == line), "{place} lacks {line:?}:\n{text}");
        }
        assert!(!text.lines().any(|shown| shown.trim() == "12"), "{place} is too long:\n{text}");
        assert!(!text.contains('\u{1b}'), "{place}: {text:?}");
        assert!(
            text.contains("/check' failed: assertion failed: sum of [redacted]"),
            "{place} has no reason in its summary:\n{text}"
        );
    }
}

#[test]
fn all_that_a_check_printed_is_kept_and_listed_beside_workers() {
    let repo = Repo::new();
    let (run, _) = red(&repo, &[]);
    let listed = repo.agentloop(&["output", &run]).expect(0).stdout;
    for path in ["iter1/build/1.out", "iter1/check1.out", "iter1/check2.out"] {
        assert!(listed.lines().any(|line| line == path), "{path} is not in\n{listed}");
    }
    assert_eq!(repo.agentloop(&["output", &run, "iter1/check1"]).expect(0).stdout, "");
    let printed = repo.agentloop(&["output", &run, "iter1/check2"]).expect(0).stdout;
    let numbers = (1..=45).map(|number| number.to_string());
    assert!(numbers.into_iter().all(|number| printed.lines().any(|line| line == number)), "{printed}");
    assert!(printed.contains("late words") && printed.contains("of [redacted]"), "{printed}");

    let result = repo.agentloop(&["result", &run, "--json"]).expect(1).json();
    let checks = &result["history"][0]["verification"];
    assert_eq!(
        (&checks[0]["output_path"], &checks[1]["output_path"]),
        (&json!("iter1/check1.out"), &json!("iter1/check2.out"))
    );
    let arguments = json!({ "run_id": run, "iteration": 1, "subgoal": "check2" });
    let page = Client::start(&repo).call("orchestrate_output", arguments);
    let raw = repo.agentloop(&["output", &run, "iter1/check2", "--raw"]).expect(0).stdout;
    assert_eq!(page["text"], json!(raw), "{page}");
}

#[test]
fn a_check_whose_output_was_not_kept_is_a_clear_error() {
    let (refused, old) = (Repo::new(), Repo::new());
    let (first, live) = red(&refused, &["agentloop.output=none"]);
    assert!(live.contains("late words") && !live.contains("all of it"), "{live}");
    let (second, _) = red(&old, &[]);
    old.git(&["update-ref", "-d", &format!("refs/agentloop/run/{second}/output")]);
    for (repo, run) in [(&refused, &first), (&old, &second)] {
        let ran = repo.agentloop(&["output", run, "iter1/check2"]).expect(2);
        assert!(ran.stderr.contains("has no transcript 'iter1/check2'"), "{}", ran.stderr);
        assert!(ran.stderr.contains("an older version ran it"), "{}", ran.stderr);
    }
}

#[test]
fn what_a_check_printed_before_any_work_is_kept_apart() {
    let repo = Repo::new();
    let check = repo.script("check", "test -e done || { echo nothing is done; exit 1; }; echo all is done");
    repo.git(&["config", "agentloop.mock.edit", "done={subgoal}"]);
    let run = repo.mock_run("a goal", &["--verify", &check])["run_id"].as_str().unwrap().to_owned();
    for (which, printed) in [("iter0/check1", "nothing is done\n"), ("iter2/check1", "all is done\n")] {
        assert_eq!(repo.agentloop(&["output", &run, which]).expect(0).stdout, printed, "{which}");
    }
}

/// What an agent prints that streams JSON: some lines of its stream, and some that are none.
const STREAM: &str = r#"hello from \033[31mthe\033[0m agent
{"type":"assistant","message":{"content":[{"type":"text","text":"I write it."}]}}
{"type":"assistant","message":{"content":[{"type":"tool_use","id":"1","name":"Bash","input":{"command":"make"}}]}}
{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"1","is_error":true,"content":"Exit code 2 with ghp_000000000000000000000000000000000007"}]}}
{"type":"assistant","message":{"content":
"#;

/// A worker that prints the stream, and goes on once the file `go` is there.
fn streamer(repo: &Repo, waits: bool) {
    let go = repo.home().join("go");
    let wait = if waits { format!("until test -e {}; do sleep 0.01; done", go.display()) } else { String::new() };
    let stream = STREAM.replace("\\033", "\u{1b}");
    let script = repo.script("streamer", &format!("cat >/dev/null; cat <<'END'\n{stream}END\n{wait}\necho last line"));
    repo.git(&["config", "agentloop.backend.streamer.command", &script]);
}

const RENDERED: &str = "hello from the agent
text     I write it.
command  make
result   failed
         Exit code 2 with [redacted]
{\"type\":\"assistant\",\"message\":{\"content\":
";

#[test]
fn a_stream_is_text_and_raw_as_it_was_printed() {
    let repo = Repo::new();
    streamer(&repo, false);
    let run = repo.mock_run("a goal", &["--worker", "streamer"])["run_id"].as_str().unwrap().to_owned();
    let shown = repo.agentloop(&["output", &run, "iter1/build"]).expect(0).stdout;
    assert_eq!(shown, format!("{RENDERED}last line\n"));
    let raw = repo.agentloop(&["output", &run, "iter1/build", "--raw"]).expect(0).stdout;
    let printed = STREAM.replace("\\033", "\u{1b}").replace("ghp_000000000000000000000000000000000007", "[redacted]");
    assert_eq!(raw, format!("{printed}last line\n"));
    let json = repo.agentloop(&["output", &run, "iter1/build", "--json"]).expect(0).json();
    assert_eq!(json["text"], json!(raw), "programs read what was printed");
    repo.agentloop(&["output", &run, "iter1/build", "--json", "--raw"]).expect(2);
}

#[test]
fn a_stream_is_followed_as_text_while_it_goes_on() {
    use std::io::{BufRead as _, BufReader, Read as _};
    let repo = Repo::new();
    streamer(&repo, true);
    let driver =
        repo.agentloop(&["run", "-d", "a goal", "--backend", "mock", "--worker", "streamer", "--json"]).expect(0);
    let run = driver.json()["run_id"].as_str().unwrap().to_owned();
    crate::support::wait_for("the transcript", || {
        repo.agentloop(&["output", &run]).stdout.contains("iter1/build").then_some(())
    });
    let mut follow = repo.spawn(&["output", &run, "iter1/build", "-f"]);
    let mut out = BufReader::new(follow.stdout.take().unwrap());
    let mut shown = String::new();
    while shown.lines().count() < RENDERED.lines().count() - 1 {
        assert_ne!(out.read_line(&mut shown).unwrap(), 0, "it ended after:\n{shown}");
    }
    assert!(RENDERED.starts_with(&shown), "{shown}");
    std::fs::write(repo.home().join("go"), "").unwrap();
    out.read_to_string(&mut shown).unwrap();
    assert_eq!(shown, format!("{RENDERED}last line\n"));
    assert!(follow.wait().unwrap().success());
    repo.await_status(&run, |status| status["running"] == false);
}

#[test]
fn a_check_that_prints_json_is_not_taken_for_an_agent() {
    let repo = Repo::new();
    let line = r#"{"type":"error","message":"x"}"#;
    let check = repo.script("check", &format!("printf '%s\\033[2J\\n' '{line}'"));
    let run = repo.mock_run("a goal", &["--verify", &check])["run_id"].as_str().unwrap().to_owned();
    assert_eq!(repo.agentloop(&["output", &run, "iter0/check1"]).expect(0).stdout, format!("{line}\n"));
    let raw = repo.agentloop(&["output", &run, "iter0/check1", "--raw"]).expect(0).stdout;
    assert_eq!(raw, format!("{line}\u{1b}[2J\n"));
}
