use super::*;
use crate::agent::tests::{request, script};
use crate::process::Source;
use crate::run::goal::Role;
use crate::run::work::Usage;
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

/// The expected reading of a capture.
enum Read {
    /// An answer with this in it, tokens read and written.
    Answer(&'static str, u64, u64),
    /// A failure.
    Fails(FailureKind),
    /// Nothing in the agent's own format: another of its modes, or cut off before the end.
    Nothing,
}

#[test]
fn every_capture_is_read_as_what_it_is() {
    use FailureKind::{Crashed, Network, NotLoggedIn, Overloaded};
    use Read::{Answer, Fails, Nothing};
    const HELLO: &str = "done: hello.txt";
    let all: [(&Preset, &str, Read); 57] = [
        (&CODEX, "defaultretries_json_err529_default_retries", Fails(Overloaded)),
        (&CODEX, "defaultretries_role_plan", Answer("stub subgoal", 9955, 33)),
        (&CODEX, "json_default_sandbox", Answer(HELLO, 20006, 18)),
        (&CODEX, "json_err401", Fails(NotLoggedIn)),
        (&CODEX, "json_err529", Fails(Overloaded)),
        (&CODEX, "json_fail_cmd", Answer("Process exited with code", 19961, 46)),
        (&CODEX, "json_missing_env_key", Fails(NotLoggedIn)),
        (&CODEX, "json_nologin_ignore_config", Nothing),
        (&CODEX, "json_nologin_openai_builtin", Fails(NotLoggedIn)),
        (&CODEX, "json_ok", Answer(HELLO, 19953, 18)),
        (&CODEX, "json_ok_builtin_apikey", Answer(HELLO, 34243, 30)),
        (&CODEX, "json_resume", Answer("done: two.txt", 49186, 36)),
        (&CODEX, "json_schema", Answer("{\"approved\": true}", 9985, 4)),
        (&CODEX, "json_stdin_sys", Answer(HELLO, 19992, 19)),
        (&CODEX, "json_truncate", Fails(Network)),
        (&CODEX, "json_workspace_write", Answer(HELLO, 20386, 18)),
        (&CODEX, "json_ws_commit", Answer("done: echo a > a.txt", 20494, 83)),
        (&CODEX, "plain_err401", Nothing),
        (&CODEX, "plain_err529", Nothing),
        (&CODEX, "plain_full_auto", Nothing),
        (&CODEX, "plain_ok", Nothing),
        (&OPENCODE, "json_agent_sys", Answer(HELLO, 11166, 27)),
        (&OPENCODE, "json_auto", Answer(HELLO, 15472, 28)),
        (&OPENCODE, "json_badmodel", Fails(Crashed)),
        (&OPENCODE, "json_err401", Fails(NotLoggedIn)),
        (&OPENCODE, "json_extdir_auto", Answer("done: HOME/.h_oc_x", 15468, 18)),
        (&OPENCODE, "json_extdir_dangerously-skip-permissions", Answer("done: HOME/.h_oc_x", 15492, 18)),
        // It was refused what it wanted, exited with 0, and said nothing: the loop takes an empty answer for a failure.
        (&OPENCODE, "json_extdir_none", Answer("", 7696, 14)),
        (&OPENCODE, "json_fastenv", Answer("hi", 7690, 1)),
        (&OPENCODE, "json_nokey", Answer("ok", 7687, 1)),
        (&OPENCODE, "json_ok", Answer(HELLO, 15470, 27)),
        (&OPENCODE, "json_resume", Answer("resumed", 7811, 4)),
        (&OPENCODE, "json_stdin", Answer(HELLO, 15478, 29)),
        (&OPENCODE, "plain_err401", Nothing),
        (&OPENCODE, "plain_ok", Nothing),
        (&OPENCODE, "plain_ok_first", Nothing),
        (&OPENCODE, "plain_skipperm", Nothing),
        (&GEMINI, "json_err401", Fails(NotLoggedIn)),
        (&GEMINI, "json_ok", Answer(HELLO, 24543, 19)),
        (&GEMINI, "plain_ok", Nothing),
        (&COPILOT, "json_err401", Fails(NotLoggedIn)),
        (&COPILOT, "json_err529", Fails(Overloaded)),
        (&COPILOT, "json_ok", Answer(HELLO, 0, 0)),
        (&COPILOT, "plain_nologin", Nothing),
        (&COPILOT, "plain_ok", Nothing),
        (&AIDER, "plain_autocommit", Answer(HELLO, 772, 14)),
        (&AIDER, "plain_autocommit2", Answer(HELLO, 772, 14)),
        (&AIDER, "plain_cost_known_model", Answer(HELLO, 2700, 19)),
        (&AIDER, "plain_diff_format", Answer(HELLO, 2000, 20)),
        (&AIDER, "plain_err401", Fails(NotLoggedIn)),
        (&AIDER, "plain_histfiles", Answer(HELLO, 711, 10)),
        (&AIDER, "plain_nokey_model", Fails(NotLoggedIn)),
        (&AIDER, "plain_nologin", Fails(NotLoggedIn)),
        (&AIDER, "plain_ok", Answer(HELLO, 772, 14)),
        (&AIDER, "plain_ok_quiet", Answer(HELLO, 712, 10)),
        (&AIDER, "plain_ok_yes", Answer(HELLO, 772, 14)),
        (&AIDER, "plain_stdin_msgfile", Answer(HELLO, 712, 11)),
    ];
    for (preset, name, expected) in &all {
        let got = read(preset, name);
        let as_expected = match (expected, &got) {
            (Answer(text, tokens_in, tokens_out), Some(Ok(response))) => {
                let used = (response.usage.tokens_in, response.usage.tokens_out);
                response.text.contains(text) && used == (*tokens_in, *tokens_out)
            }
            (Fails(kind), Some(Err(failure))) => failure.kind == *kind,
            (Nothing, None) => true,
            _ => false,
        };
        assert!(as_expected, "{} {name}: {got:?}", preset.program);
    }
    let known = |file: &str| all.iter().any(|(preset, name, _)| file == format!("{}/{name}", preset.program));
    for agent in ["codex", "opencode", "gemini", "copilot", "aider"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(agent);
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let file = entry.path().with_extension("");
            let file = format!("{agent}/{}", file.file_name().unwrap().to_str().unwrap());
            assert!(known(&file), "nothing is expected of {file}");
        }
    }
}

