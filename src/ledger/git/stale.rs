//! Locks of a run's refs that its driver left, where it died together with its git.
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

/// How long a lock must stand unchanged: git closes the file a moment before it renames it. A user's `git push` or
/// `git notes append` may be in that moment.
const SETTLED: Duration = Duration::from_millis(150);

/// Removes the locks of `run`'s refs that no process holds. To be called by whoever has the run's lock.
///
/// # Errors
/// Where one of them cannot be removed.
pub(super) fn clear(common_dir: &Path, run: &RunId) -> Result<()> {
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

/// The file and when it was last written to; nothing where it is not there.
fn stamp(path: &Path) -> Option<(u64, i64, i64)> {
    path.symlink_metadata().ok().map(|about| (about.ino(), about.ctime(), about.ctime_nsec()))
}

/// The locks there are of the run's refs.
fn locks(common_dir: &Path, run: &RunId) -> Vec<PathBuf> {
    let named = ["refs/heads/agentloop", "refs/notes/agentloop"];
    let mut found: Vec<PathBuf> = named.iter().map(|dir| common_dir.join(dir).join(format!("{run}.lock"))).collect();
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
        let stale: Vec<_> = stale.into_iter().chain(["refs/agentloop/run/RUN/iter1/a.lock"]).map(make).collect();
        let others = [
            "packed-refs.lock",
            "index.lock",
            "config.lock",
            "refs/heads/main.lock",
            "refs/notes/agentloop/other-000000.lock",
        ];
        let others: Vec<_> = others.into_iter().map(make).collect();
        let held = make("refs/agentloop/run/RUN/iter2/b.lock");
        let file = fs::File::open(&held).unwrap();
        clear(dir.path(), &run).unwrap();
        assert!(stale.iter().all(|path| !path.exists()));
        assert!(others.iter().chain([&held]).all(|path| path.exists()));
        drop(file);
        clear(dir.path(), &run).unwrap();
        assert!(!held.exists());
    }
}
