//! The ledger in git: the only user of gix.
//!
//! A run is a branch, a worktree, a notes ref and a few refs of its own; see the crate's front page for their names.

mod branch;
mod command;
mod conflict;
mod diff;
#[cfg(test)]
mod fixture;
mod guard;
pub mod list;
pub mod lock;
pub mod merge;
pub mod merged;
mod notes;
mod objects;
pub mod output;
pub mod preview;
mod protect;
mod provision;
pub mod pulse;
pub mod read;
pub mod record;
pub mod refs;
pub mod removal;
mod repository;
pub mod rewrite;
mod slots;
mod stat;
pub mod taken;
pub mod transfer;
mod tree;
mod union;
mod workers;
mod worktree;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gix::ObjectId;

pub use self::repository::{Identity, Repository};
pub use self::worktree::Trial;

use self::guard::Guard;
use self::lock::{RunLock, driven};
use self::output::Output;
use self::record::Record;
use self::refs::{Change, Expect, RefMover, Swap};
use self::slots::Slots;
use self::tree::Tracked;
use self::worktree::Worktree;
use super::{Adopted, Batch, Cleanup, Committed, Draft, Durability, Found, Ledger, Tree, Workspace};
use crate::error::{Context as _, Error, Result};
use crate::run::event::Event;
use crate::run::goal::{Isolation, RunId};

/// Written when a run is started: what its log wants to be run was given in this clone.
const STARTED_HERE: &str = "started-here";

/// A run's record and workspace in a git repository, held by the driver that has the run's lock.
pub struct GitLedger {
    repo: Repository,
    run: RunId,
    identity: Identity,
    mover: Arc<RefMover>,
    record: Record,
    output: Output,
    isolation: Isolation,
    cleanup: Cleanup,
    durability: Durability,
    /// The commit that the branch stands at, and the tree that the next one grows from.
    tip: Mutex<Tip>,
    worktree: Mutex<Option<Worktree>>,
    /// Its workers' places.
    slots: Slots,
    /// How many of them are being made.
    making: AtomicUsize,
    /// What stood outside of them before the iteration's first worker began.
    guard: Mutex<Option<Guard>>,
    /// Lets go of the run with the ledger.
    _lock: RunLock,
}

#[derive(Clone, Debug)]
struct Tip {
    commit: String,
    tree: String,
}

/// A run to put on record.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Its id.
    pub run: RunId,
    /// The commit it starts from.
    pub base: String,
    /// The start commit's message.
    pub message: String,
    /// Where it works.
    pub isolation: Isolation,
}

impl GitLedger {
    /// Makes the run's start commit and branch. Its notes ref comes with its first events.
    ///
    /// # Errors
    /// Where the run's branch exists, or nothing can be written.
    pub fn create(repo: Repository, new: NewRecord) -> Result<Self> {
        let lock = RunLock::acquire(repo.common_dir(), &new.run)?.ok_or_else(|| driven(repo.common_dir(), &new.run))?;
        let gix = repo.gix();
        let identity = repo.identity();
        let base = Repository::id(&new.base)?;
        let tree =
            gix.find_commit(base).and_then(|commit| commit.tree_id()).context("the base cannot be read")?.detach();
        let start = branch::commit(&gix, &identity, &new.message, tree, vec![base])?;
        std::fs::write(run_dir(repo.common_dir(), &new.run).join(STARTED_HERE), "")
            .context("the run cannot be marked")?;
        let ledger = Self::assemble(repo, new.run, start.to_string(), new.isolation, lock, identity, Record::create)?;
        let change = Change { name: branch::name(&ledger.run), new: Some(start), old: Expect::Absent };
        match ledger.mover.swap(&[change])? {
            Swap::Done => Ok(ledger),
            Swap::Lost => Err(Error::failed(format!("the branch '{}' exists already", branch::name(&ledger.run)))),
        }
    }

