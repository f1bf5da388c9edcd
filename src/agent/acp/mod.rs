//! Agents that speak the Agent Client Protocol, version 1, over standard input and output
//! (<https://agentclientprotocol.com>): `acp:COMMAND`, or a command of the user's by a name of its own.
//!
//! We offer such an agent neither files nor terminals: it has those of the process that it is, and whatever we served
//! would go round its own checks. What it asks for is answered by the run's permissions; what it does without asking,
//! it does.
//!
//! The messages are few, and read from JSON as they come, so that an agent that says more than we know, or says it
//! oddly, is understood as far as we need it. The protocol's own crate is left out for that, for the 24 crates and 1.6 MB
//! that come with it, and because it reads lines of any length into memory.

mod conversation;
mod lines;
mod permission;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::conversation::{Conversation, Progress, SPEAKS};
use self::lines::{Lines, Text};
use super::explain;
use super::program::{Invocation, end_of, how_it_ended, late, unstarted, with_words};
use super::template::Template;
use super::{Agent, Reply, Request, Response};
use crate::error::Result;
use crate::process::{self, Finished, Source, Spec, Status};
use crate::run::goal::ACP;
use crate::run::work::{Failure, FailureKind};

/// How long an agent may take until it has opened a session. Programs that are fetched first take a while.
const PATIENCE: Duration = Duration::from_mins(2);
/// Time for an agent to end a cancelled turn before its processes are terminated.
const CANCELLED: Duration = Duration::from_secs(2);
/// How long it has to leave once its input has ended.
const LEAVE: Duration = Duration::from_secs(2);
/// Messages to an agent that it has not read: one that asks and asks and never listens is let go of.
const UNREAD: usize = 1024;
/// Bytes of each output stream that are kept for what a failure says.
const KEEP: usize = 64 << 10;

/// An agent that speaks the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acp {
    template: Template,
    patience: Duration,
}

impl Acp {
    /// The agent that `command` starts, which `place` names: words as for a shell, in which `{model}` is the model.
    /// Without it the agent is asked for the model once it runs.
    ///
    /// # Errors
    /// A command that is empty, or has a quote that is not closed.
    pub fn new(place: &str, command: &str, example: &str) -> Result<Self> {
        Ok(Self { template: Template::new(place, command, example)?, patience: PATIENCE })
    }

    /// The agent of a backend that is called `acp:COMMAND`.
    ///
    /// # Errors
    /// Those of [`Acp::new`].
    pub fn named(name: &str) -> Result<Self> {
        let command = name.strip_prefix(ACP).unwrap_or(name);
        Self::new(&format!("'{name}'"), command, "--backend 'acp:opencode acp'")
    }

    /// The program, as the command names it.
    #[must_use]
    pub fn program(&self) -> &str {
        self.template.program()
    }

    async fn answer(&self, request: &Request) -> Result<Response, Failure> {
        if request.cancel.is_cancelled() {
            return Err(stopped());
        }
        let root = working_directory(&request.cwd)?;
        let asks_for_model = !self.template.names("{model}");
        let argv = self.template.argv(request.model.as_deref(), &[]);
        let invocation = Invocation { argv, stdin: String::new(), env: Vec::new() };
        let program = invocation.program();
        let spec = Spec { timeout: None, spool: None, keep: KEEP, ..invocation.spec(request) };

        let (say, said) = mpsc::channel(UNREAD);
        let (tell, progress) = watch::channel(Progress::Opening);
        let talk = Mutex::new(Conversation::new(request, root, asks_for_model));
        let stop = CancellationToken::new();
        let line = Line { talk: &talk, say };
        let mut ear = Ear { lines: Lines::default(), line: &line, tell };
        let first = lock(&talk).begin();
        line.say(first);
        let mut hear = |source, bytes: &[u8]| ear.hear(source, bytes);
        let finished = tokio::select! {
            finished = process::converse(spec, &stop, &mut hear, said) => finished,
            never = self.supervise(request, &program, &line, progress, &stop) => match never {},
        };
        let finished = finished.map_err(|error| unstarted(&error))?;
        let talk = talk.into_inner().unwrap_or_else(PoisonError::into_inner);
        let ended = talk.end();
        match (ended.outcome, ended.interrupted) {
            (Some(Ok(response)), _) => Ok(response),
            (Some(Err(failure)), Some(interrupted)) => Err(Failure { spent: failure.spent, ..interrupted }),
            (Some(Err(failure)), None) | (None, Some(failure)) => Err(failure),
            (None, None) => Err(unanswered(&program, &finished, &ended.noise, ended.progress)),
        }
    }

