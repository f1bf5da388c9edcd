//! What a place gets beside the files that git keeps, so that work can begin in it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::error::Result;

/// The part of a ledger that makes places fit to work in. Called from several threads at once, one a place.
pub trait Provision {
    /// Brings what `wanted` names of the user's checkout, and its submodules, into a place that was made or is used
    /// again; what is there already stays. What could not be brought is said, and nobody else's work is held up by it.
    ///
    /// # Errors
    /// Where the place cannot be written.
    fn provision(&self, place: &Path, wanted: &Wanted<'_>) -> Result<Outfit>;

    /// Files in `place` that differ from what is committed there, those that git does not know included.
    ///
    /// # Errors
    /// Where the place cannot be looked at.
    fn uncommitted(&self, place: &Path) -> Result<BTreeSet<String>>;

    /// Puts down that every setup command of the user's was through in `place` when it held `tree`; without a tree, that
    /// they are about to run.
    ///
    /// # Errors
    /// Where it cannot be put down.
    fn set_up(&self, place: &Path, tree: Option<&str>) -> Result<()>;

    /// The tree that `place` held when it was last set up; empty where an older version set it up.
    ///
    /// # Errors
    /// Where the place is gone.
    fn set_up_on(&self, place: &Path) -> Result<Option<String>>;

    /// Removes from `place` every file that git ignores, with the knowledge of what it was made fit with.
    ///
    /// # Errors
    /// Where a file cannot be removed.
    fn strip(&self, place: &Path) -> Result<()>;
}

/// What a place is to get.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Ignored files of the user's checkout, as patterns of gitignore(5).
    pub copy: &'a [String],
    /// Asked again and again: whether to go on.
    pub go_on: &'a (dyn Fn() -> bool + Sync),
}

/// What a place has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outfit {
    /// Files that were copied.
    pub copied: u64,
    /// What could not be brought, in words.
    pub remarks: Vec<String>,
    /// Whether the user's setup commands were all through here once.
    pub set_up: bool,
}
