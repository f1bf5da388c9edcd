//! What a run is for and what bounds it: its goal, its options, its budget and why it ended.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::amount::{Dollars, Iterations, Jobs, Patience, Retries, Seconds, Subgoals};
pub use super::choice::{ACP, AgentChoice, Role};
use super::folder::Folder;
pub use super::id::{InvalidRunId, RunId, session_id};
use crate::error::one_of;

/// What a run is asked to reach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The goal in the user's words.
    pub text: String,
    /// What must hold for the goal to be reached; empty until intake has proposed it.
    #[serde(default)]
    pub criteria: String,
}

/// What bounds a run. `None` is no bound.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Iterations, over all sessions.
    pub max_iterations: Iterations,
    /// Further attempts at a subgoal after its first, an iteration.
    pub max_task_retries: Retries,
    /// The time of all sessions together, waiting included.
    pub max_seconds: Option<Seconds>,
    /// Calls of agents, over all sessions.
    pub max_agent_calls: Option<NonZeroU64>,
    /// Tokens in and out together, over all sessions.
    pub max_tokens: Option<NonZeroU64>,
    /// US dollars, over all sessions, as the agents report them.
    pub max_cost: Option<Dollars>,
    /// Iterations that end with the same tree and the same failing checks before the run is stuck; 0 = never.
    pub patience: Patience,
}

impl Budget {
    /// Attempts at a subgoal, or at a conflict, an iteration: the first and the further ones.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.max_task_retries.get() + 1
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            max_iterations: Iterations::near(4),
            max_task_retries: Retries::near(1),
            max_seconds: None,
            max_agent_calls: None,
            max_tokens: None,
            max_cost: None,
            patience: Patience::near(5),
        }
    }
}

/// What an agent may do without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// What the agent itself would ask for, it is refused.
    Ask,
    /// Edit files in its worktree.
    #[default]
    Edit,
    /// Everything.
    All,
}

impl Permissions {
    /// The words that users say, and what they permit.
    pub const WORDS: [(&'static str, Self); 3] = [("ask", Self::Ask), ("edit", Self::Edit), ("all", Self::All)];

    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Edit => "edit",
            Self::All => "all",
        }
    }
}

impl FromStr for Permissions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &Self::WORDS)
    }
}

/// A verify command: its exit status is evidence that no agent can talk away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The command as the user wrote it.
    pub name: String,
    /// The words it was split into; run without a shell.
    pub argv: Vec<String>,
}

impl Check {
    /// The check that runs a project's browser tests.
    #[must_use]
    pub fn playwright() -> Self {
        let argv = ["npx", "playwright", "test"].map(ToOwned::to_owned).to_vec();
        Self { name: argv.join(" "), argv }
    }

    /// Adds it to `checks`, unless it is among them.
    pub fn add_playwright(checks: &mut Vec<Self>) {
        let playwright = Self::playwright();
        if !checks.iter().any(|check| check.argv == playwright.argv) {
            checks.push(playwright);
        }
    }
}

/// How a question to the user is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asking {
    /// Nobody is asked: the agents use their best judgement.
    #[default]
    Never,
    /// The person at the terminal is asked.
    Console,
    /// The run is suspended until somebody answers.
    Suspend,
}

/// Where workers work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A worktree for each worker, and one of the run's own that set-up and checks alone work in.
    #[default]
    Worktree,
    /// A worktree of the run's own; its workers share it.
    Shared,
    /// The user's checkout.
    None,
}

impl Isolation {
    /// The words that users say, and what they mean.
    pub const WORDS: [(&'static str, Self); 3] =
        [("worktree", Self::Worktree), ("shared", Self::Shared), ("none", Self::None)];

    /// What cannot be promised of checks where workers are not apart, in words.
    #[must_use]
    pub fn unpromised(self) -> Option<&'static str> {
        let shared = "workers share the worktree in which checks run: files that they leave uncommitted (ignored ones, caches) \
                      can change what a check says";
        let none = "agents work in your checkout, where checks run: files that they leave uncommitted (ignored ones, caches) can \
                    change what a check says";
        match self {
            Self::Worktree => None,
            Self::Shared => Some(shared),
            Self::None => Some(none),
        }
    }
}

impl FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &Self::WORDS)
    }
}

