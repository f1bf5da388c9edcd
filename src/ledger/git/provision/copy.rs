//! Copies ignored files of the user's checkout that a worktree needs, such as dependencies and `.env`.
//!
//! git selects them: files that the user's patterns match, and that git ignores in both the checkout and the worktree. A
//! file that git does not ignore there would be committed.

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
use super::copied_files::{CopiedFiles, paths};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;
use crate::run::text::a_few;

/// Patterns that a project commits for tools that make worktrees. It names files, not commands.
const INCLUDE: &str = ".worktreeinclude";
/// Number of files that a remark names.
const NAMED: usize = 5;
/// Number of files that are copied in parallel, which is faster on most disks.
const AT_ONCE: usize = 4;

pub(super) struct Copying<'a> {
    pub(super) repo: &'a Repository,
    pub(super) run: &'a RunId,
    pub(super) checkout: &'a Path,
    pub(super) worktree: &'a Worktree,
    pub(super) patterns: &'a [String],
    /// True if an earlier attempt may have been interrupted in the middle of a file.
    pub(super) unfinished: bool,
    pub(super) go_on: &'a (dyn Fn() -> bool + Sync),
}

impl Copying<'_> {
    /// Copies the files that do not exist yet. Returns their number, and remarks.
    pub(super) fn copy(&self) -> Result<(u64, Vec<String>)> {
        let found = found(self.repo, self.checkout, self.patterns)?;
        if found.is_empty() {
            return Ok((0, Vec::new()));
        }
        let mut inside = Inside::new(&self.worktree.path);
        let found: Vec<PathBuf> = found.into_iter().filter(|path| inside.accepts(path)).collect();
        let mut copied_files = CopiedFiles::read(&self.worktree.admin);
        // Some folders contain the file that makes git ignore them: without it nothing in them would be ignored.
        let rules: Vec<PathBuf> = found.iter().filter(|path| path.ends_with(".gitignore")).cloned().collect();
        copied_files.add(&rules)?;
        let made = self.copy_files(&rules)?;
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
        copied_files.remove(&unkept)?;
        copied_files.add(&kept)?;
        let rest = self.copy_files(&self.files_of(&kept))?;
        copied.extend(rest.files);
        let failed: Vec<String> = [made.failed, rest.failed].concat();
        if !failed.is_empty() {
            remarks.push(format!("not copied from your checkout: {}", a_few(&failed, NAMED)));
        }
        Ok((copied.len() as u64, remarks))
    }

    /// Expands `found` to files. A nested repository gives all its files, but a worktree of this repository none.
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

    fn copy_files(&self, files: &[PathBuf]) -> Result<CopyResult> {
        self.make_folders(files)?;
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let one = |file: &PathBuf| -> Result<bool> {
            let to = self.worktree.path.join(file);
            match self.copy_file(&self.checkout.join(file), &to) {
                Ok(is_new) => Ok(is_new),
                Err(error) if is_general(&error) => {
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
        Ok(CopyResult { files: shares.into_iter().flatten().collect(), failed })
    }

    /// Makes the folders of `files` with their mode in the checkout, but always writable: otherwise they could not be
    /// removed with the worktree.
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

    /// Copies one file or link. Reports whether it is new.
    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<bool> {
        let about = from.symlink_metadata()?;
        match to.symlink_metadata() {
            // The time is set last: an interrupted copy has another.
            Ok(there) if !self.unfinished || is_same(&about, &there) => return Ok(false),
            Ok(_) => fs::remove_file(to)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if about.is_symlink() {
            std::os::unix::fs::symlink(self.retarget(from, fs::read_link(from)?), to)?;
            return Ok(true);
        }
        // By reflink if the file system can: copy_file_range(2) clones on Linux, and macOS has fclonefileat(2).
        let copied = fs::copy(from, to).and_then(|_| set_time(to, &about));
        if copied.is_err() {
            let _ = fs::remove_file(to); // half a file is worse than none
        }
        copied.map(|()| true)
    }

    /// Returns the target of a copied link: a target in the checkout becomes one in the worktree, any other stays the same.
    fn retarget(&self, link: &Path, target: PathBuf) -> PathBuf {
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

/// Returns those of `files` that git ignores, by this `git check-ignore`.
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

/// Lists untracked files of the checkout that match the user's patterns or the project's and are ignored by git there. A
/// nested repository is listed as its folder.
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

struct CopyResult {
    files: Vec<PathBuf>,
    /// Files that could not be copied, with the reason.
    failed: Vec<String>,
}

/// Reports whether an error would also occur for the next file, such as a full disk.
fn is_general(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem | ErrorKind::FileTooLarge
    )
}

fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    let is_link = one.is_symlink() && other.is_symlink();
    is_link || (one.len() == other.len() && (one.mtime(), one.mtime_nsec()) == (other.mtime(), other.mtime_nsec()))
}

/// Gives a copy the time of its original, which build tools rely on. By name, since the file may be read-only.
fn set_time(path: &Path, about: &fs::Metadata) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
    let time = Timespec { tv_sec: about.mtime(), tv_nsec: about.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Returns git's hooks folder as a pattern, if it is a folder of the checkout: some tools keep theirs in an ignored one,
/// without which a worktree would have no hooks.
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

/// Checks that paths stay inside a worktree when they are written: a link in it may lead anywhere.
struct Inside<'a> {
    place: &'a Path,
    folders: HashMap<PathBuf, bool>,
}

impl<'a> Inside<'a> {
    fn new(place: &'a Path) -> Self {
        Self { place, folders: HashMap::from([(PathBuf::new(), true)]) }
    }

    fn accepts(&mut self, path: &Path) -> bool {
        path.parent().is_some_and(|folder| self.is_inside(folder))
    }

    fn is_inside(&mut self, folder: &Path) -> bool {
        if let Some(known) = self.folders.get(folder) {
            return *known;
        }
        let here = self.place.join(folder);
        let is_inside = folder.parent().is_some_and(|parent| self.is_inside(parent))
            && match here.symlink_metadata() {
                // A folder with a `.git` is a submodule, whose files belong to that repository.
                Ok(about) => about.is_dir() && here.join(".git").symlink_metadata().is_err(),
                Err(error) => error.kind() == ErrorKind::NotFound,
            };
        self.folders.insert(folder.to_owned(), is_inside);
        is_inside
    }
}
