//! Agents that only read: where they read, and what becomes of what they change all the same.

use super::Engine;
use super::remarks::name_files;
use super::verify::EVERYTHING;
use crate::error::Result;
use crate::ledger::{Reader, Reading};
use crate::run::goal::{Isolation, Role};
use crate::run::shadow;

impl Engine {
    /// A place for an agent that is to read `tree`, or the run's newest commit; none where workers are not apart either, or
    /// whoever answers `role` does not look at files. Files that configure agents are in it as the base has them.
    pub(super) async fn open_reader(&self, role: Role, tree: Option<String>) -> Result<Option<Reader>> {
        let (isolation, tip, base, is_dirty) =
            self.recorder.with(|run| (run.options.isolation, run.tip.clone(), run.start_tree.clone(), run.touched));
        if isolation != Isolation::Worktree || !self.edits_files(role) {
            return Ok(None);
        }
        let opened = self.blocking(move |ledger| {
            let tree = match tree {
                Some(tree) => tree,
                // A person's edits, which a resumed run goes on with.
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

    /// What is to be said of what a reader changed in its place: nothing of it goes further.
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
