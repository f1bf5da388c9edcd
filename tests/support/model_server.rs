//! A model provider inside the test process: the HTTP server that agents and our own backends are driven against.
//!
//! It speaks four protocols, each read and answered as its provider documents it:
//! Anthropic Messages (<https://docs.anthropic.com/en/api/messages>), `OpenAI` Chat Completions
//! (<https://platform.openai.com/docs/api-reference/chat>), `OpenAI` Responses
//! (<https://platform.openai.com/docs/api-reference/responses>) and Gemini `generateContent`
//! (<https://ai.google.dev/api/generate-content>). What it says is decided by one [`Brain`] for all of them.
//!
//! ```ignore
//! let server = ModelServer::start(Brain::new(|turn| Reply::text(format!("you said {}", turn.prompt()))));
//! // … run an agent against server.url() …
//! assert_eq!(server.usage(), Usage { input: 1001, cached: 100, output: 11 });
//! ```
#![allow(dead_code, reason = "every test binary that takes this module in uses a part of it")]

mod anthropic;
mod brain;
mod chat;
mod gemini;
mod loop_roles;
mod responses;
mod wire;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use git_agentloop::run::goal::Role;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use brain::{Brain, Gate, Reply, Tool, Turn};
pub use loop_roles::{LoopRoles, Work};
pub use wire::Usage;
use wire::{Answer, Scripted};

/// The largest request body that is read. Agents send their tools and the conversation so far: some hundred KiB.
const LARGEST_BODY: usize = 64 << 20;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /v1/messages`.
    Anthropic,
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1beta/models/NAME:generateContent` and `:streamGenerateContent`.
    Gemini,
}

impl Protocol {
    /// The protocol of a model request; `None` for everything that clients ask beside it.
    fn of(method: &str, path: &str) -> Option<Self> {
        if method != "POST" {
            return None;
        }
        match path {
            _ if path.ends_with("/messages") => Some(Self::Anthropic),
            _ if path.ends_with("/chat/completions") => Some(Self::Chat),
            _ if path.ends_with("/responses") => Some(Self::Responses),
            _ if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") => Some(Self::Gemini),
            _ => None,
        }
    }
}

/// One request as it came in, and what was reported back about it.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path without its query.
    pub path: String,
    /// What the brain saw; `None` for requests that ask no model (lists of models, token counts, reachability).
    pub turn: Option<Turn>,
    /// The role of our loop that was recognised in it.
    pub role: Option<Role>,
    /// The HTTP status of the answer; `None` while there is none, and for good when the answer never comes.
    pub status: Option<u16>,
    /// The tokens a complete answer reported; `None` for faults.
    pub usage: Option<Usage>,
    /// When its body had been read.
    pub at: Instant,
}

/// The running server. Dropping it closes every connection and waits for its thread.
pub struct ModelServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    brain: Brain,
    requests: Mutex<Vec<Request>>,
    changed: Condvar,
}

impl Shared {
    fn requests(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, index: usize, status: u16, usage: Option<Usage>) {
        let request = &mut self.requests()[index];
        request.status = Some(status);
        request.usage = usage;
        self.changed.notify_all();
    }
}

impl ModelServer {
    /// Starts a server on a free port of 127.0.0.1. It has a thread and a runtime of its own, so plain and async tests
    /// use it alike.
    pub fn start(brain: Brain) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on 127.0.0.1");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("the address just bound");
        let shared = Arc::new(Shared { brain, requests: Mutex::default(), changed: Condvar::new() });
        let (stop, stopped) = oneshot::channel();
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, serving) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, shared, stop: Some(stop), thread: Some(thread) }
    }

    /// The base URL without a path: `http://127.0.0.1:PORT`. `OpenAI` clients want `/v1` behind it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens, for clients that open their own socket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every request so far, in the order they came in.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests().clone()
    }

    /// The requests that asked the model something.
    pub fn turns(&self) -> Vec<Turn> {
        self.shared.requests().iter().filter_map(|request| request.turn.clone()).collect()
    }

    /// The sum of all usage it reported: what a correct client adds up to.
    pub fn usage(&self) -> Usage {
        self.usage_where(|_| true)
    }

    /// The sum of the usage it reported to `role`.
    pub fn usage_of(&self, role: Role) -> Usage {
        self.usage_where(|request| request.role == Some(role))
    }

    /// The sum of the usage it reported in the requests that `chosen` picks.
    pub fn usage_where(&self, chosen: impl Fn(&Request) -> bool) -> Usage {
        self.shared.requests().iter().filter(|request| chosen(request)).filter_map(|request| request.usage).sum()
    }

    /// Waits until `reached` holds for the requests so far; false when `limit` passes first.
    pub fn wait_for(&self, limit: Duration, reached: impl Fn(&[Request]) -> bool) -> bool {
        let waited = self.shared.changed.wait_timeout_while(self.shared.requests(), limit, |seen| !reached(seen));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        // The thread may be gone already after a panic; there is nothing to stop then.
        self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the model server's thread panicked");
        }
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).expect("a listener of this runtime");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let shared = Arc::clone(&shared);
        let service = service_fn(move |request| respond(request, Arc::clone(&shared)));
        // A client that hangs up, and a fault that cuts, end the connection with an error: both are meant to.
        tokio::spawn(async move { http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok() });
    }
}

