//! Fetches and pushes runs with the user's own git: its credentials, transports and configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::command::Git;
use super::lock::RunLock;
use super::places::{self, LOCAL, REMOTE};
use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Repository;
use super::{GitLedger, branch, removal, taken, union};
use crate::error::{Error, Result};
use crate::host::authority::Authority;
use crate::run::goal::RunId;
use crate::run::text::count;

/// Number of refs that one git command gets.
const AT_ONCE: usize = 500;

/// Lists the runs whose work a push includes; `refs` has a line `<local ref> <local id> <remote ref> <remote id>` each
/// (githooks(5), pre-push).
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
            // Commits on the remote were pushed with their records. If we do not have its commit, our remote-tracking refs
            // tell.
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
/// Fails with git's message if the remote refuses them.
pub fn push_logs(repo: &Repository, remote: &str, runs: &[RunId]) -> Result<()> {
    for some in runs.chunks(AT_ONCE) {
        let git = repo.git_to_remote("push").args(["--quiet", "--no-verify"]).path(remote);
        let output = git.args(some.iter().map(|run| format!("{LOCAL}{run}:{LOCAL}{run}"))).output()?;
        if !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            let records = format!("the records of {}", count(some.len(), "run"));
            let error = Error::failed(format!("{records} could not be pushed to '{remote}'"));
            let line = stderr.lines().rev().find(|line| line.contains("rejected") || line.starts_with("fatal"));
            return Err(error
                .because(line.unwrap_or_else(|| stderr.trim()).trim().to_owned())
                .hint("'git agentloop sync' tries again; 'git config agentloop.pushNotes false' leaves them here"));
        }
    }
    Ok(())
}

/// Result of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Runs of which something new was fetched.
    pub fetched: Vec<RunId>,
    /// Runs that continued elsewhere and were brought to the same point here.
    pub updated: Vec<RunId>,
    /// Runs of which something was pushed.
    pub pushed: Vec<RunId>,
    /// Runs that continued in two places, with both logs, ours first.
    pub diverged: Vec<(RunId, String, String)>,
    /// Runs that were discarded here and of which the remote has nothing newer: they stay discarded.
    pub discarded: Vec<RunId>,
    /// Refs that the remote refused, with its reason.
    pub refused: Vec<(String, String)>,
    /// Messages on uncommitted work in worktrees here of runs that continued elsewhere, and where it is kept.
    pub kept: Vec<String>,
}

/// Returns the remote `name`, or the default remote of `git fetch`.
///
/// # Errors
/// Fails if there is no remote of that name, or none at all.
pub fn remote(repo: &Repository, name: Option<&str>) -> Result<String> {
    let gix = repo.gix();
    let names: Vec<String> = gix.remote_names().iter().map(|name| name.to_str_lossy().into_owned()).collect();
    let known = if names.is_empty() { String::new() } else { format!("there is {}; ", names.join(", ")) };
    let hint = format!("{known}'git remote add NAME URL' adds one");
    match name {
        Some(name) if names.iter().any(|known| known == name) => Ok(name.to_owned()),
        Some(name) => Err(Error::usage(format!("there is no remote '{name}'")).hint(hint)),
        None => {
            let default =
                gix.remote_default_name(gix::remote::Direction::Fetch).map(|name| name.to_str_lossy().into_owned());
            let default = default.filter(|name| names.contains(name));
            let only = || (names.len() == 1).then(|| names[0].clone());
            let what = if names.is_empty() { "there is no remote" } else { "which remote is not clear" };
            default.or_else(only).ok_or_else(|| Error::usage(what).hint(hint))
        }
    }
}

