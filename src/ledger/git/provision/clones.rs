//! The user's clones of submodules, and the refs of runs in them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;

use super::super::branch;
use super::super::command::Git;
use super::super::refs::RefMover;
use super::super::repository::Repository;
use super::super::tree::submodules::unabsorbed;
use crate::error::{Context as _, Result};
use crate::run::goal::RunId;
use crate::run::text::count;

/// A clone in which commits of a run were moved to a rescue ref.
pub(in super::super) struct Withdrawn {
    git_dir: PathBuf,
    rescue: String,
    commits: usize,
}

impl Withdrawn {
    /// Describes the kept commits.
    pub(in super::super) fn describe(&self) -> String {
        format!("{} below {}/", describe(self.commits, &self.git_dir), self.rescue)
    }
}

/// Describes commits of a submodule and their clone.
pub(in super::super) fn describe(commits: usize, git_dir: &Path) -> String {
    format!("{} of a submodule, in '{}'", count(commits, "commit"), git_dir.display())
}

/// Describes, by run, the commits that clones of submodules hold.
pub fn held(repo: &Repository) -> Result<HashMap<String, Vec<String>>> {
    let mut held: HashMap<String, Vec<String>> = HashMap::new();
    for git_dir in clones(repo)? {
        let git = Git::in_git_dir(&git_dir, "for-each-ref").arg("--format=%(refname:lstrip=3)");
        let printed = git.arg("refs/agentloop/run/").run()?;
        let mut commits: BTreeMap<&str, usize> = BTreeMap::new();
        for run in printed.lines().filter_map(|line| Some(line.to_str().ok()?.split_once('/')?.0)) {
            *commits.entry(run).or_default() += 1;
        }
        for (run, commits) in commits {
            held.entry(run.to_owned()).or_default().push(describe(commits, &git_dir));
        }
    }
    Ok(held)
}

/// Moves the refs of `run` in all clones of submodules below `rescue`, where their commits stay reachable.
///
/// # Errors
/// Fails if a clone's refs cannot be read or moved. Nothing is removed before it is kept.
pub(in super::super) fn withdraw(repo: &Repository, run: &RunId, rescue: &str) -> Result<Vec<Withdrawn>> {
    let mut withdrawn = Vec::new();
    for git_dir in clones(repo)? {
        let git = Git::in_git_dir(&git_dir, "for-each-ref").arg("--format=%(objectname) %(refname)");
        let printed = git.arg(format!("refs/agentloop/run/{run}/")).run()?;
        let mut going = Vec::new();
        for (id, name) in printed.lines().filter_map(|line| line.to_str().ok()?.split_once(' ')) {
            going.push((name.to_owned(), Repository::id(id)?));
        }
        if going.is_empty() {
            continue;
        }
        branch::move_to_rescue(&RefMover::new(git_dir.clone()).synced(true), run, &going, rescue)?;
        withdrawn.push(Withdrawn { git_dir, rescue: rescue.to_owned(), commits: going.len() });
    }
    Ok(withdrawn)
}

/// Lists the git directories of all submodules' clones that belong to a checkout of `repo` (gitrepository-layout(5),
/// `modules`), and of those that lie in the user's checkout itself.
pub(in super::super) fn clones(repo: &Repository) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let worktrees = std::fs::read_dir(repo.common_dir().join("worktrees")).into_iter().flatten().flatten();
    let checkouts = worktrees.map(|entry| entry.path()).chain([repo.common_dir().to_owned()]);
    for checkout in checkouts {
        collect(&checkout.join("modules"), &mut found)?;
    }
    found.extend(unabsorbed(repo)?);
    Ok(found)
}

/// Collects clones below a folder. A submodule's name may contain slashes, and a clone contains those of its own submodules.
fn collect(below: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(below) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context(format!("'{}' cannot be read", below.display()))?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        if path.join("HEAD").exists() {
            collect(&path.join("modules"), found)?;
            // A clone that was interrupted while it was made is no repository to git and holds nothing.
            if path.join("objects").is_dir() && path.join("refs").is_dir() {
                found.insert(path);
            }
        } else {
            collect(&path, found)?;
        }
    }
    Ok(())
}
