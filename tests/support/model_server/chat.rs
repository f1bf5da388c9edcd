//! `OpenAI` Chat Completions: <https://platform.openai.com/docs/api-reference/chat>.

use serde_json::{Value, json};

use super::wire::{Answer, Event, Said, halves, plain, texts};
use super::{Protocol, Tool, Turn};

pub(super) fn read(body: &Value) -> Turn {
    let (mut system, mut messages, mut tool_results) = (Vec::new(), Vec::new(), Vec::new());
    for message in body["messages"].as_array().into_iter().flatten() {
        let text = texts(&message["content"], "text");
        match message["role"].as_str() {
            Some("system" | "developer") => system.push(text),
            Some("user") => {
                tool_results.clear();
                messages.push(text);
            }
            Some("tool") => tool_results.push(text),
            _ => {}
        }
    }
    let tool = |tool: &Value| {
        let function = &tool["function"];
        Some(Tool { name: function["name"].as_str()?.into(), schema: function["parameters"].clone() })
    };
    Turn {
        protocol: Protocol::Chat,
        model: plain(&body["model"]),
        stream: body["stream"] == true,
        system: system.join("\n"),
        messages,
        tool_results,
        tools: body["tools"].as_array().into_iter().flatten().filter_map(tool).collect(),
        api_key: None,
        n: 0,
    }
}

/// `prompt_tokens` counts the cached ones in.
fn usage(answer: &Answer) -> Value {
    json!({
        "prompt_tokens": answer.usage.input,
        "completion_tokens": answer.usage.output,
        "total_tokens": answer.usage.input + answer.usage.output,
        "prompt_tokens_details": { "cached_tokens": answer.usage.cached },
    })
}

pub(super) fn whole(answer: &Answer) -> Value {
    let (message, stop) = match &answer.said {
        Said::Text(text) => (json!({ "role": "assistant", "content": text }), "stop"),
        Said::Tool { name, input } => {
            let call = json!({
                "id": format!("call_{}", answer.n), "type": "function",
                "function": { "name": name, "arguments": input.to_string() },
            });
            (json!({ "role": "assistant", "content": null, "tool_calls": [call] }), "tool_calls")
        }
    };
    json!({
        "id": format!("chatcmpl-{}", answer.n), "object": "chat.completion", "created": 0, "model": answer.model,
        "choices": [{ "index": 0, "message": message, "finish_reason": stop }],
        "usage": usage(answer),
    })
}

/// The last chunk carries the usage whether it was asked for (`stream_options.include_usage`) or not.
pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let (deltas, stop) = match &answer.said {
        Said::Text(text) => {
            let (first, second) = halves(text);
            ([json!({ "role": "assistant", "content": first }), json!({ "content": second })], "stop")
        }
        Said::Tool { name, input } => {
            let input = input.to_string();
            let (first, second) = halves(&input);
            let call = json!({
                "index": 0, "id": format!("call_{}", answer.n), "type": "function",
                "function": { "name": name, "arguments": first },
            });
            let more = json!({ "index": 0, "function": { "arguments": second } });
            (
                [
                    json!({ "role": "assistant", "content": null, "tool_calls": [call] }),
                    json!({ "tool_calls": [more] }),
                ],
                "tool_calls",
            )
        }
    };
    let chunk = |choices: Value| {
        json!({
            "id": format!("chatcmpl-{}", answer.n), "object": "chat.completion.chunk", "created": 0,
            "model": answer.model, "choices": choices,
        })
    };
    let mut chunks: Vec<_> =
        deltas.into_iter().map(|delta| chunk(json!([{ "index": 0, "delta": delta, "finish_reason": null }]))).collect();
    chunks.push(chunk(json!([{ "index": 0, "delta": {}, "finish_reason": stop }])));
    let mut last = chunk(json!([]));
    last["usage"] = usage(answer);
    chunks.push(last);
    let mut events: Vec<_> = chunks.iter().map(Event::data).collect();
    events.push(Event { name: None, data: "[DONE]".to_owned() });
    events
}

/// The kinds are those of <https://platform.openai.com/docs/guides/error-codes>; Responses has the same body.
pub(super) fn error(status: u16, kind: Option<&str>, message: &str) -> Value {
    let usual = match status {
        401 => "invalid_api_key",
        404 => "model_not_found",
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request_error",
    };
    let kind = kind.unwrap_or(usual);
    json!({ "error": { "message": message, "type": kind, "code": kind, "param": null } })
}
