//! One conversation: open a session, choose the model, put the task, hear what comes of it. Messages in, messages out.

mod turn;

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use self::turn::Answer;
use super::lines::Text;
use crate::agent::explain::{self, EXCERPT};
use crate::agent::program::{combined, end_of};
use crate::agent::story::Story;
use crate::agent::{Request, Response};
use crate::run::event::clip;
use crate::run::work::{Failure, FailureKind, Usage, one_line};

/// Hint for a command that speaks another protocol.
pub(super) const SPEAKS: &str = "see that the command speaks the Agent Client Protocol on its standard input and output: many agents want an option for it, such as 'gemini --acp' or 'opencode acp'";
/// The version of the protocol that we speak.
const VERSION: u64 = 1;
/// Error of an agent without a login (the protocol's schema, `ErrorCode`).
const AUTH_REQUIRED: i64 = -32000;
/// The error of a request that is not known (JSON-RPC 2.0, section 5.1).
const METHOD_NOT_FOUND: i64 = -32601;
/// Characters of a name or a title.
const NAME: usize = 200;
/// Names that a hint lists.
const LISTED: usize = 8;

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    /// There is no session yet.
    Opening,
    /// The agent works.
    Working,
    /// Nothing more is waited for.
    Over,
}

/// The reply that the conversation waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Initializing,
    Opening,
    ChoosingModel,
    Working,
}

/// The remembered part of a tool's use.
#[derive(Default)]
struct ToolCall {
    kind: String,
    title: String,
    paths: Vec<String>,
    /// The line that was shown last.
    shown: String,
}

/// A conversation that has come to its end.
pub(super) struct Ended {
    pub(super) outcome: Option<Result<Response, Failure>>,
    pub(super) interrupted: Option<Failure>,
    /// Its last output that was not a message of the protocol.
    pub(super) noise: String,
    pub(super) progress: Progress,
}

/// Our side of it.
pub(super) struct Conversation<'r> {
    request: &'r Request,
    root: PathBuf,
    asks_for_model: bool,
    stage: Stage,
    /// The number of the request that waits for its answer.
    id: u64,
    session: Option<String>,
    takes_system: bool,
    /// How one logs in, in the agent's words.
    logins: Vec<String>,
    /// Models that it offers.
    models: Vec<String>,
    calls: HashMap<String, ToolCall>,
    answer: Answer,
    refusals: u32,
    usage: Usage,
    noise: String,
    closed: bool,
    interrupted: Option<Failure>,
    outcome: Option<Result<Response, Failure>>,
    story: Story,
}

impl<'r> Conversation<'r> {
    pub(super) fn new(request: &'r Request, root: PathBuf, asks_for_model: bool) -> Self {
        Self {
            request,
            root,
            asks_for_model,
            stage: Stage::Initializing,
            id: 0,
            session: None,
            takes_system: false,
            logins: Vec::new(),
            models: Vec::new(),
            calls: HashMap::new(),
            answer: Answer::default(),
            refusals: 0,
            usage: Usage::default(),
            noise: String::new(),
            closed: false,
            interrupted: None,
            outcome: None,
            story: Story::new(request.transcript.as_ref()),
        }
    }

    pub(super) fn progress(&self) -> Progress {
        match self.stage {
            _ if self.closed || self.outcome.is_some() => Progress::Over,
            Stage::Working => Progress::Working,
            _ => Progress::Opening,
        }
    }

    /// Returns the first messages to the agent.
    pub(super) fn begin(&mut self) -> Vec<Value> {
        let params = json!({
            "protocolVersion": VERSION,
            "clientCapabilities": {"fs": {"readTextFile": false, "writeTextFile": false}, "terminal": false},
            "clientInfo": {"name": "git-agentloop", "version": env!("CARGO_PKG_VERSION")},
        });
        vec![self.ask(Stage::Initializing, "initialize", &params)]
    }

