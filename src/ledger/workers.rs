//! Where the workers of one iteration work apart, and how what they leave is joined again.

use std::fmt;
use std::path::PathBuf;

use super::Tree;
use crate::error::Result;

/// The part of a run's workspace in which workers are kept from each other. Called from several threads at once; a task
/// has one worker at a time.
pub trait Workers: Send + Sync {
    /// Whether transcripts of calls are kept, while they are written and afterwards.
    fn keeps_output(&self) -> bool {
        true
    }

    /// Makes a place for a task's worker stand. A task that was begun goes on where it was left, edits included; any
    /// other begins at `opening.tip`, with `opening.earlier` merged into it where that goes without a conflict.
    ///
    /// # Errors
    /// Where no place can be made.
    fn open_place(&self, opening: &Opening<'_>) -> Result<Place>;

    /// Commits what a task's worker left in its place, on top of the commits that it made itself.
    ///
    /// # Errors
    /// Where it cannot be committed; it is then still in its place.
    fn close_place(&self, leaving: &Leaving<'_>) -> Result<Left>;

    /// Commits what a task's worker left in its place, where nobody works any more; the commit that holds its work, where that
    /// is not in the history of `tip`.
    ///
    /// # Errors
    /// Where it cannot be committed; it is then still in its place.
    fn left_behind(&self, task: &Task, tip: &str) -> Result<Option<String>>;

    /// Merges a worker's commit into what is integrated so far. No file is touched.
    ///
    /// # Errors
    /// Where the merge cannot be made; that it conflicts is none.
    fn merge(&self, merging: &Merging<'_>) -> Result<Merged>;

    /// Makes a place stand in which that merge is under way, its conflicts marked in the files. What an integrator left
    /// that came to an end of its own is gone on from; what one left that did not is kept and made anew.
    ///
    /// # Errors
    /// Where no place can be made.
    fn open_conflict(&self, task: &Task, merging: &Merging<'_>) -> Result<Place>;

    /// Commits what was made of a conflict, and says where it is still open.
    ///
    /// # Errors
    /// Where it cannot be committed.
    fn close_conflict(&self, resolving: &Resolving<'_>) -> Result<Resolution>;

    /// Makes a place in which an agent is to read: it holds no file that git ignores, and nothing that the reader before left.
    ///
    /// # Errors
    /// Where no place can be made.
    fn open_reader(&self, reading: &Reading<'_>) -> Result<Reader>;

    /// Files that a reader changed in its place, and what was noticed; what it left stays reachable.
    ///
    /// # Errors
    /// Where the place cannot be read.
    fn close_reader(&self, reader: &Reader, tip: &str) -> Result<(Vec<String>, Vec<String>)>;

    /// Makes what `task`'s worker left uncommitted in the run's own workspace, as workers of older versions did, the start of
    /// its place, and restores the workspace to `tip`.
    ///
    /// # Errors
    /// Where it cannot be committed; it is then still there.
    fn hand_over(&self, task: &Task, tip: &str) -> Result<()>;

    /// Brings the run's own workspace, which held `from`, to `to`. What else has changed in it since stays; where it
    /// cannot, it is kept apart and named in the remarks.
    ///
    /// # Errors
    /// Where the workspace cannot be changed.
    fn advance(&self, from: &str, to: &str) -> Result<Tree>;
}

/// A subgoal of an iteration. `iter2/s1` in refs and paths.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Task {
    /// The iteration, from 1.
    pub iteration: u32,
    /// The subgoal's id.
    pub subgoal: String,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "iter{}/{}", self.iteration, self.subgoal)
    }
}

/// What a reader is to read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The run's newest commit.
    pub tip: &'a str,
    /// The tree.
    pub tree: &'a str,
    /// Files of it that are shown as they are in another tree.
    pub shown_from: Option<(&'a str, &'a [String])>,
}

/// Where a reader reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its directory.
    pub path: PathBuf,
    /// The tree that it holds.
    pub tree: String,
}

/// A place to open.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// Whose it is.
    pub task: &'a Task,
    /// The run's newest commit.
    pub tip: &'a str,
    /// Work of an iteration before on the same subgoal that was not merged.
    pub earlier: Option<&'a str>,
}

/// Where a worker works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its directory.
    pub path: PathBuf,
    /// Its number in the run, from 1: no two places that stand at once have the same.
    pub number: u32,
}

/// A worker that has come to an end.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'a> {
    /// Its task.
    pub task: &'a Task,
    /// The run's newest commit when it began.
    pub tip: &'a str,
    /// The message of the commit to make.
    pub message: &'a str,
    /// Whether nobody goes on in this place: others may have it.
    pub settled: bool,
}

/// What a worker left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The commit that holds all of it; none where it changed nothing.
    pub commit: Option<String>,
    /// What was noticed, in words.
    pub remarks: Vec<String>,
    /// Why nothing can be made of it: the place is gone.
    pub lost: Option<String>,
}

/// A merge to make: into `tree`, whose history is `tip` and what was `merged` since.
#[derive(Clone, Copy, Debug)]
pub struct Merging<'a> {
    /// The run's newest commit.
    pub tip: &'a str,
    /// What is integrated since.
    pub merged: &'a [String],
    /// What the workspace is with that.
    pub tree: &'a str,
    /// The worker's commit.
    pub commit: &'a str,
}

/// How a merge went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Into this tree.
    Clean(String),
    /// It conflicts at these paths.
    Conflict(Vec<String>),
}

/// A conflict whose integrator has come to an end.
#[derive(Clone, Copy, Debug)]
pub struct Resolving<'a> {
    /// The task whose work conflicts.
    pub task: &'a Task,
    /// The merge.
    pub merging: &'a Merging<'a>,
    /// Where it conflicts.
    pub paths: &'a [String],
    /// The message of the commit to make.
    pub message: &'a str,
    /// Whether the end was the integrator's own: the files of one that was stopped may be half-written.
    pub ended: bool,
}

/// What was made of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The merge's commit.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// Why it is no resolution, where it is none.
    pub open: Option<String>,
    /// What was noticed, in words.
    pub remarks: Vec<String>,
}
