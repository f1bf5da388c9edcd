//! Reads single files of the repository, and restores them whatever is in their place.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::ledger::git::branch::stamp;
use crate::ledger::git::exclusion::Exclusion;
use crate::ledger::git::folder::remove_any;

/// Largest file that is read, in bytes.
const LARGEST: u64 = 16 << 20;
/// The permissions without which its owner cannot use a file.
const OWNER: u32 = 0o600;

/// Content of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Found {
    Nothing,
    File {
        content: Vec<u8>,
        mode: u32,
    },
    /// A symbolic link, with the content of its target.
    Link {
        target: PathBuf,
        content: Option<Vec<u8>>,
    },
    /// A directory, a FIFO, or a file that is unreadable or too large.
    Other,
}

/// Result of a restore.
#[derive(Debug)]
pub(super) enum Replaced {
    Done,
    /// The file was changed again meanwhile, and was left as it is. Content that was written during the exchange is at this
    /// path, if there is one.
    Changed(Option<PathBuf>),
}

impl Found {
    pub(super) fn at(path: &Path) -> Self {
        let Ok(about) = path.symlink_metadata() else { return Self::Nothing };
        if about.is_symlink() {
            return match std::fs::read_link(path) {
                Ok(target) => Self::Link { target, content: read(path).map(|(content, _)| content) },
                Err(_) => Self::Other,
            };
        }
        read(path).map_or(Self::Other, |(content, mode)| Self::File { content, mode })
    }

    /// Returns what a reader of the path gets.
    pub(super) fn content(&self) -> Option<&[u8]> {
        match self {
            Self::File { content, .. } => Some(content),
            Self::Link { content, .. } => content.as_deref(),
            Self::Nothing | Self::Other => None,
        }
    }

    /// Reports whether it is of the same kind as `before`, and still usable by its owner.
    pub(super) fn is_like(&self, before: &Self) -> bool {
        match (before, self) {
            (Self::Nothing, Self::Nothing | Self::File { .. }) | (Self::Other, _) => true,
            (Self::File { mode: before, .. }, Self::File { mode, .. }) => before & OWNER & !mode == 0,
            (Self::Link { target: before, .. }, Self::Link { target, content }) => {
                before == target && content.is_some()
            }
            _ => false,
        }
    }

    /// Returns the same file with other content.
    pub(super) fn holding(&self, new: Vec<u8>) -> Self {
        match self {
            Self::File { mode, .. } => Self::File { content: new, mode: *mode },
            Self::Link { target, .. } => Self::Link { target: target.clone(), content: Some(new) },
            Self::Nothing | Self::Other => Self::File { content: new, mode: 0o644 },
        }
    }

    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Nothing => "it was removed",
            Self::File { mode, .. } if mode & OWNER != OWNER => "its owner could not read or write it",
            Self::File { .. } => "git could not read it",
            Self::Link { .. } => "a symbolic link was in its place",
            Self::Other => "what was in its place could not be read",
        }
    }
}

/// Reads content and permissions of the regular file that `path` leads to. Without `NONBLOCK`, opening a FIFO would block.
fn read(path: &Path) -> Option<(Vec<u8>, u32)> {
    let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(nonblocking).open(path).ok()?;
    let about = file.metadata().ok().filter(|about| about.is_file() && about.len() <= LARGEST)?;
    let mut content = Vec::new();
    file.take(LARGEST).read_to_end(&mut content).ok()?;
    Some((content, about.permissions().mode() & 0o7777))
}

/// Returns a name beside `path` for what was there at the time `stamp`.
pub(super) fn aside(path: &Path, stamp: &str) -> PathBuf {
    path.with_added_extension(format!("replaced-{stamp}"))
}

/// Puts `new` at `path`, where `now` was found, and moves the present file to `aside` if that is given. Holds git's lock of
/// the file, unless another program left one. The two files are exchanged, and exchanged back if another program was faster.
pub(super) fn replace(path: &Path, now: &Found, new: &Found, aside: Option<&Path>) -> std::io::Result<Replaced> {
    // The target of a link that stays is changed through the link.
    if let (Found::Link { target: from, .. }, Found::Link { target: to, content: Some(content) }) = (now, new)
        && from == to
    {
        let file = path.canonicalize()?;
        let found = Found::at(&file);
        return if found.content() == now.content() {
            replace(&file, &found, &found.holding(content.clone()), None)
        } else {
            Ok(Replaced::Changed(None))
        };
    }
    make_folder(path)?;
    let _held = Exclusion::of(path)?;
    exchange(path, now, new, aside)
}

