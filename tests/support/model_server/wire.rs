//! What the four protocols share: answers, usage, bodies and where the key stands.

use std::collections::VecDeque;
use std::iter::Sum;
use std::ops::Add;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame};
use hyper::{HeaderMap, Response};
use serde_json::{Value, json};

use super::{Protocol, Turn, anthropic, chat, gemini, responses};

/// Tokens of one answer, or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// All tokens read, cached ones too. Anthropic's `input_tokens` leaves those out; the others count them in.
    pub input: u64,
    /// Those of them that came from a cache.
    pub cached: u64,
    /// Tokens said.
    pub output: u64,
}

impl Usage {
    /// What the server reports for its `n`th model request: no two alike, so that a sum shows which one was missed or
    /// counted twice.
    pub fn of(n: usize) -> Self {
        let n = n as u64;
        Self { input: 1000 + n, cached: 100, output: 10 + n }
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { input: self.input + other.input, cached: self.cached + other.cached, output: self.output + other.output }
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// What the model says when nothing fails.
pub(super) enum Said {
    Text(String),
    Tool { name: String, input: Value },
}

/// A complete answer, ready for any protocol.
pub(super) struct Answer {
    pub n: usize,
    pub model: String,
    pub said: Said,
    pub usage: Usage,
}

/// A server-sent event (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
pub(super) struct Event {
    pub name: Option<String>,
    pub data: String,
}

impl Event {
    /// An event that only carries data.
    pub fn data(data: &Value) -> Self {
        Self { name: None, data: data.to_string() }
    }

    /// An event that is named after the `type` in its data.
    pub fn typed(data: &Value) -> Self {
        Self { name: data["type"].as_str().map(str::to_owned), data: data.to_string() }
    }

    fn bytes(&self) -> Bytes {
        let name = self.name.as_ref().map(|name| format!("event: {name}\n")).unwrap_or_default();
        Bytes::from(format!("{name}data: {}\n\n", self.data))
    }
}

impl Protocol {
    /// Reads a request; the number and the key are filled in by the server.
    pub(super) fn read(self, body: &Value, path: &str) -> Turn {
        match self {
            Self::Anthropic => anthropic::read(body),
            Self::Chat => chat::read(body),
            Self::Responses => responses::read(body),
            Self::Gemini => gemini::read(body, path),
        }
    }

    /// The provider's error body for a status.
    pub(super) fn error(self, status: u16, kind: Option<&str>, message: &str) -> Value {
        match self {
            Self::Anthropic => anthropic::error(status, kind, message),
            Self::Chat | Self::Responses => chat::error(status, kind, message),
            Self::Gemini => gemini::error(status, kind, message),
        }
    }
}

/// The answer as the client wants it, streamed or whole.
pub(super) fn speak(turn: &Turn, answer: &Answer) -> Response<Scripted> {
    if turn.stream {
        let events = match turn.protocol {
            Protocol::Anthropic => anthropic::events(answer),
            Protocol::Chat => chat::events(answer),
            Protocol::Responses => responses::events(answer),
            Protocol::Gemini => gemini::events(answer),
        };
        return response(200, "text/event-stream", events.iter().map(Event::bytes).collect());
    }
    let whole = match turn.protocol {
        Protocol::Anthropic => anthropic::whole(answer),
        Protocol::Chat => chat::whole(answer),
        Protocol::Responses => responses::whole(answer),
        Protocol::Gemini => gemini::whole(answer),
    };
    json(200, &whole)
}

/// Answers what clients ask beside the model: token counts, lists of models, whether anybody is there.
pub(super) fn aside(path: &str) -> Value {
    if path.ends_with("/count_tokens") {
        return json!({ "input_tokens": 1000 });
    }
    if path.ends_with(":countTokens") {
        return json!({ "totalTokens": 1000 });
    }
    if path.ends_with("/models") {
        // Anthropic's and OpenAI's lists both stand under `data`; Gemini's and codex's own stand under `models`.
        let model = json!({
            "id": "test-model", "object": "model", "type": "model", "display_name": "Test model",
            "created": 0, "created_at": "1970-01-01T00:00:00Z", "owned_by": "tests",
        });
        return json!({ "object": "list", "data": [model], "has_more": false, "models": [] });
    }
    json!({})
}

/// A JSON body.
pub(super) fn json(status: u16, body: &Value) -> Response<Scripted> {
    let text = body.to_string();
    let (first, second) = halves(&text);
    response(status, "application/json", [first, second].map(|half| Bytes::copy_from_slice(half.as_bytes())).into())
}

/// Status 200 and half a JSON text.
pub(super) fn torn() -> Response<Scripted> {
    response(200, "application/json", [Bytes::from_static(b"{\"id\": \"torn\", \"content\": [{\"ty")].into())
}

/// Status 200 and a page.
pub(super) fn html() -> Response<Scripted> {
    let page = "<!doctype html><title>Sign in</title><p>Please sign in to this network.</p>\n";
    response(200, "text/html; charset=utf-8", [Bytes::from_static(page.as_bytes())].into())
}

fn response(status: u16, media: &str, chunks: VecDeque<Bytes>) -> Response<Scripted> {
    Response::builder()
        .status(status)
        .header("content-type", media)
        .body(Scripted { chunks, end: End::Finished, flushed: false })
        .expect("a status and a media type that HTTP knows")
}

/// The response with further headers.
pub(super) fn with_headers(mut response: Response<Scripted>, headers: &[(String, String)]) -> Response<Scripted> {
    for (name, value) in headers {
        let name: hyper::header::HeaderName = name.parse().expect("a header name");
        response.headers_mut().insert(name, value.parse().expect("a header value"));
    }
    response
}

/// The key, wherever the client puts it: `x-api-key` (Anthropic), `x-goog-api-key` or `?key=` (Gemini), a bearer
/// token (`OpenAI`, and Anthropic's OAuth).
pub(super) fn api_key(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    header("x-api-key")
        .or_else(|| header("x-goog-api-key"))
        .or_else(|| Some(header("authorization")?.strip_prefix("Bearer ")?.to_owned()))
        .or_else(|| query?.split('&').find_map(|pair| pair.strip_prefix("key=")).map(str::to_owned))
}

/// Splits a text in two somewhere near its middle, so that clients have to put it together.
pub(super) fn halves(text: &str) -> (&str, &str) {
    let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.split_at(middle)
}

/// All texts in `parts` that stand under `key`, a line each; a plain string is its own text.
pub(super) fn texts(parts: &Value, key: &str) -> String {
    match parts {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part[key].as_str()).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}

/// A JSON string's text, or the JSON of anything else.
pub(super) fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

enum End {
    Finished,
    Cut,
    Stalled,
}

/// A response body that is written out, and then ends well, breaks off or falls silent.
pub(super) struct Scripted {
    chunks: VecDeque<Bytes>,
    end: End,
    flushed: bool,
}

impl Scripted {
    /// Breaks off in the middle: the connection closes without the end of the body.
    pub fn cut(mut self) -> Self {
        self.chunks.truncate(self.chunks.len() / 2);
        self.end = End::Cut;
        self
    }

    /// Falls silent in the middle.
    pub fn stalled(mut self) -> Self {
        self.chunks.truncate(self.chunks.len() / 2);
        self.end = End::Stalled;
        self
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if let Some(chunk) = self.chunks.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match self.end {
            End::Finished => Poll::Ready(None),
            End::Stalled => Poll::Pending,
            // hyper drops what it has not flushed when a body fails, and it flushes when the body is not ready.
            End::Cut if !self.flushed => {
                self.flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Cut => Poll::Ready(Some(Err(std::io::ErrorKind::BrokenPipe.into()))),
        }
    }
}
