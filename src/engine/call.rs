//! Calls of agents: each records its start and its end, and with the end the facts that its answer leads to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Engine;
use super::command::{PORT, variables};
use super::entering::enter;
use super::limits::Limits;
use super::on_ledger::on_ledger;
use super::recorder::Recorder;
use crate::agent::json::{self, Shape};
use crate::agent::prompts::{self, Brief};
use crate::agent::{Agent, Request, Response, Transcript};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::redact::Redactor;
use crate::run::Run;
use crate::run::amount::Seconds;
use crate::run::event::{
    AgentFinished, AgentStarted, CriteriaProposed, Decomposed, Fact, IntakeFinished, IntakeStarted, NeedsInput,
    Timestamp, VALUE_LIMIT, clip,
};
use crate::run::goal::{AgentChoice, Role, session_id};
use crate::run::id::SubgoalId;
use crate::run::work::{Failure, FailureKind, Plan, is_believable_reset};

/// Number of transient failures in a row, of a service that does not tell when to come back, before one counts as a failure.
const PATIENCE: u32 = 12;
/// Seconds before the first retry; doubled each time.
const FIRST_BACKOFF: f64 = 1.0;
/// Longest time between two retries, in seconds.
const LONGEST_BACKOFF: f64 = 300.0;
/// Patience and longest backoff for usage limits, which may last a week.
const LIMIT_PATIENCE: u32 = 200;
const LONGEST_LIMIT_BACKOFF: f64 = 3600.0;
/// Time that a cancelled or overdue call has to end before it is abandoned.
const GRACE: Duration = Duration::from_secs(15);
/// Number of questions to the user at most.
const MOST_QUESTIONS: usize = 10;

/// A call whose start is staged or recorded.
pub(super) struct Call {
    pub(super) agent: Arc<dyn Agent>,
    pub(super) choice: AgentChoice,
    pub(super) request: Request,
    ledger: Arc<dyn Ledger>,
    limits: Limits,
}

/// Result of [`Call::make`].
pub(super) struct Answer {
    pub(super) result: Result<Response, Failure>,
    pub(super) finished: AgentFinished,
}

impl Engine {
    /// Intake: asks for success criteria of the goal.
    pub(super) async fn propose_criteria(&self) -> Result<()> {
        let prompt = self.with_brief(prompts::criteria);
        self.call_role(Role::Criteria, prompt, |_, answer| match answer {
            Ok(response) => vec![CriteriaProposed { criteria: response.text.trim().to_owned() }.into()],
            Err(_) => Vec::new(),
        })
        .await
    }

    /// Intake: asks which questions the user has to answer. A clarifier that fails never blocks.
    pub(super) async fn find_questions(&self) -> Result<()> {
        let prompt = self.with_brief(prompts::clarifier);
        self.call_role(Role::Clarifier, prompt, |run, answer| {
            let questions = match answer {
                Ok(response) => questions(json::find(&response.text, Shape::Array).as_ref()),
                Err(_) => Vec::new(),
            };
            if let Some(id) = run.id.as_ref().filter(|_| !questions.is_empty()) {
                let token = format!("{id}.{}", session_id(fastrand::u64(..)));
                let token = token.try_into().unwrap_or_default();
                return vec![NeedsInput { questions, token }.into()];
            }
            let error = answer.err().map(|failure| failure.message.clone());
            vec![IntakeFinished { goal: run.goal.clone(), questions: 0, error }.into()]
        })
        .await
    }

    /// Intake: ends it, as no question is left.
    pub(super) fn close_intake(&self) {
        let close = |run: &Run| {
            let questions = u32::try_from(run.intake.questions.len()).unwrap_or(u32::MAX);
            (vec![IntakeFinished { goal: run.goal.clone(), questions, error: None }.into()], ())
        };
        self.recorder.stage_with(close);
    }

