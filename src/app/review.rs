//! Verbs that show a run's work before it is merged.

use serde::{Deserialize, Serialize};

use super::Site;
use super::replay::{replay, replay_with};
use crate::error::{Error, Result};
use crate::ledger::git::preview::{self, BranchTip, FileStat};
use crate::ledger::git::{GitLedger, merged, read, removal};
use crate::run::goal::RunId;
use crate::run::words;
use crate::run::work::{CheckResult, Usage};
use crate::run::{Run, State};

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
    /// The list of files, then the patches that fit, each complete.
    pub text: String,
}

/// Preview of merging a run's branch into the user's current one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergePreview {
    /// The run.
    pub run_id: RunId,
    /// The branch that would be merged.
    pub branch: String,
    /// The user's branch; `None` if HEAD is detached.
    pub into: Option<String>,
    /// True if the user's branch contains it already.
    pub up_to_date: bool,
    /// The files that the run's branch changes since the merge base.
    pub files: Vec<FileStat>,
    /// Paths that would conflict.
    pub conflicts: Vec<String>,
    /// The command that merges.
    pub command: String,
}

/// Revisions and notes ref that show a run's history in git's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The commit that the run started from.
    pub base: String,
    /// Its branch, or whatever is left of it.
    pub branch: String,
    /// The notes ref that holds its events.
    pub notes: String,
}

/// A run as its reviewer wants to see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shown {
    /// The run.
    pub run_id: RunId,
    /// Its state.
    #[serde(flatten, serialize_with = "words::state")]
    pub state: State,
    /// The goal, whole.
    pub goal: String,
    /// Its success criteria.
    pub criteria: String,
    /// One line about its end or its progress.
    pub summary: String,
    /// Its iterations, oldest first.
    pub iterations: Vec<ShownIteration>,
    /// Issues that the newest review reported.
    pub issues: Vec<String>,
    /// Results of the newest checks.
    pub checks: Vec<CheckResult>,
    /// Number of agent calls.
    pub agent_calls: u64,
    /// Tokens and cost of the calls.
    #[serde(flatten, serialize_with = "words::usage")]
    pub usage: Usage,
    /// Duration of all its sessions, in seconds.
    pub seconds: f64,
    /// Its branch, or whatever is left of it.
    pub branch: String,
    /// The commit that it started from.
    pub base: String,
    /// The commit of its branch.
    pub tip: String,
    /// True if its work is in the history of HEAD.
    pub merged: bool,
    /// Command that restores its branch if that was pruned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<String>,
    /// Rescue refs, each with its object, that keep what its workers dropped or would have lost.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rescued: Vec<Rescued>,
    /// The files that it changed.
    pub files: Vec<FileStat>,
    /// The next command to run, if there is one.
    pub next: Option<String>,
    /// Description of the log's lines that could not be read and were set aside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_aside: Option<String>,
    /// True if drivers of this clone recorded all of it.
    pub verified: bool,
    /// Number of events in its log that no driver of this clone recorded; they do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub elsewhere: usize,
    /// Number of events that a driver of this clone recorded and that are missing from the log.
    #[serde(skip_serializing_if = "is_zero")]
    pub missing: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks
fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// An object that a rescue ref keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rescued {
    /// The ref that keeps it.
    pub name: String,
    /// The object.
    pub object: String,
}

/// Summary of an iteration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownIteration {
    /// Its number, from 1.
    pub number: u32,
    /// The commit that ended it.
    pub commit: Option<String>,
    /// Subgoals, checks and verdict.
    pub summary: String,
}

/// Two commits of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The run.
    pub run_id: RunId,
    /// The commit before.
    pub from: String,
    /// The commit after.
    pub to: String,
}

/// Returns the revisions and the notes ref of a run's history.
pub fn history(site: &Site, run: Option<&str>) -> Result<History> {
    let id = site.repo.resolve(run)?;
    let run = replay(site, &id)?;
    let branch = preview::branch_tip(&site.repo, &id, &run.tip.commit)?;
    let notes = read::notes_ref(&site.repo.gix(), &id)?.unwrap_or_default();
    let base = preview::started_from(&site.repo, &id, &branch.commit, &run)?;
    Ok(History { base, branch: branch.full, notes })
}

