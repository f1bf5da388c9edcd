//! The state of a run: all that its events record.

use std::collections::{BTreeMap, BTreeSet};

use super::evidence::Verdict;
use super::goal::{Budget, Goal, Options, Role, RunId, StopReason};
use super::id::{Oid, SessionId, SubgoalId, Token};
use super::text::a_few;
use super::timestamp::Timestamp;
use super::work::{Failure, Plan, Review, Subgoal, TaskResult, Usage, Verification, aggregate, feedback};

/// Number of conflicting paths that an error names.
const NAMED_PATHS: usize = 5;

/// A run: all that its events record, and nothing else.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Run {
    /// Id of the run; `None` before `run_started`.
    pub id: Option<RunId>,
    /// Newest log format that a driver of this run wrote.
    pub format: u32,
    /// Current goal and criteria.
    pub goal: Goal,
    /// Current options.
    pub options: Options,
    /// Commit that the run starts from.
    pub base: Oid,
    /// Tree of the base; `None` before `run_started`.
    pub start_tree: Option<Oid>,
    /// Sessions of the run's drivers, in order.
    pub sessions: Vec<Session>,
    /// Number of the newest event.
    pub seq: u64,
    /// Time of the newest event.
    pub now: Timestamp,
    /// Results of the checks on the base, before any work.
    pub baseline: Option<Verification>,
    /// Results of intake.
    pub intake: IntakeFacts,
    /// Iterations, in order.
    pub iterations: Vec<Iteration>,
    /// Guidance for the next plan.
    pub steering: Vec<String>,
    /// Number of agent calls.
    pub agent_calls: u64,
    /// Usage of all agent calls.
    pub usage: Usage,
    /// Usage of the agent calls of each role.
    pub usage_by_role: BTreeMap<Role, Usage>,
    /// Backends that have to be waited for.
    pub pauses: BTreeMap<String, Pause>,
    /// Last failure of a role that is not a worker, and the number of its failures in a row.
    pub role_failure: Option<RoleFailure>,
    /// Failure that no retry can fix.
    pub fatal: Option<Failure>,
    /// Newest commit of the run's branch; the start commit at first.
    pub tip: Checkpoint,
    /// Checkpoints, partial ones included.
    pub checkpoints: Vec<Checkpoint>,
    /// True if a worker was started after the newest checkpoint.
    pub touched: bool,
    /// True if the run was cancelled.
    pub cancelled: bool,
    /// Failure of the driver, and its hint.
    pub error: Option<(String, Option<String>)>,
    /// End of the run, if it has ended.
    pub ended: Option<Ended>,
    /// Number of iterations before the run was last resumed: stagnation counts from here.
    pub(super) patience_from: usize,
}

/// The work of one driver process on the run.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Id of the session.
    pub id: SessionId,
    /// Host of the driver.
    pub host: String,
    /// Time of its first event.
    pub started: Timestamp,
    /// Time of its newest event.
    pub last: Timestamp,
    /// Time in which questions waited for the user, in seconds.
    pub suspended: f64,
}

/// Results of intake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntakeFacts {
    /// True if intake began.
    pub started: bool,
    /// Questions to the user.
    pub questions: Vec<String>,
    /// Token with which the user answers.
    pub token: Option<Token>,
    /// Answers of the user.
    pub answers: Option<Vec<String>>,
    /// Time of the questions.
    pub(super) asked_at: Timestamp,
    /// True if intake is over.
    pub finished: bool,
}

/// An iteration: plan → work → verify → review → checkpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Iteration {
    /// Number, from 1.
    pub number: u32,
    /// Feedback of the previous iteration.
    pub feedback: String,
    /// Plan, once there is one.
    pub plan: Option<Plan>,
    /// States of the subgoals, in plan order.
    pub tasks: Vec<Task>,
    /// Results of the checks, once they ran.
    pub verification: Option<Verification>,
    /// Verdict, once there is one.
    pub review: Option<Review>,
    /// Checkpoint that ended the iteration.
    pub checkpoint: Option<Checkpoint>,
    /// Work that is integrated and not yet in a checkpoint.
    pub integration: Option<Integration>,
    /// Usage of its agent calls.
    pub usage: Usage,
    /// True if its checks and review were recorded elsewhere: they are shown, and prove nothing.
    pub unproven: bool,
}

