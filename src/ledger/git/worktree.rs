//! A run's worktree: made beside the repository, repaired if its making was interrupted, and removed only once its work is
//! kept.

mod location;
mod moved;
mod repair;

use std::path::{Path, PathBuf};

use super::command::Git;
use super::folder::{is_folder, remove_any};
use super::link::{link_of, linked};
use super::objects::parse_id;
use super::refs::{Change, Expect, REFLOG_MESSAGE, RefMover, Swap};
use super::repository::Repository;
use super::{folder, lock};
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Found, Preferences};
use crate::process;
use crate::run::goal::RunId;

/// File in the worktree's git directory that marks a complete checkout: without it no worker has run in it yet.
const READY: &str = "agentloop-ready";

/// Free bytes below which a disk counts as full after git could not write a file.
const LITTLE_ROOM: u64 = 64 << 20;

/// Files in a git directory while a command of git is under way there, and that command.
const OPERATIONS: [(&str, &str); 5] = [
    ("MERGE_HEAD", "merge"),
    ("CHERRY_PICK_HEAD", "cherry-pick"),
    ("REVERT_HEAD", "revert"),
    ("rebase-merge", "rebase"),
    ("rebase-apply", "rebase"),
];

/// Further files of such commands.
const OTHER_FILES: [&str; 4] = ["MERGE_MODE", "MERGE_MSG", "AUTO_MERGE", "sequencer"];

/// Lists git's commands that are under way in the checkout of `git_dir`.
pub(super) fn under_way(git_dir: &Path) -> impl Iterator<Item = &'static str> {
    OPERATIONS.into_iter().filter(|(name, _)| git_dir.join(name).exists()).map(|(_, verb)| verb)
}

/// Lists all files that git keeps of such commands; a checkpoint ends them all.
fn operation_files(git_dir: &Path) -> impl Iterator<Item = PathBuf> {
    OPERATIONS.into_iter().map(|(name, _)| name).chain(OTHER_FILES).map(|name| git_dir.join(name))
}

/// A worktree of a run.
#[derive(Clone, Debug)]
pub struct Worktree {
    /// The directory of its files.
    pub path: PathBuf,
    /// Its git directory, below the repository's.
    pub admin: PathBuf,
}

/// Returns the path of the existing worktree of `run`, even if settings changed since.
fn existing(repo: &Repository, run: &RunId) -> Option<PathBuf> {
    let admin = repo.common_dir().join("worktrees").join(run.as_str());
    let known = Worktree { path: linked(&admin)?, admin };
    known.path.canonicalize().ok().filter(|_| !known.is_of_another_repository())
}

/// Returns the folder for `run`'s worktree.
pub fn place(repo: &Repository, run: &RunId, preferences: &Preferences) -> Result<PathBuf> {
    if let Some(current) = existing(repo, run) {
        return Ok(current);
    }
    if let Some(dir) = &preferences.worktree_dir {
        return Ok(repo.home().join(dir).join(run.as_str()));
    }
    let beside = location::beside(repo);
    let fits = beside.as_ref().filter(|beside| match beside.metadata() {
        Ok(there) => there.is_dir() && is_writable(beside),
        Err(_) => beside.parent().is_some_and(is_writable),
    });
    if let Some(beside) = fits {
        return Ok(beside.join(run.as_str()));
    }
    let common = repo.common_dir();
    let name = beside.as_deref().and_then(Path::file_stem);
    let name = name.map_or_else(|| "repository".into(), |name| name.to_string_lossy().into_owned());
    let state = process::state_dir().ok_or_else(|| {
        Error::failed("no folder beside the checkout can be written, and there is no HOME")
            .hint("'git config agentloop.worktreeDir DIR' says where worktrees go")
    })?;
    let mark = common
        .to_string_lossy()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    Ok(state.join(format!("{name}-{mark:016x}")).join(run.as_str()))
}

/// Lists all worktrees of `run`: its own, and its workers', which are named `<run>.<subgoal>`.
pub fn of_run(repo: &Repository, run: &RunId) -> Result<Vec<Worktree>> {
    let known =
        registrations(repo)?.into_iter().filter(|(name, worktree)| name == run && !worktree.is_of_another_repository());
    Ok(known.map(|(_, worktree)| worktree).collect())
}

/// Lists git's registrations for `run` that are not ours: those of the repository that this one is a copy of.
pub fn of_another_repository(repo: &Repository, run: &RunId) -> Result<Vec<Worktree>> {
    let known =
        registrations(repo)?.into_iter().filter(|(name, worktree)| name == run && worktree.is_of_another_repository());
    Ok(known.map(|(_, worktree)| worktree).collect())
}

