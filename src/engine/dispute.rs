//! Conflicts between a run's work and the branch that takes it, resolved by the integrator after the run.
//!
//! Nothing of this is recorded in the run's log: the result is a commit of the branch that names its integrator.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio_util::sync::CancellationToken;

use super::call::{call_agent, retry_time, spool, with_brief_of};
use super::command::{Commands, Job, PORT, variables};
use super::entering::enter;
use super::integrate::SIDE_BYTES;
use super::limits::Limits;
use super::on_ledger::on_ledger;
use super::ports::Ports;
use super::provision::{Provisioner, Provisioning};
use super::waiting::SLICE;
use super::work::store_transcript;
use crate::agent::prompts::{self, Between, Prompts, Side};
use crate::agent::{Agent, Request};
use crate::error::Result;
use crate::ledger::{Ledger, Merging, Resolution, Resolving, Task};
use crate::process;
use crate::redact::Redactor;
use crate::run::Run;
use crate::run::amount::Seconds;
use crate::run::event::Timestamp;
use crate::run::goal::{AgentChoice, Check, Permissions, Role};
use crate::run::message::{self, Work};
use crate::run::retries::Reminder;
use crate::run::text::waiting_for;
use crate::run::work::{CheckResult, Failure, FailureKind, Subgoal, Usage};

/// A conflict, with the integrator that is to resolve it.
pub struct Dispute {
    /// Ledger that opens the integrator's worktree.
    pub ledger: Arc<dyn Ledger>,
    /// Run whose work is merged.
    pub run: Run,
    /// Commit of the branch.
    pub ours: String,
    /// Tree of the branch's commit.
    pub tree: String,
    /// Commit of the run.
    pub theirs: String,
    /// Merge base of both.
    pub base: String,
    /// Files that conflict.
    pub paths: Vec<String>,
    /// Commits since the merge base, with their messages: those of the branch, then those of the run.
    pub commits: [Vec<Subgoal>; 2],
    /// Backend of the integrator.
    pub agent: Arc<dyn Agent>,
    /// Name of the integrator.
    pub choice: AgentChoice,
    /// Permissions of the integrator.
    pub permissions: Permissions,
    /// Checks that must pass on the resolution.
    pub checks: Vec<Check>,
    /// Set-up of its worktree.
    pub provisioning: Provisioning,
    /// Id of this process among those that work for the run.
    pub session: String,
    /// Instructions of the roles.
    pub prompts: Prompts,
    /// Usage limits that the user's runs share.
    pub limits: Limits,
    /// Source of the time.
    pub clock: fn() -> Timestamp,
    /// Removes secrets from all that is recorded.
    pub redactor: Redactor,
    /// Token that is cancelled when the integrator must stop.
    pub cancel: CancellationToken,
}

/// Result of a dispute.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Tree that resolves the conflict, or the reason why there is none.
    pub tree: Result<String, String>,
    /// Usage of all attempts together.
    pub usage: Usage,
}

impl Dispute {
    /// Has the integrator try as often as the run's workers may, and reports progress to `tell`. Usage limits and overloaded
    /// services are waited for, and do not count as attempts.
    pub async fn settle(&self, tell: impl Fn(&str)) -> Result<Settled> {
        let (mut usage, mut error) = (Usage::default(), None);
        let (mut attempt, mut streak, mut reminder) = (1, 0, Reminder::default());
        let backend = &self.choice.backend;
        if let Some(until) = self.limits.reset_of(backend, (self.clock)()).filter(|_| !self.run.options.no_wait) {
            self.wait(until, "another run met a usage limit", &mut reminder, &tell).await;
        }
        while !self.cancel.is_cancelled() {
            let unresolved = match self.attempt(attempt, streak > 0, error.as_deref(), &mut usage, &tell).await? {
                Ok(tree) => return Ok(Settled { tree: Ok(tree), usage }),
                Err(unresolved) => unresolved,
            };
            let Unresolved { why, failure } = unresolved;
            if let Some(failure) = &failure {
                let retry_at = retry_time(failure, backend, streak, &self.limits, (self.clock)());
                let is_limit = failure.kind == FailureKind::RateLimited;
                if let Some(until) = retry_at.filter(|_| !(is_limit && self.run.options.no_wait)) {
                    streak += 1;
                    self.wait(until, &why, &mut reminder, &tell).await;
                    continue;
                }
            }
            let may_try_again = failure.is_none_or(|failure| failure.counts());
            (attempt, streak) = (attempt + 1, 0);
            error = Some(why);
            if !may_try_again || attempt > self.run.budget().attempts() {
                break;
            }
            tell(error.as_deref().unwrap_or_default());
        }
        Ok(Settled { tree: Err(error.unwrap_or_else(|| "stopped".to_owned())), usage })
    }

