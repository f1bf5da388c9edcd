//! The shapes of the families' lines.

use serde_json::Value;

use super::{LONGEST_TEXT, Part, Reader, WIDTH};
use crate::run::event::clip;
use crate::run::text::{count, one_line};

/// The parts of a line; `None` where no family prints it.
pub(super) fn read(reader: &mut Reader, message: &Value) -> Option<Vec<Part>> {
    let Some(kind) = message["type"].as_str() else { return gemini_answer(message) };
    match kind {
        "assistant" | "user" if message["message"].is_object() => Some(claude(reader, message)),
        "system" if message["subtype"].is_string() => Some(claude_system(message)),
        "rate_limit_event" | "stream_event" | "thread.started" | "turn.started" | "item.updated" => Some(Vec::new()),
        "item.started" | "item.completed" => codex(reader, &message["item"], kind == "item.completed"),
        "turn.completed" => Some(vec![Part::End(tokens(&message["usage"]))]),
        "turn.failed" | "error" => Some(vec![Part::Error(error(message))]),
        "result" => Some(ended(message)),
        _ if message["part"].is_object() => opencode(reader, kind, &message["part"]),
        _ if message["data"].is_object() => copilot(reader, kind, &message["data"]),
        _ => gemini(reader, kind, message),
    }
}

/// Claude Code, `--output-format stream-json`.
fn claude(reader: &mut Reader, message: &Value) -> Vec<Part> {
    let is_answer = message["type"] == "assistant";
    let content = match &message["message"]["content"] {
        Value::Array(blocks) => blocks.as_slice(),
        Value::String(text) if is_answer => return text_part(text),
        _ => &[],
    };
    let part = |block: &Value| match block["type"].as_str()? {
        "text" if is_answer => said_once(&block["text"]),
        "thinking" => thought(&block["thinking"]),
        "tool_use" | "server_tool_use" => {
            Some(reader.begin(&block["id"], block["name"].as_str().unwrap_or("tool"), &block["input"]))
        }
        "tool_result" => {
            let text = text_of(&block["content"]);
            let (failure, text) = match exit_code(&text) {
                _ if block["is_error"] != true => (None, text.as_str()),
                Some((code, rest)) => (Some(format!("exit code {code}")), rest),
                None => (Some("failed".to_owned()), text.as_str()),
            };
            Some(reader.end(&block["tool_use_id"], failure, text))
        }
        _ => None,
    };
    content.iter().filter_map(part).collect()
}

fn claude_system(message: &Value) -> Vec<Part> {
    match message["subtype"].as_str() {
        Some("init") => vec![Part::Start(short(&message["model"]))],
        Some("api_retry") => vec![Part::Error(format!("asks again: {}", error(message)))],
        _ => Vec::new(),
    }
}

/// The end of Claude Code's, of Copilot's and of Gemini's stream.
fn ended(message: &Value) -> Vec<Part> {
    let failed = message["is_error"] == true || message["status"] == "error";
    let mut parts = Vec::new();
    if failed {
        let text = message["result"].as_str().map_or_else(|| error(message), |text| clip(text, LONGEST_TEXT));
        parts.push(Part::Error(text));
    }
    let turns = message["num_turns"].as_u64().map(|turns| count(turns, "turn"));
    let cost = message["total_cost_usd"].as_f64().map(|cost| format!("{cost:.2} USD"));
    let exit = message["exitCode"].as_i64().filter(|code| *code != 0).map(|code| format!("exit code {code}"));
    let usage = if message["stats"].is_object() { &message["stats"] } else { &message["usage"] };
    let all = [turns, Some(tokens(usage)).filter(|text| !text.is_empty()), cost, exit];
    parts.push(Part::End(all.into_iter().flatten().collect::<Vec<_>>().join(", ")));
    parts
}

/// Codex, `exec --json`. It reports commands when they begin, and other actions at their end.
fn codex(reader: &mut Reader, item: &Value, is_done: bool) -> Option<Vec<Part>> {
    let id = &item["id"];
    let kind = item["type"].as_str()?;
    let name = match kind {
        "command_execution" => "shell".to_owned(),
        "mcp_tool_call" => format!("{} {}", short(&item["server"]), short(&item["tool"])),
        "web_search" => "web_search".to_owned(),
        "agent_message" if is_done => return Some(said_once(&item["text"]).into_iter().collect()),
        "reasoning" if is_done => return Some(thought(&item["text"]).into_iter().collect()),
        "error" if is_done => return Some(vec![Part::Error(error(item))]),
        "file_change" if is_done => return Some(changes(item)),
        _ => return Some(Vec::new()),
    };
    let mut parts = Vec::new();
    if !reader.has_begun(id) {
        let input = if kind == "mcp_tool_call" { &item["arguments"] } else { item };
        parts.push(reader.begin(id, &name, input));
    }
    if is_done {
        let code = item["exit_code"].as_i64();
        let failure = match code {
            Some(0) => None,
            Some(code) => Some(format!("exit code {code}")),
            None => matches!(item["status"].as_str(), Some("failed" | "declined")).then(|| short(&item["status"])),
        };
        let text = [&item["aggregated_output"], &item["error"]["message"], &item["result"]["content"]].map(text_of);
        parts.push(reader.end(id, failure, text.concat().trim_end()));
    }
    Some(parts)
}

