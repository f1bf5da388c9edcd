//! A run's work into the user's branch, by the user's own git: their hooks, their editor, their signature, their
//! settings. Nothing here resolves or forces anything; what an integrator resolved elsewhere comes in by fast-forward.

use gix::bstr::ByteSlice as _;

use super::command::Git;
use super::repository::Repository;
use super::run_dir::run_dir;
use super::{branch, preview, worktree};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// By which of git's means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// One merge commit, with the run's commits behind it, whatever `merge.ff` says.
    #[default]
    Merge,
    /// A fast-forward where one is possible.
    FastForward,
    /// One commit of everything.
    Squash,
    /// A copy of each commit that changed something.
    Rebase,
}

/// What to take, and how.
#[derive(Clone, Copy, Debug)]
pub struct Take<'a> {
    /// By which of git's means.
    pub way: Way,
    /// The full name of the ref that git is to take, or the commit: a tag may bear a branch's short name.
    pub name: &'a str,
    /// The commit to take.
    pub commit: &'a str,
    /// The message of the commit that takes it.
    pub message: &'a str,
    /// Whether the user's editor shows the message first.
    pub edit: bool,
}

/// Takes it; what git exits with.
///
/// # Errors
/// Fails if staged changes would get into the commit.
pub fn take(repo: &Repository, run: &RunId, take: &Take<'_>) -> Result<i32> {
    let edit = if take.edit { "--edit" } else { "--no-edit" };
    match take.way {
        Way::Merge | Way::FastForward => {
            let mut git = Git::as_user("merge").arg(if take.way == Way::Merge { "--no-ff" } else { "--ff" });
            // git says of a message that it has no use for it where no commit is made.
            if !is_forward(repo, take) {
                git = git.args([edit, "-m", take.message]);
            }
            git.arg(take.name).status()
        }
        Way::Squash => squash(repo, take, edit),
        Way::Rebase => {
            refuse_staged(repo)?;
            let mut own = branch::own_commits(&repo.gix(), run, Repository::id(take.commit)?)?;
            if own.is_empty() {
                return Ok(0);
            }
            own.reverse();
            // A checkpoint's first parent is the checkpoint before it: what it adds to that is what is copied.
            let git = Git::as_user("cherry-pick").args(["--keep-redundant-commits", "-m", "1"]);
            git.args(own.iter().map(ToString::to_string)).status()
        }
    }
}

/// Whether git only moves the user's branch forward to what is taken.
fn is_forward(repo: &Repository, take: &Take<'_>) -> bool {
    take.way == Way::FastForward
        && preview::head(repo).is_ok_and(|(head, _)| preview::is_reachable(repo, &head, take.commit).unwrap_or(false))
}

/// The user's checkout and what a run's work would do to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    /// The user's branch, where HEAD is on one.
    pub branch: Option<String>,
    /// The user's commit.
    pub head: String,
    /// Its tree.
    pub tree: String,
    /// The files that conflict.
    pub conflicts: Vec<String>,
}

/// Tries to merge `commit` into what the user has checked out; nothing is touched.
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

/// Takes `take` with `tree`, what its conflict with `met` was resolved to: as one commit, to which the user's branch is
/// fast-forwarded by their git.
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
    let commit = match hear_hooks(repo, run, take)? {
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

/// The message as the user's hooks leave it that git calls with the message of a merge or a squash, in the place of git
/// (githooks(5)); or the hook that refuses it.
fn hear_hooks(repo: &Repository, run: &RunId, take: &Take<'_>) -> Result<std::result::Result<String, &'static str>> {
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
    refuse_staged(repo)?;
    let code = Git::as_user("merge").args(["--squash", take.name]).status()?;
    // The words that git offers with the commit, now or once conflicts are resolved: ours instead of its list.
    let offered = repo.git_dir().join("SQUASH_MSG");
    if offered.exists() {
        std::fs::write(&offered, take.message).context("the commit's message cannot be drafted")?;
    }
    if code != 0 || !holds_staged(repo)? {
        return Ok(code);
    }
    Git::as_user("commit").arg(edit).status()
}

/// git lets a squash and a cherry-pick begin over staged changes that they do not touch; those would be committed along.
fn refuse_staged(repo: &Repository) -> Result<()> {
    refuse_under_way(repo)?;
    if !holds_staged(repo)? {
        return Ok(());
    }
    // git-merge(1), --squash: what it leaves until it is committed.
    if repo.git_dir().join("SQUASH_MSG").exists() {
        return Err(Error::usage("your index holds a squash that is not committed yet")
            .hint("'git commit' concludes it; to take it back: git reset --merge"));
    }
    Err(Error::usage("your index holds staged changes: they would be committed along")
        .hint("commit them, or 'git stash' them, first"))
}

/// Whether the user's index holds anything that HEAD does not.
fn holds_staged(repo: &Repository) -> Result<bool> {
    let git = repo.git("diff-index").only_reads().args(["--cached", "--quiet", "--ignore-submodules=none"]);
    git.revision("HEAD").succeeds().map(|clean| !clean)
}
