//! What verbs take that drive a run.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::value::{
    agent, at_least_none, at_least_one, at_least_one_u64, dollars, isolation, permissions, text, verify,
};
use crate::run::goal::{AgentChoice, Check, Isolation, Permissions};
use crate::settings::seconds;

pub const EXAMPLES: &str = "\
Examples:
  git agentloop run \"add a /health endpoint\" --verify \"cargo test\"
  git agentloop run -F goal.md --max-iterations 8 --max-seconds 3600 --detach
  git agentloop run \"see how it works\" --backend mock

Exit codes: 0 goal complete, 1 stopped by a limit, 2 error, 3 questions wait,
4 cancelled. Settings for every option: 'git agentloop config'.";

/// Options of `answer`.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The run's id or its beginning, or the token that came with the questions
    #[arg(value_parser = text)]
    pub run: String,
    /// The answers, one a question, in order
    #[arg(value_name = "TEXT", required = true, value_parser = text)]
    pub answers: Vec<String>,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}

/// Options of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Even where another machine was the last to drive it, and may still be
    #[arg(long)]
    pub take_over: bool,
    /// Where workers work from here on: worktree (each its own) or shared
    #[arg(long, value_name = "WHAT", value_parser = isolation)]
    pub isolation: Option<Isolation>,
    /// What may change.
    #[command(flatten)]
    pub common: Common,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub struct RunArgs {
    /// What is to be reached, in your words; '-' reads it from stdin
    #[arg(value_parser = text)]
    pub goal: Option<String>,
    /// Read the goal from a file; '-' is stdin
    #[arg(short = 'F', long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "goal")]
    pub goal_file: Option<PathBuf>,
    /// What must hold for the goal to be reached [default: an agent proposes]
    #[arg(long, value_name = "TEXT", value_parser = text, conflicts_with = "criteria_file")]
    pub criteria: Option<String>,
    /// Read the criteria from a file; '-' is stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub criteria_file: Option<PathBuf>,
    /// The revision to start from [default: HEAD]
    #[arg(long, value_name = "REV", value_parser = text)]
    pub base: Option<String>,
    /// What to call the run [default: words of the goal]
    #[arg(long, value_parser = text)]
    pub name: Option<String>,
    /// Put the agent's questions on record and wait for 'answer'
    #[arg(long, conflicts_with = "non_interactive")]
    pub ask: bool,
    /// Answer the questions of a waiting run, with --answer
    #[arg(long, value_name = "TOKEN", value_parser = text, requires = "answers", conflicts_with_all = ["goal", "goal_file"])]
    pub resume: Option<String>,
    /// The answers, one a question, in order
    #[arg(long = "answer", value_name = "TEXT", num_args = 1.., requires = "resume", value_parser = text)]
    pub answers: Vec<String>,
    /// Where workers work: worktree (each its own), shared, or none
    #[arg(long, value_name = "WHAT", value_parser = isolation)]
    pub isolation: Option<Isolation>,
    /// Let agents edit your checkout: the same as --isolation none
    #[arg(long, conflicts_with = "isolation")]
    pub no_isolate: bool,
    /// Permit everything even in your checkout
    #[arg(long)]
    pub force: bool,
    /// What a resumed run can change too.
    #[command(flatten)]
    pub common: Common,
    /// Subgoals an iteration [default: 32]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Checks and limits")]
    pub max_subgoals: Option<u32>,
    /// Seconds one check may take
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Checks and limits")]
    pub verify_timeout: Option<f64>,
    /// Test in a browser: adds the check 'npx playwright test'
    #[arg(long, help_heading = "Checks and limits")]
    pub playwright: bool,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}

