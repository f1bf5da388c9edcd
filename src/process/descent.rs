//! The processes that this one descends from.

use std::path::{Path, PathBuf};

use super::os;

/// How often the walk begins anew where a process on the way ended meanwhile: its children then have another parent.
const TRIES: u32 = 100;

/// The ids of our parent, its parent and so on. Where a driver is the subreaper of what its workers start, it is among
/// them also after a double fork.
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
            // 0 is the kernel, or a parent outside of our namespace.
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

/// The files that a process holds exclusive locks on (flock(2)); `None` where the system does not tell.
#[must_use]
pub fn locked_files(pid: u32) -> Option<Vec<PathBuf>> {
    os::locked_files(i32::try_from(pid).ok()?)
}

/// Whether a process runs the program that we run.
#[must_use]
pub fn is_our_program(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(os::is_our_program)
}

/// Whether a process that we may look at has the file open.
#[must_use]
pub fn is_open(file: &Path) -> bool {
    os::is_open(file)
}