/// Lists all worktrees of runs that git has registered.
fn registrations(repo: &Repository) -> Result<Vec<(RunId, Worktree)>> {
    let dir = repo.common_dir().join("worktrees");
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context(format!("'{}' cannot be read", dir.display())),
    };
    let ours = entries.flatten().filter_map(|entry| {
        let admin = entry.path();
        let path = linked(&admin)?;
        let name = path.file_name()?.to_str()?;
        let run = name.split('.').next()?.parse().ok()?;
        // A person may have checked out a run's branch in a worktree with its name.
        admin.join(READY).exists().then_some((run, Worktree { path, admin }))
    });
    Ok(ours.collect())
}

/// Returns the folder for new worktrees, which is not made.
pub fn folder(repo: &Repository, preferences: &Preferences) -> Result<PathBuf> {
    let place = place(repo, &RunId::new("doctor", 0), preferences)?;
    let folder = place.parent().unwrap_or(&place).to_owned();
    let there = folder.ancestors().find(|dir| dir.is_dir()).unwrap_or(&folder);
    if is_writable(there) {
        return Ok(folder);
    }
    Err(Error::failed(format!(
        "worktrees would go into '{}', and '{}' cannot be written",
        folder.display(),
        there.display()
    ))
    .hint("'git config agentloop.worktreeDir DIR' says where else they go"))
}

fn is_writable(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
}

impl Worktree {
    /// Returns the worktree at `path` if it is one of this repository's.
    #[must_use]
    pub fn at(repo: &Repository, path: &Path) -> Option<Self> {
        let admin = link_of(path)?.canonicalize().ok()?;
        admin.starts_with(repo.common_dir().join("worktrees")).then(|| Self { path: path.to_owned(), admin })
    }

    /// Makes the worktree of `run` at `path` with `tip` checked out, or opens the existing one with its edits.
    ///
    /// # Errors
    /// Fails if something that is not ours is in its place.
    pub fn ensure(repo: &Repository, run: &RunId, path: &Path, tip: &str) -> Result<(Self, Found)> {
        let current = match Self::at(repo, path) {
            None => Self::find_moved(repo, path)?,
            current => current,
        };
        if let Some(worktree) = current.filter(Self::is_ready) {
            worktree.claim_files()?;
            worktree.lock(repo, run)?;
            return Ok((worktree, Found::Kept));
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok((Self::make(repo, run, path, tip, threads)?, Found::Made))
    }

    /// Makes a worktree at `path` with `commit` checked out by that many threads, replacing what an earlier attempt left
    /// there.
    ///
    /// # Errors
    /// Fails if something that is not ours is in its place.
    pub fn make(repo: &Repository, run: &RunId, path: &Path, commit: &str, threads: usize) -> Result<Self> {
        let worktree = {
            let _registering = lock::registration_lock(repo.common_dir())?;
            clear(repo, path)?;
            if let Some(folder) = path.parent() {
                folder::make(folder);
                location::hide(repo, folder)?;
            }
            // Forced twice, to replace the registration of a worktree whose folder was deleted.
            let git = repo.git("worktree").args(["add", "-f", "-f", "--detach", "--no-checkout", "--lock"]);
            let git = git.arg("--reason").arg(reason(run)).arg(path).id(Repository::id(commit)?);
            git.works_for(repo.common_dir(), run).run().map_err(|error| explain_failure(path, run, error))?;
            Self::at(repo, path)
                .ok_or_else(|| Error::failed(format!("git made no worktree at '{}'", path.display())))?
        };
        if let Err(error) = worktree.claim_files() {
            let _ = worktree.remove(repo);
            return Err(error);
        }
        // No other process waits for this checkout: from here on only this worktree is touched.
        let git = worktree.git("read-tree").setting("checkout.workers", threads.to_string());
        let filled = git.args(["-u", "--reset", "HEAD"]).works_for(repo.common_dir(), run).run().and_then(|_| {
            std::fs::write(worktree.admin.join(READY), "").context("the worktree cannot be marked as ready")
        });
        let Err(error) = filled else { return Ok(worktree) };
        let error = explain_failure(path, run, error);
        // Half a checkout is of no use and takes up disk space.
        let _ = worktree.remove(repo);
        Err(error)
    }

    /// Restores the removed link from `path` to its git directory. A repository in the link's place is moved to `aside`.
    #[must_use]
    pub fn relink(repo: &Repository, path: &Path, aside: &Path) -> Option<Self> {
        if !is_folder(path) {
            return None;
        }
        let admin = registered(repo, path)?;
        let link = path.join(".git");
        if link.symlink_metadata().is_ok() {
            std::fs::rename(&link, aside).ok()?;
        }
        std::fs::write(link, format!("gitdir: {}\n", admin.display())).ok()?;
        Some(Self { path: path.to_owned(), admin })
    }

    /// Returns the worktree that is registered at `path`, even if it was removed.
    #[must_use]
    pub fn registered(repo: &Repository, path: &Path) -> Option<Self> {
        registered(repo, path).map(|admin| Self { path: path.to_owned(), admin })
    }

    /// Removes the registration of a worktree whose folder is gone. A folder that is not empty stays, and so does the target
    /// of a link in its place.
    pub fn forget(repo: &Repository, path: &Path) -> Result<()> {
        let _registering = lock::registration_lock(repo.common_dir())?;
        if is_folder(path) {
            let _ = std::fs::remove_dir(path);
        } else {
            remove_any(path).context(format!("'{}' cannot be removed", path.display()))?;
        }
        if registered(repo, path).is_some() && !path.exists() {
            return remove(repo, path);
        }
        Ok(())
    }

    /// Reports whether HEAD is at `commit` since [`settle`](Self::settle), and no command is under way.
    #[must_use]
    pub fn is_settled(&self, repo: &gix::Repository, commit: gix::ObjectId) -> bool {
        let head = std::fs::read_to_string(self.admin.join("HEAD")).unwrap_or_default();
        gix::ObjectId::from_hex(head.trim_end().as_bytes()).is_ok_and(|head| head == commit)
            && self.head_log_since_settled(repo).is_empty()
            && operation_files(&self.admin).all(|path| !path.exists())
    }

    /// Builds a git command on its files, even if the link to its git directory is broken.
    pub(super) fn git(&self, verb: &'static str) -> Git {
        Git::on(&self.path, &self.admin, verb)
    }

    /// Reports whether its checkout was once complete.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.admin.join(READY).exists()
    }