/// Options that a run is started with and that a resumed run can change.
#[derive(Debug, Default, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub struct Common {
    /// The agent, as NAME or NAME/MODEL: auto, or one that 'git agentloop backends' lists; or acp:COMMAND
    #[arg(long, value_name = "AGENT", value_parser = agent, help_heading = "Agents")]
    pub backend: Option<AgentChoice>,
    /// The model that the agent uses
    #[arg(long, value_parser = text, help_heading = "Agents")]
    pub model: Option<String>,
    /// Who plans, and asks before that [default: --backend]
    #[arg(long, value_name = "AGENT", value_parser = agent, help_heading = "Agents")]
    pub planner: Option<AgentChoice>,
    /// Who works on the subgoals [default: --backend]
    #[arg(long, value_name = "AGENT", value_parser = agent, help_heading = "Agents")]
    pub worker: Option<AgentChoice>,
    /// Who reviews [default: --backend]
    #[arg(long, value_name = "AGENT", value_parser = agent, help_heading = "Agents")]
    pub reviewer: Option<AgentChoice>,
    /// Who resolves conflicts between workers [default: --backend]
    #[arg(long, value_name = "AGENT", value_parser = agent, help_heading = "Agents")]
    pub integrator: Option<AgentChoice>,
    /// What agents may do unasked: ask, edit or all [default: edit]
    #[arg(long, value_name = "WHAT", value_parser = permissions, help_heading = "Agents")]
    pub permissions: Option<Permissions>,
    /// The same as --permissions all
    #[arg(long, conflicts_with = "permissions", help_heading = "Agents")]
    pub skip_permissions: bool,
    /// A command that must pass; repeatable, run without a shell
    #[arg(long, value_name = "CMD", value_parser = verify, help_heading = "Checks and limits")]
    pub verify: Vec<Check>,
    /// Run a check again even on a tree that it passed on before
    #[arg(long, help_heading = "Checks and limits")]
    pub recheck: bool,
    /// Files that workers may not change; repeatable, a git pathspec
    #[arg(long, value_name = "PATHS", value_parser = text, help_heading = "Checks and limits")]
    pub protect: Vec<String>,
    /// Let workers change protected files; the reviewer is told
    #[arg(long, help_heading = "Checks and limits")]
    pub allow_protected: bool,
    /// Iterations the run may take, at most 4294967295 [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Checks and limits")]
    pub max_iterations: Option<u32>,
    /// Further attempts at a subgoal after its first [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_none, help_heading = "Checks and limits")]
    pub max_task_retries: Option<u32>,
    /// Seconds the run may take
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Checks and limits")]
    pub max_seconds: Option<f64>,
    /// Agent calls the run may make
    #[arg(long, value_name = "N", value_parser = at_least_one_u64, help_heading = "Checks and limits")]
    pub max_agent_calls: Option<u64>,
    /// Tokens the run may use, in and out together
    #[arg(long, value_name = "N", value_parser = at_least_one_u64, help_heading = "Checks and limits")]
    pub max_tokens: Option<u64>,
    /// US dollars the run may cost, as the agents report them
    #[arg(long, value_name = "USD", value_parser = dollars, help_heading = "Checks and limits")]
    pub max_cost: Option<f64>,
    /// Seconds one agent call may take
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Checks and limits")]
    pub timeout: Option<f64>,
    /// Stop at a usage limit instead of waiting until it resets
    #[arg(long, help_heading = "Checks and limits")]
    pub no_wait: bool,
    /// Workers at a time [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Checks and limits")]
    pub jobs: Option<u32>,
    /// One worker at a time
    #[arg(long, conflicts_with = "jobs", help_heading = "Checks and limits")]
    pub sequential: bool,
    /// Iterations without a change before the run is stuck; 0 = never [default: 5]
    #[arg(long, value_name = "N", value_parser = at_least_none, help_heading = "Checks and limits")]
    pub patience: Option<u32>,
}

/// How a run is driven and shown.
#[derive(Clone, Copy, Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub struct Driving {
    /// Return at once and let the run go on by itself
    #[arg(short, long, help_heading = "Output")]
    pub detach: bool,
    /// Ask nothing, even on a terminal
    #[arg(long, help_heading = "Output")]
    pub non_interactive: bool,
    /// Print the result as JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// A line of JSON on stderr for every iteration
    #[arg(long, help_heading = "Output")]
    pub progress: bool,
    /// Show nothing while the run goes on
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}
