//! Bringing back a run that was put away.

use serde::Serialize;

use super::Site;
use crate::error::Result;
use crate::ledger::git::restore;
use crate::run::goal::RunId;

/// What was brought back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The run.
    pub run_id: RunId,
    /// Refs that are here again.
    pub refs: Vec<String>,
    /// What is back in clones of submodules, in words.
    pub submodules: Vec<String>,
}

/// Undoes the newest discard or prune of `run`, or of any.
///
/// # Errors
/// Where there was none, or a ref of the same name is in the way.
pub fn restore(site: &Site, run: Option<&str>) -> Result<Restored> {
    super::refuse_nested(site)?;
    let run_id = restore::resolve(&site.repo, run)?;
    let restore::Restored { refs, submodules } = restore::restore(&site.repo, &run_id)?;
    Ok(Restored { run_id, refs, submodules })
}
