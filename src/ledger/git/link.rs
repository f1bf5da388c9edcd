//! Reads the links between a worktree's files and its git directory (gitrepository-layout(5)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use gix::bstr::BString;

use super::folder::is_folder;

/// Returns the target of the link in `path`, even if nothing exists there.
pub(super) fn link_of(path: &Path) -> Option<PathBuf> {
    let link = path.join(".git");
    // Reading a FIFO would block until it has a writer.
    let text = if is_folder(path) && link.is_file() { std::fs::read_to_string(link).ok()? } else { return None };
    let admin = Path::new(text.strip_prefix("gitdir: ")?.trim_end());
    Some(if admin.is_absolute() { admin.to_owned() } else { path.join(admin) })
}

/// Returns the worktree that belongs to a git directory. The link is relative to that directory if
/// `worktree.useRelativePaths` is set (git-worktree(1)).
pub(super) fn linked(admin: &Path) -> Option<PathBuf> {
    let link = std::fs::read_to_string(admin.join("gitdir")).ok()?;
    let mut path = PathBuf::new();
    // The git directory's own path contains no symbolic link, so each `..` leads to one of its parents.
    for part in admin.join(link.trim_end()).parent()?.components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            part => path.push(part),
        }
    }
    Some(path)
}

/// Setting with the path of a worktree's files.
pub(super) const FILES: &str = "core.worktree";

/// Reports whether `path`, the value of that setting for the worktree with this git directory, is that worktree's own files.
pub(super) fn names_own_files(admin: &Path, path: &BString) -> bool {
    let named = admin.join(OsStr::from_bytes(path)).canonicalize();
    let own = linked(admin).and_then(|own| own.canonicalize().ok());
    named.is_ok_and(|named| own == Some(named))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_however_git_wrote_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, admin) = (dir.path(), dir.path().join("repo/.git/worktrees/a-run"));
        std::fs::create_dir_all(&admin).unwrap();
        let away = root.join("repo.agentloop/a-run");
        let absolute = format!("{}/.git\n", away.display());
        // A worktree that was removed is still found by its link.
        for link in [absolute.as_str(), "../../../../repo.agentloop/a-run/.git\n"] {
            std::fs::write(admin.join("gitdir"), link).unwrap();
            assert_eq!(linked(&admin), Some(away.clone()), "{link}");
        }
    }
}
