//! The state of a run: everything its events say.

use std::collections::{BTreeMap, BTreeSet};

use super::goal::{Budget, Goal, Options, Role, RunId, StopReason};
use super::id::{Oid, SessionId, SubgoalId, Token};
use super::text::a_few;
use super::timestamp::Timestamp;
use super::work::{Failure, Plan, Review, Subgoal, TaskResult, Usage, Verification, aggregate, feedback};

/// Paths of a conflict that an error names.
const NAMED_PATHS: usize = 5;

/// One goal being pursued: everything its events say, and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// The run's id; none before `run_started`.
    pub id: Option<RunId>,
    /// The newest log format that a driver of this run wrote.
    pub format: u32,
    /// The goal and criteria as they stand.
    pub goal: Goal,
    /// The options as they stand.
    pub options: Options,
    /// The commit that the run starts from.
    pub base: Oid,
    /// Its tree; none before `run_started`.
    pub start_tree: Option<Oid>,
    /// Its driver processes, in order.
    pub sessions: Vec<Session>,
    /// The newest event's number.
    pub seq: u64,
    /// The newest event's time.
    pub now: Timestamp,
    /// What the checks said of the base, before any work.
    pub baseline: Option<Verification>,
    /// What intake has found out.
    pub intake: IntakeFacts,
    /// Its passes, in order.
    pub iterations: Vec<Iteration>,
    /// Guidance that the next plan must hear.
    pub steering: Vec<String>,
    /// Agent calls made.
    pub agent_calls: u64,
    /// What they used.
    pub usage: Usage,
    /// What they used, a role.
    pub usage_by_role: BTreeMap<Role, Usage>,
    /// Backends that asked us to wait.
    pub pauses: BTreeMap<String, Pause>,
    /// The last failure of a role that is not a worker, and how often in a row it failed.
    pub role_failure: Option<RoleFailure>,
    /// A failure that no retry can mend.
    pub fatal: Option<Failure>,
    /// The newest commit of the run's branch, the start commit at first.
    pub tip: Checkpoint,
    /// Checkpoints, partial ones included.
    pub checkpoints: Vec<Checkpoint>,
    /// Whether a worker was started after the newest checkpoint.
    pub touched: bool,
    /// Whether somebody asked the run to stop.
    pub cancelled: bool,
    /// A failure of the driver itself.
    pub error: Option<(String, Option<String>)>,
    /// How it ended; none while it has not.
    pub ended: Option<Ended>,
    /// Checkpoints made before the run was last taken up again: stagnation counts from here.
    pub(super) patience_from: usize,
}

/// One driver process's work on the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The host it ran on.
    pub host: String,
    /// Its first event.
    pub started: Timestamp,
    /// Its newest event.
    pub last: Timestamp,
    /// Seconds of it in which questions waited for the user.
    pub suspended: f64,
}

/// What intake has found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntakeFacts {
    /// Whether it began.
    pub started: bool,
    /// The questions put to the user.
    pub questions: Vec<String>,
    /// The handle that answers them.
    pub token: Option<Token>,
    /// The answers.
    pub answers: Option<Vec<String>>,
    /// When the questions were put.
    pub(super) asked_at: Timestamp,
    /// Whether it is over.
    pub finished: bool,
}

/// One pass plan → work → verify → review → checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Iteration {
    /// Its number, from 1.
    pub number: u32,
    /// What it was told of the pass before.
    pub feedback: String,
    /// Its plan, once there is one.
    pub plan: Option<Plan>,
    /// Its subgoals' states, in plan order.
    pub tasks: Vec<Task>,
    /// The checks' results, once they ran.
    pub verification: Option<Verification>,
    /// The verdict, once there is one.
    pub review: Option<Review>,
    /// The commit that ended it.
    pub checkpoint: Option<Checkpoint>,
    /// What of it is integrated and not yet in a checkpoint.
    pub integration: Option<Integration>,
    /// What its agents used.
    pub usage: Usage,
    /// Whether what its checks and its reviewer said was recorded elsewhere: it is read, and proves nothing.
    pub unproven: bool,
}

