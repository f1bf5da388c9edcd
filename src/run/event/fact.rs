//! Events, and the facts that they record.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::flaw;
use crate::run::goal::{AgentChoice, Budget, Goal, Options, Role, RunId, StopReason};
use crate::run::id::{ForkPoint, Oid, SessionId, SubgoalId, Token, TranscriptPath};
use crate::run::range;
use crate::run::timestamp::Timestamp;
use crate::run::work::{CheckResult, Failure, Plan, Review, Usage, Verification};

/// The log format that this program writes, and the newest that it goes on with.
pub const FORMAT: u32 = 1;

/// One fact of a run, stamped.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place in the run, from 1, without gaps.
    pub seq: u64,
    /// When; never earlier than the event before it.
    pub ts: Timestamp,
    /// The driver that recorded it.
    pub session: SessionId,
    /// The iteration it belongs to, where it belongs to one.
    pub iteration: Option<u32>,
    /// What happened.
    pub fact: Fact,
}

/// Defines every kind once: its name in the log, its variant, its data.
macro_rules! facts {
    ($($(#[$doc:meta])* $kind:literal $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        /// What happened.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // facts are moved a few times each; the log holds thousands, not millions
        pub enum Fact {
            $($(#[$doc])* $name($name),)*
            /// A kind that this version does not know, or data that a known kind does not take; it survives as it came.
            Unknown {
                /// The kind in the log.
                kind: String,
                /// Its data.
                data: Value,
                /// Why the data of a known kind is not folded.
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
            /// The kind's name in the log.
            #[must_use]
            pub fn kind(&self) -> &str {
                match self {
                    $(Self::$name(_) => $kind,)*
                    Self::Unknown { kind, .. } => kind,
                }
            }

            /// The fact that `data` states; why it states none, where the kind is known.
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
    /// The run was opened.
    "run_started" RunStarted {
        /// The log's format.
        format: u32,
        /// The run's id.
        run_id: Option<RunId>,
        /// The goal, and the criteria where the user gave them.
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
        /// A label of the driver's host.
        host: String,
        /// The run and iteration that it goes on from, as `<run>@<iteration>`, where it is a fork.
        #[serde(skip_serializing_if = "Option::is_none")]
        forked_from: Option<ForkPoint>,
    }
    /// A further driver took the run over.
    "run_resumed" RunResumed {
        /// The log's format.
        format: u32,
        /// The driver's version.
        version: String,
        /// A label of the host.
        host: String,
        /// `kept` or `rebuilt`: whether the worktree's uncommitted edits are still there.
        worktree: String,
        /// Whether the worktree differs from the run's newest commit.
        dirty: bool,
        /// The options from here on, where they changed.
        options: Option<Options>,
        /// Whether events before are from elsewhere: what checks and reviewers said there proves nothing here.
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
    /// Questions wait for the user.
    "needs_input" NeedsInput {
        /// The questions, in order.
        questions: Vec<String>,
        /// The handle that answers them.
        token: Token,
    }
    /// The user answered.
    "answers_given" AnswersGiven {
        /// One answer a question, in order.
        answers: Vec<String>,
    }
    /// Intake is over.
    "intake_finished" IntakeFinished {
        /// The goal and criteria that the run works to.
        goal: Goal,
        /// Questions asked.
        questions: u32,
        /// Why no questions could be asked, where the clarifier failed.
        error: Option<String>,
    }
    /// The worktree stands.
    "worktree_ready" WorktreeReady {
        /// The run's branch.
        branch: String,
        /// The commit it starts from.
        base: Oid,
        /// What the run cannot promise there.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    }
    /// A worktree was made fit to work in.
    "provisioned" Provisioned {
        /// Whose it is; none for the run's own.
        #[serde(skip_serializing_if = "Option::is_none")]
        subgoal: Option<SubgoalId>,
        /// Ignored files that were copied from the user's checkout.
        copied: u64,
        /// The setup commands, up to the first that failed.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        setup: Vec<CheckResult>,
        /// What was noticed.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
    }
    /// The checks ran on the base, before any work.
    "baseline" BaselineTaken {
        /// The tree and the results.
        #[serde(flatten)]
        verification: Verification,
    }
    /// A pass began.
    "iteration_started" IterationStarted {
        /// Iterations the run may take.
        max_iterations: u32,
        /// What the last pass left to mend.
        feedback: String,
    }
    /// The loop went on to another phase.
    "phase_changed" PhaseChanged {
        /// The phase.
        phase: String,
    }
    /// The iteration is planned.
    "decomposed" Decomposed {
        /// The plan, settled.
        plan: Plan,
    }
    /// An agent is being called.
    "agent_started" AgentStarted {
        /// The call's number in the run, from 1.
        #[serde(deserialize_with = "range::call")]
        call: u64,
        /// The role.
        role: Option<Role>,
        /// Who answers.
        agent: AgentChoice,
        /// The subgoal, where the call is a worker's.
        subgoal: Option<SubgoalId>,
    }
    /// An agent's call is over.
    "agent_finished" AgentFinished {
        /// The call's number in the run.
        #[serde(deserialize_with = "range::call")]
        call: u64,
        /// The role.
        role: Option<Role>,
        /// Who answered.
        agent: AgentChoice,
        /// The subgoal, where the call was a worker's.
        subgoal: Option<SubgoalId>,
        /// How it failed, where it did.
        error: Option<Failure>,
        /// What it used.
        usage: Usage,
        /// The agent's own session id.
        session_id: Option<String>,
        /// Seconds.
        #[serde(deserialize_with = "range::took")]
        seconds: f64,
        /// The commit that holds what the worker left, where workers are isolated and it left anything.
        #[serde(skip_serializing_if = "Option::is_none")]
        commit: Option<Oid>,
        /// What was noticed about what it left.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        remarks: Vec<String>,
        /// Commands and other actions of the agent that failed by what it printed of its work, each with the reason.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        failed_actions: Vec<String>,
    }
    /// A worker began an attempt.
    "subagent_started" SubagentStarted {
        /// The subgoal.
        id: SubgoalId,
        /// The attempt, from 1.
        #[serde(deserialize_with = "range::tries")]
        attempt: u32,
    }
    /// A worker finished its subgoal.
    "subagent_finished" SubagentFinished {
        /// The subgoal.
        id: SubgoalId,
        /// The attempt.
        #[serde(deserialize_with = "range::tries")]
        attempt: u32,
        /// What the worker reported.
        output: String,
        /// The report's first line.
        preview: String,
        /// The report's length, in characters.
        chars: u64,
        /// Where the transcript is, under the run's output ref.
        output_path: Option<TranscriptPath>,
    }
    /// A worker's attempt failed.
    "subagent_failed" SubagentFailed {
        /// The subgoal.
        id: SubgoalId,
        /// The attempt.
        #[serde(deserialize_with = "range::tries")]
        attempt: u32,
        /// Why.
        error: String,
        /// Where the transcript is, under the run's output ref.
        output_path: Option<TranscriptPath>,
    }
    /// All subgoals are settled.
    "aggregated" Aggregated {
        /// Subgoals that succeeded.
        ok: u32,
        /// Subgoals that failed.
        failed: u32,
        /// The reports' length together, in characters.
        chars: u64,
    }
    /// The checks ran.
    "verification" Verified {
        /// The tree and the results.
        #[serde(flatten)]
        verification: Verification,
    }
    /// The reviewer judged.
    "review" Reviewed {
        /// The verdict.
        #[serde(flatten)]
        review: Review,
    }
    /// A commit on the run's branch.
    "checkpoint" Checkpointed {
        /// The commit.
        commit: Oid,
        /// Its tree.
        tree: Oid,
        /// Whether the iteration goes on after it.
        partial: bool,
        /// Files changed since the checkpoint before.
        changed: u64,
        /// What was noticed while it was made.
        remarks: Vec<String>,
    }
    /// A pass is over.
    "iteration_finished" IterationFinished {
        /// Whether the goal is reached.
        complete: bool,
        /// The iteration in one line.
        summary: String,
    }
    /// Commits that are not a checkpoint of ours came into the run.
    "integrated" Integrated {
        /// The commit.
        commit: Oid,
        /// The tree that the run works on from here.
        tree: Oid,
        /// The subgoal whose worker made it; none where a person did.
        subgoal: Option<SubgoalId>,
        /// The tree before; that of the run's worktree, where it is the first since a checkpoint.
        #[serde(skip_serializing_if = "Option::is_none")]
        onto: Option<Oid>,
        /// Where it conflicted.
        #[serde(deserialize_with = "range::paths", skip_serializing_if = "Vec::is_empty")]
        conflict: Vec<String>,
        /// The commit that resolved the conflict.
        #[serde(skip_serializing_if = "Option::is_none")]
        resolution: Option<Oid>,
        /// What was noticed.
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
        /// Where.
        #[serde(deserialize_with = "range::paths")]
        paths: Vec<String>,
        /// Attempts at resolving it; 0 where git has just met it.
        #[serde(deserialize_with = "range::tries")]
        attempt: u32,
        /// Why the last attempt failed.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    }
    /// A person's guidance for the next plan.
    "steered" Steered {
        /// The guidance.
        text: String,
    }
    /// A person changed what the run may spend while it went on.
    "budget_changed" BudgetChanged {
        /// The budget from here on.
        budget: Budget,
    }
    /// What somebody sent to the run could not be read, and was set aside.
    "unheard" Unheard {
        /// The file's name in the run's inbox.
        name: String,
        /// Why.
        error: String,
    }
    /// Another program changed the run's log while a driver lived; what was recorded is back on it.
    "tampered" Tampered {
        /// What was done to it, in words.
        remarks: Vec<String>,
    }
    /// The loop pauses.
    "waiting" Waiting {
        /// Until when.
        until: Timestamp,
        /// Who is waited for.
        backend: String,
        /// Why.
        reason: String,
        /// Whether another run of this user met the limit, and told.
        shared: bool,
    }
    /// Somebody stopped the run.
    "run_cancelled" RunCancelled {
        /// Who: a signal's name, or `cancel`.
        by: String,
    }
    /// The driver failed.
    "run_error" RunError {
        /// What failed.
        message: String,
        /// What to do.
        hint: Option<String>,
    }
    /// The run ended.
    "run_finished" RunFinished {
        /// Why.
        stop_reason: Option<StopReason>,
        /// Whether the goal is reached.
        completed: bool,
        /// The run in one line.
        summary: String,
        /// What a person can do, where the reason calls for it.
        hint: Option<String>,
    }
}
