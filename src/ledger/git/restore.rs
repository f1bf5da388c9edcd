//! Bringing back what a discard or a prune put aside on rescue refs. Those stay: they cost nothing, and are there again.
//!
//! Submodules' clones come first and the run's own refs last, in one transaction: where a kill comes between, the run is
//! still away, and the same verb finishes what was begun.

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
use crate::error::{Error, Result};
use crate::run::goal::RunId;
use crate::run::text::a_few;

/// How many runs an error names.
const NAMED: usize = 5;

/// What was brought back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Refs of the repository.
    pub refs: Vec<String>,
    /// What came back in clones of submodules, in words.
    pub submodules: Vec<String>,
}

/// Refs by their full names.
type Refs = BTreeMap<String, ObjectId>;

/// The refs of one run in one repository.
struct Kept {
    /// Those that are in their places.
    here: Refs,
    /// What each removal put aside, by the time of it, under the names that the refs had.
    aside: BTreeMap<String, Refs>,
}

impl Kept {
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
            // One that keeps a commit alone is no removal's.
            let Some((time, rest)) = rest.split_once('/') else { continue };
            let name = format!("refs/{rest}");
            if is_of_run(&name, run) {
                kept.aside.entry(time.to_owned()).or_default().insert(name, id);
            }
        }
        Ok(kept)
    }

    /// What the newest removal put aside of those that `is_wanted`.
    fn newest(self, is_wanted: impl Fn(&Refs) -> bool) -> (Refs, Refs) {
        let newest = self.aside.into_values().rev().find(is_wanted);
        (self.here, newest.unwrap_or_default())
    }
}

/// Whether a removal of `run` can have put aside a ref of this name: anyone can push rescue refs.
fn is_of_run(name: &str, run: &RunId) -> bool {
    name == branch::name(run)
        || name.starts_with(&format!("refs/agentloop/run/{run}/"))
        || name.strip_prefix(LOCAL) == Some(run.as_str())
        || name.starts_with(REMOTE) && name.rsplit('/').next() == Some(run.as_str())
}

/// The run that a person means by `name`: as [`super::list::resolve`] has it, those that were discarded counted in; without
/// a name the one that was put away last.
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
        count => Err(Error::usage(format!("'{name}' matches {count} runs that were put away"))
            .hint(format!("it could be {}", a_few(&runs.iter().map(RunId::as_str).collect::<Vec<_>>(), NAMED)))),
    }
}

/// Brings back what of `run` was discarded or pruned last and is not here.
///
/// # Errors
/// Fails if nothing can be restored, or a ref of the same name is in the way.
pub fn restore(repo: &Repository, run: &RunId) -> Result<Restored> {
    let mut restored = Restored::default();
    for git_dir in clones::clones(repo)? {
        let (here, aside) = Kept::read(&git_dir, run)?.newest(|_| true);
        let back = bring_back(&git_dir, run, &here, &aside)?;
        if !back.is_empty() {
            restored.submodules.push(clones::in_words(back.len(), &git_dir));
        }
    }
    let (branch, log) = (branch::name(run), format!("{LOCAL}{run}"));
    let is_known = read::find(&repo.gix(), run)?.is_some();
    let kept = Kept::read(repo.common_dir(), run)?;
    let lacks = |name: &str| !kept.here.contains_key(name);
    let (lacks_branch, lacks_log) = (lacks(&branch), lacks(&log));
    let (here, aside) = kept.newest(|refs| {
        let has_log = refs.contains_key(&log) || !is_known && refs.keys().any(|name| name.starts_with(REMOTE));
        lacks_log && has_log || is_known && lacks_branch && refs.contains_key(&branch)
    });
    restored.refs = bring_back(repo.common_dir(), run, &here, &aside)?;
    if restored == Restored::default() {
        return Err(Error::usage(format!("nothing of {run} was discarded or pruned that is not here"))
            .hint(format!("'git agentloop show {run}' shows what there is")));
    }
    Ok(restored)
}

/// Makes those of `aside` that are missing `here`; which they were.
fn bring_back(git_dir: &Path, run: &RunId, here: &Refs, aside: &Refs) -> Result<Vec<String>> {
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

/// The command that does it.
#[must_use]
pub fn command(run: &RunId) -> String {
    format!("git agentloop restore {run}")
}
