//! Removes a run from the repository. What only it holds is first put on rescue refs.
//!
//! The order makes a kill at any instant harmless. Uncommitted work first becomes a commit on a rescue ref. Then the
//! worktrees and live files are removed, then one transaction replaces the run's own refs by rescue refs: while one of those
//! is left, the same command finishes the removal. The run's folder, which marks it as this clone's, is removed last.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::folder::{is_folder, remove_any};
use super::lock::{self, RunLock, already_driven};
pub use super::provision::clones::held as held_by_submodules;

use super::places::{self, LOCAL, REMOTE};
use super::provision::clones;
use super::read;
use super::refs::RefMover;
use super::repository::Repository;
use super::run_dir::run_dir;
use super::seal::{self, Seals};
use super::tree::Tracked;
use super::worktree::{self, Worktree};
use super::{GitLedger, branch, restore};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// How much of a run is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Worktrees, branch and workers' refs; the record stays.
    Work,
    /// The record too.
    Everything,
}

/// Parts of a run that can be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Its worktrees.
    pub worktrees: Vec<PathBuf>,
    /// Its refs.
    pub refs: Vec<(String, ObjectId)>,
}

/// Result of a removal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The removed worktrees.
    pub worktrees: Vec<PathBuf>,
    /// The removed refs.
    pub refs: Vec<String>,
    /// Messages on what would have been lost with the worktrees, and where it is kept.
    pub kept: Vec<String>,
    /// The command that restores the refs; `None` if no ref was removed.
    pub undo: Option<String>,
}

/// Lists the parts of `run` that can be removed.
pub fn holdings(repo: &Repository, run: &RunId, extent: Extent) -> Result<Holdings> {
    let worktrees = worktree::of_run(repo, run)?.into_iter().map(|worktree| worktree.path).collect();
    Ok(Holdings { worktrees, refs: refs(repo, run, extent)? })
}

fn refs(repo: &Repository, run: &RunId, extent: Extent) -> Result<Vec<(String, ObjectId)>> {
    let gix = repo.gix();
    let unreadable = "refs cannot be read";
    let platform = gix.references().context(unreadable)?;
    let mut found = Vec::new();
    let mut collect = |prefix: &str, wanted: &dyn Fn(&str) -> bool| -> Result<()> {
        for reference in platform.prefixed(prefix).context(unreadable)?.filter_map(std::result::Result::ok) {
            let name = reference.name().as_bstr().to_str_lossy().into_owned();
            if let Some(id) = reference.try_id().filter(|_| wanted(&name)) {
                found.push((name, id.detach()));
            }
        }
        Ok(())
    };
    let (own, output) = (branch::name(run), format!("refs/agentloop/run/{run}/output"));
    collect(&own, &|name| name == own)?;
    collect(&format!("refs/agentloop/run/{run}/"), &|name| extent == Extent::Everything || name != output)?;
    if extent == Extent::Everything {
        let log = format!("{LOCAL}{run}");
        collect(&log, &|name| name == log)?;
        collect(REMOTE, &|name| name.rsplit('/').next() == Some(run.as_str()))?;
    }
    Ok(found)
}

/// Removes `run`, or only its work.
///
/// # Errors
/// Fails if a driver works on the run, its branch is checked out, or something of it could not be kept first.
pub fn remove(repo: &Repository, run: &RunId, extent: Extent) -> Result<Removed> {
    let lock = RunLock::acquire(repo.common_dir(), run)?.ok_or_else(|| already_driven(repo.common_dir(), run))?;
    refuse_checked_out(repo, run)?;
    let mover = Arc::new(RefMover::new(repo.common_dir().to_owned()).synced(true));
    let mut removed = Removed::default();
    (removed.worktrees, removed.kept) = drop_worktrees(repo, &mover, run)?;
    let rescue = format!("refs/agentloop/rescue/{run}/{}", branch::stamp());
    // First: once the run's own refs are gone, its name may not resolve for a second attempt.
    for withdrawn in clones::withdraw(repo, run, &rescue)? {
        removed.kept.push(withdrawn.describe());
        removed.undo = Some(restore::command(run));
    }
    clear_folder(repo, run)?;
    let going = refs(repo, run, extent)?;
    if !going.is_empty() {
        branch::move_to_rescue(&mover, run, &going, &rescue)?;
        removed.refs = going.into_iter().map(|(name, _)| name).collect();
        removed.undo = Some(restore::command(run));
    }
    if extent == Extent::Everything {
        remove_folder(repo, run)?;
    }
    drop(lock);
    Ok(removed)
}

