//! Workers' worktrees in git, and their results as commits on refs of their own.
//!
//! The order of writes makes a kill at any instant harmless: a worktree's changes are committed and its ref moved before it
//! is cleared, and a slot is claimed only once all files are there.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

use gix::ObjectId;

use super::command::Git;
use super::folder::{is_folder, remove_any};
use super::guard::Guard;
use super::refs::{Change, Expect, Swap};
use super::repository::Repository;
use super::run_dir::run_dir;
use super::slots::{self, Claim, TakenSlot};
use super::tree::Tracked;
use super::worktree::Worktree;
use super::{GitLedger, branch, preview, protect};
use crate::error::{Context as _, Error, Result};
use crate::ledger::{
    Leaving, Ledger as _, Left, Merged, Merging, Opening, Place, Reader, Reading, Resolution, Resolving, Task, Tree,
    Workers,
};

/// Attempts to commit a worktree while other workers change what git reads.
const LOOKS: u32 = 3;

impl Workers for GitLedger {
    fn keeps_output(&self) -> bool {
        self.preferences.output == crate::ledger::Output::Redacted
    }

    fn open_place(&self, opening: &Opening<'_>) -> Result<Place> {
        self.with_repair(|| {
            self.open_slot(
                opening.task,
                |_, _| Ok(true),
                |place, holds| {
                    let start = self.starting_point(opening)?;
                    self.clear(place, holds, &start)?;
                    Ok(Claim { task: opening.task.clone(), tip: opening.tip.to_owned() })
                },
            )
        })
    }

    fn close_place(&self, leaving: &Leaving<'_>) -> Result<Left> {
        let Some(TakenSlot { number, claim: Some(claim) }) = self.slots.of(leaving.task) else {
            return Err(Error::failed(format!("nobody works at {}", leaving.task)));
        };
        // Counts reverted changes, also those that another thread reverted for another worker.
        let reverts = || self.guarded().as_ref().map_or(0, Guard::reverts);
        let mut mended = self.mend()?;
        let mut seen = reverts();
        let mut left = self.with_repair(|| self.commit_work(number, &claim, leaving.message, None))?;
        // Another worker may hide this one's files from git, or have them converted, while git reads them.
        for _ in 0..LOOKS {
            mended.extend(self.mend()?);
            if reverts() == seen || left.lost.is_some() {
                break;
            }
            seen = reverts();
            let more = self.with_repair(|| self.commit_work(number, &claim, leaving.message, None))?;
            left.remarks.extend(more.remarks);
            (left.commit, left.lost) = (more.commit, more.lost);
        }
        left.remarks.extend(mended);
        if left.lost.is_some() {
            // The slot is released without a claim, so that its worktree is still removed at the end.
            self.slots.claim(number, None)?;
        }
        self.slots.leave(number, left.lost.is_none() && !leaving.settled);
        Ok(left)
    }

    fn left_behind(&self, task: &Task, tip: &str) -> Result<Option<String>> {
        let is_its = |taken: &TakenSlot| taken.claim.as_ref().is_some_and(|claim| claim.task == *task);
        if let Some(TakenSlot { number, claim: Some(claim) }) =
            self.slots.all(|| self.existing_slots()).into_iter().find(is_its)
        {
            self.commit_work(number, &claim, &format!("agentloop: what {task} left uncommitted\n"), None)?;
        }
        let tip = Repository::id(tip)?;
        let commit = self.task_ref(task)?.filter(|commit| !branch::contains(&self.repo.gix(), tip, *commit));
        Ok(commit.map(|commit| commit.to_string()))
    }

    fn merge(&self, merging: &Merging<'_>) -> Result<Merged> {
        let merge = || {
            let ours = self.integrated(merging)?.to_string();
            let trial = self.with_repair(|| preview::try_merge(&self.repo, &ours, merging.commit))?;
            Ok((Repository::id(&trial.tree)?, trial))
        };
        let trial = self.keep_tree("merged", Repository::id(merging.tree)?, merge, || Ok(false))?;
        Ok(if trial.conflicts.is_empty() { Merged::Clean(trial.tree) } else { Merged::Conflict(trial.conflicts) })
    }

    fn open_conflict(&self, task: &Task, merging: &Merging<'_>) -> Result<Place> {
        self.open_conflict_worktree(task, merging)
    }

    fn close_conflict(&self, resolving: &Resolving<'_>) -> Result<Resolution> {
        self.commit_resolution(resolving)
    }

