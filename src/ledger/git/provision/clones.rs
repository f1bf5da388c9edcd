//! The user's clones of submodules, and what is kept in them of a run that goes.

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

/// A clone in which commits of a run moved to a rescue ref.
pub(in super::super) struct Withdrawn {
    git_dir: PathBuf,
    rescue: String,
    commits: usize,
}

impl Withdrawn {
    /// What was kept, in words.
    pub(in super::super) fn in_words(&self) -> String {
        format!("{} below {}/", in_words(self.commits, &self.git_dir), self.rescue)
    }
}

/// Commits of a submodule and where they are, in words.
pub(in super::super) fn in_words(commits: usize, git_dir: &Path) -> String {
    format!("{} of a submodule, in '{}'", count(commits, "commit"), git_dir.display())
}

/// What clones of submodules hold of each run, in words.
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
            held.entry(run.to_owned()).or_default().push(in_words(commits, &git_dir));
        }
    }
    Ok(held)
}

/// Takes the refs of `run` out of every clone of a submodule; what they name stays reachable below `rescue` there.
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

/// The git directory of every clone of a submodule that belongs to a checkout of `repo` (gitrepository-layout(5),
/// `modules`), and of those that the user's checkout holds itself.
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

/// A submodule's name may hold slashes, and a clone holds those of its own submodules.
fn collect(below: &Path, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    let entries = match std::fs::read_dir(below) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context(format!("'{}' cannot be read", below.display()))?,
    };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        if path.join("HEAD").exists() {
            collect(&path.join("modules"), found)?;
            // One that was killed while it was made holds nothing, and git does not take it for a repository.
            if path.join("objects").is_dir() && path.join("refs").is_dir() {
                found.insert(path);
            }
        } else {
            collect(&path, found)?;
        }
    }
    Ok(())
}
