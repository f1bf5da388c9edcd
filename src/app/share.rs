//! Exchanges runs with other repositories.

use serde::Serialize;

use super::Site;
use crate::error::Result;
use crate::ledger::git::transfer;
use crate::run::goal::RunId;

/// Result of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyncReport {
    /// The remote.
    pub remote: String,
    /// Runs with new fetched events or commits.
    pub fetched: Vec<RunId>,
    /// Runs that advanced elsewhere; the local refs were updated.
    pub updated: Vec<RunId>,
    /// Runs with pushed events or commits.
    pub pushed: Vec<RunId>,
    /// Runs that advanced in two places.
    pub diverged: Vec<Diverged>,
    /// Runs that were discarded here and stay discarded: the remote still has them, but nothing newer.
    pub discarded: Vec<RunId>,
    /// Refs that the remote rejected.
    pub refused: Vec<Refused>,
    /// Content that only local worktrees held, and the refs that keep it.
    pub kept: Vec<String>,
    /// The remote with which transcripts were exchanged, if any.
    pub output: Option<String>,
}

/// A run that advanced in two places; both logs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diverged {
    /// The run.
    pub run_id: RunId,
    /// The notes ref with this repository's log.
    pub here: String,
    /// The notes ref with the fetched one.
    pub there: String,
}

/// A ref that the remote rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// git's reason.
    pub reason: String,
}

/// Fetches runs from `remote` and pushes local ones to it, with their transcripts if `output` is set.
pub fn sync(site: &Site, remote: Option<&str>, output: bool) -> Result<SyncReport> {
    super::refuse_nested(site)?;
    let remote = transfer::remote(&site.repo, remote)?;
    let synced = transfer::sync(&site.repo, &remote)?;
    let output = if output {
        let to = site.settings().output_remote().unwrap_or_else(|| remote.clone());
        transfer::sync_output(&site.repo, &transfer::remote(&site.repo, Some(&to))?)?;
        Some(to)
    } else {
        None
    };
    let diverged = synced.diverged.into_iter().map(|(run_id, here, there)| Diverged { run_id, here, there });
    let refused = synced.refused.into_iter().map(|(name, reason)| Refused { name, reason });
    Ok(SyncReport {
        remote,
        fetched: synced.fetched,
        updated: synced.updated,
        pushed: synced.pushed,
        diverged: diverged.collect(),
        discarded: synced.discarded,
        refused: refused.collect(),
        kept: synced.kept,
        output,
    })
}