    fn open_reader(&self, reading: &Reading<'_>) -> Result<Reader> {
        self.prepare_reader(reading)
    }

    fn close_reader(&self, reader: &Reader, tip: &str) -> Result<(Vec<String>, Vec<String>)> {
        self.rescue_reader_changes(reader, tip)
    }

    fn hand_over(&self, task: &Task, tip: &str) -> Result<()> {
        let (worktree, gix) = (self.worktree(), self.repo.gix());
        let tip = Repository::id(tip)?;
        let tracked = self.tracked(worktree.as_ref())?;
        let tree = Repository::id(&self.capture(&tracked, &self.tip().tree)?.id)?;
        if self.task_ref(task)?.is_none() && tree != branch::tree_of(&gix, tip)? {
            let message = format!("agentloop: what {task} left in the worktree of its run\n");
            let head = worktree.as_ref().and_then(|worktree| worktree.head(&gix)).unwrap_or(tip);
            let parents = if branch::contains(&gix, head, tip) { vec![head] } else { vec![tip, head] };
            self.set_task_ref(task, self.write_commit(&message, tree, &parents)?)?;
        }
        tracked.reset(&tip.to_string())?;
        worktree.map_or(Ok(()), |worktree| worktree.settle(&self.mover, tip, &self.index()))
    }

    fn advance(&self, from: &str, to: &str) -> Result<Tree> {
        let worktree = self.worktree();
        let tracked = self.tracked(worktree.as_ref())?;
        let mut current = self.capture(&tracked, &self.tip().tree)?;
        let mut target = to.to_owned();
        if current.id != to && current.id != from {
            // Half of an interrupted move, or a person's edits: changes that are in neither tree are kept.
            let gix = self.repo.gix();
            let commit = |tree: &str, parents: Vec<ObjectId>| {
                let message = format!("agentloop: in the worktree of {} beside what was integrated\n", self.run);
                branch::commit(&gix, &self.identity, &message, Repository::id(tree)?, parents)
            };
            let base = commit(from, Vec::new())?;
            let (ours, theirs) = (commit(to, vec![base])?, commit(&current.id, vec![base])?);
            let trial = preview::try_merge(&self.repo, &ours.to_string(), &theirs.to_string())?;
            target = trial.tree;
            if !trial.conflicts.is_empty() {
                target = protect::without(&self.repo, to, &target, &trial.conflicts)?;
                current.remarks.extend(branch::rescue(&self.repo, &self.mover, &self.run, theirs)?);
            }
        }
        tracked.advance(&current.id, &target)?;
        self.sync(&[Repository::id(&target)?])?;
        Ok(Tree { id: target, ..current })
    }
}

impl GitLedger {
    /// Runs `work`, and once more if it failed while a worker had broken data that git reads.
    fn with_repair<T>(&self, work: impl Fn() -> Result<T>) -> Result<T> {
        let reverts = || self.guarded().as_ref().map_or(0, Guard::reverts);
        let before = reverts();
        self.with_its_commits(&work).or_else(|error| {
            self.guarded().as_mut().map_or(Ok(()), |guard| guard.revert_harmful(&self.repo))?;
            if reverts() == before { Err(error) } else { work() }
        })
    }

    /// Takes a slot for `task`: its own if `goes_on` allows that, else one that `fill` prepares. `fill` gets the tree of the
    /// worktree if that is certain.
    pub(super) fn open_slot(
        &self,
        task: &Task,
        goes_on: impl FnOnce(&Claim, &Worktree) -> Result<bool>,
        fill: impl FnOnce(&Path, Option<ObjectId>) -> Result<Claim>,
    ) -> Result<Place> {
        let base = self.place()?;
        let taken = self.slots.take(task, || self.existing_slots());
        let number = taken.number;
        let ready = || -> Result<PathBuf> {
            let path = base.with_added_extension(slots::name(number));
            let mut holds = None;
            if let Some(claim) = taken.claim {
                let own = self.repaired(&path).filter(|_| claim.task == *task);
                if own.map_or(Ok(false), |own| goes_on(&claim, &own))? {
                    return Ok(path);
                }
                holds = self.commit_leftovers(number, &path, &claim)?;
                self.slots.claim(number, None)?;
            }
            let claim = fill(&path, holds)?;
            self.slots.claim(number, Some(claim))?;
            Ok(path)
        };
        match ready() {
            Ok(path) => Ok(Place { path, number }),
            Err(error) => {
                self.slots.leave(number, false);
                Err(error)
            }
        }
    }