    /// Takes back what [`create`](Self::create) made for a run that never went on record: its branch, while it stands at
    /// the start commit, and its folder, where that holds nothing else. What cannot be taken back stays.
    pub fn withdraw(repo: &Repository, run: &RunId) {
        let (gix, dir) = (repo.gix(), run_dir(repo.common_dir(), run));
        if !matches!(read::find(&gix, run), Ok(None)) || lock::is_held(repo.common_dir(), run) {
            return;
        }
        let name = branch::name(run);
        if let Some(tip) = branch::tip(&gix, &name) {
            let change = Change { name, new: None, old: Expect::Is(tip) };
            let mover = RefMover::new(repo.common_dir().to_owned());
            let is_start = gix.find_commit(tip).is_ok_and(|commit| branch::is_start(&commit, run));
            if !is_start || !matches!(mover.swap(&[change]), Ok(Swap::Done)) {
                return;
            }
        }
        for name in [STARTED_HERE, lock::NAME] {
            let _ = std::fs::remove_file(dir.join(name));
        }
        let _ = std::fs::remove_dir(dir); // holds more where somebody else needs it
    }

    /// Takes over a run whose newest commit on record is `tip`.
    ///
    /// # Errors
    /// Where a driver works on it, or its commits cannot be read.
    pub fn open(repo: Repository, run: &RunId, tip: &str, isolation: Isolation) -> Result<Self> {
        let is_fetched = read::find(&repo.gix(), run)?.is_some_and(|place| place.remote.is_some());
        let ledger = Self::hold(repo, run, tip, isolation)?;
        if is_fetched {
            branch::establish(&ledger.repo, &ledger.mover, run, tip)?;
        }
        Ok(ledger)
    }

    /// Keeps everybody else from a run, whose branch and record stay as they are.
    ///
    /// # Errors
    /// Where a driver works on it, or its commits cannot be read.
    pub fn hold(repo: Repository, run: &RunId, tip: &str, isolation: Isolation) -> Result<Self> {
        let lock = RunLock::acquire(repo.common_dir(), run)?.ok_or_else(|| driven(repo.common_dir(), run))?;
        let identity = repo.identity();
        Self::assemble(repo, run.clone(), tip.to_owned(), isolation, lock, identity, Record::open)
    }

    fn assemble(
        repo: Repository,
        run: RunId,
        tip: String,
        isolation: Isolation,
        lock: RunLock,
        identity: Identity,
        record: fn(&gix::Repository, Arc<RefMover>, RunId, ObjectId) -> Result<Record>,
    ) -> Result<Self> {
        let durability: Durability = repo.setting("agentloop.durable")?;
        let mover = RefMover::new(repo.common_dir().to_owned()).synced(durability != Durability::Never);
        let mover = Arc::new(mover);
        let cleanup = repo.setting("agentloop.cleanup")?;
        let page = Repository::id(&tip)?;
        let commit = repo.gix().find_commit(page).and_then(|commit| commit.tree_id().map(gix::Id::detach));
        let tree = commit.context(format!("the run's newest commit {tip} cannot be read"))?.to_string();
        let (name, email) = identity.committer.clone();
        let record = record(&repo.gix(), Arc::clone(&mover), run.clone(), page)?;
        let record = record.by(record::Identity { name, email }).durability(durability);
        let slots = Slots::new(run_dir(repo.common_dir(), &run));
        let output = Output::new(&repo.gix(), Arc::clone(&mover), &run);
        Ok(Self {
            repo,
            run,
            identity,
            mover,
            record,
            output,
            isolation,
            cleanup,
            durability,
            tip: Mutex::new(Tip { commit: tip, tree }),
            worktree: Mutex::new(None),
            slots,
            making: AtomicUsize::new(0),
            guard: Mutex::new(None),
            _lock: lock,
        })
    }

    /// The start commit of a run that was just created.
    #[must_use]
    pub fn start(&self) -> String {
        self.tip().commit
    }

    /// Its tree: the base's.
    #[must_use]
    pub fn tree(&self) -> String {
        self.tip().tree
    }

