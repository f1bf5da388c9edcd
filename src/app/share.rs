//! Runs to and from other repositories.

use serde::Serialize;

use super::Site;
use crate::error::Result;
use crate::ledger::git::transfer;
use crate::run::goal::RunId;

/// What became of a sync.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SyncReport {
    /// The remote.
    pub remote: String,
    /// Runs of which something new came.
    pub fetched: Vec<RunId>,
    /// Runs that went on elsewhere, and are at the same point here now.
    pub updated: Vec<RunId>,
    /// Runs of which something went.
    pub pushed: Vec<RunId>,
    /// Runs that went on in two places.
    pub diverged: Vec<Diverged>,
    /// Runs that were discarded here and stay so: the remote still has them, and nothing newer of them.
    pub discarded: Vec<RunId>,
    /// What the remote did not take.
    pub refused: Vec<Refused>,
    /// What worktrees here held, and where it is kept.
    pub kept: Vec<String>,
    /// Where transcripts were exchanged, where that was asked for.
    pub output: Option<String>,
}

/// A run that went on in two places; both logs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diverged {
    /// The run.
    pub run_id: RunId,
    /// The notes ref with this repository's log.
    pub here: String,
    /// The notes ref with the fetched one.
    pub there: String,
}

/// A ref that the remote did not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The ref.
    #[serde(rename = "ref")]
    pub name: String,
    /// Why, in git's words.
    pub reason: String,
}

/// Fetches runs from `remote` and pushes ours to it, with their transcripts where `output` says so.
///
/// # Errors
/// Where the remote is unknown or cannot be reached.
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
