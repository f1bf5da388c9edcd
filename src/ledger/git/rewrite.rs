//! Copies notes to rewritten commits, each within its run's log.
//!
//! git can do this itself (`notes.rewriteRef`), but only by a pattern over all logs: with 10,000 runs every amend would then
//! take half a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use gix::objs::{CommitRef, Kind};

use super::notes::{self, Note};
use super::objects::blob;
use super::objects::parse_id;
use super::places::LOCAL;
use super::read;
use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Repository;
use super::seal::Seals;
use super::{taken, union};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;
use crate::run::message::RUN_TRAILER;

/// Attempts while a driver moves the ref.
const TRIES: usize = 100;

/// Reports whether there may be events to copy. An amend waits for its hook, and usually amends a commit that is not packed
/// yet, which can be read without opening a repository.
#[must_use]
pub fn may_concern_runs(pairs: &str) -> bool {
    let Some(objects) = objects() else { return true };
    let mut buffer = Vec::new();
    pairs.lines().any(|line| {
        let old = line.split_whitespace().next().and_then(|word| ObjectId::from_hex(word.as_bytes()).ok());
        old.is_some_and(|old| !is_plain(&objects, old, &mut buffer))
    })
}

/// Reports whether `commit` is loose and names no run.
fn is_plain(objects: &Path, commit: ObjectId, buffer: &mut Vec<u8>) -> bool {
    let store = gix::odb::loose::Store::at(objects, commit.kind());
    let Ok(Some(found)) = store.try_find(&commit, buffer) else { return false };
    let message = CommitRef::from_bytes(found.data, commit.kind()).map(|commit| commit.message);
    found.kind == Kind::Commit && message.is_ok_and(|message| message.find(RUN_TRAILER).is_none())
}

/// Returns the object directory of the repository that a hook was called in (gitrepository-layout(5), githooks(5)).
fn objects() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    if let Some(objects) = from("GIT_OBJECT_DIRECTORY") {
        return Some(objects);
    }
    let git_dir = from("GIT_DIR").unwrap_or_else(|| ".git".into());
    let common = from("GIT_COMMON_DIR").or_else(|| {
        let text = std::fs::read_to_string(git_dir.join("commondir")).ok()?;
        Some(git_dir.join(text.trim_end()))
    });
    Some(common.unwrap_or(git_dir).join("objects")).filter(|objects| objects.is_dir())
}

/// Copies the events noted on rewritten commits to the new ones; `pairs` has a line `<old> <new>` each (githooks(5),
/// post-rewrite). The old notes stay, since the old commits may come back.
pub fn carry(repo: &Repository, pairs: &str) -> Result<()> {
    let gix = repo.gix();
    let mut rewritten: BTreeMap<RunId, Vec<(ObjectId, ObjectId)>> = BTreeMap::new();
    for line in pairs.lines() {
        let mut words = line.split_whitespace().map(|word| parse_id(&gix, word.as_bytes()));
        let (Some(Some(old)), Some(Some(new))) = (words.next(), words.next()) else { continue };
        if let Some(run) = taken::named_run(&gix, old).filter(|_| old != new) {
            rewritten.entry(run).or_default().push((old, new));
        }
    }
    rewritten.iter().try_for_each(|(run, pairs)| carry_run(repo, run, pairs))
}

fn carry_run(repo: &Repository, run: &RunId, pairs: &[(ObjectId, ObjectId)]) -> Result<()> {
    let gix = repo.gix();
    let name = format!("{LOCAL}{run}");
    let mover = RefMover::new(repo.common_dir().to_owned());
    for _ in 0..TRIES {
        // Fetched logs are other people's.
        let Some(log) = union::load(&gix, &name)? else { return Ok(()) };
        // The trailers of the newest commit are repeated, with their seal.
        let seals = repo.store().map(|store| Seals::of(&store, run));
        let Some(newest) = read::newest(&gix, seals.as_ref(), &name, log.tip) else { return Ok(()) };
        let trailers = newest.message.split_once("\n\n").map_or("", |(_, trailers)| trailers);
        let mut root = log.root;
        for (on, text) in &log.completed {
            let blob = write(&gix, text)?;
            notes::put(&gix, &mut root, Note { on: *on, blob })?;
        }
        let text = |root: &_, on| notes::find(&gix, root, on)?.map_or(Ok(Vec::new()), |id| blob(&gix, id));
        let mut carried = 0;
        for (old, new) in pairs {
            let (from, to) = (text(&root, *old)?, text(&root, *new)?);
            if let Some(completed) = union::add_missing_lines(&to, &[from]) {
                let blob = write(&gix, &completed)?;
                notes::put(&gix, &mut root, Note { on: *new, blob })?;
                carried += 1;
            }
        }
        if carried == 0 {
            return Ok(());
        }
        let failed = "the run's log cannot be written";
        let commit = gix::objs::Commit {
            tree: gix.write_object(&root).context(failed)?.detach(),
            parents: vec![log.base].into(),
            author: repo.identity().author_now(),
            committer: repo.identity().committer_now(),
            encoding: None,
            message: format!("agentloop: {carried} rewritten\n\n{trailers}").into(),
            extra_headers: Vec::new(),
        };
        let commit = gix.write_object(&commit).context(failed)?.detach();
        let change = Change { name: name.clone(), new: Some(commit), old: Expect::Is(log.tip) };
        if mover.swap(&[change])? == Swap::Done {
            return Ok(());
        }
    }
    Err(Error::failed(format!("the log of {run} changes all the time")))
}

fn write(gix: &gix::Repository, text: &[u8]) -> Result<ObjectId> {
    Ok(gix.write_blob(text).context("the run's log cannot be written")?.detach())
}
