//! A repository that cannot be opened, since an agent broke its configuration and the driver was killed before it could put
//! that back.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::files::{Found, Replaced, aside, replace};
use super::settings::list;
use super::sight::CONFIG;
use super::{Kept, files_put_back, load, save};
use crate::error::Result;
use crate::ledger::git::branch::stamp;
use crate::ledger::git::lock;
use crate::run::goal::RunId;

/// Puts back the configuration of the repository that `dir` is in as the newest driver that was killed had seen it, where
/// git cannot read it any more. Whether that was so. The next driver of that run has it on record.
pub(in crate::ledger::git) fn put_back_configuration(dir: &Path) -> Result<bool> {
    let Some(common_dir) = dir.ancestors().find_map(common_dir_of) else { return Ok(false) };
    let is_ours = common_dir.metadata().is_ok_and(|about| about.uid() == rustix::process::geteuid().as_raw());
    let Some((file, mut kept)) = left_by_killed(&common_dir).filter(|_| is_ours) else { return Ok(false) };
    let path = common_dir.join(CONFIG);
    let now = Found::at(&path);
    let Some(before @ Found::File { .. }) = kept.0.harmful.settings.get(CONFIG).cloned() else { return Ok(false) };
    if now.is_like(&before) && list(now.content())?.is_some() {
        return Ok(false);
    }
    let stamp = stamp();
    kept.2.extend(files_put_back(vec![format!("{CONFIG} ({})", now.in_words())], &stamp));
    save(&file, (&kept.0, &kept.1, &kept.2))?;
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

/// What the newest driver kept that was killed, with its file.
fn left_by_killed(common_dir: &Path) -> Option<(PathBuf, Kept)> {
    let folders = std::fs::read_dir(common_dir.join("agentloop")).into_iter().flatten().flatten();
    let left = folders.filter_map(|folder| {
        let run: RunId = folder.file_name().to_str()?.parse().ok()?;
        let file = folder.path().join(super::super::GUARD);
        let written = file.metadata().and_then(|about| about.modified()).ok()?;
        (!lock::is_held(common_dir, &run)).then_some((written, file))
    });
    let (_, file) = left.max()?;
    let kept = load(&file)?;
    Some((file, kept))
}
