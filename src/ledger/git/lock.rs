//! The lock that says that a run has a driver: held for as long as it lives, gone with it however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// Readers look at the lock by sharing it for a moment, which an exclusive try can meet (4 of 4,005 times, measured).
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(5);

/// The exclusive lock on a run. Its file closes on exec: no child inherits it.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

/// A live driver, as it describes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id; 0 in the instant before it has written it down.
    pub pid: u32,
}

/// The folder of what belongs to a run on this machine.
#[must_use]
pub fn run_dir(common_dir: &Path, run: &RunId) -> PathBuf {
    common_dir.join("agentloop").join(run.as_str())
}

impl RunLock {
    /// Takes the lock; `None` where a driver holds it.
    ///
    /// # Errors
    /// Where the lock's file cannot be made.
    pub fn acquire(common_dir: &Path, run: &RunId) -> Result<Option<Self>> {
        let dir = run_dir(common_dir, run);
        let mut file = std::fs::create_dir_all(&dir)
            .and_then(|()| {
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join("lock"))
            })
            .map_err(|error| {
                Error::failed(format!("the run's lock cannot be made in '{}'", dir.display()))
                    .because(error)
                    .hint("the git directory must be writable for you, and its disk not full")
            })?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => {
                    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
                    written.context("the run's lock cannot be written")?;
                    return Ok(Some(Self { _file: file }));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(BETWEEN_TRIES),
                Err(TryLockError::Error(error)) => return Err(error).context("the run cannot be locked"),
            }
        }
        Ok(None)
    }
}

/// The driver that holds the run's lock, where one does.
#[must_use]
pub fn holder(common_dir: &Path, run: &RunId) -> Option<Holder> {
    let mut file = File::open(run_dir(common_dir, run).join("lock")).ok()?;
    match file.try_lock_shared() {
        Ok(()) | Err(TryLockError::Error(_)) => None,
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.rewind().and_then(|()| file.read_to_string(&mut text)); // an unreadable pid is an unknown one
            Some(Holder { pid: text.trim().parse().unwrap_or(0) })
        }
    }
}

/// Held while a worktree is registered: of twenty `git worktree add`s at once, some would fail (measured).
///
/// # Errors
/// Where the lock's file cannot be made.
pub fn registration(common_dir: &Path) -> Result<File> {
    let dir = common_dir.join("agentloop");
    let locked = std::fs::create_dir_all(&dir)
        .and_then(|()| OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("worktrees.lock")))
        .and_then(|file| file.lock().map(|()| file));
    locked.context("worktrees cannot be registered")
}