/// The state of a subgoal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Id of the subgoal.
    pub id: SubgoalId,
    /// Number of attempts that ended by themselves.
    pub attempts: u32,
    /// True if an attempt is running.
    pub running: bool,
    /// True if an attempt was ever started: the next one must look at the work that is there.
    pub begun: bool,
    /// Report of the worker, once an attempt succeeded.
    pub output: Option<String>,
    /// Reason why the last attempt failed.
    pub error: Option<String>,
    /// Commit of its work, if workers are isolated.
    pub commit: Option<Oid>,
    /// Remarks about its work.
    pub remarks: Vec<String>,
    /// Actions of the last attempt that failed according to the agent's output.
    pub failed_actions: Vec<String>,
    /// True if the commit is in the run's tree.
    pub merged: bool,
    /// Conflict of the commit, if it has one.
    pub conflict: Option<Conflict>,
}

impl Task {
    /// Returns whether the subgoal succeeded and its work is in the run's tree.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.output.is_some() && (self.commit.is_none() || self.merged)
    }

    /// Returns whether its work has yet to be merged.
    pub(super) fn wants_merge(&self) -> bool {
        self.output.is_some() && !self.is_done()
    }

    /// Returns the reason why it failed, or why its work is not in the run's tree.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let conflict = self.conflict.as_ref().filter(|_| self.wants_merge());
        conflict.map(Conflict::describe).or_else(|| self.error.clone())
    }
}

/// A conflict that a worker's commit has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflict {
    /// Paths that conflict.
    pub paths: Vec<String>,
    /// Number of failed attempts at resolving it.
    pub attempts: u32,
    /// Reason why the last of them failed.
    pub error: Option<String>,
}

impl Conflict {
    fn describe(&self) -> String {
        let named = a_few(&self.paths, NAMED_PATHS);
        let error = self.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
        format!("its work conflicts with that of other subgoals in {named}{error}")
    }
}

/// The result of merging workers' commits since the newest checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Integration {
    /// Tree of the run's worktree before the first merge.
    pub onto: Oid,
    /// Tree with all merged commits.
    pub tree: Oid,
    /// Merged commits, in order.
    pub merged: Vec<Oid>,
    /// Remarks about resolved conflicts, each with its subgoal.
    pub remarks: Vec<String>,
}

/// A commit of the run on its branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The commit.
    pub commit: Oid,
    /// Its tree.
    pub tree: Oid,
}

/// The state of a backend that has to be waited for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pause {
    /// End of the wait.
    pub until: Timestamp,
    /// Number of calls in a row that failed for it.
    pub streak: u32,
    /// The reason.
    pub reason: String,
    /// True if it is a usage limit, and not a short failure.
    pub limit: bool,
    /// Time at which the limit resets, if the service named one.
    pub reset: Option<Timestamp>,
    /// End of the wait that was last recorded.
    pub announced: Option<Timestamp>,
}

/// The failures of a role that is not a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleFailure {
    /// The role.
    pub role: Role,
    /// Number of failures in a row.
    pub times: u32,
    /// The last failure.
    pub failure: Failure,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// The reason.
    pub reason: StopReason,
    /// Summary in one line.
    pub summary: String,
    /// Advice to the user.
    pub hint: Option<String>,
}

impl Run {
    /// Returns the current iteration, or the last one.
    #[must_use]
    pub fn iteration(&self) -> Option<&Iteration> {
        self.iterations.last()
    }