    async fn wait(&self, until: Timestamp, why: &str, reminder: &mut Reminder, tell: &impl Fn(&str)) {
        let now = (self.clock)();
        if reminder.is_news(why, now, until) {
            let waiting = waiting_for(&self.choice.backend, until, now, &TimeZone::system());
            tell(&format!("{waiting}: {why}"));
        }
        let mut left = until.since(now);
        while left > 0.0 && !self.cancel.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs_f64(left).min(SLICE)) => {},
                () = self.cancel.cancelled() => {},
            }
            left = until.since((self.clock)());
        }
    }

    async fn attempt(
        &self,
        attempt: u32,
        is_retry: bool,
        error: Option<&str>,
        usage: &mut Usage,
        tell: &impl Fn(&str),
    ) -> Result<Result<String, Unresolved>> {
        let task = self.task();
        let place = self.blocking(|ledger, task, merging| ledger.open_conflict(task, merging)).await?.path;
        let provisioner = self.provisioner();
        let prepared = provisioner.prepare(&place, &self.run_id(), task.iteration, Some(&task.subgoal), true).await?;
        if let Some(failure) = prepared.failure {
            return Err(failure
                .hint("mend what it needs, or change it: 'git config --edit', agentloop.setup; then merge again"));
        }
        if !is_retry {
            tell(&format!("{} resolves it in {}", self.choice, place.display()));
        }
        let path = format!("{task}.merge/{attempt}.out");
        let mut request = self.request(attempt, self.write_prompt(error).await?, &place, &path);
        request.env.push((PORT.to_owned(), prepared.port.to_string()));
        let result = call_agent(&*self.agent, &request, &self.redactor).await;
        self.restore_settings(tell).await?;
        let response = result.as_ref().unwrap_or_else(|(_, spent)| spent);
        usage.add(&response.usage);
        let report = result.as_ref().map_or_else(|(failure, _)| failure.to_string(), |response| response.text.clone());
        let message = self.message(attempt, usage.tokens(), result.is_ok(), &report);
        store_transcript(Arc::clone(&self.ledger), path, request.transcript, report, self.redactor.clone()).await;
        let (paths, ended) = (self.paths.clone(), result.is_ok());
        let close = move |ledger: &dyn Ledger, task: &Task, merging: &Merging<'_>| {
            ledger.close_conflict(&Resolving { task, merging, paths: &paths, message: &message, ended })
        };
        let left: Resolution = self.blocking(close).await?;
        left.remarks.iter().for_each(|remark| tell(&format!("note: {remark}")));
        if let Err((failure, _)) = result {
            return Ok(Err(Unresolved { why: failure.to_string(), failure: Some(failure) }));
        }
        if let Some(why) = left.open {
            return Ok(Err(Unresolved { why, failure: None }));
        }
        for (position, check) in self.checks.iter().enumerate() {
            let job = Job {
                home: None,
                spool: None,
                run: self.run_id(),
                iteration: task.iteration,
                call: format!("merge-check-{position}"),
                subgoal: None,
                cwd: &enter(&place, &self.run.options.cwd),
                port: Some(prepared.port),
                timeout: self.run.options.check_timeout,
            };
            let result = provisioner.commands.run(check, job).await;
            self.restore_settings(tell).await?;
            tell(&format!("check {}: {}", if result.ok { "passed" } else { "failed" }, check.name));
            if !result.ok {
                return Ok(Err(Unresolved { why: describe_failure(&result), failure: None }));
            }
        }
        Ok(Ok(left.tree))
    }

    /// Restores settings that the integrator or a check changed, and reports them.
    async fn restore_settings(&self, tell: &impl Fn(&str)) -> Result<()> {
        for remark in on_ledger(&self.ledger, |ledger| ledger.mend()).await? {
            tell(&format!("note: {remark}"));
        }
        Ok(())
    }

    fn clone_mark(&self) -> String {
        process::clone_of(&self.ledger.scratch())
    }

    fn provisioner(&self) -> Provisioner {
        let commands = Commands {
            session: self.session.clone(),
            clone: self.clone_mark(),
            cancel: self.cancel.clone(),
            redactor: self.redactor.clone(),
        };
        Provisioner {
            ledger: Arc::clone(&self.ledger),
            commands,
            wanted: self.provisioning.clone(),
            ports: Ports::of_user(),
        }
    }

    fn run_id(&self) -> String {
        self.run.id.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    /// The capitals distinguish it from every subgoal; the commit distinguishes attempts at one merge from those at another.
    fn task(&self) -> Task {
        let iteration = self.run.iteration().map_or(1, |iteration| iteration.number);
        Task { iteration, subgoal: format!("HEAD-{}", self.theirs.get(..12).unwrap_or(&self.theirs)) }
    }

    fn request(&self, attempt: u32, prompt: String, place: &Path, transcript: &str) -> Request {
        let Task { iteration, subgoal } = self.task();
        Request {
            role: Role::Integrator,
            system: self.prompts.system(Role::Integrator).to_owned(),
            prompt,
            model: self.choice.model.clone(),
            cwd: place.to_owned(),
            permissions: self.permissions,
            timeout: self.run.options.agent_timeout.map(Seconds::duration),
            tokens_left: None,
            env: variables(&self.run_id(), &self.clone_mark(), iteration, Some(&subgoal), None),
            run: self.run_id(),
            call: self.run.agent_calls + u64::from(attempt),
            iteration,
            subgoal: Some(subgoal),
            attempt,
            transcript: spool(&*self.ledger, &self.redactor, transcript),
            cancel: self.cancel.clone(),
        }
    }

    async fn write_prompt(&self, error: Option<&str>) -> Result<String> {
        let diff = |to: &str| {
            let (base, to, paths) = (self.base.clone(), to.to_owned(), self.paths.clone());
            self.blocking(move |ledger, _, _| ledger.diff(&base, &to, &paths, SIDE_BYTES))
        };
        let diffs = [diff(&self.ours).await?, diff(&self.theirs).await?];
        let diffs = diffs.map(|diff| self.redactor.clean(&diff).into_owned());
        let conflict = prompts::Conflict {
            between: Between::Branches,
            paths: &self.paths,
            ours: Side { served: &self.commits[0], diff: &diffs[0] },
            theirs: Side { served: &self.commits[1], diff: &diffs[1] },
            commit: &self.theirs,
            error,
        };
        Ok(with_brief_of(&self.run, |about| prompts::integrate(about, &conflict)))
    }

    /// Returns the message of the commit that holds an attempt.
    fn message(&self, attempt: u32, tokens: u64, done: bool, text: &str) -> String {
        let Task { iteration, subgoal } = self.task();
        let subgoal =
            Subgoal { id: subgoal.to_lowercase().parse().unwrap_or_default(), description: self.run.goal.text.clone() };
        message::work(&Work {
            run: self.run.id.as_ref(),
            iteration,
            subgoal: &subgoal,
            attempt,
            role: Role::Integrator,
            agent: &self.choice,
            tokens,
            done,
            text,
        })
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Ledger, &Task, &Merging<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (task, ours, tree, theirs) = (self.task(), self.ours.clone(), self.tree.clone(), self.theirs.clone());
        on_ledger(&self.ledger, move |ledger| {
            work(ledger, &task, &Merging { tip: &ours, merged: &[], tree: &tree, commit: &theirs })
        })
        .await
    }
}

/// An attempt that did not resolve the conflict.
struct Unresolved {
    why: String,
    /// Failure of the call, if that is the reason.
    failure: Option<Failure>,
}

fn describe_failure(check: &CheckResult) -> String {
    let (name, ended) = (&check.name, check.ended());
    format!("the check '{name}' fails on the merge: {ended}\n{}", check.output()).trim_end().to_owned()
}
