//! Reads the whole log, even if other programs overwrote parts of it.
//!
//! `git notes append|edit` reads a tree, lets time pass, and writes its result over the current ref: lines that others added
//! meanwhile are lost from the tip without a trace in the shape of the history. So a log is restored by content. A commit of
//! ours holds all lines known when it was made; those of all later commits, by ancestry or by reflog, are added to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

use gix::bstr::ByteSlice as _;
use gix::objs::Tree;
use gix::{ObjectId, Repository};

use super::notes::{self, Note};
use super::objects::blob;
use super::refs::REFLOG_MESSAGE;
use crate::error::{Context as _, Error, Result};
use crate::run::Snapshot;
use crate::run::event::Timestamp;

/// A commit on a notes ref.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    pub id: ObjectId,
    pub tree: ObjectId,
    pub parents: Vec<ObjectId>,
    pub time: Timestamp,
    /// The state, if the commit is ours.
    pub snapshot: Option<Snapshot>,
    /// The message, if the commit is ours.
    pub message: String,
}

/// Reads the commit `id`; `None` if it cannot be read, as beyond a shallow clone's boundary.
pub(super) fn commit(repo: &Repository, id: ObjectId) -> Option<Commit> {
    let object = repo.try_find_object(id).ok()??;
    let commit = gix::objs::CommitRef::from_bytes(&object.data, repo.object_hash()).ok()?;
    let message = commit.message.to_str_lossy();
    let snapshot = Snapshot::from_message(&message);
    Some(Commit {
        id,
        tree: commit.tree(),
        parents: commit.parents().collect(),
        time: Timestamp(commit.committer().ok()?.seconds().saturating_mul(1000)),
        message: if snapshot.is_some() { message.into_owned() } else { String::new() },
        snapshot,
    })
}

/// A run's log as it is, and as it must be.
pub(super) struct Log {
    /// The commit that the ref is at.
    pub tip: ObjectId,
    /// The newest readable commit, which is the tip unless the repository is damaged.
    pub base: ObjectId,
    /// The base's tree.
    pub root: Tree,
    /// The incomplete pages, with their missing lines restored.
    pub completed: BTreeMap<ObjectId, Vec<u8>>,
}

/// Returns the commit that `name` is at.
pub(super) fn tip(repo: &Repository, name: &str) -> Result<Option<ObjectId>> {
    let unreadable = format!("cannot read {name}");
    let Some(mut reference) = repo.try_find_reference(name).context(unreadable.as_str())? else { return Ok(None) };
    // Short cut, since the ref is direct unless another program made it symbolic.
    if let Some(id) = reference.try_id() {
        return Ok(Some(id.detach()));
    }
    reference.peel_to_id().map(|id| Some(id.detach())).context(unreadable)
}

/// Loads the log under the notes ref `name`; `None` if there is no such ref.
pub(super) fn load(repo: &Repository, name: &str) -> Result<Option<Log>> {
    let Some(id) = tip(repo, name)? else { return Ok(None) };
    let found = commit(repo, id);
    let mut others = others(repo, name, id, found.as_ref());
    let base = match found {
        Some(commit) => commit,
        None => others.pop().ok_or_else(|| Error::failed(format!("{name} stands at {id}, which cannot be read")))?,
    };
    let root = notes::read(repo, base.tree)?;
    let completed = if others.is_empty() { BTreeMap::new() } else { complete_pages(repo, &root, &others)? };
    Ok(Some(Log { tip: id, base: base.id, root, completed }))
}

/// Loads the log as `commit` has it.
pub(super) fn at(repo: &Repository, commit: &Commit) -> Result<Log> {
    let root = notes::read(repo, commit.tree)?;
    Ok(Log { tip: commit.id, base: commit.id, root, completed: BTreeMap::new() })
}

