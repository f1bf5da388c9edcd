//! Arguments of verbs that drive a run.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::flags::Flags;
use super::value::{text, value};
use crate::run::goal::Isolation;

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
    #[arg(long, value_name = "WHAT", value_parser = value::<Isolation>)]
    pub isolation: Option<Isolation>,
    /// Permit everything even in your checkout
    #[arg(long)]
    pub force: bool,
    /// What may change.
    #[command(flatten)]
    pub options: Flags<false>,
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
    /// What to call the run; its id where that is free [default: words of the goal]
    #[arg(long, value_parser = text)]
    pub name: Option<String>,
    /// The folder that agents and checks start in [default: the current one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cwd: Option<PathBuf>,
    /// Put the agent's questions on record and wait for 'answer'
    #[arg(long, conflicts_with = "non_interactive")]
    pub ask: bool,
    /// Answer the questions of a waiting run, with --answer
    #[arg(long, value_name = "TOKEN", value_parser = text, requires = "answers", conflicts_with_all = ["goal", "goal_file"])]
    pub resume: Option<String>,
    /// The answers, one a question, in order
    #[arg(long = "answer", value_name = "TEXT", num_args = 1.., requires = "resume", value_parser = text)]
    pub answers: Vec<String>,
    /// The options in the table.
    #[command(flatten)]
    pub options: Flags<true>,
    /// Permit everything even in your checkout
    #[arg(long)]
    pub force: bool,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
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
