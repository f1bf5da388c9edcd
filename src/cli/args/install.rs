//! Arguments of `install` and `complete`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::value::text;

pub const EXAMPLES: &str = "\
Examples:
  git agentloop install
  git agentloop install --prefix /usr/local

Then 'git help agentloop' and 'git agentloop run --help' show the manual, and
bash, zsh and fish complete 'git agentloop'.";

/// Options of `install`.
#[derive(Debug, Args)]
pub struct InstallArgs {
    /// For everybody, below this folder, instead of for you
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub prefix: Option<PathBuf>,
    /// Remove them again
    #[arg(long)]
    pub uninstall: bool,
}

/// What `complete` is called with.
#[derive(Debug, Args)]
pub struct CompleteArgs {
    /// The words so far, the one under the cursor last
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_parser = text)]
    pub words: Vec<String>,
}
