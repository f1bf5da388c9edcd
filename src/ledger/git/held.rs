//! Protects captured objects from a concurrent `git gc --prune=now` of an agent or the user.
//!
//! Such a gc removes every object that no ref names yet. So a captured tree is put on a ref at once and checked afterwards,
//! and missing objects are written again: files from the workspace, commits from memory.

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

/// Attempts to write pruned objects again.
const TRIES: u32 = 100;
/// Attempts of an operation that fails although no object is missing: a gc removes folders that git writes into.
pub(super) const FAILURES: u32 = 3;
/// Total time that the driver waits for gcs that began before its objects were on a ref.
const PATIENCE: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(5);
/// Time that is allowed for a `git prune`, which leaves no lock file, once objects were pruned.
const PRUNE_TIME: Duration = Duration::from_millis(50);

/// Commits that a driver has written, and the time that it may still wait for gcs.
#[derive(Debug)]
pub(super) struct Written {
    commits: Mutex<HashMap<ObjectId, Vec<u8>>>,
    /// True if any written object was pruned.
    is_pruned: AtomicBool,
    /// When git last packed objects before the driver began.
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
    /// Writes the files of `tracked`, which are based on `before`, as a tree and puts it on a ref.
    pub(super) fn capture(&self, tracked: &Tracked<'_>, before: &str) -> Result<Tree> {
        let from = Repository::id(before)?;
        let name = tracked.index.file_name().unwrap_or_default().to_string_lossy();
        let capture = || tracked.write(before).and_then(|tree| Ok((Repository::id(&tree.id)?, tree)));
        self.keep_tree(&name, from, capture, || self.rewrite_missing_files(tracked))
    }

    /// Makes a tree and puts it on the ref `name`, with all objects that `from` does not have. Before another attempt it
    /// calls `again`, which reports whether it found missing objects.
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
                Ok((tree, value)) if self.hold_tree(name, from, tree)? => return Ok(value),
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

    /// Puts `tree` on a ref and reports whether all its objects exist.
    fn hold_tree(&self, name: &str, from: ObjectId, tree: ObjectId) -> Result<bool> {
        if tree == from {
            return Ok(true); // already on the ref of its commit
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

    /// Makes git read files again whose objects are gone and which our index lists as unchanged. Reports whether there are
    /// any.
    fn rewrite_missing_files(&self, tracked: &Tracked<'_>) -> Result<bool> {
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

    /// Writes a commit, signed if the user wants that; no ref is moved.
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

    /// Runs `work`, and again if it failed while commits of this driver were missing.
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

    /// Writes missing commits of this driver again. Reports whether there are any.
    pub(super) fn write_again(&self) -> Result<bool> {
        let gix = self.as_on_disk()?;
        let mut is_any = false;
        for (_, content) in self.written().iter().filter(|(commit, _)| !gix.has_object(**commit)) {
            // Tried twice, since the folder that the object goes into may be removed.
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

    /// Deletes the refs that protected captured objects.
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

    /// Opens the repository as it is on disk now: packs that a gc has replaced must not count as existing.
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

/// Time that a driver may still wait for gcs, in milliseconds.
#[derive(Debug)]
pub(super) struct Patience(AtomicU64);

impl Default for Patience {
    fn default() -> Self {
        Self(AtomicU64::new(u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Patience {
    /// Waits for a running gc, which may have read the refs before ours existed. A later one sees ours. A `git prune` on its
    /// own leaves no lock file: once something `was_pruned`, this waits a moment for it too.
    pub(super) fn outlast_gc(&self, common_dir: &Path, was_pruned: bool) {
        if was_pruned {
            sleep(PRUNE_TIME);
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

/// Calls `write` until its commit exists, and returns that commit with its content: a gc may remove it at once.
pub(super) fn written(gix: &gix::Repository, write: impl Fn() -> Result<ObjectId>) -> Result<(ObjectId, Vec<u8>)> {
    for _ in 0..TRIES {
        let commit = write()?;
        if let Ok(found) = gix.find_object(commit) {
            return Ok((commit, found.detach().data));
        }
    }
    Err(pruned())
}

/// Returns the prefix of the refs that hold trees until a commit of theirs is on another ref.
fn prefix(run: &RunId) -> String {
    format!("refs/agentloop/run/{run}/{HELD}/")
}

/// Folder of those refs; no iteration has this name.
pub(super) const HELD: &str = "held";

fn pruned() -> Error {
    Error::failed("objects of the repository are removed again and again while they are written")
        .hint("see which program runs 'git gc --prune=now' or 'git prune' in it, then resume the run")
}

/// Reports whether every object of `tree` exists that `from` does not have.
fn is_whole(gix: &gix::Repository, from: ObjectId, tree: ObjectId) -> bool {
    let is_there = |change: &ChangeDetached| {
        let (mode, id) = change.entry_mode_and_id();
        matches!(change, ChangeDetached::Deletion { .. }) || mode.is_commit() || gix.has_object(id)
    };
    tree::changes(gix, from, tree).is_ok_and(|changes| changes.iter().all(is_there))
}
