//! The decision: the next step of a run.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::event::Timestamp;
use super::goal::{Asking, Role, StopReason};
use super::work::FailureKind;
use super::{Conflict, Iteration, Run, Task};

/// A step that a driver performs.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Do a part of intake.
    Intake(Intake),
    /// Ask the user these questions.
    Await(Vec<String>),
    /// Wait until this time; workers continue.
    Wait {
        /// End of the wait.
        until: Timestamp,
        /// The backend that is waited for.
        backend: String,
    },
    /// Start an iteration, or continue to plan the current one.
    Plan,
    /// Start workers on these subgoals; if there are none, wait for a running worker.
    Work(Vec<String>),
    /// Merge the work of this subgoal into the run's tree.
    Integrate(String),
    /// Have the integrator resolve the conflict of this subgoal's work.
    Resolve(String),
    /// Write the tree and run the checks on it.
    Verify,
    /// Ask the reviewer for a verdict.
    Review,
    /// Commit a checkpoint. A partial one holds work of an iteration that does not end here.
    Checkpoint {
        /// True if the iteration continues after it.
        partial: bool,
    },
    /// End the run.
    Stop(StopReason),
}

/// A part of intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Propose success criteria.
    Criteria,
    /// Ask an agent which questions there are.
    Questions,
    /// End intake.
    Close,
}

/// The phase of a run, in the words of the user interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // each is the word that `name` gives
pub enum Phase {
    Idle,
    Intake,
    NeedsInput,
    Waiting,
    Decompose,
    Execute,
    Integrate,
    Verify,
    Review,
    Checkpoint,
    Done,
    Failed,
}

