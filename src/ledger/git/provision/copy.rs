//! Ignored files of the user's checkout that a worktree needs: dependencies, `.env`.
//!
//! git says which they are: those that the user's patterns match and that git ignores, in the checkout and in the
//! worktree alike. What git would not ignore there would end in a commit.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::command::{self, Git, nul_terminated};
use super::super::repository::Repository;
use super::super::worktree::Worktree;
use super::brought::{Brought, paths};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;
use crate::run::text::a_few;

/// Patterns that a project commits for whoever makes worktrees of it. It names files and no commands.
const INCLUDE: &str = ".worktreeinclude";
/// Files that a remark names.
const NAMED: usize = 5;
/// Files copied at a time: a disk answers that many sooner than one after the other.
const AT_ONCE: usize = 4;

/// What is copied from where to where.
pub(super) struct Copying<'a> {
    pub(super) repo: &'a Repository,
    pub(super) run: &'a RunId,
    pub(super) checkout: &'a Path,
    pub(super) worktree: &'a Worktree,
    pub(super) patterns: &'a [String],
    /// Whether an earlier try may have been cut short in the middle of a file.
    pub(super) unfinished: bool,
    pub(super) go_on: &'a (dyn Fn() -> bool + Sync),
}

impl Copying<'_> {
    /// Copies what is not there yet: how many files, and what was noticed.
    pub(super) fn copy(&self) -> Result<(u64, Vec<String>)> {
        let found = found(self.repo, self.checkout, self.patterns)?;
        if found.is_empty() {
            return Ok((0, Vec::new()));
        }
        let mut landing = Landing::new(&self.worktree.path);
        let found: Vec<PathBuf> = found.into_iter().filter(|path| landing.takes(path)).collect();
        let mut brought = Brought::read(&self.worktree.admin);
        // Some folders hold the file that has git ignore them: without it nothing of them would be ignored there.
        let rules: Vec<PathBuf> = found.iter().filter(|path| path.ends_with(".gitignore")).cloned().collect();
        brought.add(&rules)?;
        let made = self.bring(&rules)?;
        let mut remarks = Vec::new();
        let kept = ignored(self.worktree.git("check-ignore"), found).unwrap_or_else(|error| {
            remarks.push(format!("nothing was copied from your checkout: {}", error.chain()));
            Vec::new()
        });
        let (mut copied, unkept): (Vec<PathBuf>, Vec<PathBuf>) =
            made.files.into_iter().partition(|file| kept.contains(file));
        for rule in &unkept {
            let copy = self.worktree.path.join(rule);
            fs::remove_file(&copy).context(format!("'{}' cannot be removed again", copy.display()))?;
        }
        brought.strike_out(&unkept)?;
        brought.add(&kept)?;
        let rest = self.bring(&self.files_of(&kept))?;
        copied.extend(rest.files);
        let failed: Vec<String> = [made.failed, rest.failed].concat();
        if !failed.is_empty() {
            remarks.push(format!("not copied from your checkout: {}", a_few(&failed, NAMED)));
        }
        Ok((copied.len() as u64, remarks))
    }

    /// The files that `found` comes to: of a nested repository every file, but of a worktree of this repository none.
    fn files_of(&self, found: &[PathBuf]) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut left: Vec<PathBuf> = found.to_vec();
        while let Some(path) = left.pop() {
            let from = self.checkout.join(&path);
            let Ok(about) = from.symlink_metadata() else { continue };
            if about.is_file() || about.is_symlink() {
                files.push(path);
            } else if about.is_dir() && Worktree::at(self.repo, &from).is_none() {
                let entries = fs::read_dir(&from).into_iter().flatten().flatten();
                left.extend(entries.map(|entry| path.join(entry.file_name())));
            }
        }
        files.sort();
        files
    }

    fn bring(&self, files: &[PathBuf]) -> Result<Made> {
        self.make_folders(files)?;
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let one = |file: &PathBuf| -> Result<bool> {
            let to = self.worktree.path.join(file);
            match self.bring_one(&self.checkout.join(file), &to) {
                Ok(is_new) => Ok(is_new),
                Err(error) if is_ours(&error) => {
                    Err(Error::failed(format!("'{}' cannot be written", to.display())).because(error).hint(format!(
                        "make room, or copy less ('git config agentloop.copy'); 'git agentloop resume {}' goes on",
                        self.run
                    )))
                }
                Err(error) => {
                    let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.push(format!("{} ({error})", file.display()));
                    Ok(false)
                }
            }
        };
        let work = || -> Result<Vec<PathBuf>> {
            let mut mine = Vec::new();
            while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if !(self.go_on)() {
                    break;
                }
                if one(file)? {
                    mine.push(file.clone());
                }
            }
            Ok(mine)
        };
        let shares = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..AT_ONCE.min(files.len())).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined
                .map(|share| share.unwrap_or_else(|_| Err(Error::failed("a thread that copied files died"))))
                .collect::<Result<Vec<_>>>()
        })?;
        let mut failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.sort();
        Ok(Made { files: shares.into_iter().flatten().collect(), failed })
    }

    /// The folders that hold `files`, as readable as they are in the checkout, and always writable: what cannot be
    /// written cannot be removed with the worktree.
    fn make_folders(&self, files: &[PathBuf]) -> Result<()> {
        let folders: BTreeSet<&Path> = files
            .iter()
            .flat_map(|file| file.ancestors().skip(1))
            .filter(|path| !path.as_os_str().is_empty())
            .collect();
        for folder in folders {
            let to = self.worktree.path.join(folder);
            let made = match fs::create_dir(&to) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
                Ok(()) => fs::metadata(self.checkout.join(folder)).and_then(|about| {
                    fs::set_permissions(&to, fs::Permissions::from_mode(about.permissions().mode() & 0o777 | 0o700))
                }),
                failed => failed,
            };
            made.context(format!("the folder '{}' cannot be made", to.display()))?;
        }
        Ok(())
    }

    /// Copies one file or link; whether it was not there.
    fn bring_one(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let about = from.symlink_metadata()?;
        match to.symlink_metadata() {
            // The time is set last: a copy that was cut short has another.
            Ok(there) if !self.unfinished || is_same(&about, &there) => return Ok(false),
            Ok(_) => fs::remove_file(to)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if about.is_symlink() {
            std::os::unix::fs::symlink(self.aimed(from, fs::read_link(from)?), to)?;
            return Ok(true);
        }
        // By reflink where the file system can: copy_file_range(2) clones on Linux, and macOS has fclonefileat(2).
        let copied = fs::copy(from, to).and_then(|_| set_time(to, &about));
        if copied.is_err() {
            let _ = fs::remove_file(to); // half of it is worse than none
        }
        copied.map(|()| true)
    }

    /// Where a copied link points to: what is in the checkout is meant in the worktree, what is outside stays where it is.
    fn aimed(&self, link: &Path, target: PathBuf) -> PathBuf {
        if target.is_absolute() {
            let within = target.strip_prefix(self.checkout).map(Path::to_owned).ok().or_else(|| {
                let (folder, name) = (target.parent()?.canonicalize().ok()?, target.file_name()?);
                Some(folder.strip_prefix(self.checkout).ok()?.join(name))
            });
            return within.map_or(target, |within| self.worktree.path.join(within));
        }
        let Some(folder) = link.parent() else { return target };
        let mut reached = folder.to_owned();
        for component in target.components() {
            match component {
                Component::ParentDir => _ = reached.pop(),
                Component::Normal(name) => reached.push(name),
                _ => {}
            }
        }
        if reached.starts_with(self.checkout) { target } else { reached }
    }
}

