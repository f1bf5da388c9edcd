//! Repairs what workers broke in their worktrees, before work continues there.

use std::path::Path;

use super::Worktree;
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::folder::{is_folder, remove_any};
use crate::ledger::git::stale::COMMON_DIR;
use crate::run::goal::RunId;

impl Worktree {
    /// Checks that the parts of a worktree exist without which a run cannot continue.
    ///
    /// # Errors
    /// Fails if the worktree or git's data of it was removed.
    pub(in crate::ledger::git) fn check_exists(&self, run: &RunId) -> Result<()> {
        let path = self.path.display();
        if let Some(home) = self.admin.ancestors().nth(2).filter(|home| !home.is_dir()) {
            return Err(Error::failed(format!("the repository is not at '{}' any more", home.display()))
                .hint(format!("what is on record stays: from where it is now, 'git agentloop resume {run}' goes on")));
        }
        if !is_folder(&self.path) {
            return Err(Error::failed(format!("the run's worktree '{path}' was removed"))
                .hint(format!("what is committed stays: 'git agentloop resume {run}' makes it anew and goes on")));
        }
        if !self.admin.is_dir() {
            return Err(Error::failed(format!("what git keeps of the run's worktree '{path}' was removed")).hint(format!(
                "what is committed stays: move '{path}' away, then 'git agentloop resume {run}' makes it anew and goes on"
            )));
        }
        Ok(())
    }

    /// Repairs what git needs to accept this as a worktree, and removes locks, since no process works in it any more. A
    /// damaged HEAD is set to `commit`; its earlier values are in its reflog.
    pub(in crate::ledger::git) fn repair(&self, commit: &str) -> Result<()> {
        let failed = || format!("'{}' cannot be mended", self.admin.display());
        for entry in std::fs::read_dir(&self.admin).context(failed())?.flatten() {
            if Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "lock") {
                remove_any(&entry.path()).context(failed())?;
            }
        }
        for name in ["index", "HEAD", "logs/HEAD", "commondir"] {
            let path = self.admin.join(name);
            if path.symlink_metadata().is_ok_and(|about| !about.is_file()) {
                remove_any(&path).context(failed())?;
            }
        }
        let holds = |name: &str| std::fs::read_to_string(self.admin.join(name)).unwrap_or_default();
        let head = holds("HEAD");
        let is_sound = match head.trim_end().strip_prefix("ref: ") {
            Some(name) => name.starts_with("refs/"),
            // Of the repository's hash, as `commit` is.
            None => {
                head.trim_end().len() == commit.len() && gix::ObjectId::from_hex(head.trim_end().as_bytes()).is_ok()
            }
        };
        if !is_sound {
            std::fs::write(self.admin.join("HEAD"), format!("{commit}\n")).context(failed())?;
        }
        if holds("commondir").trim_end() != COMMON_DIR.trim_end() {
            std::fs::write(self.admin.join("commondir"), COMMON_DIR).context(failed())?;
        }
        Ok(())
    }
}
