//! The record and the workspace of a run, as its driver uses them.
//!
//! [`Ledger`] is synchronous: a flush costs about a millisecond. `git` is the real implementation, `memory` the one of
//! tests.

pub mod git;
pub mod memory;
mod preferences;
mod provision;
mod workers;

use std::path::PathBuf;

pub use self::preferences::{Cleanup, Durability, Home, Output, Preferences};
pub use self::provision::{Outfit, Provision, Wanted};
pub use self::workers::{
    Leaving, Left, Merged, Merging, Opening, Place, Reader, Reading, Resolution, Resolving, Task, Workers,
};

use crate::error::Result;
use crate::run::Snapshot;
use crate::run::event::Event;

/// Name of the file in a run's folder that lists the processes of its driver.
pub const PROCESSES: &str = "processes";

/// The record and the workspace of one run. There is one writer: the driver that holds the run's lock.
pub trait Ledger: Workers + Provision {
    /// Appends `batch` and returns once the record holds it. The first batch opens the run: before it there is no branch to
    /// commit on.
    ///
    /// # Errors
    /// Fails if the record cannot be written; then none of the batch is on it.
    fn append(&self, batch: &Batch<'_>) -> Result<()>;

    /// Returns all recorded events in order.
    fn events(&self) -> Result<Vec<Event>>;

    /// Reports the changes that other programs made to the record since the last call. Events that they removed are
    /// restored.
    fn tampering(&self) -> Vec<String> {
        Vec::new()
    }

    /// Rewrites the record as this driver appended it if another program changed it since. The driver calls this at its end.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Starts to observe what agents must not change: the repository's settings, hooks and refs, and the user's checkout if
    /// it is not the workspace. If the previous driver was killed, harmful changes that it had observed are reverted. On a
    /// second call no agent has run since the last [`Ledger::mend`]: harmful changes are then the user's and are kept.
    fn guard(&self) -> Result<()>;

    /// Ensures that this driver still holds the run's lock. Costs microseconds and is called often.
    ///
    /// # Errors
    /// Fails if another driver has taken over the run: this one must stop.
    fn keep(&self) -> Result<()>;

    /// Records the harmful changes seen so far, so that the next driver reverts them if this one is killed. Changes that the
    /// user makes afterwards are kept. Costs microseconds and is called often.
    fn notice(&self) -> Result<()>;

    /// Reverts harmful changes and reports them. The driver calls this when an agent, or a command that runs what agents
    /// wrote, has ended, and before git or another program reads what they left.
    fn mend(&self) -> Result<Vec<String>>;

    /// Ends the observation: no worker is running, and later changes are the user's.
    fn stand_down(&self);

    /// Opens the workspace, or makes it, and reports whether it held work of an earlier driver.
    fn workspace(&self) -> Result<Workspace>;

    /// Takes commits that a person put on the run's branch on top of `tip` into branch and workspace.
    ///
    /// # Errors
    /// Fails if the branch no longer contains `tip`, or is gone: a branch that a person moved is never overwritten.
    fn adopt(&self, tip: &str) -> Result<Option<Adopted>>;

    /// Writes the workspace as a tree object, without touching HEAD, the branch or the user's index.
    fn write_tree(&self) -> Result<Tree>;

    /// Commits a tree on the run's branch, on top of `draft.tip`. Events that are appended afterwards are noted on this
    /// commit, so events from before it must have been appended already.
    ///
    /// # Errors
    /// Fails if the branch is not at `draft.tip`.
    fn commit(&self, draft: &Draft<'_>) -> Result<Committed>;

    /// Stores a transcript under `path` (`iter1/s1/1.out`), outside the log.
    fn store_output(&self, path: &str, content: &[u8]) -> Result<()>;

    /// Returns the difference between two trees or commits as a patch of at most `limit` bytes. Files that do not fit are
    /// left out whole and named in a stat. If `paths` is not empty, only those files are compared.
    fn diff(&self, from: &str, to: &str, paths: &[String], limit: usize) -> Result<String>;

    /// Lists the files that match `pathspecs` and differ between two trees, sorted.
    fn protected(&self, from: &str, tree: &str, pathspecs: &[String]) -> Result<Vec<String>>;

    /// Returns the content of the file at `path` in a tree; `None` if there is no file.
    fn content(&self, tree: &str, path: &str) -> Result<Option<Vec<u8>>>;

    /// Restores `paths` of the workspace, which was just written as `tree`, to their state in `from`, and returns the tree
    /// of the workspace afterwards. Their previous content stays reachable.
    fn take_back(&self, from: &str, tree: &str, paths: &[String]) -> Result<Tree>;

    /// Restores the workspace, except ignored files, to the tree that was last written of it, since changes by setup and
    /// checks are not work. Returns the paths that differed; a folder of new files ends with a slash.
    fn restore(&self, tree: &str) -> Result<Vec<String>>;

    /// Lists the files of the workspace that changed after the newest [`Ledger::write_tree`].
    fn changed_since_tree(&self) -> Result<Vec<String>>;

    /// Keeps the workspace, or removes it without losing anything, as the run's settings demand.
    ///
    /// # Errors
    /// Fails if the workspace cannot be removed; it is then still there.
    fn close(&self) -> Result<()>;

    /// Returns the directory of the run's live files, such as transcripts being written. It is not part of the record and is
    /// removed with the run.
    fn scratch(&self) -> PathBuf;
}

/// Events to append, and the state after them.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The events, in order.
    pub events: &'a [Event],
    /// The state after the last of them.
    pub snapshot: &'a Snapshot,
    /// True if the batch must survive a power cut.
    pub durable: bool,
}

/// The directory in which agents work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its directory.
    pub path: PathBuf,
    /// Its state when the driver opened it.
    pub found: Found,
    /// Uncommitted changes of the user's checkout, in a commit of their own on the run's branch, if the run works there.
    pub before: Option<Adopted>,
}

/// State of the workspace when a driver opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It did not exist and was made from the run's newest commit.
    Made,
    /// It existed; uncommitted edits were kept.
    Kept,
}

/// Commits on the run's branch that no event records, taken into the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The newest of them, which is the run's new tip.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// Its message. If a driver died before it recorded its own checkpoint, the trailers identify that commit.
    pub message: String,
}

/// A workspace as a tree object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The tree's id.
    pub id: String,
    /// Messages on what could not be captured exactly.
    pub remarks: Vec<String>,
}

/// A commit to make.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// The commit that the branch is at.
    pub tip: &'a str,
    /// The tree to commit.
    pub tree: &'a str,
    /// Subject, body and trailers.
    pub message: &'a str,
    /// Workers' commits that become further parents.
    pub merged: &'a [String],
}

/// A commit that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The commit's id.
    pub commit: String,
    /// Files that differ from its first parent.
    pub changed: u64,
    /// Messages on commits kept on a rescue ref, and on forbidden changes that were seen meanwhile.
    pub remarks: Vec<String>,
}
