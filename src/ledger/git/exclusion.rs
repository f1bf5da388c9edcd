//! Keeps git from writing a settings file while it is restored, by git's own lock: git gives up at once if another process
//! holds it (git's lockfile.h).
//! The lock is a hard link to a file of ours, which is locked by the kernel while its process lives. So a lock left by a
//! killed driver differs from another program's: both names are the same file, and no process holds it.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::OFlags;

/// Time to wait for another program's lock, which git holds for a few milliseconds.
const WAITED: Duration = Duration::from_millis(300);
const PAUSE: Duration = Duration::from_millis(3);
/// Age above which a lock was left by a program that died.
const LEFT: Duration = Duration::from_secs(2);

/// A held lock of a settings file.
#[derive(Debug)]
pub(in crate::ledger::git) struct Exclusion {
    lock: PathBuf,
    own: PathBuf,
    _file: File,
}

impl Exclusion {
    /// Takes the lock of the file at `path`; `None` if another program keeps it.
    pub(in crate::ledger::git) fn of(path: &Path) -> io::Result<Option<Self>> {
        let (lock, own) = names(path);
        let tries = WAITED.as_millis() / PAUSE.as_millis();
        for _ in 0..tries {
            if let Some(file) = take(&own)? {
                // Released when it is dropped, even if the link was left by another driver.
                let held = Self { lock, own, _file: file };
                return held.link(tries).map(|is_linked| is_linked.then_some(held));
            }
            sleep(PAUSE);
        }
        Ok(None)
    }

    /// Reports whether it is the lock of the file at `path`.
    pub(in crate::ledger::git) fn is_of(&self, path: &Path) -> bool {
        self.lock == names(path).0
    }

    fn link(&self, tries: u128) -> io::Result<bool> {
        for _ in 0..tries {
            match std::fs::hard_link(&self.own, &self.lock) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                // A file system without hard links.
                Err(error) if error.kind() == ErrorKind::Unsupported || error.kind() == ErrorKind::PermissionDenied => {
                    return Ok(false);
                }
                linked => return linked.map(|()| true),
            }
            if is_same(&self.own, &self.lock) {
                return Ok(true); // left by a killed driver
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

/// Removes the locks of settings in `common_dir` that a killed driver left.
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

/// Locks our file; `None` if another process holds it, or has just removed it.
fn take(own: &Path) -> io::Result<Option<File>> {
    if own.symlink_metadata().is_ok_and(|about| !about.is_file()) {
        // Whatever else is in its place.
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
        // Killed: its names stay, and no process holds the file.
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
