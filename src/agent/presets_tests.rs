use super::*;
use crate::agent::tests::{request, script};
use crate::run::goal::Role;
use std::path::Path;

fn capture(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(path);
    std::fs::read_to_string(file).unwrap_or_default()
}

fn read(preset: &Preset, name: &str) -> Option<Result<Response, Failure>> {
    let of = |stream: &str| capture(&format!("{}/{name}.{stream}", preset.program));
    (preset.parse)(&of("stdout"), &of("stderr"))
}

#[test]
fn answers_are_read() {
    for (preset, name, tokens_in, tokens_out, session) in [
        (&CODEX, "json_ok", 19953, 18, true),
        (&OPENCODE, "json_ok", 7692 + 7778, 27, true),
        (&COPILOT, "json_ok", 0, 0, true),
        (&AIDER, "plain_ok", 772, 14, false),
        (&AIDER, "plain_cost_known_model", 2700, 19, false),
    ] {
        let response = read(preset, name).unwrap().unwrap();
        assert!(response.text.contains("hello.txt"), "{}: {}", preset.program, response.text);
        assert_eq!(
            (response.usage.tokens_in, response.usage.tokens_out),
            (tokens_in, tokens_out),
            "{}",
            preset.program
        );
        assert_eq!(response.session_id.is_some(), session, "{}", preset.program);
    }
    let gemini = read(&GEMINI, "json_ok").unwrap().unwrap();
    assert!(gemini.text == "done: hello.txt" && gemini.usage.tokens_in > 0 && gemini.usage.tokens_out > 0);
    assert_eq!(read(&AIDER, "plain_cost_known_model").unwrap().unwrap().usage.cost_usd, Some(0.0069));
}

#[test]
fn failures_are_told_apart() {
    for (preset, name, kind) in [
        (&CODEX, "json_err401", FailureKind::NotLoggedIn),
        (&CODEX, "json_nologin_openai_builtin", FailureKind::NotLoggedIn),
        (&CODEX, "json_missing_env_key", FailureKind::NotLoggedIn),
        (&CODEX, "json_err529", FailureKind::Overloaded),
        (&CODEX, "json_truncate", FailureKind::Network),
        (&OPENCODE, "json_err401", FailureKind::NotLoggedIn),
        (&OPENCODE, "json_badmodel", FailureKind::Crashed),
        (&COPILOT, "json_err401", FailureKind::NotLoggedIn),
        (&COPILOT, "json_err529", FailureKind::Overloaded),
        (&GEMINI, "json_err401", FailureKind::NotLoggedIn),
        (&AIDER, "plain_err401", FailureKind::NotLoggedIn),
        (&AIDER, "plain_nokey_model", FailureKind::NotLoggedIn),
        (&AIDER, "plain_nologin", FailureKind::NotLoggedIn),
    ] {
        let failure = read(preset, name).unwrap().unwrap_err();
        assert_eq!(failure.kind, kind, "{} {name}: {failure}", preset.program);
    }
    let limited = (CODEX.parse)(
        r#"{"type":"turn.failed","error":{"message":"exceeded retry limit, last status: 429 Too Many Requests"}}"#,
        "",
    );
    assert_eq!(limited.unwrap().unwrap_err().kind, FailureKind::RateLimited);
}

#[test]
fn nothing_is_read_from_nothing() {
    for preset in [&CODEX, &OPENCODE, &GEMINI, &COPILOT] {
        for text in ["", "{", "null\n[]\n{}", "{\"type\": 1}"] {
            assert_eq!((preset.parse)(text, text), None, "{} {text}", preset.program);
        }
    }
}

#[test]
fn the_command_lines_are_the_proven_ones() {
    let request =
        Request { model: Some("m".into()), permissions: Permissions::All, ..request(Role::Reviewer, "/".as_ref()) };
    for preset in [&CODEX, &OPENCODE, &GEMINI, &COPILOT, &AIDER] {
        let Invocation { argv, stdin, env } = Described::new(preset).invocation(&request);
        let argv: Vec<_> = argv.iter().map(|word| word.to_str().unwrap()).collect();
        assert!(argv.windows(2).any(|pair| pair == [preset.model, "m"]), "{argv:?}");
        let apart = preset.system != System::None;
        assert_eq!(stdin.starts_with("You are the reviewer"), !apart, "{}", preset.program);
        assert!(stdin.ends_with("the task\n"));
        match preset.system {
            System::CodexConfig => {
                assert!(argv.contains(&"developer_instructions=\"You are the reviewer of a test.\""), "{argv:?}");
                assert_eq!(argv.last(), Some(&"-"));
            }
            System::OpencodeAgent => assert!(env.iter().any(|(name, _)| *name == "OPENCODE_CONFIG_CONTENT")),
            System::None => {}
        }
    }
}

#[tokio::test]
async fn a_call_ends_in_an_answer_or_in_a_failure_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(Role::Reviewer, dir.path());
    let run = async |preset: &'static Preset, body: &str| {
        let path = script(dir.path(), &format!("#!/bin/sh\n{body}"));
        let program = path.strip_prefix("sh ").unwrap().to_owned();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        Described { preset, program }.run(&request).await
    };
    assert_eq!(run(&AIDER, "cat").await.unwrap().text, "You are the reviewer of a test.\n\nthe task");
    let login = run(&COPILOT, "echo 'Error: No authentication information found.' >&2; exit 1").await.unwrap_err();
    assert!(login.kind == FailureKind::NotLoggedIn && login.hint.is_some(), "{login:?}");
    assert_eq!(run(&CODEX, "echo hi").await.unwrap_err().kind, FailureKind::Protocol);
    assert_eq!(run(&CODEX, "exit 9").await.unwrap_err().kind, FailureKind::Crashed);
}
