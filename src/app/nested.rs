//! Processes that work for a run: which one they work for, and what they may not do.

use std::path::{Path, PathBuf};

use super::Site;
use crate::error::{Error, Result};
use crate::host::authority::Authority;
use crate::host::store::{Bases, Store};
use crate::ledger::git::lock;
use crate::process;
use crate::run::goal::RunId;

/// The run that this process works for; nothing where it works for none.
///
/// It is known by descent: the run's driver is among our ancestors, whatever the environment says. The variable that
/// workers get tells it where descent does not: where the driver died, or is outside of our namespace.
#[must_use]
pub fn worker_of(common_dir: Option<&Path>) -> Option<String> {
    let run = driver_above(common_dir).map(|(_, run)| run.to_string());
    run.or_else(|| std::env::var(process::RUN_VAR).ok())
}

/// The run that one of our ancestors drives: one of the repository with this common directory, or one of another where
/// the ancestor is our own program. A program that drives runs itself may do as it likes elsewhere.
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

/// Refuses what only the user may ask for to whatever works for a run, unless the user had allowed it when the run's driver
/// began: settings and environment of a worker are the worker's to choose.
///
/// # Errors
/// Where this process works for a run.
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
