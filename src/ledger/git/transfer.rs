//! Runs to and from other repositories, by the user's own git: its credentials, its transports, its configuration.

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

/// Refs that one git command is given.
const AT_ONCE: usize = 500;

/// The runs whose work a push takes along; `refs` is `<local ref> <local id> <remote ref> <remote id>` a line
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
/// Fails with git's message if the remote refuses them.
pub fn push_logs(repo: &Repository, remote: &str, runs: &[RunId]) -> Result<()> {
    for some in runs.chunks(AT_ONCE) {
        let git = repo.git_to_remote("push").args(["--quiet", "--no-verify"]).path(remote);
        let output = git.args(some.iter().map(|run| format!("{LOCAL}{run}:{LOCAL}{run}"))).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let records = format!("the records of {}", count(some.len(), "run"));
            let error = Error::failed(format!("{records} could not be pushed to '{remote}'"));
            let line = said.lines().rev().find(|line| line.contains("rejected") || line.starts_with("fatal"));
            return Err(error
                .because(line.unwrap_or_else(|| said.trim()).trim().to_owned())
                .hint("'git agentloop sync' tries again; 'git config agentloop.pushNotes false' leaves them here"));
        }
    }
    Ok(())
}

/// What became of a sync.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Runs of which something new came.
    pub fetched: Vec<RunId>,
    /// Runs that went on elsewhere, and are at the same point here now.
    pub updated: Vec<RunId>,
    /// Runs of which something went.
    pub pushed: Vec<RunId>,
    /// Runs that went on in two places: both logs are kept, ours first.
    pub diverged: Vec<(RunId, String, String)>,
    /// Runs that were discarded here, and of which the remote has nothing newer: they stay so.
    pub discarded: Vec<RunId>,
    /// Refs that the remote did not take, and why.
    pub refused: Vec<(String, String)>,
    /// What a worktree here held when its run had gone on elsewhere, and where it is kept.
    pub kept: Vec<String>,
}

/// The remote that `name` means: itself, or the one that a plain `git fetch` takes.
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

/// Fetches runs from `remote`, pushes ours to it, and takes in what went on there.
///
/// # Errors
/// Fails if the remote cannot be reached, or if a run that continued there cannot be brought to that point here.
pub fn sync(repo: &Repository, remote: &str) -> Result<Synced> {
    let gix = repo.gix();
    let theirs = format!("{REMOTE}{remote}/");
    let before = logs(&gix, &theirs)?;
    let git = fetch(repo, remote).arg(format!("+{LOCAL}*:{theirs}*"));
    let git = git.arg(format!("+refs/heads/agentloop/*:refs/remotes/{remote}/agentloop/*"));
    reached(remote, &git.output()?)?;

    let (ours, mut there) = (logs(&gix, LOCAL)?, logs(&gix, &theirs)?);
    let mut synced = Synced::default();
    // What was here before was had back since.
    for (run, tip) in there.iter().filter(|(run, _)| !ours.contains_key(*run) && !before.contains_key(*run)) {
        if removal::knew(&gix, run, *tip)? {
            synced.discarded.push(run.clone());
        }
    }
    let again = synced.discarded.iter().filter_map(|run| there.remove_entry(run));
    let again = again.map(|(run, tip)| Change { name: format!("{theirs}{run}"), new: None, old: Expect::Is(tip) });
    // One that moved meanwhile is looked at by the next sync.
    let _ = RefMover::new(repo.common_dir().to_owned()).swap(&again.collect::<Vec<_>>())?;
    synced.fetched.extend(there.iter().filter(|(run, tip)| before.get(*run) != Some(*tip)).map(|(run, _)| run.clone()));
    let (mut outgoing, mut failed) = (Vec::new(), None);
    for (run, own) in &ours {
        let name = format!("{LOCAL}{run}");
        match there.get(run) {
            Some(tip) if tip == own => {}
            Some(tip) if branch::contains(&gix, *tip, *own) => {
                match follow(repo, remote, run, *own, *tip) {
                    Ok(kept) => synced.kept.extend(kept),
                    // One that cannot follow keeps no other from being exchanged.
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

/// Sends transcripts to `remote` and gets those that are there.
///
/// # Errors
/// Fails if the remote cannot be reached.
pub fn sync_output(repo: &Repository, remote: &str) -> Result<()> {
    const OUTPUT: &str = "refs/agentloop/run/*/output:refs/agentloop/run/*/output";
    let fetched = fetch(repo, remote).arg(OUTPUT).output()?;
    // 1: some ref here knows more than the one there.
    if fetched.status.code() != Some(1) {
        reached(remote, &fetched)?;
    }
    let git = repo.git_to_remote("push").args(["--quiet", "--no-verify"]);
    reached(remote, &git.path(remote).arg(OUTPUT).output()?)
}

/// A ref of a run that is to be pushed, as it stood when that was decided: a driver may go on meanwhile.
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

    /// What is known here of the same ref on the remote.
    fn copy(&self, remote: &str) -> String {
        if self.is_log() {
            format!("{REMOTE}{remote}/{}", self.run)
        } else {
            format!("refs/remotes/{remote}/agentloop/{}", self.run)
        }
    }
}

/// Pushes; refs that the remote does not take are noted. A remote that takes all or nothing gets branches alone.
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
    let mut heard = false;
    let mut known = Vec::new();
    for line in lines.lines() {
        let mut fields = line.split('\t');
        let (Some(flag), Some(refs), Some(summary)) = (fields.next(), fields.next(), fields.next()) else { continue };
        heard = true;
        let Some(one) = outgoing.iter().find(|one| one.spec() == refs) else { continue };
        if flag == "!" {
            synced.refused.push((one.name.clone(), summary.to_owned()));
        } else {
            synced.pushed.push(one.run.clone());
            known.push(Change { name: one.copy(remote), new: Some(one.id), old: Expect::Any });
        }
    }
    // What is there now is known without a fetch, as git has it for branches.
    let _ = RefMover::new(repo.common_dir().to_owned()).swap(&known)?;
    if heard { Ok(()) } else { reached(remote, &output) }
}

/// Brings a run that went on elsewhere to the same point here. What its worktree holds belongs to the point it was at:
/// it is kept on a rescue ref, and the worktree goes. From then on its log wants what others wrote: nothing in it is taken
/// on trust here any longer.
fn follow(repo: &Repository, remote: &str, run: &RunId, own: ObjectId, tip: ObjectId) -> Result<Vec<String>> {
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
    // `a/` is a start of the remote `a/b`'s refs too.
    let own = places.filter(|(run, place)| place.name.len() == prefix.len() + run.as_str().len());
    Ok(own.map(|(run, place)| (run, place.tip)).collect())
}

/// git's own words where the remote could not be worked with.
fn reached(remote: &str, output: &std::process::Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::failed(format!("git could not work with the remote '{remote}'"))
        .because(said)
        .hint(format!("'git ls-remote {remote}' shows whether it can be reached")))
}

/// A fetch of the refs that follow. Tags, refs that the remote deleted, and refs that the remote's configured refspec would
/// update along are left alone.
fn fetch(repo: &Repository, remote: &str) -> Git {
    let git = repo.git_to_remote("fetch").args(["--quiet", "--no-tags", "--no-prune", "--refmap="]);
    git.args(["--no-write-fetch-head", "--no-auto-maintenance"]).path(remote)
}
