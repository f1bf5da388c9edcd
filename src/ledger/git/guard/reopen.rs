//! A repository that cannot be opened, since an agent broke its configuration and the driver was killed before it could put
//! that back.

use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::files::{Found, Replaced, aside, replace};
use super::settings::{CONFIG, list};
use super::{Kept, Shelf, files_put_back};
use crate::error::Result;
use crate::host::store::{Bases, Store};
use crate::ledger::git::branch::stamp;
use crate::ledger::git::lock;
use crate::run::goal::RunId;

/// Puts back the configuration of the repository that `dir` is in as the newest driver that was killed had seen it, where
/// git cannot read it any more. Whether that was so. The next driver of that run has it on record.
pub(in crate::ledger::git) fn put_back_configuration(dir: &Path) -> Result<bool> {
    let Some(common_dir) = dir.ancestors().find_map(common_dir_of) else { return Ok(false) };
    let is_ours = common_dir.metadata().is_ok_and(|about| about.uid() == rustix::process::geteuid().as_raw());
    let Some((shelf, mut kept)) = left_by_killed(&common_dir).filter(|_| is_ours) else { return Ok(false) };
    let path = common_dir.join(CONFIG);
    let now = Found::at(&path);
    let Some(before @ Found::File { .. }) = kept.0.harmful.settings.get(CONFIG).cloned() else { return Ok(false) };
    if now.is_like(&before) && list(now.content())?.is_some() {
        return Ok(false);
    }
    let stamp = stamp();
    kept.2.extend(files_put_back(vec![format!("{CONFIG} ({})", now.in_words())], &stamp));
    shelf.save((&kept.0, &kept.1, &kept.2))?;
    let beside = (now != Found::Nothing).then(|| aside(&path, &stamp));
    Ok(matches!(replace(&path, &now, &before, beside.as_deref()), Ok(Replaced::Done)))
}

/// The git directory that the worktrees of the repository with a checkout at `dir` share.
fn common_dir_of(dir: &Path) -> Option<PathBuf> {
    let link = dir.join(".git");
    if link.is_dir() {
        return Some(link);
    }
    let Found::File { content, .. } = Found::at(&link) else { return None };
    let admin = dir.join(String::from_utf8(content).ok()?.strip_prefix("gitdir: ")?.trim_end());
    let Found::File { content, .. } = Found::at(&admin.join("commondir")) else { return None };
    Some(admin.join(String::from_utf8(content).ok()?.trim_end()))
}

/// What the newest driver kept that was killed, with its place.
fn left_by_killed(common_dir: &Path) -> Option<(Shelf, Kept)> {
    let shelves: Vec<(RunId, Shelf)> = if let Some(store) = Store::find(common_dir, &Bases::of_process()) {
        store.runs().into_iter().map(|run| (run.clone(), Shelf::Store(store.run(&run)))).collect()
    } else {
        let folders = std::fs::read_dir(common_dir.join("agentloop")).into_iter().flatten().flatten();
        let shelf = |folder: DirEntry| Some((folder.file_name().to_str()?.parse().ok()?, Shelf::Folder(folder.path())));
        folders.filter_map(shelf).collect()
    };
    let left = shelves.into_iter().filter(|(run, _)| !lock::is_held(common_dir, run));
    let (_, shelf) =
        left.filter_map(|(_, shelf)| Some((shelf.written()?, shelf))).max_by_key(|(written, _)| *written)?;
    let kept = shelf.load()?;
    Some((shelf, kept))
}
