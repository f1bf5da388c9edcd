//! Files that agents have no business with, by content where their stat data differs: of the user's checkout those that
//! no commit has as they are, and hooks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use gix::bstr::{BStr, ByteSlice as _};
use gix::index::entry::Flags;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ledger::git::repository::Repository;

/// The longest tick of a file system's clock: that of FAT.
const TICK: Duration = Duration::from_secs(2);
/// As much is read at one look, of all files together.
const READ: u64 = 32 << 20;

/// Files by name.
pub(super) type Files = BTreeMap<String, Look>;

/// What tells one state of a file from the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Look {
    /// What git says of it: its status, and the objects that HEAD and the index have of it.
    status: String,
    stat: Option<Stat>,
    /// A hash of its content, where that was read.
    content: Option<String>,
    /// Whether it had changed a moment before: a change that follows within the same tick of the file system's clock shows
    /// in its content alone (git's racy-git.txt).
    #[serde(default)]
    is_racy: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stat {
    mtime: (i64, i64),
    ctime: (i64, i64),
    inode: u64,
    size: u64,
    mode: u32,
}

/// Takes looks, and reads what `before` has not read as it is.
struct Looker<'a> {
    before: Option<&'a Files>,
    left: u64,
}

/// The names of files that differ.
pub(super) fn changed(before: &Files, now: &Files) -> Vec<String> {
    let gone = before.keys().filter(|name| !now.contains_key(*name)).cloned();
    let others = now.iter().filter(|(name, look)| before.get(*name).is_none_or(|before| before.differs(look)));
    gone.chain(others.map(|(name, _)| name.clone())).collect()
}

impl Look {
    fn differs(&self, now: &Self) -> bool {
        let is_read = self.content.is_some() && now.content.is_some();
        let is_same =
            if is_read { self.content == now.content && self.mode() == now.mode() } else { self.stat == now.stat };
        self.status != now.status || !is_same
    }

    fn mode(&self) -> Option<u32> {
        self.stat.as_ref().map(|stat| stat.mode)
    }
}

impl Looker<'_> {
    fn look(&mut self, name: &str, path: &Path, status: String) -> Look {
        let about = path.symlink_metadata().ok();
        // What is in a folder that git does not enter is not looked at, and its own times tell of that.
        let stat = about.as_ref().filter(|about| !about.is_dir()).map(Stat::of);
        let is_racy = about.as_ref().is_some_and(is_racy);
        let known = self.before.and_then(|before| before.get(name));
        let known = known.filter(|before| before.stat == stat && !before.is_racy);
        let content = match known {
            Some(known) => known.content.clone(),
            None => about.and_then(|about| self.read(path, &about)),
        };
        Look { status, stat, content, is_racy }
    }

    fn read(&mut self, path: &Path, about: &Metadata) -> Option<String> {
        if about.is_symlink() {
            return Some(hash(std::fs::read_link(path).ok()?.as_os_str().as_bytes()));
        }
        if !about.is_file() || about.len() > self.left {
            return None;
        }
        // What is a pipe by now would wait for its writer.
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let file = File::options().read(true).custom_flags(nonblocking).open(path).ok()?;
        let mut content = Vec::new();
        file.take(self.left).read_to_end(&mut content).ok()?;
        self.left -= content.len() as u64;
        Some(hash(&content))
    }
}

impl Stat {
    fn of(about: &Metadata) -> Self {
        Self {
            mtime: (about.mtime(), about.mtime_nsec()),
            ctime: (about.ctime(), about.ctime_nsec()),
            inode: about.ino(),
            size: about.size(),
            mode: about.mode(),
        }
    }
}

/// Whether the file changed a moment ago, by the time that no program can set.
fn is_racy(about: &Metadata) -> bool {
    let changed = u64::try_from(about.ctime()).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    changed.elapsed().map_or(true, |age| age <= TICK)
}

fn hash(content: &[u8]) -> String {
    let hash = gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, content);
    hash.map_or_else(|_| String::new(), |hash| hash.to_string())
}

/// The repository's hooks.
pub(super) fn hooks(repo: &Repository, before: Option<&Files>) -> Files {
    let mut looker = Looker { before, left: READ };
    let entries = std::fs::read_dir(repo.common_dir().join("hooks")).into_iter().flatten().flatten();
    let look = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let look = looker.look(&name, &entry.path(), String::new());
        (name, look)
    };
    entries.map(look).collect()
}

/// What differs from HEAD in the user's checkout, what git ignores there, and what it is told not to look at. Folders that
/// are ignored whole are not entered.
pub(super) fn files(repo: &Repository, before: Option<&Files>) -> Result<Files> {
    let Some(work_dir) = repo.work_dir() else { return Ok(Files::new()) };
    let mut looker = Looker { before, left: READ };
    let git = repo.git("status").only_reads().args(["--porcelain=v2", "--no-renames", "--ignore-submodules=all"]);
    let printed = git.args(["--untracked-files=all", "--ignored=matching"]).records()?;
    let mut found = Files::new();
    for entry in &printed {
        let (status, path) =
            parse(entry).ok_or_else(|| Error::failed("git status printed what it does not document"))?;
        let (name, path) = (path.to_str_lossy().into_owned(), work_dir.join(OsStr::from_bytes(path)));
        let look = looker.look(&name, &path, status.to_str_lossy().into_owned());
        found.insert(name, look);
    }
    for (name, flags) in unlooked(repo, work_dir) {
        let look = looker.look(&name, &work_dir.join(&name), flags.to_owned());
        found.entry(name).or_insert(look);
    }
    Ok(found)
}

/// An entry's status and path (git-status(1), "Porcelain Format Version 2").
fn parse(entry: &[u8]) -> Option<(&BStr, &BStr)> {
    let fields = match entry.first()? {
        b'1' => 8,
        b'u' => 10,
        b'?' | b'!' => 1,
        _ => return None,
    };
    let at = entry.find_iter(" ").nth(fields - 1)?;
    Some((entry[..at].as_bstr(), entry[at + 1..].as_bstr()))
}

/// The files in the checkout that the user's index has git not look at.
fn unlooked(repo: &Repository, work_dir: &Path) -> Vec<(String, &'static str)> {
    let options = gix::index::decode::Options::default();
    let kind = repo.gix().object_hash();
    let Ok(index) = gix::index::File::at(repo.git_dir().join("index"), kind, true, options) else { return Vec::new() };
    let marked = index.entries().iter().filter_map(|entry| {
        let flags = match entry.flags {
            flags if flags.contains(Flags::ASSUME_VALID) => "assume-unchanged",
            flags if flags.contains(Flags::SKIP_WORKTREE) => "skip-worktree",
            _ => return None,
        };
        Some((entry.path(&index).to_str_lossy().into_owned(), flags))
    });
    // A sparse-checkout leaves out what it marks.
    marked.filter(|(name, _)| work_dir.join(name).symlink_metadata().is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_had_just_changed_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let look = |before: Option<&Files>| Looker { before, left: READ }.look("file", &path, String::new());
        std::fs::write(&path, "two").unwrap();
        // As it was read a tick before, when it had the same times and size.
        let one = Look { content: Some(hash(b"one")), ..look(None) };
        for (is_racy, content) in [(true, b"two"), (false, b"one")] {
            let before = Files::from([("file".to_owned(), Look { is_racy, ..one.clone() })]);
            let now = look(Some(&before));
            assert_eq!(now.content, Some(hash(content)), "{is_racy}");
            assert_eq!(changed(&before, &Files::from([("file".to_owned(), now)])).len(), usize::from(is_racy));
        }
        assert!(one.is_racy);
    }
}