/// Lists the commits that may have lines which the tip does not, oldest first.
pub(super) fn others(repo: &Repository, name: &str, tip: ObjectId, found: Option<&Commit>) -> Vec<Commit> {
    let is_ours = |commit: &Commit| commit.snapshot.is_some();
    let mut seen = HashSet::from([tip]);
    let mut newest_first = Vec::new();
    read_reflog(repo, name, |id, by_us| {
        let known = if id == tip { found.cloned() } else { commit(repo, id) };
        let settled = by_us && known.as_ref().is_some_and(is_ours);
        newest_first.extend(known.filter(|_| seen.insert(id)));
        // Our swap logs the move while it holds the ref's lock, so everything older was known when this commit was made.
        if settled { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let mut ancestors = Vec::new();
    let mut next = found.filter(|tip| !is_ours(tip)).map(|tip| tip.parents.clone()).unwrap_or_default();
    while let Some(id) = next.pop() {
        if let Some(commit) = Some(id).filter(|id| seen.insert(*id)).and_then(|id| commit(repo, id)) {
            if !is_ours(&commit) {
                next.extend(&commit.parents);
            }
            ancestors.push(commit);
        }
    }
    ancestors.reverse();
    ancestors.extend(newest_first.into_iter().rev());
    ancestors
}

/// Passes the ref's values, newest first, and whether we made the move, to `visit` until it breaks.
fn read_reflog(repo: &Repository, name: &str, mut visit: impl FnMut(ObjectId, bool) -> ControlFlow<()>) {
    let mut buffer = vec![0; 16 * 1024];
    let Ok(Some(lines)) = repo.refs.reflog_iter_rev(name, &mut buffer) else { return };
    // An incomplete line, being written or torn by a crash, is no value of the ref.
    for line in lines.flatten().filter(|line| !line.new_oid.is_null()) {
        if visit(line.new_oid, line.message == REFLOG_MESSAGE).is_break() {
            return;
        }
    }
}

/// Completes the pages of `root` that lack lines of `others`.
fn complete_pages(repo: &Repository, root: &Tree, others: &[Commit]) -> Result<BTreeMap<ObjectId, Vec<u8>>> {
    let here = notes::all(repo, root)?;
    let known: HashSet<Note> = here.iter().copied().collect();
    let mut theirs: BTreeMap<ObjectId, Vec<ObjectId>> = BTreeMap::new();
    let mut seen = known;
    for commit in others {
        // An old tree that cannot be read any more (pruned, beyond a boundary) is skipped.
        let notes = notes::read(repo, commit.tree).and_then(|tree| notes::all(repo, &tree)).unwrap_or_default();
        for note in notes.into_iter().filter(|note| seen.insert(*note)) {
            theirs.entry(note.on).or_default().push(note.blob);
        }
    }
    let mut completed = BTreeMap::new();
    for (on, blobs) in theirs {
        let texts: Vec<Vec<u8>> = blobs.into_iter().filter_map(|id| blob(repo, id).ok()).collect();
        let mut now = Vec::new();
        for note in here.iter().filter(|note| note.on == on) {
            now.extend_from_slice(&blob(repo, note.blob)?);
        }
        completed.extend(add_missing_lines(&now, &texts).map(|text| (on, text)));
    }
    Ok(completed)
}

/// Returns `now` with its missing lines of `others` in front; `None` if it misses none. A line that occurs several times in
/// one text does so in the result. Blank lines are separators (git-notes(1)) and are ignored.
pub(super) fn add_missing_lines(now: &[u8], others: &[Vec<u8>]) -> Option<Vec<u8>> {
    let mut held: HashMap<&[u8], usize> = HashMap::new();
    for line in lines(now) {
        *held.entry(line).or_default() += 1;
    }
    let mut missing = Vec::new();
    for text in others {
        let mut count: HashMap<&[u8], usize> = HashMap::new();
        for line in lines(text) {
            let count = count.entry(line).or_default();
            *count += 1;
            let held = held.entry(line).or_default();
            if *count > *held {
                *held += 1;
                missing.extend_from_slice(line);
                missing.push(b'\n');
            }
        }
    }
    (!missing.is_empty()).then(|| {
        missing.extend_from_slice(now);
        missing
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.lines().filter(|line| !line.trim().is_empty())
}