/// Lists runs that have a folder, unchanged since `before`, but nothing else in the repository: their drivers were killed
/// before anything was recorded, or while the run was discarded.
pub fn remnants(repo: &Repository, before: SystemTime) -> Result<Vec<RunId>> {
    let gix = repo.gix();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repo.common_dir().join("agentloop")).into_iter().flatten().flatten() {
        let Some(run) = entry.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()) else { continue };
        let folder = entry.metadata().ok().filter(std::fs::Metadata::is_dir);
        let is_old = folder.and_then(|folder| folder.modified().ok()).is_some_and(|changed| changed <= before);
        if is_old && is_remnant(&gix, repo, &run)? && !lock::is_held(repo.common_dir(), &run) {
            found.push(run);
        }
    }
    found.sort();
    Ok(found)
}

fn is_remnant(gix: &gix::Repository, repo: &Repository, run: &RunId) -> Result<bool> {
    // First, since most are recorded and this is one lookup.
    if read::find(gix, run)?.is_some() {
        return Ok(false);
    }
    let own = branch::name(run);
    let is_start = |id: ObjectId| gix.find_commit(id).is_ok_and(|commit| branch::is_start(&commit, run));
    Ok(refs(repo, run, Extent::Everything)?.iter().all(|(name, id)| *name == own && is_start(*id)))
}

/// Removes one of the [`remnants`], unless the run has a driver by now.
pub fn clear_remnant(repo: &Repository, run: &RunId) -> Result<()> {
    GitLedger::withdraw(repo, run);
    let Some(_lock) = RunLock::acquire(repo.common_dir(), run)? else { return Ok(()) };
    if is_remnant(&repo.gix(), repo, run)? { remove_folder(repo, run) } else { Ok(()) }
}

/// Reports whether `run` was discarded here with everything in `log`, a log from elsewhere. If the run had a log of its own,
/// only that one counts: a user may have discarded theirs in order to use the other.
pub(super) fn was_discarded(gix: &gix::Repository, run: &RunId, log: ObjectId) -> Result<bool> {
    let prefix = format!("refs/agentloop/rescue/{run}/");
    let named = |reference: &gix::refs::Reference| {
        let name = reference.name.as_bstr().to_str().ok()?;
        let (discard, log) = name.strip_prefix(&prefix)?.split_once("/notes/agentloop")?;
        Some((discard.to_owned(), log.starts_with('/'), reference.target.try_id()?.to_owned()))
    };
    let logs = places::prefixed(gix, &prefix, named)?;
    let had_own = |discard: &str| logs.iter().any(|(other, is_own, _)| *is_own && other == discard);
    let mut counting = logs.iter().filter(|(discard, is_own, _)| *is_own || !had_own(discard));
    Ok(counting.any(|(_, _, kept)| branch::contains(gix, *kept, log)))
}

/// Returns the command that restores the branch of `run` and what was last removed with it; `None` if nothing of it is kept.
pub fn undo_of_prune(gix: &gix::Repository, run: &RunId) -> Result<Option<String>> {
    let branch = format!("/heads/agentloop/{run}");
    let kept = |reference: &gix::refs::Reference| {
        let name = reference.name.as_bstr().to_str().ok()?;
        name.ends_with(&branch).then_some(())
    };
    let kept = places::prefixed(gix, &format!("refs/agentloop/rescue/{run}/"), kept)?;
    Ok((!kept.is_empty()).then(|| restore::command(run)))
}

/// Lists the refs, with their objects, that hold what workers of `run` dropped or would have lost.
pub fn rescued(gix: &gix::Repository, run: &RunId) -> Result<Vec<(String, ObjectId)>> {
    let prefix = format!("refs/agentloop/rescue/{run}/");
    // Refs of a discard are one level deeper.
    let kept = |reference: &gix::refs::Reference| {
        let name = reference.name.as_bstr().to_str().ok()?;
        let is_one = !name.strip_prefix(&prefix)?.contains('/');
        is_one.then(|| Some((name.to_owned(), reference.target.try_id()?.to_owned()))).flatten()
    };
    places::prefixed(gix, &prefix, kept)
}

/// Removes the run's worktrees. Returns them, and messages on what was kept of them first.
pub(super) fn drop_worktrees(
    repo: &Repository,
    mover: &Arc<RefMover>,
    run: &RunId,
) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for worktree in worktree::of_run(repo, run)? {
        kept.extend(rescue_worktree(repo, mover, run, &worktree)?);
        worktree.remove(repo)?;
        gone.push(worktree.path);
    }
    for worktree in worktree::of_another_repository(repo, run)? {
        kept.extend(rescue_worktree(repo, mover, run, &worktree)?);
        let admin = worktree.admin.display().to_string();
        remove_any(&worktree.admin).context(format!("'{admin}' cannot be removed"))?;
    }
    Ok((gone, kept))
}

