//! The ledger in git. No other module uses gix.
//!
//! A run is a branch, a worktree, a notes ref and a few refs of its own; see the crate's front page for their names.

mod base;
mod behind;
mod branch;
mod command;
mod conflict;
mod diff;
mod discover;
mod exclusion;
#[cfg(test)]
mod fixture;
mod folder;
mod guard;
mod held;
mod identity;
mod link;
pub(crate) mod list;
pub(crate) mod lock;
pub(crate) mod merge;
pub(crate) mod merged;
mod notes;
mod objects;
mod opening;
pub(crate) mod output;
mod own;
mod pages;
mod places;
pub(crate) mod preview;
mod protect;
mod provision;
pub(crate) mod pulse;
pub mod read;
mod reader;
pub mod record;
pub mod refs;
pub(crate) mod removal;
mod repository;
pub(crate) mod restore;
pub(crate) mod rewrite;
mod run_dir;
mod seal;
mod slots;
mod stale;
mod stat;
pub(crate) mod taken;
pub(crate) mod transfer;
mod tree;
mod trial;
mod union;
mod verify;
mod workers;
mod worktree;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gix::ObjectId;

pub(crate) use self::command::Git;
use self::guard::{Guard, GuardStore, Keeper};
use self::held::Written;
pub use self::identity::Identity;
use self::lock::RunLock;
pub use self::opening::{NewRecord, OnRecord};
use self::output::Output;
use self::record::Record;
use self::refs::{Change, Expect, RefMover, Swap};
pub use self::repository::Repository;
use self::run_dir::run_dir;
use self::slots::Slots;
use self::tree::Tracked;
pub use self::trial::Trial;
use self::worktree::Worktree;
use super::{Adopted, Batch, Cleanup, Committed, Draft, Durability, Found, Ledger, Preferences, Tree, Workspace};
use crate::error::{Context as _, Error, Result};
use crate::run::event::Event;
use crate::run::goal::{Isolation, RunId};

/// A run's record and workspace in a git repository, held by the driver that has the run's lock.
pub struct GitLedger {
    repo: Repository,
    run: RunId,
    identity: Identity,
    mover: Arc<RefMover>,
    record: Record,
    output: Output,
    isolation: Isolation,
    preferences: Preferences,
    /// The commit that the branch is at, and its tree.
    tip: Mutex<Tip>,
    worktree: Mutex<Option<Worktree>>,
    slots: Slots,
    making: AtomicUsize,
    written: Written,
    /// Observes what agents must not change, while agents run.
    guard: Mutex<Option<Guard>>,
    /// True once this driver has created or found the run's branch.
    seen_branch: AtomicBool,
    /// True if part of the log comes from another clone, so that nothing in it counts as proof.
    unproven: bool,
    /// Releases the run when the ledger is dropped.
    lock: RunLock,
}

#[derive(Clone, Debug)]
struct Tip {
    commit: String,
    tree: String,
}

impl GitLedger {
    /// Returns the start commit of a run that was just created.
    #[must_use]
    pub fn start(&self) -> String {
        self.tip().commit
    }

    /// Returns the tree of the start commit, which is the base's.
    #[must_use]
    pub fn tree(&self) -> String {
        self.tip().tree
    }

    /// Returns the path of the run's worktree on this machine, if it has one.
    #[must_use]
    pub fn worktree_path(repo: &Repository, run: &RunId) -> Option<PathBuf> {
        let of_run = worktree::of_run(repo, run).ok()?.into_iter().map(|worktree| worktree.path);
        of_run.into_iter().find(|path| path.file_name().is_some_and(|name| name == run.as_str()) && path.is_dir())
    }

    /// Lists all worktrees of the run on this machine, those of its workers included.
    #[must_use]
    pub fn worktrees_of(repo: &Repository, run: &RunId) -> Vec<PathBuf> {
        worktree::of_run(repo, run).unwrap_or_default().into_iter().map(|worktree| worktree.path).collect()
    }

    /// Returns the folder for new worktrees.
    pub fn worktrees_go(repo: &Repository, preferences: &Preferences) -> Result<PathBuf> {
        worktree::folder(repo, preferences)
    }

    /// Returns the directory of a run's live files.
    #[must_use]
    pub fn scratch_of(repo: &Repository, run: &RunId) -> PathBuf {
        run_dir(repo.common_dir(), run)
    }

    /// Lists the files that differ between two commits, sorted. The list is empty if a commit is not in this clone.
    pub fn changed_files(repo: &Repository, base: &str, tip: &str) -> Result<Vec<String>> {
        diff::changed_files(repo, base, tip)
    }

