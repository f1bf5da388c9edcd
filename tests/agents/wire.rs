//! The model server over real sockets: every protocol, streamed and whole, and every fault.

use std::time::Duration;

use git_agentloop::run::goal::Role;
use serde_json::{Value, json};

use crate::support::model_server::{Brain, Gate, LoopRoles, ModelServer, Protocol, Reply, Tool, Turn, Usage, Work};
use crate::support::raw_http::{Answer, End, send};

/// Longer than any answer takes on a busy machine; only a stall ever waits for it, and those pass a shorter one.
const PATIENCE: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(200);

const PROTOCOLS: [Protocol; 4] = [Protocol::Anthropic, Protocol::Chat, Protocol::Responses, Protocol::Gemini];

/// A request with a system text, a prompt, a tool result and one tool, as each protocol writes it.
fn request(protocol: Protocol, stream: bool) -> (String, Value, (&'static str, &'static str)) {
    let schema = json!({ "type": "object", "properties": { "path": { "type": "string" } } });
    let bearer = ("authorization", "Bearer key-1");
    match protocol {
        Protocol::Anthropic => (
            "/v1/messages?beta=true".into(),
            json!({
                "model": "m-1", "stream": stream, "max_tokens": 10,
                "system": [{ "type": "text", "text": "Be brief." }],
                "messages": [
                    { "role": "user", "content": [{ "type": "text", "text": "hello" }] },
                    { "role": "assistant", "content": [{ "type": "tool_use", "id": "t", "name": "look" }] },
                    { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "seen" }] },
                ],
                "tools": [{ "name": "look", "input_schema": schema }],
            }),
            ("x-api-key", "key-1"),
        ),
        Protocol::Chat => (
            "/v1/chat/completions".into(),
            json!({
                "model": "m-1", "stream": stream,
                "messages": [
                    { "role": "system", "content": "Be brief." },
                    { "role": "user", "content": [{ "type": "text", "text": "hello" }] },
                    { "role": "assistant", "tool_calls": [{ "id": "t", "function": { "name": "look" } }] },
                    { "role": "tool", "tool_call_id": "t", "content": "seen" },
                ],
                "tools": [{ "type": "function", "function": { "name": "look", "parameters": schema } }],
            }),
            bearer,
        ),
        Protocol::Responses => (
            "/v1/responses".into(),
            json!({
                "model": "m-1", "stream": stream,
                "input": [
                    { "role": "developer", "content": [{ "type": "input_text", "text": "Be brief." }] },
                    { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "hello" }] },
                    { "type": "function_call", "call_id": "t", "name": "look", "arguments": "{}" },
                    { "type": "function_call_output", "call_id": "t", "output": "seen" },
                ],
                "tools": [{ "type": "function", "name": "look", "parameters": schema }],
            }),
            bearer,
        ),
        Protocol::Gemini => (
            format!("/v1beta/models/m-1:{}", if stream { "streamGenerateContent?alt=sse" } else { "generateContent" }),
            json!({
                "systemInstruction": { "parts": [{ "text": "Be brief." }] },
                "contents": [
                    { "role": "user", "parts": [{ "text": "hello" }] },
                    { "role": "model", "parts": [{ "functionCall": { "name": "look", "args": {} } }] },
                    { "role": "user", "parts": [{ "functionResponse": { "name": "look", "response": "seen" } }] },
                ],
                "tools": [{ "functionDeclarations": [{ "name": "look", "parametersJsonSchema": schema }] }],
            }),
            ("x-goog-api-key", "key-1"),
        ),
    }
}

fn ask(server: &ModelServer, protocol: Protocol, stream: bool, limit: Duration) -> Answer {
    let (path, body, key) = request(protocol, stream);
    send(server.address(), "POST", &path, &[key, ("content-type", "application/json")], &body.to_string(), limit)
}

