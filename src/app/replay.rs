//! Rebuilds runs from their records.

use super::site::Site;
use crate::error::{Error, Result};
use crate::ledger::git::read::{self, Reading};
use crate::run::Run;
use crate::run::event::FORMAT;
use crate::run::goal::RunId;

pub(super) fn replay(site: &Site, id: &RunId) -> Result<Run> {
    replay_with(site, id, false).map(|(run, _)| run)
}

/// Rebuilds a run from its log, which is returned too; `adopting` counts the lines from elsewhere as taken over.
pub(super) fn replay_with(site: &Site, id: &RunId, adopting: bool) -> Result<(Run, Reading)> {
    let reading = read::log(&site.repo.gix(), site.repo.store().as_deref(), id, adopting)?.unwrap_or_default();
    let (run, set_aside) = (Run::replay(&reading.log.events), reading.log.notice());
    if run.id.is_none() {
        let why = set_aside.map_or_else(String::new, |notice| format!(": {notice}"));
        return Err(Error::failed(format!("the record of {id} has no beginning{why}"))
            .hint("fetch its notes again, or start anew"));
    }
    if run.format > FORMAT {
        return Err(Error::failed(format!(
            "{id} was recorded in format {}, and this version knows {FORMAT}",
            run.format
        ))
        .hint("update git-agentloop; 'git agentloop tail' still reads it"));
    }
    Ok((run, reading))
}
