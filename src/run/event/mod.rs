//! Events of a run, and their lines in the log.
//!
//! An [`Event`] holds the envelope (`seq`, `ts`, `session`, `iteration`) and a [`Fact`]. A line is JSON:
//! `{"seq":12,"ts":1790000000.123,"session":"k3v9qp","kind":"review","iteration":2,"data":{…}}`.

mod codec;
mod fact;
mod flaw;
mod objects;

pub use self::codec::{Aside, Log, parse_log};
pub use self::fact::{
    AgentFinished, AgentStarted, Aggregated, AnswersGiven, BaselineTaken, BudgetChanged, Checkpointed, Conflicted,
    CriteriaProposed, Decomposed, Event, FORMAT, Fact, IntakeFinished, IntakeStarted, Integrated, IterationFinished,
    IterationStarted, NeedsInput, PhaseChanged, Provisioned, Reviewed, RunCancelled, RunError, RunFinished, RunResumed,
    RunStarted, Steered, SubagentFailed, SubagentFinished, SubagentStarted, Tampered, Uncommitted, Unheard, Verified,
    Waiting, WorktreeReady,
};
pub use super::id::{ForkPoint, Oid, SessionId, SubgoalId, Token, TranscriptPath};
pub use super::text::{GOAL_LIMIT, VALUE_LIMIT, clip, span};
pub use super::timestamp::Timestamp;
