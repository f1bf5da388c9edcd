//! Detects whether a run changed between two looks, without reading its record.

use std::collections::BTreeSet;
use std::time::SystemTime;

use super::lock;
use super::places::{LOCAL, places};
use super::repository::Repository;
use crate::run::goal::RunId;

/// A value that changes whenever the run does: the run's notes ref, and whether a driver holds its lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Content of the ref's file; `None` if the ref is packed. The next event makes a file again.
    tip: Option<Vec<u8>>,
    driven: bool,
}

/// Returns the pulse of `run`. Opens two small files, which costs some microseconds.
#[must_use]
pub fn pulse(repo: &Repository, run: &RunId) -> Pulse {
    let tip = std::fs::read(repo.common_dir().join(format!("{LOCAL}{run}"))).ok();
    Pulse { tip, driven: lock::is_held(repo.common_dir(), run) }
}

/// A value that changes whenever a run is added or removed, and occasionally without that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListPulse([Option<SystemTime>; 2]);

/// Returns the pulse of the list of runs.
#[must_use]
pub fn list_pulse(repo: &Repository) -> ListPulse {
    let changed = |name: &str| repo.common_dir().join(name).metadata().and_then(|found| found.modified()).ok();
    ListPulse([changed(LOCAL), changed("packed-refs")])
}

/// Lists the runs of this repository itself.
#[must_use]
pub fn runs(repo: &Repository) -> BTreeSet<RunId> {
    places(&repo.gix(), LOCAL).into_iter().flatten().map(|(run, _)| run).collect()
}
