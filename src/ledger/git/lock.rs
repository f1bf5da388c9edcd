//! The lock of a run's driver: a file lock that the kernel releases however its holder dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use super::run_dir::run_dir;
use super::stale;
use crate::error::{Context as _, Error, Result};
use crate::host::store::{Bases, RunStore, Store};
use crate::run::event::Timestamp;
use crate::run::goal::RunId;

/// Name of the lock's file in the run's folder.
pub const NAME: &str = "lock";
/// Attempts, with a pause between them, at what another process prevents only for a moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);
/// Time within which a driver notices that its lock was removed.
const RETAKE_TIME: Duration = Duration::from_secs(2);

/// The right to drive a run. Held until it is dropped or the process is gone; no child inherits it.
///
/// If this clone has data of the run in its private store, a file there is locked too: removing the one in the repository,
/// which agents can do, then lets no second driver in.
#[derive(Debug)]
pub struct RunLock {
    common_dir: PathBuf,
    run: RunId,
    file: Mutex<File>,
    /// The clone's private store, and the locked file in it.
    store: Option<Store>,
    _kept: Option<File>,
}

/// The living driver of a run. Both fields are `None` for an instant while it takes the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process id of the driver.
    pub pid: Option<u32>,
    /// When it took the lock.
    pub started: Option<Timestamp>,
}

impl RunLock {
    /// Takes the lock of `run` in the repository with this common directory; `None` if another driver lives. Locks of the
    /// run's refs that a killed driver's git left are removed.
    pub fn acquire(common_dir: &Path, run: &RunId) -> Result<Option<Self>> {
        let store = Store::find(common_dir, &Bases::of_process());
        let kept = store.as_ref().map(|store| store.run(run)).filter(RunStore::exists);
        let kept = match kept.map(|kept| lock_in_store(&kept, common_dir, run)).transpose()? {
            Some(None) => return Ok(None),
            kept => kept.flatten(),
        };
        let Some(file) = lock_file(&lock_path(common_dir, run))? else { return Ok(None) };
        let lock =
            Self { common_dir: common_dir.to_owned(), run: run.clone(), file: Mutex::new(file), store, _kept: kept };
        stale::clear(common_dir, run)?;
        Ok(Some(lock))
    }

    /// Checks that the lock's file is still the one that others see, and takes the lock again if it was removed or replaced.
    /// Called often, so that no second driver begins meanwhile.
    ///
    /// # Errors
    /// Fails if another driver has taken the lock.
    pub fn keep(&self) -> Result<()> {
        let path = lock_path(&self.common_dir, &self.run);
        if let Some(Err(error)) = self.store.as_ref().map(|store| store.mark(&self.common_dir)) {
            tracing::warn!("this clone's private store will not be found: {error}");
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if is_at(&file, &path) {
            return Ok(());
        }
        tracing::warn!("the lock '{}' was removed or replaced, and is taken again", path.display());
        *file = lock_file(&path)?.ok_or_else(|| already_driven(&self.common_dir, &self.run))?;
        Ok(())
    }
}

/// Locks the run's file in the private store; `None` if another process holds it.
fn lock_in_store(kept: &RunStore, common_dir: &Path, run: &RunId) -> Result<Option<File>> {
    let file = kept.append_to(NAME)?;
    for _ in 0..TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if holder(common_dir, run).is_some() => break,
            // If the repository's lock was removed, the driver takes it again any moment.
            Err(TryLockError::WouldBlock) => sleep(RETAKE_TIME / TRIES),
            Err(TryLockError::Error(error)) => return Err(error).context(format!("cannot lock the store of {run}")),
        }
    }
    Ok(None)
}

/// Locks the file at `path` and writes our process id into it; `None` if another process holds it.
fn lock_file(path: &Path) -> Result<Option<File>> {
    let failed = format!("cannot lock {}", path.display());
    for _ in 0..TRIES {
        let mut file = open(path).context(failed.as_str())?;
        match file.try_lock() {
            Ok(()) if is_at(&file, path) => {
                sign(&mut file).context(failed)?;
                return Ok(Some(file));
            }
            // The run's directory was removed between opening and locking.
            Ok(()) => {}
            // Readers try a shared lock for an instant.
            Err(TryLockError::WouldBlock) => sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error).context(failed),
        }
    }
    Ok(None)
}