/// Answers one request. The error is the fault of hanging up: hyper then closes the connection without a word.
async fn respond(
    request: hyper::Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<hyper::Response<Scripted>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, LARGEST_BODY).collect().await?.to_bytes();
    let (method, path) = (head.method.to_string(), head.uri.path().to_owned());
    let (turn, status, answer) = match Protocol::of(&method, &path) {
        None => (None, 200, wire::aside(&path)),
        Some(protocol) => match serde_json::from_slice::<Value>(&body) {
            Err(_) => (None, 400, protocol.error(400, None, "the request body is not JSON")),
            Ok(asked) => (Some(protocol.read(&asked, &path)), 0, Value::Null),
        },
    };
    let at = Instant::now();
    let Some(mut turn) = turn else {
        shared.requests().push(Request { method, path, turn, role: None, status: Some(status), usage: None, at });
        shared.changed.notify_all();
        return Ok(wire::json(status, &answer));
    };
    turn.api_key = wire::api_key(&head.headers, head.uri.query());
    let index = {
        let mut requests = shared.requests();
        turn.n = requests.iter().filter(|earlier| earlier.turn.is_some()).count() + 1;
        let role = shared.brain.role(&turn);
        requests.push(Request { method, path, turn: Some(turn.clone()), role, status: None, usage: None, at });
        shared.changed.notify_all();
        requests.len() - 1
    };
    let reply = shared.brain.reply(&turn).released().await;
    say(&turn, reply, |status, usage| shared.answered(index, status, usage)).await
}

/// Puts a reply on the wire in the protocol and the manner (streamed or whole) that the client asked for.
async fn say(
    turn: &Turn,
    reply: Reply,
    answered: impl FnOnce(u16, Option<Usage>),
) -> Result<hyper::Response<Scripted>, Box<dyn std::error::Error + Send + Sync>> {
    let answer = |said| Answer { n: turn.n, model: turn.model.clone(), said, usage: Usage::of(turn.n) };
    let unfinished = || wire::speak(turn, &answer(wire::Said::Text("This answer has no end".repeat(8))));
    let (response, usage) = match reply {
        Reply::Text(text) => (wire::speak(turn, &answer(wire::Said::Text(text))), Some(Usage::of(turn.n))),
        Reply::Tool { name, input } => {
            (wire::speak(turn, &answer(wire::Said::Tool { name, input })), Some(Usage::of(turn.n)))
        }
        Reply::Error { status, kind, message, headers } => {
            let body = turn.protocol.error(status, kind.as_deref(), &message);
            (wire::with_headers(wire::json(status, &body), &headers), None)
        }
        Reply::Redirect(to) => {
            (wire::with_headers(wire::json(307, &Value::Null), &[("location".to_owned(), to)]), None)
        }
        Reply::Html => (wire::html(), None),
        Reply::Torn => (wire::torn(), None),
        Reply::CutStream => (unfinished().map(Scripted::cut), None),
        Reply::StallStream => (unfinished().map(Scripted::stalled), None),
        Reply::Hangup => return Err("hanging up, as the brain said".into()),
        Reply::Stall | Reply::Held(..) => {
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    };
    answered(response.status().as_u16(), usage);
    Ok(response)
}