    /// Ends the conversation: when it is over, when the call must stop, when its time is over, when it does not begin.
    async fn supervise(
        &self,
        request: &Request,
        program: &str,
        line: &Line<'_, '_>,
        progress: watch::Receiver<Progress>,
        stop: &CancellationToken,
    ) -> std::convert::Infallible {
        let reached = async |wanted| {
            // The sender outlives this: it is the other side of the same call.
            _ = progress.clone().wait_for(|now| *now >= wanted).await;
        };
        let out_of_time = async {
            match request.timeout {
                Some(limit) => sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let never_begins = async {
            if timeout(self.patience, reached(Progress::Working)).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let interrupted = tokio::select! {
            biased;
            () = reached(Progress::Over) => None,
            () = request.cancel.cancelled() => Some(stopped()),
            () = out_of_time => Some(late(program)),
            () = never_begins => {
                let message = format!("'{program}' opened no session in {} s", self.patience.as_secs());
                Some(Failure::new(FailureKind::Protocol, message).hint(SPEAKS))
            }
        };
        if let Some(failure) = interrupted {
            let messages = lock(line.talk).interrupt(failure);
            if !messages.is_empty() {
                line.say(messages);
                _ = timeout(CANCELLED, reached(Progress::Over)).await;
            }
            line.hang_up();
        } else {
            line.hang_up();
            if !lock(line.talk).has_failed() {
                sleep(LEAVE).await;
            }
        }
        stop.cancel();
        std::future::pending().await
    }
}

impl Agent for Acp {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

fn stopped() -> Failure {
    Failure::new(FailureKind::Cancelled, "stopped")
}

/// Returns the session's directory as the protocol requires it: an absolute path in UTF-8.
fn working_directory(cwd: &Path) -> Result<std::path::PathBuf, Failure> {
    let why = |why: &dyn std::fmt::Display| {
        Failure::new(FailureKind::Crashed, format!("'{}' cannot be worked in: {why}", cwd.display()))
    };
    let root = cwd.canonicalize().map_err(|error| why(&error))?;
    if root.to_str().is_none() {
        return Err(why(&"its name is not UTF-8, and the protocol has no other")
            .hint("'git config agentloop.worktreeDir' names another place for worktrees"));
    }
    Ok(root)
}

/// The failure of an agent that came to its end before the conversation did.
fn unanswered(program: &str, finished: &Finished, noise: &str, progress: Progress) -> Failure {
    let errors = finished.stderr.text();
    let words = end_of(if errors.trim().is_empty() { noise } else { &errors });
    let ended = match finished.status {
        Status::Cancelled => format!("'{program}' closed its output before it answered"),
        status => format!("{} before it answered", how_it_ended(program, status)),
    };
    let message = with_words(ended, words);
    let kind = match (explain::kind(None, words), finished.status) {
        (FailureKind::Crashed, Status::Exited(0) | Status::Cancelled) => FailureKind::Protocol,
        (kind, _) => kind,
    };
    let mut failure = Failure::new(kind, message);
    failure.reset_at = explain::reset(kind, words);
    match kind {
        FailureKind::Protocol | FailureKind::Crashed if progress == Progress::Opening => failure.hint(SPEAKS),
        FailureKind::NotLoggedIn => failure.hint("log in with the agent's own command first"),
        _ => failure,
    }
}

fn lock<'a, 'r>(talk: &'a Mutex<Conversation<'r>>) -> MutexGuard<'a, Conversation<'r>> {
    talk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The way to the agent.
struct Line<'a, 'r> {
    talk: &'a Mutex<Conversation<'r>>,
    say: mpsc::Sender<Vec<u8>>,
}

impl Line<'_, '_> {
    fn say(&self, messages: Vec<Value>) {
        for message in messages {
            let text = format!("{message}\n").into_bytes();
            if matches!(self.say.try_send(text), Err(mpsc::error::TrySendError::Full(_))) {
                lock(self.talk)
                    .fail(Failure::new(FailureKind::Protocol, "it asks, and does not read what is answered"));
            }
        }
    }

    fn hang_up(&self) {
        // An agent that reads nothing is terminated soon.
        _ = self.say.try_send(Vec::new());
    }
}

/// Takes what the agent prints to the conversation.
struct Ear<'a, 'r> {
    lines: Lines,
    line: &'a Line<'a, 'r>,
    tell: watch::Sender<Progress>,
}

impl Ear<'_, '_> {
    fn hear(&mut self, source: Source, bytes: &[u8]) {
        let Self { lines, line, .. } = self;
        let answer = |text: Text<'_>| {
            let messages = lock(line.talk).hear(text);
            line.say(messages);
        };
        match source {
            Source::Stderr => lock(line.talk).overhear(bytes),
            Source::Stdout if bytes.is_empty() => {
                lines.end(answer);
                lock(line.talk).hung_up();
            }
            Source::Stdout => lines.hear(bytes, answer),
        }
        let now = lock(line.talk).progress();
        self.tell.send_if_modified(|before| std::mem::replace(before, now) != now);
    }
}

#[cfg(test)]
mod tests;