    /// Returns the commit that a task starts from.
    fn starting_point(&self, opening: &Opening<'_>) -> Result<String> {
        let gix = self.repo.gix();
        let tip = Repository::id(opening.tip)?;
        let begun = self.task_ref(opening.task)?;
        if let Some(begun) = begun.filter(|begun| branch::contains(&gix, *begun, tip)) {
            return Ok(begun.to_string());
        }
        let begun = begun.map(|begun| begun.to_string());
        let Some(earlier) = begun.as_deref().or(opening.earlier) else { return Ok(opening.tip.to_owned()) };
        let work = Repository::id(earlier)?;
        if !gix.has_object(work) || branch::contains(&gix, tip, work) {
            return Ok(opening.tip.to_owned());
        }
        let trial = preview::try_merge(&self.repo, opening.tip, earlier)?;
        if !trial.conflicts.is_empty() {
            return Ok(begun.unwrap_or_else(|| opening.tip.to_owned()));
        }
        let message = format!("agentloop: {} begins with the work that was done for it before\n", opening.task);
        let merge = self.write_commit(&message, Repository::id(&trial.tree)?, &[tip, work])?;
        self.set_task_ref(opening.task, merge)?;
        Ok(merge.to_string())
    }

    /// Sets the worktree to `commit`, except for ignored files. `holds` is its current tree, if that is certain.
    pub(super) fn clear(&self, path: &Path, holds: Option<ObjectId>, commit: &str) -> Result<()> {
        let index = self.index_of(path);
        let Some(worktree) = self.repaired(path) else {
            let _ = std::fs::remove_file(&index); // it described the previous worktree
            // Before a worker can change the worktree's own index, of which ours is a copy.
            return self.tracked_at(&self.make(path, commit)?).prepare();
        };
        let tracked = self.tracked_at(&worktree);
        let tree = branch::tree_of(&self.repo.gix(), Repository::id(commit)?)?.to_string();
        // If an ignored file is in the way, only a reset overwrites it.
        if holds.is_none_or(|holds| tracked.advance(&holds.to_string(), &tree).is_err()) {
            tracked.reset(commit)?;
        }
        worktree.settle(&self.mover, Repository::id(commit)?, &index)?;
        worktree.forget_head_log()
    }

