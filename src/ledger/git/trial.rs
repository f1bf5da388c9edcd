//! A worktree that no run works in: where commits of one are tried.

use std::path::Path;

use super::provision;
use super::repository::Repository;
use super::worktree::{Worktree, place};
use crate::error::Result;
use crate::ledger::{Outfit, Preferences, Wanted};
use crate::run::goal::RunId;

/// A checkout to try commits in, apart from the run's own: nobody works in it, and what it holds is nobody's.
pub struct Trial<'a> {
    repo: &'a Repository,
    worktree: Worktree,
}

impl<'a> Trial<'a> {
    /// Makes it stand at `commit`.
    pub fn make(repo: &'a Repository, run: &RunId, preferences: &Preferences, commit: &str) -> Result<Self> {
        let path = place(repo, run, preferences)?.with_added_extension("bisect");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { repo, worktree: Worktree::make(repo, run, &path, commit, threads)? })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.worktree.path
    }

    /// Brings it to `commit`. Files that git ignores stay: what a build left makes the next one quick.
    pub fn switch(&self, commit: &str) -> Result<()> {
        let git = |verb| self.worktree.git(verb);
        git("reset").args(["-q", "--hard"]).run()?;
        git("clean").arg("-ffdq").run()?;
        git("checkout").args(["-q", "--detach"]).id(Repository::id(commit)?).run().map(|_| ())
    }

    /// Brings what a worktree of `run` gets of the user's checkout; what is there already stays, and submodules follow.
    pub fn provision(&self, run: &RunId, wanted: &Wanted<'_>) -> Result<Outfit> {
        provision::bring(self.repo, run, &self.worktree, wanted)
    }

    /// Removes it.
    pub fn remove(self) -> Result<()> {
        self.worktree.remove(self.repo)
    }
}
