//! The fold: the effect of each fact on the run.

use super::event::{
    AgentFinished, Conflicted, Event, Fact, Integrated, RunResumed, RunStarted, Timestamp, Uncommitted,
};
use super::goal::Role;
use super::id::SubgoalId;
use super::word::Word;
use super::work::FailureKind;
use super::{Checkpoint, Conflict, Ended, Integration, Iteration, Pause, RoleFailure, Run, Session, Task};

/// Longest wait, in seconds, that is not taken for a usage limit: it may be a limit of a minute.
const LONGEST_SHORT_WAIT: f64 = 60.0;

impl Run {
    /// Folds `events` into a run.
    #[must_use]
    pub fn replay<'a>(events: impl IntoIterator<Item = &'a Event>) -> Self {
        let mut run = Self::default();
        for event in events {
            run.apply(event);
        }
        run
    }

    /// Folds one event. Events come in order; one that is not newer than the newest is ignored.
    pub fn apply(&mut self, event: &Event) {
        if event.seq <= self.seq {
            return;
        }
        self.seq = event.seq;
        self.now = self.now.max(event.ts);
        self.open_session(event);
        match &event.fact {
            Fact::RunStarted(data) => self.start(data),
            Fact::RunResumed(data) => {
                self.format = self.format.max(data.format);
                self.resume(data);
            }
            Fact::Integrated(data) if data.subgoal.is_some() => self.integrated(data),
            Fact::Conflicted(data) => self.conflicted(data),
            Fact::Integrated(data) => {
                self.tip = Checkpoint { commit: data.commit.clone(), tree: data.tree.clone() };
                // Results of checks belong to a tree, and this one is new.
                if let Some(iteration) = self.iterations.last_mut().filter(|iteration| iteration.checkpoint.is_none()) {
                    iteration.verification = None;
                    iteration.review = None;
                    // Commits that were merged onto the previous commit are merged again, onto this one.
                    let merged = iteration.integration.take().map(|integration| integration.merged).unwrap_or_default();
                    for task in &mut iteration.tasks {
                        task.merged &= !task.commit.as_ref().is_some_and(|commit| merged.contains(commit));
                    }
                }
            }
            Fact::BaselineTaken(data) => self.baseline = Some(data.verification.clone()),
            Fact::BudgetChanged(data) => self.options.budget = data.budget.clone(),
            Fact::Steered(data) => self.steering.push(data.text.clone()),
            Fact::RunCancelled(_) => self.cancelled = true,
            Fact::RunError(data) => self.error = Some((data.message.clone(), data.hint.clone())),
            Fact::RunFinished(data) => {
                self.ended = data.stop_reason.map(|reason| Ended {
                    reason,
                    summary: data.summary.clone(),
                    hint: data.hint.clone(),
                });
            }
            Fact::Waiting(data) if data.shared => {
                self.pause(&data.backend, data.until, &data.reason, Some(data.until)).announced = Some(data.until);
            }
            Fact::Waiting(data) => {
                if let Some(pause) = self.pauses.get_mut(&data.backend) {
                    pause.announced = Some(data.until);
                }
            }
            Fact::AgentStarted(data) => self.agent_calls = self.agent_calls.max(data.call),
            Fact::AgentFinished(data) => self.agent_finished(data),
            fact if self.apply_intake(fact) => {}
            fact => self.apply_work(fact),
        }
        if let Some(session) = self.sessions.last_mut() {
            session.last = self.now;
        }
    }

    fn open_session(&mut self, event: &Event) {
        let host = match &event.fact {
            Fact::RunStarted(data) => &data.host,
            Fact::RunResumed(data) => &data.host,
            _ => return,
        };
        self.sessions.push(Session {
            id: event.session.clone(),
            host: host.clone(),
            started: event.ts,
            last: event.ts,
            suspended: 0.0,
        });
    }

    fn start(&mut self, data: &RunStarted) {
        self.format = data.format;
        self.id.clone_from(&data.run_id);
        self.goal = data.goal.clone();
        self.options = data.options.clone();
        self.base.clone_from(&data.base);
        self.start_tree = Some(data.tree.clone());
        self.tip = Checkpoint { commit: data.start.clone(), tree: data.tree.clone() };
    }

    /// Discards the running work of the last driver. Its recorded work is kept, unless the worktree with the edits is gone.
    fn resume(&mut self, data: &RunResumed) {
        if let Some(options) = &data.options {
            self.options = options.clone();
        }
        self.ended = None;
        self.cancelled = false;
        self.error = None;
        self.fatal = None;
        self.role_failure = None;
        self.pauses.clear();
        self.patience_from = self.iterations.len();
        let lost = data.worktree == Word::Known(Uncommitted::Rebuilt) && self.touched;
        self.touched = data.dirty || (self.touched && !lost);
        if data.unproven {
            self.baseline = None;
            for iteration in &mut self.iterations {
                iteration.unproven = iteration.checkpoint.is_some();
                if !iteration.unproven {
                    iteration.verification = None;
                    iteration.review = None;
                }
            }
        }
        let Some(iteration) = self.iterations.last_mut().filter(|iteration| iteration.checkpoint.is_none()) else {
            return;
        };
        for task in &mut iteration.tasks {
            task.running = false;
            // Work that is committed is not lost with the worktree.
            if lost && task.commit.is_none() {
                *task = Task { id: std::mem::take(&mut task.id), ..Task::default() };
            }
        }
        if lost {
            iteration.verification = None;
            iteration.review = None;
        }
        if let Some(integration) =
            iteration.integration.as_mut().filter(|_| data.worktree == Word::Known(Uncommitted::Rebuilt))
        {
            integration.onto.clone_from(&self.tip.tree);
        }
    }

    fn integrated(&mut self, data: &Integrated) {
        if let Some(task) = data.subgoal.as_deref().and_then(|id| self.task_mut(id)) {
            task.merged = true;
        }
        let Some(iteration) = self.iterations.last_mut() else { return };
        let onto = data.onto.clone().unwrap_or_default();
        let integration = iteration.integration.get_or_insert(Integration { onto, ..Integration::default() });
        integration.tree.clone_from(&data.tree);
        integration.merged.push(data.commit.clone());
        integration.merged.extend(data.resolution.clone());
        let subgoal = data.subgoal.as_deref().unwrap_or_default();
        integration.remarks.extend(data.remarks.iter().map(|remark| format!("{subgoal}: {remark}")));
        iteration.verification = None;
        iteration.review = None;
    }

    fn conflicted(&mut self, data: &Conflicted) {
        if let Some(task) = self.task_mut(&data.subgoal) {
            let (paths, error) = (data.paths.clone(), data.error.clone());
            task.conflict = Some(Conflict { paths, attempts: data.attempt, error });
        }
        if let Some(iteration) = self.iterations.last_mut() {
            let (onto, tree) = (data.onto.clone(), data.onto.clone());
            iteration.integration.get_or_insert(Integration { onto, tree, ..Integration::default() });
        }
    }

    fn pause(&mut self, backend: &str, until: Timestamp, reason: &str, reset: Option<Timestamp>) -> &mut Pause {
        let pause = self.pauses.entry(backend.to_owned()).or_default();
        pause.until = pause.until.max(until);
        reason.clone_into(&mut pause.reason);
        pause.limit = reset.is_some();
        pause.reset = reset;
        pause
    }

    fn agent_finished(&mut self, data: &AgentFinished) {
        self.usage.add(&data.usage);
        if let Some(iteration) = self.iterations.last_mut() {
            iteration.usage.add(&data.usage);
        }
        if let Some(role) = data.role {
            self.usage_by_role.entry(role).or_default().add(&data.usage);
        }
        if let Some(task) =
            data.subgoal.as_deref().filter(|_| data.role == Some(Role::Subagent)).and_then(|id| self.task_mut(id))
        {
            // Work that was merged before its worker ended is merged again if there is more of it.
            task.merged &= data.commit.is_none() || data.commit == task.commit;
            task.commit = data.commit.clone().or(task.commit.take());
            task.remarks.clone_from(&data.remarks);
            task.failed_actions.clone_from(&data.failed_actions);
        }
        let backend = &data.agent.backend;
        let Some(failure) = &data.error else {
            self.pauses.remove(backend);
            if data.role != Some(Role::Subagent) {
                self.role_failure = None;
            }
            return;
        };
        if let Some(task) = data.subgoal.as_deref().filter(|_| !failure.counts()).and_then(|id| self.task_mut(id)) {
            task.running = false;
        }
        if let Some(until) = failure.retry_at {
            let is_limit = failure.kind == FailureKind::RateLimited && until.since(self.now) > LONGEST_SHORT_WAIT;
            let pause = self.pause(backend, until, &failure.message, failure.reset_at);
            pause.limit |= is_limit;
            pause.streak += 1;
            return;
        }
        match data.role {
            // A clarifier that fails never blocks: intake continues without questions.
            Some(Role::Clarifier) | None => {}
            Some(_) if failure.kind == FailureKind::Cancelled => {}
            Some(_) if failure.kind.is_permanent() => self.fatal = Some(failure.clone()),
            Some(Role::Subagent | Role::Integrator) => {}
            Some(role) => {
                let times =
                    self.role_failure.as_ref().filter(|last| last.role == role).map_or(1, |last| last.times + 1);
                self.role_failure = Some(RoleFailure { role, times, failure: failure.clone() });
            }
        }
    }

    fn apply_intake(&mut self, fact: &Fact) -> bool {
        match fact {
            Fact::IntakeStarted(_) => self.intake.started = true,
            Fact::CriteriaProposed(data) => self.goal.criteria.clone_from(&data.criteria),
            Fact::NeedsInput(data) => {
                self.intake.questions.clone_from(&data.questions);
                self.intake.token = Some(data.token.clone());
                self.intake.asked_at = self.now;
            }
            Fact::AnswersGiven(data) => {
                self.intake.answers = Some(data.answers.clone());
                if let Some(session) = self.sessions.last_mut() {
                    let asked = self.intake.asked_at.max(session.started);
                    session.suspended += self.now.since(asked);
                }
            }
            Fact::IntakeFinished(data) => {
                self.intake.started = true;
                self.intake.finished = true;
                self.goal = data.goal.clone();
            }
            _ => return false,
        }
        true
    }

    fn apply_work(&mut self, fact: &Fact) {
        match fact {
            Fact::IterationStarted(data) => {
                let number = self.iterations.last().map_or(1, |iteration| iteration.number + 1);
                self.steering.clear();
                self.role_failure = None;
                self.iterations.push(Iteration { number, feedback: data.feedback.clone(), ..Iteration::default() });
            }
            Fact::Decomposed(data) => {
                if let Some(iteration) = self.iterations.last_mut() {
                    let task = |id: &SubgoalId| Task { id: id.clone(), ..Task::default() };
                    iteration.tasks = data.plan.subgoals.iter().map(|subgoal| task(&subgoal.id)).collect();
                    iteration.plan = Some(data.plan.clone());
                }
            }
            Fact::SubagentStarted(data) => {
                self.touched = true;
                if let Some(task) = self.task_mut(&data.id) {
                    task.running = true;
                    task.begun = true;
                }
                // Results of checks belong to a tree, and this one is about to change.
                if let Some(iteration) = self.iterations.last_mut() {
                    iteration.verification = None;
                    iteration.review = None;
                }
            }
            Fact::SubagentFinished(data) => {
                if let Some(task) = self.task_mut(&data.id) {
                    task.running = false;
                    task.attempts = data.attempt;
                    task.output = Some(data.output.clone());
                    task.error = None;
                }
            }
            Fact::SubagentFailed(data) => {
                if let Some(task) = self.task_mut(&data.id) {
                    task.running = false;
                    task.attempts = data.attempt;
                    task.error = Some(data.error.clone());
                }
            }
            Fact::Verified(data) => {
                if let Some(iteration) = self.iterations.last_mut() {
                    iteration.verification = Some(data.verification.clone());
                }
            }
            Fact::Reviewed(data) => {
                if let Some(iteration) = self.iterations.last_mut() {
                    iteration.review = Some(data.review.clone());
                }
            }
            Fact::Checkpointed(data) => {
                let checkpoint = Checkpoint { commit: data.commit.clone(), tree: data.tree.clone() };
                self.touched = false;
                self.tip = checkpoint.clone();
                self.checkpoints.push(checkpoint.clone());
                if let Some(iteration) = self.iterations.last_mut() {
                    iteration.integration = None;
                }
                if let Some(iteration) = self.iterations.last_mut().filter(|_| !data.partial) {
                    iteration.checkpoint = Some(checkpoint);
                }
            }
            _ => {}
        }
    }

    fn task_mut(&mut self, id: &str) -> Option<&mut Task> {
        self.iterations.last_mut()?.tasks.iter_mut().find(|task| task.id == id)
    }
}
