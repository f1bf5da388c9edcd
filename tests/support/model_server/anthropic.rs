//! Anthropic Messages: <https://docs.anthropic.com/en/api/messages>, streamed as
//! <https://docs.anthropic.com/en/docs/build-with-claude/streaming> says.

use serde_json::{Value, json};

use super::wire::{Answer, Event, Said, halves, plain, texts};
use super::{Protocol, Tool, Turn};

pub(super) fn read(body: &Value) -> Turn {
    let (mut messages, mut tool_results) = (Vec::new(), Vec::new());
    for message in body["messages"].as_array().into_iter().flatten().filter(|message| message["role"] == "user") {
        let blocks = message["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        let results: Vec<_> = blocks.iter().filter(|block| block["type"] == "tool_result").collect();
        if results.is_empty() {
            tool_results.clear();
            messages.push(texts(&message["content"], "text"));
        }
        tool_results.extend(results.into_iter().map(|result| match &result["content"] {
            Value::Array(_) => texts(&result["content"], "text"),
            other => plain(other),
        }));
    }
    let tool = |tool: &Value| Some(Tool { name: tool["name"].as_str()?.into(), schema: tool["input_schema"].clone() });
    Turn {
        protocol: Protocol::Anthropic,
        model: plain(&body["model"]),
        stream: body["stream"] == true,
        system: texts(&body["system"], "text"),
        messages,
        tool_results,
        tools: body["tools"].as_array().into_iter().flatten().filter_map(tool).collect(),
        api_key: None,
        n: 0,
    }
}

pub(super) fn whole(answer: &Answer) -> Value {
    let (content, stop) = match &answer.said {
        Said::Text(text) => (json!({ "type": "text", "text": text }), "end_turn"),
        Said::Tool { name, input } => (
            json!({ "type": "tool_use", "id": format!("toolu_{}", answer.n), "name": name, "input": input }),
            "tool_use",
        ),
    };
    let mut message = opening(answer);
    message["content"] = json!([content]);
    message["stop_reason"] = json!(stop);
    message["usage"]["output_tokens"] = json!(answer.usage.output);
    message
}

/// The message before anything is said. Cached tokens are no part of its `input_tokens`.
fn opening(answer: &Answer) -> Value {
    json!({
        "id": format!("msg_{}", answer.n), "type": "message", "role": "assistant", "model": answer.model,
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {
            "input_tokens": answer.usage.input - answer.usage.cached,
            "cache_read_input_tokens": answer.usage.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": 0,
        },
    })
}

pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let (block, deltas, stop) = match &answer.said {
        Said::Text(text) => {
            let (first, second) = halves(text);
            let delta = |text: &str| json!({ "type": "text_delta", "text": text });
            (json!({ "type": "text", "text": "" }), [delta(first), delta(second)], "end_turn")
        }
        Said::Tool { name, input } => {
            let input = input.to_string();
            let (first, second) = halves(&input);
            let delta = |part: &str| json!({ "type": "input_json_delta", "partial_json": part });
            let block = json!({ "type": "tool_use", "id": format!("toolu_{}", answer.n), "name": name, "input": {} });
            (block, [delta(first), delta(second)], "tool_use")
        }
    };
    let mut events = vec![
        json!({ "type": "message_start", "message": opening(answer) }),
        json!({ "type": "content_block_start", "index": 0, "content_block": block }),
        json!({ "type": "ping" }),
    ];
    events.extend(deltas.map(|delta| json!({ "type": "content_block_delta", "index": 0, "delta": delta })));
    events.extend([
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({
            "type": "message_delta", "delta": { "stop_reason": stop, "stop_sequence": null },
            "usage": { "output_tokens": answer.usage.output },
        }),
        json!({ "type": "message_stop" }),
    ]);
    events.iter().map(Event::typed).collect()
}

/// The kinds are those of <https://docs.anthropic.com/en/api/errors>.
pub(super) fn error(status: u16, kind: Option<&str>, message: &str) -> Value {
    let usual = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind.unwrap_or(usual), "message": message }, "request_id": "req_test" })
}