    fn lock(&self, repo: &Repository, run: &RunId) -> Result<()> {
        if self.admin.join("locked").exists() {
            return Ok(());
        }
        let git = repo.git("worktree").args(["lock", "--reason"]).arg(reason(run));
        git.arg(&self.path).run().map(|_| ())
    }

    /// Lets `git worktree` move, prune and remove it again.
    pub fn unlock(&self, repo: &Repository) -> Result<()> {
        if !self.admin.join("locked").exists() {
            return Ok(());
        }
        repo.git("worktree").arg("unlock").arg(&self.path).run().map(|_| ())
    }

    /// Removes the worktree with all its files.
    pub fn remove(&self, repo: &Repository) -> Result<()> {
        let _registering = lock::registration_lock(repo.common_dir())?;
        remove(repo, &self.path)
    }

    /// Returns the commit of its HEAD, also if that is on a branch.
    pub fn head(&self, repo: &gix::Repository) -> Option<gix::ObjectId> {
        let text = std::fs::read_to_string(self.admin.join("HEAD")).ok()?;
        match text.trim_end().strip_prefix("ref: ") {
            None => parse_id(repo, text.trim_end().as_bytes()),
            Some(name) => repo.try_find_reference(name).ok()??.try_id().map(gix::Id::detach),
        }
    }

    /// Returns remarks on what a worker left besides files: a branch, or commands under way. While `merging`, a merge is
    /// expected.
    #[must_use]
    pub fn state_remarks(&self, merging: bool) -> Vec<String> {
        let mut found = Vec::new();
        let head = std::fs::read_to_string(self.admin.join("HEAD")).unwrap_or_default();
        if let Some(branch) = head.trim_end().strip_prefix("ref: refs/heads/") {
            found.push(format!("the worker switched to the branch '{branch}', which stays"));
        }
        let left = under_way(&self.admin).filter(|verb| !(merging && *verb == "merge"));
        found
            .extend(left.map(|verb| format!("the worker left a {verb} under way, which was ended as the files stood")));
        found
    }

