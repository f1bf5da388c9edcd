//! Finds the iteration of a run that broke a check.

use std::path::Path;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::leftovers::clone_of;
use super::replay::replay;
use super::site::{Site, provisioning};
use crate::engine::Provisioning;
use crate::engine::entering::enter;
use crate::error::{Context as _, Error, Result};
use crate::ledger::Wanted;
use crate::ledger::git::{Trial, preview};
use crate::process::{self, Mark, Spec, Status, Stdin};
use crate::run::Run;
use crate::run::amount::Seconds;
use crate::run::folder::Folder;
use crate::run::goal::{Check, RunId};

/// Exit code of a check that cannot judge a commit, as for `git bisect run`.
const UNJUDGED: i32 = 125;
/// Bytes of a check's output that are kept.
const KEEP: usize = 4 * 1024;

/// A commit that the check was run on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tried {
    /// The iteration that ended with this commit; 0 for the commit that the run started from.
    pub iteration: u32,
    /// The commit.
    pub commit: String,
    /// Result of the check; `None` if it exited with 125.
    pub ok: Option<bool>,
    /// Exit code of the check; `None` if it was killed or timed out.
    pub exit_code: Option<i32>,
    /// Seconds it took.
    pub seconds: f64,
}

/// Result of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bisected {
    /// The run.
    pub run_id: RunId,
    /// The check.
    pub check: String,
    /// The first commit that fails; `None` if none or all of them fail.
    pub broken_by: Option<Tried>,
    /// The newest commit before it that passes.
    pub last_good: Option<Tried>,
    /// All commits that were checked, in the order in which they were.
    pub tried: Vec<Tried>,
}

/// Searches the run's commits for the first that fails `check`, in a separate worktree; `tell` is called after each commit
/// that was checked.
pub async fn bisect(
    site: &Site,
    run: Option<&str>,
    check: &Check,
    timeout: Option<Seconds>,
    cancel: CancellationToken,
    tell: impl Fn(&Tried),
) -> Result<Bisected> {
    super::refuse_nested(site)?;
    super::before::runnable(site, "check", std::slice::from_ref(check))?;
    let id = site.repo.resolve(run)?;
    let run = replay(site, &id)?;
    let commits = commits(site, &id, &run)?;
    process::become_subreaper();
    let trial = Trial::make(&site.repo, &id, &site.settings().preferences()?, &commits[0].1)?;
    let clone = clone_of(site, &id);
    let search = Search { trial: &trial, run: &id, folder: &run.options.cwd, clone, check, timeout, cancel: &cancel };
    let searched = search.through(&provisioning(site)?, &commits, tell).await;
    let removed = trial.remove();
    let (broken_by, last_good, tried) = searched?;
    removed?;
    Ok(Bisected { run_id: id, check: check.name.clone(), broken_by, last_good, tried })
}

/// Lists the commit that the run started from and the one of each iteration; commits made on the branch after them come
/// last, as one.
fn commits(site: &Site, id: &RunId, run: &Run) -> Result<Vec<(u32, String)>> {
    let tip = preview::branch_tip(&site.repo, id, &run.tip.commit)?.commit;
    let mut commits = vec![(0, run.base.to_string())];
    let ended = run.iterations.iter().filter_map(|one| Some((one.number, one.checkpoint.clone()?.commit.into())));
    commits.extend(ended);
    if commits.last().is_some_and(|(_, last)| *last != tip) {
        commits.push((run.iterations.last().map_or(0, |one| one.number), tip));
    }
    if commits.len() < 2 {
        return Err(Error::usage(format!("{id} has committed nothing yet")).hint("there is nothing to search"));
    }
    Ok(commits)
}

type Found = (Option<Tried>, Option<Tried>, Vec<Tried>);

/// A search in progress.
struct Search<'a> {
    trial: &'a Trial<'a>,
    run: &'a RunId,
    folder: &'a Folder,
    clone: String,
    check: &'a Check,
    /// Time limit of one run of the check.
    timeout: Option<Seconds>,
    cancel: &'a CancellationToken,
}

