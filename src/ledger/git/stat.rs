//! Compares a workspace with an index by stat data alone, as git itself does, but without a process.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice as _};
use gix::index::entry::{Flags, Stat};
use gix::index::{Entry, File};

/// Number of files that one thread checks as quickly as several.
const FEW_FILES: usize = 1000;

/// Reports whether every file of `index` below `root` is unchanged since the index was written. `false` if that is uncertain
/// and git must decide.
pub(super) fn is_untouched(index: &Path, root: &Path, hash: gix::hash::Kind) -> bool {
    read(index, hash).is_some_and(|(file, written)| are_same(&file, root, &written))
}

/// Returns the tree that `index` was last written as, if every file below `root` is unchanged since; `None` if that is
/// uncertain.
pub(super) fn untouched_tree(index: &Path, root: &Path, hash: gix::hash::Kind) -> Option<ObjectId> {
    let (file, written) = read(index, hash)?;
    let tree = file.tree().filter(|tree| tree.num_entries.is_some())?.id;
    // Entries that stat data does not describe.
    let is_hidden =
        |entry: &Entry| entry.mode.is_submodule() || entry.flags.intersects(Flags::SKIP_WORKTREE | Flags::ASSUME_VALID);
    (!file.entries().iter().any(is_hidden) && are_same(&file, root, &written)).then_some(tree)
}

/// Lists the files of `index` that a sparse-checkout leaves out of the workspace; none if it cannot be read.
pub(super) fn left_out(index: &Path, hash: gix::hash::Kind) -> BTreeSet<BString> {
    let Some((file, _)) = read(index, hash) else { return BTreeSet::new() };
    let entries = file.entries().iter().filter(|entry| entry.flags.contains(Flags::SKIP_WORKTREE));
    entries.map(|entry| entry.path(&file).to_owned()).collect()
}

/// Reads the index and its own stat data.
fn read(index: &Path, hash: gix::hash::Kind) -> Option<(File, Metadata)> {
    let written = index.symlink_metadata().ok()?;
    Some((File::at(index, hash, true, gix::index::decode::Options::default()).ok()?, written))
}

fn are_same(file: &File, root: &Path, written: &Metadata) -> bool {
    let entries = file.entries();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(entries.len().div_ceil(FEW_FILES));
    let all = |entries: &[Entry]| entries.iter().all(|entry| is_same(file, entry, root, written));
    if threads < 2 {
        return all(entries);
    }
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            entries.chunks(entries.len().div_ceil(threads)).map(|part| scope.spawn(move || all(part))).collect();
        parts.into_iter().all(|part| part.join().unwrap_or(false))
    })
}

fn is_same(index: &File, entry: &Entry, root: &Path, written: &Metadata) -> bool {
    // A submodule's commits are checked elsewhere, and files that are not checked out do not exist.
    if entry.mode.is_submodule() || entry.flags.intersects(Flags::SKIP_WORKTREE | Flags::ASSUME_VALID) {
        return true;
    }
    let path = root.join(std::ffi::OsStr::from_bytes(entry.path(index).as_bytes()));
    // A file as new as the index may have changed right after it was read: git's racy-git.txt.
    path.symlink_metadata().is_ok_and(|now| matches(&entry.stat, &now) && is_older(&now, written))
}

/// Compares at least as strictly as git, whatever its settings: data that is equal here is equal to git.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // an index stores the low 32 bits
fn matches(then: &Stat, now: &Metadata) -> bool {
    then.size == now.size() as u32
        && (then.mtime.secs, then.mtime.nsecs) == (now.mtime() as u32, now.mtime_nsec() as u32)
        && (then.ctime.secs, then.ctime.nsecs) == (now.ctime() as u32, now.ctime_nsec() as u32)
        && (then.ino, then.uid, then.gid) == (now.ino() as u32, now.uid(), now.gid())
}

fn is_older(file: &Metadata, index: &Metadata) -> bool {
    (file.mtime(), file.mtime_nsec()) < (index.mtime(), index.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::ledger::git::fixture::Fixture;

    #[test]
    fn only_what_nobody_touched_is_untouched() {
        let fixture = Fixture::new();
        let (root, index) = (fixture.path(), fixture.git_dir().join("index"));
        let untouched = || is_untouched(&index, &root, gix::hash::Kind::Sha1);
        let at = |name: &str, time: SystemTime| {
            std::fs::File::options().write(true).open(root.join(name)).unwrap().set_modified(time).unwrap();
        };
        let past = SystemTime::now() - Duration::from_mins(1);
        let future = SystemTime::now() + Duration::from_mins(1);
        for name in ["a", "b ü"] {
            std::fs::write(root.join(name), "one").unwrap();
            at(name, past);
        }
        assert!(!is_untouched(&root.join("no index"), &root, gix::hash::Kind::Sha1));
        fixture.git(["add", "-A"]);
        assert!(untouched());
        std::fs::write(root.join("b ü"), "another size").unwrap();
        at("b ü", past);
        assert!(!untouched());
        fixture.git(["add", "-A"]);
        assert!(untouched());
        std::fs::remove_file(root.join("a")).unwrap();
        assert!(!untouched());
        fixture.git(["add", "-A"]);
        assert!(untouched());
        // As new as the index: only its content can tell whether it changed since.
        at("b ü", future);
        fixture.git(["add", "-A"]);
        assert!(!untouched());
    }
}
