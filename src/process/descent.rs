//! Ancestors of this process, and properties of other processes.

use std::path::{Path, PathBuf};

use super::os;

/// Number of retries of the walk if a process on the way ended meanwhile: its children then have another parent.
const TRIES: u32 = 100;

/// Returns the ids of this process's parent, its parent and so on. If a driver is the subreaper of its workers' processes,
/// it is among them also after a double fork.
#[must_use]
pub fn ancestors() -> Vec<u32> {
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = Vec::new();
    for _ in 0..TRIES {
        found.clear();
        let mut next = own;
        let is_whole = loop {
            let Some(row) = os::row(next) else { break false };
            next = row.parent;
            // 0 is the kernel, or a parent outside of this namespace.
            match u32::try_from(next) {
                Ok(pid) if pid > 0 && !found.contains(&pid) => found.push(pid),
                _ => break true,
            }
        };
        if is_whole {
            break;
        }
    }
    found
}

/// Returns the files that a process holds exclusive locks on (flock(2)); `None` if the system does not list them.
#[must_use]
pub fn locked_files(pid: u32) -> Option<Vec<PathBuf>> {
    os::locked_files(i32::try_from(pid).ok()?)
}

/// Returns whether a process runs this program.
#[must_use]
pub fn is_our_program(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(os::is_our_program)
}

/// Returns whether a process has the file open, among those that this user may inspect.
#[must_use]
pub fn is_open(file: &Path) -> bool {
    os::is_open(file)
}