impl Phase {
    /// Returns the word in status, events and trailers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Intake => "intake",
            Self::NeedsInput => "needs_input",
            Self::Waiting => "waiting",
            Self::Decompose => "decompose",
            Self::Execute => "execute",
            Self::Integrate => "integrate",
            Self::Verify => "verify",
            Self::Review => "review",
            Self::Checkpoint => "checkpoint",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Run {
    /// Returns the step to perform at `now`, or `None` if the run has ended.
    #[must_use]
    pub fn next_step(&self, now: Timestamp) -> Option<Step> {
        if self.ended.is_some() {
            return None;
        }
        if let Some(reason) = self.must_stop(now) {
            return Some(self.wind_down(reason));
        }
        let step = if self.intake.finished { self.next_in_loop() } else { self.next_in_intake() };
        Some(self.within_limits(step, now))
    }

    /// Returns the phase after the newest event.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match &self.ended {
            Some(ended) if ended.reason == StopReason::GoalComplete => return Phase::Done,
            Some(_) => return Phase::Failed,
            None if !self.intake.started => return Phase::Idle,
            None => {}
        }
        match self.next_step(self.now) {
            None => Phase::Failed,
            Some(Step::Intake(_)) => Phase::Intake,
            Some(Step::Await(_)) => Phase::NeedsInput,
            Some(Step::Wait { .. }) => Phase::Waiting,
            Some(Step::Plan) => Phase::Decompose,
            Some(Step::Work(_)) => Phase::Execute,
            Some(Step::Integrate(_) | Step::Resolve(_)) => Phase::Integrate,
            Some(Step::Verify) => Phase::Verify,
            Some(Step::Review) => Phase::Review,
            Some(Step::Checkpoint { .. } | Step::Stop(_)) => Phase::Checkpoint,
        }
    }

    /// Returns a reason to stop that holds for any next step.
    fn must_stop(&self, now: Timestamp) -> Option<StopReason> {
        if self.cancelled {
            return Some(StopReason::Cancelled);
        }
        if self.error.is_some() {
            return Some(StopReason::RunError);
        }
        if self.fatal.is_some() || self.role_is_exhausted() {
            return Some(if self.intake.finished { StopReason::LoopAgentError } else { StopReason::IntakeAgentError });
        }
        // An iteration that was reviewed is committed and may complete the goal even if the time is over.
        let is_reviewed = self.iteration().is_some_and(|iteration| iteration.review.is_some());
        (!is_reviewed && self.out_of_time(now)).then_some(StopReason::MaxSeconds)
    }

    /// Returns whether the sessions have used up the budget of seconds.
    #[must_use]
    pub fn out_of_time(&self, now: Timestamp) -> bool {
        self.budget().max_seconds.is_some_and(|limit| self.seconds(now) >= limit.get())
    }

    /// Returns whether a role that is not a worker has failed too often in a row.
    fn role_is_exhausted(&self) -> bool {
        self.role_failure.as_ref().is_some_and(|failed| failed.times > self.budget().max_task_retries.get())
    }

    /// Returns the next step towards the end: wait for workers, merge, commit, stop.
    fn wind_down(&self, reason: StopReason) -> Step {
        let is_working = self.iteration().is_some_and(|iteration| iteration.tasks.iter().any(|task| task.running));
        if is_working {
            Step::Work(Vec::new())
        } else if let Some(task) = self.unmerged().filter(|_| reason != StopReason::RunError) {
            Step::Integrate(task.id.to_string())
        } else if self.touched {
            let is_reviewed = self.iteration().is_some_and(|iteration| iteration.review.is_some());
            Step::Checkpoint { partial: !is_reviewed }
        } else {
            Step::Stop(reason)
        }
    }

    fn next_in_intake(&self) -> Step {
        let intake = &self.intake;
        if self.goal.criteria.trim().is_empty() {
            Step::Intake(Intake::Criteria)
        } else if intake.questions.is_empty() && self.options.asking != Asking::Never {
            Step::Intake(Intake::Questions)
        } else if self.is_waiting_for_answers() {
            Step::Await(intake.questions.clone())
        } else {
            Step::Intake(Intake::Close)
        }
    }

    fn next_in_loop(&self) -> Step {
        let Some(iteration) = self.iteration() else { return Step::Plan };
        if iteration.checkpoint.is_some() {
            return self.next_iteration(iteration);
        }
        if iteration.plan.is_none() {
            return Step::Plan;
        }
        let pending = self.pending(iteration);
        let running = iteration.tasks.iter().filter(|task| task.running).count();
        if running > 0 || !pending.is_empty() {
            let free = (self.options.jobs.get() as usize).saturating_sub(running);
            return Step::Work(pending.into_iter().take(free).map(|task| task.id.to_string()).collect());
        }
        let allowed = self.budget().attempts();
        let is_open = |conflict: &Conflict| conflict.attempts < allowed;
        let mut due = iteration.tasks.iter().filter(|task| task.wants_merge());
        if let Some(task) = due.find(|task| task.conflict.as_ref().is_none_or(is_open)) {
            let id = task.id.to_string();
            // A conflict with a tree that is committed by now may be none with that commit.
            let is_known = task.conflict.is_some() && iteration.integration.is_some();
            return if is_known { Step::Resolve(id) } else { Step::Integrate(id) };
        }
        match (&iteration.verification, &iteration.review) {
            (None, _) => Step::Verify,
            (Some(_), None) => Step::Review,
            (Some(_), Some(_)) => Step::Checkpoint { partial: false },
        }
    }

    /// Returns the first subgoal whose work may be merged without an integrator.
    fn unmerged(&self) -> Option<&Task> {
        self.iteration()?.tasks.iter().find(|task| task.wants_merge() && task.conflict.is_none())
    }

    /// Lists the subgoals that need an attempt and have none running, in plan order.
    fn pending<'a>(&self, iteration: &'a Iteration) -> Vec<&'a Task> {
        let allowed = self.budget().attempts();
        let wants = |task: &&Task| !task.running && task.output.is_none() && task.attempts < allowed;
        iteration.tasks.iter().filter(wants).collect()
    }

    fn next_iteration(&self, last: &Iteration) -> Step {
        let may_go_on = last.number < self.budget().max_iterations.get();
        // Guidance that no plan has used yet asks for one more iteration.
        let is_guided = !self.steering.is_empty();
        if last.is_complete() && !(is_guided && may_go_on) {
            Step::Stop(StopReason::GoalComplete)
        } else if !may_go_on {
            Step::Stop(StopReason::MaxIterations)
        } else if self.is_stuck() && !is_guided {
            Step::Stop(StopReason::NoProgress)
        } else {
            Step::Plan
        }
    }

    /// Replaces a step that calls an agent if the budget or a backend's limit forbids it.
    fn within_limits(&self, step: Step, now: Timestamp) -> Step {
        let role = match &step {
            Step::Intake(Intake::Criteria) => Role::Criteria,
            Step::Intake(Intake::Questions) => Role::Clarifier,
            Step::Plan => Role::Decomposer,
            Step::Resolve(_) => Role::Integrator,
            Step::Review => Role::Reviewer,
            Step::Work(start) if !start.is_empty() => Role::Subagent,
            _ => return step,
        };
        let running =
            self.iteration().map_or(0, |iteration| iteration.tasks.iter().filter(|task| task.running).count());
        let budget = self.budget();
        let spent = [
            (budget.max_agent_calls.is_some_and(|limit| self.agent_calls >= limit.get()), StopReason::MaxAgentCalls),
            (budget.max_tokens.is_some_and(|limit| self.usage.tokens() >= limit.get()), StopReason::MaxTokens),
            (
                budget.max_cost.is_some_and(|limit| self.usage.cost_usd.unwrap_or(0.0) >= limit.get()),
                StopReason::MaxCost,
            ),
        ];
        // A reached goal stays reached, even if guidance asks for more than the budget allows.
        let is_reached = self.iteration().is_some_and(|last| last.checkpoint.is_some() && last.is_complete());
        let end = |reason| if is_reached { Step::Stop(StopReason::GoalComplete) } else { self.wind_down(reason) };
        if let Some((_, reason)) = spent.into_iter().find(|(spent, _)| *spent) {
            return end(reason);
        }
        let backend = &self.options.agent_for(role).backend;
        if let Some(pause) = self.pauses.get(backend).filter(|pause| pause.until > now) {
            if pause.limit && self.options.no_wait {
                return end(StopReason::UsageLimit);
            }
            let deadline = budget.max_seconds.map_or(pause.until, |limit| now.plus(limit.get() - self.seconds(now)));
            return Step::Wait { until: pause.until.min(deadline), backend: backend.clone() };
        }
        match step {
            Step::Work(mut start) => {
                if let Some(limit) = budget.max_agent_calls {
                    let left = usize::try_from(limit.get() - self.agent_calls).unwrap_or(usize::MAX);
                    start.truncate(left);
                }
                // After a pause a single call tests whether the service answers again.
                if self.pauses.contains_key(backend) {
                    start.truncate(usize::from(running == 0));
                }
                Step::Work(start)
            }
            step => step,
        }
    }

    /// Returns the failure that ends the run, and its kind in words.
    #[must_use]
    pub fn fatal_failure(&self) -> Option<(&'static str, &super::work::Failure)> {
        match (&self.fatal, &self.role_failure) {
            (Some(failure), _) => Some((kind_in_words(failure.kind), failure)),
            (None, Some(failed)) if self.role_is_exhausted() => Some((failed.role.name(), &failed.failure)),
            _ => None,
        }
    }
}

fn kind_in_words(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::NotInstalled => "the agent is not installed",
        FailureKind::NotLoggedIn => "the agent is not logged in",
        FailureKind::UnknownModel => "the agent does not know the model",
        _ => "the agent failed",
    }
}
