//! Reads a run's record: its events, and its state from one commit.

use gix::{ObjectId, Repository};

use super::pages::parse;
pub use super::places::Noted;
use super::places::{LOCAL, Place, REMOTE, places};
use super::seal::Seals;
use super::union;
use super::verify;
pub use super::verify::Reading;
use crate::error::Result;
use crate::host::store::Store;
use crate::run::Run;
use crate::run::event::Event;
use crate::run::goal::RunId;

/// Returns all events of `run` in order, by any writer; `None` if there is no such run. If this repository has no log
/// of its own for it, a fetched one is read.
pub fn events(repo: &Repository, run: &RunId) -> Result<Option<Vec<Event>>> {
    let repo = &as_written(repo);
    match find(repo, run)? {
        Some(place) => union::load(repo, &place.name)?.map(|log| Ok(parse(repo, &log)?.events)).transpose(),
        None => Ok(None),
    }
}

/// Returns the log of `run`; `None` if there is no such run. If the run was driven in the clone of `store`, only its
/// drivers' events count, and with `adopting` all others too. Of any other run all events count, unverified.
pub fn log(repo: &Repository, store: Option<&Store>, run: &RunId, adopting: bool) -> Result<Option<Reading>> {
    let repo = &as_written(repo);
    let place = find(repo, run)?;
    let seals = store.map(|store| Seals::of(store, run));
    if let Some(seals) = seals
        && let Some(acks) = seals.read()?
    {
        let own = place.filter(|place| place.remote.is_none());
        let (log, unreadable) = match own.map(|place| union::load(repo, &place.name)).transpose() {
            Ok(log) => (log.flatten(), None),
            Err(error) => (None, Some(error)),
        };
        let reading = Reading::of(repo, &seals, &acks, log.as_ref(), adopting)?;
        // Acknowledged events are found without the ref, unless the repository's objects are gone.
        return match unreadable.filter(|_| reading.log.events.is_empty()) {
            Some(error) => Err(error),
            None => Ok(Some(reading)),
        };
    }
    let Some(log) = place.map(|place| union::load(repo, &place.name)).transpose()?.flatten() else { return Ok(None) };
    Ok(Some(Reading { log: parse(repo, &log)?, ..Reading::default() }))
}

/// Returns the state of `run`; `None` if there is no such run. Reads one commit, unless another program made the newest one
/// or restored an older one.
pub fn snapshot(repo: &Repository, store: Option<&Store>, run: &RunId) -> Result<Option<Noted>> {
    let repo = &as_written(repo);
    let Some(place) = find(repo, run)? else { return Ok(None) };
    if let Some(seals) = store.filter(|_| place.remote.is_none()).map(|store| Seals::of(store, run))
        && let Some(newest) = seals.newest()?
    {
        return verify::verified_state(repo, run, &seals, &newest, &place);
    }
    Ok(state(repo, run.clone(), &place))
}

/// Returns the state of the run at `place`, by any writer: from its newest commit, or from the events if no commit
/// carries a state.
fn state(repo: &Repository, run: RunId, place: &Place) -> Option<Noted> {
    unverified(repo, run.clone(), place).or_else(|| {
        let log = union::load(repo, &place.name).ok().flatten()?;
        let run_state = Run::replay(&parse(repo, &log).ok()?.events);
        let (snapshot, updated, remote) = (run_state.snapshot(), run_state.now, place.remote.clone());
        run_state.id.is_some().then_some(Noted { run, snapshot, updated, remote, verified: false })
    })
}

/// Returns the notes ref that holds the log of `run`; `None` if there is no such run.
pub fn notes_ref(repo: &Repository, run: &RunId) -> Result<Option<String>> {
    Ok(find(repo, run)?.map(|place| place.name))
}

/// Makes a handle that ignores `git replace`: a record is what a driver recorded.
pub(super) fn as_written(repo: &Repository) -> Repository {
    let mut repo = repo.clone();
    repo.objects.ignore_replacements = true;
    repo
}

/// Finds the ref that holds the log of `run`: the local one, or the fetched one with the most events.
pub(super) fn find(repo: &Repository, run: &RunId) -> Result<Option<Place>> {
    let name = format!("{LOCAL}{run}");
    if let Some(tip) = union::tip(repo, &name)? {
        return Ok(Some(Place { name, tip, remote: None }));
    }
    let fetched = places(repo, REMOTE)?.into_iter().filter(|(found, _)| found == run).map(|(_, place)| place);
    let seq = |place: &Place| unverified(repo, run.clone(), place).map_or(0, |noted| noted.snapshot.seq);
    Ok(fetched.max_by_key(seq))
}

/// Returns the state of the run whose log is at `place`; `None` if no commit there is ours. The newest acknowledgement tells
/// a tip from an older one that was put back.
pub(super) fn noted(repo: &Repository, store: Option<&Store>, run: RunId, place: &Place) -> Option<Noted> {
    if let Some(seals) = store.filter(|_| place.remote.is_none()).map(|store| Seals::of(store, &run))
        && let Some(newest) = seals.newest().ok().flatten()
    {
        return verify::verified_state(repo, &run, &seals, &newest, place).ok().flatten();
    }
    state(repo, run, place)
}

/// Returns the state in the newest commit of ours at `place`, by any writer.
fn unverified(repo: &Repository, run: RunId, place: &Place) -> Option<Noted> {
    let newest = newest(repo, None, &place.name, place.tip)?;
    let (snapshot, updated) = (newest.snapshot?, newest.time);
    Some(Noted { run, snapshot, updated, remote: place.remote.clone(), verified: false })
}

/// Returns the newest commit of ours under `name`. If there are seals, a sealed commit has priority.
pub(super) fn newest(repo: &Repository, seals: Option<&Seals>, name: &str, tip: ObjectId) -> Option<union::Commit> {
    let is_vouched = |commit: &union::Commit| seals.is_none_or(|seals| seals.sealed(&commit.message).is_some());
    let found = union::commit(repo, tip);
    if let Some(tip) = found.as_ref().filter(|tip| tip.snapshot.is_some() && is_vouched(tip)) {
        return Some(tip.clone());
    }
    let all = union::others(repo, name, tip, found.as_ref()).into_iter().chain(found);
    let ours: Vec<union::Commit> = all.filter(|commit| commit.snapshot.is_some()).collect();
    let rank = |commit: &union::Commit| (is_vouched(commit), commit.snapshot.as_ref().map(|snapshot| snapshot.seq));
    ours.into_iter().max_by_key(rank)
}