/// A subgoal's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// The subgoal's id.
    pub id: SubgoalId,
    /// Attempts that came to an end of their own.
    pub attempts: u32,
    /// Whether an attempt is under way.
    pub running: bool,
    /// Whether an attempt was ever started: the next one must look at what is there.
    pub begun: bool,
    /// The worker's report, once an attempt succeeded.
    pub output: Option<String>,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// The commit that holds its work, where workers are isolated.
    pub commit: Option<Oid>,
    /// What was noticed about its work when that was taken.
    pub remarks: Vec<String>,
    /// Actions that failed by what its agent printed in the last attempt.
    pub failed_actions: Vec<String>,
    /// Whether that commit is in the run's tree.
    pub merged: bool,
    /// Where it conflicted, and how often an integrator failed at it.
    pub conflict: Option<Conflict>,
}

impl Task {
    /// Whether it succeeded and its work is in the run's tree.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.output.is_some() && (self.commit.is_none() || self.merged)
    }

    /// Whether its work waits for being merged.
    pub(super) fn wants_merge(&self) -> bool {
        self.output.is_some() && !self.is_done()
    }

    /// Why it failed, or why its work is not in the run's tree.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let conflict = self.conflict.as_ref().filter(|_| self.wants_merge());
        conflict.map(Conflict::words).or_else(|| self.error.clone())
    }
}

/// A worker's commit that git could not merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflict {
    /// Where.
    pub paths: Vec<String>,
    /// Attempts at resolving it that failed.
    pub attempts: u32,
    /// Why the last of them failed.
    pub error: Option<String>,
}

impl Conflict {
    fn words(&self) -> String {
        let named = a_few(&self.paths, NAMED_PATHS);
        let error = self.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        format!("its work conflicts with that of other subgoals in {named}{error}")
    }
}

/// What workers' commits made of the run's tree since the newest checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integration {
    /// What the run's worktree held before.
    pub onto: Oid,
    /// The tree with all of them.
    pub tree: Oid,
    /// The commits, in the order in which they were merged.
    pub merged: Vec<Oid>,
    /// What was noticed of conflicts that were resolved, in words, each after its subgoal.
    pub remarks: Vec<String>,
}

/// A commit of ours on the run's branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The commit.
    pub commit: Oid,
    /// Its tree.
    pub tree: Oid,
}

/// A backend that asked us to wait.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pause {
    /// Until when.
    pub until: Timestamp,
    /// Calls that met it in a row.
    pub streak: u32,
    /// Why.
    pub reason: String,
    /// Whether it is a usage limit, and no hiccup.
    pub limit: bool,
    /// When the limit resets, where the service said so.
    pub reset: Option<Timestamp>,
    /// The moment that the record says is waited for.
    pub announced: Option<Timestamp>,
}

/// A role, other than a worker, that failed.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleFailure {
    /// The role.
    pub role: Role,
    /// How often in a row.
    pub times: u32,
    /// The last failure.
    pub failure: Failure,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Why.
    pub reason: StopReason,
    /// The run in one line.
    pub summary: String,
    /// What a person can do.
    pub hint: Option<String>,
}

impl Run {
    /// The pass under way, or the last one.
    #[must_use]
    pub fn iteration(&self) -> Option<&Iteration> {
        self.iterations.last()
    }

    /// What is integrated and not yet in a checkpoint.
    #[must_use]
    pub fn integration(&self) -> Option<&Integration> {
        self.iteration()?.integration.as_ref()
    }

