//! Seam 3: a run's record and its workspace, as its driver uses them.
//!
//! [`Ledger`] is synchronous: a flush costs about a millisecond. Implementations: `memory` for tests, `git` for real.

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

/// The file in a run's folder that names the processes of its driver.
pub const PROCESSES: &str = "processes";

/// One run's record and workspace. There is one writer: the driver that holds the run's lock.
pub trait Ledger: Workers + Provision {
    /// Appends `batch` and returns once the record holds it. The first one opens the run: before it there is no branch to
    /// commit on.
    ///
    /// # Errors
    /// Where the record could not be written; then none of the batch is on it.
    fn append(&self, batch: &Batch<'_>) -> Result<()>;

    /// Everything recorded, in order.
    ///
    /// # Errors
    /// Where the record cannot be read.
    fn events(&self) -> Result<Vec<Event>>;

    /// What other programs did to the record since the last call, in words: what they removed is back on it.
    fn tampering(&self) -> Vec<String> {
        Vec::new()
    }

    /// Makes the record what this driver appended, should another program have changed it since: to be called at the end.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Begins to watch what agents have no business with: the repository's settings, hooks and refs, and the user's checkout
    /// where that is not the workspace. Where the driver before was killed, what it saw change of what could harm is put
    /// back. Called again, nobody was at work since the last [`Ledger::mend`]: what could harm and has changed is the
    /// user's, and stays.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    fn guard(&self) -> Result<()>;

    /// Makes sure that no other driver can take the run over meanwhile. To be called often; it costs microseconds.
    ///
    /// # Errors
    /// Where another driver has the run: this one must stop.
    fn keep(&self) -> Result<()>;

    /// Writes down what has changed of what could harm, for the next driver to know should this one be killed: what the
    /// user changes after that stays. To be called often; it costs microseconds.
    ///
    /// # Errors
    /// Where it cannot be written down.
    fn notice(&self) -> Result<()>;

    /// Puts back what has changed of what could harm before anybody reads of it: to be called when an agent, or a command
    /// that runs what agents wrote, has come to its end, and before git looks at what they left. What was put back, in words.
    ///
    /// # Errors
    /// Where something cannot be put back.
    fn mend(&self) -> Result<Vec<String>>;

    /// Nobody is at work for the run any more, and what changes from here on is the user's.
    fn stand_down(&self);

    /// Makes the place stand where agents work, and says whether it held work of an earlier driver.
    ///
    /// # Errors
    /// Where it cannot be made.
    fn workspace(&self) -> Result<Workspace>;

    /// Takes in commits that a person put on the run's branch on top of `tip`, into branch and workspace.
    ///
    /// # Errors
    /// Where the branch no longer contains `tip`, or is gone: a branch that a person moved is never overwritten.
    fn adopt(&self, tip: &str) -> Result<Option<Adopted>>;

    /// Writes the workspace as a tree object, without touching HEAD, branch or the user's index.
    ///
    /// # Errors
    /// Where the tree cannot be written.
    fn write_tree(&self) -> Result<Tree>;

    /// Commits a tree on the run's branch, on top of `draft.tip`. Events that are appended afterwards are noted on
    /// this commit, so whatever happened before it must have been appended before.
    ///
    /// # Errors
    /// Where the branch does not stand at `draft.tip`, or the commit cannot be made.
    fn commit(&self, draft: &Draft<'_>) -> Result<Committed>;

    /// Keeps a transcript under `path` (`iter1/s1/1.out`), outside the log.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn store_output(&self, path: &str, content: &[u8]) -> Result<()>;

    /// The difference between two trees or commits as a patch, at most `limit` bytes: where it would be longer, files
    /// are left out whole and named in a stat. Of `paths` alone, where there are any.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    fn diff(&self, from: &str, to: &str, paths: &[String], limit: usize) -> Result<String>;

    /// Files that `pathspecs` name, as git pathspecs, and that differ between two trees, sorted.
    ///
    /// # Errors
    /// Where a tree cannot be read.
    fn protected(&self, from: &str, tree: &str, pathspecs: &[String]) -> Result<Vec<String>>;

    /// What the file at `path` holds in a tree; none where there is no file.
    ///
    /// # Errors
    /// Where the tree cannot be read.
    fn content(&self, tree: &str, path: &str) -> Result<Option<Vec<u8>>>;

    /// Brings `paths` of the workspace, whose tree was just written as `tree`, back to what they are in `from`; what they
    /// were stays reachable. The workspace as it is then.
    ///
    /// # Errors
    /// Where the workspace cannot be changed.
    fn take_back(&self, from: &str, tree: &str, paths: &[String]) -> Result<Tree>;

    /// Restores the workspace, ignored files left out, to the tree that was written of it last: what set-up and checks change
    /// is not work. The paths that differed; a folder of new files ends with a slash.
    ///
    /// # Errors
    /// Where the workspace cannot be changed.
    fn restore(&self, tree: &str) -> Result<Vec<String>>;

    /// Files that changed in the workspace after the newest [`Ledger::write_tree`].
    ///
    /// # Errors
    /// Where the workspace cannot be looked at.
    fn changed_since_tree(&self) -> Result<Vec<String>>;

    /// Ends the workspace's life as the run's settings say: keeps it, or removes it without losing anything.
    ///
    /// # Errors
    /// Where it cannot be removed; it is then still there.
    fn close(&self) -> Result<()>;

    /// Where live files of the run go (transcripts being written): not part of the record, removed with the run.
    fn scratch(&self) -> PathBuf;
}

/// Events to append, and the state after them.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The events, in order.
    pub events: &'a [Event],
    /// The fold of everything up to the last of them.
    pub snapshot: &'a Snapshot,
    /// Whether it must survive a power cut.
    pub durable: bool,
}

/// The place where agents work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its directory.
    pub path: PathBuf,
    /// What was found there.
    pub found: Found,
    /// What stood uncommitted in the user's checkout, committed apart on the run's branch, where the run works there.
    pub before: Option<Adopted>,
}

/// What a driver found where the workspace is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing; it was made from the run's newest commit.
    Made,
    /// The workspace, with whatever uncommitted edits it held.
    Kept,
}

/// Commits that are not checkpoints of ours, taken into the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The newest of them: the run's new tip.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// Its message. A commit of ours that no event tells of, because its driver died first, is known by its trailers.
    pub message: String,
}

/// A workspace as a tree object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The tree's id.
    pub id: String,
    /// What could not be captured as it stands, in words.
    pub remarks: Vec<String>,
}

/// A commit to make.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Where the branch stands.
    pub tip: &'a str,
    /// What to commit.
    pub tree: &'a str,
    /// Subject, body and trailers.
    pub message: &'a str,
    /// Workers' commits that are part of it: its further parents.
    pub merged: &'a [String],
}

/// A commit that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The commit's id.
    pub commit: String,
    /// Files that differ from its first parent.
    pub changed: u64,
    /// What was noticed: commits kept on a rescue ref, and what agents have no business with that changed meanwhile.
    pub remarks: Vec<String>,
}
