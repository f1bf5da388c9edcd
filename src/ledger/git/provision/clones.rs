//! The user's clones of submodules, and what is kept in them of a run that goes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;

use super::super::command;
use super::super::refs::{Change, Expect, RefMover, Swap};
use super::super::repository::Repository;
use super::submodules::{bare, unabsorbed};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

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

    /// The command that brings the run's refs back.
    pub(in super::super) fn undo(&self) -> String {
        let git = format!("git --git-dir {}", shell_words::quote(&self.git_dir.to_string_lossy()));
        super::super::removal::undo(&git, &self.rescue)
    }
}

fn in_words(commits: usize, git_dir: &Path) -> String {
    let commits = if commits == 1 { "a commit".to_owned() } else { format!("{commits} commits") };
    format!("{commits} of a submodule, in '{}'", git_dir.display())
}

/// What clones of submodules hold of each run, in words.
///
/// # Errors
/// Where a clone's refs cannot be read.
pub fn held(repo: &Repository) -> Result<HashMap<String, Vec<String>>> {
    let mut held: HashMap<String, Vec<String>> = HashMap::new();
    for git_dir in clones(repo)? {
        let mut git = bare(&git_dir);
        let printed = command::run(git.args(["for-each-ref", "--format=%(refname:lstrip=3)", "refs/agentloop/run/"]))?;
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
/// Where a clone's refs cannot be read or moved. Nothing goes before it is kept.
pub(in super::super) fn withdraw(repo: &Repository, run: &RunId, rescue: &str) -> Result<Vec<Withdrawn>> {
    let mut withdrawn = Vec::new();
    for git_dir in clones(repo)? {
        let mut git = bare(&git_dir);
        git.args(["for-each-ref", "--format=%(objectname) %(refname)", &format!("refs/agentloop/run/{run}/")]);
        let printed = command::run(&mut git)?;
        let mut going = Vec::new();
        for (id, name) in printed.lines().filter_map(|line| line.to_str().ok()?.split_once(' ')) {
            going.push((Repository::id(id)?, name.to_owned()));
        }
        if going.is_empty() {
            continue;
        }
        let kept = going.iter().map(|(id, name)| Change {
            name: format!("{rescue}/{}", name.trim_start_matches("refs/")),
            new: Some(*id),
            old: Expect::Absent,
        });
        let gone = going.iter().map(|(id, name)| Change { name: name.clone(), new: None, old: Expect::Is(*id) });
        let mover = RefMover::new(git_dir.clone()).synced(true);
        for changes in [kept.collect::<Vec<_>>(), gone.collect()] {
            if mover.swap(&changes)? == Swap::Lost {
                return Err(Error::failed(format!("somebody moved a ref of {run} in '{}'", git_dir.display()))
                    .hint("look at what changed, then do it again"));
            }
        }
        withdrawn.push(Withdrawn { git_dir, rescue: rescue.to_owned(), commits: going.len() });
    }
    Ok(withdrawn)
}

/// The git directory of every clone of a submodule that belongs to a checkout of `repo` (gitrepository-layout(5),
/// `modules`), and of those that the user's checkout holds itself.
fn clones(repo: &Repository) -> Result<BTreeSet<PathBuf>> {
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
            found.insert(path);
        } else {
            collect(&path, found)?;
        }
    }
    Ok(())
}
