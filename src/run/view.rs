//! What every surface prints: `--json` and the MCP server serialise these, the terminal renders them.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::amount::Iterations;
use super::event::{Event, Fact, Log, Timestamp};
use super::goal::{Role, RunId, StopReason};
use super::snapshot::{Awaited, Snapshot, State};
use super::text::{count, one_line};
use super::words::{self, Spent};
use super::work::{CheckResult, Review, TaskResult, Usage, Verification};
use super::{Iteration, Run, sanitize};

/// Longest name of a check in a summary, in characters.
const NAME: usize = 60;
/// Longest line of a check's output in a summary, in characters.
const TELLING: usize = 160;

/// A run in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The run.
    pub run_id: RunId,
    /// Whether a driver works on it.
    pub running: bool,
    /// Where it stands: a [`State`], or `interrupted` where no driver works on a run that has not ended.
    #[serde(flatten, serialize_with = "words::state")]
    pub state: String,
    /// What it is doing, or was doing last.
    pub phase: String,
    /// The pass under way, or the last one.
    pub iteration: u32,
    /// Passes it may take.
    pub max_iterations: u32,
    /// Events recorded.
    pub events: u64,
    /// When it was started, in seconds since the Unix epoch.
    pub started_at: Timestamp,
    /// The goal in one line.
    pub goal: String,
    /// Its branch.
    pub branch: String,
    /// What its agents used.
    #[serde(flatten, serialize_with = "words::spent")]
    pub spent: Spent,
    /// Whether the goal is reached; absent while that is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Why it ended, or waits for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// Whether drivers of this clone recorded all of it: of what others say nothing is known.
    pub verified: bool,
    /// What it waits for, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Awaited>,
}

impl Status {
    /// The run that `snapshot` tells of; `live` where a driver holds its lock.
    #[must_use]
    pub fn of(run_id: RunId, branch: String, snapshot: Snapshot, live: bool, verified: bool) -> Self {
        let state = match snapshot.state {
            State::Running | State::Waiting if !live => "interrupted".to_owned(),
            state => state.name().to_owned(),
        };
        Self {
            run_id,
            running: live && !snapshot.state.is_final(),
            completed: snapshot.state.is_final().then_some(snapshot.state == State::Completed),
            state,
            phase: snapshot.phase,
            iteration: snapshot.iteration,
            max_iterations: snapshot.max_iterations,
            events: snapshot.seq,
            started_at: snapshot.started,
            goal: snapshot.goal,
            branch,
            spent: Spent { tokens: snapshot.tokens, cost_usd: snapshot.cost_usd },
            stop_reason: snapshot.stop_reason,
            verified,
            waiting: snapshot.waiting.filter(|_| live),
        }
    }
}

/// Events after a cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// The run.
    pub run_id: RunId,
    /// The events, oldest first.
    pub events: Vec<Event>,
    /// The last of them; where to go on.
    pub cursor: u64,
    /// Whether a driver works on the run.
    pub running: bool,
    /// Whether there are more events already.
    pub more: bool,
    /// What of the log could not be read and was set aside.
    pub set_aside: Option<String>,
}

impl Serialize for Tail {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut fields = serializer.serialize_struct("Tail", 6)?;
        fields.serialize_field("run_id", &self.run_id)?;
        fields.serialize_field("events", &self.events)?;
        fields.serialize_field("cursor", &self.cursor)?;
        fields.serialize_field("running", &self.running)?;
        fields.serialize_field("more", &self.more)?;
        if let Some(set_aside) = &self.set_aside {
            fields.serialize_field("set_aside", set_aside)?;
        }
        fields.end()
    }
}

impl Tail {
    /// At most `limit` of the events of `log` after `cursor`.
    #[must_use]
    pub fn of(run_id: RunId, log: Log, cursor: u64, limit: usize, live: bool) -> Self {
        let set_aside = log.notice();
        let events = log.events;
        // A driver holds its lock for a moment after the end, and a merge with an agent holds it too.
        let ends = events.iter().rev().find_map(|event| match event.fact {
            Fact::RunFinished(_) => Some(true),
            Fact::RunStarted(_) | Fact::RunResumed(_) => Some(false),
            _ => None,
        });
        let running = live && ends != Some(true);
        let mut rest: Vec<Event> = events.into_iter().filter(|event| event.seq > cursor).collect();
        let more = rest.len() > limit;
        rest.truncate(limit);
        let cursor = rest.last().map_or(cursor, |event| event.seq);
        Self { run_id, events: rest, cursor, running, more, set_aside }
    }
}

