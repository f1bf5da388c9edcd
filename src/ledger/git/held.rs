//! Keeps what is captured from a `git gc --prune=now` beside the driver, an agent's or the user's.
//!
//! Such a gc takes every object that no ref names yet. So a captured tree is put on a ref at once and looked at afterwards,
//! and what is gone by then is made again: files from the workspace, commits from memory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use gix::ObjectId;
use gix::object::tree::diff::ChangeDetached;
use gix::objs::Write as _;

use super::objects::packed;
use super::read;
use super::refs::{Change, Expect, Swap};
use super::repository::Repository;
use super::tree::{self, Tracked};
use super::{GitLedger, branch};
use crate::error::{Context as _, Error, Result};
use crate::ledger::Tree;
use crate::run::goal::RunId;

/// How often what was pruned is made again.
const TRIES: u32 = 100;
/// How often something is tried that fails although no object is missing: a gc removes folders that git writes into.
pub(super) const FAILURES: u32 = 3;
/// How long the driver waits, in all, for gcs that began before what it captured was on a ref.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(5);
/// How long a `git prune` of which nothing tells may go on, once there was one.
const A_WHILE: Duration = Duration::from_millis(50);

/// The commits that a driver has written, and how long it still waits for gcs.
#[derive(Debug)]
pub(super) struct Written {
    commits: Mutex<HashMap<ObjectId, Vec<u8>>>,
    /// Whether anything of what it wrote was gone.
    is_pruned: AtomicBool,
    /// When git packed objects last, as the driver began.
    packed: Option<SystemTime>,
    patience: Patience,
}

impl Written {
    pub(super) fn new(repo: &gix::Repository) -> Self {
        Self {
            commits: Mutex::default(),
            is_pruned: AtomicBool::new(false),
            packed: packed(repo),
            patience: Patience::default(),
        }
    }
}

impl GitLedger {
    /// Writes the files of `tracked` as a tree, which grew from `before`, and keeps that.
    pub(super) fn capture(&self, tracked: &Tracked<'_>, before: &str) -> Result<Tree> {
        let from = Repository::id(before)?;
        let name = tracked.index.file_name().unwrap_or_default().to_string_lossy();
        let capture = || tracked.write(before).and_then(|tree| Ok((Repository::id(&tree.id)?, tree)));
        self.keep_tree(&name, from, capture, || self.revive(tracked))
    }

    /// Makes a tree and keeps it under `name`, with all in it that `from` does not have. `again` is done before it is made
    /// another time, and tells whether it found something missing.
    pub(super) fn keep_tree<T>(
        &self,
        name: &str,
        from: ObjectId,
        make: impl Fn() -> Result<(ObjectId, T)>,
        again: impl Fn() -> Result<bool>,
    ) -> Result<T> {
        let mut failures = 0;
        for _ in 0..TRIES {
            let failure = match make() {
                Ok((tree, value)) if self.is_held(name, from, tree)? => return Ok(value),
                Ok(_) => None,
                Err(error) => Some(error),
            };
            self.written.is_pruned.store(true, Ordering::Relaxed);
            self.write_again()?;
            let found_missing = again()?;
            if let Some(error) = failure.filter(|_| !found_missing) {
                failures += 1;
                if failures == FAILURES {
                    return Err(error);
                }
            }
        }
        Err(pruned())
    }

    /// Keeps a transcript.
    pub(super) fn keep_output(&self, path: &str, content: &[u8]) -> Result<()> {
        self.output.store(path, content, |tree| {
            self.outlast_gc();
            let gix = self.as_on_disk()?;
            let entry = gix.find_tree(tree).ok().and_then(|tree| tree.lookup_entry_by_path(path).ok().flatten());
            let is_whole = entry.is_some_and(|entry| gix.has_object(entry.object_id()));
            self.written.is_pruned.fetch_or(!is_whole, Ordering::Relaxed);
            Ok(is_whole)
        })
    }

