//! Makes, opens or reserves a run for its driver.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gix::ObjectId;

use super::held::{self, Written};
use super::lock::{self, RunLock, already_driven};
use super::output::Output;
use super::record::{self, Adoption, Record};
use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Repository;
use super::run_dir::run_dir;
use super::seal::Seals;
use super::slots::Slots;
use super::{GitLedger, Tip, branch, objects, places, read, removal};
use crate::error::{Context as _, Error, Result};
use crate::host::store::{Bases, RunStore, Store};
use crate::ledger::{Durability, Preferences};
use crate::run::goal::{Isolation, RunId};

/// A run to create.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// Its id.
    pub run: RunId,
    /// The commit that it starts from.
    pub base: String,
    /// The start commit's message.
    pub message: String,
    /// The place where it works.
    pub isolation: Isolation,
    /// Settings of its ledger.
    pub preferences: Preferences,
}

/// A recorded run to open.
#[derive(Clone, Debug)]
pub struct OnRecord {
    /// Its id.
    pub run: RunId,
    /// The newest commit of its branch in the record.
    pub tip: String,
    /// The place where it works.
    pub isolation: Isolation,
    /// Settings of its ledger.
    pub preferences: Preferences,
}

impl GitLedger {
    /// Makes the run's start commit. Its branch and its notes ref are created together with its first events.
    ///
    /// # Errors
    /// Fails if the run's branch exists.
    pub fn create(repo: Repository, new: NewRecord) -> Result<Self> {
        let lock = RunLock::acquire(repo.common_dir(), &new.run)?
            .ok_or_else(|| already_driven(repo.common_dir(), &new.run))?;
        let gix = repo.gix();
        objects::make_shared_folders(&gix)?;
        let name = branch::name(&new.run);
        if branch::tip(&gix, &name).is_some() {
            return Err(Error::failed(format!("the branch '{name}' exists already")));
        }
        let base = Repository::id(&new.base)?;
        let tree =
            gix.find_commit(base).and_then(|commit| commit.tree_id()).context("the base cannot be read")?.detach();
        let write = || branch::write(&repo, new.preferences.sign, &repo.identity(), &new.message, tree, &[base]);
        let (start, content) = held::written(&gix, write)?;
        let change = Change { name, new: Some(start), old: Expect::Absent };
        let NewRecord { run, isolation, preferences, .. } = new;
        let begun = OnRecord { run, tip: start.to_string(), isolation, preferences };
        let seals = seals(&repo, &begun.run);
        let create = |repo: &gix::Repository, mover, run, page| {
            Record::create(repo, mover, run, page).and_then(|record| record.sealed(seals)).map(|record| (record, false))
        };
        let ledger = Self::assemble(repo, begun, Some(tree), lock, create)?;
        ledger.remember(start, content.clone());
        ledger.record.begin_with(change, content);
        ledger.seen_branch.store(true, Ordering::Relaxed);
        Ok(ledger)
    }

    /// Reserves the id of `run` for the caller, who must create or withdraw it. Reports whether the id was free: nothing of
    /// a run of that id may be in the repository or in this clone's store, rescue refs of a discarded one included.
    pub fn reserve(repo: &Repository, run: &RunId) -> bool {
        let (gix, dir) = (repo.gix(), run_dir(repo.common_dir(), run));
        let taken = |prefix: String| {
            let is_its = |reference: &gix::refs::Reference| {
                let name = std::str::from_utf8(reference.name.as_bstr()).ok()?;
                let rest = name.strip_prefix(&prefix)?;
                (rest.is_empty() || rest.starts_with('/')).then_some(())
            };
            places::prefixed(&gix, &prefix, is_its).map_or(true, |found| !found.is_empty())
        };
        let mut prefixes = vec![branch::name(run)];
        prefixes.extend(["run", "rescue"].map(|of| format!("refs/agentloop/{of}/{run}")));
        let remotes = gix.remote_names().into_iter();
        prefixes.extend(remotes.map(|remote| format!("refs/remotes/{remote}/agentloop/{run}")));
        if !matches!(read::find(&gix, run), Ok(None))
            || prefixes.into_iter().any(taken)
            || Self::kept(repo, run).is_some_and(|kept| kept.exists())
        {
            return false;
        }
        // If two callers want it at once, only one makes the folder.
        dir.parent().is_some_and(|parent| std::fs::create_dir_all(parent).is_ok()) && std::fs::create_dir(&dir).is_ok()
    }