#[test]
fn retries_that_go_on_are_announced() {
    for (preset, name, kind, times) in [
        (&CODEX, "defaultretries_json_err529_default_retries", FailureKind::Overloaded, 5),
        (&CODEX, "json_nologin_ignore_config", FailureKind::Network, 8),
        (&COPILOT, "json_err529", FailureKind::Overloaded, 6),
        (&AIDER, "plain_err401", FailureKind::NotLoggedIn, 1),
    ] {
        let text = capture(&format!("{}/{name}.stdout", preset.program));
        let told: Vec<_> = text.lines().filter_map(|line| (preset.retries)(Source::Stdout, line)).collect();
        assert_eq!(told.len(), times, "{} {name}", preset.program);
        assert!(told.iter().all(|failure| failure.kind == kind), "{} {name}: {told:?}", preset.program);
    }
    let gemini = "Attempt 1 failed with status 429. Retrying with backoff... _ApiError: {}";
    assert_eq!((GEMINI.retries)(Source::Stderr, gemini).unwrap().kind, FailureKind::RateLimited);
    let opencode = "level=ERROR message=\"stream error\" small=false error.error=\"AI_APICallError: Overloaded\"";
    assert_eq!((OPENCODE.retries)(Source::Stderr, opencode).unwrap().kind, FailureKind::Overloaded);
    for preset in [&CODEX, &OPENCODE, &GEMINI, &COPILOT, &AIDER] {
        for line in ["", "{", "Retrying", "\"Reconnecting... \"", "error.error=", "the litellm.Error was mended"] {
            for source in [Source::Stdout, Source::Stderr] {
                assert_eq!((preset.retries)(source, line), None, "{} {line}", preset.program);
            }
        }
    }
}

#[test]
fn a_limit_is_told_by_its_words() {
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

/// The agent of `preset`, whose program is this shell script in `dir`.
fn played(preset: &'static Preset, dir: &Path, body: &str) -> Described {
    let path = script(dir, &format!("#!/bin/sh\n{body}"));
    let program = path.strip_prefix("sh ").unwrap().to_owned();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    Described { preset, program }
}

#[tokio::test]
async fn a_call_ends_in_an_answer_or_in_a_failure_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(Role::Reviewer, dir.path());
    let run = async |preset: &'static Preset, body: &str| played(preset, dir.path(), body).run(&request).await;
    assert_eq!(run(&AIDER, "cat").await.unwrap().text, "You are the reviewer of a test.\n\nthe task");
    let login = run(&COPILOT, "echo 'Error: No authentication information found.' >&2; exit 1").await.unwrap_err();
    assert_eq!((login.kind, login.hint.as_deref()), (FailureKind::NotLoggedIn, Some(COPILOT.log_in)));
    assert!(login.hint.unwrap().contains("GH_TOKEN"));
    assert_eq!(run(&CODEX, "echo hi").await.unwrap_err().kind, FailureKind::Protocol);
    assert_eq!(run(&CODEX, "exit 9").await.unwrap_err().kind, FailureKind::Crashed);
}

