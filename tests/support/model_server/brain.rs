//! What a client asked, what the model says, and who decides it.

use std::sync::Arc;

use git_agentloop::run::goal::Role;
use serde_json::Value;
use tokio::sync::watch;

use super::{LoopRoles, Protocol};

/// A tool the client offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// The name to call it by.
    pub name: String,
    /// The JSON schema of its input; null where the client gave none.
    pub schema: Value,
}

/// One model request, the same for every protocol.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What the client speaks.
    pub protocol: Protocol,
    /// The model it named.
    pub model: String,
    /// Whether it wants its answer as a stream.
    pub stream: bool,
    /// All system and developer text.
    pub system: String,
    /// The texts of the user's messages, oldest first; those that only carry tool results are left out.
    pub messages: Vec<String>,
    /// What the tools gave since the user's last message, oldest first.
    pub tool_results: Vec<String>,
    /// The tools on offer.
    pub tools: Vec<Tool>,
    /// The key it sent, whatever header its protocol puts it in.
    pub api_key: Option<String>,
    /// The number of this model request at this server, from 1.
    pub n: usize,
}

impl Turn {
    /// The user's last message.
    pub fn prompt(&self) -> &str {
        self.messages.last().map_or("", String::as_str)
    }

    /// The offered tool of that name; case is not looked at.
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name.eq_ignore_ascii_case(name))
    }

    /// The role that it is played in: the first sentence `You are … <word>` of the system text, else of the prompt,
    /// where it stands for clients without a system prompt. The word alone proves nothing: agents speak of
    /// "subagents" in system texts of their own.
    pub fn role(&self) -> Option<Role> {
        named_in(&self.system).or_else(|| named_in(self.prompt()))
    }
}

fn named_in(text: &str) -> Option<Role> {
    const FAR: usize = 60;
    let text = text.to_lowercase();
    text.match_indices("you are ").find_map(|(at, opening)| {
        let rest = text[at + opening.len()..].split(['.', ':', ';', '\n']).next().unwrap_or_default();
        let near: String = rest.chars().take(FAR).collect();
        let found = Role::ALL.into_iter().filter_map(|role| near.find(role.name()).map(|at| (at, role)));
        found.min_by_key(|(at, _)| *at).map(|(_, role)| role)
    })
}

/// What the model does with a turn: says something, calls a tool, or fails in one of the ways that providers fail.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Says it and ends its turn.
    Text(String),
    /// Calls one tool.
    Tool {
        /// The tool's name as the client offered it.
        name: String,
        /// Its input.
        input: Value,
    },
    /// An HTTP error in the protocol's own error body.
    Error {
        /// The HTTP status.
        status: u16,
        /// The protocol's error type; `None` takes the one that its provider sends with that status.
        kind: Option<String>,
        /// What went wrong.
        message: String,
        /// Further headers, such as `retry-after`.
        headers: Vec<(String, String)>,
    },
    /// A 307 to that address.
    Redirect(String),
    /// A page where JSON belongs, with status 200: what a captive portal or a proxy sends.
    Html,
    /// Status 200 and half a JSON text.
    Torn,
    /// Takes the request and closes the connection without an answer.
    Hangup,
    /// Takes the request and never answers.
    Stall,
    /// Begins to answer, then stays silent on an open connection.
    StallStream,
    /// Begins to answer, then closes the connection.
    CutStream,
    /// Gives the inner reply once the gate is open.
    Held(Gate, Box<Reply>),
}

impl Reply {
    /// Says `text`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Fails with `status`, as the provider would.
    pub fn error(status: u16) -> Self {
        // Clients that pass on nothing but the words tell the errors apart by them.
        let words = match status {
            401 => "Incorrect API key provided",
            429 => "Rate limit reached",
            529 => "Overloaded",
            _ => "It failed",
        };
        Self::Error { status, kind: None, message: format!("{words}: scripted error {status}"), headers: Vec::new() }
    }

    /// Fails with `status` and a `retry-after` of that many seconds.
    pub fn retry_after(status: u16, seconds: u32) -> Self {
        Self::error(status).header("retry-after", &seconds.to_string())
    }

    /// Adds a header to an error; every other reply stays as it is.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Self::Error { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// The reply itself, once every gate before it is open.
    pub(super) async fn released(self) -> Self {
        let mut reply = self;
        while let Self::Held(gate, inner) = reply {
            gate.opened().await;
            reply = *inner;
        }
        reply
    }
}

/// Holds replies back until the test says so, where a sleep would only guess.
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// `reply`, held until the gate opens.
    pub fn hold(&self, reply: Reply) -> Reply {
        Reply::Held(self.clone(), Box::new(reply))
    }

    async fn opened(&self) {
        // This gate is itself a sender, so the channel cannot close while we wait.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

type Decide = dyn Fn(&Turn) -> Reply + Send + Sync;
type Recognise = dyn Fn(&Turn) -> Option<Role> + Send + Sync;

/// Decides every reply. It is called on the server's one thread, so it must not block: [`Gate`] waits without.
#[derive(Clone)]
pub struct Brain {
    decide: Arc<Decide>,
    recognise: Arc<Recognise>,
}

impl Brain {
    /// A brain that is one closure.
    pub fn new(decide: impl Fn(&Turn) -> Reply + Send + Sync + 'static) -> Self {
        Self { decide: Arc::new(decide), recognise: Arc::new(Turn::role) }
    }

    /// A brain that plays every role of our loop as scripted.
    pub fn loop_roles(script: LoopRoles) -> Self {
        let script = Arc::new(script);
        let roles = Arc::clone(&script);
        Self { decide: Arc::new(move |turn| script.reply(turn)), recognise: Arc::new(move |turn| roles.role(turn)) }
    }

    /// Asks `first` before this brain; where it gives `None` this brain decides. Faults are put in front this way.
    #[must_use]
    pub fn first(self, first: impl Fn(&Turn) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let decide = self.decide;
        Self { decide: Arc::new(move |turn| first(turn).unwrap_or_else(|| decide(turn))), ..self }
    }

    pub(super) fn reply(&self, turn: &Turn) -> Reply {
        (self.decide)(turn)
    }

    pub(super) fn role(&self, turn: &Turn) -> Option<Role> {
        (self.recognise)(turn)
    }
}
