//! Whose a worktree is once repositories were moved or copied, by hand: git has it on the books of each, and it is that one's
//! whose books its own link leads to.

use std::path::{Path, PathBuf};

use super::Worktree;
use crate::error::{Context as _, Result};
use crate::ledger::git::link::{link_of, linked};
use crate::ledger::git::lock;
use crate::ledger::git::repository::Repository;

impl Worktree {
    /// Whether another repository has it, which ours was copied from, or was copied from ours.
    pub(super) fn is_another_s(&self) -> bool {
        let there = link_of(&self.path).and_then(|admin| admin.canonicalize().ok());
        there.is_some_and(|there| there != self.admin && linked(&there).is_some_and(|back| back == self.path))
    }

    /// The worktree at `path`, which lost its repository when that was moved, or came with ours when both were copied:
    /// its link and the books are made to fit, as `git worktree repair` does.
    pub(in crate::ledger::git) fn found_again(repo: &Repository, path: &Path) -> Result<Option<Self>> {
        let Some(name) = link_of(path).and_then(|admin| admin.file_name().map(ToOwned::to_owned)) else {
            return Ok(None);
        };
        let found = Self { path: path.to_owned(), admin: repo.common_dir().join("worktrees").join(&name) };
        let _registering = lock::registration_lock(repo.common_dir())?;
        let on_the_books = linked(&found.admin).map(|path| Self { path, admin: found.admin.clone() });
        // A worker may have written anything there: it is not given the place of another.
        let is_named_so = path.file_name() == Some(&name);
        let fits = on_the_books
            .is_some_and(|known| known.path == path || is_named_so && (!known.path.exists() || known.is_another_s()));
        if !fits || found.is_another_s() || !found.is_ready() {
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
