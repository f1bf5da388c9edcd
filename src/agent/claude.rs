//! Claude Code, by its print mode: `claude -p --output-format json`.
//!
//! The flags and the answer's fields are those of version 2.1.330, seen on real runs. It exits 0 on failures that it
//! explains in its answer, so the answer is judged first.

use serde::Deserialize;

use super::command::{self, Call};
use super::{Agent, Reply, Request, Response};
use crate::process::Finished;
use crate::run::event::Timestamp;
use crate::run::goal::Permissions;
use crate::run::work::{Failure, FailureKind, Usage};

/// Claude Code on this machine.
#[derive(Clone, Debug, Default)]
pub struct Claude;

/// What print mode answers; it has many more fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    r#type: String,
    is_error: bool,
    subtype: String,
    result: Option<String>,
    errors: Vec<String>,
    api_error_status: Option<u16>,
    session_id: Option<String>,
    total_cost_usd: Option<f64>,
    usage: Tokens,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tokens {
    #[serde(rename = "input_tokens")]
    read: u64,
    #[serde(rename = "output_tokens")]
    written: u64,
    #[serde(rename = "cache_creation_input_tokens")]
    to_cache: u64,
    #[serde(rename = "cache_read_input_tokens")]
    from_cache: u64,
}

impl Agent for Claude {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move { read(&command::run(call(request), request).await?) })
    }
}

fn call(request: &Request) -> Call {
    let mut argv: Vec<std::ffi::OsString> =
        ["claude", "-p", "--output-format", "json", "--append-system-prompt"].map(Into::into).into();
    argv.push((&request.system).into());
    match request.permissions {
        Permissions::Ask => {}
        Permissions::Edit => argv.extend(["--permission-mode", "acceptEdits"].map(Into::into)),
        Permissions::All => argv.push("--dangerously-skip-permissions".into()),
    }
    if let Some(model) = &request.model {
        argv.extend(["--model".into(), model.into()]);
    }
    let mut env = vec![
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("DISABLE_AUTOUPDATER", "1".to_owned()),
        // Waiting and trying again is the loop's to decide, and to record.
        ("CLAUDE_CODE_MAX_RETRIES", "0".to_owned()),
    ];
    // As root it refuses to skip permissions unless it is told that it is in a sandbox; the worktree is one.
    if request.permissions == Permissions::All && rustix::process::geteuid().is_root() {
        env.push(("IS_SANDBOX", "1".to_owned()));
    }
    Call { argv, stdin: request.prompt.clone(), env }
}

/// Judges a call by what it printed.
fn read(finished: &Finished) -> Result<Response, Failure> {
    let Some(answer) = answer(&finished.stdout.text()) else {
        let failure = command::crashed("claude", finished);
        return Err(judge(failure.message, None, FailureKind::Protocol));
    };
    let usage = Usage {
        tokens_in: answer.usage.read + answer.usage.from_cache + answer.usage.to_cache,
        tokens_out: answer.usage.written,
        tokens_cached: answer.usage.from_cache,
        cost_usd: answer.total_cost_usd,
    };
    let failed = answer.is_error || !matches!(answer.subtype.as_str(), "success" | "");
    let text = answer.result.filter(|text| !text.trim().is_empty());
    if failed {
        let said = text.or_else(|| (!answer.errors.is_empty()).then(|| answer.errors.join("; ")));
        let said = said.unwrap_or_else(|| format!("it ended with '{}'", answer.subtype));
        return Err(judge(said, answer.api_error_status, FailureKind::Crashed));
    }
    Ok(Response { text: text.unwrap_or_default(), usage, session_id: answer.session_id })
}

