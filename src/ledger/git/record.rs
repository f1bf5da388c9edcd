//! Writes a run's log: groups of events, appended to bounded pages, on a ref that others may move too.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use gix::ObjectId;
use gix::bstr::BString;
use gix::objs::tree::{Entry, EntryKind};

use super::read::{self, notes_ref};
use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Identity;
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Batch, Durability};
use crate::run::event::{Event, parse_log};
use crate::run::goal::RunId;

/// A page that has passed this many bytes takes no more events.
const PAGE: usize = 64 * 1024;
/// Races lost in a row before something is taken to be wrong.
const MOST_LOST: u32 = 1000;

/// The one writer of a run's log.
pub struct Record {
    run: RunId,
    mover: Arc<RefMover>,
    identity: Identity,
    durability: Durability,
    state: Mutex<State>,
}

struct State {
    repo: gix::Repository,
    /// The commit on which events are noted.
    page: ObjectId,
    /// The log as we last saw it; none before the first look and after a lost race.
    log: Option<Log>,
}

struct Log {
    tip: Option<ObjectId>,
    blobs: BTreeMap<ObjectId, ObjectId>,
    others: Vec<Entry>,
    /// The text of the page.
    text: String,
}

impl Record {
    /// The writer of `run`'s log; its events are noted on `page`, the run's newest commit.
    pub fn new(
        repo: gix::Repository,
        mover: Arc<RefMover>,
        run: RunId,
        page: ObjectId,
        identity: Identity,
        durability: Durability,
    ) -> Self {
        Self { run, mover, identity, durability, state: Mutex::new(State { repo, page, log: None }) }
    }

    /// Appends a group of events.
    ///
    /// # Errors
    /// Where an object or the ref cannot be written; the log is then as it was.
    pub fn append(&self, batch: &Batch<'_>) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        for _ in 0..MOST_LOST {
            let log = match state.log.take() {
                Some(log) => log,
                None => load(&state.repo, &self.run, state.page)?,
            };
            if let Some(log) = self.write(state, log, batch)? {
                state.log = Some(log);
                return Ok(());
            }
        }
        Err(Error::failed(format!("'{}' is moved by somebody else without end", notes_ref(&self.run)))
            .hint("stop what writes notes there; the run can be resumed"))
    }

    /// Notes what comes from here on `commit`.
    pub fn turn_page(&self, commit: ObjectId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.page = commit;
        if let Some(log) = &mut state.log {
            log.text = String::new();
        }
    }

    /// Every event on record.
    ///
    /// # Errors
    /// Where git's objects cannot be read.
    pub fn events(&self) -> Result<Vec<Event>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(read::events(&state.repo, &self.run)?.unwrap_or_default())
    }

    /// Writes `log` with `batch`; `None` where somebody else moved the ref meanwhile.
    fn write(&self, state: &mut State, mut log: Log, batch: &Batch<'_>) -> Result<Option<Log>> {
        let repo = &state.repo;
        if let Some(tip) = log.tip.filter(|_| log.text.len() > PAGE) {
            state.page = tip;
            log.text.clear();
        }
        if !log.text.is_empty() && !log.text.ends_with('\n') {
            log.text.push('\n');
        }
        for event in batch.events {
            log.text.push_str(&event.to_line());
            log.text.push('\n');
        }
        let blob = repo.write_blob(&log.text).context("a page of the log cannot be written")?.detach();
        log.blobs.insert(state.page, blob);
        let tree = repo.write_object(tree_of(&log)).context("the log's tree cannot be written")?.detach();
        let count = batch.events.len();
        let message = format!(
            "agentloop: {count} event{}\n\n{}",
            if count == 1 { "" } else { "s" },
            batch.snapshot.to_trailers()
        );
        let commit = gix::objs::Commit {
            message: message.into(),
            tree,
            author: self.identity.author_now(),
            committer: self.identity.committer_now(),
            encoding: None,
            parents: log.tip.into_iter().collect(),
            extra_headers: Vec::new(),
        };
        let commit = repo.write_object(commit).context("the log's commit cannot be written")?.detach();
        let sync = self.durability.wants(batch.durable);
        if sync {
            sync_objects(repo, &[blob, tree, commit])?;
        }
        let name = notes_ref(&self.run);
        let old = log.tip.map_or(Expect::Absent, Expect::Is);
        if self.mover.swap(&[Change { name: name.clone(), new: Some(commit), old }])? == Swap::Lost {
            return Ok(None);
        }
        if sync {
            sync_file(&repo.common_dir().join(name))?;
        }
        log.tip = Some(commit);
        Ok(Some(log))
    }
}

