//! Verbs that look at a run's work before it is taken.

use serde::{Deserialize, Serialize};

use super::Site;
use super::drive::replay;
use crate::error::{Error, Result};
use crate::ledger::git::GitLedger;
use crate::ledger::git::preview::{self, BranchTip, FileStat};
use crate::run::Run;
use crate::run::goal::RunId;

/// The difference that a run, or one iteration of it, made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// The run.
    pub run_id: RunId,
    /// The commit before.
    pub from: String,
    /// The commit after.
    pub to: String,
    /// The files that differ.
    pub files: Vec<FileStat>,
    /// Every file by name, then the patches that fit, each whole.
    pub text: String,
}

/// What merging a run's branch into the user's current one would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergePreview {
    /// The run.
    pub run_id: RunId,
    /// What would be merged.
    pub branch: String,
    /// The user's branch; none where HEAD is detached.
    pub into: Option<String>,
    /// Whether everything is there already.
    pub up_to_date: bool,
    /// The files that the run's branch changes against the commit that both grew from.
    pub files: Vec<FileStat>,
    /// Paths that would conflict.
    pub conflicts: Vec<String>,
    /// The command that merges.
    pub command: String,
}

/// Two commits of a run, and what to call the later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The run.
    pub run_id: RunId,
    /// The commit before.
    pub from: String,
    /// The commit after.
    pub to: String,
}

/// What the run, or its iteration `iteration`, changed: from which commit to which.
///
/// # Errors
/// Where there is no such run or iteration, or its commits are not in this clone.
pub fn span(site: &Site, run: Option<&str>, iteration: Option<u32>) -> Result<Span> {
    let id = site.repo.resolve(run)?;
    let run = replay(site, &id)?;
    let Some(number) = iteration else {
        let to = preview::branch_tip(&site.repo, &id, &run.tip.commit)?.commit;
        return Ok(Span { from: run.base, to, run_id: id });
    };
    let (from, to) = ends(&run, number).ok_or_else(|| {
        let last = run.iterations.len();
        Error::usage(format!("{id} has committed nothing of an iteration {number}"))
            .hint(format!("it has had {last}; 'git agentloop show {id}' lists them"))
    })?;
    preview::branch_tip(&site.repo, &id, &to)?;
    Ok(Span { run_id: id, from, to })
}

/// The commits around an iteration. One that was cut short ends with the run's newest commit.
fn ends(run: &Run, number: u32) -> Option<(String, String)> {
    let at = run.iterations.iter().position(|iteration| iteration.number == number)?;
    let checkpoint =
        |iteration: &crate::run::Iteration| iteration.checkpoint.as_ref().map(|checkpoint| checkpoint.commit.clone());
    let before = run.iterations[..at].iter().rev().find_map(checkpoint).unwrap_or_else(|| run.base.clone());
    let is_last = at + 1 == run.iterations.len();
    let after = checkpoint(&run.iterations[at]).or_else(|| is_last.then(|| run.tip.commit.clone()))?;
    Some((before, after))
}

/// The difference that a run, or one iteration of it, made; patches up to `limit` bytes together.
///
/// # Errors
/// As [`span`].
pub fn diff(site: &Site, run: Option<&str>, iteration: Option<u32>, limit: usize) -> Result<Diff> {
    let Span { run_id, from, to } = span(site, run, iteration)?;
    let files = preview::stat(&site.repo, &from, &to)?;
    let text = GitLedger::patch(&site.repo, &from, &to, limit)?;
    Ok(Diff { run_id, from, to, files, text })
}

/// What merging the run's branch into the user's current one would do. Nothing is touched.
///
/// # Errors
/// Where there is no such run, its commits are not here, or the two have no history in common.
pub fn merge_preview(site: &Site, run: Option<&str>) -> Result<MergePreview> {
    let id = site.repo.resolve(run)?;
    let run = replay(site, &id)?;
    let BranchTip { name, commit } = preview::branch_tip(&site.repo, &id, &run.tip.commit)?;
    let (head, into) = preview::head(&site.repo)?;
    let up_to_date = preview::is_reachable(&site.repo, &commit, &head)?;
    let (files, conflicts) = if up_to_date {
        (Vec::new(), Vec::new())
    } else {
        let base = preview::merge_base(&site.repo, &head, &commit)?.unwrap_or_else(|| run.base.clone());
        (preview::stat(&site.repo, &base, &commit)?, preview::try_merge(&site.repo, &head, &commit)?.conflicts)
    };
    let command = format!("git merge {name}");
    Ok(MergePreview { branch: name, into, up_to_date, files, conflicts, command, run_id: id })
}
