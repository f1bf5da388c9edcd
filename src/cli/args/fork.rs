//! Arguments of `steer`, `fork` and `bisect`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::flags::Flags;
use super::run::Driving;
use super::value::{command, text, value};
use crate::run::goal::{Check, Isolation};

pub const STEER_EXAMPLES: &str = "\
Example:
  git agentloop steer fix-login-3k9vqp \"leave the public API as it is\"

It is on record at once ('tail' shows it), and part of what the next iteration
is planned from. Where the goal is reached without it, and the budget has an
iteration left, there is one more.";

pub const FORK_EXAMPLES: &str = "\
Examples:
  git agentloop fork fix-login-3k9vqp@2 \"the same with sessions\"
  git agentloop fork fix-login-3k9vqp --backend codex --max-iterations 8
  git agentloop fork @ \"then mend the docs\"            @ is the newest run

What is not given is as the other run has it.";

pub const BISECT_EXAMPLES: &str = "\
Example:
  git agentloop bisect fix-login-3k9vqp --verify \"cargo test\"

The check runs on a few of the run's commits, in a worktree of its own. Exit
code 0: an iteration broke it; 1: none did. A check that exits with 125 says
that it cannot judge a commit.";

/// Options of `bisect`.
#[derive(Debug, Args)]
pub struct BisectArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// The command that must pass [default: agentloop.verify]
    #[arg(long, value_name = "CMD", value_parser = command)]
    pub verify: Option<Check>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `steer`.
#[derive(Debug, Args)]
pub struct SteerArgs {
    /// The run's id or its beginning
    #[arg(value_parser = text)]
    pub run: String,
    /// What the next plan must hear
    #[arg(value_name = "TEXT", required = true, value_parser = text)]
    pub text: Vec<String>,
}

/// Options of `fork`.
#[derive(Debug, Args)]
pub struct ForkArgs {
    /// The run, and the iteration to go on from; '@' is the newest run [default: the newest of it]
    #[arg(value_name = "RUN[@N]", value_parser = text)]
    pub run: Option<String>,
    /// Another goal; '-' reads it from stdin [default: the same]
    #[arg(value_parser = text)]
    pub goal: Option<String>,
    /// Read the goal from a file; '-' is stdin
    #[arg(short = 'F', long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "goal")]
    pub goal_file: Option<PathBuf>,
    /// Other criteria [default: the same, where the goal is]
    #[arg(long, value_name = "TEXT", value_parser = text)]
    pub criteria: Option<String>,
    /// What to call the run; its id where that is free [default: words of the goal]
    #[arg(long, value_parser = text)]
    pub name: Option<String>,
    /// What may change.
    #[command(flatten)]
    pub options: Flags<false>,
    /// Where workers work: worktree (each its own), shared, or none
    #[arg(long, value_name = "WHAT", value_parser = value::<Isolation>)]
    pub isolation: Option<Isolation>,
    /// Permit everything even in your checkout
    #[arg(long)]
    pub force: bool,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}
