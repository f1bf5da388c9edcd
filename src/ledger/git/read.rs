//! Reads a run's log and snapshot, also where a person's `git notes` has overwritten some of it.
//!
//! `git notes append|edit` works out its tree first and then makes it the child of whatever the ref holds by then, and
//! moves the ref whatever it held: notes of other writers drop out of the newest tree while history looks linear. They
//! are still in the commits before it, or in the reflog. So where the newest commit is not one of ours, every commit
//! back to the newest of ours is read, along history and along the reflog, and their notes are united.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use gix::ObjectId;
use gix::bstr::{BString, ByteSlice as _};
use gix::objs::tree::EntryKind;

use crate::error::{Context as _, Result};
use crate::run::Snapshot;
use crate::run::event::{Event, Timestamp, parse_log};
use crate::run::goal::RunId;

/// Commits of other hands that are read through at most.
const MOST_FOREIGN: usize = 10_000;

/// A run's newest snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Noted {
    /// The run.
    pub run: RunId,
    /// Where it stands.
    pub snapshot: Snapshot,
    /// When its record was last written.
    pub updated: Timestamp,
}

/// A notes tree: the note on each commit, and what else somebody put there.
#[derive(Clone, Debug, Default)]
pub(super) struct Notes {
    /// Blobs by the commit that they are noted on.
    pub blobs: BTreeMap<ObjectId, ObjectId>,
    /// Entries that are no notes, kept as they are.
    pub others: Vec<gix::objs::tree::Entry>,
}

/// The record as it is to be read: one tree, or several to unite.
pub(super) struct Record {
    /// What the ref holds.
    pub tip: ObjectId,
    /// The notes, ours first where there are several.
    pub layers: Vec<Notes>,
    /// The newest snapshot.
    pub snapshot: Option<(Snapshot, Timestamp)>,
}

/// The ref that holds `run`'s log.
pub(super) fn notes_ref(run: &RunId) -> String {
    format!("refs/notes/agentloop/{run}")
}

/// Every event of `run`, in order; `None` where there is no such run.
///
/// # Errors
/// Where git's objects cannot be read.
pub fn events(repo: &gix::Repository, run: &RunId) -> Result<Option<Vec<Event>>> {
    let Some(record) = record(repo, run)? else { return Ok(None) };
    let mut pages = Vec::new();
    let mut seen = HashSet::new();
    for blob in record.layers.iter().flat_map(|notes| notes.blobs.values()) {
        if seen.insert(*blob) {
            pages.push(text(repo, *blob)?);
        }
    }
    Ok(Some(parse_log(pages.iter().map(String::as_str))))
}

/// The newest snapshot of `run`; `None` where there is no such run. Reads one commit where the newest is ours.
///
/// # Errors
/// Where git's objects cannot be read.
pub fn snapshot(repo: &gix::Repository, run: &RunId) -> Result<Option<Noted>> {
    let Some(tip) = tip(repo, run)? else { return Ok(None) };
    let found = match commit(repo, tip)? {
        (Some(snapshot), time, _) => Some((snapshot, time)),
        (None, ..) => record(repo, run)?.and_then(|record| record.snapshot),
    };
    Ok(found.map(|(snapshot, updated)| Noted { run: run.clone(), snapshot, updated }))
}

/// Where `run`'s log stands.
pub(super) fn tip(repo: &gix::Repository, run: &RunId) -> Result<Option<ObjectId>> {
    let reference = repo.try_find_reference(notes_ref(run).as_str()).context("the run's notes ref cannot be read")?;
    Ok(reference.and_then(|reference| reference.try_id().map(gix::Id::detach)))
}

