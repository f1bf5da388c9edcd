//! Whose a worktree is once repositories were moved or copied, by hand: git has it on the books of each, and it is that one's
//! whose books its own link leads to.

use std::path::{Path, PathBuf};

use super::lock;
use super::mend::is_folder;
use super::repository::Repository;
use super::worktree::{Worktree, linked};
use crate::error::{Context as _, Result};

/// Where the link in `path` leads, whether or not anything is there.
pub(super) fn link_of(path: &Path) -> Option<PathBuf> {
    let link = path.join(".git");
    // To read a pipe is to wait for who writes.
    let text = if is_folder(path) && link.is_file() { std::fs::read_to_string(link).ok()? } else { return None };
    let admin = Path::new(text.strip_prefix("gitdir: ")?.trim_end());
    Some(if admin.is_absolute() { admin.to_owned() } else { path.join(admin) })
}

impl Worktree {
    /// Whether another repository has it, which ours was copied from, or was copied from ours.
    pub(super) fn is_another_s(&self) -> bool {
        let there = link_of(&self.path).and_then(|admin| admin.canonicalize().ok());
        there.is_some_and(|there| there != self.admin && linked(&there).is_some_and(|back| back == self.path))
    }

    /// The worktree at `path`, which lost its repository when that was moved, or came with ours when both were copied:
    /// its link and the books are made to fit, as `git worktree repair` does.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub(super) fn found_again(repo: &Repository, path: &Path) -> Result<Option<Self>> {
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