    /// Puts `tree` on a ref; whether all of it is there.
    fn is_held(&self, name: &str, from: ObjectId, tree: ObjectId) -> Result<bool> {
        if tree == from {
            return Ok(true); // on the ref of whatever it is the tree of
        }
        let change = Change { name: format!("{}{name}", prefix(&self.run)), new: Some(tree), old: Expect::Any };
        match self.mover.swap(&[change]) {
            Err(error) if self.as_on_disk()?.has_object(tree) => return Err(error),
            Err(_) | Ok(Swap::Lost) => return Ok(false),
            Ok(Swap::Done) => {}
        }
        self.outlast_gc();
        Ok(is_whole(&self.as_on_disk()?, from, tree))
    }

    /// Has git read again the files whose objects are gone, and that our index says are unchanged. Whether there are any.
    fn revive(&self, tracked: &Tracked<'_>) -> Result<bool> {
        let gix = self.as_on_disk()?;
        let options = gix::index::decode::Options::default();
        let Ok(index) = gix::index::File::at(&tracked.index, gix.object_hash(), true, options) else {
            return Ok(false);
        };
        let mut lines = Vec::new();
        for entry in index.entries().iter().filter(|entry| !entry.mode.is_submodule() && !gix.has_object(entry.id)) {
            lines.extend_from_slice(format!("{:o} {}\t", entry.mode.bits(), entry.id).as_bytes());
            lines.extend_from_slice(entry.path(&index));
            lines.push(0);
        }
        if lines.is_empty() {
            return Ok(false);
        }
        tracked.prepare()?;
        tracked.git("update-index").args(["-z", "--index-info"]).input(lines).run().map(|_| true)
    }

    /// Writes a commit that will be on a ref, signed where that is wanted; no ref is moved.
    pub(super) fn write_commit(&self, message: &str, tree: ObjectId, parents: &[ObjectId]) -> Result<ObjectId> {
        let write = || branch::write(&self.repo, self.preferences.sign, &self.identity, message, tree, parents);
        let (commit, content) = written(&self.as_on_disk()?, write)?;
        self.remember(commit, content);
        self.sync(&[tree, commit])?;
        Ok(commit)
    }

    /// Remembers the content of a commit that this driver made.
    pub(super) fn remember(&self, commit: ObjectId, content: Vec<u8>) {
        self.written().insert(commit, content);
    }

    /// Works with git, and again where that failed while commits that this driver made were gone.
    pub(super) fn with_its_commits<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        for _ in 0..TRIES {
            match work() {
                Err(error) if !self.write_again()? => return Err(error),
                Err(_) => {}
                done => return done,
            }
        }
        Err(pruned())
    }

    /// Writes the commits again that this driver made and that are gone; whether there are any.
    pub(super) fn write_again(&self) -> Result<bool> {
        let gix = self.as_on_disk()?;
        let mut is_any = false;
        for (_, content) in self.written().iter().filter(|(commit, _)| !gix.has_object(**commit)) {
            // A second time where a folder was removed that it goes into.
            let write = || gix.objects.write_buf(gix::objs::Kind::Commit, content);
            write().or_else(|_| write()).context("a commit cannot be written again")?;
            is_any = true;
        }
        self.written.is_pruned.fetch_or(is_any, Ordering::Relaxed);
        Ok(is_any)
    }

    /// Moves a ref to a commit of [`write_commit`](Self::write_commit).
    pub(super) fn land(&self, change: &Change) -> Result<Swap> {
        for _ in 0..TRIES {
            let swap = self.mover.swap(std::slice::from_ref(change));
            if matches!(swap, Ok(Swap::Lost)) {
                return swap;
            }
            if swap.is_ok() {
                self.outlast_gc();
            }
            let gix = self.as_on_disk()?;
            let is_there = change.new.is_none_or(|commit| gix.has_object(commit));
            if !self.write_again()? || is_there {
                return swap;
            }
        }
        Err(pruned())
    }

    /// Lets go of what was kept while it was on no other ref.
    pub(super) fn release_held(&self) -> Result<()> {
        let gix = self.repo.gix();
        let held = gix.references().context("refs cannot be read")?;
        let prefix = prefix(&self.run);
        let held = held.prefixed(prefix.as_str()).context("refs cannot be read")?.filter_map(std::result::Result::ok);
        let names = held.map(|held| held.name().as_bstr().to_string());
        let changes: Vec<Change> = names.map(|name| Change { name, new: None, old: Expect::Any }).collect();
        self.mover.swap(&changes).map(|_| ())
    }

    fn written(&self) -> std::sync::MutexGuard<'_, HashMap<ObjectId, Vec<u8>>> {
        self.written.commits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The repository by what is on disk now: packs that a gc has replaced must not be taken for those that are there.
    fn as_on_disk(&self) -> Result<gix::Repository> {
        let gix = self.repo.gix();
        if packed(&gix) == self.written.packed {
            return Ok(gix);
        }
        let again = gix::open_opts(self.repo.git_dir(), gix.open_options().clone());
        Ok(read::as_written(&again.context("cannot open the repository again")?))
    }

    fn outlast_gc(&self) {
        self.written.patience.outlast_gc(self.repo.common_dir(), self.written.is_pruned.load(Ordering::Relaxed));
    }
}

