//! How one waits for a run: by looking whether it moved, and reading it only then.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Site;
use crate::ledger::git::pulse::{ListPulse, Pulse, list_pulse, pulse, runs};
use crate::run::goal::RunId;

/// How long a follower sleeps between two looks.
pub const LOOK: Duration = Duration::from_millis(10);

/// Looks at one run. It misses no move that comes after [`Watcher::new`], so make it before you read the run.
#[derive(Clone, Debug)]
pub struct Watcher {
    run: RunId,
    last: Pulse,
}

impl Watcher {
    /// Looks at `run` for the first time.
    #[must_use]
    pub fn new(site: &Site, run: &RunId) -> Self {
        Self { run: run.clone(), last: pulse(&site.repo, run) }
    }

    /// Whether the run moved since the look before: an event was recorded, a driver came or went.
    pub fn moved(&mut self, site: &Site) -> bool {
        let now = pulse(&site.repo, &self.run);
        let moved = now != self.last;
        self.last = now;
        moved
    }
}

/// Looks at which runs there are.
#[derive(Clone, Debug)]
pub struct ListWatcher {
    last: ListPulse,
    runs: BTreeSet<RunId>,
}

impl ListWatcher {
    /// Looks for the first time.
    #[must_use]
    pub fn new(site: &Site) -> Self {
        Self { last: list_pulse(&site.repo), runs: runs(&site.repo) }
    }

    /// Whether a run came or went since the look before.
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