/// Replaces a file as [`replace`] does. The caller holds its lock, and it is no link of the user's.
pub(super) fn exchange(path: &Path, now: &Found, new: &Found, aside: Option<&Path>) -> std::io::Result<Replaced> {
    if Found::at(path) != *now {
        return Ok(Replaced::Changed(None));
    }
    let staged = path.with_added_extension("agentloop");
    if staged.symlink_metadata().is_ok() {
        // A driver was killed after the exchange: this is the old file.
        std::fs::rename(&staged, self::aside(path, &stamp()))?;
    }
    let move_to_none = |from: &Path, to: &Path| renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    let kept = |staged: &Path| {
        let kept = self::aside(path, &stamp());
        std::fs::rename(staged, &kept).map(|()| Replaced::Changed(Some(kept)))
    };
    match new {
        Found::Nothing | Found::Other => {
            std::fs::rename(path, &staged)?;
            if Found::at(&staged) != *now {
                return move_to_none(&staged, path).map_or_else(|_| kept(&staged), |()| Ok(Replaced::Changed(None)));
            }
            return put_away(&staged, aside).map(|()| Replaced::Done);
        }
        Found::Link { target, .. } => std::os::unix::fs::symlink(target, &staged)?,
        Found::File { content, mode } => {
            let mut file = File::options().write(true).create_new(true).mode(*mode & 0o777).open(&staged)?;
            file.write_all(content)?;
            file.set_permissions(std::fs::Permissions::from_mode(*mode))?;
        }
    }
    let replaced = match renameat_with(CWD, &staged, CWD, path, RenameFlags::EXCHANGE) {
        Ok(()) if Found::at(&staged) == *now => put_away(&staged, aside).map(|()| Replaced::Done)?,
        Ok(()) => {
            renameat_with(CWD, &staged, CWD, path, RenameFlags::EXCHANGE)?;
            if Found::at(&staged) != *new {
                return kept(&staged); // written over the new file during the exchange
            }
            remove_any(&staged)?;
            Replaced::Changed(None)
        }
        Err(Errno::NOENT) => match move_to_none(&staged, path) {
            Ok(()) => Replaced::Done,
            Err(Errno::EXIST) => {
                remove_any(&staged)?;
                Replaced::Changed(None)
            }
            Err(_) => std::fs::rename(&staged, path).map(|()| Replaced::Done)?,
        },
        // The file system cannot exchange.
        Err(_) => {
            if path.symlink_metadata().is_ok() && (aside.is_some() || path.is_dir()) {
                put_away(path, aside)?;
            }
            std::fs::rename(&staged, path).map(|()| Replaced::Done)?
        }
    };
    Ok(replaced)
}

/// Moves the file at `path` to `aside`, or removes it if that is not given.
fn put_away(path: &Path, aside: Option<&Path>) -> std::io::Result<()> {
    let Some(aside) = aside else { return remove_any(path) };
    std::fs::rename(path, aside)?;
    release_readers(aside);
    Ok(())
}

/// Unblocks readers of the FIFO at `path`, if it is one. A git that reads its configuration from a FIFO would wait for a
/// writer forever.
fn release_readers(path: &Path) {
    if path.symlink_metadata().is_ok_and(|about| about.file_type().is_fifo()) {
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        drop(File::options().write(true).custom_flags(nonblocking).open(path)); // fails without a reader
    }
}

/// Makes the folder of `path` if it does not exist, and moves aside whatever is in its place.
fn make_folder(path: &Path) -> std::io::Result<()> {
    let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) else { return Ok(()) };
    if folder.symlink_metadata().is_ok() {
        std::fs::rename(folder, aside(folder, &stamp()))?;
    }
    std::fs::create_dir_all(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str, mode: u32) -> Found {
        Found::File { content: content.into(), mode }
    }

    #[test]
    fn whatever_stands_in_its_place_a_file_is_put_back() {
        type Deed = fn(&Path);
        let dir = tempfile::tempdir().unwrap();
        let before = file("before", 0o640);
        let deeds: [(&str, Deed); 6] = [
            ("removed", |path| std::fs::remove_file(path).unwrap()),
            ("rewritten", |path| std::fs::write(path, "other").unwrap()),
            ("unreadable", |path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o0)).unwrap()),
            ("a folder", |path| {
                std::fs::remove_file(path).unwrap();
                std::fs::create_dir_all(path.join("x")).unwrap();
            }),
            ("a link", |path| {
                std::fs::rename(path, path.with_extension("elsewhere")).unwrap();
                std::os::unix::fs::symlink(path.with_extension("elsewhere"), path).unwrap();
            }),
            ("a pipe", |path| {
                std::fs::remove_file(path).unwrap();
                rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
            }),
        ];
        for (name, deed) in deeds {
            let path = dir.path().join(name.replace(' ', "-"));
            std::fs::write(&path, "before").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            assert_eq!(Found::at(&path), before);
            deed(&path);
            let (now, kept) = (Found::at(&path), aside(&path, "now"));
            assert_ne!(now, before, "{name}");
            assert!(now.is_like(&before) == (name == "rewritten"), "{name}");
            assert!(matches!(replace(&path, &now, &before, Some(&kept)), Ok(Replaced::Done)), "{name}");
            assert_eq!(Found::at(&path), before, "{name}");
            assert_eq!(Found::at(&kept), now, "{name}");
            assert!(!path.with_added_extension("agentloop").exists(), "{name}");
        }
    }

    #[test]
    fn a_change_that_nobody_looked_at_yet_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, "the user's").unwrap();
        let seen = file("the worker's", 0o644);
        assert!(matches!(replace(&path, &seen, &file("before", 0o644), None), Ok(Replaced::Changed(None))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "the user's");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_link_of_the_user_s_leads_to_is_changed_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, there) = (dir.path().join("config"), dir.path().join("dotfiles"));
        std::fs::write(&there, "one").unwrap();
        std::os::unix::fs::symlink("dotfiles", &path).unwrap();
        let now = Found::at(&path);
        assert!(matches!(replace(&path, &now, &now.holding(b"two".to_vec()), None), Ok(Replaced::Done)));
        assert_eq!(std::fs::read_to_string(there).unwrap(), "two");
        assert!(path.is_symlink());
    }
}
