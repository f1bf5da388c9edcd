//! Whether a run moved between two looks, without reading its record.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::lock;
use super::places::{LOCAL, places};
use super::repository::Repository;
use crate::run::goal::RunId;

/// What changes whenever a run moves: where its notes ref stands, and whether a driver holds its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The ref's file as it is. None where the ref is packed: the next event makes a file again.
    tip: Option<Vec<u8>>,
    driven: bool,
}

/// The pulse of `run`: two small files are opened, which costs some microseconds.
#[must_use]
pub fn pulse(repo: &Repository, run: &RunId) -> Pulse {
    let tip = std::fs::read(repo.common_dir().join(format!("{LOCAL}{run}"))).ok();
    Pulse { tip, driven: lock::is_held(repo.common_dir(), run) }
}

/// What changes whenever a run comes or goes, and now and then without that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPulse([Option<SystemTime>; 2]);

/// The pulse of the list of runs.
#[must_use]
pub fn list_pulse(repo: &Repository) -> ListPulse {
    let changed = |name: &str| repo.common_dir().join(name).metadata().and_then(|found| found.modified()).ok();
    ListPulse([changed(LOCAL), changed("packed-refs")])
}

/// The runs of this repository's own.
#[must_use]
pub fn runs(repo: &Repository) -> BTreeSet<RunId> {
    places(&repo.gix(), LOCAL).into_iter().flatten().map(|(run, _)| run).collect()
}