    /// Asks for the iteration's plan.
    pub(super) async fn decompose(&self) -> Result<()> {
        let max = self.recorder.with(|run| run.options.max_subgoals.get() as usize);
        let prompt = self.with_brief(|brief| prompts::decompose(brief, max));
        self.call_role(Role::Decomposer, prompt, |run, answer| match answer {
            Ok(response) => {
                let plan = json::find(&response.text, Shape::Array);
                vec![Decomposed { plan: Plan::settle(plan.as_ref(), &run.goal.text, max) }.into()]
            }
            Err(_) => Vec::new(),
        })
        .await
    }

    /// Calls `role` and stages the outcome, with the facts that `settle` derives from it, as one group.
    async fn call_role(
        &self,
        role: Role,
        prompt: String,
        settle: impl FnOnce(&Run, Result<&Response, &Failure>) -> Vec<Fact>,
    ) -> Result<()> {
        let reader = self.open_reader(role, None).await?;
        let call = self.begin_call(role, prompt, None, 1, None, |run| {
            let first = !run.intake.started && matches!(role, Role::Criteria | Role::Clarifier);
            if first { vec![IntakeStarted {}.into()] } else { Vec::new() }
        });
        let mut call = call?;
        if let Some(reader) = &reader {
            call.request.cwd.clone_from(&reader.path);
        }
        let only_reads = call.agent.only_reads(role);
        let Answer { result, mut finished } = call.make(&self.recorder, &self.parts.redactor).await;
        if let Some(reader) = reader.filter(|_| !only_reads) {
            finished.remarks.extend(self.close_reader(role, reader).await?);
        }
        // The loop flushes the group before it goes on, with the phase that follows from it.
        self.recorder.stage_with(|run| {
            let mut facts = vec![finished.into()];
            facts.extend(settle(run, result.as_ref()));
            (facts, ())
        });
        Ok(())
    }

    /// Stages the start of a call, after the facts of `before`.
    pub(super) fn begin_call(
        &self,
        role: Role,
        prompt: String,
        subgoal: Option<SubgoalId>,
        attempt: u32,
        transcript: Option<Transcript>,
        before: impl FnOnce(&Run) -> Vec<Fact>,
    ) -> Result<Call> {
        let start = |run: &Run| {
            let choice = run.options.agent_for(role).clone();
            let call = run.agent_calls + 1;
            let mut facts = before(run);
            facts.push(AgentStarted { call, role: Some(role), agent: choice.clone(), subgoal: subgoal.clone() }.into());
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            (facts, (choice, call, iteration, run.options.clone(), run.id.clone(), run.usage.tokens()))
        };
        let (choice, call, iteration, options, id, spent) = self.recorder.stage_with(start);
        let agent = self.parts.agents.get(&choice.backend).cloned().ok_or_else(|| {
            Error::failed(format!("this driver has no backend '{}'", choice.backend))
                .hint("'git agentloop backends' lists what it has")
        })?;
        let run = id.map(|id| id.to_string()).unwrap_or_default();
        let env = variables(&run, &self.provisioner.commands.clone, iteration, subgoal.as_deref(), self.port);
        let request = Request {
            role,
            system: self.parts.prompts.system(role).to_owned(),
            prompt,
            model: choice.model.clone(),
            cwd: self.workspace.clone(),
            permissions: options.permissions,
            timeout: options.agent_timeout.map(Seconds::duration),
            tokens_left: options.budget.max_tokens.map(|limit| limit.get().saturating_sub(spent)),
            env,
            run,
            call,
            iteration,
            subgoal: subgoal.map(Into::into),
            attempt,
            transcript,
            cancel: self.parts.cancel.clone(),
        };
        let ledger = Arc::clone(&self.parts.ledger);
        Ok(Call { agent, choice, request, ledger, limits: self.parts.limits.clone() })
    }

    /// Returns whether the backend of `role` edits files.
    pub(super) fn edits_files(&self, role: Role) -> bool {
        let backend = self.recorder.with(|run| run.options.agent_for(role).backend.clone());
        self.parts.agents.get(&backend).is_none_or(|agent| agent.edits_files())
    }