    /// The budget as it stands.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.options.budget
    }

    /// Seconds of all sessions together at `now`; time in which questions waited does not count.
    #[must_use]
    pub fn seconds(&self, now: Timestamp) -> f64 {
        let Some((current, past)) = self.sessions.split_last() else { return 0.0 };
        let until =
            if self.ended.is_some() || self.is_waiting_for_answers() { current.last } else { now.max(current.last) };
        let spent: f64 = past.iter().map(|session| session.last.since(session.started) - session.suspended).sum();
        spent + until.since(current.started) - current.suspended
    }

    /// Whether questions wait for the user.
    #[must_use]
    pub fn is_waiting_for_answers(&self) -> bool {
        !self.intake.finished && !self.intake.questions.is_empty() && self.intake.answers.is_none()
    }

    /// The work of an iteration before on a subgoal that is planned again, where it was not merged. Planners number what
    /// they do not name, so a numbered subgoal is the same only where its description is.
    #[must_use]
    pub fn earlier_work(&self, subgoal: &Subgoal) -> Option<&str> {
        let before = self.iterations.iter().rev().nth(1)?;
        let planned = before.plan.as_ref()?.subgoals.iter().find(|planned| planned.id == subgoal.id)?;
        let is_number = subgoal.id.strip_prefix('s').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        let task = before.tasks.iter().find(|task| task.id == subgoal.id && !task.merged)?;
        (!is_number || planned.description == subgoal.description).then_some(task.commit.as_deref()?)
    }

    /// What the next plan must hear: the last pass's feedback and a person's guidance.
    #[must_use]
    pub fn feedback(&self) -> String {
        let mut parts: Vec<String> = self.iterations.last().map(Iteration::feedback_for_next).into_iter().collect();
        parts.extend(self.steering.iter().map(|text| format!("The user says: {text}")));
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    /// Whether the newest iterations changed nothing for as long as the budget has patience.
    pub(super) fn is_stuck(&self) -> bool {
        if self.budget().patience.get() == 0 {
            return false;
        }
        let window = (self.budget().patience.get() as usize).max(2);
        let since_resume = self.iterations.get(self.patience_from..).unwrap_or_default();
        let Some(start) = since_resume.len().checked_sub(window) else { return false };
        let mut ends = since_resume[start..].iter().map(Iteration::end);
        let first = ends.next().flatten();
        first.is_some() && ends.all(|end| end == first)
    }
}

impl Iteration {
    /// The results of its subgoals, in plan order.
    #[must_use]
    pub fn results(&self) -> Vec<TaskResult> {
        self.tasks
            .iter()
            .map(|task| TaskResult {
                id: task.id.clone(),
                ok: task.is_done(),
                error: task.failure(),
                attempts: task.attempts,
                unmerged: task.commit.clone().filter(|_| !task.merged),
                output: task.output.clone().unwrap_or_default(),
            })
            .collect()
    }

    /// The workers' reports, as the reviewer reads them.
    #[must_use]
    pub fn aggregate(&self) -> String {
        self.plan.as_ref().map(|plan| aggregate(&plan.subgoals, &self.results())).unwrap_or_default()
    }

    /// Whether the goal is reached: the review accepts, no check is red, and something of the plan was done. Where every
    /// subgoal failed, a review that accepts has nothing to go by.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.unproven
            && self.tasks.iter().any(Task::is_done)
            && self.review.as_ref().is_some_and(Review::accepts)
            && self.verification.as_ref().is_some_and(Verification::passed)
    }

    /// `2/3 subgoals, checks pass, goal complete`: the iteration in a few words.
    #[must_use]
    pub fn summary(&self) -> String {
        let ok = self.tasks.iter().filter(|task| task.is_done()).count();
        let checks = match self.verification.as_ref().map_or("not run", Verification::verdict) {
            "none" => "no checks".to_owned(),
            verdict => format!("checks {verdict}"),
        };
        let verdict = match (&self.review, self.is_complete()) {
            (None, _) => "not reviewed",
            (Some(_), true) => "goal complete",
            (Some(_), false) => "goal incomplete",
        };
        format!("{ok}/{} subgoals, {checks}, {verdict}", self.tasks.len())
    }

    fn feedback_for_next(&self) -> String {
        let plan = self.plan.clone().unwrap_or_default();
        let verification = self.verification.clone().unwrap_or_default();
        let feedback = self.review.as_ref().map(|review| feedback(&plan, &self.results(), &verification, review));
        let noticed = self.noticed().into_iter().map(|remark| format!("Note: {remark}"));
        feedback.map(|feedback| noticed.chain([feedback]).collect::<Vec<_>>().join("\n")).unwrap_or_default()
    }

    /// What was noticed about the workers' work, each with its subgoal.
    #[must_use]
    pub fn noticed(&self) -> Vec<String> {
        let of_task =
            |task: &Task| task.remarks.iter().map(|remark| format!("{}: {remark}", task.id)).collect::<Vec<_>>();
        self.tasks.iter().flat_map(of_task).collect()
    }

    /// What stagnation compares: the tree and the red checks. Review wording is left out, since models reword.
    fn end(&self) -> Option<(&str, BTreeSet<&str>)> {
        let checkpoint = self.checkpoint.as_ref()?;
        Some((checkpoint.tree.as_str(), self.verification.as_ref().map(Verification::failing).unwrap_or_default()))
    }
}