/// The text, the tool call and the usage in an answer, put together as a client of that protocol does.
fn heard(protocol: Protocol, stream: bool, answer: &Answer) -> (String, Option<(String, Value)>, Usage) {
    let events = if stream { answer.events() } else { vec![answer.json()] };
    let (mut text, mut name, mut arguments, mut usage) = (String::new(), None, String::new(), Usage::default());
    let put = |value: &Value, to: &mut String| to.push_str(value.as_str().unwrap_or_default());
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    for event in &events {
        match protocol {
            Protocol::Anthropic => {
                for block in [&event["content"][0], &event["content_block"], &event["delta"]] {
                    put(&block["text"], &mut text);
                    put(&block["partial_json"], &mut arguments);
                    name = name.or_else(|| block["name"].as_str().map(str::to_owned));
                    if block["input"].as_object().is_some_and(|input| !input.is_empty()) {
                        arguments = block["input"].to_string();
                    }
                }
                for reported in [&event["usage"], &event["message"]["usage"]] {
                    let cached = count(&reported["cache_read_input_tokens"]);
                    usage.input += count(&reported["input_tokens"]) + cached;
                    usage.cached += cached;
                    usage.output += count(&reported["output_tokens"]);
                }
            }
            Protocol::Chat => {
                let choice = &event["choices"][0];
                for message in [&choice["message"], &choice["delta"]] {
                    put(&message["content"], &mut text);
                    let function = &message["tool_calls"][0]["function"];
                    name = name.or_else(|| function["name"].as_str().map(str::to_owned));
                    put(&function["arguments"], &mut arguments);
                }
                let reported = &event["usage"];
                usage.input += count(&reported["prompt_tokens"]);
                usage.cached += count(&reported["prompt_tokens_details"]["cached_tokens"]);
                usage.output += count(&reported["completion_tokens"]);
            }
            Protocol::Responses => {
                let whole = if stream { &event["response"] } else { event };
                let item = &whole["output"][0];
                put(&item["content"][0]["text"], &mut text);
                name = name.or_else(|| item["name"].as_str().map(str::to_owned));
                put(&item["arguments"], &mut arguments);
                usage.input += count(&whole["usage"]["input_tokens"]);
                usage.cached += count(&whole["usage"]["input_tokens_details"]["cached_tokens"]);
                usage.output += count(&whole["usage"]["output_tokens"]);
            }
            Protocol::Gemini => {
                let part = &event["candidates"][0]["content"]["parts"][0];
                put(&part["text"], &mut text);
                if let Some(call) = part["functionCall"].as_object() {
                    name = call["name"].as_str().map(str::to_owned);
                    arguments = call["args"].to_string();
                }
                let reported = &event["usageMetadata"];
                usage.input = count(&reported["promptTokenCount"]);
                usage.cached = count(&reported["cachedContentTokenCount"]);
                usage.output = count(&reported["candidatesTokenCount"]);
            }
        }
    }
    (text, name.map(|name| (name, serde_json::from_str(&arguments).expect("whole arguments"))), usage)
}

fn everywhere(check: impl Fn(Protocol, bool)) {
    for protocol in PROTOCOLS {
        for stream in [true, false] {
            check(protocol, stream);
        }
    }
}

#[test]
fn every_protocol_is_understood() {
    everywhere(|protocol, stream| {
        let server = ModelServer::start(Brain::new(|_| Reply::text("ok")));
        ask(&server, protocol, stream, PATIENCE);
        let turns = server.turns();
        let Turn { model, system, messages, tool_results, tools, api_key, .. } = &turns[0];
        assert_eq!((turns[0].protocol, turns[0].stream, turns[0].n), (protocol, stream, 1));
        assert_eq!((model.as_str(), system.trim(), api_key.as_deref()), ("m-1", "Be brief.", Some("key-1")));
        assert_eq!((messages.len(), turns[0].prompt()), (1, "hello"));
        assert_eq!((tool_results.len(), tool_results[0].trim_matches('"')), (1, "seen"));
        let schema = json!({ "type": "object", "properties": { "path": { "type": "string" } } });
        assert_eq!(tools, &[Tool { name: "look".into(), schema }]);
    });
}

#[test]
fn text_and_usage_come_through() {
    let said = "Grüße, 世界 👋\n\"quoted\"";
    everywhere(|protocol, stream| {
        let server = ModelServer::start(Brain::new(move |_| Reply::text(said)));
        for n in 1..=2 {
            let answer = ask(&server, protocol, stream, PATIENCE);
            assert_eq!((answer.status, answer.end), (Some(200), End::Complete));
            assert_eq!(
                heard(protocol, stream, &answer),
                (said.to_owned(), None, Usage::of(n)),
                "{protocol:?} {stream}"
            );
        }
        assert_eq!(server.usage(), Usage { input: 2003, cached: 200, output: 23 });
    });
}