/// How long a driver still waits for gcs, in milliseconds.
#[derive(Debug)]
pub(super) struct Patience(AtomicU64);

impl Default for Patience {
    fn default() -> Self {
        Self(AtomicU64::new(u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Patience {
    /// Waits for a gc that is at work: it may have looked at the refs before ours was there. One that begins later sees it.
    /// Of a `git prune` by itself nothing tells: once something `was_pruned`, it is waited for as well.
    pub(super) fn outlast_gc(&self, common_dir: &Path, was_pruned: bool) {
        if was_pruned {
            sleep(A_WHILE);
        }
        let file = common_dir.join("gc.pid"); // git-gc(1), `--force`
        let holder = || {
            let pid = std::fs::read_to_string(&file).ok()?.split(' ').next()?.parse().ok()?;
            rustix::process::test_kill_process(rustix::process::Pid::from_raw(pid)?).is_ok().then_some(pid)
        };
        let Some(pid) = holder() else { return };
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(1);
        let may_wait = |left: u64| left.checked_sub(pause);
        while holder() == Some(pid) && self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, may_wait).is_ok() {
            sleep(PAUSE);
        }
    }
}

/// Has a commit written, and gives its content: a gc may take it away at once.
pub(super) fn written(gix: &gix::Repository, write: impl Fn() -> Result<ObjectId>) -> Result<(ObjectId, Vec<u8>)> {
    for _ in 0..TRIES {
        let commit = write()?;
        if let Ok(found) = gix.find_object(commit) {
            return Ok((commit, found.detach().data));
        }
    }
    Err(pruned())
}

/// The refs on which trees are kept until their commits are on another.
fn prefix(run: &RunId) -> String {
    format!("refs/agentloop/run/{run}/{HELD}/")
}

/// The folder of those refs: no iteration is called so.
pub(super) const HELD: &str = "held";

fn pruned() -> Error {
    Error::failed("objects of the repository are removed again and again while they are written")
        .hint("see which program runs 'git gc --prune=now' or 'git prune' in it, then resume the run")
}

/// Whether every object of `tree` is there that `from` does not have.
fn is_whole(gix: &gix::Repository, from: ObjectId, tree: ObjectId) -> bool {
    let is_there = |change: &ChangeDetached| {
        let (mode, id) = change.entry_mode_and_id();
        matches!(change, ChangeDetached::Deletion { .. }) || mode.is_commit() || gix.has_object(id)
    };
    tree::changes(gix, from, tree).is_ok_and(|changes| changes.iter().all(is_there))
}
