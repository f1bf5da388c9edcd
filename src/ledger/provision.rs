//! Files that a worktree needs beside those in git, and the state of its setup.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::Result;

/// Makes worktrees ready for work. Called from several threads at once, but from one for each worktree.
pub trait Provision {
    /// Copies the files that `wanted` names, and submodules, from the user's checkout into a worktree that is new or reused.
    /// Existing files are kept. Failures become remarks and do not stop the work.
    fn provision(&self, place: &Path, wanted: &Wanted<'_>) -> Result<Outfit>;

    /// Lists the files in `place` that differ from its commit, untracked files included.
    fn uncommitted(&self, place: &Path) -> Result<BTreeSet<String>>;

    /// Records that all setup commands of the user succeeded in `place` when it held `tree`, or, without a tree, that they
    /// are about to run.
    fn set_up(&self, place: &Path, tree: Option<&str>) -> Result<()>;

    /// Returns the tree that `place` held at its last setup; empty if an older version set it up.
    fn set_up_on(&self, place: &Path) -> Result<Option<String>>;

    /// Removes all ignored files from `place`, with the record of its setup.
    fn strip(&self, place: &Path) -> Result<()>;
}

/// Files that a worktree is to get.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Ignored files of the user's checkout, as patterns of gitignore(5).
    pub copy: &'a [String],
    /// Asked repeatedly; copying stops once it returns false.
    pub go_on: &'a (dyn Fn() -> bool + Sync),
}

/// Result of [`Provision::provision`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outfit {
    /// Files that were copied.
    pub copied: u64,
    /// Messages on what could not be copied.
    pub remarks: Vec<String>,
    /// True if all setup commands of the user have succeeded here once.
    pub set_up: bool,
}