#[test]
fn tool_calls_come_through() {
    let input = json!({ "path": "ä/b.txt", "nested": { "list": [1, 2] } });
    everywhere(|protocol, stream| {
        let call = input.clone();
        let server = ModelServer::start(Brain::new(move |_| Reply::Tool { name: "look".into(), input: call.clone() }));
        let answer = ask(&server, protocol, stream, PATIENCE);
        let expected = (String::new(), Some(("look".to_owned(), input.clone())), Usage::of(1));
        assert_eq!(heard(protocol, stream, &answer), expected, "{protocol:?} {stream}");
    });
}

#[test]
fn errors_have_the_providers_body_and_headers() {
    let kinds = [
        (Protocol::Anthropic, "/error/type", ["authentication_error", "rate_limit_error", "overloaded_error"]),
        (Protocol::Chat, "/error/code", ["invalid_api_key", "rate_limit_exceeded", "server_error"]),
        (Protocol::Responses, "/error/code", ["invalid_api_key", "rate_limit_exceeded", "server_error"]),
        (Protocol::Gemini, "/error/status", ["UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNAVAILABLE"]),
    ];
    for (protocol, place, kinds) in kinds {
        for (status, kind) in [401, 429, 529].into_iter().zip(kinds) {
            let server = ModelServer::start(Brain::new(move |_| Reply::retry_after(status, 7)));
            let answer = ask(&server, protocol, true, PATIENCE);
            assert_eq!((answer.status, answer.header("retry-after")), (Some(status), Some("7")));
            assert_eq!(answer.json().pointer(place), Some(&json!(kind)));
            let request = &server.requests()[0];
            assert_eq!((request.status, request.usage), (Some(status), None));
        }
    }
}

#[test]
fn a_cut_stream_ends_without_its_end() {
    everywhere(|protocol, stream| {
        let server = ModelServer::start(Brain::new(|_| Reply::CutStream));
        let answer = ask(&server, protocol, stream, PATIENCE);
        assert_eq!((answer.status, answer.end), (Some(200), End::Cut));
        assert!(!answer.body.is_empty(), "{protocol:?} {stream}: something comes before the cut");
        assert_eq!(server.usage(), Usage::default());
    });
}

#[test]
fn stalls_leave_the_connection_open() {
    let server =
        ModelServer::start(Brain::new(|_| Reply::StallStream).first(|turn| (turn.n == 1).then_some(Reply::Stall)));
    let answer = ask(&server, Protocol::Anthropic, true, MOMENT);
    assert_eq!((answer.status, answer.end), (None, End::Silent));
    let answer = ask(&server, Protocol::Anthropic, true, MOMENT);
    assert_eq!((answer.status, answer.end), (Some(200), End::Silent));
    assert!(answer.body.contains("message_start"));
}

#[test]
fn dropping_the_server_closes_what_stalls() {
    let server = ModelServer::start(Brain::new(|_| Reply::Stall));
    let address = server.address();
    let client = std::thread::spawn(move || {
        let (path, body, _) = request(Protocol::Chat, true);
        send(address, "POST", &path, &[], &body.to_string(), PATIENCE).end
    });
    assert!(server.wait_for(PATIENCE, |requests| requests.len() == 1));
    drop(server);
    assert_eq!(client.join().expect("a client that ends"), End::Cut);
}

#[test]
fn answers_that_are_no_answers() {
    let faults = [Reply::Hangup, Reply::Html, Reply::Torn, Reply::Redirect("/elsewhere".into())];
    let server = ModelServer::start(Brain::new(move |turn| faults[turn.n - 1].clone()));
    let ask = || ask(&server, Protocol::Responses, true, PATIENCE);
    let answer = ask();
    assert_eq!((answer.status, answer.end), (None, End::Cut));
    let answer = ask();
    assert_eq!((answer.status, answer.header("content-type")), (Some(200), Some("text/html; charset=utf-8")));
    let answer = ask();
    assert_eq!((answer.status, answer.end), (Some(200), End::Complete));
    assert!(serde_json::from_str::<Value>(&answer.body).is_err());
    let answer = ask();
    assert_eq!((answer.status, answer.header("location")), (Some(307), Some("/elsewhere")));
}

#[test]
fn a_held_reply_waits_for_its_gate() {
    let gate = Gate::closed();
    let held = gate.clone();
    let server = ModelServer::start(Brain::new(move |_| held.hold(Reply::text("at last"))));
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| ask(&server, Protocol::Anthropic, false, PATIENCE));
        assert!(server.wait_for(PATIENCE, |requests| requests.len() == 1));
        assert_eq!(server.requests()[0].status, None);
        gate.open();
        client.join().expect("an answer")
    });
    assert_eq!(answer.json()["content"][0]["text"], "at last");
}

