//! Removes what a driver that died together with its git left behind: locks of the run's refs, and incomplete registrations
//! of worktrees.
//!
//! git makes `<ref>.lock` before it moves a ref and never checks whether the process that made it is alive, so a stale lock
//! blocks the ref for good. Only a run's driver moves the run's own refs, so the holder of the run's lock may remove their
//! locks. `packed-refs.lock`, `index.lock` and similar files may belong to another program and stay.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use super::exclusion;
use crate::error::{Context as _, Result};
use crate::process;
use crate::run::goal::RunId;

/// Path of the repository's git directory from that of a worktree (gitrepository-layout(5)).
pub(super) const COMMON_DIR: &str = "../..\n";
/// Time for which a lock must be unchanged. git closes the file a moment before it renames it, and a user's `git push` or
/// `git notes append` may be in that moment.
const SETTLED: Duration = Duration::from_millis(150);

/// Removes the locks of `run`'s refs that no process holds, and completes the registrations of its worktrees. The caller
/// must hold the run's lock.
pub(super) fn clear(common_dir: &Path, run: &RunId) -> Result<()> {
    complete_registrations(common_dir, run)?;
    exclusion::clear(common_dir).context("a lock that a driver that died has left cannot be removed")?;
    let found = locks(common_dir, run);
    if found.is_empty() {
        return Ok(());
    }
    let before: Vec<_> = found.iter().map(|path| stamp(path)).collect();
    sleep(SETTLED);
    for (path, before) in found.iter().zip(before) {
        if before.is_none() || stamp(path) != before || process::is_open(path) {
            continue;
        }
        tracing::debug!("removing '{}', which a driver that died has left", path.display());
        match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error)
                    .context(format!("cannot remove '{}', which a driver that died has left", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes the `commondir` of worktrees whose git was killed between making the file and filling it. While it is empty, every
/// `git worktree` and `git gc` in the repository fails.
fn complete_registrations(common_dir: &Path, run: &RunId) -> Result<()> {
    for folder in registrations(common_dir, run) {
        let file = folder.join("commondir");
        if file.symlink_metadata().is_ok_and(|about| about.is_file() && about.len() == 0) {
            fs::write(&file, COMMON_DIR).context(format!("cannot complete '{}'", file.display()))?;
        }
    }
    Ok(())
}

/// Lists git's data directories of the run's worktrees.
fn registrations(common_dir: &Path, run: &RunId) -> Vec<PathBuf> {
    let all = fs::read_dir(common_dir.join("worktrees")).into_iter().flatten().flatten();
    let of_run = all.filter(|entry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(run.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    of_run.map(|entry| entry.path()).collect()
}

/// Identifies the file and its last change; `None` if it does not exist.
fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    path.symlink_metadata().ok().map(|about| (about.ino(), about.ctime(), about.ctime_nsec()))
}

/// Lists the existing locks of the run's refs.
fn locks(common_dir: &Path, run: &RunId) -> Vec<PathBuf> {
    let named = ["refs/heads/agentloop", "refs/notes/agentloop"];
    let mut found: Vec<PathBuf> = named.iter().map(|dir| common_dir.join(dir).join(format!("{run}.lock"))).collect();
    // Without their index.lock, which a user's `git commit` in the run's worktree holds while its editor is open.
    found.extend(registrations(common_dir, run).into_iter().map(|folder| folder.join("HEAD.lock")));
    found.retain(|path| path.symlink_metadata().is_ok());
    for dir in ["refs/agentloop/run", "refs/agentloop/rescue"] {
        below(&common_dir.join(dir).join(run.as_str()), &mut found);
    }
    found
}

fn below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            found.push(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::git::fixture::run_id;

    #[test]
    fn what_nobody_holds_goes_and_what_may_be_anothers_stays() {
        let dir = tempfile::tempdir().unwrap();
        let run = run_id("goal");
        let make = |name: &str| {
            let path = dir.path().join(name.replace("RUN", run.as_str()));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            path
        };
        let stale =
            ["refs/notes/agentloop/RUN.lock", "refs/heads/agentloop/RUN.lock", "refs/agentloop/run/RUN/output.lock"];
        let stale = stale.into_iter();
        let stale = stale.chain(["refs/agentloop/run/RUN/iter1/a.lock", "worktrees/RUN.w1/HEAD.lock"]);
        let stale: Vec<_> = stale.map(make).collect();
        let others = [
            "packed-refs.lock",
            "index.lock",
            "config.lock",
            "refs/heads/main.lock",
            "worktrees/mine/HEAD.lock",
            "worktrees/RUN/index.lock",
            "refs/notes/agentloop/other-000000.lock",
        ];
        let others: Vec<_> = others.into_iter().map(make).collect();
        let [half, anothers] = ["worktrees/RUN.r/commondir", "worktrees/RUN-2/commondir"].map(make);
        let held = make("refs/agentloop/run/RUN/iter2/b.lock");
        let file = fs::File::open(&held).unwrap();
        clear(dir.path(), &run).unwrap();
        assert!(stale.iter().all(|path| !path.exists()));
        assert!(others.iter().chain([&held]).all(|path| path.exists()));
        assert_eq!([half, anothers].map(|path| fs::read_to_string(path).unwrap()), [COMMON_DIR, ""]);
        drop(file);
        clear(dir.path(), &run).unwrap();
        assert!(!held.exists());
    }
}
