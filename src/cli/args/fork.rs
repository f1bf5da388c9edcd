//! What `steer` and `fork` take.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::run::{Common, Driving};
use super::value::text;

pub const STEER_EXAMPLES: &str = "\
Example:
  git agentloop steer fix-login-3k9vqp \"leave the public API as it is\"

It is on record at once ('tail' shows it), and part of what the next iteration
is planned from.";

pub const FORK_EXAMPLES: &str = "\
Examples:
  git agentloop fork fix-login-3k9vqp@2 --goal \"the same with sessions\"
  git agentloop fork fix-login-3k9vqp --backend codex --max-iterations 8";

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
    /// The run, and the iteration to go on from [default: the newest of the newest run]
    #[arg(value_name = "RUN[@N]", value_parser = text)]
    pub run: Option<String>,
    /// Another goal [default: the same]
    #[arg(long, value_name = "TEXT", value_parser = text)]
    pub goal: Option<String>,
    /// Read the goal from a file; '-' is stdin
    #[arg(short = 'F', long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "goal")]
    pub goal_file: Option<PathBuf>,
    /// Other criteria [default: the same, where the goal is]
    #[arg(long, value_name = "TEXT", value_parser = text)]
    pub criteria: Option<String>,
    /// What to call the run [default: words of the goal]
    #[arg(long, value_parser = text)]
    pub name: Option<String>,
    /// What may change.
    #[command(flatten)]
    pub common: Common,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}
