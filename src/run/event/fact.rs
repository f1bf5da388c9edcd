//! Events, and the facts that they record.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::flaw;
use crate::run::goal::{AgentChoice, Budget, Goal, Options, Role, RunId, StopReason};
use crate::run::id::{ForkPoint, Oid, SessionId, SubgoalId, Token, TranscriptPath};
use crate::run::range;
use crate::run::step::Phase;
use crate::run::timestamp::Timestamp;
use crate::run::word::Word;
use crate::run::work::{CheckResult, Failure, Plan, Review, Usage, Verification};

/// Log format that this program writes, and the newest that it continues.
pub const FORMAT: u32 = 1;

/// The state of a worktree's uncommitted edits when a driver resumes its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Uncommitted {
    /// The edits are still there.
    Kept,
    /// The worktree was rebuilt without them.
    Rebuilt,
}

/// A fact of a run with its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Number in the run, from 1, without gaps.
    pub seq: u64,
    /// Time, which is never before that of the previous event.
    pub ts: Timestamp,
    /// Session of the driver that recorded it.
    pub session: SessionId,
    /// Iteration that the fact belongs to, if any.
    pub iteration: Option<u32>,
    /// The fact.
    pub fact: Fact,
}

/// Defines every kind of fact once: its name in the log, its variant and its data.
macro_rules! facts {
    ($($(#[$doc:meta])* $kind:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        /// A fact of a run.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // facts are moved a few times each; the log holds thousands, not millions
        pub enum Fact {
            $($(#[$doc])* $name($name),)*
            /// A kind that this version does not know, or data that a known kind does not allow. It is kept as it was read.
            Unknown {
                /// The kind in the log.
                kind: String,
                /// Its data.
                data: Value,
                /// Reason why the data of a known kind is not folded.
                flaw: Option<String>,
            },
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
            #[serde(default)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl From<$name> for Fact {
                fn from(data: $name) -> Self {
                    Self::$name(data)
                }
            }
        )*

        impl Fact {
            /// Returns the kind's name in the log.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$name(_) => $kind,)*
                    Self::Unknown { kind, .. } => kind,
                }
            }

            /// Parses the data of a kind. The error is the reason, or `None` if the kind is unknown.
            pub(super) fn parse(kind: &str, data: &str) -> Result<Self, Option<String>> {
                match kind {
                    $($kind => flaw::read(data).map(Self::$name).map_err(Some),)*
                    _ => Err(None),
                }
            }

            pub(super) fn serialize_data<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$name(data) => data.serialize(serializer),)*
                    Self::Unknown { data, .. } => data.serialize(serializer),
                }
            }
        }
    };
}

