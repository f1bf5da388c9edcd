//! Where files about a run are on this machine.

use std::path::{Path, PathBuf};

use crate::run::goal::RunId;

/// The folder of what belongs to `run` on this machine.
pub(super) fn run_dir(common_dir: &Path, run: &RunId) -> PathBuf {
    common_dir.join("agentloop").join(run.as_str())
}