/// Those of `files` that git ignores, as this `git check-ignore` sees it.
fn ignored(git: Git, files: Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    if files.is_empty() {
        return Ok(files);
    }
    let input = nul_terminated(files.iter().map(|file| file.as_os_str().as_bytes()));
    let output = git.only_reads().args(["-z", "--stdin"]).input(input).output()?;
    if matches!(output.status.code(), Some(0 | 1)) {
        return Ok(paths(&output.stdout));
    }
    Err(command::failure("git check-ignore", output.status, &String::from_utf8_lossy(&output.stderr)))
}

/// Untracked files of the checkout that the patterns, or the project's, match and that git ignores there; a nested
/// repository as its folder.
pub(super) fn found(repo: &Repository, checkout: &Path, patterns: &[String]) -> Result<Vec<PathBuf>> {
    let include = checkout.join(INCLUDE);
    let is_there = include.symlink_metadata().is_ok_and(|about| about.is_file());
    let hooks = relative_hooks(repo);
    if patterns.is_empty() && !is_there && hooks.is_none() {
        return Ok(Vec::new());
    }
    let git = repo.git("ls-files").only_reads().args(["-z", "--others", "--ignored"]);
    let mut git = git.args(patterns.iter().chain(&hooks).map(|pattern| format!("--exclude={pattern}")));
    if is_there {
        let mut option = OsString::from("--exclude-from=");
        option.push(include);
        git = git.arg(option);
    }
    let matched = paths(&git.run()?);
    ignored(repo.git("check-ignore"), matched)
}

