//! Restores the configuration of a repository that cannot be opened, because an agent broke it and the driver was killed
//! before it could restore it.

use std::fs::DirEntry;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;

use super::files::{Found, Replaced, aside, replace};
use super::settings::{CONFIG, OF_A_WORKTREE, list};
use super::sight::INCLUDES;
use super::{GuardStore, StoredState, files_put_back};
use crate::error::Result;
use crate::host::store::{Bases, Store};
use crate::ledger::git::branch::stamp;
use crate::ledger::git::lock;
use crate::process::global_config;
use crate::run::goal::RunId;

/// Restores the configuration of the repository of `dir` as the newest killed driver had seen it, if git cannot read it.
/// Reports whether it did. The run's next driver records that.
pub(in crate::ledger::git) fn put_back_configuration(dir: &Path) -> Result<bool> {
    let Some(common_dir) = dir.ancestors().find_map(common_dir_of) else { return Ok(false) };
    let is_ours = common_dir.metadata().is_ok_and(|about| about.uid() == rustix::process::geteuid().as_raw());
    let Some((shelf, mut kept)) = load_from_killed(&common_dir).filter(|_| is_ours) else { return Ok(false) };
    let path = common_dir.join(CONFIG);
    let now = Found::at(&path);
    let Some(before @ Found::File { .. }) = kept.0.harmful.settings.get(CONFIG).cloned() else { return Ok(false) };
    if now.is_like(&before) && list(now.content())?.is_some() {
        return Ok(false);
    }
    let stamp = stamp();
    kept.2.extend(files_put_back(vec![format!("{CONFIG} ({})", now.describe())], &stamp));
    shelf.save((&kept.0, &kept.1, &kept.2))?;
    let beside = (now != Found::Nothing).then(|| aside(&path, &stamp));
    Ok(matches!(replace(&path, &now, &before, beside.as_deref()), Ok(Replaced::Done)))
}

/// Files in a git directory that git reads first (gitrepository-layout(5)).
const READ_FIRST: [&str; 4] = ["HEAD", "commondir", "gitdir", "packed-refs"];

/// Returns a FIFO or a device in place of a file that git reads first in the repository of `dir`, on which git would block
/// or read forever; `None` if there is none.
pub(in crate::ledger::git) fn in_the_way(dir: &Path) -> Option<PathBuf> {
    let git_dirs = dir.ancestors().find_map(|dir| {
        let link = dir.join(".git");
        let is_there = link.symlink_metadata().is_ok();
        let is_bare = || dir.join("objects").is_dir() && dir.join("HEAD").symlink_metadata().is_ok();
        if !is_there {
            return is_bare().then(|| vec![dir.to_owned()]);
        }
        Some(admin_of(dir).into_iter().chain(common_dir_of(dir)).chain([link]).collect())
    });
    let dirs: Vec<PathBuf> = git_dirs.unwrap_or_default();
    let below = |names: &[&str]| -> Vec<PathBuf> {
        dirs.iter().flat_map(|dir| names.iter().map(|name| dir.join(name))).collect()
    };
    let mut settings = below(&[CONFIG, OF_A_WORKTREE]);
    settings.extend(global_config());
    let is_endless = |path: &PathBuf| {
        path.metadata().is_ok_and(|about| {
            let kind = about.file_type();
            kind.is_fifo()
                || kind.is_char_device() && path.canonicalize().is_ok_and(|path| path != Path::new("/dev/null"))
        })
    };
    if let Some(found) = below(&READ_FIRST).into_iter().chain(dirs.last().cloned()).find(is_endless) {
        return Some(found);
    }
    for _ in 0..INCLUDES {
        if let Some(found) = settings.iter().find(|path| is_endless(path)) {
            return Some(found.clone());
        }
        settings = settings.iter().flat_map(|path| may_include(path)).collect();
    }
    None
}

/// Lists the files that a settings file may include: the values of all keys `path`, in any section.
fn may_include(file: &Path) -> Vec<PathBuf> {
    let found = Found::at(file);
    let Some(content) = found.content().filter(|content| content.to_ascii_lowercase().contains_str("[include")) else {
        return Vec::new();
    };
    let values = content.lines().filter_map(|line| {
        let (key, value) = line.split_once_str("=")?;
        let is_path =
            key.trim().rsplit(|byte| byte.is_ascii_whitespace() || *byte == b']').next()?.eq_ignore_ascii_case(b"path");
        is_path.then(|| value.trim().trim_with(|character| character == '"').to_path().ok()).flatten()
    });
    let home = std::env::home_dir().unwrap_or_default();
    let from = |path: &Path| {
        path.strip_prefix("~").map_or_else(|_| file.with_file_name("").join(path), |path| home.join(path))
    };
    values.map(from).collect()
}

/// Returns the git directory of a linked worktree at `dir`.
fn admin_of(dir: &Path) -> Option<PathBuf> {
    let Found::File { content, .. } = Found::at(&dir.join(".git")) else { return None };
    Some(dir.join(String::from_utf8(content).ok()?.strip_prefix("gitdir: ")?.trim_end()))
}

/// Returns the common git directory of the repository with a checkout at `dir`.
fn common_dir_of(dir: &Path) -> Option<PathBuf> {
    let link = dir.join(".git");
    if link.is_dir() {
        return Some(link);
    }
    let admin = admin_of(dir)?;
    let Found::File { content, .. } = Found::at(&admin.join("commondir")) else { return None };
    Some(admin.join(String::from_utf8(content).ok()?.trim_end()))
}

/// Loads the observations of the newest killed driver, with their place.
fn load_from_killed(common_dir: &Path) -> Option<(GuardStore, StoredState)> {
    let shelves: Vec<(RunId, GuardStore)> = if let Some(store) = Store::find(common_dir, &Bases::of_process()) {
        store.runs().into_iter().map(|run| (run.clone(), GuardStore::Store(store.run(&run)))).collect()
    } else {
        let folders = std::fs::read_dir(common_dir.join("agentloop")).into_iter().flatten().flatten();
        let shelf =
            |folder: DirEntry| Some((folder.file_name().to_str()?.parse().ok()?, GuardStore::Folder(folder.path())));
        folders.filter_map(shelf).collect()
    };
    let left = shelves.into_iter().filter(|(run, _)| !lock::is_held(common_dir, run));
    let (_, shelf) =
        left.filter_map(|(_, shelf)| Some((shelf.written()?, shelf))).max_by_key(|(written, _)| *written)?;
    let kept = shelf.load()?;
    Some((shelf, kept))
}