/// Fetches runs from `remote`, pushes ours to it, and updates runs that continued there.
///
/// # Errors
/// Fails if the remote cannot be reached, or if a run that continued there cannot be brought to that point here.
pub fn sync(repo: &Repository, remote: &str) -> Result<Synced> {
    let gix = repo.gix();
    let theirs = format!("{REMOTE}{remote}/");
    let before = logs(&gix, &theirs)?;
    let git = fetch(repo, remote).arg(format!("+{LOCAL}*:{theirs}*"));
    let git = git.arg(format!("+refs/heads/agentloop/*:refs/remotes/{remote}/agentloop/*"));
    check_reached(remote, &git.output()?)?;

    let (ours, mut there) = (logs(&gix, LOCAL)?, logs(&gix, &theirs)?);
    let mut synced = Synced::default();
    // A fetched log that was here before this fetch was restored since the discard.
    for (run, tip) in there.iter().filter(|(run, _)| !ours.contains_key(*run) && !before.contains_key(*run)) {
        if removal::was_discarded(&gix, run, *tip)? {
            synced.discarded.push(run.clone());
        }
    }
    let again = synced.discarded.iter().filter_map(|run| there.remove_entry(run));
    let again = again.map(|(run, tip)| Change { name: format!("{theirs}{run}"), new: None, old: Expect::Is(tip) });
    // A ref that moved meanwhile is left to the next sync.
    let _ = RefMover::new(repo.common_dir().to_owned()).swap(&again.collect::<Vec<_>>())?;
    synced.fetched.extend(there.iter().filter(|(run, tip)| before.get(*run) != Some(*tip)).map(|(run, _)| run.clone()));
    let (mut outgoing, mut failed) = (Vec::new(), None);
    for (run, own) in &ours {
        let name = format!("{LOCAL}{run}");
        match there.get(run) {
            Some(tip) if tip == own => {}
            Some(tip) if branch::contains(&gix, *tip, *own) => {
                match update_run(repo, remote, run, *own, *tip) {
                    Ok(kept) => synced.kept.extend(kept),
                    // A run that cannot be updated does not stop the others.
                    Err(error) => {
                        failed.get_or_insert(error);
                        continue;
                    }
                }
                synced.updated.push(run.clone());
            }
            Some(tip) if !branch::contains(&gix, *own, *tip) => {
                synced.diverged.push((run.clone(), name, format!("{theirs}{run}")));
                continue;
            }
            _ => outgoing.push(Outgoing { run, id: *own, name }),
        }
        let full = branch::name(run);
        let Some(id) = branch::tip(&gix, &full) else { continue };
        let branch = Outgoing { run, id, name: full };
        let known = branch::tip(&gix, &branch.copy(remote));
        if known.is_none_or(|known| known != id && !branch::contains(&gix, known, id)) {
            outgoing.push(branch);
        }
    }
    for some in outgoing.chunks(AT_ONCE) {
        push(repo, remote, some, &mut synced)?;
    }
    synced.pushed.dedup();
    failed.map_or(Ok(synced), Err)
}

/// Pushes transcripts to `remote` and fetches those that it has.
///
/// # Errors
/// Fails if the remote cannot be reached.
pub fn sync_output(repo: &Repository, remote: &str) -> Result<()> {
    const OUTPUT: &str = "refs/agentloop/run/*/output:refs/agentloop/run/*/output";
    let fetched = fetch(repo, remote).arg(OUTPUT).output()?;
    // 1: some ref here is ahead of the remote's.
    if fetched.status.code() != Some(1) {
        check_reached(remote, &fetched)?;
    }
    let git = repo.git_to_remote("push").args(["--quiet", "--no-verify"]);
    check_reached(remote, &git.path(remote).arg(OUTPUT).output()?)
}

/// A ref of a run to push, with its value when that was decided: a driver may move it meanwhile.
struct Outgoing<'a> {
    run: &'a RunId,
    id: ObjectId,
    name: String,
}

impl Outgoing<'_> {
    fn is_log(&self) -> bool {
        self.name.starts_with(LOCAL)
    }

    fn spec(&self) -> String {
        format!("{}:{}", self.id, self.name)
    }

    /// Returns the remote-tracking ref of it.
    fn copy(&self, remote: &str) -> String {
        if self.is_log() {
            format!("{REMOTE}{remote}/{}", self.run)
        } else {
            format!("refs/remotes/{remote}/agentloop/{}", self.run)
        }
    }
}

