//! Compares files that agents must not change, by content if their stat data differs: hooks, and files of the user's
//! checkout that no commit has.

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

/// Longest tick of a file system's clock, which is FAT's.
const TICK: Duration = Duration::from_secs(2);
/// Bytes that one observation reads of all files together.
const READ: u64 = 32 << 20;

/// Files by name.
pub(super) type Files = BTreeMap<String, FileState>;

/// State of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileState {
    /// git's view of it: its status, and its objects in HEAD and the index.
    status: String,
    stat: Option<Stat>,
    /// A hash of its content, if that was read.
    content: Option<String>,
    /// True if the file had just changed: another change in the same tick of the file system's clock shows only in its
    /// content (git's racy-git.txt).
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

/// Reads the states of files, but the content only of those that changed since `before`.
struct StateReader<'a> {
    before: Option<&'a Files>,
    left: u64,
}

/// Lists the names of files that differ.
pub(super) fn changed(before: &Files, now: &Files) -> Vec<String> {
    let gone = before.keys().filter(|name| !now.contains_key(*name)).cloned();
    let others = now.iter().filter(|(name, state)| before.get(*name).is_none_or(|before| before.differs(state)));
    gone.chain(others.map(|(name, _)| name.clone())).collect()
}

impl FileState {
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

impl StateReader<'_> {
    fn read_state(&mut self, name: &str, path: &Path, status: String) -> FileState {
        let about = path.symlink_metadata().ok();
        // Files in a folder that git does not enter are not read, but its own times change with them.
        let stat = about.as_ref().filter(|about| !about.is_dir()).map(Stat::of);
        let is_racy = about.as_ref().is_some_and(is_racy);
        let known = self.before.and_then(|before| before.get(name));
        let known = known.filter(|before| before.stat == stat && !before.is_racy);
        let content = match known {
            Some(known) => known.content.clone(),
            None => about.and_then(|about| self.read(path, &about)),
        };
        FileState { status, stat, content, is_racy }
    }

    fn read(&mut self, path: &Path, about: &Metadata) -> Option<String> {
        if about.is_symlink() {
            return Some(hash(std::fs::read_link(path).ok()?.as_os_str().as_bytes()));
        }
        if !about.is_file() || about.len() > self.left {
            return None;
        }
        // Opening a FIFO would block until it has a writer.
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

/// Reports whether the file has just changed, by its ctime, which no program can set.
fn is_racy(about: &Metadata) -> bool {
    let changed = u64::try_from(about.ctime()).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
    changed.elapsed().map_or(true, |age| age <= TICK)
}

fn hash(content: &[u8]) -> String {
    let hash = gix::objs::compute_hash(gix::hash::Kind::Sha1, gix::objs::Kind::Blob, content);
    hash.map_or_else(|_| String::new(), |hash| hash.to_string())
}

/// Reads the states of the repository's hooks.
pub(super) fn hooks(repo: &Repository, before: Option<&Files>) -> Files {
    let mut reader = StateReader { before, left: READ };
    let entries = std::fs::read_dir(repo.common_dir().join("hooks")).into_iter().flatten().flatten();
    let state = |entry: std::fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let state = reader.read_state(&name, &entry.path(), String::new());
        (name, state)
    };
    entries.map(state).collect()
}

/// Reads the states of files in the user's checkout that differ from HEAD, are ignored, or are marked to be skipped by git.
/// Folders that are ignored as a whole are not entered.
pub(super) fn files(repo: &Repository, before: Option<&Files>) -> Result<Files> {
    let Some(work_dir) = repo.work_dir() else { return Ok(Files::new()) };
    let mut reader = StateReader { before, left: READ };
    let git = repo.git("status").only_reads().args(["--porcelain=v2", "--no-renames", "--ignore-submodules=all"]);
    let printed = git.args(["--untracked-files=all", "--ignored=matching"]).records()?;
    let mut found = Files::new();
    for entry in &printed {
        let (status, path) =
            parse(entry).ok_or_else(|| Error::failed("git status printed what it does not document"))?;
        let (name, path) = (path.to_str_lossy().into_owned(), work_dir.join(OsStr::from_bytes(path)));
        let state = reader.read_state(&name, &path, status.to_str_lossy().into_owned());
        found.insert(name, state);
    }
    for (name, flags) in skipped_files(repo, work_dir) {
        let state = reader.read_state(&name, &work_dir.join(&name), flags.to_owned());
        found.entry(name).or_insert(state);
    }
    Ok(found)
}

/// Parses an entry's status and path (git-status(1), "Porcelain Format Version 2").
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

/// Lists the files in the checkout that the user's index marks to be skipped.
fn skipped_files(repo: &Repository, work_dir: &Path) -> Vec<(String, &'static str)> {
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
    // A sparse-checkout removes the files that it marks.
    marked.filter(|(name, _)| work_dir.join(name).symlink_metadata().is_ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_had_just_changed_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let state =
            |before: Option<&Files>| StateReader { before, left: READ }.read_state("file", &path, String::new());
        std::fs::write(&path, "two").unwrap();
        // Read a tick earlier, with the same times and size.
        let one = FileState { content: Some(hash(b"one")), ..state(None) };
        for (is_racy, content) in [(true, b"two"), (false, b"one")] {
            let before = Files::from([("file".to_owned(), FileState { is_racy, ..one.clone() })]);
            let now = state(Some(&before));
            assert_eq!(now.content, Some(hash(content)), "{is_racy}");
            assert_eq!(changed(&before, &Files::from([("file".to_owned(), now)])).len(), usize::from(is_racy));
        }
        assert!(one.is_racy);
    }
}
