//! Arguments of `hooks`.

use clap::{Args, Subcommand};

use super::value::text;

pub const EXAMPLES: &str = "\
Examples:
  git agentloop hooks install
  git agentloop hooks status

prepare-commit-msg names the run in a merge or squash of its branch; pre-push
sends the record of what is pushed ('git config agentloop.pushNotes false'
turns that off; git tells no hook of --dry-run: add --no-verify to it);
post-rewrite takes events along through amend and rebase.
A hook of yours is never edited: the line to add to it is printed.";

/// Options of `hooks`.
#[derive(Debug, Args)]
pub struct HooksArgs {
    /// What to do with them.
    #[command(subcommand)]
    pub verb: HooksVerb,
}

/// What to do with hooks.
#[derive(Debug, Subcommand)]
pub enum HooksVerb {
    /// Put them in place
    #[command(after_help = "Example:\n  git agentloop hooks install")]
    Install {
        /// For every repository of yours (git 2.54 or newer)
        #[arg(long)]
        global: bool,
    },
    /// Take them away, without a trace
    #[command(after_help = "Example:\n  git agentloop hooks uninstall")]
    Uninstall {
        /// For every repository of yours
        #[arg(long)]
        global: bool,
    },
    /// How they stand
    #[command(after_help = "Example:\n  git agentloop hooks status --json")]
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What a hook is called with.
#[derive(Debug, Args)]
pub struct HookArgs {
    /// The event, and what git says to it
    #[arg(value_name = "EVENT", trailing_var_arg = true, allow_hyphen_values = true, required = true, value_parser = text)]
    pub words: Vec<String>,
}
