//! What a driver that died together with its git left in the way of git: locks of the run's refs, and half a registration
//! of a worktree.
//!
//! git makes `<ref>.lock` before it moves a ref and never looks whether the process that made it still lives, so that
//! such a file blocks the ref for good. Of a run's own refs, its driver alone has business with them: whoever has the
//! run's lock may remove theirs. `packed-refs.lock`, `index.lock` and the like may be another program's, and stay.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use crate::error::{Context as _, Result};
use crate::process;
use crate::run::goal::RunId;

/// Where a worktree's own git directory finds the repository's (gitrepository-layout(5)).
pub(super) const COMMON_DIR: &str = "../..\n";
/// How long a lock must stand unchanged: git closes the file a moment before it renames it. A user's `git push` or
/// `git notes append` may be in that moment.
const SETTLED: Duration = Duration::from_millis(150);

/// Removes the locks of `run`'s refs that no process holds, and completes what git left of its worktrees' registrations.
/// To be called by whoever has the run's lock.
pub(super) fn clear(common_dir: &Path, run: &RunId) -> Result<()> {
    complete_registrations(common_dir, run)?;
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

/// Writes the `commondir` of worktrees whose git was killed between making the file and filling it: while it is empty, every
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

/// What git keeps of the run's worktrees.
fn registrations(common_dir: &Path, run: &RunId) -> Vec<PathBuf> {
    let all = fs::read_dir(common_dir.join("worktrees")).into_iter().flatten().flatten();
    let of_run = all.filter(|entry| {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(run.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    of_run.map(|entry| entry.path()).collect()
}

/// The file and when it was last written to; nothing where it is not there.
fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    path.symlink_metadata().ok().map(|about| (about.ino(), about.ctime(), about.ctime_nsec()))
}

/// The locks there are of the run's refs.
fn locks(common_dir: &Path, run: &RunId) -> Vec<PathBuf> {
    let named = ["refs/heads/agentloop", "refs/notes/agentloop"];
    let mut found: Vec<PathBuf> = named.iter().map(|dir| common_dir.join(dir).join(format!("{run}.lock"))).collect();
    // Not their index.lock: a user's 'git commit' in the run's worktree has it for as long as its editor is open.
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
