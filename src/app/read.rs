//! Verbs that only read.

use std::path::PathBuf;

use serde::Serialize;

use super::replay::replay_with;
use super::site::{Site, branch};
use crate::error::{Error, Result};
use crate::ledger::git::read::{self, Noted};
use crate::ledger::git::{GitLedger, list as records, lock, merged, output as transcripts, preview};
use crate::run::event::Timestamp;
use crate::run::goal::{Isolation, RunId};
use crate::run::view::{RunResult, Status, Tail, WorktreeView};
use crate::run::{Run, Snapshot};

/// A run in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listed {
    /// Its status.
    #[serde(flatten)]
    pub status: Status,
    /// Time of the last write to its record.
    pub updated_at: Timestamp,
    /// True if its work is in the history of HEAD.
    pub merged: bool,
}

impl Listed {
    fn of(noted: Noted, live: bool, merged: bool) -> Self {
        let (branch, updated_at) = (branch(&noted.run), noted.updated);
        Self { status: Status::of(noted.run, branch, noted.snapshot, live, noted.verified), updated_at, merged }
    }
}

/// Output of a worker or a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript {
    /// Every transcript of the run, as `iter1/s1/1.out` or `iter1/check1.out`.
    pub paths: Vec<String>,
    /// Content of the transcript that was asked for.
    pub text: Option<Vec<u8>>,
    /// Path of its file while the worker or check runs.
    pub live: Option<PathBuf>,
}

/// Resolves `name`, a run's id or a unique prefix of one.
///
/// # Errors
/// Fails if no run or more than one matches.
pub fn resolve(site: &Site, name: &str) -> Result<RunId> {
    site.repo.resolve(Some(name))
}

/// Returns the status of a run, by default the newest.
pub fn status(site: &Site, run: Option<&str>) -> Result<Status> {
    let id = site.repo.resolve(run)?;
    let (noted, live) = noted(site, &id)?;
    Ok(Status::of(id.clone(), branch(&id), noted.snapshot, live, noted.verified))
}

/// Returns the name of the run's branch in this clone, local or remote-tracking, if there is one.
#[must_use]
pub fn branch_here(site: &Site, run: &RunId) -> Option<String> {
    preview::standing(&site.repo, run).map(|tip| tip.name)
}

/// Returns a run as [`list`] does.
pub fn listed(site: &Site, run: Option<&str>) -> Result<Listed> {
    let id = site.repo.resolve(run)?;
    let (noted, live) = noted(site, &id)?;
    let merged = merged::merged(&site.repo, &[(&id, &noted.snapshot)])?;
    Ok(Listed::of(noted, live, merged.contains(&id)))
}

/// Reads the newest snapshot, and whether a driver holds the lock.
///
/// The two cannot be read at one instant. A driver takes its lock before it writes and writes before it releases the lock: a
/// record that is `running` between two looks at a free lock, and is unchanged, has no driver.
fn noted(site: &Site, id: &RunId) -> Result<(Noted, bool)> {
    let store = site.repo.store();
    let look = || read::snapshot(&site.repo.gix(), store.as_deref(), id)?.ok_or_else(|| gone(id));
    let alive = || lock::holder(site.repo.common_dir(), id).is_some();
    let mut live = alive();
    let mut seen = look()?;
    while !live && !seen.snapshot.state.is_final() {
        live = alive();
        let again = look()?;
        let is_unchanged = again.snapshot.seq == seen.snapshot.seq;
        seen = again;
        if is_unchanged {
            break;
        }
    }
    Ok((seen, live))
}

/// Lists all runs, newest first.
pub fn list(site: &Site) -> Result<Vec<Listed>> {
    let runs = records::list(&site.repo.gix(), site.repo.store().as_deref())?;
    let snapshots: Vec<(&RunId, &Snapshot)> = runs.iter().map(|noted| (&noted.run, &noted.snapshot)).collect();
    let merged = merged::merged(&site.repo, &snapshots)?;
    let listed = runs.into_iter().map(|noted| {
        let (ended, is_merged) = (noted.snapshot.state.is_final(), merged.contains(&noted.run));
        // Only a run that has not ended can have a driver, so no other lock is looked at.
        let (noted, live) = if ended { (noted, false) } else { self::noted(site, &noted.run)? };
        Ok(Listed::of(noted, live, is_merged))
    });
    listed.collect()
}

/// Returns at most `limit` events after `cursor`.
pub fn tail(site: &Site, run: Option<&str>, cursor: u64, limit: usize) -> Result<Tail> {
    let id = site.repo.resolve(run)?;
    // The lock is looked at before the events: a run without a driver has written all of them.
    let live = lock::holder(site.repo.common_dir(), &id).is_some();
    let reading = read::log(&site.repo.gix(), site.repo.store().as_deref(), &id, false)?.ok_or_else(|| gone(&id))?;
    Ok(Tail::of(id, reading.log, cursor, limit, live))
}