/// The log as the ref has it now, healed where other hands have overwritten some of it.
fn load(repo: &gix::Repository, run: &RunId, page: ObjectId) -> Result<Log> {
    let Some(record) = read::record(repo, run)? else {
        return Ok(Log { tip: None, blobs: BTreeMap::new(), others: Vec::new(), text: String::new() });
    };
    let mut layers = record.layers.into_iter();
    let mut united = layers.next().unwrap_or_default();
    for layer in layers {
        united
            .others
            .extend(layer.others.into_iter().filter(|entry| !united.others.contains(entry)).collect::<Vec<_>>());
        for (noted, blob) in layer.blobs {
            let known = united.blobs.get(&noted).copied();
            let blob = match known {
                Some(known) if known != blob => unite(repo, known, blob)?,
                _ => blob,
            };
            united.blobs.insert(noted, blob);
        }
    }
    let text = united.blobs.get(&page).map(|blob| read::text(repo, *blob)).transpose()?.unwrap_or_default();
    Ok(Log { tip: Some(record.tip), blobs: united.blobs, others: united.others, text })
}

/// A note with the lines of both: events once, and the other's further lines behind.
fn unite(repo: &gix::Repository, ours: ObjectId, theirs: ObjectId) -> Result<ObjectId> {
    let (ours, theirs) = (read::text(repo, ours)?, read::text(repo, theirs)?);
    let known: HashSet<&str> = ours.lines().collect();
    let mut united = ours.clone();
    if !united.is_empty() && !united.ends_with('\n') {
        united.push('\n');
    }
    for line in theirs.lines().filter(|line| !line.is_empty() && !known.contains(line)) {
        united.push_str(line);
        united.push('\n');
    }
    debug_assert!(parse_log([united.as_str()]).len() >= parse_log([ours.as_str()]).len());
    Ok(repo.write_blob(&united).context("a page of the log cannot be written")?.detach())
}

fn tree_of(log: &Log) -> gix::objs::Tree {
    let note = |(noted, blob): (&ObjectId, &ObjectId)| Entry {
        mode: EntryKind::Blob.into(),
        filename: BString::from(noted.to_string()),
        oid: *blob,
    };
    let mut entries: Vec<Entry> = log.blobs.iter().map(note).chain(log.others.iter().cloned()).collect();
    entries.sort();
    gix::objs::Tree { entries }
}

/// Makes loose objects survive a power cut: their content, and their names in their folders.
pub(super) fn sync_objects(repo: &gix::Repository, ids: &[ObjectId]) -> Result<()> {
    let objects = repo.objects.store_ref().path().to_owned();
    for id in ids {
        let hex = id.to_string();
        let folder = objects.join(&hex[..2]);
        let path = folder.join(&hex[2..]);
        // An object that was there before may be in a pack, which git has synced.
        if path.exists() {
            sync_file(&path)?;
            sync_file(&folder)?;
        }
    }
    Ok(())
}

fn sync_file(path: &Path) -> Result<()> {
    let synced = std::fs::File::open(path).and_then(|file| file.sync_all());
    synced.context(format!("'{}' cannot be synced to disk", path.display()))
}
