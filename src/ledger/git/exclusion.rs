//! Keeps git from writing a settings file for as long as it is put back: by git's own lock, which git leaves at once
//! where another has it (git's lockfile.h).
//!
//! The lock is a second name of a file of ours, on which the system holds a lock for as long as its process lives. So
//! one that a killed driver left is known from another program's: it has both names, and no process holds the file.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::OFlags;

/// How long the lock of another program is waited for: git holds it for a few milliseconds.
const WAITED: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(3);
/// A lock that is older was left by a program that died.
const LEFT: Duration = Duration::from_secs(2);

/// The lock of a settings file, held.
#[derive(Debug)]
pub(in crate::ledger::git) struct Exclusion {
    lock: PathBuf,
    own: PathBuf,
    _file: File,
}

impl Exclusion {
    /// Takes the lock of the file at `path`; nothing where another program keeps it.
    pub(in crate::ledger::git) fn of(path: &Path) -> io::Result<Option<Self>> {
        let (lock, own) = names(path);
        let tries = WAITED.as_millis() / PAUSE.as_millis();
        for _ in 0..tries {
            if let Some(file) = take(&own)? {
                // Let go of by its drop, whoever linked it.
                let held = Self { lock, own, _file: file };
                return held.link(tries).map(|is_linked| is_linked.then_some(held));
            }
            sleep(PAUSE);
        }
        Ok(None)
    }

    /// Whether it is the lock of the file at `path`.
    pub(in crate::ledger::git) fn is_of(&self, path: &Path) -> bool {
        self.lock == names(path).0
    }

    fn link(&self, tries: u128) -> io::Result<bool> {
        for _ in 0..tries {
            match std::fs::hard_link(&self.own, &self.lock) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                // A file system without links.
                Err(error) if error.kind() == ErrorKind::Unsupported || error.kind() == ErrorKind::PermissionDenied => {
                    return Ok(false);
                }
                linked => return linked.map(|()| true),
            }
            if is_same(&self.own, &self.lock) {
                return Ok(true); // a driver that was killed left it
            }
            if is_left(&self.lock) {
                return Ok(false);
            }
            sleep(PAUSE);
        }
        Ok(false)
    }
}

impl Drop for Exclusion {
    fn drop(&mut self) {
        if is_same(&self.own, &self.lock) {
            let _ = std::fs::remove_file(&self.lock);
        }
        let _ = std::fs::remove_file(&self.own);
    }
}

/// Removes the locks of the settings in `common_dir` that a killed driver left.
pub(in crate::ledger::git) fn clear(common_dir: &Path) -> io::Result<()> {
    for name in ["config", "config.worktree"] {
        let (lock, own) = names(&common_dir.join(name));
        if own.symlink_metadata().is_ok()
            && let Some(file) = take(&own)?
        {
            drop(Exclusion { lock, own, _file: file });
        }
    }
    Ok(())
}

fn names(path: &Path) -> (PathBuf, PathBuf) {
    (path.with_added_extension("lock"), path.with_added_extension("agentloop-lock"))
}

/// Our file, held; nothing where another process has it, or removed it just now.
fn take(own: &Path) -> io::Result<Option<File>> {
    if own.symlink_metadata().is_ok_and(|about| !about.is_file()) {
        // What somebody put in its place.
        std::fs::rename(own, own.with_added_extension("replaced"))?;
    }
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().append(true).create(true).custom_flags(flags).open(own)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let about = file.metadata()?;
    let is_there = own.symlink_metadata().is_ok_and(|there| (there.dev(), there.ino()) == (about.dev(), about.ino()));
    Ok(is_there.then_some(file))
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| path.symlink_metadata().ok().map(|about| (about.dev(), about.ino()));
    id(one).is_some() && id(one) == id(other)
}

fn is_left(lock: &Path) -> bool {
    let about = lock.symlink_metadata().and_then(|about| about.modified());
    about.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > LEFT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_killed_driver_left_does_not_block_and_another_program_s_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let (lock, own) = names(&path);
        let held = Exclusion::of(&path).unwrap().unwrap();
        assert!(lock.exists() && Exclusion::of(&path).unwrap().is_none());
        // Killed: its names stay, and nobody holds the file.
        let Exclusion { _file: file, .. } = &held;
        file.unlock().unwrap();
        std::mem::forget(held);
        drop(Exclusion::of(&path).unwrap().unwrap());
        assert!(!lock.exists() && !own.exists());
        std::fs::write(&own, "").unwrap();
        std::fs::hard_link(&own, &lock).unwrap();
        clear(dir.path()).unwrap();
        assert!(!lock.exists() && !own.exists());
        std::fs::write(&lock, "another's").unwrap();
        assert!(Exclusion::of(&path).unwrap().is_none());
        clear(dir.path()).unwrap();
        assert!(lock.exists() && !own.exists());
    }
}
