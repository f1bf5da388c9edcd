//! Removal of the stores of clones that no longer exist.
//!
//! A directory that is missing may be a repository that was moved, or on a disk that is not mounted. So a store is removed
//! only if no driver used it for a year, its clone's directory is missing, and the file system that held that directory is
//! mounted where it was.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Bases, CLONES, CloneId, LIMIT, Store, private};

/// File that names the clone's directory: `<file system> NUL <path>`. Its modification time is that of the last use by a
/// driver.
pub(super) const PLACE: &str = "place";
/// Time without use after which a store may be removed.
const UNUSED: Duration = Duration::from_hours(365 * 24);
/// Time in which the last use is not noted again.
const RECENT: Duration = Duration::from_hours(24);
/// End of the name of a store that is being removed.
const GOING: &str = ".gone";

impl Store {
    /// Records the path of the clone, and that a driver uses its store.
    pub(super) fn note_place(&self, common: &Path) -> io::Result<()> {
        let Some(file_system) = file_system(common) else { return Ok(()) };
        let mut place = format!("{file_system:x}\0").into_bytes();
        place.extend_from_slice(common.as_os_str().as_bytes());
        let file = self.dir.join(PLACE);
        let is_recent = || file.metadata().and_then(|about| about.modified()).is_ok_and(|noted| age(noted) < RECENT);
        if private::read(&file, LIMIT)?.is_some_and(|known| known == place) && is_recent() {
            return Ok(());
        }
        private::replace(&self.dir, PLACE, &place)
    }
}

impl Bases {
    /// Removes the stores of clones that no longer exist, and returns their number.
    #[must_use]
    pub fn remove_gone(&self) -> usize {
        let clones = self.all().map(|base| base.join(CLONES)).filter(|clones| private::is_dir(clones));
        let entries = clones.filter_map(|clones| fs::read_dir(clones).ok()).flatten().flatten();
        let mut removed = 0;
        for entry in entries {
            let (dir, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str() else { continue };
            // A process was killed while it removed this one.
            let is_going = name.strip_suffix(GOING).is_some_and(|id| CloneId::parse(id).is_some());
            if !private::is_dir(&dir) || !(is_going || CloneId::parse(name).is_some() && is_gone(&dir)) {
                continue;
            }
            // It is renamed first: a store that is removed in part must not be taken for one.
            let going = if is_going { dir.clone() } else { dir.with_added_extension(&GOING[1..]) };
            let done = if is_going { Ok(()) } else { fs::rename(&dir, &going) };
            match done.and_then(|()| private::remove_dir(&going)) {
                Ok(()) => removed += 1,
                Err(error) => tracing::warn!("the store '{}' of a clone that is gone stays: {error}", dir.display()),
            }
        }
        removed
    }
}

/// Returns whether the clone of the store `dir` no longer exists.
fn is_gone(dir: &Path) -> bool {
    let file = dir.join(PLACE);
    let is_unused = file.symlink_metadata().and_then(|about| about.modified()).is_ok_and(|used| age(used) > UNUSED);
    let Some(place) = private::read(&file, LIMIT).ok().flatten().filter(|_| is_unused) else { return false };
    let Some(at) = place.iter().position(|byte| *byte == 0) else { return false };
    let Some(held_by) = str::from_utf8(&place[..at]).ok().and_then(|text| u64::from_str_radix(text, 16).ok()) else {
        return false;
    };
    let common = Path::new(OsStr::from_bytes(&place[at + 1..]));
    let is_missing = |path: &&Path| path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let is_there = common.ancestors().find(|path| !is_missing(path));
    common.is_absolute() && is_missing(&common) && is_there.and_then(file_system) == Some(held_by)
}

fn age(time: SystemTime) -> Duration {
    time.elapsed().unwrap_or_default()
}

/// Returns the id of the file system that contains `path`, if it has one.
fn file_system(path: &Path) -> Option<u64> {
    rustix::fs::statvfs(path).ok().map(|about| about.f_fsid).filter(|id| *id != 0)
}