    /// Reads a line of the agent's and returns the replies to it.
    pub(super) fn hear(&mut self, line: Text<'_>) -> Vec<Value> {
        let text = match line {
            Text::Whole(bytes) => String::from_utf8_lossy(bytes),
            // No reply depends on an update, and the protocol's messages name their kind early.
            Text::Long(head)
                if head[..head.len().min(EXCERPT)].windows(16).any(|part| part == b"\"session/update\"") =>
            {
                return Vec::new();
            }
            Text::Long(_) => {
                self.fail(Failure::new(FailureKind::Protocol, "it sent a message that is too long to be read"));
                return Vec::new();
            }
        };
        match serde_json::from_str::<Value>(&text) {
            Ok(message @ Value::Object(_)) if message["method"].is_string() => self.asked(&message),
            Ok(message @ Value::Object(_)) if message.get("id").is_some() => self.answered(&message),
            Err(error) if text.contains("\"jsonrpc\"") => {
                let message = format!("it sent a message that is no JSON: {error}: {}", clip(&text, EXCERPT));
                self.fail(Failure::new(FailureKind::Protocol, message));
                Vec::new()
            }
            _ => {
                // A banner, a warning: what else a program prints.
                if !text.trim().is_empty() {
                    self.story.line(&text);
                    let noise = format!("{}\n{}", self.noise, end_of(&text));
                    end_of(&noise).clone_into(&mut self.noise);
                }
                Vec::new()
            }
        }
    }

    /// Records output beside its messages.
    pub(super) fn overhear(&mut self, bytes: &[u8]) {
        self.story.note(bytes);
    }

    /// It says no more.
    pub(super) fn hung_up(&mut self) {
        self.closed = true;
    }

    /// Returns the messages that cancel the turn, if one is under way.
    pub(super) fn interrupt(&mut self, failure: Failure) -> Vec<Value> {
        self.interrupted = Some(failure);
        match &self.session {
            Some(session) if self.stage == Stage::Working => {
                vec![json!({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}})]
            }
            _ => Vec::new(),
        }
    }

    /// It came to nothing.
    pub(super) fn fail(&mut self, failure: Failure) {
        let spent = (self.usage != Usage::default()).then(|| Box::new(self.usage));
        self.outcome.get_or_insert(Err(Failure { spent, ..failure }));
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.outcome, Some(Err(_)))
    }

    pub(super) fn end(self) -> Ended {
        let progress = match self.stage {
            Stage::Working => Progress::Working,
            _ => Progress::Opening,
        };
        Ended { outcome: self.outcome, interrupted: self.interrupted, noise: self.noise, progress }
    }

    fn ask(&mut self, stage: Stage, method: &str, params: &Value) -> Value {
        self.stage = stage;
        self.id += 1;
        json!({"jsonrpc": "2.0", "id": self.id, "method": method, "params": params})
    }

    /// It answers: the next request, or the end.
    fn answered(&mut self, message: &Value) -> Vec<Value> {
        if self.outcome.is_some() || message["id"].as_u64() != Some(self.id) {
            return Vec::new();
        }
        let next = match message.get("error").filter(|error| !error.is_null()) {
            Some(error) => Err(self.explained(error)),
            None => self.go_on(&message["result"]),
        };
        match next {
            Ok(Some(message)) => vec![message],
            Ok(None) => Vec::new(),
            Err(failure) => {
                self.fail(failure);
                Vec::new()
            }
        }
    }

    fn go_on(&mut self, result: &Value) -> Result<Option<Value>, Failure> {
        match self.stage {
            Stage::Initializing => self.open(result).map(Some),
            Stage::Opening => self.choose_model(result).map(Some),
            Stage::ChoosingModel => Ok(Some(self.put_the_task())),
            Stage::Working => {
                let response = self.turned(result)?;
                self.outcome = Some(Ok(response));
                Ok(None)
            }
        }
    }

    fn open(&mut self, result: &Value) -> Result<Value, Failure> {
        let version = &result["protocolVersion"];
        if version.as_u64() != Some(VERSION) {
            let message = format!("it speaks version {version} of the protocol, and this program version {VERSION}");
            return Err(Failure::new(FailureKind::Protocol, message)
                .hint("use a version of the agent that speaks it, or look for a newer git-agentloop"));
        }
        self.logins = result["authMethods"].as_array().into_iter().flatten().filter_map(login).take(LISTED).collect();
        self.takes_system = result["agentCapabilities"]["sessionCapabilities"]["systemPrompt"].is_object()
            && !self.request.system.trim().is_empty();
        let mut params = json!({"cwd": self.root, "mcpServers": []});
        if self.takes_system {
            params["systemPrompt"] = json!({"mode": "append", "content": [text_block(&self.request.system)]});
        }
        Ok(self.ask(Stage::Opening, "session/new", &params))
    }

    /// The model is one of a session's options, or, in the way that came before those, one of its models.
    fn choose_model(&mut self, result: &Value) -> Result<Value, Failure> {
        let session = result["sessionId"].as_str().ok_or_else(|| {
            Failure::new(FailureKind::Protocol, "it opened a session and did not say which: there is no sessionId")
        })?;
        self.session = Some(session.to_owned());
        let Some(model) = self.request.model.clone().filter(|_| self.asks_for_model) else {
            return Ok(self.put_the_task());
        };
        let (method, id, offered) = match model_option(&result["configOptions"]) {
            Some(option) => ("session/set_config_option", Some(&option["id"]), &option["options"]),
            None if result["models"]["availableModels"].is_array() => {
                ("session/set_model", None, &result["models"]["availableModels"])
            }
            None => {
                let message = format!("it offers no choice of a model, and '{model}' was asked for");
                return Err(Failure::new(FailureKind::UnknownModel, message)
                    .hint("leave the model out, or put {model} where the agent's command takes it"));
            }
        };
        self.models = names(offered);
        let params = match id {
            Some(id) => json!({"sessionId": session, "configId": id, "value": model}),
            None => json!({"sessionId": session, "modelId": model}),
        };
        Ok(self.ask(Stage::ChoosingModel, method, &params))
    }

    fn put_the_task(&mut self) -> Value {
        let request = self.request;
        let task = if self.takes_system { request.prompt.clone() } else { combined(request) };
        let params = json!({"sessionId": self.session, "prompt": [text_block(&task)]});
        self.ask(Stage::Working, "session/prompt", &params)
    }

    /// Explains an error of the agent's, whose code may be the status of its service.
    fn explained(&self, error: &Value) -> Failure {
        let code = error["code"].as_i64();
        let words = words(error);
        let status = code.and_then(|code| u64::try_from(code).ok()).filter(|code| (400..600).contains(code));
        let mut failure = explain::failure(status, &words);
        failure.kind = match failure.kind {
            _ if code == Some(AUTH_REQUIRED) => FailureKind::NotLoggedIn,
            FailureKind::Crashed if self.stage == Stage::ChoosingModel => FailureKind::UnknownModel,
            FailureKind::Crashed if self.stage == Stage::Initializing => FailureKind::Protocol,
            kind => kind,
        };
        failure.hint = match failure.kind {
            FailureKind::NotLoggedIn if self.logins.is_empty() => {
                Some("log in with the agent's own command first".into())
            }
            FailureKind::NotLoggedIn => Some(format!("log in first: {}", self.logins.join("; or "))),
            FailureKind::UnknownModel if !self.models.is_empty() => {
                Some(format!("it offers {}", self.models.join(", ")))
            }
            FailureKind::Protocol => Some(SPEAKS.to_owned()),
            _ => None,
        };
        failure
    }
}