/// Describes the lines of a run's log that could not be read and were set aside, if any.
pub fn set_aside(site: &Site, run: Option<&str>) -> Result<Option<String>> {
    let id = site.repo.resolve(run)?;
    let reading = read::log(&site.repo.gix(), site.repo.store().as_deref(), &id, false)?;
    Ok(reading.and_then(|reading| reading.log.notice()))
}

/// Returns the result so far.
pub fn result(site: &Site, run: Option<&str>) -> Result<RunResult> {
    let id = site.repo.resolve(run)?;
    let (_, live) = noted(site, &id)?;
    let (run, reading) = replay_with(site, &id, false)?;
    let set_aside = reading.log.notice();
    Ok(RunResult { set_aside, ..result_of(site, id, &run, live, reading.verified)? })
}

/// Makes the result of a run that was already read.
pub(super) fn result_of(site: &Site, id: RunId, run: &Run, live: bool, verified: bool) -> Result<RunResult> {
    let path = if run.options.isolation == Isolation::None {
        site.repo.work_dir().map(std::path::Path::to_path_buf)
    } else {
        GitLedger::worktree_path(&site.repo, &id)
    };
    let worktree = WorktreeView {
        path: path.map(|path| path.to_string_lossy().into_owned()),
        branch: branch(&id),
        name: preview::branch_tip(&site.repo, &id, &run.tip.commit).ok().map(|tip| tip.name),
        base: run.base.to_string(),
        changed_files: GitLedger::changed_files(&site.repo, &run.base, &run.tip.commit)?,
        checkpoints: run.checkpoints.iter().map(|checkpoint| checkpoint.commit.to_string()).collect(),
    };
    Ok(run.result(id, live, verified, Some(worktree)))
}

/// Returns the transcript of a worker, named `iter1/s1` (its last attempt) or `iter1/s1/2`, or of a check, `iter1/check1`;
/// without `which`, the list of all transcripts.
pub fn output(site: &Site, run: Option<&str>, which: Option<&str>) -> Result<Transcript> {
    let id = site.repo.resolve(run)?;
    let scratch = GitLedger::scratch_of(&site.repo, &id);
    // A transcript is on the ref before its file is removed, so looking at the files first misses none.
    let live: Vec<String> = live_paths(&scratch);
    let mut paths = transcripts::paths(&site.repo.gix(), &id);
    paths.extend(live.iter().filter(|path| !paths.contains(path)).cloned().collect::<Vec<_>>());
    paths.sort();
    let Some(which) = which else { return Ok(Transcript { paths, ..Transcript::default() }) };
    let wanted = which.trim_end_matches(".out");
    // A worker whose subgoal has the name of a check is found by its attempt.
    let exact = paths.iter().find(|path| path.trim_end_matches(".out") == wanted);
    let attempts = paths.iter().filter(|path| path.rsplit_once('/').is_some_and(|(task, _)| task == wanted));
    let newest = exact.or_else(|| attempts.max_by_key(|path| attempt_number(path)));
    let newest = newest.cloned().ok_or_else(|| none_kept(&id, which))?;
    let so_far = std::fs::read(scratch.join(&newest)).ok();
    let text = transcripts::read(&site.repo.gix(), &id, &newest).or(so_far);
    let live = live.contains(&newest).then(|| scratch.join(&newest));
    Ok(Transcript { paths: vec![newest], text, live })
}

/// Makes the error for `which`, of which there is no transcript.
fn none_kept(id: &RunId, which: &str) -> Error {
    let is_check = which.rsplit_once('/').and_then(|(_, name)| name.strip_prefix("check"));
    let is_check = is_check.is_some_and(|number| number.trim_end_matches(".out").parse::<u32>().is_ok());
    let error = Error::usage(format!("{id} has no transcript '{which}'"));
    error.hint(if is_check {
        format!(
            "the check did not run then, agentloop.output is none, or an older version ran it; \
             'git agentloop result {id} --json' has the beginning and the end of what it printed"
        )
    } else {
        format!("'git agentloop output {id}' lists what it has")
    })
}

/// Returns 10 for `iter1/s1/10.out`, so that the tenth attempt comes after the ninth.
fn attempt_number(path: &str) -> u32 {
    path.trim_end_matches(".out").rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Lists the transcripts that are still being written.
fn live_paths(scratch: &std::path::Path) -> Vec<String> {
    let children = |dir: PathBuf| std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found = Vec::new();
    let name = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let iterations = children(scratch.to_path_buf()).filter(|entry| name(entry).starts_with("iter"));
    for iteration in iterations {
        for task in children(iteration.path()) {
            let path = format!("{}/{}", name(&iteration), name(&task));
            if task.file_type().is_ok_and(|kind| kind.is_file()) {
                found.push(path);
                continue;
            }
            found.extend(children(task.path()).map(|file| format!("{path}/{}", name(&file))));
        }
    }
    found
}

fn gone(id: &RunId) -> Error {
    Error::failed(format!("the record of {id} is gone")).hint(format!(
        "its notes ref was deleted; 'git reflog show refs/notes/agentloop/{id}' or a remote may still have it"
    ))
}
