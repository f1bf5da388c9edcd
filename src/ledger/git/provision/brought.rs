//! What was copied into a worktree, written down there: it is the user's and nobody's work, and is never committed, also
//! where a worker has git not ignore it any more.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::super::command::{nul_separated, nul_terminated};
use crate::error::{Context as _, Result};

/// The list's name in the worktree's git directory.
pub(super) const NAME: &str = "agentloop-copied";

/// Written in a worktree's git directory once everything was brought: until then nobody has worked in it.
pub(in crate::ledger::git) const PROVISIONED: &str = "agentloop-provisioned";

/// The files that were copied into a worktree; of a nested repository its folder.
#[derive(Debug)]
pub struct Brought {
    list: PathBuf,
    paths: BTreeSet<PathBuf>,
}

impl Brought {
    /// What is written down in this git directory of a worktree.
    pub fn read(git_dir: &Path) -> Self {
        let list = git_dir.join(NAME);
        let text = std::fs::read(&list).unwrap_or_default();
        Self { paths: paths(&text).into_iter().collect(), list }
    }

    /// Whether `path` came with what was copied.
    pub fn holds(&self, path: &Path) -> bool {
        !self.paths.is_empty() && path.ancestors().any(|path| self.paths.contains(path))
    }

    /// Writes `more` down, before any of it is there.
    pub fn add(&mut self, more: &[PathBuf]) -> Result<()> {
        let known = self.paths.len();
        self.paths.extend(more.iter().cloned());
        if self.paths.len() > known { self.write() } else { Ok(()) }
    }

    /// Strikes out what is not there after all.
    pub fn strike_out(&mut self, paths: &[PathBuf]) -> Result<()> {
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

/// Paths that end with a NUL byte each.
pub(super) fn paths(text: &[u8]) -> Vec<PathBuf> {
    let names = nul_separated(text);
    names.map(|name| PathBuf::from(OsString::from_vec(name.to_vec()))).collect()
}
