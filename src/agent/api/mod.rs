//! Backends that are a model behind an API: the loop around it, which lets it read, edit and run, is ours.

mod anthropic;
mod dialect;
mod http;
mod openai;
mod tools;
mod turn;

use tokio::time::Instant;

pub use self::dialect::Dialect;
use self::http::Endpoint;
use self::tools::Toolbox;
use self::turn::Task;
use super::story::Story;
use super::{Agent, Reply, Request, Response};
use crate::error::{Error, Result};
use crate::run::goal::Role;
use crate::run::work::{Failure, FailureKind, Usage};

/// Turns of one call: a model that has not finished by then does not.
const MOST_TURNS: u32 = 200;

/// A model behind an API.
#[derive(Debug)]
pub struct Api {
    dialect: Dialect,
    endpoint: Endpoint,
}

impl Api {
    /// The service at `url`, or where its variable says, or at its own place. The key comes from the environment alone.
    #[must_use]
    pub fn new(dialect: Dialect, url: Option<String>) -> Self {
        Self { dialect, endpoint: Endpoint::new(dialect, url) }
    }

    async fn answer(&self, request: &Request) -> std::result::Result<Response, Failure> {
        let mut usage = Usage::default();
        let answered = self.converse(request, &mut usage).await;
        answered
            .map(|text| Response { text, usage, ..Response::default() })
            .map_err(|failure| Failure { spent: Some(Box::new(usage)), ..failure })
    }

    /// The turns of a call, until the model finishes.
    async fn converse(&self, request: &Request, usage: &mut Usage) -> std::result::Result<String, Failure> {
        let model = request.model.as_deref().ok_or_else(|| {
            Failure::new(FailureKind::UnknownModel, "no model was named")
                .hint("name one with '--model', or as '--backend' NAME/MODEL")
        })?;
        let toolbox = Toolbox::new(request, self.dialect.key_variable()).await?;
        let tools = toolbox.offered();
        let task = Task { model, system: &request.system, tools: &tools };
        let deadline = request.timeout.map(|limit| Instant::now() + limit);
        let mut story = Story::new(request.transcript.as_ref());
        let mut messages = vec![serde_json::json!({"role": "user", "content": request.prompt})];
        for _ in 0..MOST_TURNS {
            let body = self.dialect.body(&task, &messages);
            let answer = within(request, deadline, self.endpoint.ask(&body)).await?;
            usage.add(&answer.usage);
            story.line(&answer.text);
            if answer.calls.is_empty() {
                return match answer.stop.as_deref() {
                    Some("max_tokens" | "length") => {
                        Err(Failure::new(FailureKind::Protocol, "the model's answer was cut off at its longest"))
                    }
                    _ => Ok(answer.text),
                };
            }
            let mut outcomes = Vec::with_capacity(answer.calls.len());
            for call in &answer.calls {
                story.line(&format!("\n[{} {}]", call.name, call.arguments));
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                match toolbox.call(call, left).await {
                    tools::Done::Finished(report) => {
                        story.line(&report);
                        return Ok(if report.trim().is_empty() { answer.text.clone() } else { report });
                    }
                    tools::Done::Went(outcome) => {
                        story.line(&outcome.text);
                        outcomes.push(outcome);
                    }
                }
            }
            if request.tokens_left.is_some_and(|left| usage.tokens() >= left) {
                return Ok(format!("Stopped before the end: the run's tokens are spent.\n\n{}", answer.text));
            }
            messages.extend(self.dialect.exchange(&answer, &outcomes));
        }
        Err(Failure::new(FailureKind::Crashed, format!("the model did not finish within {MOST_TURNS} turns")))
    }
}

impl Agent for Api {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }

    fn only_reads(&self, role: Role) -> bool {
        !tools::works(role)
    }
}

/// Checks the address of a service, where `configured` (its key and value) or a variable names one, and the account's key,
/// as far as that needs no call.
///
/// # Errors
/// Fails if no request could ever be made with them.
pub(super) fn check(dialect: Dialect, configured: Option<(&str, &str)>) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let address = configured.map(|(name, url)| (name, url.to_owned()));
    let address = address.or_else(|| Some((dialect.url_variable(), variable(dialect.url_variable())?)));
    if let Some((name, url)) = address {
        http::check_address(name, url.trim())?;
    }
    let name = dialect.key_variable();
    match variable(name).map(|key| http::key_header(dialect, &key)) {
        Some(Err(why)) => {
            Err(Error::usage(format!("{name} {why}")).hint(format!("set {name} to the key of your account alone")))
        }
        _ => Ok(()),
    }
}

/// `work`, unless the call is stopped or its time is over before.
async fn within<T>(
    request: &Request,
    deadline: Option<Instant>,
    work: impl Future<Output = std::result::Result<T, Failure>>,
) -> std::result::Result<T, Failure> {
    let late = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        done = work => done,
        () = request.cancel.cancelled() => Err(Failure::new(FailureKind::Cancelled, "stopped")),
        () = late => Err(Failure::new(FailureKind::Timeout, "the model took longer than it may")
            .hint("'--timeout' says how long a call may take")),
    }
}

#[cfg(test)]
mod tests;
