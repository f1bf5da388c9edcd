//! A merge or squash that is about to be committed: the run whose work it takes, and its message.

use std::path::Path;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::branch;
use super::objects::parse_id;
use super::repository::Repository;
use crate::error::{Context as _, Result};
use crate::run::goal::RunId;
use crate::run::message::{MERGED_TRAILER, RUN_TRAILER, trailer};

/// A run whose work is merged, and the commit that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The run.
    pub run: RunId,
    /// The newest of its commits that is merged.
    pub tip: ObjectId,
}

/// Lists the runs that a merge under way takes.
#[must_use]
pub fn merging(repo: &Repository) -> Vec<Taken> {
    let gix = repo.gix();
    // git-merge(1): the commits being merged, one in each line.
    let heads = std::fs::read_to_string(repo.git_dir().join("MERGE_HEAD")).unwrap_or_default();
    let ids = heads.lines().filter_map(|line| parse_id(&gix, line.trim().as_bytes()));
    ids.filter_map(|tip| Some(Taken { run: run_of(&gix, tip)?, tip })).collect()
}

/// Finds the run that a squash takes, by the commits that git lists in the drafted message, newest first.
pub fn squashed(repo: &Repository, message: &Path) -> Result<Option<Taken>> {
    let text = std::fs::read(message).context(format!("'{}' cannot be read", message.display()))?;
    let gix = repo.gix();
    let newest = text.lines().find_map(|line| parse_id(&gix, line.strip_prefix(b"commit ")?.trim()));
    Ok(newest.and_then(|tip| Some(Taken { run: run_of(&gix, tip)?, tip })))
}

/// Returns the run whose work `commit` is, by its trailer or because the run's branch is at it.
fn run_of(gix: &gix::Repository, commit: ObjectId) -> Option<RunId> {
    if let Some(run) = named_run(gix, commit) {
        return Some(run);
    }
    let refs = gix.references().ok()?;
    let mut prefixes = vec!["refs/heads/agentloop/".to_owned()];
    let remotes = gix.remote_names().into_iter();
    prefixes.extend(remotes.map(|name| format!("refs/remotes/{}/agentloop/", name.to_str_lossy())));
    prefixes.iter().find_map(|prefix| {
        let branches = refs.prefixed(prefix.as_str()).ok()?.filter_map(std::result::Result::ok);
        let mut here = branches.filter(|reference| reference.try_id().is_some_and(|id| id == commit));
        here.find_map(|reference| reference.name().as_bstr().to_str().ok()?.strip_prefix(prefix.as_str())?.parse().ok())
    })
}

/// Returns the run that `commit` names in its trailer.
pub(super) fn named_run(gix: &gix::Repository, commit: ObjectId) -> Option<RunId> {
    let commit = gix.find_commit(commit).ok()?;
    let message = commit.message_raw_sloppy().to_str_lossy();
    trailer(&message, RUN_TRAILER)?.trim().parse().ok()
}

/// Adds missing trailers to the message at `file`: the run, and with `squash` the commit.
pub fn name_in(repo: &Repository, file: &Path, taken: &Taken, squash: bool) -> Result<()> {
    let file = file.canonicalize().context(format!("'{}' cannot be found", file.display()))?;
    // A drafted message may lack the newline at its end; git would then append the trailer to its last line.
    let text = std::fs::read(&file).context("the message cannot be read")?;
    if !text.ends_with(b"\n") {
        std::fs::write(&file, [text.as_slice(), b"\n"].concat()).context("the message cannot be written")?;
    }
    let git = repo.git("interpret-trailers").args(["--in-place", "--no-divider", "--where", "end"]);
    let git = git.args(["--if-exists", "addIfDifferent", "--if-missing", "add"]);
    let mut git = git.arg("--trailer").arg(format!("{RUN_TRAILER}={}", taken.run));
    if squash {
        git = git.arg("--trailer").arg(format!("{MERGED_TRAILER}={}", taken.tip));
    }
    git.path(file).run().map(|_| ())
}

/// Lists the runs that are named by commits in the history of `tip` but of none of `not`: the runs' own commits, and those
/// that merge their work.
pub(super) fn runs_between(repo: &Repository, tip: &str, not: &[String]) -> Result<Vec<RunId>> {
    let git = repo.git("log").args(["--format=%(trailers:key=Agentloop-Run,valueonly)", "--grep"]);
    let git = git.arg(format!("^{RUN_TRAILER}: ")).arg(tip).arg("--not").args(not);
    let printed = git.paths([""; 0]).run()?;
    let mut runs: Vec<RunId> = printed.lines().filter_map(|line| line.to_str().ok()?.trim().parse().ok()).collect();
    runs.sort();
    runs.dedup();
    Ok(runs)
}

/// Returns the run whose branch `name`, a full ref name, is.
pub(super) fn run_of_branch(name: &str) -> Option<RunId> {
    let run = name.strip_prefix("refs/heads/agentloop/")?.parse::<RunId>().ok()?;
    (branch::name(&run) == name).then_some(run)
}
