//! Content of a run's branch, and the result of merging it, found without touching a ref, the index or a file.

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use serde::{Deserialize, Serialize};

use super::branch;
use super::command::{self, nul_separated};
use super::repository::Repository;
use crate::error::{Error, Result};
use crate::run::Run;
use crate::run::goal::RunId;

/// A file that differs between two commits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStat {
    /// Its path.
    pub path: String,
    /// Added lines; `None` if it is binary.
    pub added: Option<u64>,
    /// Removed lines; `None` if it is binary.
    pub removed: Option<u64>,
}

/// A merge that was tried in the object database only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialMerge {
    /// The tree of the merge, with conflict markers in files that conflict.
    pub tree: String,
    /// Paths that conflict.
    pub conflicts: Vec<String>,
}

/// The ref or commit that holds a run's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchTip {
    /// Its name in git commands for a person: the branch, a remote-tracking branch, or a commit.
    pub name: String,
    /// The full name of the ref, or the commit, as we pass it to git.
    pub full: String,
    /// The commit.
    pub commit: String,
}

/// Returns the run's branch, local or fetched; if neither exists, `known`, the newest commit of its record.
///
/// # Errors
/// Fails if nothing of the run is in this clone.
pub fn branch_tip(repo: &Repository, run: &RunId, known: &str) -> Result<BranchTip> {
    if let Some(tip) = standing(repo, run) {
        return Ok(tip);
    }
    if Repository::id(known).is_ok_and(|id| repo.gix().has_object(id)) {
        return Ok(BranchTip { name: known.to_owned(), full: known.to_owned(), commit: known.to_owned() });
    }
    Err(Error::failed(format!("the commits of {run} are not in this clone"))
        .hint(format!("fetch its branch: git fetch <remote> agentloop/{run}:agentloop/{run}")))
}

/// Finds the run's branch, local or fetched.
#[must_use]
pub fn standing(repo: &Repository, run: &RunId) -> Option<BranchTip> {
    let gix = repo.gix();
    let local = std::iter::once((branch::name(run), format!("agentloop/{run}")));
    let fetched = gix.remote_names().into_iter().map(|remote| {
        let name = format!("{}/agentloop/{run}", remote.to_str_lossy());
        (format!("refs/remotes/{name}"), name)
    });
    for (full, name) in local.chain(fetched) {
        let found = gix.try_find_reference(full.as_str()).ok().flatten();
        if let Some(id) = found.and_then(|reference| reference.try_id().map(gix::Id::detach)) {
            // gitrevisions(7): a tag of that name, and a ref directly below `refs/`, take precedence over a branch.
            let is_taken =
                |prefix| gix.try_find_reference(format!("{prefix}{name}").as_str()).is_ok_and(|found| found.is_some());
            let is_ambiguous = ["refs/", "refs/tags/"].into_iter().any(is_taken);
            let name = if is_ambiguous { full.clone() } else { name };
            return Some(BranchTip { name, full, commit: id.to_string() });
        }
    }
    None
}

/// Returns the commit that the work up to `tip` started from: the run's base, or the new base of a branch that was rebased.
pub fn started_from(repo: &Repository, id: &RunId, tip: &str, run: &Run) -> Result<String> {
    if run.tip.commit == tip {
        return Ok(run.base.to_string());
    }
    let gix = repo.gix();
    let start = branch::start(&gix, Repository::id(tip)?, id)?;
    Ok(start
        .and_then(|start| start.parent_ids().next().map(|base| base.to_string()))
        .unwrap_or_else(|| run.base.to_string()))
}

/// Reports whether two commits have different trees.
pub fn differ(repo: &Repository, one: &str, other: &str) -> Result<bool> {
    let tree = |commit: &str| branch::tree_of(&repo.gix(), Repository::id(commit)?);
    Ok(tree(one)? != tree(other)?)
}

/// Lists the files that differ between two commits, in git's order.
pub fn stat(repo: &Repository, from: &str, to: &str) -> Result<Vec<FileStat>> {
    let git = repo.git("diff-tree").args(["-r", "--numstat", "--no-renames", "--ignore-submodules=none"]);
    let records = git.revision(from).revision(to).records()?;
    let files = records.iter().filter_map(|record| {
        let mut fields = record.splitn(3, |byte| *byte == b'\t');
        let number = |field: Option<&[u8]>| field.and_then(|text| text.to_str().ok()?.parse().ok());
        let (added, removed) = (number(fields.next()), number(fields.next()));
        Some(FileStat { path: fields.next()?.to_str_lossy().into_owned(), added, removed })
    });
    Ok(files.collect())
}

/// Merges `theirs` into `ours` in the object database (git-merge-tree(1)).
///
/// # Errors
/// Fails if the two have no common ancestor.
pub fn try_merge(repo: &Repository, ours: &str, theirs: &str) -> Result<TrialMerge> {
    let git = repo.git("merge-tree").args(["--write-tree", "--name-only", "--no-messages", "-z"]);
    let output = git.id(Repository::id(ours)?).id(Repository::id(theirs)?).output()?;
    // 0 is a clean merge, 1 one with conflicts; other codes are failures.
    if !matches!(output.status.code(), Some(0 | 1)) {
        let error = command::failure("git merge-tree", output.status, &String::from_utf8_lossy(&output.stderr));
        return Err(error.hint("a shallow clone may lack the commit that both grew from: git fetch --unshallow"));
    }
    let mut words = nul_separated(&output.stdout).map(|word| word.to_str_lossy().into_owned());
    let tree = words.next().unwrap_or_default();
    Ok(TrialMerge { tree, conflicts: words.collect() })
}

/// Lists abbreviated id and message of the newest `limit` commits along the first parents from `from`, exclusive, to `to`.
pub fn commits(repo: &Repository, from: &str, to: &str, limit: usize) -> Result<Vec<(String, String)>> {
    let git = repo.git("log").args(["--first-parent", "--format=%h %B", &format!("-{limit}")]);
    let records = git.revision(format!("{from}..{to}")).records()?;
    let commits = records.iter().map(|commit| commit.to_str_lossy().trim().to_owned());
    Ok(commits.filter_map(|commit| commit.split_once(' ').map(|(name, text)| (name.into(), text.into()))).collect())
}

/// Returns the commit of the user's HEAD, and its branch if it is on one.
///
/// # Errors
/// Fails if there is no commit yet.
pub fn head(repo: &Repository) -> Result<(String, Option<String>)> {
    let commit = repo.resolve_base(None)?;
    let name = repo.gix().head_name().ok().flatten().map(|name| name.shorten().to_str_lossy().into_owned());
    Ok((commit, name))
}

/// Reports whether `commit` is in the history of `tip`.
///
/// # Errors
/// Fails if one of them is no object id.
pub fn is_reachable(repo: &Repository, commit: &str, tip: &str) -> Result<bool> {
    let (commit, tip): (ObjectId, ObjectId) = (Repository::id(commit)?, Repository::id(tip)?);
    Ok(branch::contains(&repo.gix(), tip, commit))
}

/// Returns the newest common ancestor of two commits.
///
/// # Errors
/// Fails if one of them is no object id.
pub fn merge_base(repo: &Repository, one: &str, other: &str) -> Result<Option<String>> {
    let (one, other) = (Repository::id(one)?, Repository::id(other)?);
    Ok(repo.gix().merge_base(one, other).ok().flatten().map(|base| base.to_string()))
}
