//! Claude Code in print mode: the prompt on stdin, a stream of JSON lines back; the last one has the answer.
//!
//! Facts about its command line and its answers are from version 2.1.330, driven against a test server; answers as it
//! gave them are under `tests/captures/claude`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::explain;
use super::program::{Invocation, announces_none, judged};
use super::{Agent, Reply, Request, Response};
use crate::run::event::Timestamp;
use crate::run::goal::Permissions;
use crate::run::work::{Failure, FailureKind, Usage};

/// Its program.
pub(super) const PROGRAM: &str = "claude";
/// How one logs in to it.
pub(super) const LOG_IN: &str = "run 'claude' and log in with /login, or set ANTHROPIC_API_KEY";

/// Claude Code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claude {
    program: String,
}

impl Default for Claude {
    fn default() -> Self {
        Self::at(PROGRAM)
    }
}

impl Claude {
    /// The one whose program is this: a path, or a name to be found on `PATH`.
    pub fn at(program: impl Into<String>) -> Self {
        Self { program: program.into() }
    }

    fn invocation(&self, request: &Request, root: bool) -> Invocation {
        // In print mode it refuses to stream without the last one.
        let mut argv = vec![self.program.as_str(), "-p", "--output-format", "stream-json", "--verbose"];
        if !request.system.trim().is_empty() {
            argv.extend(["--append-system-prompt", &request.system]);
        }
        if let Some(model) = &request.model {
            argv.extend(["--model", model]);
        }
        match request.permissions {
            Permissions::Ask => {}
            Permissions::Edit => argv.extend(["--permission-mode", "acceptEdits"]),
            Permissions::All => argv.push("--dangerously-skip-permissions"),
        }
        let set = |name, value: &str| (name, Some(value.to_owned()));
        let mut env = vec![
            set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            set("DISABLE_AUTOUPDATER", "1"),
            // The loop waits and retries by itself, visibly; a 401 would otherwise take three minutes.
            set("CLAUDE_CODE_MAX_RETRIES", "0"),
            // Set where another session of it has started us: it refuses to be nested while it sees this.
            ("CLAUDECODE", None),
        ];
        if root && request.permissions == Permissions::All {
            env.push(set("IS_SANDBOX", "1")); // without it root is refused everything
        }
        let argv = argv.into_iter().map(Into::into).collect();
        Invocation { argv, stdin: request.prompt.clone(), env }
    }

    async fn answer(&self, request: &Request) -> Result<Response, Failure> {
        let root = rustix::process::geteuid().is_root();
        let finished = self.invocation(request, root).run(request, announces_none, spent).await?;
        // What is cut out of a long stream is its middle: the result is its last line.
        let stream = finished.stdout.text();
        let read = parse(&stream);
        let has_result = read.is_some();
        let answer = if has_result || finished.stdout.is_whole() {
            judged(&self.program, &finished, read)
        } else {
            Err(Failure::new(FailureKind::Protocol, "the answer is too long to be read"))
        };
        // A result tells itself what was used.
        answer.map_err(|failure| advise(if has_result { failure } else { failure.after(spent(&stream)) }))
    }
}

impl Agent for Claude {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

/// Reads its output: nothing without a result. Output before the result, such as a banner or other messages, is skipped.
fn parse(stdout: &str) -> Option<Result<Response, Failure>> {
    let messages: Vec<Value> = match serde_json::from_str(stdout.trim()) {
        Ok(Value::Array(messages)) => messages, // so with `"verbose": true` in its settings
        Ok(message) => vec![message],
        Err(_) => stdout.lines().filter_map(|line| serde_json::from_str(line.trim()).ok()).collect(),
    };
    let result = messages.iter().rev().find(|message| message["type"] == "result")?;
    // It tells of a window as well while that is not spent: `allowed`, `allowed_warning`, `rejected`.
    let limits = messages.iter().rev().map(|message| &message["rate_limit_info"]);
    let mut spent = limits.filter(|limit| limit["status"].as_str().is_none_or(|status| status == "rejected"));
    let reset = spent.find_map(|limit| limit["resetsAt"].as_u64());
    let outcome = outcome(result, reset.and_then(|seconds| explain::epoch(seconds.try_into().ok()?)));
    Some(outcome.map_err(|failure| failure.after(usage(&result["usage"], result["total_cost_usd"].as_f64()))))
}

fn outcome(result: &Value, reset: Option<Timestamp>) -> Result<Response, Failure> {
    let text = result["result"].as_str().unwrap_or_default();
    let subtype = result["subtype"].as_str().unwrap_or_default();
    let denied = result["permission_denials"].as_array().map_or(0, Vec::len);
    // The subtype is `success` for errors of the API too; those of its own, such as `error_max_turns`, have no result.
    let is_error = result["is_error"].as_bool().unwrap_or_else(|| !result["result"].is_string());
    // It says so too where it holds the call for a success.
    let is_error = is_error || text.trim_start().starts_with("API Error:");
    if !is_error && (denied == 0 || !text.trim().is_empty()) {
        let session_id = result["session_id"].as_str().map(ToOwned::to_owned);
        return Ok(Response {
            text: text.to_owned(),
            usage: usage(&result["usage"], result["total_cost_usd"].as_f64()),
            session_id,
            ..Response::default()
        });
    }
    let errors = result["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let errors: Vec<&str> = errors.iter().filter_map(Value::as_str).collect();
    let words = match (text.trim(), errors.is_empty()) {
        ("", true) => subtype.to_owned(),
        ("", false) => errors.join("; "),
        (text, _) => text.to_owned(),
    };
    let mut failure = explain::failure(result["api_error_status"].as_u64(), &words);
    match failure.kind {
        FailureKind::Crashed if denied > 0 => {
            let message = format!("it was refused {denied} actions that it wanted to take: {}", failure.message);
            failure = Failure::new(FailureKind::PermissionDenied, message);
        }
        FailureKind::RateLimited => failure.reset_at = failure.reset_at.or(reset),
        _ => {}
    }
    Err(failure)
}

/// Says what a person can do about it.
fn advise(mut failure: Failure) -> Failure {
    let hint = match failure.kind {
        FailureKind::NotLoggedIn => Some(LOG_IN),
        FailureKind::UnknownModel => Some("name a model that it knows with '--model', such as 'sonnet' or 'opus'"),
        FailureKind::PermissionDenied => {
            Some("'--permissions edit' lets it edit files, '--permissions all' everything")
        }
        _ => None,
    };
    failure.hint = hint.map(ToOwned::to_owned);
    failure
}

/// Reads the usage up to the end of `stdout`, which may end before its result: every message repeats its usage for each of
/// its blocks.
fn spent(stdout: &str) -> Usage {
    let messages = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line.trim()).ok());
    let answers =
        messages.filter(|message| message["type"] == "assistant").map(|mut message| message["message"].take());
    let by_id: BTreeMap<String, Usage> =
        answers.filter_map(|answer| Some((answer["id"].as_str()?.to_owned(), usage(&answer["usage"], None)))).collect();
    let mut all = Usage::default();
    for used in by_id.values() {
        all.add(used);
    }
    all
}

fn usage(used: &Value, cost_usd: Option<f64>) -> Usage {
    let tokens = |key: &str| used[key].as_u64().unwrap_or(0);
    let cached = tokens("cache_read_input_tokens");
    Usage {
        tokens_in: tokens("input_tokens").saturating_add(cached).saturating_add(tokens("cache_creation_input_tokens")),
        tokens_out: tokens("output_tokens"),
        tokens_cached: cached,
        cost_usd,
    }
}

#[cfg(test)]
#[path = "claude_tests.rs"]
mod tests;
