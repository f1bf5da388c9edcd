//! Reads the output of agents that print JSON lines, or plain text. The captures under `tests/captures` are the reference.

use serde_json::Value;

use super::Response;
use super::explain::{EXCERPT, failure};
use crate::process::Source;
use crate::run::event::clip;
use crate::run::work::{Failure, FailureKind, Usage};

/// Exit code of Gemini CLI without a login, also in its error (its documentation, "Exit codes").
const GEMINI_NO_AUTH: u64 = 41;

/// Reads an agent's stdout and stderr: nothing where there is neither an answer nor an error in them.
pub(super) type Parse = fn(&str, &str) -> Option<Result<Response, Failure>>;

/// Codex's own retries: `{"type":"error","message":"Reconnecting... 1/5 (unexpected status 529 …)"}`.
pub(super) fn codex_retries(source: Source, line: &str) -> Option<Failure> {
    if source != Source::Stdout || !line.contains("\"Reconnecting... ") {
        return None;
    }
    let message: Value = serde_json::from_str(line).ok()?;
    let words = message["message"].as_str().filter(|_| message["type"] == "error")?;
    Some(failure(status_in(words), words))
}

/// Opencode's: an error in its log, which `--print-logs` puts on stderr, for every request that failed.
pub(super) fn opencode_retries(source: Source, line: &str) -> Option<Failure> {
    if source != Source::Stderr || !line.contains("message=\"stream error\"") {
        return None;
    }
    let (_, words) = line.split_once("error.error=")?;
    Some(failure(None, words.trim_matches('"')))
}

/// Gemini's: `Attempt 1 failed with status 429. Retrying with backoff... `.
pub(super) fn gemini_retries(source: Source, line: &str) -> Option<Failure> {
    if source != Source::Stderr || !line.starts_with("Attempt ") || !line.contains("Retrying") {
        return None;
    }
    Some(failure(status_in(line), line))
}

/// Copilot's: a message for every request that failed.
pub(super) fn copilot_retries(source: Source, line: &str) -> Option<Failure> {
    if source != Source::Stdout || !line.starts_with("{\"type\":\"model.call_failure\"") {
        return None;
    }
    let message: Value = serde_json::from_str(line).ok()?;
    let data = &message["data"];
    let words = data["errorMessage"].as_str().unwrap_or("a request failed");
    (data["source"] == "top_level").then(|| failure(data["statusCode"].as_u64(), words))
}

/// Aider's: the error, then `Retrying in 0.2 seconds...`. An error that it does not try to mend ends it anyway.
pub(super) fn aider_retries(source: Source, line: &str) -> Option<Failure> {
    (source == Source::Stdout && is_aider_error(line)).then(|| failure(None, line))
}

fn messages(stdout: &str) -> Vec<Value> {
    stdout.lines().filter_map(|line| serde_json::from_str(line.trim()).ok()).collect()
}

fn last<'a>(messages: &'a [Value], kind: &str) -> Option<&'a Value> {
    messages.iter().rev().find(|message| message["type"] == kind)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn owned(value: &Value) -> Option<String> {
    value.as_str().map(ToOwned::to_owned)
}

/// `codex exec --json`. Errors before `turn.failed` are warnings and attempts of its own.
pub(super) fn codex(stdout: &str, _: &str) -> Option<Result<Response, Failure>> {
    let messages = messages(stdout);
    if let Some(end) = last(&messages, "turn.failed") {
        let words = end["error"]["message"].as_str().unwrap_or("the turn failed");
        return Some(Err(failure(status_in(words), words)));
    }
    last(&messages, "turn.completed")?;
    let answer = messages.iter().rev().map(|message| &message["item"]).find(|item| item["type"] == "agent_message");
    let text = answer.and_then(|item| item["text"].as_str()).unwrap_or_default().to_owned();
    let session_id = last(&messages, "thread.started").and_then(|message| owned(&message["thread_id"]));
    Some(Ok(Response { text, usage: codex_spent(stdout), session_id, ..Response::default() }))
}

