use super::*;
use crate::agent::tests::request;
use crate::run::goal::Role;
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn captures() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/claude");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| {
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap())
    };
    files.map(read).collect()
}

fn capture(name: &str) -> String {
    captures().into_iter().find(|(file, _)| file == name).unwrap().1
}

/// A `claude` that prints `stdout` and `stderr` and exits with `code`.
fn fake(dir: &Path, stdout: &str, stderr: &str, code: i32) -> Claude {
    std::fs::write(dir.join("stdout"), stdout).unwrap();
    std::fs::write(dir.join("stderr"), stderr).unwrap();
    let body = format!(
        "#!/bin/sh\nd=${{0%/*}}\nprintf '%s\\n' \"$@\" > $d/argv\ncat > $d/stdin\nenv > $d/env\ncat $d/stdout\ncat $d/stderr >&2\nexit {code}\n"
    );
    let path = dir.join("claude");
    std::fs::write(&path, body).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    Claude::at(path.to_str().unwrap())
}

#[test]
fn every_capture_is_understood() {
    let all = captures();
    assert!(all.len() >= 25, "the captures are not where this test looks");
    let (answers, rest): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|(name, _)| name.ends_with("stdout") && (name.contains("json") || name.starts_with("role_")));
    for (name, text) in answers {
        let kind = match parse(text).unwrap_or_else(|| panic!("{name} has no result")) {
            Ok(response) => {
                assert!(!response.text.is_empty() && response.usage.tokens_in > 0, "{name}");
                assert!(response.usage.cost_usd.is_some() && response.session_id.is_some(), "{name}");
                None
            }
            Err(failure) => Some(failure.kind),
        };
        let expected = match name.as_str() {
            _ if name.contains("err401") || name.contains("nologin") => Some(FailureKind::NotLoggedIn),
            _ if name.contains("err529") => Some(FailureKind::Overloaded),
            _ if name.contains("err400") => Some(FailureKind::Crashed),
            _ if name.contains("hang_timeout") => Some(FailureKind::Network),
            _ => None,
        };
        assert_eq!(kind, expected, "{name}");
    }
    // In another of its modes, or beside an answer: the kind is that of the words where no answer comes with them.
    for (name, text) in rest {
        let expected = match name.as_str() {
            "plain_nologin.stdout" => FailureKind::NotLoggedIn,
            "plain_err529_retries0.stdout" => FailureKind::Overloaded,
            "plain_ok.stdout"
            | "root_bubblewrap.stdout"
            | "json_badmodel.stderr"
            | "plain_root_refused.stderr"
            | "root_allow_flag.stderr"
            | "stream_json_noverbose.stderr" => FailureKind::Crashed,
            _ => panic!("nothing is expected of {name}"),
        };
        assert_eq!(parse(text), None, "{name}");
        assert_eq!(explain::kind(None, text), expected, "{name}");
    }
}

#[test]
fn an_answer_is_read_whole() {
    let response = parse(&capture("json_ok.stdout")).unwrap().unwrap();
    assert_eq!(response.text, "done: hello.txt");
    assert_eq!(response.usage.tokens_in, 25151);
    let mut value: Value = serde_json::from_str(&capture("json_ok.stdout")).unwrap();
    value["usage"] = json!({"input_tokens": 1, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 300,
        "output_tokens": 4000});
    let usage = parse(&value.to_string()).unwrap().unwrap().usage;
    assert_eq!((usage.tokens_in, usage.tokens_out, usage.tokens_cached), (321, 4000, 20));
    let noisy = format!("Welcome!\n{{\"type\": \"system\"}}\n{{broken\n{}", capture("json_ok.stdout"));
    assert_eq!(parse(&noisy).unwrap().unwrap().text, "done: hello.txt");
    let list = format!("[{{\"type\":\"system\"}},{value}]");
    assert_eq!(parse(&list).unwrap().unwrap().text, "done: hello.txt");
}

#[test]
fn failures_are_told_apart() {
    let of = |value: Value| advise(parse(&value.to_string()).unwrap().unwrap_err());
    let error = |status: Value, text: &str| {
        of(
            json!({"type": "result", "subtype": "success", "is_error": true, "api_error_status": status, "result": text}),
        )
    };
    assert_eq!(error(json!(403), "x").kind, FailureKind::NotLoggedIn);
    assert!(error(json!(401), "x").hint.unwrap().contains("/login"));
    assert_eq!(error(json!(404), "x").kind, FailureKind::UnknownModel);
    let soon = explain::now().0 / 1000 + 7200;
    let limited = error(json!(429), &format!("Claude AI usage limit reached|{soon}"));
    assert_eq!((limited.kind, limited.reset_at), (FailureKind::RateLimited, Some(Timestamp(soon * 1000))));
    assert_eq!(error(Value::Null, "Connection to the API was lost").kind, FailureKind::Network);
    let stopped = of(json!({"type": "result", "subtype": "error_max_turns", "is_error": true, "errors": ["too many"]}));
    assert_eq!((stopped.kind, stopped.message.as_str()), (FailureKind::Crashed, "too many"));
    let denied = json!({"type": "result", "is_error": false, "result": "", "permission_denials": [{}]});
    assert_eq!(of(denied).kind, FailureKind::PermissionDenied);
    let mut late: Value = serde_json::from_str(&capture("json_ok.stdout")).unwrap();
    (late["is_error"], late["api_error_status"], late["result"]) = (json!(true), json!(529), json!("Overloaded"));
    let failure = of(late);
    let spent = failure.spent.unwrap();
    assert_eq!((failure.kind, spent.tokens_in, spent.cost_usd.is_some()), (FailureKind::Overloaded, 25151, true));
    let event = json!({"type": "rate_limit_event", "rate_limit_info": {"resetsAt": 1_790_000_001}});
    let result = json!({"type": "result", "is_error": true, "api_error_status": 429, "result": "limit"});
    let failure = parse(&format!("{event}\n{result}")).unwrap().unwrap_err();
    assert_eq!(failure.reset_at, Some(Timestamp(1_790_000_001_000)));
    for (status, is_spent) in [("allowed", false), ("allowed_warning", false), ("rejected", true)] {
        let event =
            json!({"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": 1_790_000_001}});
        let failure = parse(&format!("{event}\n{result}")).unwrap().unwrap_err();
        assert_eq!(failure.reset_at.is_some(), is_spent, "{status}");
    }
}

