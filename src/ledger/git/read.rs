//! Reading a run's record: its events, and its state from one commit.

use gix::{ObjectId, Repository, ThreadSafeRepository};

use super::notes::{self, Note};
use super::objects::blob;
use super::union::{self, Log};
use crate::error::{Context as _, Error, Result};
use crate::run::event::{self, Aside, Event, Timestamp};
use crate::run::goal::RunId;
use crate::run::{Run, Snapshot};

/// Where our logs are.
pub(super) const LOCAL: &str = "refs/notes/agentloop/";
/// Where fetched logs are: below it `<remote>/<run>`.
pub(super) const REMOTE: &str = "refs/notes/agentloop-remote/";
/// Longest page that is read, in bytes. A driver closes one that is longer than 64 KiB; a single line can be longer.
const PAGE_LIMIT: u64 = 24 * 1024 * 1024;
/// Pages that one thread reads as quickly as several.
const FEW_PAGES: usize = 8;

/// A run as the newest commit of ours on its notes ref tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Noted {
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub snapshot: Snapshot,
    /// When its newest event happened, to the second: the commit's time.
    pub updated: Timestamp,
    /// The remote it was fetched from; none where it is this repository's own.
    pub remote: Option<String>,
}

/// Every event of `run`, in order; nothing where there is no such run. Where this repository has no log of its own for
/// it, a fetched one is read.
///
/// # Errors
/// Where the log cannot be read.
pub fn events(repo: &Repository, run: &RunId) -> Result<Option<Vec<Event>>> {
    Ok(log(repo, run)?.map(|log| log.events))
}

/// The log of `run` with what was set aside of it, as [`events`] finds it.
///
/// # Errors
/// Where the log cannot be read.
pub fn log(repo: &Repository, run: &RunId) -> Result<Option<event::Log>> {
    match find(repo, run)? {
        Some(place) => union::load(repo, &place.name)?.map(|log| parse(repo, &log)).transpose(),
        None => Ok(None),
    }
}

/// Where `run` stands; nothing where there is no such run. One commit is read, unless other hands made the newest one.
///
/// # Errors
/// Where the log cannot be read.
pub fn snapshot(repo: &Repository, run: &RunId) -> Result<Option<Noted>> {
    Ok(find(repo, run)?.and_then(|place| state(repo, run.clone(), place)))
}

/// Where the run at `place` stands: as its newest commit tells, or, where none carries a state that a driver writes, as the
/// events do.
pub(super) fn state(repo: &Repository, run: RunId, place: Place) -> Option<Noted> {
    noted(repo, run.clone(), &place.name, place.tip, place.remote.clone()).or_else(|| {
        let log = union::load(repo, &place.name).ok().flatten()?;
        let told = Run::replay(&parse(repo, &log).ok()?.events);
        told.id.is_some().then(|| Noted { run, snapshot: told.snapshot(), updated: told.now, remote: place.remote })
    })
}

/// The notes ref that holds the log of `run`; nothing where there is no such run.
///
/// # Errors
/// Where refs cannot be read.
pub fn notes_ref(repo: &Repository, run: &RunId) -> Result<Option<String>> {
    Ok(find(repo, run)?.map(|place| place.name))
}

/// Where a run's log is.
pub(super) struct Place {
    pub name: String,
    pub tip: ObjectId,
    pub remote: Option<String>,
}

/// The ref that holds the log of `run`: ours, else the fetched one that knows most.
pub(super) fn find(repo: &Repository, run: &RunId) -> Result<Option<Place>> {
    let name = format!("{LOCAL}{run}");
    if let Some(tip) = union::tip(repo, &name)? {
        return Ok(Some(Place { name, tip, remote: None }));
    }
    let fetched = places(repo, REMOTE)?.into_iter().filter(|(found, _)| found == run).map(|(_, place)| place);
    let seq =
        |place: &Place| noted(repo, run.clone(), &place.name, place.tip, None).map_or(0, |noted| noted.snapshot.seq);
    Ok(fetched.max_by_key(seq))
}