    /// Calls `write` with the facts of the run that every prompt begins with.
    pub(super) fn with_brief<T>(&self, write: impl FnOnce(&Brief<'_>) -> T) -> T {
        self.recorder.with(|run| {
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            with_brief_of(run, |about| write(&Brief { iteration, ..*about }))
        })
    }

    /// Returns `text` as it may be recorded: without secrets, and cut if it is long.
    pub(super) fn record_text(&self, text: &str) -> String {
        clip(&self.parts.redactor.clean(text), VALUE_LIMIT)
    }
}

/// Returns the subgoal of a call.
fn subgoal_of(request: &Request) -> Option<SubgoalId> {
    request.subgoal.as_ref().and_then(|id| id.parse().ok())
}

impl Call {
    /// Has the call made in the worktree at `path`, whose first port is `port`.
    pub(super) fn set_worktree(&mut self, path: PathBuf, port: u16) {
        self.request.cwd = path;
        self.request.env.retain(|(name, _)| name != PORT);
        self.request.env.push((PORT.to_owned(), port.to_string()));
    }

    /// Makes the call and returns its outcome; it records nothing.
    pub(super) async fn make(mut self, recorder: &Arc<Recorder>, redactor: &Redactor) -> Answer {
        let folder = recorder.with(|run| run.options.cwd.clone());
        self.request.cwd = enter(&self.request.cwd, &folder);
        let started = std::time::Instant::now();
        let request = &self.request;
        let result = call_agent(&*self.agent, request, redactor).await;
        // Settings are restored before git reads the files that the agent left. If that fails here, the work is not
        // captured.
        let restored = on_ledger(&self.ledger, |ledger| ledger.mend()).await;
        let remarks = restored.unwrap_or_else(|error| vec![error.chain()]);
        let finished = |error: Option<Failure>, response: &Response| AgentFinished {
            call: request.call,
            role: Some(request.role),
            agent: self.choice.clone(),
            subgoal: subgoal_of(request),
            error,
            usage: response.usage,
            session_id: response.session_id.clone(),
            seconds: started.elapsed().as_secs_f64(),
            commit: None,
            remarks,
            failed_actions: response.failed_actions.clone(),
        };
        match result {
            Ok(response) => Answer { finished: finished(None, &response), result: Ok(response) },
            Err((mut failure, spent)) => {
                let now = recorder.now();
                failure.reset_at = failure.reset_at.filter(|reset| is_believable_reset(*reset, now));
                failure.retry_at = self.retry_at(&failure, recorder);
                Answer { finished: finished(Some(failure.clone()), &spent), result: Err(failure) }
            }
        }
    }

    /// Returns the record of a call that could not be made.
    pub(super) fn record_of_failed_start(&self, failure: Failure) -> AgentFinished {
        AgentFinished {
            call: self.request.call,
            role: Some(self.request.role),
            agent: self.choice.clone(),
            subgoal: subgoal_of(&self.request),
            error: Some(failure),
            ..AgentFinished::default()
        }
    }