#[test]
fn what_is_no_model_request_is_answered_too() {
    let server = ModelServer::start(Brain::new(|_| Reply::Hangup));
    let get = |method, path| send(server.address(), method, path, &[], "", PATIENCE);
    assert_eq!(get("HEAD", "/").status, Some(200));
    assert_eq!(get("GET", "/v1/models").json()["data"][0]["id"], "test-model");
    assert_eq!(get("POST", "/v1/messages/count_tokens").json()["input_tokens"], 1000);
    assert_eq!(get("POST", "/telemetry").json(), json!({}));
    assert_eq!(get("POST", "/v1/messages").status, Some(400), "an empty body is no request");
    assert!(server.turns().is_empty());
    let seen: Vec<_> = server.requests().into_iter().map(|request| (request.method, request.path)).collect();
    assert_eq!(seen[1], ("GET".to_owned(), "/v1/models".to_owned()));
    assert_eq!(seen.len(), 5);
}

/// One Chat request in a role; `results` is how many tools have answered so far.
fn play(server: &ModelServer, system: &str, prompt: &str, results: usize, tool: Option<&str>) -> Value {
    let mut messages =
        vec![json!({ "role": "system", "content": system }), json!({ "role": "user", "content": prompt })];
    messages.extend((0..results).map(|_| json!({ "role": "tool", "content": "ok" })));
    let tools: Vec<_> = tool.iter().map(|name| json!({ "type": "function", "function": { "name": name } })).collect();
    let body = json!({ "model": "m", "messages": messages, "tools": tools }).to_string();
    let answer = send(server.address(), "POST", "/v1/chat/completions", &[], &body, PATIENCE).json();
    answer["choices"][0]["message"].clone()
}

#[test]
fn the_loops_roles_play_their_script() {
    let server = ModelServer::start(Brain::loop_roles(
        LoopRoles::new()
            .plan(json!(["write a"]))
            .work(Work::about("write a").writes(&[("a.txt", "1"), ("b/c.txt", "it's")]).writes(&[("a.txt", "2")]))
            .verdict(LoopRoles::rejects(&["a is wrong"]))
            .verdict(LoopRoles::accepts())
            .recognise(Role::Integrator, |turn| turn.system == "Merge."),
    ));
    let say = |system: &str, prompt| play(&server, system, prompt, 0, None)["content"].clone();
    assert_eq!(say("# Role\n\nYou are the **criteria** writer.", "x"), "- The goal is reached.");
    assert_eq!(say("You are the clarifier.", "x"), "[]");
    assert_eq!(say("You are the decomposer of subagents' goals.", "x"), "[\"write a\"]");
    assert_eq!(say("Merge.", "x"), "Everything is merged.");
    assert_eq!(say("You are Coder. A subagent can help you.", "write a"), "A conversation");
    assert_eq!(say("You are Coder.", "You are a reviewer.\n\nreview"), LoopRoles::rejects(&["a is wrong"]).to_string());
    for _ in 0..2 {
        assert_eq!(say("You are the Reviewer.", "review"), LoopRoles::accepts().to_string());
    }

    let call = |results, tool| {
        let message = play(&server, "You are a subagent.", "please write a", results, Some(tool));
        let function = &message["tool_calls"][0]["function"];
        assert_eq!(function["name"], tool);
        serde_json::from_str::<Value>(function["arguments"].as_str().expect("arguments")).expect("JSON")
    };
    assert_eq!(call(0, "Write"), json!({ "file_path": "a.txt", "content": "1" }));
    assert_eq!(
        call(1, "bash"),
        json!({ "command": "mkdir -p b && printf %s 'it'\\''s' > b/c.txt", "description": "Try it" })
    );
    let last = play(&server, "You are a subagent.", "please write a", 2, Some("Write"));
    assert_eq!(last["content"], "The subgoal is done.");
    assert_eq!(call(0, "Write"), json!({ "file_path": "a.txt", "content": "2" }));
    let without_tools = say("You are a subagent.", "please write a");
    assert_eq!(without_tools, "a.txt\n```\n2\n```\n\nThe subgoal is done.");

    assert_eq!(server.usage_of(Role::Clarifier), Usage::of(2));
    assert_eq!(server.usage_of(Role::Reviewer), [6, 7, 8].map(Usage::of).into_iter().sum());
    assert_eq!(server.usage(), (1..=13).map(Usage::of).sum());
}