impl Search<'_> {
    async fn through(&self, wanted: &Provisioning, commits: &[(u32, String)], tell: impl Fn(&Tried)) -> Result<Found> {
        let bring = Wanted { copy: &wanted.copy, go_on: &|| !self.cancel.is_cancelled() };
        self.trial.provision(self.run, &bring)?;
        self.set_up(wanted).await?;
        let mut tried: Vec<Tried> = Vec::new();
        let mut left: Vec<&(u32, String)> = commits.iter().collect();
        // Both ends are checked first: between them the search needs a good and a bad commit.
        let (mut good, mut bad): (Option<Tried>, Option<Tried>) = (None, None);
        loop {
            let at = match (&good, &bad) {
                (None, _) => 0,
                (_, None) => left.len() - 1,
                _ if left.is_empty() => break,
                _ => left.len() / 2,
            };
            let (iteration, commit) = left[at];
            self.trial.switch(commit)?;
            self.trial.provision(self.run, &bring)?;
            let one = self.judge(*iteration, commit).await?;
            tell(&one);
            tried.push(one.clone());
            match (one.ok, good.is_some()) {
                (None, true) if bad.is_some() => _ = left.remove(at),
                (None, _) => {
                    return Err(Error::failed(format!("the check cannot judge {commit}, one of the ends"))
                        .hint("it exited with 125; a check that can tell is needed"));
                }
                // It failed from the start: no iteration broke it.
                (Some(false), false) => return Ok((None, None, tried)),
                (Some(true), _) => {
                    left.drain(..=at);
                    good = Some(one);
                }
                (Some(false), true) => {
                    left.truncate(at);
                    bad = Some(one);
                }
            }
            if good.is_some() && bad.is_none() && left.is_empty() {
                return Ok((None, good, tried));
            }
        }
        Ok((bad, good, tried))
    }

    async fn set_up(&self, wanted: &Provisioning) -> Result<()> {
        for command in &wanted.setup {
            let done = self.run(command, self.trial.path(), wanted.setup_timeout).await?;
            if done.status != Status::Exited(0) {
                let name = &command.name;
                let failed = Error::failed(format!("the setup command '{name}' failed where the check is to run"));
                let words = done.stderr.text();
                let failed = if words.trim().is_empty() { failed } else { failed.because(words) };
                return Err(failed.hint("mend what it needs, or change it: 'git config --edit', agentloop.setup"));
            }
        }
        Ok(())
    }

    /// Runs the check on `commit`, which is checked out.
    async fn judge(&self, iteration: u32, commit: &str) -> Result<Tried> {
        let done = self.run(self.check, &enter(self.trial.path(), self.folder), self.timeout).await?;
        let exit_code = match done.status {
            Status::Exited(code) => Some(code),
            Status::Signaled(_) | Status::TimedOut | Status::Cancelled => None,
        };
        let ok = (exit_code != Some(UNJUDGED)).then_some(exit_code == Some(0));
        Ok(Tried { iteration, commit: commit.to_owned(), ok, exit_code, seconds: done.seconds })
    }

    /// Runs a command of the user in the worktree of the search; returns an error if the search is cancelled.
    async fn run(&self, command: &Check, cwd: &Path, timeout: Option<Seconds>) -> Result<process::Finished> {
        let spec = Spec {
            argv: command.argv.iter().map(Into::into).collect(),
            cwd: Some(cwd.to_owned()),
            env: vec![(process::CLONE_VAR.into(), Some(self.clone.clone().into()))],
            stdin: Stdin::Null,
            timeout: timeout.map(Seconds::duration),
            keep: KEEP,
            spool: None,
            mark: Some(Mark { run: self.run.to_string(), call: "bisect".to_owned() }),
        };
        let done = process::run(spec, self.cancel).await.context(format!("'{}' cannot be run", command.name))?;
        if done.status == Status::Cancelled { Err(Error::failed("the search was stopped")) } else { Ok(done) }
    }
}