    /// Removes what [`create`](Self::create) made for a run that was never recorded: its branch, if it is still at the start
    /// commit, and its folder, if it is otherwise empty. What cannot be removed stays.
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
        let _ = std::fs::remove_file(dir.join(lock::NAME));
        let _ = std::fs::remove_dir(dir); // not empty if another process uses it
        if let Err(error) = removal::leave_store(repo, run) {
            tracing::warn!("{}", error.chain());
        }
    }

    /// Opens a run for a new driver.
    ///
    /// # Errors
    /// Fails if a driver works on the run.
    pub fn open(repo: Repository, known: OnRecord) -> Result<Self> {
        Self::take_over(repo, known, Adoption::Unsealed)
    }

    /// Opens a run for a new driver, with others' lines of its log as `adoption` demands.
    ///
    /// # Errors
    /// Fails if a driver works on the run, or events of it are gone.
    pub fn take_over(repo: Repository, known: OnRecord, adoption: Adoption) -> Result<Self> {
        let is_fetched = read::find(&repo.gix(), &known.run)?.is_some_and(|place| place.remote.is_some());
        objects::make_shared_folders(&repo.gix())?;
        let tip = known.tip.clone();
        let ledger = Self::open_locked(repo, known, adoption)?;
        if is_fetched {
            branch::create(&ledger.repo, &ledger.mover, &ledger.run, &tip)?;
        }
        Ok(ledger)
    }

    /// Locks a run without changing its branch or record.
    ///
    /// # Errors
    /// Fails if a driver works on the run.
    pub fn hold(repo: Repository, known: OnRecord) -> Result<Self> {
        Self::open_locked(repo, known, Adoption::Never)
    }

    fn open_locked(repo: Repository, known: OnRecord, adoption: Adoption) -> Result<Self> {
        let busy = || already_driven(repo.common_dir(), &known.run);
        let lock = RunLock::acquire(repo.common_dir(), &known.run)?.ok_or_else(busy)?;
        let seals = seals(&repo, &known.run);
        let open =
            |repo: &gix::Repository, mover, run, page| Record::open_sealed(repo, mover, run, page, seals, adoption);
        Self::assemble(repo, known, None, lock, open)
    }

    fn assemble(
        repo: Repository,
        known: OnRecord,
        tree: Option<ObjectId>,
        lock: RunLock,
        record: impl FnOnce(&gix::Repository, Arc<RefMover>, RunId, ObjectId) -> Result<(Record, bool)>,
    ) -> Result<Self> {
        let OnRecord { run, tip, isolation, preferences } = known;
        let (identity, durability) = (repo.identity(), preferences.durability);
        let mover = RefMover::new(repo.common_dir().to_owned()).synced(durability != Durability::Never);
        let mover = Arc::new(mover);
        let page = Repository::id(&tip)?;
        let tree = tree.map_or_else(|| branch::tree_of(&repo.gix(), page), Ok)?.to_string();
        let (name, email) = identity.committer.clone();
        let (record, unproven) = record(&repo.gix(), Arc::clone(&mover), run.clone(), page)?;
        let record = record.by(record::Author { name, email }).durability(durability);
        let slots = Slots::new(run_dir(repo.common_dir(), &run), objects::hex_length(&repo.gix()));
        let written = Written::new(&repo.gix());
        let output = Output::new(&repo.gix(), Arc::clone(&mover), &run);
        Ok(Self {
            repo,
            run,
            identity,
            mover,
            record,
            output,
            isolation,
            preferences,
            tip: Mutex::new(Tip { commit: tip, tree }),
            worktree: Mutex::new(None),
            slots,
            making: AtomicUsize::new(0),
            written,
            guard: Mutex::new(None),
            seen_branch: AtomicBool::new(false),
            unproven,
            lock,
        })
    }

    /// Returns this clone's private data on a run; `None` if it has no store.
    #[must_use]
    pub fn kept(repo: &Repository, run: &RunId) -> Option<RunStore> {
        Store::find(repo.common_dir(), &Bases::of_process()).map(|store| store.run(run))
    }

    /// Returns this clone's private data on a run, in a store that is made if there is none.
    pub fn ensure_kept(repo: &Repository, run: &RunId) -> Result<RunStore> {
        Store::ensure(repo.common_dir(), &Bases::of_process()).map(|store| store.run(run))
    }

    /// Reports whether a driver ever had the run in this clone.
    #[must_use]
    pub fn was_driven_here(repo: &Repository, run: &RunId) -> bool {
        run_dir(repo.common_dir(), run).join(lock::NAME).exists()
    }
}

/// Returns the seals of `run`, if this clone has a private store.
fn seals(repo: &Repository, run: &RunId) -> Option<Seals> {
    repo.store().map(|store| Seals::of(&store, run))
}