/// The runs whose refs start with `prefix`. What is no run's ref there is somebody else's, and passed over.
pub(super) fn places(repo: &Repository, prefix: &str) -> Result<Vec<(RunId, Place)>> {
    prefixed(repo, prefix, place)
}

/// What `of` makes of each ref whose name starts with `prefix`, as it is stored: several times as quick as one that is
/// resolved.
pub(super) fn prefixed<T>(
    repo: &Repository,
    prefix: &str,
    of: impl Fn(&gix::refs::Reference) -> Option<T>,
) -> Result<Vec<T>> {
    let unreadable = "cannot list the refs of runs";
    let packed = repo.refs.cached_packed_buffer().context(unreadable)?;
    let relative: &gix::path::RelativePath = prefix.try_into().context(unreadable)?;
    let refs = repo.refs.iter_prefixed_packed(relative, packed.as_ref().map(|buffer| &***buffer));
    Ok(refs.context(unreadable)?.filter_map(|reference| of(&reference.ok()?)).collect())
}

fn place(reference: &gix::refs::Reference) -> Option<(RunId, Place)> {
    let name = std::str::from_utf8(reference.name.as_bstr()).ok()?;
    let tip = reference.target.try_id()?.to_owned();
    let (remote, run) = match name.strip_prefix(LOCAL) {
        Some(run) => (None, run),
        None => name.strip_prefix(REMOTE)?.rsplit_once('/').map(|(remote, run)| (Some(remote.to_owned()), run))?,
    };
    Some((run.parse().ok()?, Place { name: name.to_owned(), tip, remote }))
}

/// The state that the newest commit of ours under `name` carries; nothing where none of them is ours.
pub(super) fn noted(repo: &Repository, run: RunId, name: &str, tip: ObjectId, remote: Option<String>) -> Option<Noted> {
    let found = union::commit(repo, tip);
    let (snapshot, updated) = match found {
        Some(union::Commit { snapshot: Some(snapshot), time, .. }) => (snapshot, time),
        _ => union::others(repo, name, tip, found.as_ref())
            .into_iter()
            .filter_map(|commit| commit.snapshot.map(|snapshot| (snapshot, commit.time)))
            .max_by_key(|(snapshot, _)| snapshot.seq)?,
    };
    Some(Noted { run, snapshot, updated, remote })
}

/// The events in a log, its gaps filled.
pub(super) fn parse(repo: &Repository, log: &Log) -> Result<event::Log> {
    let mut pages = notes::all(repo, &log.root)?;
    pages.retain(|page| !log.mended.contains_key(&page.on));
    let mut parts = read_pages(repo, &pages)?;
    parts.extend(log.mended.values().map(|text| parse_page(text)));
    Ok(event::Log::join(parts))
}

fn parse_page(text: &[u8]) -> event::Log {
    event::Log::read_page(&String::from_utf8_lossy(text))
}

fn read_page(repo: &Repository, page: &Note) -> Result<event::Log> {
    match repo.find_header(page.blob) {
        Ok(header) if header.size() > PAGE_LIMIT => {
            let aside = vec![Aside::page(header.size())];
            Ok(event::Log { aside, ..event::Log::default() })
        }
        _ => blob(repo, page.blob).map(|text| parse_page(&text)),
    }
}

/// The events of each page. Inflating and parsing is all the work there is, so all cores do it.
fn read_pages(repo: &Repository, pages: &[Note]) -> Result<Vec<event::Log>> {
    let read = |repo: &Repository, pages: &[Note]| -> Result<Vec<event::Log>> {
        pages.iter().map(|page| read_page(repo, page)).collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pages.len().div_ceil(FEW_PAGES));
    if threads < 2 {
        return read(repo, pages);
    }
    let shared: ThreadSafeRepository = repo.clone().into_sync();
    std::thread::scope(|scope| {
        let parts: Vec<_> = pages
            .chunks(pages.len().div_ceil(threads))
            .map(|pages| scope.spawn(|| read(&shared.to_thread_local(), pages)))
            .collect();
        let mut events = Vec::with_capacity(pages.len());
        for part in parts {
            events.extend(part.join().map_err(|_| Error::failed("a thread that read the log died"))??);
        }
        Ok(events)
    })
}
