//! Restores what a discard or a prune moved to rescue refs. Those stay: they cost nothing.
//!
//! Submodules' clones come first and the run's own refs last, in one transaction: after a kill in between, the run is still
//! discarded, and the same command finishes the restore.

use std::collections::BTreeMap;
use std::path::Path;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::branch;
use super::command::Git;
use super::places::{self, LOCAL, REMOTE};
use super::provision::clones;
use super::read;
use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Repository;
use super::seal;
use crate::error::{Error, Result};
use crate::host::authority;
use crate::run::goal::RunId;
use crate::run::text::a_few;

/// Files of a run in the private store that come back with it.
pub(super) const STORE_FILES: [&str; 2] = [seal::FILE, authority::FILE];
/// Number of runs that an error names.
const NAMED: usize = 5;

/// Result of a restore.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Refs of the repository.
    pub refs: Vec<String>,
    /// Messages on commits restored in clones of submodules.
    pub submodules: Vec<String>,
}

/// Refs by their full names.
type Refs = BTreeMap<String, ObjectId>;

/// The refs of one run in one repository.
struct RunRefs {
    /// Refs that exist under their own names.
    here: Refs,
    /// Rescued refs by the time of their removal, under the names that they had.
    aside: BTreeMap<String, Refs>,
}

impl RunRefs {
    fn read(git_dir: &Path, run: &RunId) -> Result<Self> {
        let rescue = format!("refs/agentloop/rescue/{run}/");
        let git = Git::in_git_dir(git_dir, "for-each-ref").arg("--format=%(objectname) %(refname)");
        let places =
            [branch::name(run), format!("refs/agentloop/run/{run}/"), format!("{LOCAL}{run}"), REMOTE.to_owned()];
        let printed = git.args(places).arg(&rescue).run()?;
        let mut kept = Self { here: Refs::new(), aside: BTreeMap::new() };
        for (id, name) in printed.lines().filter_map(|line| line.to_str().ok()?.split_once(' ')) {
            let id = Repository::id(id)?;
            let Some(rest) = name.strip_prefix(&rescue) else {
                kept.here.insert(name.to_owned(), id);
                continue;
            };
            // A rescue ref of a single commit belongs to no removal.
            let Some((time, rest)) = rest.split_once('/') else { continue };
            let name = format!("refs/{rest}");
            if is_of_run(&name, run) {
                kept.aside.entry(time.to_owned()).or_default().insert(name, id);
            }
        }
        Ok(kept)
    }

    /// Returns the existing refs, and those of the newest removal for which `is_wanted` holds.
    fn newest(self, is_wanted: impl Fn(&Refs) -> bool) -> (Refs, Refs) {
        let newest = self.aside.into_values().rev().find(is_wanted);
        (self.here, newest.unwrap_or_default())
    }
}

/// Reports whether a removal of `run` can have rescued a ref of this name: anyone can push rescue refs.
fn is_of_run(name: &str, run: &RunId) -> bool {
    name == branch::name(run)
        || name.starts_with(&format!("refs/agentloop/run/{run}/"))
        || name.strip_prefix(LOCAL) == Some(run.as_str())
        || name.starts_with(REMOTE) && name.rsplit('/').next() == Some(run.as_str())
}