    /// Removes the reflog of HEAD, whose commits are all kept elsewhere.
    pub fn forget_head_log(&self) -> Result<()> {
        match std::fs::remove_file(self.admin.join("logs/HEAD")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).context("a worktree's reflog cannot be removed")
            }
            _ => Ok(()),
        }
    }

    /// Lists all commits that HEAD was at, oldest first.
    pub fn head_log(&self, repo: &gix::Repository) -> Vec<gix::ObjectId> {
        new_values(repo, &self.read_head_log())
    }

    /// Lists the commits that HEAD was at since the last [`settle`](Self::settle): earlier ones are kept already.
    pub fn head_log_since_settled(&self, repo: &gix::Repository) -> Vec<gix::ObjectId> {
        let text = self.read_head_log();
        let settled = format!("\t{REFLOG_MESSAGE}\n");
        new_values(repo, text.rfind(&settled).map_or(&*text, |at| &text[at + settled.len()..]))
    }

    fn read_head_log(&self) -> String {
        let log = std::fs::read(self.admin.join("logs/HEAD")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Sets HEAD to `commit` and the index to `index`, so that a worker sees later changes; no file is touched. All commits
    /// that HEAD was at must be kept before.
    pub fn settle(&self, mover: &RefMover, commit: gix::ObjectId, index: &Path) -> Result<()> {
        // git-worktree(1): `worktrees/<id>/HEAD` is the name of another worktree's HEAD.
        let id = self.admin.file_name().unwrap_or_default().to_string_lossy();
        let change = Change { name: format!("worktrees/{id}/HEAD"), new: Some(commit), old: Expect::Any };
        if mover.swap(&[change])? == Swap::Lost {
            return Err(Error::failed(format!("the HEAD of '{}' cannot be moved", self.path.display())));
        }
        for path in operation_files(&self.admin) {
            let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match gone {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(format!("'{}' cannot be removed", path.display()));
                }
                _ => {}
            }
        }
        // No worker is running, so a lock is stale. git itself replaces an index by a rename too.
        let staged = self.admin.join("index.lock");
        let replaced = std::fs::copy(index, &staged).and_then(|_| std::fs::rename(&staged, self.admin.join("index")));
        replaced.context("the worktree's index cannot be written")
    }
}

/// Explains why a worktree's files could not be written: git names the file, but not a full disk.
fn explain_failure(path: &Path, run: &RunId, error: Error) -> Error {
    let folder = path.parent().unwrap_or(path);
    let Some(room) = rustix::fs::statvfs(folder).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)) else {
        return error;
    };
    let message = error.chain();
    if room > LITTLE_ROOM || !message.contains("unable to write") && !message.contains("No space left") {
        return error;
    }
    let kilobytes = room / 1000;
    Error::failed(format!("'{}' cannot be filled: its disk has {kilobytes} kB left", path.display())).because(error.chain()).hint(
        format!(
            "make room, or 'git config agentloop.worktreeDir DIR' to work elsewhere; 'git agentloop resume {run}' then goes on"
        ),
    )
}

/// Lists the new values in a reflog's lines.
fn new_values(repo: &gix::Repository, log: &str) -> Vec<gix::ObjectId> {
    log.lines().filter_map(|line| parse_id(repo, line.split(' ').nth(1)?.as_bytes())).collect()
}

fn reason(run: &RunId) -> String {
    format!("agentloop: the run {run} works here")
}

/// Returns the git directory of the worktree that is registered at `path`.
fn registered(repo: &Repository, path: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(repo.common_dir().join("worktrees")).ok()?.flatten();
    let mut admins = entries.map(|entry| entry.path());
    admins.find(|admin| {
        linked(admin).is_some_and(|linked| linked == path)
            && !Worktree { path: path.to_owned(), admin: admin.clone() }.is_of_another_repository()
    })
}

/// Clears what an earlier attempt left at `path`. No worker has run in a worktree that never became ready.
fn clear(repo: &Repository, path: &Path) -> Result<()> {
    if Worktree::at(repo, path).is_some() {
        return remove(repo, path);
    }
    let is_empty = match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => {
            return Err(Error::failed(format!("the run's worktree cannot be at '{}'", path.display()))
                .because(error)
                .hint("'git config agentloop.worktreeDir DIR' says where else it goes"));
        }
    };
    if is_empty {
        return Ok(());
    }
    Err(Error::failed(format!("'{}' is in the way: the run's worktree goes there", path.display()))
        .hint("move it away, or 'git config agentloop.worktreeDir DIR' to work elsewhere"))
}

fn remove(repo: &Repository, path: &Path) -> Result<()> {
    let by_git = || repo.git("worktree").args(["remove", "-f", "-f"]).arg(path).run().map(|_| ());
    if let Err(error) = by_git() {
        // git cannot remove paths longer than it can name, and folders without write permission.
        remove_any(path).map_err(|_| error)?;
        if registered(repo, path).is_some() {
            by_git()?;
        }
    }
    // The folder of this repository's worktrees is removed with the last one.
    if let Some(parent) = path.parent() {
        location::remove_folder(parent);
    }
    Ok(())
}