/// A run as its reviewer wants to see it.
pub fn show(site: &Site, run: Option<&str>) -> Result<Shown> {
    let id = site.repo.resolve(run)?;
    let status = super::status(site, Some(id.as_str()))?;
    let (run, reading) = replay_with(site, &id, false)?;
    let BranchTip { name, commit, .. } = preview::branch_tip(&site.repo, &id, &run.tip.commit)?;
    let merged = merged::merged(&site.repo, &[(&id, &run.snapshot())])?.contains(&id);
    let base = preview::started_from(&site.repo, &id, &commit, &run)?;
    let files = preview::stat(&site.repo, &base, &commit)?;
    let last = run.iterations.iter().rev().find(|iteration| iteration.plan.is_some());
    let next = match status.state {
        State::Running | State::Waiting => Some(format!("git agentloop tail -f {id}")),
        State::NeedsInput => Some(format!("git agentloop answer {id} TEXT…")),
        State::Interrupted => Some(format!("git agentloop resume {id}")),
        _ if merged || files.is_empty() => None,
        State::Completed => Some(format!("git agentloop merge {id}")),
        _ => {
            let more = run.ended.as_ref().map(|ended| run.more(ended.reason)).unwrap_or_default();
            Some(format!("git agentloop resume {id}{more}"))
        }
    };
    let is_gone = name == commit;
    Ok(Shown {
        undo: if is_gone { removal::undo_of_prune(&site.repo.gix(), &id)? } else { None },
        rescued: removal::rescued(&site.repo.gix(), &id)?
            .into_iter()
            .map(|(name, object)| Rescued { name, object: object.to_string() })
            .collect(),
        state: status.state,
        goal: run.goal.text.clone(),
        criteria: run.goal.criteria.clone(),
        summary: run.ended.as_ref().map_or_else(|| run.summary(None), |ended| ended.summary.clone()),
        iterations: run.iterations.iter().map(ShownIteration::of).collect(),
        issues: last.and_then(|iteration| iteration.review.clone()).map(|review| review.issues).unwrap_or_default(),
        checks: last.and_then(|iteration| iteration.verification.clone()).map(|seen| seen.checks).unwrap_or_default(),
        agent_calls: run.agent_calls,
        usage: run.usage,
        seconds: run.seconds(run.now),
        branch: name,
        base,
        tip: commit,
        merged,
        files,
        next,
        set_aside: reading.log.notice(),
        verified: reading.verified,
        elsewhere: reading.elsewhere,
        missing: reading.missing,
        run_id: id,
    })
}

impl ShownIteration {
    fn of(iteration: &crate::run::Iteration) -> Self {
        let commit = iteration.checkpoint.as_ref().map(|checkpoint| checkpoint.commit.to_string());
        Self { number: iteration.number, commit, summary: iteration.summary() }
    }
}

/// Returns the commits before and after the run, or before and after its iteration `iteration`.
///
/// # Errors
/// Fails if there is no such run or iteration, or if its commits are not in this clone.
pub fn span(site: &Site, run: Option<&str>, iteration: Option<u32>) -> Result<Span> {
    let id = site.repo.resolve(run)?;
    let run = replay(site, &id)?;
    let Some(number) = iteration else {
        let to = preview::branch_tip(&site.repo, &id, &run.tip.commit)?.commit;
        return Ok(Span { from: preview::started_from(&site.repo, &id, &to, &run)?, to, run_id: id });
    };
    let (from, to) = ends(&run, number).ok_or_else(|| {
        let last = run.iterations.len();
        Error::usage(format!("{id} has committed nothing of an iteration {number}"))
            .hint(format!("it has had {last}; 'git agentloop show {id}' lists them"))
    })?;
    preview::branch_tip(&site.repo, &id, &to)?;
    Ok(Span { run_id: id, from, to })
}

/// Returns the commits before and after an iteration. One that was interrupted ends with the run's newest commit.
fn ends(run: &Run, number: u32) -> Option<(String, String)> {
    let at = run.iterations.iter().position(|iteration| iteration.number == number)?;
    let checkpoint =
        |iteration: &crate::run::Iteration| iteration.checkpoint.as_ref().map(|checkpoint| checkpoint.commit.clone());
    let before = run.iterations[..at].iter().rev().find_map(checkpoint).unwrap_or_else(|| run.base.clone());
    let is_last = at + 1 == run.iterations.len();
    let after = checkpoint(&run.iterations[at]).or_else(|| is_last.then(|| run.tip.commit.clone()))?;
    Some((before.into(), after.into()))
}

/// Returns the difference that a run, or one iteration of it, made; the patches have at most `limit` bytes together.
///
/// # Errors
/// Fails like [`span`].
pub fn diff(site: &Site, run: Option<&str>, iteration: Option<u32>, limit: usize) -> Result<Diff> {
    let Span { run_id, from, to } = span(site, run, iteration)?;
    let files = preview::stat(&site.repo, &from, &to)?;
    let text = GitLedger::patch(&site.repo, &from, &to, limit)?;
    Ok(Diff { run_id, from, to, files, text })
}

/// Previews merging the run's branch into the user's current one. Nothing is changed.
pub fn merge_preview(site: &Site, run: Option<&str>) -> Result<MergePreview> {
    let id = site.repo.resolve(run)?;
    let run = replay(site, &id)?;
    let BranchTip { name, commit, .. } = preview::branch_tip(&site.repo, &id, &run.tip.commit)?;
    let (head, into) = preview::head(&site.repo)?;
    let up_to_date = preview::is_reachable(&site.repo, &commit, &head)?;
    let (files, conflicts) = if up_to_date {
        (Vec::new(), Vec::new())
    } else {
        let base = preview::merge_base(&site.repo, &head, &commit)?.unwrap_or_else(|| run.base.to_string());
        (preview::stat(&site.repo, &base, &commit)?, preview::try_merge(&site.repo, &head, &commit)?.conflicts)
    };
    let force = if run.unfit().is_some() { " --force" } else { "" };
    let command = format!("git agentloop merge {id}{force}");
    Ok(MergePreview { branch: name, into, up_to_date, files, conflicts, command, run_id: id })
}