    /// Whether the run was started in this clone.
    #[must_use]
    pub fn was_started_here(repo: &Repository, run: &RunId) -> bool {
        run_dir(repo.common_dir(), run).join(STARTED_HERE).exists()
    }

    /// The run's worktree on this machine, where there is one.
    #[must_use]
    pub fn worktree_path(repo: &Repository, run: &RunId) -> Option<PathBuf> {
        Worktree::at(repo, &worktree::place(repo, run).ok()?).map(|worktree| worktree.path)
    }

    /// The folder that worktrees go into.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn worktrees_go(repo: &Repository) -> Result<PathBuf> {
        worktree::folder(repo)
    }

    /// Where live files of a run go.
    #[must_use]
    pub fn scratch_of(repo: &Repository, run: &RunId) -> PathBuf {
        run_dir(repo.common_dir(), run)
    }

    /// Files that differ between two commits, sorted; none where a commit is not in this clone.
    ///
    /// # Errors
    /// Where trees cannot be read.
    pub fn changed_files(repo: &Repository, base: &str, tip: &str) -> Result<Vec<String>> {
        diff::changed_files(repo, base, tip)
    }

    /// The difference between two commits for a reader, at most `limit` bytes of patches, each whole.
    ///
    /// # Errors
    /// Where one of them cannot be read.
    pub fn patch(repo: &Repository, from: &str, to: &str, limit: usize) -> Result<String> {
        diff::patch(repo, from, to, &[], limit)
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

    /// The workspace's files and our index of them.
    fn tracked<'a>(&'a self, worktree: Option<&'a Worktree>) -> Result<Tracked<'a>> {
        let (path, git_dir) = if let Some(worktree) = worktree {
            (worktree.path.as_path(), worktree.admin.clone())
        } else {
            let path = self.repo.work_dir().ok_or_else(|| Error::failed("this repository has no checkout"))?;
            (path, std::path::absolute(self.repo.gix().git_dir()).context("the git directory cannot be reached")?)
        };
        let seed = git_dir.join("index");
        Ok(Tracked { repo: &self.repo, run: &self.run, path, git_dir, index: self.index(), seed })
    }

    /// Moves the branch from `old` to `new`, and notes what comes from here on it.
    fn move_branch(&self, old: &str, new: ObjectId, tree: &str) -> Result<()> {
        let change = Change { name: branch::name(&self.run), new: Some(new), old: Expect::Is(Repository::id(old)?) };
        match self.mover.swap(&[change])? {
            Swap::Done => {
                self.set_tip(&new.to_string(), tree);
                self.record.turn_page(new);
                Ok(())
            }
            Swap::Lost => Err(Error::failed(format!("somebody moved '{}' meanwhile", branch::name(&self.run)))
                .hint(format!("'git agentloop resume {}' takes in what was added", self.run))),
        }
    }

    /// Commits what stands uncommitted in the user's checkout, apart and before anything else.
    fn record_before(&self) -> Result<Option<Adopted>> {
        let tip = self.tip();
        let written = self.tracked(None)?.write(&tip.tree)?;
        if written.id == tip.tree {
            return Ok(None);
        }
        let message = branch::before_message(&self.run);
        let tree = Repository::id(&written.id)?;
        let commit =
            branch::commit(&self.repo.gix(), &self.identity, &message, tree, vec![Repository::id(&tip.commit)?])?;
        self.move_branch(&tip.commit, commit, &written.id)?;
        Ok(Some(Adopted { commit: commit.to_string(), tree: written.id, message }))
    }

    fn guard(&self) -> MutexGuard<'_, Option<Guard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what the worktree holds uncommitted on a rescue ref.
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
        self.record.append(batch)
    }

    fn events(&self) -> Result<Vec<Event>> {
        self.record.events()
    }

    fn workspace(&self) -> Result<Workspace> {
        if self.isolation == Isolation::None {
            let path = self.tracked(None)?.path.to_owned();
            let is_first = !self.index().exists();
            let before = if is_first { self.record_before()? } else { None };
            return Ok(Workspace { path, found: Found::Kept, before });
        }
        let (worktree, found) = Worktree::ensure(&self.repo, &self.run, &self.tip().commit)?;
        if found == Found::Made {
            let _ = std::fs::remove_file(self.index()); // it described the worktree before
        }
        let path = worktree.path.clone();
        *self.worktree.lock().unwrap_or_else(PoisonError::into_inner) = Some(worktree);
        Ok(Workspace { path, found, before: None })
    }

    fn adopt(&self, tip: &str) -> Result<Option<Adopted>> {
        let Some(adopted) = branch::ahead(&self.repo, &self.run, tip)? else { return Ok(None) };
        if let Some(worktree) = self.worktree() {
            if branch::is_ours(&adopted.message, &self.run) {
                // A commit of ours whose event was never written: its files are the worktree's.
                self.tracked(Some(&worktree))?.write(&adopted.tree)?;
                worktree.settle(&self.mover, Repository::id(&adopted.commit)?, &self.index())?;
            } else {
                self.tracked(Some(&worktree))?.take_in(&worktree, &adopted.commit)?;
            }
        }
        self.set_tip(&adopted.commit, &adopted.tree);
        self.record.turn_page(Repository::id(&adopted.commit)?);
        Ok(Some(adopted))
    }

    fn write_tree(&self) -> Result<Tree> {
        let worktree = self.worktree();
        let written = self.tracked(worktree.as_ref())?.write(&self.tip().tree)?;
        if self.durability != Durability::Never {
            objects::sync_objects(&self.repo.gix(), &[Repository::id(&written.id)?])?;
        }
        Ok(written)
    }

    fn protected(&self, from: &str, tree: &str, pathspecs: &[String]) -> Result<Vec<String>> {
        protect::changed(&self.repo, from, tree, pathspecs)
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
        let message = draft.message;
        let commit = if branch::wants_signature(&self.repo)? {
            branch::signed_commit(&self.repo, message, draft.tree, &parents)?
        } else {
            branch::commit(&gix, &self.identity, message, tree, parents)?
        };
        if self.durability != Durability::Never {
            objects::sync_objects(&gix, &[commit])?;
        }
        let mut remarks = match self.guard().take() {
            Some(guard) => guard.compare(&self.repo)?,
            None => Vec::new(),
        };
        for lost in worktree.iter().flat_map(Worktree::head_log_since_settled) {
            if !branch::contains(&gix, commit, lost) && gix.has_object(lost) {
                remarks.extend(branch::rescue(&self.repo, &self.mover, &self.run, lost)?);
            }
        }
        let changed = tree::changes(&gix, Repository::id(&self.tip().tree)?, tree)?;
        let changed = changed.iter().filter(|change| !change.entry_mode().is_tree()).count() as u64;
        self.move_branch(draft.tip, commit, draft.tree)?;
        if let Some(worktree) = &worktree {
            worktree.settle(&self.mover, commit, &self.index())?;
        }
        Ok(Committed { commit: commit.to_string(), changed, remarks })
    }

    fn store_output(&self, path: &str, content: &[u8]) -> Result<()> {
        self.output.store(path, content)
    }

    fn diff(&self, from: &str, to: &str, paths: &[String], limit: usize) -> Result<String> {
        diff::patch(&self.repo, from, to, paths, limit)
    }

    fn close(&self) -> Result<()> {
        self.close_places()?;
        let Some(worktree) = self.worktree() else { return Ok(()) };
        let base_tree = {
            let gix = self.repo.gix();
            branch::base_tree(&gix, &self.tip().commit, &self.run)?
        };
        let changed = base_tree.is_none_or(|tree| tree != self.tip().tree);
        let goes = match self.cleanup {
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

/// The folder of what belongs to a run on this machine.
fn run_dir(common_dir: &Path, run: &RunId) -> PathBuf {
    common_dir.join("agentloop").join(run.as_str())
}
