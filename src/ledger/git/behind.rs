//! Finds work that a worker left where it would be overlooked: on an older commit, or in a stash.

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::objects::parse_id;
use super::repository::Repository;
use super::tree::Tracked;
use super::worktree::Worktree;
use super::{GitLedger, branch, preview};
use crate::error::Result;

impl GitLedger {
    /// Merges files that are based on `head`, a commit before `tip`, into `tip`. Without that, all changes between the two
    /// would count as reverted. Returns the tree and a remark.
    pub(super) fn merge_into_tip(
        &self,
        tracked: &Tracked<'_>,
        head: ObjectId,
        tip: ObjectId,
        tree: ObjectId,
    ) -> Result<(ObjectId, String)> {
        let left = format!("the worker left HEAD at the older commit {}", &head.to_string()[..12]);
        let work = self.write_commit("agentloop: work on an older commit\n", tree, &[head])?;
        let trial = preview::try_merge(&self.repo, &tip.to_string(), &work.to_string())?;
        if !trial.conflicts.is_empty() {
            let remark =
                format!("{left}, and its work conflicts with what came after: its files are taken as they are");
            return Ok((tree, remark));
        }
        tracked.advance(&tree.to_string(), &trial.tree)?;
        Ok((Repository::id(&trial.tree)?, format!("{left}: what came after it was kept")))
    }

    /// Puts stashes made in `worktree` on rescue refs. All worktrees share one stash list, so another worker's `pop`, or the
    /// user's, could take them.
    pub(super) fn rescue_stashes(&self, worktree: &Worktree, tip: ObjectId) -> Result<Vec<String>> {
        let Ok(log) = std::fs::read(self.repo.common_dir().join("logs/refs/stash")) else { return Ok(Vec::new()) };
        let gix = self.repo.gix();
        let mut heads = worktree.head_log(&gix);
        heads.push(tip);
        let mut remarks = Vec::new();
        // git-stash(1): the message of a stash made on a detached HEAD says so, and our worktrees are detached.
        for line in log.lines().filter(|line| line.contains_str("(no branch)")) {
            let id = line.split_str(" ").nth(1).and_then(|id| parse_id(&gix, id));
            let commit = id.and_then(|id| gix.find_commit(id).ok());
            let Some(commit) = commit else { continue };
            let is_of_worktree = commit.parent_ids().next().is_some_and(|parent| heads.contains(&parent.detach()));
            if is_of_worktree && let Some(kept) = branch::rescue(&self.repo, &self.mover, &self.run, commit.id)? {
                remarks.push(format!("the worker left a stash, which is no part of its work: {kept}"));
            }
        }
        Ok(remarks)
    }
}
