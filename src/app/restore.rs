//! Restores runs that were discarded or pruned.

use serde::Serialize;

use super::Site;
use crate::error::Result;
use crate::ledger::git::restore;
use crate::run::goal::RunId;

/// Result of restoring a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The run.
    pub run_id: RunId,
    /// Restored refs.
    pub refs: Vec<String>,
    /// Descriptions of what was restored in clones of submodules.
    pub submodules: Vec<String>,
}

/// Reverts the newest discard or prune, of `run` or of any run.
///
/// # Errors
/// Fails if there was none, or if a ref of the same name exists.
pub fn restore(site: &Site, run: Option<&str>) -> Result<Restored> {
    super::refuse_nested(site)?;
    let run_id = restore::resolve(&site.repo, run)?;
    let restore::Restored { refs, submodules } = restore::restore(&site.repo, &run_id)?;
    Ok(Restored { run_id, refs, submodules })
}
