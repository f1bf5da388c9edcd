//! Reading a run's record: its events, and its state from one commit.

use gix::{ObjectId, Repository, ThreadSafeRepository};

use super::notes::{self, Note};
use super::objects::blob;
use super::seal::Seals;
use super::union::{self, Log};
use super::verify;
pub use super::verify::Reading;
use crate::error::{Context as _, Error, Result};
use crate::host::store::Store;
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
    /// Whether drivers of this clone wrote all of it.
    pub verified: bool,
}

/// Every event of `run`, whoever wrote it, in order; nothing where there is no such run. Where this repository has no log
/// of its own for it, a fetched one is read.
///
/// # Errors
/// Where the log cannot be read.
pub fn events(repo: &Repository, run: &RunId) -> Result<Option<Vec<Event>>> {
    let repo = &as_written(repo);
    match find(repo, run)? {
        Some(place) => union::load(repo, &place.name)?.map(|log| Ok(parse(repo, &log)?.events)).transpose(),
        None => Ok(None),
    }
}

/// The log of `run`; nothing where there is no such run. Of a run that was driven in the clone that `store` belongs to,
/// what its drivers wrote counts, and with `adopting` everything else as well; of any other all events do, unverified.
///
/// # Errors
/// Where the log cannot be read.
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
        // What was acknowledged is found without the ref, but for a repository whose objects are gone.
        return match unreadable.filter(|_| reading.log.events.is_empty()) {
            Some(error) => Err(error),
            None => Ok(Some(reading)),
        };
    }
    let Some(log) = place.map(|place| union::load(repo, &place.name)).transpose()?.flatten() else { return Ok(None) };
    Ok(Some(Reading { log: parse(repo, &log)?, ..Reading::default() }))
}

/// Where `run` stands; nothing where there is no such run. One commit is read, unless other hands made the newest one or
/// put back an older one.
///
/// # Errors
/// Where the log cannot be read.
pub fn snapshot(repo: &Repository, store: Option<&Store>, run: &RunId) -> Result<Option<Noted>> {
    let repo = &as_written(repo);
    let Some(place) = find(repo, run)? else { return Ok(None) };
    if let Some(seals) = store.filter(|_| place.remote.is_none()).map(|store| Seals::of(store, run))
        && let Some(newest) = seals.newest()?
    {
        return verify::standing(repo, run, &seals, &newest, &place);
    }
    Ok(state(repo, run.clone(), &place))
}

/// Where the run at `place` stands, whoever recorded it: as its newest commit tells, or, where none carries a state that a
/// driver writes, as the events do.
fn state(repo: &Repository, run: RunId, place: &Place) -> Option<Noted> {
    unverified(repo, run.clone(), place).or_else(|| {
        let log = union::load(repo, &place.name).ok().flatten()?;
        let told = Run::replay(&parse(repo, &log).ok()?.events);
        let (snapshot, updated, remote) = (told.snapshot(), told.now, place.remote.clone());
        told.id.is_some().then_some(Noted { run, snapshot, updated, remote, verified: false })
    })
}

/// The notes ref that holds the log of `run`; nothing where there is no such run.
///
/// # Errors
/// Where refs cannot be read.
pub fn notes_ref(repo: &Repository, run: &RunId) -> Result<Option<String>> {
    Ok(find(repo, run)?.map(|place| place.name))
}

/// The repository with its objects as they were written, whatever `git replace` puts in their place: a record is what a
/// driver recorded.
pub(super) fn as_written(repo: &Repository) -> Repository {
    let mut repo = repo.clone();
    repo.objects.ignore_replacements = true;
    repo
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
    let seq = |place: &Place| unverified(repo, run.clone(), place).map_or(0, |noted| noted.snapshot.seq);
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

/// Where the run whose log is at `place` stands, read from one commit where a driver of ours made that; nothing where no
/// commit there is ours.
pub(super) fn noted(repo: &Repository, store: Option<&Store>, run: RunId, place: &Place) -> Option<Noted> {
    if let Some(store) = store.filter(|_| place.remote.is_none()) {
        let seals = Seals::of(store, &run);
        if let Some(tip) = union::commit(repo, place.tip)
            && let Some(sealed) = seals.sealed(&tip.message)
        {
            let (updated, verified) = (tip.time, !sealed.is_mixed);
            return Some(Noted { run, snapshot: sealed.snapshot, updated, remote: None, verified });
        }
        if let Some(newest) = seals.newest().ok().flatten() {
            return verify::standing(repo, &run, &seals, &newest, place).ok().flatten();
        }
    }
    state(repo, run, place)
}

/// The state that the newest commit of ours at `place` carries, whoever made it.
fn unverified(repo: &Repository, run: RunId, place: &Place) -> Option<Noted> {
    let newest = newest(repo, None, &place.name, place.tip)?;
    let (snapshot, updated) = (newest.snapshot?, newest.time);
    Some(Noted { run, snapshot, updated, remote: place.remote.clone(), verified: false })
}

/// The newest commit of ours under `name`; where there are seals, one that they vouch for, if any.
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

/// The events in a log, its gaps filled.
pub(super) fn parse(repo: &Repository, log: &Log) -> Result<event::Log> {
    let mut pages = notes::all(repo, &log.root)?;
    pages.retain(|page| !log.mended.contains_key(&page.on));
    let mut parts = in_parallel(repo, &pages, &read_page)?;
    parts.extend(log.mended.values().map(|text| parse_page(text)));
    Ok(event::Log::join(parts))
}

fn parse_page(text: &[u8]) -> event::Log {
    event::Log::read_page(&String::from_utf8_lossy(text))
}

fn read_page(repo: &Repository, page: &Note) -> Result<event::Log> {
    match too_long(repo, page) {
        Some(aside) => Ok(event::Log { aside: vec![aside], ..event::Log::default() }),
        None => blob(repo, page.blob).map(|text| parse_page(&text)),
    }
}

/// That a page is longer than any that is read.
pub(super) fn too_long(repo: &Repository, page: &Note) -> Option<Aside> {
    let length = repo.find_header(page.blob).ok()?.size();
    (length > PAGE_LIMIT).then(|| Aside::page(length))
}

/// What `read` makes of each page. Inflating and parsing is all the work there is, so all cores do it.
pub(super) fn in_parallel<T: Send>(
    repo: &Repository,
    pages: &[Note],
    read: &(dyn Fn(&Repository, &Note) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pages.len().div_ceil(FEW_PAGES));
    if threads < 2 {
        return pages.iter().map(|page| read(repo, page)).collect();
    }
    let shared: ThreadSafeRepository = repo.clone().into_sync();
    std::thread::scope(|scope| {
        let parts: Vec<_> = pages
            .chunks(pages.len().div_ceil(threads))
            .map(|pages| {
                let (shared, as_written) = (&shared, repo.objects.ignore_replacements);
                scope.spawn(move || {
                    let mut repo = shared.to_thread_local();
                    repo.objects.ignore_replacements = as_written;
                    pages.iter().map(|page| read(&repo, page)).collect::<Result<Vec<T>>>()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(pages.len());
        for part in parts {
            all.extend(part.join().map_err(|_| Error::failed("a thread that read the log died"))??);
        }
        Ok(all)
    })
}
