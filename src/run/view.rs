//! Views that all surfaces print: `--json` and the MCP server serialise them, the terminal renders them.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::amount::Iterations;
use super::contract::{EnrichedEvent, Enricher};
use super::event::{Fact, Log, Timestamp};
use super::goal::{Role, RunId, StopReason};
use super::snapshot::{Awaited, Snapshot, State};
use super::text::{count, one_line};
use super::words::{self, Spent};
use super::work::{CheckResult, Review, TaskResult, Usage, Verification};
use super::{Iteration, Phase, Run, Word, sanitize};

/// Longest name of a check in a summary, in characters.
const NAME_LENGTH: usize = 60;
/// Longest line of a check's output in a summary, in characters.
const LINE_LENGTH: usize = 160;

/// The status of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Id of the run.
    pub run_id: RunId,
    /// True if a driver works on it.
    pub running: bool,
    /// State.
    #[serde(flatten, serialize_with = "words::state")]
    pub state: State,
    /// Current phase, or the last one.
    pub phase: Word<Phase>,
    /// Current iteration, or the last one.
    pub iteration: u32,
    /// Limit of iterations.
    pub max_iterations: u32,
    /// Number of recorded events.
    pub events: u64,
    /// Time of its start, in seconds since the Unix epoch.
    pub started_at: Timestamp,
    /// Goal in one line.
    pub goal: String,
    /// Branch of the run.
    pub branch: String,
    /// Usage of its agents.
    #[serde(flatten, serialize_with = "words::spent")]
    pub spent: Spent,
    /// True if the goal is reached; absent until the run has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed: Option<bool>,
    /// Reason why it ended or waits for the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<Word<StopReason>>,
    /// True if drivers of this clone recorded all of it; other records are not trusted.
    pub verified: bool,
    /// Backend that it waits for, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Awaited>,
}

impl Status {
    /// Returns the status after `snapshot`; `live` if a driver holds the run's lock.
    #[must_use]
    pub fn of(run_id: RunId, branch: String, snapshot: Snapshot, live: bool, verified: bool) -> Self {
        let state = match snapshot.state {
            State::Running | State::Waiting if !live => State::Interrupted,
            state => state,
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
    /// Id of the run.
    pub run_id: RunId,
    /// Events, oldest first.
    pub events: Vec<EnrichedEvent>,
    /// Number of the last event; the next cursor.
    pub cursor: u64,
    /// True if a driver works on the run.
    pub running: bool,
    /// True if there are more events already.
    pub more: bool,
    /// Report of the log's lines that could not be read.
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
    /// Returns at most `limit` events of `log` after `cursor`.
    #[must_use]
    pub fn of(run_id: RunId, log: Log, cursor: u64, limit: usize, live: bool) -> Self {
        let set_aside = log.notice();
        let events = log.events;
        // A driver holds its lock for a moment after the end, and a merge with an integrator holds it too.
        let ends = events.iter().rev().find_map(|event| match event.fact {
            Fact::RunFinished(_) => Some(true),
            Fact::RunStarted(_) | Fact::RunResumed(_) => Some(false),
            _ => None,
        });
        let running = live && ends != Some(true);
        let (mut enricher, mut rest, mut more) = (Enricher::default(), Vec::new(), false);
        for event in &events {
            if event.seq <= cursor {
                enricher.skip(event);
            } else if rest.len() < limit {
                rest.push(enricher.enrich(event));
            } else {
                more = true;
                break;
            }
        }
        let cursor = rest.last().map_or(cursor, |told| told.event.seq);
        Self { run_id, events: rest, cursor, running, more, set_aside }
    }
}

/// The result of a run, or its progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunResult {
    /// Id of the run.
    pub run_id: RunId,
    /// State.
    #[serde(flatten, serialize_with = "words::state")]
    pub status: State,
    /// True if the goal is reached.
    pub completed: bool,
    /// Number of committed iterations.
    pub iterations: u32,
    /// Reason why it ended or waits for the user.
    pub stop_reason: Option<Word<StopReason>>,
    /// Questions that wait for the user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<String>,
    /// Token with which the user answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Advice to the user, if the reason calls for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Workers' reports of the last iteration: `### id: description` sections.
    pub final_output: String,
    /// Summary in one line.
    pub summary: String,
    /// Iterations, in order.
    pub history: Vec<Pass>,
    /// Usage of the agents.
    #[serde(flatten, serialize_with = "words::usage")]
    pub usage: Usage,
    /// Usage of the agents in each role.
    #[serde(flatten, serialize_with = "words::usage_by_role")]
    pub usage_by_role: BTreeMap<Role, Usage>,
    /// Worktree and branch of the work.
    pub worktree: Option<WorktreeView>,
    /// Report of the log's lines that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// True if drivers of this clone recorded all of it.
    pub verified: bool,
}

/// An iteration of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pass {
    /// Number, from 1.
    pub iteration: u32,
    /// Planned subgoals.
    pub subgoals: Vec<super::work::Subgoal>,
    /// Results of the subgoals.
    pub results: Vec<TaskResult>,
    /// Verdict, once there is one.
    pub review: Option<Review>,
    /// Results of the checks.
    pub verification: Vec<CheckResult>,
}

/// The location of a run's work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WorktreeView {
    /// Worktree on this machine, if it exists.
    pub path: Option<String>,
    /// Branch of the run.
    pub branch: String,
    /// Name of the work for git commands in this clone: the branch, a fetched branch, or a commit; `None` if the work is not
    /// here.
    #[serde(skip)]
    pub name: Option<String>,
    /// Commit that the run starts from.
    pub base: String,
    /// Files that differ from the base, sorted.
    pub changed_files: Vec<String>,
    /// Commits of the checkpoints, oldest first.
    pub checkpoints: Vec<String>,
}

impl Run {
    /// Returns the flag that doubles the limit that stopped the run, or its usage if calls that were running took more: `
    /// --max-iterations 8`. Returns an empty string if no limit stopped it.
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

    /// Returns the reasons why the work is not ready to be merged: the goal is not reached, or the last checks failed.
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
        let failing = (!failing.is_empty()).then(|| format!("its last checks failed: {}", failing.join(", ")));
        let all: Vec<String> = why.into_iter().chain(failing).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Lists caveats about a completed run.
    fn caveats(&self) -> impl Iterator<Item = String> {
        let is_unchanged = self.start_tree.as_ref().is_some_and(|start| *start == self.tip.tree);
        is_unchanged.then(|| "no files changed".to_owned()).into_iter().chain(self.proves_little())
    }

    /// Returns the current result; `live` if a driver holds the run's lock.
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

    /// Returns the run in one line: its end for `reason`, or its progress.
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

    /// Returns the first failing check of the last iteration and its most telling line, as the end of a summary; empty if
    /// none fails.
    fn failed_check(&self) -> String {
        let checks = self.iterations.last().and_then(|last| last.verification.as_ref()).map(|seen| &seen.checks);
        let Some(failing) = checks.and_then(|checks| checks.iter().find(|check| !check.ok)) else {
            return String::new();
        };
        let why =
            failing.telling_line(LINE_LENGTH).filter(|_| failing.error.is_none()).unwrap_or_else(|| failing.ended());
        format!("; check '{}' failed: {}", one_line(&failing.name, NAME_LENGTH), one_line(&why, LINE_LENGTH))
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
