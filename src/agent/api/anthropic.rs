//! Anthropic Messages, streamed.

use serde_json::{Value, json};

use super::turn::{Answer, Call, Outcome, Task};
use crate::agent::explain;
use crate::run::work::Usage;

/// Tokens of one answer: every model in use gives as many.
const MAX_TOKENS: u32 = 16_000;

pub(super) fn body(task: &Task<'_>, messages: &[Value]) -> Value {
    // What is constant in all turns, and the conversation so far, are read from the cache.
    let cached = json!({"type": "ephemeral"});
    let mut messages = messages.to_vec();
    if let Some(content) = messages.last_mut().map(|message| &mut message["content"]) {
        if let Value::String(text) = content {
            *content = json!([{"type": "text", "text": text}]);
        }
        if let Some(block) = content.as_array_mut().and_then(|blocks| blocks.last_mut()) {
            block["cache_control"] = cached.clone();
        }
    }
    let tools: Vec<Value> = task
        .tools
        .iter()
        .map(|tool| json!({"name": tool.name, "description": tool.description, "input_schema": tool.schema}))
        .collect();
    let mut body = json!({"model": task.model, "max_tokens": MAX_TOKENS, "stream": true, "messages": messages});
    if !task.system.trim().is_empty() {
        body["system"] = json!([{"type": "text", "text": task.system, "cache_control": cached}]);
    }
    if !tools.is_empty() {
        body["tools"] = json!(tools);
    }
    body
}

pub(super) fn hear(event: &Value, answer: &mut Answer) {
    let count = |usage: &Value, key: &str| usage[key].as_u64().unwrap_or(0);
    match event["type"].as_str() {
        Some("message_start") => {
            let used = &event["message"]["usage"];
            let cached = count(used, "cache_read_input_tokens");
            let written = count(used, "cache_creation_input_tokens");
            answer.usage = Usage {
                tokens_in: count(used, "input_tokens").saturating_add(cached).saturating_add(written),
                tokens_out: count(used, "output_tokens"),
                tokens_cached: cached,
                cost_usd: None,
            };
        }
        Some("content_block_start") => {
            let block = &event["content_block"];
            if block["type"] == "tool_use" {
                let text = |key: &str| block[key].as_str().unwrap_or_default().to_owned();
                answer.calls.push(Call { id: text("id"), name: text("name"), arguments: String::new() });
            }
        }
        Some("content_block_delta") => {
            let delta = &event["delta"];
            answer.text.push_str(delta["text"].as_str().unwrap_or_default());
            if let (Some(call), Some(part)) = (answer.calls.last_mut(), delta["partial_json"].as_str()) {
                call.arguments.push_str(part);
            }
        }
        Some("message_delta") => {
            answer.usage.tokens_out = answer.usage.tokens_out.max(count(&event["usage"], "output_tokens"));
            answer.stop = event["delta"]["stop_reason"].as_str().map(ToOwned::to_owned).or(answer.stop.take());
        }
        Some("error") => {
            let error = &event["error"];
            let words = [error["type"].as_str(), error["message"].as_str()].map(Option::unwrap_or_default).join(": ");
            answer.failure = Some(explain::failure(None, &words));
        }
        _ => {}
    }
}

pub(super) fn exchange(answer: &Answer, outcomes: &[Outcome]) -> Vec<Value> {
    let mut said = Vec::new();
    if !answer.text.is_empty() {
        said.push(json!({"type": "text", "text": answer.text}));
    }
    for call in &answer.calls {
        // It wants its own arguments back as an object; where they are none, the outcome says so.
        let input = serde_json::from_str(&call.arguments).ok().filter(Value::is_object).unwrap_or_else(|| json!({}));
        said.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
    }
    let results: Vec<Value> = answer
        .calls
        .iter()
        .zip(outcomes)
        .map(|(call, outcome)| {
            json!({"type": "tool_result", "tool_use_id": call.id, "content": outcome.text, "is_error": !outcome.ok})
        })
        .collect();
    vec![json!({"role": "assistant", "content": said}), json!({"role": "user", "content": results})]
}
