//! The goal, options and budget of a run, and the reasons why it ends.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::amount::{Dollars, Iterations, Jobs, Patience, Retries, Seconds, Subgoals};
pub use super::choice::{ACP, AgentChoice, Role};
use super::folder::Folder;
pub use super::id::{InvalidRunId, RunId, session_id};
use crate::error::one_of;

/// The goal of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Goal {
    /// The goal in the user's words.
    pub text: String,
    /// Success criteria; empty until intake has proposed them.
    #[serde(default)]
    pub criteria: String,
}

/// The limits of a run. `None` is no limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Number of iterations, over all sessions.
    pub max_iterations: Iterations,
    /// Number of further attempts at a subgoal in an iteration.
    pub max_task_retries: Retries,
    /// Duration of all sessions together, waiting included.
    pub max_seconds: Option<Seconds>,
    /// Number of agent calls, over all sessions.
    pub max_agent_calls: Option<NonZeroU64>,
    /// Tokens in and out together, over all sessions.
    pub max_tokens: Option<NonZeroU64>,
    /// US dollars, over all sessions, as the agents report them.
    pub max_cost: Option<Dollars>,
    /// Number of iterations with the same tree and the same failing checks after which the run is stuck; 0 = never.
    pub patience: Patience,
}

impl Budget {
    /// Returns the number of attempts at a subgoal or a conflict in an iteration, the first included.
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

/// The permissions of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Permissions {
    /// Refuse whatever the agent would ask for.
    Ask,
    /// Allow edits of files in its worktree.
    #[default]
    Edit,
    /// Allow everything.
    All,
}

impl Permissions {
    /// Words for the permissions.
    pub const WORDS: [(&'static str, Self); 3] = [("ask", Self::Ask), ("edit", Self::Edit), ("all", Self::All)];

    /// Returns the word for the permissions.
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

/// A check: a command whose exit status is evidence that does not depend on an agent's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Command as the user wrote it.
    pub name: String,
    /// Arguments; the command runs without a shell.
    pub argv: Vec<String>,
}

impl Check {
    /// Returns the check that runs a project's browser tests.
    #[must_use]
    pub fn playwright() -> Self {
        let argv = ["npx", "playwright", "test"].map(ToOwned::to_owned).to_vec();
        Self { name: argv.join(" "), argv }
    }

    /// Adds the browser tests to `checks`, unless they are among them.
    pub fn add_playwright(checks: &mut Vec<Self>) {
        let playwright = Self::playwright();
        if !checks.iter().any(|check| check.argv == playwright.argv) {
            checks.push(playwright);
        }
    }
}

/// The way in which the user is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asking {
    /// The user is not asked: the agents use their best judgement.
    #[default]
    Never,
    /// The user is asked at the terminal.
    Console,
    /// The run is suspended until the user answers.
    Suspend,
}

/// Isolation of workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// A worktree for each worker, and the run's own for set-up and checks.
    #[default]
    Worktree,
    /// The run's own worktree, which its workers share.
    Shared,
    /// The user's checkout.
    None,
}

impl Isolation {
    /// Words for the kinds of isolation.
    pub const WORDS: [(&'static str, Self); 3] =
        [("worktree", Self::Worktree), ("shared", Self::Shared), ("none", Self::None)];

    /// Returns in words which guarantee about checks is missing if workers are not isolated.
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

/// The options of a run, as its `run_started` records them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools)] // each is an option
pub struct Options {
    /// Budget.
    pub budget: Budget,
    /// Agent of the roles that have no choice of their own.
    pub agent: AgentChoice,
    /// Agents of single roles.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub roles: std::collections::BTreeMap<Role, AgentChoice>,
    /// Checks, in order.
    pub checks: Vec<Check>,
    /// Time limit of a check; `None` = no limit.
    pub check_timeout: Option<Seconds>,
    /// Time limit of an agent call; `None` = no limit.
    pub agent_timeout: Option<Seconds>,
    /// Permissions of the agents.
    pub permissions: Permissions,
    /// Isolation of workers.
    pub isolation: Isolation,
    /// Number of workers at a time.
    pub jobs: Jobs,
    /// Number of subgoals in an iteration; the feedback names those that a longer plan had.
    pub max_subgoals: Subgoals,
    /// True if browser tests are wanted, which prompts mention.
    pub playwright: bool,
    /// The way in which the user is asked.
    pub asking: Asking,
    /// True if a usage limit ends the run, instead of a wait.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_wait: bool,
    /// True if a check is run again on a tree that it passed on before.
    pub recheck: bool,
    /// Files that workers may not change, as git pathspecs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub protect: Vec<String>,
    /// True if workers may change protected files, which is reported to the reviewer.
    pub allow_protected: bool,
    /// Folder that agents and checks start in.
    #[serde(skip_serializing_if = "Folder::is_top")]
    pub cwd: Folder,
    /// True if the checks are also run on the base, before any work.
    #[serde(skip_serializing_if = "is_true")]
    pub baseline: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // the signature that serde requires
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

    /// Returns the agent of `role`.
    #[must_use]
    pub fn agent_for(&self, role: Role) -> &AgentChoice {
        self.roles.get(&role).unwrap_or(&self.agent)
    }
}

/// The reason why a run ended or was suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The review accepted and every check passed.
    GoalComplete,
    /// The limit of iterations was reached.
    MaxIterations,
    /// The limit of seconds was reached.
    MaxSeconds,
    /// The limit of agent calls was reached.
    MaxAgentCalls,
    /// The limit of tokens was reached.
    MaxTokens,
    /// The limit of US dollars was reached.
    MaxCost,
    /// A backend's usage limit was reached, and the run was not to wait.
    UsageLimit,
    /// Nothing changed for too many iterations.
    NoProgress,
    /// Questions wait for the user.
    NeedsInput,
    /// The user cancelled the run.
    Cancelled,
    /// An agent failed permanently during intake.
    IntakeAgentError,
    /// An agent failed permanently in planning, working or reviewing.
    LoopAgentError,
    /// The driver failed.
    RunError,
}

impl StopReason {
    /// Returns the reason as it is written in events, trailers and `--json`.
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
