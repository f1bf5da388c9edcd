//! Merges a run's work into the user's branch with the user's own git: their hooks, editor, signature and settings. Nothing
//! here resolves conflicts or forces anything; an integrator's resolution comes in by fast-forward.

use gix::bstr::ByteSlice as _;

use super::command::Git;
use super::repository::Repository;
use super::run_dir::run_dir;
use super::{branch, preview, worktree};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// Method of a merge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// One merge commit with the run's commits behind it, whatever `merge.ff` is.
    #[default]
    Merge,
    /// A fast-forward if possible.
    FastForward,
    /// One commit of all changes.
    Squash,
    /// A copy of each commit that changed something.
    Rebase,
}

/// A merge to make.
#[derive(Clone, Copy, Debug)]
pub struct Take<'a> {
    /// Method of the merge.
    pub way: Way,
    /// Full name of the ref to merge, or the commit: a tag may have the branch's short name.
    pub name: &'a str,
    /// The commit to merge.
    pub commit: &'a str,
    /// The message of the new commit.
    pub message: &'a str,
    /// True if the user's editor shows the message first.
    pub edit: bool,
}

/// Makes the merge and returns git's exit status.
///
/// # Errors
/// Fails if staged changes would get into the commit.
pub fn take(repo: &Repository, run: &RunId, take: &Take<'_>) -> Result<i32> {
    let edit = if take.edit { "--edit" } else { "--no-edit" };
    match take.way {
        Way::Merge | Way::FastForward => {
            let mut git = Git::as_user("merge").arg(if take.way == Way::Merge { "--no-ff" } else { "--ff" });
            // git warns that it does not use the message if it makes no commit.
            if !is_forward(repo, take) {
                git = git.args([edit, "-m", take.message]);
            }
            git.arg(take.name).status()
        }
        Way::Squash => squash(repo, take, edit),
        Way::Rebase => {
            refuse_staged(repo, take)?;
            let mut own = branch::own_commits(&repo.gix(), run, Repository::id(take.commit)?)?;
            if own.is_empty() {
                return Ok(0);
            }
            own.reverse();
            // The first parent of a checkpoint is the previous checkpoint; the difference between them is copied.
            let git = Git::as_user("cherry-pick").args(["--keep-redundant-commits", "-m", "1"]);
            git.args(own.iter().map(ToString::to_string)).status()
        }
    }
}

/// Reports whether git will only move the user's branch forward.
fn is_forward(repo: &Repository, take: &Take<'_>) -> bool {
    take.way == Way::FastForward
        && preview::head(repo).is_ok_and(|(head, _)| preview::is_reachable(repo, &head, take.commit).unwrap_or(false))
}

/// The user's checkout and the result of merging a run's work into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The user's branch, if HEAD is on one.
    pub branch: Option<String>,
    /// The user's commit.
    pub head: String,
    /// Its tree.
    pub tree: String,
    /// The files that conflict.
    pub conflicts: Vec<String>,
}

/// Tries to merge `commit` into the user's HEAD, without touching any file.
///
/// # Errors
/// Fails if the checkout has uncommitted changes in files that the merge would change: git would refuse it in the end.
pub fn meet(repo: &Repository, commit: &str) -> Result<Meeting> {
    let (head, branch) = preview::head(repo)?;
    let trial = preview::try_merge(repo, &head, commit)?;
    let tree = branch::tree_of(&repo.gix(), Repository::id(&head)?)?.to_string();
    if !trial.conflicts.is_empty() {
        refuse_under_way(repo)?;
        let git = repo.git("diff-tree").args(["-r", "--name-only", "--no-renames", "--ignore-submodules=none"]);
        let changed = git.revision(&head).revision(&trial.tree).records()?;
        let edited = repo.git("status").changed_paths("all", "all")?;
        let both = edited.iter().filter(|path| changed.contains(path));
        let both: Vec<String> = both.map(|path| path.to_str_lossy().into_owned()).collect();
        if !both.is_empty() {
            return Err(Error::usage(format!(
                "your checkout holds uncommitted changes to what the merge would change: {}",
                both.join(", ")
            ))
            .hint("commit them, or 'git stash' them, first"));
        }
    }
    Ok(Meeting { branch, head, tree, conflicts: trial.conflicts })
}

fn refuse_under_way(repo: &Repository) -> Result<()> {
    match worktree::under_way(repo.git_dir()).next() {
        None => Ok(()),
        Some(verb) => Err(Error::usage(format!("a {verb} is under way in your checkout"))
            .hint(format!("conclude it, or 'git {verb} --abort'"))),
    }
}

