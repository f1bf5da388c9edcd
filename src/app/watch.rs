//! Waits for changes of runs: a cheap look tells whether one changed, and only then is it read.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Site;
use crate::ledger::git::pulse::{ListPulse, Pulse, list_pulse, pulse, runs};
use crate::run::goal::RunId;

/// Time between two looks at a run.
pub const LOOK: Duration = Duration::from_millis(10);

/// Watches one run. It misses no change after [`Watcher::new`], so create it before you read the run.
#[derive(Clone, Debug)]
pub struct Watcher {
    run: RunId,
    last: Pulse,
}

impl Watcher {
    /// Starts to watch `run`.
    #[must_use]
    pub fn new(site: &Site, run: &RunId) -> Self {
        Self { run: run.clone(), last: pulse(&site.repo, run) }
    }

    /// Reports whether the run changed since the previous look: an event was recorded, or a driver started or ended.
    pub fn moved(&mut self, site: &Site) -> bool {
        let now = pulse(&site.repo, &self.run);
        let moved = now != self.last;
        self.last = now;
        moved
    }
}

/// Watches the list of runs.
#[derive(Clone, Debug)]
pub struct ListWatcher {
    last: ListPulse,
    runs: BTreeSet<RunId>,
}

impl ListWatcher {
    /// Starts to watch the list.
    #[must_use]
    pub fn new(site: &Site) -> Self {
        Self { last: list_pulse(&site.repo), runs: runs(&site.repo) }
    }

    /// Reports whether a run was added or removed since the previous look.
    pub fn moved(&mut self, site: &Site) -> bool {
        let now = list_pulse(&site.repo);
        if now == self.last {
            return false;
        }
        self.last = now;
        let runs = runs(&site.repo);
        let moved = runs != self.runs;
        self.runs = runs;
        moved
    }
}
