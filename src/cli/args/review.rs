//! Arguments of verbs that show a run's work.

use clap::Args;

use super::value::{at_least_one, text};

pub const SHOW_EXAMPLES: &str = "\
Examples:
  git agentloop show
  git agentloop show fix-login-3k9vqp --patch";

pub const LOG_EXAMPLES: &str = "\
Examples:
  git agentloop log
  git agentloop log fix-login-3k9vqp --graph --stat
  git agentloop log --oneline --no-notes

Whatever follows is git log's own: options, revisions, '--' and paths. After an
option, a run is known by its whole id; without one, the newest is meant.";

pub const DIFF_EXAMPLES: &str = "\
Examples:
  git agentloop diff
  git agentloop diff fix-login-3k9vqp --iteration 2 --stat
  git agentloop diff fix-login-3k9vqp -- src

Whatever follows is git diff's own: options, '--' and paths.";

/// Options of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Show the patch too
    #[arg(short, long, conflicts_with = "json")]
    pub patch: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `log`.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// The run's id or its beginning, and what git log takes
    #[arg(value_name = "RUN|ARG", trailing_var_arg = true, allow_hyphen_values = true, value_parser = text)]
    pub words: Vec<String>,
}

/// Options of `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Only what this iteration changed
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>)]
    pub iteration: Option<u32>,
    /// The run's id or its beginning, and what git diff takes
    #[arg(value_name = "RUN|ARG", trailing_var_arg = true, allow_hyphen_values = true, value_parser = text)]
    pub words: Vec<String>,
}