facts! {
    /// The run was started.
    "run_started" RunStarted {
        /// The log's format.
        format: u32,
        /// The run's id.
        run_id: Option<RunId>,
        /// The goal, and the criteria if the user gave them.
        goal: Goal,
        /// Every option of the run.
        options: Options,
        /// The commit that the run starts from.
        base: Oid,
        /// The start commit, the first of the run's branch.
        start: Oid,
        /// The start commit's tree: the base's.
        tree: Oid,
        /// The driver's version.
        version: String,
        /// The host, as a label.
        host: String,
        /// The run and iteration that a fork continues, as `<run>@<iteration>`.
        #[serde(skip_serializing_if = "Option::is_none")]
        forked_from: Option<ForkPoint>,
    }
    /// Another driver resumed the run.
    "run_resumed" RunResumed {
        /// The log's format.
        format: u32,
        /// The driver's version.
        version: String,
        /// The host, as a label.
        host: String,
        /// State of the worktree's uncommitted edits.
        worktree: Word<Uncommitted>,
        /// True if the worktree differs from the run's newest commit.
        dirty: bool,
        /// The new options, if they changed.
        options: Option<Options>,
        /// True if earlier events were recorded elsewhere: their checks and reviews prove nothing here.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        unproven: bool,
    }
    /// Intake began.
    "intake_started" IntakeStarted {}
    /// An agent proposed success criteria.
    "criteria_proposed" CriteriaProposed {
        /// The criteria.
        criteria: String,
    }
    /// The run asks the user.
    "needs_input" NeedsInput {
        /// The questions, in order.
        questions: Vec<String>,
        /// Token with which the user answers.
        token: Token,
    }
    /// The user answered.
    "answers_given" AnswersGiven {
        /// The answers, one for each question, in order.
        answers: Vec<String>,
    }
    /// Intake is over.
    "intake_finished" IntakeFinished {
        /// The goal and criteria that the run works to.
        goal: Goal,
        /// Number of questions asked.
        questions: u32,
        /// Reason why no questions could be asked, if the clarifier failed.
        error: Option<String>,
    }
    /// The worktree exists.
    "worktree_ready" WorktreeReady {
        /// The run's branch.
        branch: String,
        /// The commit that it starts from.
        base: Oid,
        /// Guarantees that the run cannot give there.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    }
    /// A worktree was set up.
    "provisioned" Provisioned {
        /// The subgoal whose worktree it is; `None` for the run's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        subgoal: Option<SubgoalId>,
        /// Ignored files that were copied from the user's checkout.
        copied: u64,
        /// The setup commands, up to the first that failed.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        setup: Vec<CheckResult>,
        /// Remarks.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    }
    /// The checks ran on the base, before any work.
    "baseline" BaselineTaken {
        /// The tree and the results.
        #[serde(flatten)]
        verification: Verification,
    }
    /// An iteration began.
    "iteration_started" IterationStarted {
        /// Limit of iterations.
        max_iterations: u32,
        /// Feedback of the last iteration, for the planner.
        feedback: String,
    }
    /// The run entered another phase.
    "phase_changed" PhaseChanged {
        /// The phase.
        phase: Word<Phase>,
    }
    /// The iteration is planned.
    "decomposed" Decomposed {
        /// The plan.
        plan: Plan,
    }
    /// A call of an agent began.
    "agent_started" AgentStarted {
        /// The call's number in the run, from 1.
        #[serde(deserialize_with = "range::call")]
        call: u64,
        /// The role.
        role: Option<Role>,
        /// The agent that is called.
        agent: AgentChoice,
        /// The subgoal, if the call is a worker's.
        subgoal: Option<SubgoalId>,
    }
    /// A call of an agent ended.
    "agent_finished" AgentFinished {
        /// The call's number in the run.
        #[serde(deserialize_with = "range::call")]
        call: u64,
        /// The role.
        role: Option<Role>,
        /// The agent that was called.
        agent: AgentChoice,
        /// The subgoal, if the call was a worker's.
        subgoal: Option<SubgoalId>,
        /// The failure, if the call failed.
        error: Option<Failure>,
        /// Usage of the call.
        usage: Usage,
        /// The agent's own session id.
        session_id: Option<String>,
        /// Duration in seconds.
        #[serde(deserialize_with = "range::duration")]
        seconds: f64,
        /// The commit of the worker's work, if workers are isolated and it left any.
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<Oid>,
        /// Remarks about its work.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
        /// Commands and other actions of the agent that failed according to its output, each with the reason.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        failed_actions: Vec<String>,
    }
    /// A worker began an attempt.
    "subagent_started" SubagentStarted {
        /// The subgoal.
        id: SubgoalId,
        /// The attempt, from 1.
        #[serde(deserialize_with = "range::attempts")]
        attempt: u32,
    }
    /// A worker finished its subgoal.
    "subagent_finished" SubagentFinished {
        /// The subgoal.
        id: SubgoalId,
        /// The attempt.
        #[serde(deserialize_with = "range::attempts")]
        attempt: u32,
        /// Report of the worker.
        output: String,
        /// First line of the report.
        preview: String,
        /// Length of the report, in characters.
        chars: u64,
        /// Path of the transcript under the run's output ref.
        output_path: Option<TranscriptPath>,
    }
    /// A worker's attempt failed.
    "subagent_failed" SubagentFailed {
        /// The subgoal.
        id: SubgoalId,
        /// The attempt.
        #[serde(deserialize_with = "range::attempts")]
        attempt: u32,
        /// The reason.
        error: String,
        /// Path of the transcript under the run's output ref.
        output_path: Option<TranscriptPath>,
    }
    /// All subgoals of the iteration have succeeded or failed.
    "aggregated" Aggregated {
        /// Number of subgoals that succeeded.
        ok: u32,
        /// Number of subgoals that failed.
        failed: u32,
        /// Length of all reports together, in characters.
        chars: u64,
    }
    /// The checks ran.
    "verification" Verified {
        /// The tree and the results.
        #[serde(flatten)]
        verification: Verification,
    }
    /// The reviewer gave its verdict.
    "review" Reviewed {
        /// The verdict.
        #[serde(flatten)]
        review: Review,
    }
    /// A checkpoint was committed on the run's branch.
    "checkpoint" Checkpointed {
        /// The commit.
        commit: Oid,
        /// Its tree.
        tree: Oid,
        /// True if the iteration continues after it.
        partial: bool,
        /// Number of files changed since the previous checkpoint.
        changed: u64,
        /// Remarks of its making.
        remarks: Vec<String>,
    }
    /// An iteration ended.
    "iteration_finished" IterationFinished {
        /// True if the goal is reached.
        complete: bool,
        /// The iteration in one line.
        summary: String,
    }
    /// A commit that is not the run's own checkpoint was integrated.
    "integrated" Integrated {
        /// The commit.
        commit: Oid,
        /// The tree that the run continues from.
        tree: Oid,
        /// The subgoal whose worker made the commit; `None` for a person's commit.
        subgoal: Option<SubgoalId>,
        /// The previous tree; that of the run's worktree, for the first commit since a checkpoint.
        #[serde(skip_serializing_if = "Option::is_none")]
        onto: Option<Oid>,
        /// Paths that conflicted.
        #[serde(deserialize_with = "range::paths", skip_serializing_if = "Vec::is_empty")]
        conflict: Vec<String>,
        /// The commit that resolved the conflict.
        #[serde(skip_serializing_if = "Option::is_none")]
        resolution: Option<Oid>,
        /// Remarks.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    }
    /// A worker's commit conflicts with what is integrated so far.
    "conflicted" Conflicted {
        /// The subgoal.
        subgoal: SubgoalId,
        /// The worker's commit.
        commit: Oid,
        /// The tree that it could not be merged into.
        onto: Oid,
        /// Paths that conflict.
        #[serde(deserialize_with = "range::paths")]
        paths: Vec<String>,
        /// Number of attempts at resolving it; 0 if git has just found it.
        #[serde(deserialize_with = "range::attempts")]
        attempt: u32,
        /// Reason why the last attempt failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// The user gave guidance for the next plan.
    "steered" Steered {
        /// The guidance.
        text: String,
    }
    /// The user changed the budget of a live run.
    "budget_changed" BudgetChanged {
        /// The new budget.
        budget: Budget,
    }
    /// A message to the run could not be read and was set aside.
    "unheard" Unheard {
        /// File name in the run's inbox.
        name: String,
        /// The reason.
        error: String,
    }
    /// Another program changed the run's log while a driver ran; the recorded log was restored.
    "tampered" Tampered {
        /// Descriptions of the changes.
        remarks: Vec<String>,
    }
    /// The run waits for a backend.
    "waiting" Waiting {
        /// End of the wait.
        until: Timestamp,
        /// The backend that is waited for.
        backend: String,
        /// The reason.
        reason: String,
        /// True if another run of this user met the limit and published it.
        shared: bool,
    }
    /// The run was cancelled.
    "run_cancelled" RunCancelled {
        /// Origin of the request: the name of a signal, or `cancel`.
        by: String,
    }
    /// The driver failed.
    "run_error" RunError {
        /// The error.
        message: String,
        /// The hint.
        hint: Option<String>,
    }
    /// The run ended.
    "run_finished" RunFinished {
        /// The reason.
        stop_reason: Option<StopReason>,
        /// True if the goal is reached.
        completed: bool,
        /// The run in one line.
        summary: String,
        /// Advice to the user, if the reason calls for it.
        hint: Option<String>,
    }
}
