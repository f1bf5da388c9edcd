//! Finds the run that this process works for as a worker, and refuses what a worker may not do.

use std::path::{Path, PathBuf};

use super::Site;
use crate::error::{Error, Result};
use crate::host::authority::Authority;
use crate::host::store::{Bases, Store};
use crate::ledger::git::lock;
use crate::process;
use crate::run::goal::RunId;

/// Returns the run that this process works for, if any.
///
/// The run is found by descent: its driver is among our ancestors, whatever the environment holds. The variable that workers
/// get serves where descent fails: the driver died, or is outside of our PID namespace.
#[must_use]
pub fn worker_of(common_dir: Option<&Path>) -> Option<String> {
    let run = driver_above(common_dir).map(|(_, run)| run.to_string());
    run.or_else(|| std::env::var(process::RUN_VAR).ok())
}

/// Returns the run that one of our ancestors drives: a run of the repository with this common directory, or of another
/// repository if the ancestor is this program. Another program that drives runs by itself is not restricted in other
/// repositories.
fn driver_above(common_dir: Option<&Path>) -> Option<(PathBuf, RunId)> {
    let own = common_dir.and_then(|dir| dir.canonicalize().ok());
    let mut recorded = None;
    let mut recorded_driver = |pid: u32| {
        let recorded = recorded.get_or_insert_with(|| common_dir.map(lock::drivers).unwrap_or_default());
        let (run, _) = recorded.iter().find(|(_, driver)| *driver == pid)?;
        Some((common_dir?.to_owned(), run.clone()))
    };
    process::ancestors().into_iter().find_map(|pid| {
        let Some(files) = process::locked_files(pid) else { return recorded_driver(pid) };
        let held = files.iter().filter_map(|file| lock::run_of(file));
        let mut concerns_us = held.filter(|(dir, _)| is(own.as_ref(), dir) || process::is_our_program(pid));
        concerns_us.next().map(|(dir, run)| (dir.to_owned(), run))
    })
}

fn is(own: Option<&PathBuf>, dir: &Path) -> bool {
    own.is_some_and(|own| own == dir || dir.canonicalize().is_ok_and(|dir| *own == dir))
}

/// Refuses, to a process that works for a run, what only the user may do, unless the user had allowed it when the run's
/// driver began: a worker can change its settings and environment.
pub fn refuse_nested(site: &Site) -> Result<()> {
    let (run, is_allowed) = if let Some((dir, run)) = driver_above(Some(site.repo.common_dir())) {
        let store = Store::find(&dir, &Bases::of_process()).map(|store| store.run(&run));
        let authority = store.and_then(|store| Authority::read(&store));
        (run.to_string(), authority.is_some_and(|authority| authority.allow_nested))
    } else if let Ok(run) = std::env::var(process::RUN_VAR) {
        (run.escape_default().to_string(), site.settings().allow_nested()?)
    } else {
        return Ok(());
    };
    if is_allowed {
        return Ok(());
    }
    Err(Error::usage(format!("this process works for the run {run}: a run inside a run is refused"))
        .hint("'git config agentloop.allowNested true' allows it in runs that begin after that"))
}
