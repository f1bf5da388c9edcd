//! Makes worktrees ready for work: ignored files of the user's checkout, submodules, and the mark of a finished setup.

pub(super) mod clones;
mod copied_files;
mod copy;

use std::collections::BTreeSet;
use std::path::Path;

use gix::bstr::ByteSlice as _;

pub(super) use self::copied_files::{CopiedFiles, PROVISIONED};
use super::GitLedger;
use super::repository::Repository;
use super::tree::submodules;
use super::worktree::Worktree;
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Outfit, Provision, Wanted};
use crate::run::goal::{Isolation, RunId};

/// File in a worktree's git directory that marks a finished setup, with the tree at that time.
const SET_UP: &str = "agentloop-set-up";

impl Provision for GitLedger {
    fn provision(&self, place: &Path, wanted: &Wanted<'_>) -> Result<Outfit> {
        if self.isolation == Isolation::None {
            return Ok(Outfit { set_up: true, ..Outfit::default() });
        }
        provision_worktree(&self.repo, &self.run, &self.worktree_at(place)?, wanted)
    }

    fn uncommitted(&self, place: &Path) -> Result<BTreeSet<String>> {
        if self.isolation == Isolation::None {
            return Ok(BTreeSet::new());
        }
        let paths = self.worktree_at(place)?.git("status").changed_paths("normal", "none")?;
        Ok(paths.iter().map(|path| path.to_str_lossy().into_owned()).collect())
    }

    fn set_up(&self, place: &Path, tree: Option<&str>) -> Result<()> {
        if self.isolation == Isolation::None {
            return Ok(());
        }
        let mark = self.worktree_at(place)?.admin.join(SET_UP);
        let marked = match tree {
            Some(tree) => std::fs::write(mark, tree),
            None => forget(&mark),
        };
        marked.context("the worktree cannot be marked as set up")
    }

    fn set_up_on(&self, place: &Path) -> Result<Option<String>> {
        if self.isolation == Isolation::None {
            return Ok(None);
        }
        let mark = std::fs::read_to_string(self.worktree_at(place)?.admin.join(SET_UP)).ok();
        Ok(mark.map(|tree| Repository::id(tree.trim()).map_or_else(|_| String::new(), |id| id.to_string())))
    }

    fn strip(&self, place: &Path) -> Result<()> {
        if self.isolation == Isolation::None {
            return Ok(());
        }
        let worktree = self.worktree_at(place)?;
        for mark in [SET_UP, PROVISIONED, copied_files::NAME] {
            forget(&worktree.admin.join(mark)).context("the worktree cannot be marked as stripped")?;
        }
        // Forced twice, to clean nested repositories too.
        worktree.git("clean").arg("-ffdXq").works_for(self.repo.common_dir(), &self.run).run().map(|_| ())
    }
}

impl GitLedger {
    /// Counts the files of the user's checkout that a new worktree gets. A nested repository counts as one.
    pub fn would_copy(repo: &Repository, patterns: &[String]) -> Result<usize> {
        repo.work_dir().map_or(Ok(0), |checkout| copy::found(repo, checkout, patterns).map(|found| found.len()))
    }

    fn worktree_at(&self, place: &Path) -> Result<Worktree> {
        Worktree::at(&self.repo, place)
            .ok_or_else(|| Error::failed(format!("'{}' is no worktree of ours any more", place.display())))
    }
}

/// Copies the files that `wanted` names, and submodules, from the user's checkout into a worktree.
pub(super) fn provision_worktree(
    repo: &Repository,
    run: &RunId,
    worktree: &Worktree,
    wanted: &Wanted<'_>,
) -> Result<Outfit> {
    let mut outfit = Outfit { set_up: worktree.admin.join(SET_UP).exists(), ..Outfit::default() };
    let Some(checkout) = repo.work_dir() else { return Ok(outfit) };
    let done = worktree.admin.join(PROVISIONED);
    let copying = copy::Copying {
        repo,
        run,
        checkout,
        worktree,
        patterns: wanted.copy,
        unfinished: !done.exists(),
        go_on: wanted.go_on,
    };
    // Submodules come first: no files are copied into them.
    outfit.remarks = submodules::fill(repo, run, worktree)?;
    let (copied, remarks) = copying.copy()?;
    outfit.copied = copied;
    outfit.remarks.extend(remarks);
    if (wanted.go_on)() {
        std::fs::write(&done, "").context("the worktree cannot be marked as provisioned")?;
    }
    Ok(outfit)
}

/// Fills those submodules of a worktree that the user's checkout has.
pub(super) fn fill(repo: &Repository, run: &RunId, worktree: &Worktree) -> Result<Vec<String>> {
    submodules::fill(repo, run, worktree)
}

fn forget(mark: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
