//! `OpenAI` Chat Completions, streamed; as others speak it too.

use serde_json::{Value, json};

use super::turn::{Answer, Call, Outcome, Task};
use crate::agent::explain;
use crate::run::work::Usage;

/// Calls in one answer at most: their numbers come from the service.
const MOST_CALLS: usize = 128;

pub(super) fn body(task: &Task<'_>, messages: &[Value]) -> Value {
    let mut all = Vec::with_capacity(messages.len() + 1);
    if !task.system.trim().is_empty() {
        all.push(json!({"role": "system", "content": task.system}));
    }
    all.extend_from_slice(messages);
    let tools: Vec<Value> = task
        .tools
        .iter()
        .map(|tool| {
            let function = json!({"name": tool.name, "description": tool.description, "parameters": tool.schema});
            json!({"type": "function", "function": function})
        })
        .collect();
    let mut body = json!({
        "model": task.model, "messages": all, "stream": true, "stream_options": {"include_usage": true},
    });
    if !tools.is_empty() {
        body["tools"] = json!(tools);
    }
    body
}

pub(super) fn hear(event: &Value, answer: &mut Answer) {
    if let Some(error) = event.get("error").filter(|error| !error.is_null()) {
        let words = error["message"].as_str().map_or_else(|| error.to_string(), ToOwned::to_owned);
        answer.failure = Some(explain::failure(error["code"].as_u64(), &words));
        return;
    }
    let used = &event["usage"];
    if used.is_object() {
        let count = |value: &Value| value.as_u64().unwrap_or(0);
        answer.usage = Usage {
            tokens_in: count(&used["prompt_tokens"]), // those from the cache are in it
            tokens_out: count(&used["completion_tokens"]),
            tokens_cached: count(&used["prompt_tokens_details"]["cached_tokens"]),
            cost_usd: used["cost"].as_f64(), // OpenRouter tells it
        };
    }
    let choice = &event["choices"][0];
    answer.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    for part in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
        let number = part["index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let number = number.unwrap_or(answer.calls.len().saturating_sub(1));
        if number >= MOST_CALLS {
            continue;
        }
        if number >= answer.calls.len() {
            answer.calls.resize(number + 1, Call::default());
        }
        let call = &mut answer.calls[number];
        call.id.push_str(part["id"].as_str().unwrap_or_default());
        call.name.push_str(part["function"]["name"].as_str().unwrap_or_default());
        call.arguments.push_str(part["function"]["arguments"].as_str().unwrap_or_default());
    }
    if let Some(reason) = choice["finish_reason"].as_str() {
        answer.stop = Some(reason.to_owned());
    }
}

pub(super) fn exchange(answer: &Answer, outcomes: &[Outcome]) -> Vec<Value> {
    let calls: Vec<Value> = answer
        .calls
        .iter()
        .map(|call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": call.id, "type": "function", "function": function})
        })
        .collect();
    let said = if answer.text.is_empty() { Value::Null } else { json!(answer.text) };
    let mut messages = vec![json!({"role": "assistant", "content": said, "tool_calls": calls})];
    messages.extend(
        answer
            .calls
            .iter()
            .zip(outcomes)
            .map(|(call, outcome)| json!({"role": "tool", "tool_call_id": call.id, "content": outcome.text})),
    );
    messages
}
