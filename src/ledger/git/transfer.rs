//! Runs to and from other repositories, by the user's own git: its credentials, its transports, its configuration.

use std::process::{Command, Stdio};

use super::read::LOCAL;
use super::repository::Repository;
use super::{command, taken, union};
use crate::error::{Error, Result};
use crate::process;
use crate::run::goal::RunId;

/// Refs that one git command is given.
const AT_ONCE: usize = 500;

/// The runs whose work a push takes along; `refs` is `<local ref> <local id> <remote ref> <remote id>` a line
/// (githooks(5), pre-push).
///
/// # Errors
/// Where history cannot be read.
pub fn pushed_runs(repo: &Repository, remote: &str, refs: &str) -> Result<Vec<RunId>> {
    let gix = repo.gix();
    let mut runs = Vec::new();
    for line in refs.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, name, there] = words[..] else { continue };
        let (Ok(local), Ok(there)) = (Repository::id(local), Repository::id(there)) else { continue };
        if local.is_null() {
            continue;
        }
        if let Some(run) = taken::run_of_branch(name) {
            runs.push(run);
        } else if name.starts_with("refs/heads/") {
            // What is there already was pushed with its records; where we do not know it, what we know of the remote.
            let known = if !there.is_null() && gix.has_object(there) {
                there.to_string()
            } else {
                format!("--remotes={remote}")
            };
            runs.extend(taken::runs_between(repo, &local.to_string(), &[known])?);
        }
    }
    runs.sort();
    runs.dedup();
    let mut logged = Vec::new();
    for run in runs {
        if union::tip(&gix, &format!("{LOCAL}{run}"))?.is_some() {
            logged.push(run);
        }
    }
    Ok(logged)
}

/// Pushes the logs of `runs` to `remote`.
///
/// # Errors
/// Where the remote does not take them, in git's words.
pub fn push_logs(repo: &Repository, remote: &str, runs: &[RunId]) -> Result<()> {
    for some in runs.chunks(AT_ONCE) {
        let mut git = users_git(repo);
        git.args(["push", "--quiet", "--no-verify", "--", remote]);
        git.args(some.iter().map(|run| format!("{LOCAL}{run}:{LOCAL}{run}")));
        let output = command::output(&mut git)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let error = Error::failed(format!("the records of {} runs could not be pushed to '{remote}'", some.len()));
            let line = said.lines().rev().find(|line| line.contains("rejected") || line.starts_with("fatal"));
            return Err(error
                .because(line.unwrap_or_else(|| said.trim()).trim().to_owned())
                .hint("'git agentloop sync' tries again; 'git config agentloop.pushNotes false' leaves them here"));
        }
    }
    Ok(())
}

/// git with the user's environment and credentials; our refs are nobody's hooks' business.
fn users_git(repo: &Repository) -> Command {
    let mut git = process::in_our_place("git");
    git.current_dir(repo.home()).stdin(Stdio::null()).args(command::NO_HOOKS);
    git
}
