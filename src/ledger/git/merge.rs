//! A run's work into the user's branch, by the user's own git: their hooks, their editor, their signature, their
//! settings. Nothing here resolves or forces anything.

use std::process::Command;

use super::repository::Repository;
use super::{branch, command};
use crate::error::{Context as _, Error, Result};
use crate::process;
use crate::run::goal::RunId;

/// By which of git's means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// As `merge.ff` says: a fast-forward where one is possible.
    #[default]
    Merge,
    /// A fast-forward where one is possible.
    FastForward,
    /// A merge commit in any case.
    NoFastForward,
    /// One commit of everything.
    Squash,
    /// A copy of each commit that changed something.
    Rebase,
}

/// What to take, and how.
#[derive(Clone, Copy, Debug)]
pub struct Take<'a> {
    /// By which of git's means.
    pub way: Way,
    /// What git is to call it.
    pub name: &'a str,
    /// The commit to take.
    pub commit: &'a str,
    /// The message of the commit that takes it.
    pub message: &'a str,
    /// Whether the user's editor shows the message first.
    pub edit: bool,
}

/// Takes it; what git exits with.
///
/// # Errors
/// Where git cannot be started, or staged changes would get into the commit.
pub fn take(repo: &Repository, run: &RunId, take: &Take<'_>) -> Result<i32> {
    let edit = if take.edit { "--edit" } else { "--no-edit" };
    let mut git = process::in_our_place("git");
    match take.way {
        Way::Merge | Way::FastForward | Way::NoFastForward => {
            git.arg("merge");
            match take.way {
                Way::FastForward => _ = git.arg("--ff"),
                Way::NoFastForward => _ = git.arg("--no-ff"),
                _ => {}
            }
            run_it(git.args([edit, "-m", take.message, take.name]))
        }
        Way::Squash => squash(repo, take, edit),
        Way::Rebase => {
            refuse_staged()?;
            let mut own = branch::own_commits(&repo.gix(), run, Repository::id(take.commit)?)?;
            if own.is_empty() {
                return Ok(0);
            }
            own.reverse();
            // A checkpoint's first parent is the checkpoint before it: what it adds to that is what is copied.
            git.args(["cherry-pick", "--keep-redundant-commits", "-m", "1"]);
            run_it(git.args(own.iter().map(ToString::to_string)))
        }
    }
}

fn squash(repo: &Repository, take: &Take<'_>, edit: &str) -> Result<i32> {
    refuse_staged()?;
    let mut git = process::in_our_place("git");
    let code = run_it(git.args(["merge", "--squash", take.name]))?;
    // The words that git offers with the commit, now or once conflicts are resolved: ours instead of its list.
    let offered = repo.gix().git_dir().join("SQUASH_MSG");
    if offered.exists() {
        std::fs::write(&offered, take.message).context("the commit's message cannot be drafted")?;
    }
    let mut git = process::in_our_place("git");
    let nothing = git.args(["diff", "--cached", "--quiet"]).status().context("git cannot be started")?;
    if code != 0 || nothing.success() {
        return Ok(code);
    }
    let mut git = process::in_our_place("git");
    run_it(git.args(["commit", edit]))
}

/// git lets a squash and a cherry-pick begin over staged changes that they do not touch; those would be committed along.
fn refuse_staged() -> Result<()> {
    let mut git = process::in_our_place("git");
    let clean = git.args(["diff", "--cached", "--quiet"]).status().context("git cannot be started")?;
    if clean.success() {
        return Ok(());
    }
    Err(Error::usage("your index holds staged changes: they would be committed along")
        .hint("commit them, or 'git stash' them, first"))
}

fn run_it(git: &mut Command) -> Result<i32> {
    let status = git.status().map_err(command::cannot_start)?;
    Ok(status.code().unwrap_or(1))
}
