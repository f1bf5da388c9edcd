//! Reads objects, fetching those that a partial clone lacks, and syncs new objects to disk with the refs that name them, so
//! that they survive a power cut. Neither gix nor git (by default) does the latter.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use gix::{ObjectId, Repository};

use super::command::Git;
use crate::error::{Context as _, Error, Result};

/// Number of parallel syncs.
const AT_ONCE: usize = 8;

/// Parses an object id of the repository's hash, from a text that any program may have written: gix panics when it is asked
/// for an object of another hash.
pub(super) fn parse_id(repo: &Repository, hex: &[u8]) -> Option<ObjectId> {
    ObjectId::from_hex(hex).ok().filter(|id| id.kind() == repo.object_hash())
}

/// Returns the number of hexadecimal digits of the repository's object ids.
pub(super) fn hex_length(repo: &Repository) -> usize {
    repo.object_hash().len_in_hex()
}

/// Reads the content of blob `id`.
pub(super) fn blob(repo: &Repository, id: ObjectId) -> Result<Vec<u8>> {
    let found = match repo.find_blob(id) {
        Err(_) if fetch(repo, id) => repo.find_blob(id),
        found => found,
    };
    found.map(|mut blob| blob.take_data()).context(format!("cannot read the page {id}"))
}

/// Fetches an object that a partial clone lacks, which only git can do. Reports whether it tried.
pub(super) fn fetch(repo: &Repository, id: ObjectId) -> bool {
    let config = repo.config_snapshot();
    let mut remotes = config.plumbing().sections_by_name("remote").into_iter().flatten();
    if !remotes.any(|remote| remote.value("promisor").is_some()) {
        return false;
    }
    Git::in_git_dir(repo.common_dir(), "cat-file").arg("-e").id(id).output().is_ok()
}

/// Returns when git last packed objects or pruned packs.
pub(super) fn packed(repo: &Repository) -> Option<SystemTime> {
    repo.objects.store_ref().path().join("pack").metadata().and_then(|about| about.modified()).ok()
}

/// Makes the folders for new objects if several users share the repository. gix would make them with the modes of our umask,
/// so that no other user of the group could write to them (`core.sharedRepository`, git-config(1)).
pub(super) fn make_shared_folders(repo: &Repository) -> Result<()> {
    let config = repo.config_snapshot();
    let shared = config.string("core.sharedRepository").map(|value| value.to_string().to_ascii_lowercase());
    if shared.is_none_or(|value| ["", "0", "false", "no", "off", "umask"].contains(&value.as_str())) {
        return Ok(());
    }
    let objects = repo.objects.store_ref().path();
    let failed = || format!("'{}' cannot be prepared for all who share it", objects.display());
    let mode = objects.metadata().context(failed())?.permissions();
    for number in 0..=u8::MAX {
        let folder = objects.join(format!("{number:02x}"));
        let is_new = std::fs::create_dir(&folder).is_ok();
        if folder.metadata().is_ok_and(|about| about.permissions() != mode) {
            let set = std::fs::set_permissions(&folder, mode.clone());
            // Another user's folder cannot be changed by us.
            if is_new {
                set.context(failed())?;
            }
        }
    }
    Ok(())
}

/// Syncs loose objects, then the directories that hold them. Objects packed meanwhile were synced by git.
pub(super) fn sync_objects(repo: &Repository, ids: &[ObjectId]) -> Result<()> {
    let store = gix::odb::loose::Store::at(repo.objects.store_ref().path(), repo.object_hash());
    let files: Vec<PathBuf> = ids.iter().map(|id| store.object_path(id)).collect();
    // A disk serves parallel syncs at the price of one or two.
    std::thread::scope(|scope| {
        let share = files.len().div_ceil(AT_ONCE).max(1);
        let all = |files: &[PathBuf]| files.iter().try_for_each(|file| sync(file));
        let waiting: Vec<_> = files.chunks(share).map(|files| scope.spawn(move || all(files))).collect();
        let died = |_| Err(Error::failed("a thread that synced objects died"));
        waiting.into_iter().try_for_each(|sync| sync.join().unwrap_or_else(died))
    })?;
    let directories: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
    directories.into_iter().chain([store.path()]).try_for_each(sync)
}

pub(super) fn sync_ref(common_dir: &Path, name: &str) -> Result<()> {
    let file = common_dir.join(name);
    sync(&file)?;
    file.parent().map_or(Ok(()), sync)?;
    sync(&common_dir.join("logs").join(name))
}

fn sync(path: &Path) -> Result<()> {
    match File::open(path).and_then(|file| file.sync_all()) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context(format!("cannot sync {}", path.display()))
        }
        _ => Ok(()),
    }
}