/// A run's end, or how far it has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunResult {
    /// The run.
    pub run_id: RunId,
    /// Where it stands: a [`State`], or `interrupted`.
    #[serde(flatten, serialize_with = "words::state")]
    pub status: String,
    /// Whether the goal is reached.
    pub completed: bool,
    /// Passes that were committed.
    pub iterations: u32,
    /// Why it ended, or waits for the user.
    pub stop_reason: Option<String>,
    /// The questions that wait, where they do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<String>,
    /// The handle that answers them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// What a person can do, where the reason calls for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The workers' reports of the last pass: `### id: description` sections.
    pub final_output: String,
    /// The run in one line.
    pub summary: String,
    /// Its passes, in order.
    pub history: Vec<Pass>,
    /// What the agents used.
    #[serde(flatten, serialize_with = "words::usage")]
    pub usage: Usage,
    /// What they used in each role.
    #[serde(flatten, serialize_with = "words::usage_by_role")]
    pub usage_by_role: BTreeMap<Role, Usage>,
    /// Where the work is.
    pub worktree: Option<WorktreeView>,
    /// What of the log could not be read and was set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// Whether drivers of this clone recorded all of it.
    pub verified: bool,
}

/// One pass of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pass {
    /// Its number, from 1.
    pub iteration: u32,
    /// What was planned.
    pub subgoals: Vec<super::work::Subgoal>,
    /// What became of it.
    pub results: Vec<TaskResult>,
    /// The verdict, once there is one.
    pub review: Option<Review>,
    /// The checks' results.
    pub verification: Vec<CheckResult>,
}

/// Where a run's work is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorktreeView {
    /// The worktree on this machine; none where there is none.
    pub path: Option<String>,
    /// The run's branch.
    pub branch: String,
    /// What a git command here calls the work: the branch, one that was fetched, or a commit; none where it is not here.
    #[serde(skip)]
    pub name: Option<String>,
    /// The commit that the run starts from.
    pub base: String,
    /// Files that differ from the base, sorted.
    pub changed_files: Vec<String>,
    /// The checkpoints' commits, oldest first.
    pub checkpoints: Vec<String>,
}

impl Run {
    /// The flag that gives twice of what a run that stopped for `reason` had, or of what it spent where calls in flight took
    /// more, as a command takes it: ` --max-iterations 8`; empty where it is not its budget that stopped it.
    #[must_use]
    pub fn more(&self, reason: StopReason) -> String {
        let budget = self.budget();
        let twice = |most: u64, spent: u64| most.max(spent).saturating_mul(2);
        let dear = |most: f64, spent: f64, parts: f64| (most.max(spent) * 2.0 * parts).ceil() / parts;
        match reason {
            StopReason::MaxIterations => {
                let twice = Iterations::near(budget.max_iterations.get() * 2);
                Some(format!(" --max-iterations {twice}"))
            }
            StopReason::MaxSeconds => budget
                .max_seconds
                .map(|most| format!(" --max-seconds {}", dear(most.get(), self.seconds(self.now), 1.0))),
            StopReason::MaxAgentCalls => {
                budget.max_agent_calls.map(|most| format!(" --max-agent-calls {}", twice(most.get(), self.agent_calls)))
            }
            StopReason::MaxTokens => {
                budget.max_tokens.map(|most| format!(" --max-tokens {}", twice(most.get(), self.usage.tokens())))
            }
            StopReason::MaxCost => {
                let spent = self.usage.cost_usd.unwrap_or_default();
                budget.max_cost.map(|most| format!(" --max-cost {}", dear(most.get(), spent, 100.0)))
            }
            _ => None,
        }
        .unwrap_or_default()
    }