/// What came of copying.
struct Made {
    files: Vec<PathBuf>,
    /// Files that could not be copied, with the reason.
    failed: Vec<String>,
}

/// A failure that the next file would meet as well, and that is nobody's choice.
fn is_ours(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem | ErrorKind::FileTooLarge
    )
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    let is_link = one.is_symlink() && other.is_symlink();
    is_link || (one.len() == other.len() && (one.mtime(), one.mtime_nsec()) == (other.mtime(), other.mtime_nsec()))
}

/// Gives a copy the time of what it is a copy of: build tools go by it. By name, since it may be read-only.
fn set_time(path: &Path, about: &fs::Metadata) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec { tv_sec: about.mtime(), tv_nsec: about.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Where git's hooks are, as a pattern, where that is a folder of the checkout: some tools keep theirs in one that is
/// ignored, and a worktree would have no hooks without it.
fn relative_hooks(repo: &Repository) -> Option<String> {
    let folder = repo.config("core.hooksPath").pop()?;
    let is_below = !folder.starts_with(['~', '%'])
        && Path::new(&folder).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let escaped: String = folder
        .trim_start_matches("./")
        .trim_end_matches('/')
        .chars()
        .flat_map(|letter| if "*?[\\".contains(letter) { vec!['\\', letter] } else { vec![letter] })
        .collect();
    (is_below && !escaped.is_empty()).then(|| format!("/{escaped}/"))
}

/// Says which paths can be written in a worktree without leaving it: a link there may lead anywhere.
struct Landing<'a> {
    place: &'a Path,
    folders: HashMap<PathBuf, bool>,
}

impl<'a> Landing<'a> {
    fn new(place: &'a Path) -> Self {
        Self { place, folders: HashMap::from([(PathBuf::new(), true)]) }
    }

    fn takes(&mut self, path: &Path) -> bool {
        path.parent().is_some_and(|folder| self.is_inside(folder))
    }

    fn is_inside(&mut self, folder: &Path) -> bool {
        if let Some(known) = self.folders.get(folder) {
            return *known;
        }
        let here = self.place.join(folder);
        let is_inside = folder.parent().is_some_and(|parent| self.is_inside(parent))
            && match here.symlink_metadata() {
                // A folder with a `.git` is a submodule: what is in there is that repository's.
                Ok(about) => about.is_dir() && here.join(".git").symlink_metadata().is_err(),
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
        self.folders.insert(folder.to_owned(), is_inside);
        is_inside
    }
}