fn changes(item: &Value) -> Vec<Part> {
    let changes = item["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let part = |change: &Value| Part::File { how: short(&change["kind"]), path: short(&change["path"]) };
    let mut parts: Vec<Part> = changes.iter().map(part).collect();
    if item["status"] == "failed" {
        parts.push(Part::Error("the change was not made".to_owned()));
    }
    parts
}

/// opencode, `run --format json`, which reports a tool when it is through.
fn opencode(reader: &mut Reader, kind: &str, part: &Value) -> Option<Vec<Part>> {
    match kind {
        "text" => Some(said_once(&part["text"]).into_iter().collect()),
        "reasoning" => Some(thought(&part["text"]).into_iter().collect()),
        "step_start" | "step_finish" => Some(Vec::new()),
        "tool_use" => {
            let (id, state) = (&part["callID"], &part["state"]);
            let begun = reader.begin(id, part["tool"].as_str().unwrap_or("tool"), &state["input"]);
            let exit = state["metadata"]["exit"].as_i64().filter(|code| *code != 0);
            let failed = (state["status"] == "error").then(|| "failed".to_owned());
            let text = if state["error"].is_string() { &state["error"] } else { &state["output"] };
            let failure = exit.map(|code| format!("exit code {code}")).or(failed);
            Some(vec![begun, reader.end(id, failure, &text_of(text))])
        }
        _ => None,
    }
}

/// Copilot, `--output-format json`. What it prints letter by letter it prints again whole.
fn copilot(reader: &mut Reader, kind: &str, data: &Value) -> Option<Vec<Part>> {
    let (area, _) = kind.split_once('.')?;
    Some(match kind {
        "assistant.message" => said_once(&data["content"]).into_iter().collect(),
        "assistant.reasoning" => thought(&data["content"]).into_iter().collect(),
        "tool.execution_start" => {
            let name = data["toolName"].as_str().unwrap_or("tool");
            vec![reader.begin(&data["toolCallId"], name, &data["arguments"])]
        }
        "tool.execution_complete" => {
            let text = if data["success"] == false { error(data) } else { text_of(&data["result"]["content"]) };
            let exit = data["shellExecution"]["exitCode"].as_i64().filter(|code| *code != 0);
            let failed = (data["success"] == false).then(|| "failed".to_owned());
            let failure = exit.map(|code| format!("exit code {code}")).or(failed);
            vec![reader.end(&data["toolCallId"], failure, &text)]
        }
        "session.error" | "model.call_failure" => vec![Part::Error(error(data))],
        _ if matches!(area, "session" | "assistant" | "model" | "tool" | "user" | "hook") => Vec::new(),
        _ => return None,
    })
}

/// Gemini CLI, `-o json`: one object at its end, over many lines.
fn gemini_answer(message: &Value) -> Option<Vec<Part>> {
    message["session_id"].as_str()?;
    let Some(text) = message["response"].as_str() else {
        message["error"]["message"].as_str()?;
        return Some(vec![Part::Error(error(message))]);
    };
    let models = message["stats"]["models"].as_object()?.values();
    let all = models.fold(0_u64, |all, model| all.saturating_add(model["tokens"]["total"].as_u64().unwrap_or(0)));
    Some(text_part(text).into_iter().chain([Part::End(count(all, "token"))]).collect())
}

/// Gemini CLI, `-o stream-json`.
fn gemini(reader: &mut Reader, kind: &str, message: &Value) -> Option<Vec<Part>> {
    Some(match kind {
        "init" if message["session_id"].is_string() => vec![Part::Start(short(&message["model"]))],
        "message" if message["role"] == "assistant" => said_once(&message["content"]).into_iter().collect(),
        "message" if message["role"].is_string() => Vec::new(),
        "tool_use" if message["tool_name"].is_string() => {
            vec![reader.begin(&message["tool_id"], &short(&message["tool_name"]), &message["parameters"])]
        }
        "tool_result" if message["tool_id"].is_string() => {
            let text = text_of(&message["output"]);
            let text = if message["error"].is_null() { text } else { error(message) };
            let failure = (message["status"] == "error").then(|| "failed".to_owned());
            vec![reader.end(&message["tool_id"], failure, &text)]
        }
        _ => return None,
    })
}

fn text_part(text: &str) -> Vec<Part> {
    if text.trim().is_empty() { Vec::new() } else { vec![Part::Text(clip(text, LONGEST_TEXT))] }
}

fn said_once(text: &Value) -> Option<Part> {
    text.as_str().and_then(|text| text_part(text).pop())
}

fn thought(text: &Value) -> Option<Part> {
    let text = text.as_str().filter(|text| !text.trim().is_empty())?;
    Some(Part::Thought(clip(text, LONGEST_TEXT)))
}

fn short(value: &Value) -> String {
    one_line(value.as_str().unwrap_or_default(), WIDTH)
}

/// Returns the text of a tool's result: a text itself, or blocks of which some are texts.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(blocks) => {
            let text = |block: &Value| match block["text"].as_str() {
                Some(text) => text.to_owned(),
                None => format!("[{}]", short(&block["type"])),
            };
            blocks.iter().map(text).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

/// The words of an error, wherever the family has them.
fn error(message: &Value) -> String {
    let places = ["/error/message", "/error/data/message", "/error/name", "/message", "/errorMessage", "/error"];
    let words = places.iter().find_map(|place| message.pointer(place)?.as_str());
    clip(words.unwrap_or("it failed"), LONGEST_TEXT)
}

/// The exit code in the first line of a shell's result, `Exit code 3`, and the lines after it.
fn exit_code(text: &str) -> Option<(u8, &str)> {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    Some((first.strip_prefix("Exit code ")?.trim_end().parse().ok()?, rest))
}

fn tokens(usage: &Value) -> String {
    let number = |key: &str| usage[key].as_u64().unwrap_or(0);
    let cached = number("cache_read_input_tokens").saturating_add(number("cache_creation_input_tokens"));
    let all = number("input_tokens").saturating_add(number("output_tokens")).saturating_add(cached);
    if all == 0 { String::new() } else { count(all, "token") }
}