    /// Makes a new worktree. Concurrent checkouts share the processors: several of several threads each take longer than of
    /// one each.
    fn make(&self, path: &Path, commit: &str) -> Result<Worktree> {
        let making = self.making.fetch_add(1, Ordering::Relaxed) + 1;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).div_ceil(making);
        let made = Worktree::make(&self.repo, &self.run, path, commit, threads);
        self.making.fetch_sub(1, Ordering::Relaxed);
        made
    }

    /// Commits uncommitted changes of a worktree before it is reused or removed. Returns its tree if there certainly were
    /// none.
    fn commit_leftovers(&self, number: u32, path: &Path, claim: &Claim) -> Result<Option<ObjectId>> {
        let gix = self.repo.gix();
        if let Some(worktree) = self.repaired(path) {
            let kept = self.task_ref(&claim.task)?.map_or_else(|| Repository::id(&claim.tip), Ok)?;
            if worktree.is_settled(&gix, kept)
                && let Some(tree) = self.tracked_at(&worktree).untouched()?
                && tree == branch::tree_of(&gix, kept)?
            {
                return Ok(Some(tree));
            }
        }
        let message = format!("agentloop: what {} left uncommitted\n", claim.task);
        self.commit_work(number, claim, &message, None).map(|_| None)
    }

    /// Commits the changes in a worktree on the ref of its task, with `also` among the parents.
    pub(super) fn commit_work(
        &self,
        number: u32,
        claim: &Claim,
        message: &str,
        also: Option<ObjectId>,
    ) -> Result<Left> {
        let path = self.place()?.with_added_extension(slots::name(number));
        let gix = self.repo.gix();
        let tip = Repository::id(&claim.tip)?;
        let known = self.task_ref(&claim.task)?;
        let mut left = Left::default();
        if !is_folder(&path) {
            let is_gone = path.symlink_metadata().is_err();
            let what = if is_gone { "removed its worktree" } else { "put something else in the place of its worktree" };
            left.lost = Some(format!("the worker {what}"));
            let head = Worktree::registered(&self.repo, &path).and_then(|worktree| worktree.head(&gix));
            let head = head.filter(|head| *head != tip && gix.find_commit(*head).is_ok());
            if let Some(head) = head.filter(|head| known.is_none_or(|known| branch::contains(&gix, *head, known))) {
                self.set_task_ref(&claim.task, head)?;
            }
            left.commit = self.task_ref(&claim.task)?.map(|commit| commit.to_string());
            Worktree::forget(&self.repo, &path)?;
            return Ok(left);
        }
        let is_linked = self.linked_at(&path).is_some();
        let Some(worktree) = self.repaired(&path) else {
            return self.commit_unlinked(&path, claim, message);
        };
        if !is_linked {
            left.remarks.push("the worker removed the .git file of its worktree, and it was put back".to_owned());
        }
        left.remarks.extend(worktree.state_remarks(also.is_some()));
        let head = worktree.head(&gix).filter(|head| gix.find_commit(*head).is_ok()).unwrap_or(tip);
        let is_ours = head == tip || known == Some(head);
        let tracked = self.tracked_at(&worktree);
        if !is_ours {
            // Submodule commits in its history that are not checked out, so that the files do not show them.
            left.remarks.extend(tracked.follow(&head.to_string())?);
        }
        let written = self.capture(&tracked, &branch::tree_of(&gix, tip)?.to_string())?;
        left.remarks.extend(written.remarks);
        let mut tree = Repository::id(&written.id)?;
        if let Some(theirs) = also {
            tree = self.with_merged_agent_files(tree, tip, theirs)?;
            tracked.advance(&written.id, &tree.to_string())?;
        }
        let is_behind = head != tip && branch::contains(&gix, tip, head);
        if is_behind {
            let (brought, remark) = self.merge_into_tip(&tracked, head, tip, tree)?;
            tree = brought;
            left.remarks.push(remark);
        }
        left.remarks.extend(self.rescue_stashes(&worktree, tip)?);
        let commit = if is_ours && tree == branch::tree_of(&gix, head)? {
            head
        } else if is_behind && tree == branch::tree_of(&gix, tip)? {
            tip
        } else {
            let mut parents = match () {
                () if is_behind => vec![tip],
                () if branch::contains(&gix, head, tip) => vec![head],
                () => vec![tip, head],
            };
            parents.extend(also.filter(|also| !branch::contains(&gix, head, *also)));
            self.write_commit(message, tree, &parents)?
        };
        for lost in worktree.head_log(&gix).into_iter().chain(known) {
            let is_kept = branch::contains(&gix, commit, lost) || branch::contains(&gix, tip, lost);
            if !is_kept && gix.has_object(lost) {
                left.remarks.extend(branch::rescue(&self.repo, &self.mover, &self.run, lost)?);
            }
        }
        if commit != tip {
            self.set_task_ref(&claim.task, commit)?;
            left.commit = Some(commit.to_string());
        }
        worktree.settle(&self.mover, commit, &self.index_of(&path))?;
        Ok(left)
    }

    /// Commits the files of a worktree whose git directory the worker removed.
    fn commit_unlinked(&self, path: &Path, claim: &Claim, message: &str) -> Result<Left> {
        let gix = self.repo.gix();
        let tip = Repository::id(&claim.tip)?;
        let index = self.index_of(path);
        let git_dir = self.repo.common_dir().to_owned();
        let tracked = Tracked { repo: &self.repo, run: &self.run, path, git_dir, seed: index.clone(), index };
        let written = self.capture(&tracked, &branch::tree_of(&gix, tip)?.to_string())?;
        let parent = self.task_ref(&claim.task)?.unwrap_or(tip);
        let commit = self.write_commit(message, Repository::id(&written.id)?, &[parent])?;
        self.set_task_ref(&claim.task, commit)?;
        let mut remarks = written.remarks;
        remarks.push("the worker removed what git keeps of its worktree: commits of its own may be unnamed".to_owned());
        // Its files are in the commit; git would not accept the folder as a worktree again.
        remove_any(path).context(format!("'{}' cannot be removed", path.display()))?;
        Ok(Left { commit: Some(commit.to_string()), remarks, lost: None })
    }

    fn task_ref(&self, task: &Task) -> Result<Option<ObjectId>> {
        let gix = self.repo.gix();
        let found = gix.try_find_reference(self.ref_of(task).as_str()).context("a worker's ref cannot be read")?;
        Ok(found.and_then(|reference| reference.try_id().map(gix::Id::detach)))
    }

    fn ref_of(&self, task: &Task) -> String {
        format!("refs/agentloop/run/{}/{task}", self.run)
    }

    fn set_task_ref(&self, task: &Task, commit: ObjectId) -> Result<()> {
        let change = Change { name: self.ref_of(task), new: Some(commit), old: Expect::Any };
        match self.land(&change)? {
            Swap::Done => Ok(()),
            Swap::Lost => Err(Error::failed(format!("somebody moved '{}' meanwhile", self.ref_of(task)))),
        }
    }

    /// Returns the worktree whose link at `path` leads to its git directory, or did until the repository was moved.
    fn linked_at(&self, path: &Path) -> Option<Worktree> {
        Worktree::at(&self.repo, path).or_else(|| Worktree::find_moved(&self.repo, path).ok()?)
    }

    /// Returns the worktree at `path`, after restoring its link to the git directory if necessary.
    pub(super) fn repaired(&self, path: &Path) -> Option<Worktree> {
        let number = path.extension().unwrap_or_default().to_string_lossy();
        let aside = run_dir(self.repo.common_dir(), &self.run).join(format!("replaced-git.{number}"));
        let found = self.linked_at(path).or_else(|| Worktree::relink(&self.repo, path, &aside));
        let found = found.filter(Worktree::is_ready)?;
        // If it cannot be repaired, only its files are used.
        found.repair(&self.tip().commit).is_ok().then_some(found)
    }

    pub(super) fn tracked_at<'a>(&'a self, worktree: &'a Worktree) -> Tracked<'a> {
        Tracked {
            repo: &self.repo,
            run: &self.run,
            path: &worktree.path,
            git_dir: worktree.admin.clone(),
            index: self.index_of(&worktree.path),
            seed: worktree.admin.join("index"),
        }
    }

    pub(super) fn git_at(&self, path: &Path, verb: &'static str) -> Result<Git> {
        let worktree = self.repaired(path).ok_or_else(|| Error::failed("a place that was just made is gone"))?;
        Ok(worktree.git(verb).works_for(self.repo.common_dir(), &self.run).identity(&self.identity))
    }

    /// Returns the path of our index of a worktree.
    pub(super) fn index_of(&self, path: &Path) -> PathBuf {
        let number = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        run_dir(self.repo.common_dir(), &self.run).join(format!("index.{number}"))
    }

    /// Removes our index of a worktree, and what a killed driver left beside it: an incomplete copy, or a lock.
    fn forget_index(&self, path: &Path) {
        let index = self.index_of(path);
        for made in ["new", "lock", "nested", "linked"] {
            let _ = std::fs::remove_file(index.with_added_extension(made));
        }
        let _ = std::fs::remove_file(index);
    }

    /// Lists the numbers of existing worktrees, incomplete ones included.
    fn existing_slots(&self) -> Vec<u32> {
        let Ok(base) = self.place() else { return Vec::new() };
        let mut names = base.parent().map(slots::names).unwrap_or_default();
        // A worktree whose files were removed before its driver was killed.
        names.extend(slots::names(&self.repo.common_dir().join("worktrees")));
        let of_run = names.iter().filter_map(|name| name.strip_prefix(self.run.as_str())?.strip_prefix('.'));
        of_run.filter_map(slots::number).collect()
    }

    /// Removes the workers' worktrees after committing their changes.
    pub(super) fn close_places(&self) -> Result<()> {
        let places = Mutex::new(self.slots.all(|| self.existing_slots()).into_iter());
        let next = || places.lock().unwrap_or_else(PoisonError::into_inner).next();
        let close = || -> Result<()> {
            while let Some(taken) = next() {
                self.close_slot(taken)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let closing: Vec<_> = (0..threads).map(|_| scope.spawn(close)).collect();
            let died = |_| Err(Error::failed("a thread that cleared a worker's place died"));
            closing.into_iter().try_for_each(|closing| closing.join().unwrap_or_else(died))
        })
    }

    fn close_slot(&self, TakenSlot { number, claim }: TakenSlot) -> Result<()> {
        let path = self.place()?.with_added_extension(slots::name(number));
        if let Some(claim) = claim {
            self.commit_leftovers(number, &path, &claim)?;
            self.slots.claim(number, None)?;
        }
        // Before the worktree: without one, leftover indexes are not found again.
        self.forget_index(&path);
        if Worktree::registered(&self.repo, &path).is_some() {
            // The files first: git ends one registration at a time, and the others would wait for them.
            remove_any(&path).context(format!("'{}' cannot be removed", path.display()))?;
        }
        match Worktree::at(&self.repo, &path) {
            Some(worktree) => worktree.remove(&self.repo)?,
            None => Worktree::forget(&self.repo, &path)?,
        }
        self.slots.forget(number)
    }
}