/// The answer in what was printed: the last object that says it is a result, whatever banner stands before it.
fn answer(printed: &str) -> Option<Answer> {
    let whole = serde_json::from_str::<Answer>(printed.trim()).ok();
    let lines = || printed.lines().rev().filter_map(|line| serde_json::from_str::<Answer>(line.trim()).ok());
    let cut = || serde_json::from_str::<Answer>(printed[printed.find("{\"")?..].trim()).ok();
    whole
        .or_else(|| lines().find(|answer| answer.r#type == "result"))
        .or_else(cut)
        .filter(|answer| answer.r#type == "result")
}

/// What kind of failure the words and the status of the service mean.
fn judge(message: String, status: Option<u16>, otherwise: FailureKind) -> Failure {
    let says = |words: &[&str]| words.iter().any(|word| message.to_ascii_lowercase().contains(word));
    let kind = match status {
        Some(401 | 403) => FailureKind::NotLoggedIn,
        Some(404) => FailureKind::UnknownModel,
        Some(429) => FailureKind::RateLimited,
        Some(500..=599) => FailureKind::Overloaded,
        _ if says(&["not logged in", "invalid api key", "please run /login", "authentication_error"]) => {
            FailureKind::NotLoggedIn
        }
        _ if says(&["usage limit", "rate limit", "limit reached"]) => FailureKind::RateLimited,
        _ if says(&["overloaded"]) => FailureKind::Overloaded,
        _ if says(&["connection error", "connection to the api", "econnrefused", "unable to connect", "timed out"]) => {
            FailureKind::Network
        }
        _ if says(&["issue with the selected model", "model not found", "model may not exist"]) => {
            FailureKind::UnknownModel
        }
        _ => otherwise,
    };
    let reset_at = (kind == FailureKind::RateLimited).then(|| reset(&message)).flatten();
    let failure = Failure { reset_at, ..Failure::new(kind, message) };
    match kind {
        FailureKind::NotLoggedIn => {
            failure.hint("log in with 'claude /login', or set ANTHROPIC_API_KEY to a key that is valid")
        }
        FailureKind::UnknownModel => failure.hint("name a model that 'claude --model' takes"),
        _ => failure,
    }
}

/// `…limit reached|1790000000`: the second after which the limit is gone.
fn reset(message: &str) -> Option<Timestamp> {
    let seconds: i64 = message.rsplit_once('|')?.1.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(Timestamp(seconds.checked_mul(1000)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Captured, Status};

    fn capture(name: &str) -> Result<Response, Failure> {
        let path = format!("{}/tests/captures/claude/{name}.stdout", env!("CARGO_MANIFEST_DIR"));
        let printed = std::fs::read(path).unwrap();
        read_bytes(&printed)
    }

    fn read_bytes(printed: &[u8]) -> Result<Response, Failure> {
        let stdout = Captured::whole(printed);
        read(&Finished { status: Status::Exited(0), stdout, stderr: Captured::whole(b""), seconds: 0.0 })
    }

    #[test]
    fn what_it_printed_on_real_runs_is_read() {
        let done = capture("json_ok").unwrap();
        assert_eq!(done.text, "done: hello.txt");
        assert_eq!((done.usage.tokens_in, done.usage.tokens_out), (25151, 18));
        assert_eq!(done.usage.cost_usd, Some(0.100_964));
        assert!(done.session_id.is_some());
        let failures = [
            ("json_err401_retries0", FailureKind::NotLoggedIn),
            ("json_err401_default_retries", FailureKind::NotLoggedIn),
            ("json_nologin", FailureKind::NotLoggedIn),
            ("json_err529_retries0", FailureKind::Overloaded),
            ("json_err400", FailureKind::Crashed),
            ("plain_nologin", FailureKind::NotLoggedIn),
        ];
        for (name, kind) in failures {
            assert_eq!(capture(name).unwrap_err().kind, kind, "{name}");
        }
        for name in
            ["json_ok_acceptEdits", "json_stdin_ok", "json_resume", "stream_json_ok", "v2.1.197_json_ok", "json_slow"]
        {
            assert!(!capture(name).unwrap().text.is_empty(), "{name}");
        }
    }

    #[test]
    fn a_banner_is_skipped_and_a_torn_answer_is_none() {
        let whole = br#"Update available!
{"type":"result","subtype":"success","result":"fine","usage":{"input_tokens":1}}"#;
        assert_eq!(read_bytes(whole).unwrap().text, "fine");
        assert_eq!(read_bytes(&whole[..60]).unwrap_err().kind, FailureKind::Protocol);
        assert_eq!(read_bytes(b"").unwrap_err().kind, FailureKind::Protocol);
        let negative = br#"{"type":"result","subtype":"success","result":"x","usage":{"input_tokens":-1}}"#;
        assert_eq!(read_bytes(negative).unwrap_err().kind, FailureKind::Protocol);
    }

    #[test]
    fn a_limit_says_when_it_resets() {
        let failure = judge("Claude AI usage limit reached|1790000000".into(), None, FailureKind::Crashed);
        assert_eq!((failure.kind, failure.reset_at), (FailureKind::RateLimited, Some(Timestamp(1_790_000_000_000))));
    }
}
