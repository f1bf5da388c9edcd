//! Gemini `generateContent`: <https://ai.google.dev/api/generate-content>.

use serde_json::{Value, json};

use super::wire::{Answer, Event, Said, halves, texts};
use super::{Protocol, Tool, Turn};

/// The model and the manner stand in the path: `…/models/NAME:streamGenerateContent`.
pub(super) fn read(body: &Value, path: &str) -> Turn {
    let (model, method) = path.rsplit('/').next().and_then(|last| last.split_once(':')).unwrap_or_default();
    let (mut messages, mut tool_results) = (Vec::new(), Vec::new());
    for content in body["contents"].as_array().into_iter().flatten().filter(|content| content["role"] != "model") {
        let parts = content["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let results: Vec<_> = parts.iter().filter(|part| part["functionResponse"].is_object()).collect();
        if results.is_empty() {
            tool_results.clear();
            messages.push(texts(&content["parts"], "text"));
        }
        tool_results.extend(results.iter().map(|part| part["functionResponse"]["response"].to_string()));
    }
    let declared = |tool: &Value| tool["functionDeclarations"].as_array().cloned().unwrap_or_default();
    let tool = |function: Value| {
        let schema = ["parametersJsonSchema", "parameters"].into_iter().find_map(|key| function.get(key));
        Some(Tool { name: function["name"].as_str()?.into(), schema: schema.cloned().unwrap_or_default() })
    };
    Turn {
        protocol: Protocol::Gemini,
        model: model.to_owned(),
        stream: method == "streamGenerateContent",
        system: texts(&body["systemInstruction"]["parts"], "text"),
        messages,
        tool_results,
        tools: body["tools"].as_array().into_iter().flatten().flat_map(declared).filter_map(tool).collect(),
        api_key: None,
        n: 0,
    }
}

/// One part of an answer; the last one carries why it stopped.
fn part(answer: &Answer, part: &Value, last: bool) -> Value {
    let mut candidate = json!({ "index": 0, "content": { "role": "model", "parts": [part] } });
    if last {
        candidate["finishReason"] = json!("STOP");
    }
    json!({
        "responseId": format!("response-{}", answer.n), "modelVersion": answer.model, "candidates": [candidate],
        // Every chunk carries the usage so far, and the last one holds; `promptTokenCount` counts the cached ones in.
        "usageMetadata": {
            "promptTokenCount": answer.usage.input,
            "cachedContentTokenCount": answer.usage.cached,
            "candidatesTokenCount": answer.usage.output,
            "totalTokenCount": answer.usage.input + answer.usage.output,
        },
    })
}

fn call(name: &str, input: &Value) -> Value {
    json!({ "functionCall": { "name": name, "args": input } })
}

pub(super) fn whole(answer: &Answer) -> Value {
    match &answer.said {
        Said::Text(text) => part(answer, &json!({ "text": text }), true),
        Said::Tool { name, input } => part(answer, &call(name, input), true),
    }
}

/// Calls are not split: their arguments come as JSON, not as text.
pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let parts = match &answer.said {
        Said::Text(text) => {
            let (first, second) = halves(text);
            vec![part(answer, &json!({ "text": first }), false), part(answer, &json!({ "text": second }), true)]
        }
        Said::Tool { name, input } => vec![part(answer, &call(name, input), true)],
    };
    parts.iter().map(Event::data).collect()
}

/// The kinds are the names of <https://ai.google.dev/gemini-api/docs/troubleshooting>.
pub(super) fn error(status: u16, kind: Option<&str>, message: &str) -> Value {
    let usual = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 | 529 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    json!({ "error": { "code": status, "message": message, "status": kind.unwrap_or(usual) } })
}
