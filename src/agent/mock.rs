//! A backend without a model: what it answers is a function of the request and of its script, so every run of it is the
//! same, resumed or not.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{Agent, Reply, Request, Response};
use crate::error::{Error, Result};
use crate::run::event::Timestamp;
use crate::run::goal::Role;
use crate::run::work::{Failure, FailureKind, Usage};

/// Plans three subgoals, rejects the first review and accepts the second, unless its script says otherwise.
#[derive(Clone, Debug, Default)]
pub struct Mock {
    plan: Option<String>,
    questions: Option<String>,
    text: Option<String>,
    edits: Vec<(String, String)>,
    delay: Duration,
    failures: Vec<Fault>,
    accept: Option<u32>,
}

/// Calls that fail, and how.
#[derive(Clone, Debug)]
struct Fault {
    role: String,
    subgoal: Option<String>,
    iteration: Option<u32>,
    attempt: Option<u32>,
    kind: FailureKind,
    message: String,
}

impl Mock {
    /// A mock that follows the script in `agentloop.mock.*`.
    ///
    /// # Errors
    /// Where the script is not one.
    pub fn new(config: &dyn Fn(&str) -> Vec<String>) -> Result<Self> {
        let all = |key: &str| config(&format!("agentloop.mock.{key}"));
        let last = |key: &str| all(key).pop();
        let number = |key: &str| -> Result<Option<u32>> {
            let parse = |text: String| text.parse().map_err(|_| script(key, &text, "a whole number"));
            last(key).map(parse).transpose()
        };
        let edit = |text: String| {
            let (path, content) = text.split_once('=').ok_or_else(|| script("edit", &text, "path=content"))?;
            Ok((path.to_owned(), content.to_owned()))
        };
        Ok(Self {
            plan: last("plan"),
            questions: last("questions"),
            text: last("text"),
            edits: all("edit").into_iter().map(edit).collect::<Result<_>>()?,
            delay: Duration::from_millis(number("delay")?.unwrap_or(0).into()),
            failures: all("fail").into_iter().map(|text| fault(&text)).collect::<Result<_>>()?,
            accept: number("acceptIteration")?,
        })
    }

    fn answer(&self, request: &Request) -> Result<String, Failure> {
        if let Some(fault) = self.failures.iter().find(|fault| fault.meets(request)) {
            return Err(fault.failure());
        }
        Ok(match request.role {
            Role::Criteria => "The goal is reached as stated, and every check passes.".to_owned(),
            Role::Clarifier => self.questions.clone().unwrap_or_else(|| "[]".to_owned()),
            Role::Decomposer => self.plan.clone().unwrap_or_else(|| {
                json!([
                    {"id": "understand", "description": "understand what is asked and what is there"},
                    {"id": "do", "description": "do the work"},
                    {"id": "check", "description": "check the result"},
                ])
                .to_string()
            }),
            Role::Subagent => self.work(request)?,
            Role::Reviewer if request.iteration >= self.accept.unwrap_or(2) => {
                json!({"gates_passed": true, "goal_complete": true, "issues": []}).to_string()
            }
            Role::Reviewer => {
                let issue = format!("iteration {} is not there yet", request.iteration);
                json!({"gates_passed": false, "goal_complete": false, "issues": [issue]}).to_string()
            }
            Role::Integrator => "Joined.".to_owned(),
        })
    }

    fn work(&self, request: &Request) -> Result<String, Failure> {
        let subgoal = request.subgoal.as_deref().unwrap_or("work");
        let (iteration, attempt) = (request.iteration.to_string(), request.attempt.to_string());
        let fill = |text: &str| {
            text.replace("{subgoal}", subgoal).replace("{iteration}", &iteration).replace("{attempt}", &attempt)
        };
        let mut report =
            self.text.as_deref().map_or_else(|| format!("{subgoal}: done in iteration {iteration}."), fill);
        for (path, content) in &self.edits {
            let path = fill(path);
            edit(&request.cwd, &path, &fill(content))
                .map_err(|error| Failure::new(FailureKind::Crashed, format!("'{path}' cannot be written: {error}")))?;
            report = format!("{report} Wrote {}.", path.trim_start_matches('+'));
        }
        Ok(report)
    }
}

impl Agent for Mock {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(self.delay) => {}
                () = request.cancel.cancelled() => return Err(Failure::new(FailureKind::Cancelled, "stopped")),
            }
            let text = self.answer(request)?;
            let tokens = |text: &str| text.len().div_ceil(4) as u64;
            let usage = Usage {
                tokens_in: tokens(&request.system) + tokens(&request.prompt),
                tokens_out: tokens(&text),
                ..Usage::default()
            };
            Ok(Response { text, usage, session_id: None })
        })
    }
}

/// Writes `content` to `path` below `cwd`; a leading `+` appends.
fn edit(cwd: &Path, path: &str, content: &str) -> std::io::Result<()> {
    let (path, append) = path.strip_prefix('+').map_or((path, false), |path| (path, true));
    let inside = Path::new(path).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !inside {
        return Err(std::io::Error::other("it is not inside the worktree"));
    }
    let path = cwd.join(path);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).append(append).truncate(!append).open(path)?.write_all(content.as_bytes())
}

/// `role[:subgoal][@iteration][#attempt]=kind[:message]`.
fn fault(text: &str) -> Result<Fault> {
    let wrong = || script("fail", text, "role[:subgoal][@iteration][#attempt]=kind[:message]");
    let (whom, how) = text.split_once('=').ok_or_else(wrong)?;
    let (whom, attempt) = split_number(whom, '#').ok_or_else(wrong)?;
    let (whom, iteration) = split_number(whom, '@').ok_or_else(wrong)?;
    let (role, subgoal) = whom.split_once(':').map_or((whom, None), |(role, subgoal)| (role, Some(subgoal)));
    let (kind, message) = how.split_once(':').unwrap_or((how, "as the script says"));
    let kind = serde_json::from_value(json!(kind)).map_err(|_| wrong())?;
    if !Role::ALL.iter().any(|known| known.name() == role) {
        return Err(wrong());
    }
    Ok(Fault {
        role: role.to_owned(),
        subgoal: subgoal.map(ToOwned::to_owned),
        iteration,
        attempt,
        kind,
        message: message.to_owned(),
    })
}

fn split_number(text: &str, mark: char) -> Option<(&str, Option<u32>)> {
    match text.rsplit_once(mark) {
        Some((rest, number)) => Some((rest, Some(number.parse().ok()?))),
        None => Some((text, None)),
    }
}

impl Fault {
    fn meets(&self, request: &Request) -> bool {
        self.role == request.role.name()
            && self.subgoal.as_ref().is_none_or(|subgoal| request.subgoal.as_ref() == Some(subgoal))
            && self.iteration.is_none_or(|iteration| iteration == request.iteration)
            && self.attempt.is_none_or(|attempt| attempt == request.attempt)
    }

    /// `reset=<seconds>` as the message tells when the limit resets.
    fn failure(&self) -> Failure {
        let mut failure = Failure::new(self.kind, self.message.clone());
        let seconds = self.message.strip_prefix("reset=").and_then(|seconds| seconds.parse::<f64>().ok());
        failure.reset_at = seconds.map(|seconds| {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX)).plus(seconds)
        });
        failure
    }
}

fn script(key: &str, text: &str, wanted: &str) -> Error {
    Error::usage(format!("agentloop.mock.{key} is '{text}', and should be {wanted}"))
        .hint(format!("mend it with 'git config agentloop.mock.{key} …'"))
}
