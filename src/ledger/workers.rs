//! The worktrees in which the workers of one iteration work apart, and the merging of their commits.

use std::fmt;
use std::path::PathBuf;

use super::Tree;
use crate::error::Result;

/// Worktrees that separate workers from each other. Called from several threads at once; a task has one worker at a time.
pub trait Workers: Send + Sync {
    /// Reports whether transcripts of calls are kept, while they are written and afterwards.
    fn keeps_output(&self) -> bool {
        true
    }

    /// Opens a worktree for the worker of a task. A task that was begun continues with its commits and edits. Any other
    /// starts at `opening.tip`, with `opening.earlier` merged into it if that causes no conflict.
    fn open_place(&self, opening: &Opening<'_>) -> Result<Place>;

    /// Commits the changes in the worktree of a task's worker, on top of the worker's own commits.
    ///
    /// # Errors
    /// Fails if the work cannot be committed; it is then still in its place.
    fn close_place(&self, leaving: &Leaving<'_>) -> Result<Left>;

    /// Commits the changes in the worktree of a task whose worker has ended. Returns the commit that holds its work, unless
    /// the history of `tip` contains it.
    ///
    /// # Errors
    /// Fails if the work cannot be committed; it is then still in its place.
    fn left_behind(&self, task: &Task, tip: &str) -> Result<Option<String>>;

    /// Merges a worker's commit into the tree integrated so far. No file is touched.
    ///
    /// # Errors
    /// Fails if git cannot merge. A conflict is no error.
    fn merge(&self, merging: &Merging<'_>) -> Result<Merged>;

    /// Opens a worktree in which `merging` is under way, with conflict markers in the files. Edits of an integrator that
    /// ended by itself are continued; those of one that was stopped are kept in a commit and the merge is made anew.
    fn open_conflict(&self, task: &Task, merging: &Merging<'_>) -> Result<Place>;

    /// Commits the resolution of a conflict, and reports where conflicts remain.
    fn close_conflict(&self, resolving: &Resolving<'_>) -> Result<Resolution>;

    /// Makes a worktree for an agent that only reads. It holds no ignored files and nothing that an earlier reader left.
    fn open_reader(&self, reading: &Reading<'_>) -> Result<Reader>;

    /// Lists the files that a reader changed, and messages on them. The reader's changes stay reachable.
    fn close_reader(&self, reader: &Reader, tip: &str) -> Result<(Vec<String>, Vec<String>)>;

    /// Moves uncommitted work of `task` from the run's own workspace, where workers of older versions left it, into a
    /// worktree of its own, and restores the workspace to `tip`.
    ///
    /// # Errors
    /// Fails if the work cannot be committed; it is then still there.
    fn hand_over(&self, task: &Task, tip: &str) -> Result<()>;

    /// Brings the run's own workspace from `from` to `to`. Other changes in it are kept; those that would be overwritten are
    /// kept in a tree that the remarks name.
    fn advance(&self, from: &str, to: &str) -> Result<Tree>;
}

/// A subgoal of an iteration, `iter2/s1` in refs and paths.
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

/// Request for a reader's worktree.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The run's newest commit.
    pub tip: &'a str,
    /// The tree to read.
    pub tree: &'a str,
    /// Files of it that are shown as they are in another tree.
    pub shown_from: Option<(&'a str, &'a [String])>,
}

/// Worktree of a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its directory.
    pub path: PathBuf,
    /// The tree that it holds.
    pub tree: String,
}

/// Request for a worker's worktree.
#[derive(Clone, Copy, Debug)]
pub struct Opening<'a> {
    /// The task of the worker.
    pub task: &'a Task,
    /// The run's newest commit.
    pub tip: &'a str,
    /// Unmerged work of an earlier iteration on the same subgoal.
    pub earlier: Option<&'a str>,
}

/// Worktree of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its directory.
    pub path: PathBuf,
    /// Its number in the run, from 1. No two open worktrees have the same.
    pub number: u32,
}

/// A worker that has ended, whose work is to be committed.
#[derive(Clone, Copy, Debug)]
pub struct Leaving<'a> {
    /// Its task.
    pub task: &'a Task,
    /// The run's newest commit when it began.
    pub tip: &'a str,
    /// The message of the commit to make.
    pub message: &'a str,
    /// True if the worktree is free for other tasks afterwards.
    pub settled: bool,
}

/// Work of a worker that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// The commit that holds all of it; `None` if it changed nothing.
    pub commit: Option<String>,
    /// Messages for the run's report.
    pub remarks: Vec<String>,
    /// The reason why the work is lost, if the worktree is gone.
    pub lost: Option<String>,
}

/// A merge to make into `tree`, whose history is `tip` and `merged`.
#[derive(Clone, Copy, Debug)]
pub struct Merging<'a> {
    /// The run's newest commit.
    pub tip: &'a str,
    /// Commits integrated since.
    pub merged: &'a [String],
    /// The tree of the workspace with them.
    pub tree: &'a str,
    /// The worker's commit.
    pub commit: &'a str,
}

/// Result of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merged {
    /// It succeeded with this tree.
    Clean(String),
    /// It conflicts at these paths.
    Conflict(Vec<String>),
}

/// A conflict whose integrator has ended.
#[derive(Clone, Copy, Debug)]
pub struct Resolving<'a> {
    /// The task whose work conflicts.
    pub task: &'a Task,
    /// The merge.
    pub merging: &'a Merging<'a>,
    /// The paths that conflict.
    pub paths: &'a [String],
    /// The message of the commit to make.
    pub message: &'a str,
    /// True if the integrator ended by itself. Files of one that was stopped may be half-written.
    pub ended: bool,
}

/// Result of an integrator's work on a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The merge's commit.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// The reason why the conflict is not resolved, if it is not.
    pub open: Option<String>,
    /// Messages for the run's report.
    pub remarks: Vec<String>,
}
