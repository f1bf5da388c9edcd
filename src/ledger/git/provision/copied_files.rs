//! A list of the files that were copied into a worktree. They are the user's and no work, and are never committed, even if a
//! worker makes git stop ignoring them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::super::command::{nul_separated, nul_terminated};
use crate::error::{Context as _, Result};

/// Name of the list in the worktree's git directory.
pub(super) const NAME: &str = "agentloop-copied";

/// File in a worktree's git directory that marks a finished copy: until then no worker has run in it.
pub(in crate::ledger::git) const PROVISIONED: &str = "agentloop-provisioned";

/// The files that were copied into a worktree; a nested repository is listed as its folder.
#[derive(Debug)]
pub struct CopiedFiles {
    list: PathBuf,
    paths: BTreeSet<PathBuf>,
}

impl CopiedFiles {
    /// Reads the list in this git directory of a worktree.
    pub fn read(git_dir: &Path) -> Self {
        let list = git_dir.join(NAME);
        let text = std::fs::read(&list).unwrap_or_default();
        Self { paths: paths(&text).into_iter().collect(), list }
    }

    /// Reports whether `path` or a folder above it was copied.
    pub fn holds(&self, path: &Path) -> bool {
        !self.paths.is_empty() && path.ancestors().any(|path| self.paths.contains(path))
    }

    /// Adds `more` to the list, before any of it is copied.
    pub fn add(&mut self, more: &[PathBuf]) -> Result<()> {
        let known = self.paths.len();
        self.paths.extend(more.iter().cloned());
        if self.paths.len() > known { self.write() } else { Ok(()) }
    }

    /// Removes files from the list that do not exist after all.
    pub fn remove(&mut self, paths: &[PathBuf]) -> Result<()> {
        let known = self.paths.len();
        self.paths.retain(|path| !paths.contains(path));
        if self.paths.len() < known { self.write() } else { Ok(()) }
    }

    fn write(&self) -> Result<()> {
        let text = nul_terminated(self.paths.iter().map(|path| path.as_os_str().as_bytes()));
        let staged = self.list.with_extension("new");
        let written = std::fs::write(&staged, text).and_then(|()| std::fs::rename(&staged, &self.list));
        written.context(format!("'{}' cannot be written", self.list.display()))
    }
}

/// Splits paths that end with a NUL byte each.
pub(super) fn paths(text: &[u8]) -> Vec<PathBuf> {
    let names = nul_separated(text);
    names.map(|name| PathBuf::from(OsString::from_vec(name.to_vec()))).collect()
}
