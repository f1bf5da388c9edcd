//! Arguments of `sync`.

use clap::Args;

use super::value::text;

pub const EXAMPLES: &str = "\
Examples:
  git agentloop sync
  git agentloop sync origin --output

Runs of others show in 'list' like your own, and can be read, forked and
resumed. Where a run went on in two places, both logs are kept and named. One
that was discarded here comes back only once it has gone on elsewhere.";

/// Options of `sync`.
#[derive(Debug, Args)]
pub struct SyncArgs {
    /// The remote [default: the one that 'git fetch' takes]
    #[arg(value_parser = text)]
    pub remote: Option<String>,
    /// Transcripts too (to agentloop.outputRemote, where that is set)
    #[arg(long)]
    pub output: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