#[tokio::test]
async fn what_a_failed_call_used_is_told_where_the_agent_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let print = |text: &str| {
        std::fs::write(dir.path().join("said"), text).unwrap();
        format!("cat '{}'\n", dir.path().join("said").display())
    };
    let patient = request(Role::Subagent, dir.path());
    let hasty = Request { timeout: Some(std::time::Duration::from_secs(2)), ..patient.clone() };
    let opencode = capture("opencode/json_ok.stdout");
    let first_step: String = opencode.split_inclusive('\n').take(3).collect();
    let refused = capture("opencode/json_err401.stdout");
    let codex = capture("codex/json_ok.stdout");
    let aider = capture("aider/plain_ok.stdout");
    for (preset, said, end, request, kind, used) in [
        (&OPENCODE, format!("{first_step}{refused}"), "exit 1", &patient, FailureKind::NotLoggedIn, (7692, 24)),
        (&OPENCODE, first_step.clone(), "sleep 60", &hasty, FailureKind::Timeout, (7692, 24)),
        (
            &OPENCODE,
            format!("{opencode}{{\"type\": \"te"),
            "echo late trouble >&2; exit 3",
            &patient,
            FailureKind::Crashed,
            (15470, 27),
        ),
        (&CODEX, codex, "echo late trouble >&2; exit 1", &patient, FailureKind::Crashed, (19953, 18)),
        (
            &AIDER,
            format!("{aider}\nlitellm.RateLimitError: slow down\n"),
            "",
            &patient,
            FailureKind::RateLimited,
            (772, 14),
        ),
    ] {
        let failure = played(preset, dir.path(), &(print(&said) + end)).run(request).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{} {end}: {failure}", preset.program);
        let spent = failure.spent.as_deref().map(|usage| (usage.tokens_in, usage.tokens_out));
        assert_eq!(spent, Some(used), "{} {end}", preset.program);
    }
    let silent =
        played(&CODEX, dir.path(), &print(&capture("codex/json_err401.stdout"))).run(&patient).await.unwrap_err();
    assert_eq!((silent.kind, silent.spent), (FailureKind::NotLoggedIn, None));
}

#[tokio::test]
async fn an_answer_does_not_explain_why_its_agent_failed() {
    let dir = tempfile::tempdir().unwrap();
    let request = request(Role::Subagent, dir.path());
    // An answer about a rate limit and a login, from an agent that then dies without a word.
    for (preset, code) in [(&CODEX, 1), (&OPENCODE, 1), (&GEMINI, 145), (&COPILOT, 3), (&AIDER, 2)] {
        let name = if preset.program == "aider" { "plain_ok" } else { "json_ok" };
        let said = capture(&format!("{}/{name}.stdout", preset.program))
            .replace("done: hello.txt", "the server says 'too many requests' to whoever is not logged in");
        assert!(said.contains("too many requests"), "{}", preset.program);
        std::fs::write(dir.path().join("said"), said).unwrap();
        for errors in ["", "late trouble"] {
            let body = format!("cat '{}'; printf '{errors}' >&2; exit {code}", dir.path().join("said").display());
            let failure = played(preset, dir.path(), &body).run(&request).await.unwrap_err();
            let ended = format!("exited with status {code} after it had answered");
            let wanted = if errors.is_empty() { ended } else { format!("{ended}: {errors}") };
            assert_eq!(failure.kind, FailureKind::Crashed, "{}: {failure}", preset.program);
            assert!(failure.message.ends_with(&wanted), "{}: {failure}", preset.program);
            assert_eq!(failure.spent.is_some(), preset.program != "copilot", "{}", preset.program);
        }
    }
}

#[test]
fn an_error_of_aider_s_is_a_line_that_nothing_came_after() {
    let read = |stdout: &str| (AIDER.parse)(stdout, "").unwrap();
    let ok = capture("aider/plain_ok.stdout");
    let limited = "litellm.RateLimitError: slow down\nRetrying in 0.2 seconds...\n";
    let code = "+    except litellm.RateLimitError:\n";
    let start = ok.find("done: hello.txt").unwrap();
    let (before, answer) = ok.split_at(start);
    assert_eq!(
        read(&format!("{before}{limited}{answer}")).unwrap().usage.tokens_in,
        772,
        "it got its answer in the end"
    );
    assert!(read(&format!("{before}{code}{answer}")).unwrap().text.contains("except litellm."), "code is no error");
    assert_eq!(read(&format!("{ok}\n{limited}")).unwrap_err().kind, FailureKind::RateLimited);
    assert_eq!(read(limited).unwrap_err().kind, FailureKind::RateLimited);
}

#[test]
fn noise_around_an_answer_and_odd_usage_in_it_do_no_harm() {
    for preset in [&CODEX, &OPENCODE, &COPILOT] {
        let clean = capture(&format!("{}/json_ok.stdout", preset.program));
        let noisy = format!("Welcome!\n{{\"type\": \"not.known.yet\", \"usage\": 1}}\n[1]\n{clean}{{\"type\": \"te");
        let said = |text: &str| (preset.parse)(text, "").unwrap().unwrap();
        assert_eq!(said(&noisy), said(&clean), "{}", preset.program);
    }
    let gemini = capture("gemini/json_ok.stdout");
    assert_eq!((GEMINI.parse)(&format!("Welcome!\n{gemini}"), ""), (GEMINI.parse)(&gemini, ""));
    for usage in ["", r#","usage":null"#, r#","usage":{"input_tokens":-5,"output_tokens":"many"}"#] {
        let answer = r#"{"type":"item.completed","item":{"type":"agent_message","text":"fine"}}"#;
        let text = format!("{answer}\n{{\"type\":\"turn.completed\"{usage}}}\n");
        let response = (CODEX.parse)(&text, "").unwrap().unwrap();
        assert_eq!((response.text.as_str(), response.usage), ("fine", Usage::default()), "{usage}");
    }
}