/// Fails if the branch is checked out, as `git branch -d` does.
pub(super) fn refuse_checked_out(repo: &Repository, run: &RunId) -> Result<()> {
    let git = repo.git("for-each-ref").arg("--format=%(worktreepath)");
    let place = git.arg(branch::name(run)).word()?;
    if place.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("the branch 'agentloop/{run}' is checked out in '{place}'"))
        .hint(format!("switch away from it first: git -C {} switch -", shell_words::quote(&place))))
}

/// Puts what only the worktree holds on rescue refs: edits, and commits that its HEAD was at.
fn rescue_worktree(repo: &Repository, mover: &Arc<RefMover>, run: &RunId, worktree: &Worktree) -> Result<Vec<String>> {
    let gix = repo.gix();
    let mut kept = Vec::new();
    let tip = branch::tip(&gix, &branch::name(run));
    let head = worktree.head(&gix).filter(|head| gix.has_object(*head));
    for commit in worktree.head_log(&gix).into_iter().chain(head) {
        let is_safe = tip.is_some_and(|tip| branch::contains(&gix, tip, commit));
        if !is_safe && gix.has_object(commit) {
            kept.extend(branch::rescue(repo, mover, run, commit)?);
        }
    }
    // A worktree whose folder was deleted holds nothing.
    if !is_folder(&worktree.path) {
        return Ok(kept);
    }
    // A worktree on a branch without a commit, or with a damaged HEAD, holds files too.
    let parent = head.or(tip).filter(|commit| gix.has_object(*commit));
    let before = match parent {
        Some(parent) => {
            worktree.repair(&parent.to_string())?;
            branch::tree_of(&gix, parent)?.to_string()
        }
        None => gix.empty_tree().id.to_string(),
    };
    let index = run_dir(repo.common_dir(), run).join("rescue-index");
    let _ = std::fs::remove_file(&index);
    let tracked = Tracked {
        repo,
        run,
        path: &worktree.path,
        git_dir: worktree.admin.clone(),
        index: index.clone(),
        seed: worktree.admin.join("index"),
    };
    let written = tracked.write(&before)?;
    let uncaptured = tracked.uncaptured()?;
    let _ = std::fs::remove_file(index);
    if let Some(first) = uncaptured.first() {
        let more = if uncaptured.len() > 1 { format!(" and {} more", uncaptured.len() - 1) } else { String::new() };
        return Err(Error::failed(format!("git cannot keep '{}'{more}", worktree.path.join(first).display()))
            .hint("move it out of the worktree or remove it, then do it again"));
    }
    if written.id != before {
        let message = format!("agentloop: uncommitted in the worktree of {run}\n");
        let tree = Repository::id(&written.id)?;
        let commit = branch::commit(&gix, &repo.identity(), &message, tree, parent.into_iter().collect())?;
        kept.extend(branch::rescue(repo, mover, run, commit)?);
    }
    Ok(kept)
}

/// Removes the live files of the run.
fn clear_folder(repo: &Repository, run: &RunId) -> Result<()> {
    let dir = run_dir(repo.common_dir(), run);
    for entry in std::fs::read_dir(&dir).context(uncleared(&dir))?.flatten() {
        if entry.file_name() == lock::NAME {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let path = entry.path();
        if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.context(uncleared(&dir))?;
    }
    Ok(())
}

fn remove_folder(repo: &Repository, run: &RunId) -> Result<()> {
    leave_store(repo, run)?;
    let dir = run_dir(repo.common_dir(), run);
    std::fs::remove_dir_all(&dir).context(uncleared(&dir))
}

/// Puts the private store's data on a removed run aside, so that it is still this clone's once it is restored, and an older
/// log is not taken for its newest. Another clone's log of it that is taken instead is one from elsewhere. Data on a run that
/// acknowledged nothing is removed.
pub(super) fn leave_store(repo: &Repository, run: &RunId) -> Result<()> {
    let Some(store) = repo.store() else { return Ok(()) };
    let kept = store.run(run);
    if Seals::of(&store, run).newest()?.is_some() {
        kept.put_aside(&restore::STORE_FILES, lock::NAME)
    } else if kept.has_aside(seal::FILE) {
        Ok(())
    } else {
        kept.remove()
    }
}

fn uncleared(dir: &Path) -> String {
    format!("'{}' cannot be cleared", dir.display())
}