/// Every option of a run, as its `run_started` records it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // each is an option
pub struct Options {
    /// What bounds the run.
    pub budget: Budget,
    /// Who answers, where a role has no choice of its own.
    pub agent: AgentChoice,
    /// Who answers a role instead.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub roles: std::collections::BTreeMap<Role, AgentChoice>,
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// How long one check may take; `None` = as long as it takes.
    pub check_timeout: Option<Seconds>,
    /// How long one agent call may take; `None` = as long as it takes.
    pub agent_timeout: Option<Seconds>,
    /// What agents may do without being asked.
    pub permissions: Permissions,
    /// Where workers work.
    pub isolation: Isolation,
    /// Workers at a time.
    pub jobs: Jobs,
    /// Subgoals an iteration; the rest of a longer plan is named in the feedback.
    pub max_subgoals: Subgoals,
    /// Whether browser tests were asked for: the prompts say so.
    pub playwright: bool,
    /// How questions are answered.
    pub asking: Asking,
    /// Whether a usage limit ends the run instead of being waited out.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_wait: bool,
    /// Whether a check is run again on a tree that it passed on before.
    pub recheck: bool,
    /// Files that workers may not change, as git pathspecs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protect: Vec<String>,
    /// Whether they may all the same; the reviewer is told.
    pub allow_protected: bool,
    /// The folder that agents start in and checks run in.
    #[serde(skip_serializing_if = "Folder::is_top")]
    pub cwd: Folder,
    /// Whether the checks are run on the base too, before any work.
    #[serde(skip_serializing_if = "is_true")]
    pub baseline: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands it in so
fn is_true(value: &bool) -> bool {
    *value
}

impl Default for Options {
    fn default() -> Self {
        Self {
            budget: Budget::default(),
            agent: AgentChoice::default(),
            roles: std::collections::BTreeMap::new(),
            checks: Vec::new(),
            check_timeout: None,
            agent_timeout: None,
            permissions: Permissions::default(),
            isolation: Isolation::default(),
            jobs: Jobs::near(4),
            max_subgoals: Subgoals::near(32),
            playwright: false,
            asking: Asking::default(),
            no_wait: false,
            recheck: false,
            protect: Vec::new(),
            allow_protected: false,
            cwd: Folder::default(),
            baseline: true,
        }
    }
}

impl Options {
    /// Turns browser tests on, with their check, or off.
    pub fn set_playwright(&mut self, wanted: bool) {
        self.playwright = wanted;
        if wanted {
            Check::add_playwright(&mut self.checks);
        }
    }

    /// Who answers `role`.
    #[must_use]
    pub fn agent_for(&self, role: Role) -> &AgentChoice {
        self.roles.get(&role).unwrap_or(&self.agent)
    }
}

/// Why a run ended or was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The review accepted and every check passed.
    GoalComplete,
    /// A guard: iterations.
    MaxIterations,
    /// A guard: seconds.
    MaxSeconds,
    /// A guard: agent calls.
    MaxAgentCalls,
    /// A guard: tokens.
    MaxTokens,
    /// A guard: US dollars.
    MaxCost,
    /// A usage limit that was not to be waited out.
    UsageLimit,
    /// A guard: nothing changed for too many iterations.
    NoProgress,
    /// Questions wait for the user.
    NeedsInput,
    /// The user stopped it.
    Cancelled,
    /// An agent failed for good during intake.
    IntakeAgentError,
    /// An agent failed for good in planning, working or reviewing.
    LoopAgentError,
    /// The driver failed.
    RunError,
}

impl StopReason {
    /// The reason as it is written in events, trailers and `--json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::GoalComplete => "goal_complete",
            Self::MaxIterations => "max_iterations",
            Self::MaxSeconds => "max_seconds",
            Self::MaxAgentCalls => "max_agent_calls",
            Self::MaxTokens => "max_tokens",
            Self::MaxCost => "max_cost",
            Self::UsageLimit => "usage_limit",
            Self::NoProgress => "no_progress",
            Self::NeedsInput => "needs_input",
            Self::Cancelled => "cancelled",
            Self::IntakeAgentError => "intake_agent_error",
            Self::LoopAgentError => "loop_agent_error",
            Self::RunError => "run_error",
        }
    }
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