    /// Why the work is not ready to be merged: the goal is not reached, or the last checks failed.
    #[must_use]
    pub fn unfit(&self) -> Option<String> {
        let failing = self.iterations.iter().rev().find_map(|one| one.verification.as_ref()).map(Verification::failing);
        let failing = failing.unwrap_or_default().into_iter().collect::<Vec<_>>();
        let reason = self.ended.as_ref().map(|ended| ended.reason);
        let is_complete = reason == Some(StopReason::GoalComplete);
        let why = match reason {
            _ if is_complete => None,
            Some(reason) => Some(format!("its goal is not reached ({reason})")),
            None => Some("it has not ended".to_owned()),
        };
        let red = (!failing.is_empty()).then(|| format!("its last checks failed: {}", failing.join(", ")));
        let all: Vec<String> = why.into_iter().chain(red).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// What a completed run's completion does not rest on.
    fn caveats(&self) -> impl Iterator<Item = String> {
        let is_unchanged = self.start_tree.as_ref().is_some_and(|start| *start == self.tip.tree);
        is_unchanged.then(|| "no files changed".to_owned()).into_iter().chain(self.proves_little())
    }

    /// The result as it stands; `live` where a driver holds the run's lock.
    #[must_use]
    pub fn result(&self, run_id: RunId, live: bool, verified: bool, worktree: Option<WorktreeView>) -> RunResult {
        let snapshot = self.snapshot();
        let waits = self.is_waiting_for_answers();
        let status = Status::of(run_id.clone(), String::new(), snapshot, live, verified);
        let last = self.iterations.iter().rev().find(|iteration| iteration.plan.is_some());
        RunResult {
            run_id,
            completed: status.completed.unwrap_or(false),
            iterations: u32::try_from(self.iterations.iter().filter(|one| one.checkpoint.is_some()).count())
                .unwrap_or(u32::MAX),
            stop_reason: status.stop_reason,
            questions: if waits { self.intake.questions.clone() } else { Vec::new() },
            token: self.intake.token.clone().filter(|_| waits).map(Into::into),
            hint: self.ended.as_ref().and_then(|ended| ended.hint.clone()),
            final_output: last.map(Iteration::aggregate).unwrap_or_default(),
            summary: self
                .ended
                .as_ref()
                .map_or_else(|| self.summary(None), |ended| sanitize::lines(&ended.summary).into_owned()),
            history: self.iterations.iter().filter(|iteration| iteration.plan.is_some()).map(Pass::of).collect(),
            usage: self.usage,
            usage_by_role: self.usage_by_role.clone(),
            worktree,
            set_aside: None,
            verified,
            status: status.state,
        }
    }

    /// The run in one line, for the end that `reason` gives it, or as far as it has come.
    #[must_use]
    pub fn summary(&self, reason: Option<StopReason>) -> String {
        let last = self.iterations.last();
        let passes = self.iterations.iter().filter(|one| one.checkpoint.is_some()).count();
        let verdict = last.map_or_else(|| "nothing planned yet".to_owned(), Iteration::summary);
        let passes = count(passes, "iteration");
        match reason {
            Some(StopReason::GoalComplete) => {
                let caveats = self.caveats().map(|caveat| format!("; {caveat}"));
                format!("goal complete after {passes}: {verdict}{}", caveats.collect::<String>())
            }
            Some(reason) => format!("stopped ({reason}) after {passes}: {verdict}{}", self.failed_check()),
            None => format!("{passes} so far: {verdict}{}", self.failed_check()),
        }
    }

    /// The first red check of the last iteration and the line that tells why, to go on after a verdict; empty where none is red.
    fn failed_check(&self) -> String {
        let checks = self.iterations.last().and_then(|last| last.verification.as_ref()).map(|seen| &seen.checks);
        let Some(red) = checks.and_then(|checks| checks.iter().find(|check| !check.ok)) else { return String::new() };
        let why = red.telling_line(TELLING).filter(|_| red.error.is_none()).unwrap_or_else(|| red.ended());
        format!("; check '{}' failed: {}", one_line(&red.name, NAME), one_line(&why, TELLING))
    }
}

impl Pass {
    fn of(iteration: &Iteration) -> Self {
        Self {
            iteration: iteration.number,
            subgoals: iteration.plan.as_ref().map(|plan| plan.subgoals.clone()).unwrap_or_default(),
            results: iteration.results(),
            review: iteration.review.clone(),
            verification: iteration.verification.as_ref().map(|seen| seen.checks.clone()).unwrap_or_default(),
        }
    }
}
