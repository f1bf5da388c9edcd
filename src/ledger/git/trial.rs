//! A worktree in which commits of a run are tried.

use std::path::Path;

use super::provision;
use super::repository::Repository;
use super::worktree::{Worktree, place};
use crate::error::Result;
use crate::ledger::{Outfit, Preferences, Wanted};
use crate::run::goal::RunId;

/// A checkout to try commits in. No worker uses it, and its files are not kept.
pub struct Trial<'a> {
    repo: &'a Repository,
    worktree: Worktree,
}

impl<'a> Trial<'a> {
    /// Makes the worktree at `commit`.
    pub fn make(repo: &'a Repository, run: &RunId, preferences: &Preferences, commit: &str) -> Result<Self> {
        let path = place(repo, run, preferences)?.with_added_extension("bisect");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { repo, worktree: Worktree::make(repo, run, &path, commit, threads)? })
    }

    /// Returns the directory of its files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.worktree.path
    }

    /// Checks `commit` out. Ignored files stay, so that a new build reuses the old one's output.
    pub fn switch(&self, commit: &str) -> Result<()> {
        let git = |verb| self.worktree.git(verb);
        git("reset").args(["-q", "--hard"]).run()?;
        git("clean").arg("-ffdq").run()?;
        git("checkout").args(["-q", "--detach"]).id(Repository::id(commit)?).run().map(|_| ())
    }

    /// Copies files into it as into a worktree of `run`, and fills submodules; existing files stay.
    pub fn provision(&self, run: &RunId, wanted: &Wanted<'_>) -> Result<Outfit> {
        provision::provision_worktree(self.repo, run, &self.worktree, wanted)
    }

    /// Removes the worktree.
    pub fn remove(self) -> Result<()> {
        self.worktree.remove(self.repo)
    }
}