/// Commits `tree`, the resolution of the conflict of `take` with `met`, as one commit, and fast-forwards the user's branch
/// to it with their git.
///
/// # Errors
/// Fails if a hook of the user's refuses the message, if the branch has moved since, or if git refuses the merge.
pub fn take_resolved(repo: &Repository, run: &RunId, take: &Take<'_>, met: &Meeting, tree: &str) -> Result<()> {
    let commit = |message: &str| {
        let mut git = Git::as_user("commit-tree").args(["-m", message.trim_end(), "-p", &met.head]);
        if take.way != Way::Squash {
            git = git.args(["-p", take.commit]);
        }
        if repo.gix().config_snapshot().boolean("commit.gpgSign").unwrap_or_default() {
            git = git.arg("-S");
        }
        git.identity(&repo.identity()).arg(tree).word()
    };
    let commit = match run_message_hooks(repo, run, take)? {
        Ok(message) => commit(&message)?,
        Err(hook) => {
            let commit = commit(take.message)?;
            return Err(Error::failed(format!("your {hook} hook refuses the message of the resolved merge"))
                .hint(format!("to take it and mend the message: git merge --ff-only {commit} && git commit --amend")));
        }
    };
    let (head, branch) = preview::head(repo)?;
    if (&head, &branch) != (&met.head, &met.branch) {
        return Err(Error::failed("your checkout is not where it was: HEAD has moved meanwhile")
            .hint(format!("'git merge {commit}' merges what was resolved into what you have now")));
    }
    let short = take.name.strip_prefix("refs/heads/").unwrap_or(take.name);
    let git = Git::as_user("merge").env("GIT_REFLOG_ACTION", format!("merge {short}"));
    match git.args(["--ff-only", &commit]).status()? {
        0 => Ok(()),
        _ => Err(Error::failed("git did not take the resolved merge, and says why above")
            .hint(format!("once that is mended: git merge {commit}"))),
    }
}

/// Runs the user's hooks that git runs on the message of a merge or a squash (githooks(5)). Returns the message as they
/// leave it, or the hook that refuses it.
fn run_message_hooks(
    repo: &Repository,
    run: &RunId,
    take: &Take<'_>,
) -> Result<std::result::Result<String, &'static str>> {
    let file = run_dir(repo.common_dir(), run).join("MERGE_MSG");
    let failed = "the merge's message cannot be drafted";
    std::fs::write(&file, take.message.trim_end().to_owned() + "\n").context(failed)?;
    let source = if take.way == Way::Squash { "squash" } else { "merge" };
    let mut refused = None;
    for (hook, source) in [("prepare-commit-msg", Some(source)), ("commit-msg", None)] {
        let git = Git::as_user("hook").env("GIT_EDITOR", ":").args(["run", "--ignore-missing", hook, "--"]);
        if git.arg(&file).args(source).status()? != 0 {
            refused = Some(hook);
            break;
        }
    }
    let message = std::fs::read_to_string(&file).context(failed);
    let _ = std::fs::remove_file(&file);
    Ok(match refused {
        Some(hook) => Err(hook),
        None => {
            Ok(message?).and_then(|message| if message.trim().is_empty() { Err("commit-msg") } else { Ok(message) })
        }
    })
}

fn squash(repo: &Repository, take: &Take<'_>, edit: &str) -> Result<i32> {
    refuse_staged(repo, take)?;
    let code = Git::as_user("merge").args(["--squash", take.name]).status()?;
    // git offers this text with the commit, now or once conflicts are resolved: ours replaces its list of commits.
    let offered = repo.git_dir().join("SQUASH_MSG");
    if offered.exists() {
        std::fs::write(&offered, take.message).context("the commit's message cannot be drafted")?;
    }
    if code != 0 || !holds_staged(repo)? {
        return Ok(code);
    }
    Git::as_user("commit").arg(edit).status()
}

/// git lets a squash or cherry-pick start with staged changes in other files, which would then be committed too.
fn refuse_staged(repo: &Repository, take: &Take<'_>) -> Result<()> {
    refuse_under_way(repo)?;
    if !holds_staged(repo)? {
        return Ok(());
    }
    // git-merge(1), --squash: git leaves this file until the squash is committed. One that is killed has staged all before.
    if repo.git_dir().join("SQUASH_MSG").exists() || is_squash_staged(repo, take)? {
        return Err(Error::usage("your index holds a squash that is not committed yet")
            .hint("'git commit' concludes it; to take it back: git reset --merge"));
    }
    Err(Error::usage("your index holds staged changes: they would be committed along")
        .hint("commit them, or 'git stash' them, first"))
}

/// Reports whether the user's index holds what merging `take` would make.
fn is_squash_staged(repo: &Repository, take: &Take<'_>) -> Result<bool> {
    let (head, _) = preview::head(repo)?;
    let trial = preview::try_merge(repo, &head, take.commit)?;
    Ok(trial.conflicts.is_empty() && index_holds(repo, &trial.tree)?)
}

/// Reports whether the user's index differs from HEAD.
fn holds_staged(repo: &Repository) -> Result<bool> {
    index_holds(repo, "HEAD").map(|is_clean| !is_clean)
}

/// Reports whether the user's index holds the files of `tree`.
fn index_holds(repo: &Repository, tree: &str) -> Result<bool> {
    let git = repo.git("diff-index").only_reads().args(["--cached", "--quiet", "--ignore-submodules=none"]);
    git.revision(tree).succeeds()
}
