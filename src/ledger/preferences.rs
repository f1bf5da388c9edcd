//! How a user wants runs kept in a repository: settings that are no option of any one run, and on no record.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::one_of;

/// What a ledger is told by whoever opens it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// What of the record must survive a power cut before the run goes on.
    pub durability: Durability,
    /// When an ended run's worktree is removed.
    pub cleanup: Cleanup,
    /// Whether git signs our commits.
    pub sign: bool,
    /// Whether transcripts of calls are kept.
    pub output: Output,
    /// The folder that worktrees go into; none is one beside the repository.
    pub worktree_dir: Option<PathBuf>,
}

/// What survives a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// What was paid for: agents' answers, checks, checkpoints, the end.
    #[default]
    Answers,
    /// Everything that was acknowledged.
    Always,
    /// What the operating system has written back by then.
    Never,
}

impl Durability {
    /// Whether a batch that holds, or does not hold, something paid for is synced.
    #[must_use]
    pub fn wants(self, paid_for: bool) -> bool {
        self == Self::Always || (self == Self::Answers && paid_for)
    }
}

impl FromStr for Durability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[("answers", Self::Answers), ("always", Self::Always), ("never", Self::Never)])
    }
}

/// What is kept of what agents print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// All of it, without secrets.
    #[default]
    Redacted,
    /// Nothing but their reports.
    None,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[("redacted", Self::Redacted), ("none", Self::None)])
    }
}

/// What becomes of a run's worktree when the run ends. What it holds uncommitted is never lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cleanup {
    /// Kept if the run changed something.
    #[default]
    Auto,
    /// Removed.
    Always,
    /// Kept.
    Never,
}

impl FromStr for Cleanup {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[("auto", Self::Auto), ("always", Self::Always), ("never", Self::Never)])
    }
}

/// The HOME of checks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Home {
    /// The user's.
    #[default]
    Shared,
    /// An empty one, which goes after the checks.
    Private,
}

impl FromStr for Home {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[("shared", Self::Shared), ("private", Self::Private)])
    }
}