/// The option of a session that is its model.
fn model_option(options: &Value) -> Option<&Value> {
    let is_model = |option: &&Value| option["category"] == "model" && option["type"] == "select";
    options.as_array()?.iter().find(is_model)
}

/// The first names of what is offered, which may be in groups.
fn names(offered: &Value) -> Vec<String> {
    let offered = offered.as_array().map(Vec::as_slice).unwrap_or_default();
    let in_groups = offered.iter().flat_map(|group| group["options"].as_array().into_iter().flatten());
    let ids = offered.iter().chain(in_groups).filter_map(|one| one["value"].as_str().or(one["modelId"].as_str()));
    let mut names: Vec<String> = ids.take(LISTED + 1).map(|id| one_line(id, NAME)).collect();
    if names.len() > LISTED {
        names.truncate(LISTED);
        names.push("…".to_owned());
    }
    names
}

/// A way to log in, by its name and what the agent says of it.
fn login(method: &Value) -> Option<String> {
    let name = one_line(method["name"].as_str()?, NAME);
    let more = method["description"].as_str().map(|text| one_line(text, NAME)).filter(|text| !text.is_empty());
    Some(more.map_or_else(|| name.clone(), |more| format!("{name} ({more})")))
}

/// An error's message, with what its data add.
fn words(error: &Value) -> String {
    let message = error["message"].as_str().unwrap_or("it failed");
    let data = &error["data"];
    let more = [data, &data["message"], &data["details"]].into_iter().find_map(Value::as_str);
    match more.filter(|more| !message.contains(more)) {
        Some(more) => format!("{message}: {more}"),
        None => message.to_owned(),
    }
}

fn text_block(text: &str) -> Value {
    json!({"type": "text", "text": text})
}