/// Pushes, and reports refused refs. To a remote that accepts all refs or none, only branches are pushed.
fn push(repo: &Repository, remote: &str, outgoing: &[Outgoing<'_>], synced: &mut Synced) -> Result<()> {
    let try_these = |specs: Vec<String>| -> Result<std::process::Output> {
        let git = repo.git_to_remote("push").args(["--porcelain", "--no-verify"]);
        git.path(remote).args(specs).output()
    };
    let mut output = try_these(outgoing.iter().map(Outgoing::spec).collect())?;
    let mut lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let branches: Vec<String> = outgoing.iter().filter(|one| !one.is_log()).map(Outgoing::spec).collect();
    let some_taken = lines.lines().any(|line| line.contains('\t') && !line.starts_with('!'));
    if !output.status.success() && !some_taken && !branches.is_empty() && branches.len() < outgoing.len() {
        output = try_these(branches)?;
        let logs: Vec<&str> = lines.lines().filter(|line| line.contains(LOCAL)).collect();
        lines = logs.join("\n") + "\n" + &String::from_utf8_lossy(&output.stdout);
    }
    // git-push(1), --porcelain: `<flag> TAB <from>:<to> TAB <summary>`.
    let mut understood = false;
    let mut known = Vec::new();
    for line in lines.lines() {
        let mut fields = line.split('\t');
        let (Some(flag), Some(refs), Some(summary)) = (fields.next(), fields.next(), fields.next()) else { continue };
        understood = true;
        let Some(one) = outgoing.iter().find(|one| one.spec() == refs) else { continue };
        if flag == "!" {
            synced.refused.push((one.name.clone(), summary.to_owned()));
        } else {
            synced.pushed.push(one.run.clone());
            known.push(Change { name: one.copy(remote), new: Some(one.id), old: Expect::Any });
        }
    }
    // The new values are known without a fetch, as for git's own remote-tracking branches.
    let _ = RefMover::new(repo.common_dir().to_owned()).swap(&known)?;
    if understood { Ok(()) } else { check_reached(remote, &output) }
}

/// Brings a run that continued elsewhere to the same point here. Uncommitted work in its worktree belongs to the old point:
/// it is put on a rescue ref, and the worktree is removed. From then on, others' commands in its log need the user's
/// approval here.
fn update_run(repo: &Repository, remote: &str, run: &RunId, own: ObjectId, tip: ObjectId) -> Result<Vec<String>> {
    let Some(_lock) = RunLock::acquire(repo.common_dir(), run)? else {
        return Err(super::lock::already_driven(repo.common_dir(), run));
    };
    let gix = repo.gix();
    let mut changes = vec![Change { name: format!("{LOCAL}{run}"), new: Some(tip), old: Expect::Is(own) }];
    let (full, there) = (branch::name(run), format!("refs/remotes/{remote}/agentloop/{run}"));
    if let (Some(here), Some(there)) = (branch::tip(&gix, &full), branch::tip(&gix, &there))
        && here != there
        && branch::contains(&gix, there, here)
    {
        removal::refuse_checked_out(repo, run)?;
        changes.push(Change { name: full, new: Some(there), old: Expect::Is(here) });
    }
    if let Some(kept) = GitLedger::kept(repo, run) {
        Authority::forget(&kept)?;
    }
    repo.forget(run)?;
    let mover = Arc::new(RefMover::new(repo.common_dir().to_owned()).synced(true));
    let kept = removal::drop_worktrees(repo, &mover, run)?.1;
    match mover.swap(&changes)? {
        Swap::Done => Ok(kept),
        Swap::Lost => Err(Error::failed(format!("somebody moved a ref of {run} meanwhile")).hint("sync again")),
    }
}

fn logs(gix: &gix::Repository, prefix: &str) -> Result<BTreeMap<RunId, ObjectId>> {
    let places = places::places(gix, prefix)?.into_iter();
    // The prefix for a remote `a` also matches refs of a remote `a/b`.
    let own = places.filter(|(run, place)| place.name.len() == prefix.len() + run.as_str().len());
    Ok(own.map(|(run, place)| (run, place.tip)).collect())
}

/// Fails with git's message if the remote could not be used.
fn check_reached(remote: &str, output: &std::process::Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::failed(format!("git could not work with the remote '{remote}'"))
        .because(stderr)
        .hint(format!("'git ls-remote {remote}' shows whether it can be reached")))
}

/// Builds a fetch of the refs that follow. Tags, refs that the remote deleted, and refs of the configured refspec are not
/// changed.
fn fetch(repo: &Repository, remote: &str) -> Git {
    let git = repo.git_to_remote("fetch").args(["--quiet", "--no-tags", "--no-prune", "--refmap="]);
    git.args(["--no-write-fetch-head", "--no-auto-maintenance"]).path(remote)
}
