//! The seam to backends: each takes a [`Request`] and gives a [`Response`].

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::process::Transcript;
use crate::run::goal::{Permissions, Role};
use crate::run::work::{Failure, Usage};

/// A backend: answers one request at a time, any number of them at once.
pub trait Agent: Send + Sync {
    /// Answers `request`.
    ///
    /// A failure is a value of the work, not an error of ours: the loop retries, waits or stops by its kind.
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a>;

    /// Reports whether a call in this role cannot change a file, so that no look at the files is needed after it.
    fn only_reads(&self, _role: Role) -> bool {
        false
    }

    /// Reports whether it works on files: a backend that only answers needs no worktree of its own.
    fn edits_files(&self) -> bool {
        true
    }
}

/// Future that [`Agent::run`] returns, made with `Box::pin(async move { … })`.
pub type Reply<'a> = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send + 'a>>;

/// One call of an agent.
#[derive(Clone, Debug)]
pub struct Request {
    /// Role of the agent in this call.
    pub role: Role,
    /// The role's instructions.
    pub system: String,
    /// The task.
    pub prompt: String,
    /// The model, where one was named.
    pub model: Option<String>,
    /// The directory to work in.
    pub cwd: PathBuf,
    /// Permissions of the agent, without further questions.
    pub permissions: Permissions,
    /// How long the call may take; `None` = as long as it takes.
    pub timeout: Option<Duration>,
    /// Tokens that the run may still use, in and out together; `None` = as many as it takes. A backend that sees what it
    /// uses, while it works, stops there.
    pub tokens_left: Option<u64>,
    /// Environment for what the call starts, beside our own.
    pub env: Vec<(String, String)>,
    /// The run's id.
    pub run: String,
    /// The call's number in the run.
    pub call: u64,
    /// The iteration, 0 during intake.
    pub iteration: u32,
    /// The subgoal, where the call is a worker's.
    pub subgoal: Option<String>,
    /// The attempt, from 1.
    pub attempt: u32,
    /// Receives everything that the agent prints, line by line and without its secrets.
    pub transcript: Option<Transcript>,
    /// Cancelled when the call must stop.
    pub cancel: CancellationToken,
}

/// An agent's answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// The final text.
    pub text: String,
    /// Usage of the call.
    pub usage: Usage,
    /// The agent's own session id, where it has one.
    pub session_id: Option<String>,
    /// Commands and other actions of the agent that failed by what it prints of its work, each with the reason.
    pub failed_actions: Vec<String>,
}

impl Response {
    /// An answer of text alone.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}
