//! Arguments of verbs that read a run.

use clap::Args;

use super::value::{at_least_one, text, value};
use crate::run::amount::Seconds;

pub const STATUS_EXAMPLES: &str = "\
Examples:
  git agentloop status fix-login-3k9vqp --json
  git agentloop status --short      for a prompt: nothing where there is no run

--porcelain is a line a fact, '<name> <value>', and only ever gets more lines.";

pub const LIST_EXAMPLES: &str = "\
Examples:
  git agentloop list
  git agentloop list --porcelain | cut -f1

--porcelain is a line a run: id, state, iteration, of, started, updated (seconds
since 1970), merged (0 or 1) and goal, with tabs between them.";

/// Options of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// In a few characters, for a prompt
    #[arg(short, long, conflicts_with_all = ["json", "porcelain"])]
    pub short: bool,
    /// In a format that stays as it is
    #[arg(long, conflicts_with = "json")]
    pub porcelain: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// In a format that stays as it is
    #[arg(long, conflicts_with = "json")]
    pub porcelain: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Go on until the run ends
    #[arg(short, long)]
    pub follow: bool,
    /// Start after this event
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cursor: u64,
    /// Print at most this many events
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>)]
    pub limit: Option<usize>,
    /// Print JSON; with -f, one event a line
    #[arg(long)]
    pub json: bool,
}

/// Options of `result`.
#[derive(Debug, Args)]
pub struct ResultArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Wait until the run ends, or waits for answers
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this many seconds, or 10m, 2h
    #[arg(long, value_name = "S", requires = "wait", value_parser = value::<Seconds>)]
    pub timeout: Option<Seconds>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `output`.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// The worker, like iter1/s1 or iter1/s1/2 for its second attempt, or the
    /// check, like iter1/check1
    #[arg(value_name = "ITER/NAME", value_parser = text)]
    pub which: Option<String>,
    /// Go on while the worker or check runs
    #[arg(short, long)]
    pub follow: bool,
    /// Print the bytes as they are kept, not an agent's stream as text
    #[arg(long)]
    pub raw: bool,
    /// Print JSON
    #[arg(long, conflicts_with_all = ["follow", "raw"])]
    pub json: bool,
}
