//! The run's folder on this machine.

use std::path::{Path, PathBuf};

use crate::run::goal::RunId;

/// Returns the folder of the files of `run` on this machine.
pub(super) fn run_dir(common_dir: &Path, run: &RunId) -> PathBuf {
    common_dir.join("agentloop").join(run.as_str())
}