    /// Returns the difference between two commits as patches of whole files, at most `limit` bytes.
    pub fn patch(repo: &Repository, from: &str, to: &str, limit: usize) -> Result<String> {
        diff::patch(repo, from, to, &[], limit)
    }

    /// Reports whether the log's evidence was written by another clone or is unsealed, so that it counts as no proof.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.unproven
    }

    fn tip(&self) -> Tip {
        self.tip.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_tip(&self, commit: &str, tree: &str) {
        *self.tip.lock().unwrap_or_else(PoisonError::into_inner) = Tip { commit: commit.into(), tree: tree.into() };
    }

    fn worktree(&self) -> Option<Worktree> {
        self.worktree.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn index(&self) -> PathBuf {
        run_dir(self.repo.common_dir(), &self.run).join("index")
    }

    /// Describes the files of the workspace and our index of them.
    fn tracked<'a>(&'a self, worktree: Option<&'a Worktree>) -> Result<Tracked<'a>> {
        let (path, git_dir) = if let Some(worktree) = worktree {
            worktree.check_exists(&self.run)?;
            (worktree.path.as_path(), worktree.admin.clone())
        } else {
            let path = self.repo.work_dir().ok_or_else(|| Error::failed("this repository has no checkout"))?;
            (path, self.repo.git_dir().to_owned())
        };
        let seed = git_dir.join("index");
        Ok(Tracked { repo: &self.repo, run: &self.run, path, git_dir, index: self.index(), seed })
    }

    /// Moves the branch from `old` to `new`, on which later events are noted.
    fn move_branch(&self, old: &str, new: ObjectId, tree: &str) -> Result<()> {
        let change = Change { name: branch::name(&self.run), new: Some(new), old: Expect::Is(Repository::id(old)?) };
        let mut swap = self.land(&change)?;
        if swap == Swap::Lost && self.restore_branch(old)? {
            swap = self.land(&change)?;
        }
        match swap {
            Swap::Done => {
                self.seen_branch.store(true, Ordering::Relaxed);
                self.set_tip(&new.to_string(), tree);
                self.record.turn_page(new);
                Ok(())
            }
            Swap::Lost => Err(Error::failed(format!("somebody moved '{}' meanwhile", branch::name(&self.run)))
                .hint(format!("'git agentloop resume {}' takes in what was added", self.run))),
        }
    }

    /// Makes the run's branch again if another program deleted it since this driver saw it. Reports whether it did.
    fn restore_branch(&self, tip: &str) -> Result<bool> {
        let is_gone = branch::tip(&self.repo.gix(), &branch::name(&self.run)).is_none();
        if !is_gone || !self.seen_branch.load(Ordering::Relaxed) || !branch::recreate(&self.mover, &self.run, tip)? {
            return Ok(false);
        }
        self.record.report(format!("the branch 'agentloop/{}' was deleted: it is made again", self.run));
        Ok(true)
    }

    /// Commits the uncommitted changes of the user's checkout separately, before anything else.
    fn commit_user_changes(&self) -> Result<Option<Adopted>> {
        let tip = self.tip();
        let written = self.capture(&self.tracked(None)?, &tip.tree)?;
        if written.id == tip.tree {
            return Ok(None);
        }
        let message = branch::before_message(&self.run);
        let tree = Repository::id(&written.id)?;
        let commit = self.write_commit(&message, tree, &[Repository::id(&tip.commit)?])?;
        self.move_branch(&tip.commit, commit, &written.id)?;
        Ok(Some(Adopted { commit: commit.to_string(), tree: written.id, message }))
    }

    fn place(&self) -> Result<PathBuf> {
        worktree::place(&self.repo, &self.run, &self.preferences)
    }

    /// Syncs objects to disk, unless the user wants no durability.
    fn sync(&self, ids: &[ObjectId]) -> Result<()> {
        if self.preferences.durability == Durability::Never {
            return Ok(());
        }
        objects::sync_objects(&self.repo.gix(), ids)
    }

    /// Rewrites the clone's id, which an agent may have removed.
    fn mark(&self) -> Result<()> {
        let Some(store) = self.repo.store() else { return Ok(()) };
        store.mark(self.repo.common_dir()).context("the clone's id cannot be written")
    }

    fn guarded(&self) -> MutexGuard<'_, Option<Guard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits uncommitted changes of the worktree to a rescue ref.
    fn rescue_uncommitted(&self) -> Result<()> {
        let tip = self.tip();
        let written = self.write_tree()?;
        if written.id == tip.tree {
            return Ok(());
        }
        let message = format!("agentloop: uncommitted in the worktree of {}\n", self.run);
        let (tree, parent) = (Repository::id(&written.id)?, Repository::id(&tip.commit)?);
        let commit = branch::commit(&self.repo.gix(), &self.identity, &message, tree, vec![parent])?;
        branch::rescue(&self.repo, &self.mover, &self.run, commit).map(|_| ())
    }
}

impl Ledger for GitLedger {
    fn append(&self, batch: &Batch<'_>) -> Result<()> {
        self.lock.keep()?;
        self.record.append(batch)
    }

    fn events(&self) -> Result<Vec<Event>> {
        self.record.events()
    }

    fn tampering(&self) -> Vec<String> {
        self.record.tampering()
    }

    fn settle(&self) -> Result<()> {
        self.write_again()?;
        self.record.settle()?;
        self.mark()
    }

    fn guard(&self) -> Result<()> {
        let mut guard = self.guarded();
        if let Some(guard) = guard.as_mut() {
            return guard.accept_user_changes(&self.repo);
        }
        let (store, folder) = (self.repo.store().map(|store| store.run(&self.run)), self.scratch());
        let kept = GuardStore::new(store, folder.clone());
        *guard = Some(Guard::begin(&self.repo, self.run.clone(), self.isolation, kept, &folder)?);
        Ok(())
    }

    fn keep(&self) -> Result<()> {
        self.lock.keep()
    }

    fn notice(&self) -> Result<()> {
        self.mark()?;
        self.guarded().as_mut().map_or(Ok(()), |guard| guard.notice(&self.repo))
    }

    fn mend(&self) -> Result<Vec<String>> {
        let mut guard = self.guarded();
        let Some(guard) = guard.as_mut() else { return Ok(Vec::new()) };
        guard.revert_harmful(&self.repo)?;
        Ok(guard.take_remarks())
    }

    fn stand_down(&self) {
        if let Some(guard) = self.guarded().take() {
            guard.end(&Keeper { repo: &self.repo, mover: &self.mover, run: &self.run });
        }
    }

    fn workspace(&self) -> Result<Workspace> {
        if self.isolation == Isolation::None {
            let path = self.tracked(None)?.path.to_owned();
            let is_first = !self.index().exists();
            let before = if is_first { self.commit_user_changes()? } else { None };
            return Ok(Workspace { path, found: Found::Kept, before });
        }
        let (place, tip) = (self.place()?, self.tip());
        let ensure = || Worktree::ensure(&self.repo, &self.run, &place, &tip.commit);
        let (worktree, found) = self.with_its_commits(ensure)?;
        if found == Found::Made {
            let _ = std::fs::remove_file(self.index()); // it described the previous worktree
        }
        let path = worktree.path.clone();
        *self.worktree.lock().unwrap_or_else(PoisonError::into_inner) = Some(worktree);
        Ok(Workspace { path, found, before: None })
    }

    fn adopt(&self, tip: &str) -> Result<Option<Adopted>> {
        self.restore_branch(tip)?;
        let adopted = branch::ahead(&self.repo, &self.run, tip)?;
        self.seen_branch.store(true, Ordering::Relaxed);
        let Some(adopted) = adopted else { return Ok(None) };
        if let Some(worktree) = self.worktree() {
            if branch::is_checkpoint(&adopted.message, &self.run) {
                // A checkpoint of ours whose event was never written: its files are those of the worktree.
                self.capture(&self.tracked(Some(&worktree))?, &adopted.tree)?;
                worktree.settle(&self.mover, Repository::id(&adopted.commit)?, &self.index())?;
            } else {
                self.tracked(Some(&worktree))?.check_out(&worktree, &adopted.commit)?;
            }
        }
        self.set_tip(&adopted.commit, &adopted.tree);
        self.record.turn_page(Repository::id(&adopted.commit)?);
        Ok(Some(adopted))
    }

    fn write_tree(&self) -> Result<Tree> {
        let worktree = self.worktree();
        let written = self.capture(&self.tracked(worktree.as_ref())?, &self.tip().tree)?;
        self.sync(&[Repository::id(&written.id)?])?;
        Ok(written)
    }

    fn protected(&self, from: &str, tree: &str, pathspecs: &[String]) -> Result<Vec<String>> {
        protect::changed(&self.repo, from, tree, pathspecs)
    }

    fn content(&self, tree: &str, path: &str) -> Result<Option<Vec<u8>>> {
        protect::content(&self.repo, tree, path)
    }

    fn take_back(&self, from: &str, tree: &str, paths: &[String]) -> Result<Tree> {
        let id = protect::without(&self.repo, from, tree, paths)?;
        let message = format!("agentloop: changes to protected files in {}, taken back\n", self.run);
        let kept = branch::commit(
            &self.repo.gix(),
            &self.identity,
            &message,
            Repository::id(tree)?,
            vec![Repository::id(&self.tip().commit)?],
        )?;
        let remarks = branch::rescue(&self.repo, &self.mover, &self.run, kept)?;
        let worktree = self.worktree();
        self.tracked(worktree.as_ref())?.advance(tree, &id)?;
        Ok(Tree { id, remarks: remarks.into_iter().collect() })
    }

    fn restore(&self, tree: &str) -> Result<Vec<String>> {
        let worktree = self.worktree();
        self.tracked(worktree.as_ref())?.restore(tree)
    }

    fn changed_since_tree(&self) -> Result<Vec<String>> {
        let worktree = self.worktree();
        self.tracked(worktree.as_ref())?.changed()
    }

    fn commit(&self, draft: &Draft<'_>) -> Result<Committed> {
        let gix = self.repo.gix();
        let worktree = self.worktree();
        let tip = Repository::id(draft.tip)?;
        let tree = Repository::id(draft.tree)?;
        let mut parents = vec![tip];
        let head = worktree.as_ref().and_then(|worktree| worktree.head(&gix));
        for commit in draft.merged {
            parents.push(Repository::id(commit)?);
        }
        let are_kept = |head: &ObjectId| parents.iter().any(|parent| branch::contains(&gix, *parent, *head));
        let head = head.filter(|head| !are_kept(head));
        parents.extend(head);
        // In parallel with the commit, since comparing the user's checkout reads every file.
        let keeper = Keeper { repo: &self.repo, mover: &self.mover, run: &self.run };
        let (commit, changed) = std::thread::scope(|scope| {
            let looking = scope.spawn(|| self.guarded().as_mut().map_or(Ok(()), |guard| guard.compare(&keeper)));
            let commit = self.write_commit(draft.message, tree, &parents)?;
            let changed = tree::changes(&gix, Repository::id(&self.tip().tree)?, tree)?;
            looking.join().map_err(|_| Error::failed("a thread that looked at the checkout died"))??;
            Ok::<_, Error>((commit, changed))
        })?;
        let mut remarks = Vec::new();
        for lost in worktree.iter().flat_map(|worktree| worktree.head_log_since_settled(&gix)) {
            if !branch::contains(&gix, commit, lost) && gix.has_object(lost) {
                remarks.extend(branch::rescue(&self.repo, &self.mover, &self.run, lost)?);
            }
        }
        let changed = changed.iter().filter(|change| !change.entry_mode().is_tree()).count() as u64;
        self.move_branch(draft.tip, commit, draft.tree)?;
        if changed > 0 {
            remarks.extend(branch::checkout_remarks(&self.repo, &self.run));
        }
        if let Some(worktree) = &worktree {
            worktree.settle(&self.mover, commit, &self.index())?;
        }
        remarks.extend(self.guarded().as_mut().map(Guard::take_remarks).unwrap_or_default());
        Ok(Committed { commit: commit.to_string(), changed, remarks })
    }

    fn store_output(&self, path: &str, content: &[u8]) -> Result<()> {
        self.keep_output(path, content)
    }

    fn diff(&self, from: &str, to: &str, paths: &[String], limit: usize) -> Result<String> {
        diff::patch(&self.repo, from, to, paths, limit)
    }

    fn close(&self) -> Result<()> {
        self.close_places()?;
        self.remove_reader()?;
        self.release_held()?;
        let Some(worktree) = self.worktree() else { return Ok(()) };
        let base_tree = {
            let gix = self.repo.gix();
            branch::base_tree(&gix, &self.tip().commit, &self.run)?
        };
        let changed = base_tree.is_none_or(|tree| tree != self.tip().tree);
        let goes = match self.preferences.cleanup {
            Cleanup::Auto => !changed,
            Cleanup::Always => true,
            Cleanup::Never => false,
        };
        if !goes {
            return worktree.unlock(&self.repo);
        }
        self.rescue_uncommitted()?;
        worktree.remove(&self.repo)?;
        *self.worktree.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = std::fs::remove_file(self.index()); // it described the worktree that is gone
        Ok(())
    }

    fn scratch(&self) -> PathBuf {
        run_dir(self.repo.common_dir(), &self.run)
    }
}
