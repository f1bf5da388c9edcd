//! Actions of git's hooks: name runs in merge messages, push their records, and copy their notes to rewritten commits.

use std::path::Path;

use super::Site;
use crate::error::Result;
use crate::ledger::git::{rewrite, taken, transfer};

/// Adds the runs to the message `file` of a merge that is being committed.
pub fn name_merged(site: &Site, file: &Path) -> Result<()> {
    for taken in taken::merging(&site.repo) {
        taken::name_in(&site.repo, file, &taken, false)?;
    }
    Ok(())
}

/// Adds the run and the squashed commit to the message `file` of a squash that is being committed.
pub fn name_squashed(site: &Site, file: &Path) -> Result<()> {
    if let Some(taken) = taken::squashed(&site.repo, file)? {
        taken::name_in(&site.repo, file, &taken, true)?;
    }
    Ok(())
}

/// Pushes to `remote` the records of runs whose work is being pushed; `refs` is the input of git's pre-push hook.
pub fn push_records(site: &Site, remote: &str, refs: &str) -> Result<()> {
    let runs = transfer::pushed_runs(&site.repo, remote, refs)?;
    transfer::push_logs(&site.repo, remote, &runs)
}

/// Copies events from rewritten commits to the new ones; `pairs` is the input of git's post-rewrite hook.
pub fn carry_events(site: &Site, pairs: &str) -> Result<()> {
    rewrite::carry(&site.repo, pairs)
}
