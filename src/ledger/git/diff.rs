//! Differences between commits, for results and for reviewers.

use std::io::Read as _;
use std::process::Stdio;

use super::repository::Repository;
use super::{command, tree};
use crate::error::{Context as _, Result};
use crate::process;

/// Bytes of the list of files that a reviewer gets at most.
const STAT: u64 = 16 * 1024;

/// Files that differ between two commits, sorted; none where one of them is not in this clone.
pub fn changed_files(repo: &Repository, base: &str, tip: &str) -> Result<Vec<String>> {
    let gix = repo.gix();
    let (Ok(base), Ok(tip)) = (Repository::id(base), Repository::id(tip)) else { return Ok(Vec::new()) };
    if !gix.has_object(base) || !gix.has_object(tip) {
        return Ok(Vec::new());
    }
    let changes = tree::changes(&gix, base, tip)?;
    let files = changes.iter().filter(|change| !change.entry_mode().is_tree());
    let mut names: Vec<String> = files.map(|change| change.location().to_string()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// What changed from `from` to `to`: every file by name and size of change, then patches of whole files within `limit`
/// bytes.
pub fn patch(repo: &Repository, from: &str, to: &str, limit: usize) -> Result<String> {
    let stat = head(repo, &["--stat=100"], from, to, STAT)?;
    if stat.trim().is_empty() {
        return Ok("nothing changed".to_owned());
    }
    let printed = head(repo, &["-p"], from, to, limit as u64 + 1)?;
    if printed.len() <= limit {
        return Ok(format!("{stat}\n{printed}"));
    }
    let whole =
        printed.match_indices("\ndiff --git ").map(|(at, _)| at + 1).take_while(|at| *at <= limit).last().unwrap_or(0);
    Ok(format!(
        "{stat}\n{}[the rest is too long: the files above without a patch are in the worktree]\n",
        &printed[..whole]
    ))
}

/// The first `limit` bytes of what git says differs. A patch can be larger than memory: git is stopped once there is
/// enough.
fn head(repo: &Repository, options: &[&str], from: &str, to: &str, limit: u64) -> Result<String> {
    let mut git = command::git(repo.home());
    git.args(["diff-tree", "-r", "--no-ext-diff", "--no-textconv", "--no-color"]).args(options).args([from, to]);
    git.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = process::spawn_aside(&mut git).map_err(command::cannot_start)?;
    let mut printed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(limit).read_to_end(&mut printed).context("git diff-tree cannot be read")?;
    }
    let status = child.wait().context("git diff-tree cannot be waited for")?;
    // Closed early, git is ended by SIGPIPE: that is no failure.
    if !status.success() && (printed.len() as u64) < limit {
        return Err(command::failure("git diff-tree", status, ""));
    }
    let mut text = String::from_utf8_lossy(&printed).into_owned();
    if printed.len() as u64 == limit && options == ["--stat=100"] {
        text.push_str("\n…\n");
    }
    Ok(text)
}
