//! Worktrees of agents that only read, and the removal of what such agents change.

use super::Engine;
use super::remarks::name_files;
use super::verify::EVERYTHING;
use crate::error::Result;
use crate::ledger::{Reader, Reading};
use crate::run::goal::{Isolation, Role};
use crate::run::shadow;

impl Engine {
    /// Opens a worktree for an agent that reads `tree`, or the run's newest commit. Files that configure agents have their
    /// content of the base there. Returns `None` if workers are not isolated either, or the backend of `role` does not look
    /// at files.
    pub(super) async fn open_reader(&self, role: Role, tree: Option<String>) -> Result<Option<Reader>> {
        let (isolation, tip, base, is_dirty) =
            self.recorder.with(|run| (run.options.isolation, run.tip.clone(), run.start_tree.clone(), run.touched));
        if isolation != Isolation::Worktree || !self.edits_files(role) {
            return Ok(None);
        }
        let opened = self.blocking(move |ledger| {
            let tree = match tree {
                Some(tree) => tree,
                // A person's edits, with which a resumed run continues.
                None if is_dirty => ledger.write_tree()?.id,
                None => tip.tree.to_string(),
            };
            let base = base.map_or_else(|| tree.clone(), |base| base.to_string());
            let changed = ledger.protected(&base, &tree, &[EVERYTHING.to_owned()])?;
            let of_agents: Vec<String> = changed.into_iter().filter(|path| shadow::configures_agents(path)).collect();
            ledger.open_reader(&Reading {
                tip: tip.commit.as_str(),
                tree: &tree,
                shown_from: Some((&base, &of_agents)),
            })
        });
        opened.await.map(Some)
    }

    /// Removes a reader's worktree and reports what the reader changed in it; the changes are discarded.
    pub(super) async fn close_reader(&self, role: Role, reader: Reader) -> Result<Vec<String>> {
        let tip = self.recorder.with(|run| run.tip.commit.clone());
        let (changed, mut remarks) = self.blocking(move |ledger| ledger.close_reader(&reader, tip.as_str())).await?;
        if !changed.is_empty() {
            let named = name_files(&changed);
            remarks.insert(0, format!("the {role} changed files, and the changes were taken back: {named}"));
        }
        Ok(remarks)
    }
}