/// The record of `run`; `None` where there is none.
pub(super) fn record(repo: &gix::Repository, run: &RunId) -> Result<Option<Record>> {
    let Some(tip) = tip(repo, run)? else { return Ok(None) };
    if let (Some(snapshot), time, _) = commit(repo, tip)? {
        let layers = vec![notes(repo, tip)?];
        return Ok(Some(Record { tip, layers, snapshot: Some((snapshot, time)) }));
    }
    let mut newest: Option<(Snapshot, Timestamp)> = None;
    let (mut ours, mut foreign, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    let mut pending = vec![tip];
    let mut logged = reflog(repo, run).into_iter();
    loop {
        let (id, logged_id) = match pending.pop() {
            Some(id) => (id, false),
            None => match logged.next() {
                Some(id) => (id, true),
                None => break,
            },
        };
        if !seen.insert(id) || seen.len() > MOST_FOREIGN {
            continue;
        }
        // An entry of the reflog may have been collected since; what it held is then in no later commit either.
        let Ok((snapshot, time, parents)) = commit(repo, id) else { continue };
        match snapshot {
            Some(snapshot) if newest.as_ref().is_none_or(|(known, _)| known.seq < snapshot.seq) => {
                newest = Some((snapshot, time));
                ours.insert(0, notes(repo, id)?);
            }
            // Back where our own record was whole.
            Some(_) if logged_id => break,
            Some(_) => {}
            None => {
                foreign.push(notes(repo, id)?);
                pending.extend(parents);
            }
        }
    }
    ours.truncate(2);
    ours.extend(foreign);
    Ok(Some(Record { tip, layers: ours, snapshot: newest }))
}

/// What the notes ref held before, newest first: the reflog's lines are `old new who time\twhy`.
fn reflog(repo: &gix::Repository, run: &RunId) -> Vec<ObjectId> {
    let path: PathBuf = repo.common_dir().join("logs").join(notes_ref(run));
    let Ok(text) = std::fs::read(path) else { return Vec::new() };
    text.lines().rev().filter_map(|line| ObjectId::from_hex(line.split(|byte| *byte == b' ').nth(1)?).ok()).collect()
}

/// A commit's snapshot, its time, and its parents.
fn commit(repo: &gix::Repository, id: ObjectId) -> Result<(Option<Snapshot>, Timestamp, Vec<ObjectId>)> {
    let found = repo.find_commit(id).context("a commit of the run's log cannot be read")?;
    let snapshot = Snapshot::from_message(&found.message_raw_sloppy().to_str_lossy());
    let time = found.time().map_or(0, |time| time.seconds);
    let parents = found.parent_ids().map(gix::Id::detach).collect();
    Ok((snapshot, Timestamp(time.saturating_mul(1000)), parents))
}

/// The notes in the tree of commit `id`.
pub(super) fn notes(repo: &gix::Repository, id: ObjectId) -> Result<Notes> {
    let mut notes = Notes::default();
    let tree = repo.find_commit(id).and_then(|commit| commit.tree_id()).context("the run's log cannot be read")?;
    collect(repo, tree.detach(), &mut BString::default(), &mut notes)?;
    Ok(notes)
}

/// Walks a notes tree: git splits the names of many notes into folders of two digits.
fn collect(repo: &gix::Repository, tree: ObjectId, prefix: &mut BString, notes: &mut Notes) -> Result<()> {
    let tree = repo.find_tree(tree).context("the run's log cannot be read")?;
    let decoded = tree.decode().context("the run's log holds a broken tree")?;
    for entry in &decoded.entries {
        let length = prefix.len();
        prefix.extend_from_slice(entry.filename);
        let kind = entry.mode.kind();
        let is_part = entry.filename.len() == 2 && entry.filename.iter().all(u8::is_ascii_hexdigit);
        if kind == EntryKind::Tree && is_part {
            collect(repo, entry.oid.to_owned(), prefix, notes)?;
        } else if let (EntryKind::Blob, Ok(noted)) = (kind, ObjectId::from_hex(prefix)) {
            notes.blobs.insert(noted, entry.oid.to_owned());
        } else if length == 0 {
            notes.others.push(gix::objs::tree::Entry::from(*entry));
        }
        prefix.truncate(length);
    }
    Ok(())
}

/// A note's text.
pub(super) fn text(repo: &gix::Repository, blob: ObjectId) -> Result<String> {
    let blob = repo.find_blob(blob).context("a page of the run's log cannot be read")?;
    Ok(String::from_utf8_lossy(&blob.data).into_owned())
}
