//! Processes that a driver left of a run when it died.

use std::time::Duration;

use super::site::Site;
use crate::ledger::PROCESSES;
use crate::ledger::git::GitLedger;
use crate::process;
use crate::run::goal::RunId;

/// How long workers of a dead driver have to come to an end of their own.
pub(super) const ORPHAN_GRACE: Duration = Duration::from_secs(3);

/// What marks the processes that work for `run` in this clone.
pub(super) fn clone_of(site: &Site, run: &RunId) -> String {
    process::clone_of(&GitLedger::scratch_of(&site.repo, run))
}

/// Stops what a driver of `run` that died has left: by the mark in its environment, by what the driver wrote down, and by
/// the run's folders that it works in.
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