/// Finds the run that a person means by `name`, as [`super::list::resolve`] does but including discarded runs; without a
/// name, the one that was removed last.
///
/// # Errors
/// Fails unless exactly one run matches.
pub fn resolve(repo: &Repository, name: Option<&str>) -> Result<RunId> {
    const RESCUE: &str = "refs/agentloop/rescue/";
    let gix = repo.gix();
    let removal = |reference: &gix::refs::Reference| {
        let mut parts = reference.name.as_bstr().to_str().ok()?.strip_prefix(RESCUE)?.split('/');
        let (run, time) = (parts.next()?.parse::<RunId>().ok()?, parts.next()?.to_owned());
        parts.next().map(|_| (time, run))
    };
    let removals = places::prefixed(&gix, RESCUE, removal)?;
    let Some(name) = name else {
        return removals.into_iter().max().map(|(_, run)| run).ok_or_else(|| {
            Error::usage("no run was discarded or pruned here")
                .hint("'git agentloop list' shows this repository's runs")
        });
    };
    let name = name.strip_prefix("agentloop/").unwrap_or(name);
    let mut runs: Vec<RunId> =
        removals.into_iter().map(|(_, run)| run).filter(|run| run.as_str().starts_with(name)).collect();
    runs.sort();
    runs.dedup();
    if let Some(at) = runs.iter().position(|run| run.as_str() == name) {
        return Ok(runs.swap_remove(at));
    }
    match runs.len() {
        0 => repo.resolve(Some(name)),
        1 => Ok(runs.swap_remove(0)),
        count => Err(Error::ambiguous(format!("'{name}' matches {count} runs that were put away"))
            .hint(format!("it could be {}", a_few(&runs.iter().map(RunId::as_str).collect::<Vec<_>>(), NAMED)))),
    }
}

/// Restores what was last discarded or pruned of `run` and does not exist.
///
/// # Errors
/// Fails if nothing can be restored, or a ref of the same name is in the way.
pub fn restore(repo: &Repository, run: &RunId) -> Result<Restored> {
    let mut restored = Restored::default();
    // First: between the two, its log would be one from elsewhere.
    if let Some(store) = repo.store() {
        store.run(run).bring_back(&STORE_FILES)?;
    }
    for git_dir in clones::clones(repo)? {
        let (here, aside) = RunRefs::read(&git_dir, run)?.newest(|_| true);
        let back = create_missing(&git_dir, run, &here, &aside)?;
        if !back.is_empty() {
            restored.submodules.push(clones::describe(back.len(), &git_dir));
        }
    }
    let (branch, log) = (branch::name(run), format!("{LOCAL}{run}"));
    let is_known = read::find(&repo.gix(), run)?.is_some();
    let kept = RunRefs::read(repo.common_dir(), run)?;
    let lacks = |name: &str| !kept.here.contains_key(name);
    let (lacks_branch, lacks_log) = (lacks(&branch), lacks(&log));
    let (here, aside) = kept.newest(|refs| {
        let has_log = refs.contains_key(&log) || !is_known && refs.keys().any(|name| name.starts_with(REMOTE));
        lacks_log && has_log || is_known && lacks_branch && refs.contains_key(&branch)
    });
    restored.refs = create_missing(repo.common_dir(), run, &here, &aside)?;
    if restored == Restored::default() {
        return Err(Error::usage(format!("nothing of {run} was discarded or pruned that is not here"))
            .hint(format!("'git agentloop show {run}' shows what there is")));
    }
    Ok(restored)
}

/// Creates those of `aside` that are missing `here`, and returns their names.
fn create_missing(git_dir: &Path, run: &RunId, here: &Refs, aside: &Refs) -> Result<Vec<String>> {
    if let Some((name, id)) = aside.iter().find(|(name, id)| here.get(*name).is_some_and(|other| other != *id)) {
        return Err(Error::usage(format!("'{name}' is here already, and is not what was put away ({id})"))
            .hint(format!("move it first: git update-ref {name}-moved {name} && git update-ref -d {name}")));
    }
    let missing: Vec<(&String, &ObjectId)> = aside.iter().filter(|(name, _)| !here.contains_key(*name)).collect();
    let change =
        |(name, id): &(&String, &ObjectId)| Change { name: (*name).clone(), new: Some(**id), old: Expect::Absent };
    let changes: Vec<Change> = missing.iter().map(change).collect();
    if RefMover::new(git_dir.to_owned()).synced(true).swap(&changes)? == Swap::Lost {
        return Err(Error::failed(format!("another program made a ref of {run} in '{}' meanwhile", git_dir.display()))
            .hint("look at what changed, then do it again"));
    }
    Ok(missing.into_iter().map(|(name, _)| name.clone()).collect())
}

/// Returns the command that restores `run`.
#[must_use]
pub fn command(run: &RunId) -> String {
    format!("git agentloop restore {run}")
}