fn sign(file: &mut File) -> std::io::Result<()> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    file.set_len(0)?;
    // One write, so that a reader sees the whole line or none of it.
    file.write_all(format!("{} {now}\n", std::process::id()).as_bytes())
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // The next holder must not be confused with this one until it has signed.
        let _ = self.file.lock().unwrap_or_else(PoisonError::into_inner).set_len(0);
    }
}

/// Returns the living driver of `run`; `None` if it has none.
#[must_use]
pub fn holder(common_dir: &Path, run: &RunId) -> Option<Holder> {
    let path = lock_path(common_dir, run);
    let mut unsigned = Holder { pid: None, started: None };
    for _ in 0..TRIES {
        let mut file = File::open(&path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        let mut text = String::new();
        let _ = file.read_to_string(&mut text);
        unsigned = signature(&text);
        // A killed driver leaves its signature; the process that has the lock now is about to write its own.
        if unsigned.pid.is_some_and(is_alive) {
            return Some(unsigned);
        }
        sleep(PAUSE);
    }
    unsigned.pid = None;
    Some(unsigned)
}

/// Reports whether `run` has a living driver. Never waits.
#[must_use]
pub fn is_held(common_dir: &Path, run: &RunId) -> bool {
    let file = File::open(lock_path(common_dir, run));
    file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Returns the common directory and the run whose lock `path` is; `None` if it is another file.
#[must_use]
pub fn run_of(path: &Path) -> Option<(&Path, RunId)> {
    let folder = path.parent().filter(|_| path.file_name().is_some_and(|name| name == NAME))?;
    let run = folder.file_name()?.to_str()?.parse().ok()?;
    let ours = folder.parent().filter(|ours| ours.file_name().is_some_and(|name| name == "agentloop"))?;
    Some((ours.parent()?, run))
}

/// Lists the runs of the repository with this common directory that have a living driver, with its process id.
#[must_use]
pub fn drivers(common_dir: &Path) -> Vec<(RunId, u32)> {
    let entries = fs::read_dir(common_dir.join("agentloop")).into_iter().flatten().flatten();
    let runs = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    runs.filter_map(|run| holder(common_dir, &run)?.pid.map(|pid| (run, pid))).collect()
}

fn signature(text: &str) -> Holder {
    let mut words = text.split_whitespace();
    let pid = words.next().and_then(|word| word.parse().ok()).filter(|pid| *pid > 0);
    let started = words.next().and_then(|word| word.parse().ok()).map(Timestamp);
    Holder { pid, started }
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // Permission denied: the process exists and is another user's.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// Waits for the lock under which worktrees are registered, which ends when the file is dropped. Concurrent `git worktree
/// add`s make each other fail.
pub fn registration_lock(common_dir: &Path) -> Result<File> {
    let path = common_dir.join("agentloop").join("worktrees.lock");
    let file = open(&path).and_then(|file| file.lock().map(|()| file));
    file.context(format!("cannot lock {}", path.display()))
}

fn lock_path(common_dir: &Path, run: &RunId) -> PathBuf {
    run_dir(common_dir, run).join(NAME)
}

fn open(path: &Path) -> std::io::Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    // Not truncated, since another process may hold it. Append, so that a signature starts at the end of the file. Links are
    // not followed, since they would make us write elsewhere.
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().create(true).append(true).read(true).custom_flags(flags).open(path)
}

fn is_at(file: &File, path: &Path) -> bool {
    let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let (locked, there) = (file.metadata().map(place), fs::symlink_metadata(path).map(place));
    matches!((locked, there), (Ok(locked), Ok(there)) if locked == there)
}

/// Makes the error that another driver has the lock of `run`.
pub(super) fn already_driven(common_dir: &Path, run: &RunId) -> Error {
    let by = holder(common_dir, run).and_then(|holder| holder.pid);
    let by = by.map_or_else(String::new, |pid| format!(", process {pid}"));
    Error::usage(format!("{run} has a driver already{by}"))
        .hint(format!("'git agentloop tail -f {run}' follows it; 'git agentloop cancel {run}' stops it"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::git::fixture::run_id;

    #[test]
    fn one_driver_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_id("goal");
        assert_eq!(holder(dir.path(), &run), None);
        let lock = RunLock::acquire(dir.path(), &run).unwrap().unwrap();
        assert!(RunLock::acquire(dir.path(), &run).unwrap().is_none());
        let held = holder(dir.path(), &run).unwrap();
        assert_eq!(held.pid, Some(std::process::id()));
        assert!(held.started.unwrap().0 > 1_700_000_000_000);
        assert_eq!(holder(dir.path(), &run_id("other")), None);
        drop(lock);
        assert_eq!(holder(dir.path(), &run), None);
        assert!(RunLock::acquire(dir.path(), &run).unwrap().is_some());
    }

    #[test]
    fn what_a_dead_driver_signed_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_id("goal");
        let lock = RunLock::acquire(dir.path(), &run).unwrap().unwrap();
        let mut dead = std::process::Command::new("true").spawn().unwrap();
        dead.wait().unwrap();
        let mut file = lock.file.lock().unwrap();
        file.set_len(0).unwrap();
        file.write_all(format!("{} 5\n", dead.id()).as_bytes()).unwrap();
        assert_eq!(holder(dir.path(), &run).unwrap().pid, None);
    }

    #[test]
    fn probes_do_not_keep_a_driver_out() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_id("goal");
        drop(RunLock::acquire(dir.path(), &run).unwrap());
        std::thread::scope(|scope| {
            let probes: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..500).for_each(|_| _ = holder(dir.path(), &run)))).collect();
            for _ in 0..200 {
                assert!(RunLock::acquire(dir.path(), &run).unwrap().is_some());
            }
            for probe in probes {
                probe.join().unwrap();
            }
        });
    }

    #[test]
    fn children_do_not_inherit_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_id("goal");
        let lock = RunLock::acquire(dir.path(), &run).unwrap();
        let mut child = std::process::Command::new("sleep").arg("5").spawn().unwrap();
        drop(lock);
        assert_eq!(holder(dir.path(), &run), None);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_lock_that_was_taken_away_is_taken_again_unless_another_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_id("goal");
        let lock = RunLock::acquire(dir.path(), &run).unwrap().unwrap();
        let path = lock_path(dir.path(), &run);
        let takings: [&dyn Fn(); 4] = [
            &|| fs::remove_file(&path).unwrap(),
            &|| fs::remove_dir_all(dir.path().join("agentloop")).unwrap(),
            &|| fs::rename(&path, dir.path().join("aside")).unwrap(),
            &|| {
                fs::remove_file(&path).unwrap();
                fs::write(&path, "17 5\n").unwrap();
            },
        ];
        for take_away in takings {
            take_away();
            assert_eq!(holder(dir.path(), &run), None);
            lock.keep().unwrap();
            assert_eq!(holder(dir.path(), &run).unwrap().pid, Some(std::process::id()));
            assert!(RunLock::acquire(dir.path(), &run).unwrap().is_none());
        }
        fs::remove_file(&path).unwrap();
        let _other = RunLock::acquire(dir.path(), &run).unwrap().unwrap();
        let refused = lock.keep().unwrap_err().report();
        assert!(refused.contains("has a driver already"), "{refused}");
    }

    #[test]
    fn only_a_lock_of_a_run_is_one() {
        let of = |path: &str| run_of(Path::new(path)).map(|(dir, run)| (dir.to_owned(), run.to_string()));
        assert_eq!(of("/r/.git/agentloop/goal-000000/lock"), Some(("/r/.git".into(), "goal-000000".into())));
        for path in ["/r/.git/agentloop/goal-000000/log", "/r/.git/agentloop/Goal!/lock", "/goal-000000/lock", "lock"] {
            assert_eq!(of(path), None, "{path}");
        }
    }

    #[test]
    fn registrations_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let first = registration_lock(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| registration_lock(dir.path()).map(drop));
            sleep(Duration::from_millis(30));
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
