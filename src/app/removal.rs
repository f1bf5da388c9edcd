//! Verbs that remove runs from the repository.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::leftovers::{ORPHAN_GRACE, stop_leftovers};
use super::{Listed, Site, now};
use crate::error::{Error, Result};
use crate::host::store::Bases;
use crate::ledger::git::removal::{self, Extent};
use crate::ledger::git::{GitLedger, lock};
use crate::process;
use crate::run::goal::RunId;

/// Result of removing a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// The run.
    pub run_id: RunId,
    /// Removed worktrees.
    pub worktrees: Vec<String>,
    /// Removed refs.
    pub refs: Vec<String>,
    /// The directory of its files in the git directory, if that was removed.
    pub folder: Option<String>,
    /// Content that only the worktrees held, and the rescue refs that keep it.
    pub kept: Vec<String>,
    /// The command that restores the refs.
    pub undo: Option<String>,
}

/// A run whose worktrees and branch can be pruned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Prunable {
    /// The run.
    pub run_id: RunId,
    /// Its worktrees.
    pub worktrees: Vec<String>,
    /// Its refs, without its record.
    pub refs: Vec<String>,
    /// The directory of its files in the git directory, if a killed driver left it.
    pub folder: Option<String>,
    /// Descriptions of what it left in clones of submodules.
    pub submodules: Vec<String>,
    /// Result of the removal; `None` if nothing was to be removed yet.
    pub removal: Option<Removal>,
}

/// Removes a run's worktrees, branch and record. What only they hold is kept on rescue refs.
///
/// # Errors
/// Fails if there is no such run, if it is live, or if its branch is checked out.
pub async fn discard(site: &Site, run: &str) -> Result<Removal> {
    let id = site.repo.resolve(Some(run))?;
    remove(site, &id, Extent::Everything).await
}

/// Finds the ended runs whose work is in HEAD's history and whose record did not change for `idle` seconds; with `apply`,
/// removes their worktrees and branches, but not their records. Remnants of unrecorded runs whose driver was killed are
/// removed too. If one cannot be removed the others still are; the first such error is returned beside the runs.
pub async fn prune(site: &Site, idle: f64, apply: bool) -> Result<(Vec<Prunable>, Option<Error>)> {
    let now = now();
    let mut failed = None;
    let is_due = |listed: &Listed| listed.merged && now.since(listed.updated_at) >= idle;
    let mut found = Vec::new();
    let due: Vec<Listed> = super::list(site)?.into_iter().filter(is_due).collect();
    let mut in_submodules = if due.is_empty() { HashMap::default() } else { removal::held_by_submodules(&site.repo)? };
    for listed in due {
        let id = listed.status.run_id;
        let held = removal::holdings(&site.repo, &id, Extent::Work)?;
        let submodules = in_submodules.remove(id.as_str()).unwrap_or_default();
        if held.worktrees.is_empty() && held.refs.is_empty() && submodules.is_empty() {
            continue;
        }
        let removal = if apply { Some(remove(site, &id, Extent::Work).await) } else { None };
        let removal = match removal.transpose() {
            Ok(removal) => removal,
            Err(error) => {
                failed.get_or_insert(error);
                continue;
            }
        };
        found.push(Prunable {
            run_id: id,
            worktrees: paths(&held.worktrees),
            refs: held.refs.into_iter().map(|(name, _)| name).collect(),
            folder: None,
            submodules,
            removal,
        });
    }
    let before = SystemTime::now().checked_sub(Duration::try_from_secs_f64(idle).unwrap_or(Duration::MAX));
    for run_id in removal::remnants(&site.repo, before.unwrap_or(SystemTime::UNIX_EPOCH))? {
        let held = removal::holdings(&site.repo, &run_id, Extent::Everything)?.refs.into_iter();
        let refs: Vec<String> = held.map(|(name, _)| name).collect();
        let folder = Some(folder(site, &run_id));
        let removal = apply.then(|| Removal {
            run_id: run_id.clone(),
            worktrees: Vec::new(),
            refs: refs.clone(),
            folder: folder.clone(),
            kept: Vec::new(),
            undo: None,
        });
        if apply && let Err(error) = removal::clear_remnant(&site.repo, &run_id) {
            failed.get_or_insert(error);
            continue;
        }
        found.push(Prunable { run_id, worktrees: Vec::new(), refs, folder, submodules: Vec::new(), removal });
    }
    if apply {
        let _ = Bases::of_process().remove_gone(); // stores of other repositories, which are gone
    }
    Ok((found, failed))
}

async fn remove(site: &Site, id: &RunId, extent: Extent) -> Result<Removal> {
    super::refuse_nested(site)?;
    if lock::holder(site.repo.common_dir(), id).is_some() {
        return Err(Error::usage(format!("{id} is running"))
            .hint(format!("'git agentloop cancel {id}' stops it; its work so far is then committed")));
    }
    process::become_subreaper();
    stop_leftovers(site, id, ORPHAN_GRACE).await;
    let removed = removal::remove(&site.repo, id, extent)?;
    Ok(Removal {
        run_id: id.clone(),
        worktrees: paths(&removed.worktrees),
        refs: removed.refs,
        folder: (extent == Extent::Everything).then(|| folder(site, id)),
        kept: removed.kept,
        undo: removed.undo,
    })
}

fn folder(site: &Site, run: &RunId) -> String {
    GitLedger::scratch_of(&site.repo, run).to_string_lossy().into_owned()
}

fn paths(paths: &[std::path::PathBuf]) -> Vec<String> {
    paths.iter().map(|path| path.to_string_lossy().into_owned()).collect()
}