/// Codex tells it at the end of its turn, so far.
pub(super) fn codex_spent(stdout: &str) -> Usage {
    let messages = messages(stdout);
    let used = last(&messages, "turn.completed").map_or(&Value::Null, |end| &end["usage"]);
    Usage {
        tokens_in: number(&used["input_tokens"]), // those from the cache are in it
        tokens_out: number(&used["output_tokens"]),
        tokens_cached: number(&used["cached_input_tokens"]),
        cost_usd: None,
    }
}

/// The status in `unexpected status 401 Unauthorized` or `exceeded retry limit, last status: 429 Too Many Requests`.
fn status_in(words: &str) -> Option<u64> {
    let (_, after) = words.split_once("status")?;
    let digits = after.trim_start_matches([':', ' ']);
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// `opencode run --format json`.
pub(super) fn opencode(stdout: &str, _: &str) -> Option<Result<Response, Failure>> {
    let messages = messages(stdout);
    if let Some(error) = last(&messages, "error") {
        let data = &error["error"]["data"];
        let words = data["message"].as_str().or(error["error"]["name"].as_str()).unwrap_or("it failed");
        return Some(Err(failure(data["statusCode"].as_u64(), words)));
    }
    let text = last(&messages, "text").and_then(|message| owned(&message["part"]["text"]));
    let ended = last(&messages, "step_finish")?;
    let session_id = owned(&ended["sessionID"]);
    Some(Ok(Response {
        text: text.unwrap_or_default(),
        usage: opencode_spent(stdout),
        session_id,
        ..Response::default()
    }))
}

/// Opencode tells it at the end of every step.
pub(super) fn opencode_spent(stdout: &str) -> Usage {
    let mut usage = Usage::default();
    let messages = messages(stdout);
    for part in messages.iter().filter(|message| message["type"] == "step_finish").map(|message| &message["part"]) {
        let tokens = &part["tokens"];
        let cached = number(&tokens["cache"]["read"]);
        let written = number(&tokens["cache"]["write"]);
        usage.add(&Usage {
            tokens_in: number(&tokens["input"]).saturating_add(cached).saturating_add(written),
            tokens_out: number(&tokens["output"]).saturating_add(number(&tokens["reasoning"])),
            tokens_cached: cached,
            cost_usd: part["cost"].as_f64(),
        });
    }
    usage
}

/// `gemini -o json`: the answer is all of stdout, an error the JSON at the end of stderr.
pub(super) fn gemini(stdout: &str, stderr: &str) -> Option<Result<Response, Failure>> {
    let Some(answer) = gemini_answer(stdout) else {
        let at = if stderr.starts_with("{\n") { 0 } else { stderr.rfind("\n{\n")? + 1 };
        let error: Value = serde_json::from_str(&stderr[at..]).ok()?;
        let words = error["error"]["message"].as_str().unwrap_or("it failed");
        let code = error["error"]["code"].as_u64();
        if code == Some(GEMINI_NO_AUTH) {
            return Some(Err(Failure::new(FailureKind::NotLoggedIn, clip(words, EXCERPT))));
        }
        return Some(Err(failure(code.filter(|code| *code >= 400), words)));
    };
    answer["stats"]["models"].as_object()?;
    let text = owned(&answer["response"]).unwrap_or_default();
    Some(Ok(Response {
        text,
        usage: gemini_spent(stdout),
        session_id: owned(&answer["session_id"]),
        ..Response::default()
    }))
}

/// Finds Gemini's answer on stdout: one JSON object, after whatever else it prints.
fn gemini_answer(stdout: &str) -> Option<Value> {
    stdout.find('{').and_then(|at| serde_json::from_str(&stdout[at..]).ok())
}

/// Gemini tells it by model, in its answer.
pub(super) fn gemini_spent(stdout: &str) -> Usage {
    let mut usage = Usage::default();
    let answer = gemini_answer(stdout).unwrap_or_default();
    let models = answer["stats"]["models"].as_object();
    for tokens in models.into_iter().flat_map(|models| models.values()).map(|model| &model["tokens"]) {
        usage.add(&Usage {
            tokens_in: number(&tokens["prompt"]), // those from the cache are in it
            tokens_out: number(&tokens["candidates"]).saturating_add(number(&tokens["thoughts"])),
            tokens_cached: number(&tokens["cached"]),
            cost_usd: None,
        });
    }
    usage
}

/// `copilot --output-format json`.
pub(super) fn copilot(stdout: &str, _: &str) -> Option<Result<Response, Failure>> {
    let messages = messages(stdout);
    let end = last(&messages, "result")?;
    if end["exitCode"].as_i64() != Some(0) {
        let error = last(&messages, "session.error").map_or(&Value::Null, |error| &error["data"]);
        let words = error["message"].as_str().unwrap_or("it failed without a reason");
        return Some(Err(failure(error["statusCode"].as_u64(), words)));
    }
    let text = last(&messages, "assistant.message").and_then(|message| owned(&message["data"]["content"]));
    let session_id = owned(&end["sessionId"]);
    Some(Ok(Response { text: text.unwrap_or_default(), session_id, ..Response::default() }))
}

/// aider: plain text, and exit status 0 for errors of the API too. What it says of itself before its answer ends with how
/// it maps the repository; what it says after it (the files it edited) is part of the report.
pub(super) fn aider(stdout: &str, _: &str) -> Option<Result<Response, Failure>> {
    // What it asked again for, and got, is followed by what that used.
    let mended = stdout.rfind("\nTokens: ").map_or(0, |at| at + 1);
    let mut lines = stdout[mended..].split_inclusive('\n').scan(mended, |at, line| {
        *at += line.len();
        Some((*at - line.len(), line))
    });
    if let Some((at, _)) = lines.find(|(_, line)| is_aider_error(line)) {
        return Some(Err(failure(None, &stdout[at..])));
    }
    let asks = ["No LLM model was specified and no API keys", "Please open this URL in your browser"];
    if asks.iter().any(|words| stdout.contains(words)) {
        return Some(Err(Failure::new(FailureKind::NotLoggedIn, "aider has neither a model nor a key")));
    }
    if stdout.trim().is_empty() {
        return None;
    }
    let said =
        stdout.split_once("\nRepo-map: ").map_or(stdout, |(_, rest)| rest.split_once('\n').unwrap_or_default().1);
    Some(Ok(Response { text: said.trim().to_owned(), usage: aider_spent(stdout), ..Response::default() }))
}

/// Aider tells it after every answer of the model.
pub(super) fn aider_spent(stdout: &str) -> Usage {
    let mut usage = Usage::default();
    for line in stdout.lines().filter_map(|line| line.strip_prefix("Tokens: ")) {
        let before = |words: &str| rounded(line.split(words).next()?.rsplit([' ', ',']).next()?);
        let cost = line.split_once("Cost: $").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        let (tokens_in, tokens_out) = (before(" sent").unwrap_or(0), before(" received").unwrap_or(0));
        usage.add(&Usage { tokens_in, tokens_out, tokens_cached: 0, cost_usd: cost });
    }
    usage
}

/// An error is a line of its own; prose or code about an error is not.
fn is_aider_error(line: &str) -> bool {
    line.starts_with("litellm.") && line.split([' ', ':']).next().is_some_and(|name| name.ends_with("Error"))
}

/// `772`, `2.7k` or `1.2M` as a number.
fn rounded(text: &str) -> Option<u64> {
    let (digits, factor) = match text.strip_suffix('k') {
        Some(digits) => (digits, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |digits| (digits, 1e6)),
    };
    let value = digits.parse::<f64>().ok()? * factor;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates
    Some(value.round() as u64)
}
