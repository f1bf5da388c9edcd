//! What workers break of the places that they are given, mended before anybody goes on there.

use std::path::Path;

use super::worktree::Worktree;
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// Where a worktree's own git directory finds the repository's (gitrepository-layout(5)).
pub(super) const COMMON_DIR: &str = "../..\n";

/// Whether a folder is at `path` itself. What a link leads to is somebody else's, and is neither cleared nor taken in.
pub(super) fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_dir())
}

/// Takes away what is at `path`, whatever it is; what a link leads to stays.
pub(super) fn take_away(path: &Path) -> std::io::Result<()> {
    let Ok(about) = path.symlink_metadata() else { return Ok(()) };
    if !about.is_dir() {
        return std::fs::remove_file(path);
    }
    std::fs::remove_dir_all(path).or_else(|_| {
        open_up(path);
        std::fs::remove_dir_all(path)
    })
}

/// Lets us write in every folder below, which is what removing from one takes.
fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let _ = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

impl Worktree {
    /// Holds it against what a run cannot go on without.
    ///
    /// # Errors
    /// Where somebody removed it, or what git keeps of it.
    pub(super) fn must_stand(&self, run: &RunId) -> Result<()> {
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

    /// Puts right what git needs to take this for a worktree, and takes away locks: nobody is at work in it any more. A
    /// HEAD that names nothing stands at `commit` then; where it stood before is in its log.
    pub(super) fn mend(&self, commit: &str) -> Result<()> {
        let failed = || format!("'{}' cannot be mended", self.admin.display());
        for entry in std::fs::read_dir(&self.admin).context(failed())?.flatten() {
            if Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "lock") {
                take_away(&entry.path()).context(failed())?;
            }
        }
        for name in ["index", "HEAD", "logs/HEAD", "commondir"] {
            let path = self.admin.join(name);
            if path.symlink_metadata().is_ok_and(|about| !about.is_file()) {
                take_away(&path).context(failed())?;
            }
        }
        let holds = |name: &str| std::fs::read_to_string(self.admin.join(name)).unwrap_or_default();
        let head = holds("HEAD");
        let is_sound = match head.trim_end().strip_prefix("ref: ") {
            Some(name) => name.starts_with("refs/"),
            None => gix::ObjectId::from_hex(head.trim_end().as_bytes()).is_ok(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_link_leads_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (there, link) = (dir.path().join("there"), dir.path().join("link"));
        std::fs::create_dir(&there).unwrap();
        std::fs::write(there.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&there, &link).unwrap();
        assert!(is_folder(&there) && !is_folder(&link));
        take_away(&link).unwrap();
        assert!(there.join("file").exists() && link.symlink_metadata().is_err());
        take_away(&there).unwrap();
        assert!(!there.exists());
        take_away(&there).unwrap();
    }
}