#[tokio::test]
async fn it_is_called_as_documented() {
    let dir = tempfile::tempdir().unwrap();
    let agent = fake(dir.path(), &capture("json_ok.stdout"), "", 0);
    let base = Request { system: "SYS".into(), model: Some("sonnet".into()), ..request(Role::Subagent, dir.path()) };
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    let response = agent.run(&base).await.unwrap();
    assert_eq!(response.text, "done: hello.txt");
    let begin = "-p\n--output-format\nstream-json\n--verbose\n--append-system-prompt\nSYS\n--model\nsonnet\n";
    assert_eq!(read("argv"), format!("{begin}--permission-mode\nacceptEdits\n"));
    assert_eq!(read("stdin"), "the task\n");
    let env = read("env");
    for line in ["CLAUDE_CODE_MAX_RETRIES=0", "DISABLE_AUTOUPDATER=1", "AGENTLOOP_CALL=1"] {
        assert!(env.lines().any(|set| set == line), "{line}");
    }
    assert!(!env.lines().any(|set| set.starts_with("CLAUDECODE=")));
    let ask = Request { permissions: Permissions::Ask, ..base.clone() };
    agent.run(&ask).await.unwrap();
    assert_eq!(read("argv"), begin);
    let all = Request { permissions: Permissions::All, model: None, ..base };
    for root in [false, true] {
        let invocation = agent.invocation(&all, root);
        assert_eq!(invocation.argv.last().unwrap(), "--dangerously-skip-permissions");
        assert_eq!(invocation.env.iter().any(|(name, _)| *name == "IS_SANDBOX"), root);
    }
}

#[tokio::test]
async fn output_without_a_result_is_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(Role::Subagent, dir.path());
    let ok = capture("json_ok.stdout");
    for (stdout, stderr, code, kind) in [
        (&ok[..ok.len() / 2], "", 0, FailureKind::Protocol),
        ("", "", 0, FailureKind::Protocol),
        (capture("plain_nologin.stdout").as_str(), "", 1, FailureKind::NotLoggedIn),
        (capture("plain_err529_retries0.stdout").as_str(), "", 1, FailureKind::Overloaded),
        ("", capture("plain_root_refused.stderr").as_str(), 1, FailureKind::Crashed),
        ("", capture("root_allow_flag.stderr").as_str(), 1, FailureKind::Crashed),
        ("", capture("stream_json_noverbose.stderr").as_str(), 1, FailureKind::Crashed),
        (&ok, "late trouble", 1, FailureKind::Crashed),
        (&ok.replace("done: hello.txt", "it is not logged in"), "", 1, FailureKind::Crashed),
    ] {
        let failure = fake(dir.path(), stdout, stderr, code).run(&request).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
        assert!(failure.message.contains(stderr.trim()), "it says why: {failure}");
        let spent = failure.spent.map_or(0, |usage| usage.tokens_in);
        assert_eq!(
            spent,
            if matches!(parse(stdout), Some(Ok(_))) { 25151 } else { 0 },
            "what it used counts however it ended"
        );
    }
    let failure = Claude::at("no-such-claude-anywhere").run(&request).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotInstalled);
}

#[tokio::test]
async fn a_long_stream_is_read_by_its_end_and_a_torn_one_by_its_messages() {
    let dir = tempfile::tempdir().unwrap();
    let stream = capture("stream_json_ok.stdout");
    let (before, result) = stream.trim_end().rsplit_once('\n').unwrap();
    let noise = format!("{{\"type\":\"user\",\"message\":{{\"content\":\"{}\"}}}}\n", "x".repeat(1 << 20)).repeat(6);
    let long = format!("{before}\n{noise}{result}\n");
    let response = fake(dir.path(), &long, "", 0).run(&request(Role::Subagent, dir.path())).await.unwrap();
    assert_eq!((response.text.as_str(), response.usage.tokens_in), ("done: hello.txt", 25134));
    let cut = format!("{before}\n{noise}");
    let failure = fake(dir.path(), &cut, "", 0).run(&request(Role::Subagent, dir.path())).await.unwrap_err();
    assert_eq!((failure.kind, failure.spent.unwrap().tokens_in), (FailureKind::Protocol, 25134));
    // Each of its messages once, though every block of one repeats what it used.
    assert_eq!(spent(&format!("{before}\n{before}")).tokens_in, 25134);
    assert_eq!(spent("").tokens_in, 0);
}
