//! What git's hooks have done: runs named where their work is taken in, their records sent and carried along.

use std::path::Path;

use super::Site;
use crate::error::Result;
use crate::ledger::git::{rewrite, taken, transfer};

/// Names the runs in the message `file` of a merge that is being committed.
///
/// # Errors
/// Where the message cannot be changed.
pub fn name_merged(site: &Site, file: &Path) -> Result<()> {
    for taken in taken::merging(&site.repo) {
        taken::name_in(&site.repo, file, &taken, false)?;
    }
    Ok(())
}

/// Names the run in the message `file` of a squash that is being committed, and the commit that was squashed.
///
/// # Errors
/// Where the message cannot be changed.
pub fn name_squashed(site: &Site, file: &Path) -> Result<()> {
    if let Some(taken) = taken::squashed(&site.repo, file)? {
        taken::name_in(&site.repo, file, &taken, true)?;
    }
    Ok(())
}

/// Sends to `remote` the records of runs whose work is being pushed; `refs` is what git tells its pre-push hook.
///
/// # Errors
/// Where they cannot be sent.
pub fn push_records(site: &Site, remote: &str, refs: &str) -> Result<()> {
    let runs = transfer::pushed_runs(&site.repo, remote, refs)?;
    transfer::push_logs(&site.repo, remote, &runs)
}

/// Takes events along from rewritten commits; `pairs` is what git tells its post-rewrite hook.
///
/// # Errors
/// Where they cannot be read or written.
pub fn carry_events(site: &Site, pairs: &str) -> Result<()> {
    rewrite::carry(&site.repo, pairs)
}
