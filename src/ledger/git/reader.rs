//! The worktree in which planner and reviewer read: it is set to the tree that they are to read each time.

use std::path::PathBuf;

use super::folder::remove_any;
use super::repository::Repository;
use super::worktree::Worktree;
use super::{GitLedger, branch, protect, provision};
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Reader, Reading};

/// Suffix of its name, after the run's id.
const NAME: &str = "r";
/// The git pathspec that matches every file.
const EVERYTHING: &str = "*";

impl GitLedger {
    /// Prepares the worktree with the tree to read, HEAD and index at the run's newest commit, and no other files.
    pub(super) fn prepare_reader(&self, reading: &Reading<'_>) -> Result<Reader> {
        let (path, tip) = (self.reader_path()?, Repository::id(reading.tip)?);
        // If git no longer knows the worktree, it holds nothing but files to read.
        let link = std::fs::read_to_string(path.join(".git")).unwrap_or_default();
        let was_ours = link.starts_with("gitdir: ") && link.contains(self.run.as_str());
        if was_ours && self.repaired(&path).is_none() {
            remove_any(&path).context(format!("'{}' cannot be removed", path.display()))?;
        }
        self.clear(&path, None, reading.tip)?;
        let worktree = self.repaired(&path).ok_or_else(|| Error::failed("the worktree of readers is gone"))?;
        provision::fill(&self.repo, &self.run, &worktree)?;
        let tracked = self.tracked_at(&worktree);
        let tree = match reading.shown_from {
            Some((from, paths)) if !paths.is_empty() => protect::without(&self.repo, from, reading.tree, paths)?,
            _ => reading.tree.to_owned(),
        };
        let current = super::branch::tree_of(&self.repo.gix(), tip)?.to_string();
        // Forced twice, to clean nested repositories too.
        tracked.git("clean").arg("-ffdxq").run()?;
        tracked.advance(&current, &tree)?;
        Ok(Reader { path, tree })
    }

    /// Puts a reader's changes on a rescue ref. Returns the changed files, and remarks.
    pub(super) fn rescue_reader_changes(&self, reader: &Reader, tip: &str) -> Result<(Vec<String>, Vec<String>)> {
        let Some(worktree) = self.repaired(&reader.path) else { return Ok((Vec::new(), Vec::new())) };
        let (gix, tip) = (self.repo.gix(), Repository::id(tip)?);
        let mut remarks = Vec::new();
        for lost in worktree.head_log_since_settled(&gix) {
            if !branch::contains(&gix, tip, lost) && gix.has_object(lost) {
                remarks.extend(branch::rescue(&self.repo, &self.mover, &self.run, lost)?);
            }
        }
        let tracked = self.tracked_at(&worktree);
        if tracked.untouched()? == Some(Repository::id(&reader.tree)?) {
            return Ok((Vec::new(), remarks));
        }
        let written = self.capture(&tracked, &reader.tree)?.id;
        let changed = protect::changed(&self.repo, &reader.tree, &written, &[EVERYTHING.to_owned()])?;
        if !changed.is_empty() {
            let message = format!("agentloop: changed by an agent that was to read in {}\n", self.run);
            let kept = branch::commit(&gix, &self.identity, &message, Repository::id(&written)?, vec![tip])?;
            remarks.extend(branch::rescue(&self.repo, &self.mover, &self.run, kept)?);
        }
        Ok((changed, remarks))
    }

    /// Removes the reader's worktree.
    pub(super) fn remove_reader(&self) -> Result<()> {
        let path = self.reader_path()?;
        let _ = std::fs::remove_file(self.index_of(&path)); // it describes nothing without the worktree
        match Worktree::at(&self.repo, &path) {
            Some(worktree) => worktree.remove(&self.repo),
            None if Worktree::registered(&self.repo, &path).is_some() => Worktree::forget(&self.repo, &path),
            None => Ok(()),
        }
    }

    fn reader_path(&self) -> Result<PathBuf> {
        Ok(self.place()?.with_added_extension(NAME))
    }
}
