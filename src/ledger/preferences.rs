//! Settings of a repository that are not options of a single run and are on no record.

use std::path::PathBuf;
use std::str::FromStr;

use crate::error::one_of;

/// Settings with which a ledger is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// The part of the record that must survive a power cut before the run continues.
    pub durability: Durability,
    /// When an ended run's worktree is removed.
    pub cleanup: Cleanup,
    /// True if git signs the commits of the run.
    pub sign: bool,
    /// The part of the transcripts that is kept.
    pub output: Output,
    /// Folder for worktrees; `None` is one beside the repository.
    pub worktree_dir: Option<PathBuf>,
}

/// The part of the record that survives a power cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Everything that was paid for: agents' answers, checks, checkpoints, the end.
    #[default]
    Answers,
    /// Everything that was acknowledged.
    Always,
    /// As much as the operating system has written back.
    Never,
}

impl Durability {
    /// Reports whether a batch is synced, given whether it holds something paid for.
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

/// The part of the agents' output that is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// All of it, with secrets redacted.
    #[default]
    Redacted,
    /// Only the reports.
    None,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[("redacted", Self::Redacted), ("none", Self::None)])
    }
}

/// Fate of a run's worktree when the run ends. Uncommitted work in it is never lost.
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
    /// An empty one, which is removed after the checks.
    Private,
}

impl FromStr for Home {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, &[("shared", Self::Shared), ("private", Self::Private)])
    }
}
