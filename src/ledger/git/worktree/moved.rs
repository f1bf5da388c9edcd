//! Decides which repository a worktree belongs to after repositories were moved or copied by hand. Each copy has it
//! registered; it belongs to the one that its own link leads to.

use std::path::{Path, PathBuf};

use super::Worktree;
use crate::error::{Context as _, Result};
use crate::ledger::git::link::{link_of, linked};
use crate::ledger::git::lock;
use crate::ledger::git::repository::Repository;

impl Worktree {
    /// Reports whether the worktree belongs to another repository that is a copy of ours, or of which ours is a copy.
    pub(super) fn is_of_another_repository(&self) -> bool {
        let there = link_of(&self.path).and_then(|admin| admin.canonicalize().ok());
        there.is_some_and(|there| there != self.admin && linked(&there).is_some_and(|back| back == self.path))
    }

    /// Finds the worktree at `path` after its repository was moved, or both were copied, and repairs its link and
    /// registration as `git worktree repair` does.
    pub(in crate::ledger::git) fn find_moved(repo: &Repository, path: &Path) -> Result<Option<Self>> {
        let Some(name) = link_of(path).and_then(|admin| admin.file_name().map(ToOwned::to_owned)) else {
            return Ok(None);
        };
        let found = Self { path: path.to_owned(), admin: repo.common_dir().join("worktrees").join(&name) };
        let _registering = lock::registration_lock(repo.common_dir())?;
        let registered = linked(&found.admin).map(|path| Self { path, admin: found.admin.clone() });
        // A worker may have written any link, which must not give it the place of another.
        let is_named_so = path.file_name() == Some(&name);
        let fits = registered.is_some_and(|known| {
            known.path == path || is_named_so && (!known.path.exists() || known.is_of_another_repository())
        });
        if !fits || found.is_of_another_repository() || !found.is_ready() {
            return Ok(None);
        }
        let write = |file: PathBuf, text: String| {
            std::fs::write(&file, text).context(format!("'{}' cannot be written", file.display()))
        };
        write(found.admin.join("gitdir"), format!("{}\n", path.join(".git").display()))?;
        write(path.join(".git"), format!("gitdir: {}\n", found.admin.display()))?;
        Ok(Some(found))
    }
}
