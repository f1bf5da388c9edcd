//! The agent that is not one: it shows the loop without a model, and lets tests script what an agent does.
//!
//! Its answer depends on the request alone: no clock, no chance, no network.

use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::explain;
use super::{Agent, Reply, Request, Response};
use crate::error::{Error, Result};
use crate::run::goal::Role;
use crate::run::work::{Failure, FailureKind, Usage};

/// The iteration whose review accepts.
const ACCEPTS: u32 = 2;

/// A deterministic agent: it plans three subgoals, rejects the first review and accepts the second.
#[derive(Clone, Debug)]
pub struct Mock {
    questions: Vec<String>,
    plan: Option<String>,
    edits: Vec<Edit>,
    failures: Vec<ScriptedFailure>,
    delay: Duration,
    accept_iteration: u32,
}

impl Default for Mock {
    fn default() -> Self {
        Self {
            questions: Vec::new(),
            plan: None,
            edits: Vec::new(),
            failures: Vec::new(),
            delay: Duration::ZERO,
            accept_iteration: ACCEPTS,
        }
    }
}

/// A file that a worker writes.
#[derive(Clone, Debug)]
struct Edit {
    path: String,
    content: String,
    append: bool,
}

/// A call that fails: every field that is given must fit.
#[derive(Clone, Debug)]
struct ScriptedFailure {
    role: String,
    subgoal: Option<String>,
    iteration: Option<u32>,
    attempt: Option<u32>,
    kind: FailureKind,
    message: Option<String>,
}

impl Mock {
    /// The mock that `config` scripts, a function from a key to its values:
    ///
    /// | key | value |
    /// | --- | --- |
    /// | `agentloop.mock.questions` | what the clarifier asks: a JSON array of strings |
    /// | `agentloop.mock.plan` | the decomposer's answer, word for word |
    /// | `agentloop.mock.edit`, repeated | `path=content`: a file that each worker writes; `+path=…` appends |
    /// | `agentloop.mock.acceptIteration` | the first iteration whose review accepts, 2 |
    /// | `agentloop.mock.delay` | how long each call takes, in milliseconds |
    /// | `agentloop.mock.fail`, repeated | `role[:subgoal][@iteration][#attempt]=kind[:message]` |
    ///
    /// In path and content `{iteration}`, `{subgoal}` and `{attempt}` stand for those of the call. A failure's kind is
    /// that of [`FailureKind`] as events spell it; `rate_limited:reset=9` says that the limit resets in nine seconds.
    ///
    /// # Errors
    /// A value that is not in this form.
    pub fn new(config: &dyn Fn(&str) -> Vec<String>) -> Result<Self> {
        let last = |key: &str| config(&format!("agentloop.mock.{key}")).pop();
        let number = |key: &str, default: u64| match last(key) {
            Some(text) => text.trim().parse().map_err(|_| malformed(key, &text, "a whole number")),
            None => Ok(default),
        };
        let questions = match last("questions") {
            Some(text) => serde_json::from_str(&text)
                .map_err(|_| malformed("questions", &text, r#"a JSON array of strings such as ["Which one?"]"#))?,
            None => Vec::new(),
        };
        let accept = number("acceptIteration", u64::from(ACCEPTS))?;
        Ok(Self {
            questions,
            plan: last("plan"),
            edits: config("agentloop.mock.edit").iter().map(|text| Edit::parse(text)).collect::<Result<_>>()?,
            failures: config("agentloop.mock.fail")
                .iter()
                .map(|text| ScriptedFailure::parse(text))
                .collect::<Result<_>>()?,
            delay: Duration::from_millis(number("delay", 0)?),
            accept_iteration: u32::try_from(accept).unwrap_or(u32::MAX),
        })
    }

    async fn answer(&self, request: &Request) -> Result<Response, Failure> {
        let cancelled = || Failure::new(FailureKind::Cancelled, "stopped");
        let too_late = async {
            match request.timeout {
                Some(limit) if limit < self.delay => tokio::time::sleep(limit).await,
                _ => std::future::pending().await,
            }
        };
        if request.cancel.is_cancelled() {
            return Err(cancelled());
        }
        if !self.delay.is_zero() {
            tokio::select! {
                biased;
                () = request.cancel.cancelled() => return Err(cancelled()),
                () = too_late => return Err(Failure::new(FailureKind::Timeout, "the mock did not answer in time")),
                () = tokio::time::sleep(self.delay) => {}
            }
        }
        if let Some(failure) = self.failures.iter().find(|failure| failure.fits(request)) {
            return Err(failure.failure());
        }
        let text = match request.role {
            Role::Criteria => "- The goal is reached, and every check passes.".to_owned(),
            Role::Clarifier => json!(self.questions).to_string(),
            Role::Decomposer => self.plan.clone().unwrap_or_else(|| plan().to_string()),
            Role::Subagent => self.work(request)?,
            Role::Reviewer => self.verdict(request).to_string(),
            Role::Integrator => "Both sides are kept.".to_owned(),
        };
        let tokens = |text: &str| text.len() as u64 / 4; // about what English takes
        let usage = Usage {
            tokens_in: tokens(&request.system) + tokens(&request.prompt),
            tokens_out: tokens(&text),
            ..Usage::default()
        };
        Ok(Response { text, usage, ..Response::default() })
    }

    fn work(&self, request: &Request) -> Result<String, Failure> {
        let mut report = format!("Worked on '{}'.", request.subgoal.as_deref().unwrap_or_default());
        for edit in &self.edits {
            let path = edit.apply(request)?;
            report.push_str(if edit.append { "\nAppended to " } else { "\nWrote " });
            report.push_str(&path);
        }
        Ok(report)
    }

    fn verdict(&self, request: &Request) -> Value {
        let accepts = request.iteration >= self.accept_iteration;
        let issues =
            if accepts { Vec::new() } else { vec![format!("iteration {} is not good enough yet", request.iteration)] };
        json!({ "gates_passed": accepts, "goal_complete": accepts, "issues": issues })
    }
}

impl Agent for Mock {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }

    fn only_reads(&self, role: Role) -> bool {
        role != Role::Subagent
    }

    fn edits_files(&self) -> bool {
        !self.edits.is_empty()
    }
}

fn plan() -> Value {
    json!([
        { "id": "explore", "description": "Find out what the goal touches." },
        { "id": "build", "description": "Make the change." },
        { "id": "verify", "description": "Show that it works." },
    ])
}

fn malformed(key: &str, value: &str, wanted: &str) -> Error {
    Error::usage(format!("agentloop.mock.{key} is '{}', not {wanted}", crate::run::event::clip(value, 200)))
        .hint(format!("'git config --edit' shows it, 'git config --unset-all agentloop.mock.{key}' removes it"))
}

impl Edit {
    fn parse(text: &str) -> Result<Self> {
        let (path, content) = text.split_once('=').ok_or_else(|| malformed("edit", text, "path=content"))?;
        let (append, path) = path.strip_prefix('+').map_or((false, path), |path| (true, path));
        if path.is_empty() {
            return Err(malformed("edit", text, "path=content"));
        }
        Ok(Self { path: path.to_owned(), content: content.to_owned(), append })
    }

