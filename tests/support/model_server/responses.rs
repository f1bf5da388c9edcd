//! `OpenAI` Responses: <https://platform.openai.com/docs/api-reference/responses>, and its
//! [streaming events](https://platform.openai.com/docs/api-reference/responses-streaming).

use serde_json::{Value, json};

use super::wire::{Answer, Event, Said, halves, plain, texts};
use super::{Protocol, Tool, Turn};

pub(super) fn read(body: &Value) -> Turn {
    let mut system = vec![plain_or_empty(&body["instructions"])];
    let (mut messages, mut tool_results) = (Vec::new(), Vec::new());
    if let Value::String(prompt) = &body["input"] {
        messages.push(prompt.clone());
    }
    for item in body["input"].as_array().into_iter().flatten() {
        let text = texts(&item["content"], "text");
        match (item["type"].as_str(), item["role"].as_str()) {
            (_, Some("system" | "developer")) => system.push(text),
            (_, Some("user")) => {
                tool_results.clear();
                messages.push(text);
            }
            (Some("function_call_output" | "custom_tool_call_output"), _) => tool_results.push(match &item["output"] {
                Value::Array(_) => texts(&item["output"], "text"),
                other => plain(other),
            }),
            _ => {}
        }
    }
    Turn {
        protocol: Protocol::Responses,
        model: plain(&body["model"]),
        stream: body["stream"] == true,
        system: system.join("\n"),
        messages,
        tool_results,
        tools: tools(&body["tools"], ""),
        api_key: None,
        n: 0,
    }
}

/// The tools on offer; those of a namespace, as Codex offers what MCP servers have, as `<namespace>.<name>`.
fn tools(offered: &Value, within: &str) -> Vec<Tool> {
    let read = |tool: &Value| -> Vec<Tool> {
        let Some(name) = tool["name"].as_str() else { return Vec::new() };
        if tool["type"] == "namespace" {
            return tools(&tool["tools"], &format!("{name}."));
        }
        vec![Tool { name: format!("{within}{name}"), schema: tool["parameters"].clone() }]
    };
    offered.as_array().into_iter().flatten().flat_map(read).collect()
}

fn plain_or_empty(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The one item that is said; without its text or arguments it is the item as it is announced.
fn item(answer: &Answer, complete: bool) -> Value {
    let status = if complete { "completed" } else { "in_progress" };
    match &answer.said {
        Said::Text(text) => {
            let content =
                if complete { json!([{ "type": "output_text", "text": text, "annotations": [] }]) } else { json!([]) };
            json!({
                "id": format!("msg_{}", answer.n), "type": "message", "role": "assistant", "status": status,
                "content": content,
            })
        }
        Said::Tool { name, input } => {
            let mut item = json!({
                "id": format!("fc_{}", answer.n), "type": "function_call", "call_id": format!("call_{}", answer.n),
                "status": status, "name": name,
                "arguments": if complete { input.to_string() } else { String::new() },
            });
            if let Some((namespace, name)) = name.split_once('.') {
                item["namespace"] = json!(namespace);
                item["name"] = json!(name);
            }
            item
        }
    }
}

/// `input_tokens` counts the cached ones in.
pub(super) fn whole(answer: &Answer) -> Value {
    json!({
        "id": format!("resp_{}", answer.n), "object": "response", "created_at": 0, "status": "completed",
        "model": answer.model, "error": null, "incomplete_details": null, "output": [item(answer, true)],
        "usage": {
            "input_tokens": answer.usage.input,
            "input_tokens_details": { "cached_tokens": answer.usage.cached },
            "output_tokens": answer.usage.output,
            "output_tokens_details": { "reasoning_tokens": 0 },
            "total_tokens": answer.usage.input + answer.usage.output,
        },
    })
}

pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let begun = json!({
        "id": format!("resp_{}", answer.n), "object": "response", "created_at": 0, "status": "in_progress",
        "model": answer.model, "output": [],
    });
    let mut events = vec![
        json!({ "type": "response.created", "response": begun }),
        json!({ "type": "response.output_item.added", "output_index": 0, "item": item(answer, false) }),
    ];
    let (kind, id, said) = match &answer.said {
        Said::Text(text) => ("response.output_text.delta", format!("msg_{}", answer.n), text.clone()),
        Said::Tool { input, .. } => {
            ("response.function_call_arguments.delta", format!("fc_{}", answer.n), input.to_string())
        }
    };
    let (first, second) = halves(&said);
    events
        .extend([first, second].map(
            |delta| json!({ "type": kind, "item_id": id, "output_index": 0, "content_index": 0, "delta": delta }),
        ));
    events.extend([
        json!({ "type": "response.output_item.done", "output_index": 0, "item": item(answer, true) }),
        json!({ "type": "response.completed", "response": whole(answer) }),
    ]);
    for (at, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(at);
    }
    events.iter().map(Event::typed).collect()
}
