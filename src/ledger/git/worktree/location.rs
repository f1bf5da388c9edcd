//! Chooses the folder for worktrees: beside the checkout, never in a git directory, and hidden from git.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::Worktree;
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::command::Git;
use crate::ledger::git::link::FILES;
use crate::ledger::git::repository::Repository;

/// Makes git ignore everything in a folder, this file included (gitignore(5)).
const HIDE: &str = "*\n";

/// Returns the folder for worktrees beside the main worktree, even if the run was started in a linked one, or beside the
/// outermost superproject's if that is a submodule. `None` if it would be in a git directory, where agents refuse to edit
/// files.
pub(super) fn beside(repo: &Repository) -> Option<PathBuf> {
    let checkout = main_checkout(repo);
    let name = checkout.file_name().map_or_else(|| "repository".into(), |name| name.to_string_lossy().into_owned());
    let beside = checkout.with_file_name(format!("{name}.agentloop"));
    let is_in_git_dir = beside.ancestors().skip(1).any(is_git_dir);
    (!is_in_git_dir).then_some(beside)
}

/// Returns the checkout that the repository's worktrees are named after; for a bare repository, its git directory.
fn main_checkout(repo: &Repository) -> PathBuf {
    let common = repo.common_dir();
    // The clone of a submodule is in its superproject's git directory (gitrepository-layout(5), `modules`).
    let outermost = common.ancestors().filter(|dir| is_git_dir(dir)).last().unwrap_or(common);
    let is_named_git = outermost.file_name().is_some_and(|name| name == ".git");
    let checkout = match (outermost.parent(), repo.work_dir()) {
        (Some(parent), _) if is_named_git => parent.to_owned(),
        // A separate git directory, whose files are not around it.
        (_, Some(work_dir)) if repo.git_dir() == common => work_dir.to_owned(),
        _ => outermost.to_owned(),
    };
    let mut checkout = checkout;
    while let Some(superproject) = superproject(&checkout) {
        checkout = superproject;
    }
    checkout
}

/// Returns the checkout that has the one at `checkout` as a submodule.
fn superproject(checkout: &Path) -> Option<PathBuf> {
    let above = checkout.ancestors().skip(1).find(|dir| dir.join(".git").symlink_metadata().is_ok())?;
    let path = checkout.strip_prefix(above).ok()?;
    let modules = std::fs::read_to_string(above.join(".gitmodules")).ok()?;
    let mut paths = modules.lines().filter_map(|line| line.trim().strip_prefix("path")?.trim_start().strip_prefix('='));
    paths.any(|named| Path::new(named.trim().trim_matches('"')) == path).then(|| above.to_owned())
}

/// Recognizes a git directory as git itself does (gitrepository-layout(5)).
fn is_git_dir(dir: &Path) -> bool {
    dir.join("HEAD").symlink_metadata().is_ok() && dir.join("objects").is_dir() && dir.join("refs").is_dir()
}

/// Hides the folder of the worktrees from git if it is in the user's checkout. A folder that is not empty is left unchanged,
/// since its content may be the user's work.
pub(super) fn hide(repo: &Repository, folder: &Path) -> Result<()> {
    let is_in_checkout = repo.work_dir().is_some_and(|checkout| folder != checkout && folder.starts_with(checkout));
    let is_empty = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if is_in_checkout && is_empty {
        let file = folder.join(".gitignore");
        std::fs::write(&file, HIDE).context(format!("'{}' cannot be written", file.display()))?;
    }
    Ok(())
}

/// Removes the folder of the worktrees once it is empty.
pub(super) fn remove_folder(folder: &Path) {
    let file = folder.join(".gitignore");
    let is_alone = std::fs::read_dir(folder).is_ok_and(|entries| entries.count() == 1);
    if is_alone && std::fs::read_to_string(&file).is_ok_and(|text| text == HIDE) {
        let _ = std::fs::remove_file(file);
    }
    // Fails if it holds anything else.
    let _ = std::fs::remove_dir(folder);
}

impl Worktree {
    /// Ensures that git itself, started in the worktree, finds these files and this git directory. A shared `core.worktree`
    /// leads elsewhere if `extensions.worktreeConfig` is set (git-worktree(1)); the worktree's own setting overrides it.
    pub(super) fn claim_files(&self) -> Result<()> {
        if self.is_what_git_finds()? {
            return Ok(());
        }
        let path = self.path.canonicalize().context("the worktree cannot be reached")?;
        let git = Git::in_git_dir(&self.admin, "config").env("GIT_DIR", &self.admin).arg("--file");
        let git = git.arg(self.admin.join("config.worktree")).arg(FILES);
        git.arg(relative(&self.admin, &path)).run()?;
        if self.is_what_git_finds()? {
            return Ok(());
        }
        Err(Error::failed(format!("git takes other files than those in '{}' for the worktree there", self.path.display()))
            .because("the repository's configuration says where its files are: core.worktree, extensions.worktreeConfig")
            .hint("'git config --show-origin --get-all core.worktree' shows which file says so; run in a plain clone, or with --no-isolate"))
    }

    fn is_what_git_finds(&self) -> Result<bool> {
        let git = Git::discovering(Some(&self.path), "rev-parse").arg("--path-format=absolute");
        let output =
            git.args(["--show-toplevel", "--git-dir", "--git-path", "index", "--git-path", "HEAD"]).output()?;
        let path = self.path.canonicalize().context("the worktree cannot be reached")?;
        let expected = [path, self.admin.clone(), self.admin.join("index"), self.admin.join("HEAD")];
        let expected: Vec<u8> =
            expected.iter().flat_map(|path| [path.as_os_str().as_bytes(), b"\n"].concat()).collect();
        Ok(output.status.success() && output.stdout == expected)
    }
}

/// Returns the relative path from the folder `from` to `to`, which remains valid when both are moved.
fn relative(from: &Path, to: &Path) -> PathBuf {
    let common = from.components().zip(to.components()).take_while(|(from, to)| from == to).count();
    let up = from.components().skip(common).map(|_| Component::ParentDir);
    up.chain(to.components().skip(common)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_between_two_folders() {
        for (from, to, way) in [
            ("/a/b/.git/worktrees/r", "/a/b.agentloop/r", "../../../../b.agentloop/r"),
            ("/a", "/b", "../b"),
            ("/a", "/a/b", "b"),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way));
        }
    }
}
