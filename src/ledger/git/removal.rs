//! Taking a run out of the repository: what only it holds is kept on rescue refs before anything goes.
//!
//! Order is what makes a kill at any instant harmless: uncommitted work first becomes a commit on a rescue ref, then the
//! worktrees go with the live files about them, then one transaction puts rescue refs in the place of the run's own: while
//! one of those is left, the same verb finishes what was begun. Last goes what marks the run as this clone's.

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
use super::tree::Tracked;
use super::worktree::{self, Worktree};
use super::{GitLedger, branch, restore};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// How much of a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Worktrees, branch and workers' refs; the record stays.
    Work,
    /// The record too.
    Everything,
}

/// What of a run there is to remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Its worktrees.
    pub worktrees: Vec<PathBuf>,
    /// Its refs.
    pub refs: Vec<(String, ObjectId)>,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The worktrees that went.
    pub worktrees: Vec<PathBuf>,
    /// The refs that went.
    pub refs: Vec<String>,
    /// What would have been lost with the worktrees, and where it is kept, in words.
    pub kept: Vec<String>,
    /// The command that brings the refs back; none where no ref went.
    pub undo: Option<String>,
}

/// What of `run` there is to remove.
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

/// Removes `run`, or its work alone.
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
    // First: once its own refs are gone, nobody may be able to name the run to do it again.
    for withdrawn in clones::withdraw(repo, run, &rescue)? {
        removed.kept.push(withdrawn.in_words());
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

/// Runs that left a folder and are in the repository no more, the folder unchanged since `before`: their drivers were
/// killed before anything was on record, or while they were discarded.
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
    // First: most are on record, and it takes one look to tell.
    if read::find(gix, run)?.is_some() {
        return Ok(false);
    }
    let own = branch::name(run);
    let is_start = |id: ObjectId| gix.find_commit(id).is_ok_and(|commit| branch::is_start(&commit, run));
    Ok(refs(repo, run, Extent::Everything)?.iter().all(|(name, id)| *name == own && is_start(*id)))
}

/// Removes what is left of one of [`remnants`], unless somebody has the run by now.
pub fn clear_remnant(repo: &Repository, run: &RunId) -> Result<()> {
    GitLedger::withdraw(repo, run);
    let Some(_lock) = RunLock::acquire(repo.common_dir(), run)? else { return Ok(()) };
    if is_remnant(&repo.gix(), repo, run)? { remove_folder(repo, run) } else { Ok(()) }
}

/// Whether `run` was discarded here with all that `log`, a log of it from elsewhere, holds. Where it had a log of its own,
/// that one counts: whoever discards theirs may do so to have the other.
pub(super) fn knew(gix: &gix::Repository, run: &RunId, log: ObjectId) -> Result<bool> {
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

/// The command that brings back the branch of `run`, and what else went with it last; none where nothing of it is kept.
pub fn undo_of_prune(gix: &gix::Repository, run: &RunId) -> Result<Option<String>> {
    let branch = format!("/heads/agentloop/{run}");
    let kept = |reference: &gix::refs::Reference| {
        let name = reference.name.as_bstr().to_str().ok()?;
        name.ends_with(&branch).then_some(())
    };
    let kept = places::prefixed(gix, &format!("refs/agentloop/rescue/{run}/"), kept)?;
    Ok((!kept.is_empty()).then(|| restore::command(run)))
}

/// The refs that keep what workers of `run` dropped or would have lost, each with its object.
pub fn rescued(gix: &gix::Repository, run: &RunId) -> Result<Vec<(String, ObjectId)>> {
    let prefix = format!("refs/agentloop/rescue/{run}/");
    // What a discard keeps is one level deeper.
    let kept = |reference: &gix::refs::Reference| {
        let name = reference.name.as_bstr().to_str().ok()?;
        let is_one = !name.strip_prefix(&prefix)?.contains('/');
        is_one.then(|| Some((name.to_owned(), reference.target.try_id()?.to_owned()))).flatten()
    };
    places::prefixed(gix, &prefix, kept)
}

/// Removes the run's worktrees; which, and what of them was kept first, in words.
pub(super) fn drop_worktrees(
    repo: &Repository,
    mover: &Arc<RefMover>,
    run: &RunId,
) -> Result<(Vec<PathBuf>, Vec<String>)> {
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for worktree in worktree::of_run(repo, run)? {
        kept.extend(keep(repo, mover, run, &worktree)?);
        worktree.remove(repo)?;
        gone.push(worktree.path);
    }
    for worktree in worktree::of_another(repo, run)? {
        kept.extend(keep(repo, mover, run, &worktree)?);
        let admin = worktree.admin.display().to_string();
        remove_any(&worktree.admin).context(format!("'{admin}' cannot be removed"))?;
    }
    Ok((gone, kept))
}

/// As `git branch -d` has it.
pub(super) fn refuse_checked_out(repo: &Repository, run: &RunId) -> Result<()> {
    let git = repo.git("for-each-ref").arg("--format=%(worktreepath)");
    let place = git.arg(branch::name(run)).word()?;
    if place.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!("the branch 'agentloop/{run}' is checked out in '{place}'"))
        .hint(format!("switch away from it first: git -C {} switch -", shell_words::quote(&place))))
}

/// Keeps what only the worktree holds: edits, and commits that its HEAD has stood at.
fn keep(repo: &Repository, mover: &Arc<RefMover>, run: &RunId, worktree: &Worktree) -> Result<Vec<String>> {
    let gix = repo.gix();
    let mut kept = Vec::new();
    let tip = branch::tip(&gix, &branch::name(run));
    let head = worktree.head(&gix).filter(|head| gix.has_object(*head));
    for commit in worktree.head_log().into_iter().chain(head) {
        let is_safe = tip.is_some_and(|tip| branch::contains(&gix, tip, commit));
        if !is_safe && gix.has_object(commit) {
            kept.extend(branch::rescue(repo, mover, run, commit)?);
        }
    }
    // A worktree whose folder somebody deleted holds nothing.
    if !is_folder(&worktree.path) {
        return Ok(kept);
    }
    // On a branch without a commit, or with a HEAD that is damaged, it holds files all the same.
    let parent = head.or(tip).filter(|commit| gix.has_object(*commit));
    let before = match parent {
        Some(parent) => {
            worktree.mend(&parent.to_string())?;
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

/// Live files of the run go.
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
    if let Some(kept) = GitLedger::kept(repo, run) {
        kept.remove()?;
    }
    // What the private store knows of the run stays: a discard is undone whole, and the run is still this clone's then.
    let dir = run_dir(repo.common_dir(), run);
    std::fs::remove_dir_all(&dir).context(uncleared(&dir))
}

fn uncleared(dir: &Path) -> String {
    format!("'{}' cannot be cleared", dir.display())
}