    /// Writes the file; returns its path as it was filled in.
    fn apply(&self, request: &Request) -> Result<String, Failure> {
        let filled = |text: &str| {
            text.replace("{iteration}", &request.iteration.to_string())
                .replace("{attempt}", &request.attempt.to_string())
                .replace("{subgoal}", request.subgoal.as_deref().unwrap_or_default())
        };
        let (path, content) = (filled(&self.path), filled(&self.content));
        let target = inside(&request.cwd, &path)
            .ok_or_else(|| Failure::new(FailureKind::PermissionDenied, format!("'{path}' is outside the worktree")))?;
        let write = || {
            if let Some(parent) = target.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut options = std::fs::OpenOptions::new();
            options.create(true).append(self.append).write(true).truncate(!self.append);
            options.open(&target)?.write_all(content.as_bytes())
        };
        write().map_err(|error| Failure::new(FailureKind::Crashed, format!("cannot write '{path}': {error}")))?;
        Ok(path)
    }
}

/// `path` below `dir`, where neither its words nor a symbolic link on the way lead elsewhere, nor into `.git`.
fn inside(dir: &Path, path: &str) -> Option<PathBuf> {
    let relative = Path::new(path);
    let plain = relative.components().all(|part| match part {
        Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
        Component::CurDir => true,
        _ => false,
    });
    if !plain {
        return None;
    }
    let file = dir.join(relative);
    if file.is_symlink() {
        return None;
    }
    let root = dir.canonicalize().ok()?;
    let nearest = file.ancestors().skip(1).find(|folder| folder.symlink_metadata().is_ok())?;
    nearest.canonicalize().ok()?.starts_with(root).then_some(file)
}

impl ScriptedFailure {
    fn parse(text: &str) -> Result<Self> {
        let wrong = || malformed("fail", text, "role[:subgoal][@iteration][#attempt]=kind[:message]");
        let (call, outcome) = text.split_once('=').ok_or_else(wrong)?;
        let (call, attempt) = split_number(call, '#').ok_or_else(wrong)?;
        let (call, iteration) = split_number(call, '@').ok_or_else(wrong)?;
        let (role, subgoal) = match call.split_once(':') {
            Some((role, subgoal)) => (role, Some(subgoal.to_owned())),
            None => (call, None),
        };
        let (kind, message) = match outcome.split_once(':') {
            Some((kind, message)) => (kind, Some(message.to_owned())),
            None => (outcome, None),
        };
        let kind = serde_json::from_value(json!(kind)).map_err(|_| wrong())?;
        if !Role::ALL.iter().any(|known| known.name() == role) {
            return Err(wrong());
        }
        Ok(Self { role: role.to_owned(), subgoal, iteration, attempt, kind, message })
    }

    fn fits(&self, request: &Request) -> bool {
        self.role == request.role.name()
            && self.subgoal.as_ref().is_none_or(|subgoal| request.subgoal.as_ref() == Some(subgoal))
            && self.iteration.is_none_or(|iteration| iteration == request.iteration)
            && self.attempt.is_none_or(|attempt| attempt == request.attempt)
    }

    fn failure(&self) -> Failure {
        let message = self.message.clone().unwrap_or_else(|| "the mock fails as it was told to".to_owned());
        let reset = message.strip_prefix("reset=").and_then(|seconds| seconds.trim().parse::<f64>().ok());
        let mut failure = Failure::new(self.kind, message);
        failure.reset_at = reset.filter(|seconds| seconds.is_finite()).map(|seconds| explain::now().plus(seconds));
        failure
    }
}

/// `text` up to the mark and the number after it; `None` where what follows the mark is no number.
fn split_number(text: &str, mark: char) -> Option<(&str, Option<u32>)> {
    match text.split_once(mark) {
        Some((text, number)) => Some((text, Some(number.parse().ok()?))),
        None => Some((text, None)),
    }
}

#[cfg(test)]
#[path = "mock_tests.rs"]
mod tests;
