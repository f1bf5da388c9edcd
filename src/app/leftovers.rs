//! Stops orphans: processes of a run whose driver died.

use std::time::Duration;

use super::site::Site;
use crate::ledger::PROCESSES;
use crate::ledger::git::GitLedger;
use crate::process;
use crate::run::goal::RunId;

/// Time that orphans have to end by themselves.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_secs(3);

/// Returns the mark in the environment of processes that work for `run` in this clone.
pub(super) fn clone_of(site: &Site, run: &RunId) -> String {
    process::clone_of(&GitLedger::scratch_of(&site.repo, run))
}

/// Stops the orphans of `run`, found by the mark in their environment, by the list that the driver wrote, and by the run's
/// directories that they work in.
pub(super) async fn stop_leftovers(site: &Site, run: &RunId, grace: Duration) {
    let scratch = GitLedger::scratch_of(&site.repo, run);
    let mut places = GitLedger::worktrees_of(&site.repo, run);
    places.push(scratch.clone());
    let left = process::Leftovers {
        run: run.as_str(),
        clone: &clone_of(site, run),
        listed: Some(&scratch.join(PROCESSES)),
        places,
    };
    process::stop_leftovers(&left, grace).await;
}
