//! The one decision: what a run does next.

use std::fmt;

use super::event::Timestamp;
use super::goal::{Asking, Role, StopReason};
use super::work::FailureKind;
use super::{Conflict, Iteration, Run, Task};

/// What a driver does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Find out what the goal means.
    Intake(Intake),
    /// Put these questions to the user.
    Await(Vec<String>),
    /// Do nothing before this moment; work in flight goes on.
    Wait {
        /// The moment.
        until: Timestamp,
        /// The backend that is waited for.
        backend: String,
    },
    /// Begin an iteration, or go on planning the one that has begun.
    Plan,
    /// Start workers on these subgoals; none to start means that workers in flight are awaited.
    Work(Vec<String>),
    /// Merge the work of this subgoal into the run's tree.
    Integrate(String),
    /// Have the conflict that this subgoal's work met resolved.
    Resolve(String),
    /// Write the tree and run the checks on it.
    Verify,
    /// Ask for a verdict.
    Review,
    /// Commit. A partial checkpoint keeps work of an iteration that does not end here.
    Checkpoint {
        /// Whether the iteration goes on after it.
        partial: bool,
    },
    /// End the run.
    Stop(StopReason),
}

/// One thing that intake finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// Propose success criteria.
    Criteria,
    /// Ask which questions there are.
    Questions,
    /// Settle the goal.
    Close,
}

/// Where a run stands, in the words that users know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The word in status, events and trailers.
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
    /// What to do at `now`; nothing once the run has ended.
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

    /// Where the run stands at its newest event.
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

    /// Reasons that hold whatever the next step would be.
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
        // An iteration that has been judged is committed and may complete the goal whatever the clock says.
        let judged = self.iteration().is_some_and(|iteration| iteration.review.is_some());
        (!judged && self.out_of_time(now)).then_some(StopReason::MaxSeconds)
    }

    /// Whether the sessions together have used up their seconds.
    #[must_use]
    pub fn out_of_time(&self, now: Timestamp) -> bool {
        self.budget().max_seconds.is_some_and(|limit| self.seconds(now) >= limit.get())
    }

    /// Whether a role that is not a worker has failed too often in a row.
    fn role_is_exhausted(&self) -> bool {
        self.role_failure.as_ref().is_some_and(|failed| failed.times > self.budget().max_task_retries.get())
    }

    /// Lets calls in flight finish, commits what is there, ends.
    fn wind_down(&self, reason: StopReason) -> Step {
        let in_flight = self.iteration().is_some_and(|iteration| iteration.tasks.iter().any(|task| task.running));
        if in_flight {
            Step::Work(Vec::new())
        } else if let Some(task) = self.unmerged().filter(|_| reason != StopReason::RunError) {
            Step::Integrate(task.id.to_string())
        } else if self.touched {
            let judged = self.iteration().is_some_and(|iteration| iteration.review.is_some());
            Step::Checkpoint { partial: !judged }
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
        let in_flight = iteration.tasks.iter().filter(|task| task.running).count();
        if in_flight > 0 || !pending.is_empty() {
            let free = (self.options.jobs.get() as usize).saturating_sub(in_flight);
            return Step::Work(pending.into_iter().take(free).map(|task| task.id.to_string()).collect());
        }
        let allowed = self.budget().attempts();
        let is_open = |conflict: &Conflict| conflict.attempts < allowed;
        let mut due = iteration.tasks.iter().filter(|task| task.wants_merge());
        if let Some(task) = due.find(|task| task.conflict.as_ref().is_none_or(is_open)) {
            let id = task.id.to_string();
            // A conflict with what is in a commit by now may be none with that commit.
            let is_known = task.conflict.is_some() && iteration.integration.is_some();
            return if is_known { Step::Resolve(id) } else { Step::Integrate(id) };
        }
        match (&iteration.verification, &iteration.review) {
            (None, _) => Step::Verify,
            (Some(_), None) => Step::Review,
            (Some(_), Some(_)) => Step::Checkpoint { partial: false },
        }
    }

    /// The first subgoal whose work can still be merged without anybody's help, as far as is known.
    fn unmerged(&self) -> Option<&Task> {
        self.iteration()?.tasks.iter().find(|task| task.wants_merge() && task.conflict.is_none())
    }

    /// Subgoals that still want an attempt and have none under way, in plan order.
    fn pending<'a>(&self, iteration: &'a Iteration) -> Vec<&'a Task> {
        let allowed = self.budget().attempts();
        let wants = |task: &&Task| !task.running && task.output.is_none() && task.attempts < allowed;
        iteration.tasks.iter().filter(wants).collect()
    }

    fn next_iteration(&self, last: &Iteration) -> Step {
        let may_go_on = last.number < self.budget().max_iterations.get();
        // Guidance that no plan has heard yet is a wish for one more iteration.
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

    /// Holds a step that calls an agent against the budgets and against the limits that backends told us of.
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
        let in_flight =
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
        // A goal that is reached stays reached, where guidance asked for more than there is left to spend.
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
                // After a pause one call goes ahead and finds out whether the service answers again.
                if self.pauses.contains_key(backend) {
                    start.truncate(usize::from(in_flight == 0));
                }
                Step::Work(start)
            }
            step => step,
        }
    }

    /// The failure that ends the run, in the words of the agent that met it.
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
