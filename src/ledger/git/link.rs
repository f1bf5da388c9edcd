//! The links between a worktree's files and its git directory (gitrepository-layout(5)), as they are written down.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use gix::bstr::BString;

use super::folder::is_folder;

/// Where the link in `path` leads, whether or not anything is there.
pub(super) fn link_of(path: &Path) -> Option<PathBuf> {
    let link = path.join(".git");
    // To read a pipe is to wait for who writes.
    let text = if is_folder(path) && link.is_file() { std::fs::read_to_string(link).ok()? } else { return None };
    let admin = Path::new(text.strip_prefix("gitdir: ")?.trim_end());
    Some(if admin.is_absolute() { admin.to_owned() } else { path.join(admin) })
}

/// Where the worktree is whose git directory this is. git writes it down as seen from there where
/// `worktree.useRelativePaths` is set (git-worktree(1)).
pub(super) fn linked(admin: &Path) -> Option<PathBuf> {
    let link = std::fs::read_to_string(admin.join("gitdir")).ok()?;
    let mut path = PathBuf::new();
    // The git directory's own path goes over no symbolic link, so that what it goes back by is one of its folders.
    for part in admin.join(link.trim_end()).parent()?.components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            part => path.push(part),
        }
    }
    Some(path)
}

/// Names the setting by which a worktree has its own files.
pub(super) const FILES: &str = "core.worktree";

/// Whether `path`, as the worktree with this git directory has it set, names that worktree's own files.
pub(super) fn leads_home(admin: &Path, path: &BString) -> bool {
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
        // A worktree that somebody removed is found by its link all the same.
        for link in [absolute.as_str(), "../../../../repo.agentloop/a-run/.git\n"] {
            std::fs::write(admin.join("gitdir"), link).unwrap();
            assert_eq!(linked(&admin), Some(away.clone()), "{link}");
        }
    }
}
