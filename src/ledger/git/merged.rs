//! Finds the runs whose work is in the history of HEAD. This is derived and never recorded.
//!
//! A merge is found by reachability. A squash or a rebase makes other commits, which name the run in a trailer: they are
//! compared with the run's own commits and with the files that it changed.

use std::collections::{HashMap, HashSet};

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::revision::walk::Sorting;
use gix::traverse::commit::simple::CommitTimeOrder;

use super::repository::Repository;
use super::{branch, places, tree};
use crate::error::{Context as _, Result};
use crate::run::Snapshot;
use crate::run::goal::RunId;
use crate::run::message::{MERGED_TRAILER, RUN_TRAILER, VERDICT_TRAILER, trailer};

/// Largest difference between the clocks of two machines, in seconds.
const CLOCK_SKEW: i64 = 24 * 3600;

/// A commit in HEAD's history that names a run.
struct Trace {
    commit: ObjectId,
    merged: Option<String>,
    iteration: Option<u32>,
    is_checkpoint: bool,
    author: (i64, String),
}

/// Returns those of `runs` whose work is in HEAD's history.
pub fn merged(repo: &Repository, runs: &[(&RunId, &Snapshot)]) -> Result<HashSet<RunId>> {
    let gix = repo.gix();
    // A run that has not ended is not merged, even if part of its work is.
    let mut open: HashMap<&RunId, &Snapshot> = runs.iter().filter(|(_, at)| at.state.is_final()).copied().collect();
    let head_name = gix.head_name().ok().flatten().map(|name| name.as_bstr().to_string());
    open.retain(|run, _| head_name.as_deref() != Some(branch::name(run).as_str()));
    let Some(oldest) = open.values().map(|snapshot| snapshot.started.0 / 1000).min() else { return Ok(HashSet::new()) };
    let Ok(head) = gix.head_id() else { return Ok(HashSet::new()) };
    let tips = tips(&gix)?;
    let by_tip: HashMap<ObjectId, &RunId> =
        open.keys().filter_map(|run| Some((*tips.get(run.as_str())?, *run))).collect();

    let mut found = HashSet::new();
    let mut traces: HashMap<String, Vec<Trace>> = HashMap::new();
    let order = Sorting::ByCommitTimeCutoff { order: CommitTimeOrder::NewestFirst, seconds: oldest - CLOCK_SKEW };
    let walk = gix.rev_walk([head.detach()]).sorting(order).all().context("HEAD's history cannot be walked")?;
    // A shallow or damaged clone has a shorter history.
    for info in walk.map_while(std::result::Result::ok) {
        found.extend(by_tip.get(&info.id).map(|run| (*run).clone()));
        let Ok(object) = gix.find_object(info.id) else { break };
        if object.data.contains_str(RUN_TRAILER)
            && let Some((run, trace)) = trace(&object.into_commit())
        {
            traces.entry(run).or_default().push(trace);
        }
    }
    for (run, snapshot) in open {
        if found.contains(run) {
            continue;
        }
        let Some(traces) = traces.get(run.as_str()) else { continue };
        let is_in = match tips.get(run.as_str()) {
            Some(tip) => {
                is_squashed(traces, *tip) || is_rebased(&gix, run, *tip, traces) || is_in_files(&gix, run, *tip, traces)
            }
            // The branch was deleted, as is usual after a merge: the trailer of its last iteration decides.
            None => traces.iter().any(|trace| {
                trace.merged.is_some() || trace.is_checkpoint && trace.iteration == Some(snapshot.iteration)
            }),
        };
        if is_in {
            found.insert(run.clone());
        }
    }
    Ok(found)
}

/// Maps runs to the commits of their branches.
fn tips(gix: &gix::Repository) -> Result<HashMap<String, ObjectId>> {
    const BRANCHES: &str = "refs/heads/agentloop/";
    let tip = |reference: &gix::refs::Reference| {
        let run = reference.name.as_bstr().to_str().ok()?.strip_prefix(BRANCHES)?.to_owned();
        Some((run, reference.target.try_id()?.to_owned()))
    };
    Ok(places::prefixed(gix, BRANCHES, tip)?.into_iter().collect())
}

fn trace(commit: &gix::Commit<'_>) -> Option<(String, Trace)> {
    let message = commit.message_raw_sloppy().to_str_lossy().into_owned();
    let run = trailer(&message, RUN_TRAILER)?.trim().to_owned();
    Some((
        run,
        Trace {
            commit: commit.id,
            merged: trailer(&message, MERGED_TRAILER).map(|tip| tip.trim().to_owned()),
            iteration: trailer(&message, "Agentloop-Iteration").and_then(|number| number.trim().parse().ok()),
            is_checkpoint: trailer(&message, VERDICT_TRAILER).is_some(),
            author: author(commit, &message)?,
        },
    ))
}

/// Returns what rebase and cherry-pick preserve of a commit.
fn author(commit: &gix::Commit<'_>, message: &str) -> Option<(i64, String)> {
    Some((commit.author().ok()?.seconds(), message.lines().next().unwrap_or_default().to_owned()))
}

fn is_squashed(traces: &[Trace], tip: ObjectId) -> bool {
    traces.iter().any(|trace| trace.merged.as_deref() == Some(tip.to_string().as_str()))
}

/// Reports whether each commit of the run that changed something has a copy.
fn is_rebased(gix: &gix::Repository, run: &RunId, tip: ObjectId, traces: &[Trace]) -> bool {
    let copies: HashSet<&(i64, String)> = traces.iter().map(|trace| &trace.author).collect();
    let own = branch::own_commits(gix, run, tip).unwrap_or_default();
    !own.is_empty()
        && own.iter().all(|commit| {
            let Ok(commit) = gix.find_commit(*commit) else { return false };
            let message = commit.message_raw_sloppy().to_str_lossy().into_owned();
            author(&commit, &message).is_some_and(|author| copies.contains(&author))
        })
}

/// Reports whether one of the commits that name the run has all files that it changed as the run left them.
fn is_in_files(gix: &gix::Repository, run: &RunId, tip: ObjectId, traces: &[Trace]) -> bool {
    let entries = |commit: ObjectId| gix.find_commit(commit).ok()?.tree().ok();
    let changed = || -> Option<Vec<gix::bstr::BString>> {
        let base = branch::base_tree(gix, &tip.to_string(), run).ok()??;
        let changes = tree::changes(gix, Repository::id(&base).ok()?, tip).ok()?;
        let files = changes.iter().filter(|change| !change.entry_mode().is_tree());
        Some(files.map(|change| change.location().to_owned()).collect())
    };
    let (Some(changed), Some(left)) = (changed(), entries(tip)) else { return false };
    let at = |tree: &gix::Tree<'_>, path: &gix::bstr::BString| {
        tree.lookup_entry(path.split(|byte| *byte == b'/')).ok().flatten().map(|entry| entry.object_id())
    };
    !changed.is_empty()
        && traces.iter().any(|trace| {
            entries(trace.commit).is_some_and(|there| changed.iter().all(|path| at(&there, path) == at(&left, path)))
        })
}