    /// Returns the time of the retry after a transient failure. A clarifier is not retried: it never blocks.
    fn retry_at(&self, failure: &Failure, recorder: &Arc<Recorder>) -> Option<Timestamp> {
        if self.request.role == Role::Clarifier {
            return None;
        }
        let streak = recorder.with(|run| run.pauses.get(&self.choice.backend).map_or(0, |pause| pause.streak));
        retry_time(failure, &self.choice.backend, streak, &self.limits, recorder.now())
    }
}

/// Returns the time of the retry after a transient failure: the one that the service named, which is published to the user's
/// other runs, or a delay that grows with the `streak` of failures before it.
pub(super) fn retry_time(
    failure: &Failure,
    backend: &str,
    streak: u32,
    limits: &Limits,
    now: Timestamp,
) -> Option<Timestamp> {
    if !failure.kind.is_transient() {
        return None;
    }
    let is_limit = failure.kind == FailureKind::RateLimited;
    if let Some(reset) = failure.reset_at.filter(|reset| is_believable_reset(*reset, now)) {
        if is_limit {
            limits.publish(backend, reset, now);
        }
        return Some(reset.max(now.plus(FIRST_BACKOFF)));
    }
    let (patience, longest) =
        if is_limit { (LIMIT_PATIENCE, LONGEST_LIMIT_BACKOFF) } else { (PATIENCE, LONGEST_BACKOFF) };
    let backoff = (FIRST_BACKOFF * 2f64.powi(i32::try_from(streak).unwrap_or(i32::MAX))).min(longest);
    let jitter = 0.75 + 0.5 * fastrand::f64();
    (streak < patience).then(|| now.plus(backoff * jitter))
}

/// Calls `agent` with `request`. Returns its answer, or its failure and what it used until then. Both are free of secrets.
pub(super) async fn call_agent(
    agent: &dyn Agent,
    request: &Request,
    redactor: &Redactor,
) -> Result<Response, (Failure, Response)> {
    let result = tokio::select! {
        result = agent.run(request) => result,
        () = overdue(request) => Err(if request.cancel.is_cancelled() {
            Failure::new(FailureKind::Cancelled, "stopped")
        } else {
            Failure::new(FailureKind::Timeout, "the agent did not answer in time")
        }),
    };
    let clean = |text: &str| clip(&redactor.clean(text), VALUE_LIMIT);
    match result {
        Ok(response) if response.text.trim().is_empty() => {
            Err((Failure::new(FailureKind::Empty, "the agent answered nothing"), response))
        }
        Ok(response) => Ok(Response {
            text: clean(&response.text),
            failed_actions: response.failed_actions.iter().map(|action| clean(action)).collect(),
            ..response
        }),
        Err(failure) => {
            let usage = failure.spent.as_deref().copied().unwrap_or_default();
            let message = clean(&failure.message);
            Err((Failure { message, ..failure }, Response { usage, ..Response::default() }))
        }
    }
}

/// Returns the file that a call's output is streamed to before it is stored as `path`; `None` if it cannot be created.
pub(super) fn spool(ledger: &dyn Ledger, redactor: &Redactor, path: &str) -> Option<Transcript> {
    if !ledger.keeps_output() {
        return None;
    }
    let path = ledger.scratch().join(path);
    let made = path.parent().map(std::fs::create_dir_all);
    made.is_some_and(|made| made.is_ok()).then(|| Transcript { path, redactor: redactor.clone() })
}

/// Calls `write` with the facts of `run` that every prompt begins with.
pub(super) fn with_brief_of<T>(run: &Run, write: impl FnOnce(&Brief<'_>) -> T) -> T {
    let answers = run.intake.answers.clone().unwrap_or_default();
    let clarifications: Vec<(String, String)> = run.intake.questions.iter().cloned().zip(answers).collect();
    write(&Brief {
        goal: &run.goal.text,
        criteria: &run.goal.criteria,
        clarifications: &clarifications,
        iteration: 0,
        max_iterations: run.budget().max_iterations.get(),
        feedback: run.iteration().map_or("", |iteration| iteration.feedback.as_str()),
        playwright: run.options.playwright,
    })
}

/// Resolves when a call has not ended although it was cancelled or its time is long over.
async fn overdue(request: &Request) {
    let late = async {
        match request.timeout {
            Some(timeout) => tokio::time::sleep(timeout + GRACE).await,
            None => std::future::pending().await,
        }
    };
    let stopped = async {
        request.cancel.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = late => {},
        () = stopped => {},
    }
}

/// Returns the questions in a clarifier's answer: strings, or objects that hold one.
fn questions(answer: Option<&Value>) -> Vec<String> {
    let items = answer.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text =
        |item: &Value| item.as_str().or_else(|| item.get("question")?.as_str()).map(|text| text.trim().to_owned());
    items.iter().filter_map(text).filter(|text| !text.is_empty()).take(MOST_QUESTIONS).collect()
}