    /// Returns the work that is integrated and not yet in a checkpoint.
    #[must_use]
    pub fn integration(&self) -> Option<&Integration> {
        self.iteration()?.integration.as_ref()
    }

    /// Returns the current budget.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.options.budget
    }

    /// Returns the duration of all sessions at `now`, in seconds, without the time in which questions waited.
    #[must_use]
    pub fn seconds(&self, now: Timestamp) -> f64 {
        let Some((current, past)) = self.sessions.split_last() else { return 0.0 };
        let until =
            if self.ended.is_some() || self.is_waiting_for_answers() { current.last } else { now.max(current.last) };
        let spent: f64 = past.iter().map(|session| session.last.since(session.started) - session.suspended).sum();
        spent + until.since(current.started) - current.suspended
    }

    /// Returns whether questions wait for the user.
    #[must_use]
    pub fn is_waiting_for_answers(&self) -> bool {
        !self.intake.finished && !self.intake.questions.is_empty() && self.intake.answers.is_none()
    }

    /// Returns the unmerged work of the previous iteration on a subgoal that is planned again. Subgoals that planners do not
    /// name are numbered, so a numbered one is the same only if its description is.
    #[must_use]
    pub fn earlier_work(&self, subgoal: &Subgoal) -> Option<&str> {
        let before = self.iterations.iter().rev().nth(1)?;
        let planned = before.plan.as_ref()?.subgoals.iter().find(|planned| planned.id == subgoal.id)?;
        let is_number = subgoal.id.strip_prefix('s').is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()));
        let task = before.tasks.iter().find(|task| task.id == subgoal.id && !task.merged)?;
        (!is_number || planned.description == subgoal.description).then_some(task.commit.as_deref()?)
    }

    /// Returns the input of the next plan: the last iteration's feedback and the user's guidance.
    #[must_use]
    pub fn feedback(&self) -> String {
        let mut parts: Vec<String> = self.iterations.last().map(Iteration::feedback_for_next).into_iter().collect();
        parts.extend(self.steering.iter().map(|text| format!("The user says: {text}")));
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }

    /// Returns whether the newest iterations changed nothing for as long as the budget's patience.
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
    /// Returns the results of the subgoals, in plan order.
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

    /// Returns the workers' reports, as the reviewer reads them.
    #[must_use]
    pub fn aggregate(&self) -> String {
        self.plan.as_ref().map(|plan| aggregate(&plan.subgoals, &self.results())).unwrap_or_default()
    }

    /// Returns whether the goal is reached: the review accepts, no check failed, and a subgoal was done. If every subgoal
    /// failed, an accepting review has no basis.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self.unproven
            && self.tasks.iter().any(Task::is_done)
            && self.review.as_ref().is_some_and(Review::accepts)
            && self.verification.as_ref().is_some_and(Verification::passed)
    }

    /// Returns the iteration in a few words: `2/3 subgoals, checks pass, goal complete`.
    #[must_use]
    pub fn summary(&self) -> String {
        let ok = self.tasks.iter().filter(|task| task.is_done()).count();
        let checks = match self.verification.as_ref().map(Verification::verdict) {
            None => "checks not run".to_owned(),
            Some(Verdict::None) => "no checks".to_owned(),
            Some(verdict) => format!("checks {verdict}"),
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

    /// Returns the remarks about the workers' work, each with its subgoal.
    #[must_use]
    pub fn noticed(&self) -> Vec<String> {
        let of_task =
            |task: &Task| task.remarks.iter().map(|remark| format!("{}: {remark}", task.id)).collect::<Vec<_>>();
        self.tasks.iter().flat_map(of_task).collect()
    }

    /// Returns what stagnation compares: the tree and the failing checks. The review is left out, since models reword.
    fn end(&self) -> Option<(&str, BTreeSet<&str>)> {
        let checkpoint = self.checkpoint.as_ref()?;
        Some((checkpoint.tree.as_str(), self.verification.as_ref().map(Verification::failing).unwrap_or_default()))
    }
}
