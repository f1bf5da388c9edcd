//! Arguments of verbs that merge or remove runs.

use clap::{ArgGroup, Args};

use super::value::{duration, text, value};
use crate::run::amount::Seconds;
use crate::run::goal::AgentChoice;

pub const MERGE_EXAMPLES: &str = "\
Examples:
  git agentloop merge
  git agentloop merge fix-login-3k9vqp --ff
  git agentloop merge --with-agent --integrator claude_code/opus

One merge commit takes the run, with the goal as its subject and the iterations
behind it ('git log --first-parent' shows only the merge). A run is taken once
its goal is reached and its checks pass; --force takes any. git does it, in your checkout: it stops at conflicts and before it would touch
what you have not committed, and exits as it always does. With --with-agent,
conflicts are resolved in a worktree apart, the run's checks are run on what
comes of it, and your branch is then fast-forwarded to the merge: of your own
hooks, that calls prepare-commit-msg, commit-msg and post-merge.";

pub const DISCARD_EXAMPLES: &str = "\
Examples:
  git agentloop discard fix-login-3k9vqp

Everything but files that git ignores is kept on refs under
refs/agentloop/rescue/RUN/, and 'git agentloop restore RUN' brings it back.";

pub const RESTORE_EXAMPLES: &str = "\
Examples:
  git agentloop restore
  git agentloop restore fix-login-3k9vqp

Branch, record and workers' commits are again what they were; 'resume' makes a
worktree again. With git alone, below the newest TIME of the run:
  git for-each-ref --format='create refs/%(refname:lstrip=5) %(objectname)' \\
    refs/agentloop/rescue/RUN/TIME | git update-ref --stdin";

pub const PRUNE_EXAMPLES: &str = "\
Examples:
  git agentloop prune                      says what would go
  git agentloop prune --older-than 3d --yes

What goes is kept on refs under refs/agentloop/rescue/ first, and 'restore RUN'
brings it back. Files that git ignores go with a worktree.";

/// Options of `merge`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("way").args(["ff", "no_ff", "squash", "rebase"]))]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub struct MergeArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Fast-forward to the run's commits where that is possible
    #[arg(long)]
    pub ff: bool,
    /// Make a merge commit in any case: the default
    #[arg(long)]
    pub no_ff: bool,
    /// Make one commit of everything, without a merge
    #[arg(long)]
    pub squash: bool,
    /// Copy each checkpoint that changed something, without a merge
    #[arg(long)]
    pub rebase: bool,
    /// Take a run that is incomplete, or whose last check failed
    #[arg(long)]
    pub force: bool,
    /// Have an agent resolve conflicts
    #[arg(long, conflicts_with = "edit")]
    pub with_agent: bool,
    /// Which agent that is, as NAME or NAME/MODEL [default: the run's own]
    #[arg(long, value_name = "AGENT", value_parser = value::<AgentChoice>, requires = "with_agent")]
    pub integrator: Option<AgentChoice>,
    /// Edit the message first [default: where you are at a terminal]
    #[arg(short, long, overrides_with = "no_edit")]
    pub edit: bool,
    /// Take the drafted message as it is
    #[arg(long, overrides_with = "edit")]
    pub no_edit: bool,
}

/// Options of `discard`.
#[derive(Debug, Args)]
pub struct DiscardArgs {
    /// The run's id or its beginning
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The run's id or its beginning [default: the one that went last]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `prune`.
#[derive(Debug, Args)]
pub struct PruneArgs {
    /// Only runs that nothing happened to for so long, like 12h or 14d
    #[arg(long, value_name = "AGE", default_value = "14d", value_parser = duration)]
    pub older_than: Seconds,
    /// Do it, instead of saying what would be done
    #[arg(short, long)]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
