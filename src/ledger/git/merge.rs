//! A run's work into the user's branch, by the user's own git: their hooks, their editor, their signature, their
//! settings. Nothing here resolves or forces anything; what an integrator resolved elsewhere comes in by fast-forward.

use std::collections::HashSet;
use std::process::Command;

use gix::bstr::ByteSlice as _;

use super::repository::Repository;
use super::workers::tree_of;
use super::{branch, command, preview, run_dir, worktree};
use crate::error::{Context as _, Error, Result};
use crate::process;
use crate::run::goal::RunId;

/// By which of git's means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// As `merge.ff` says: a fast-forward where one is possible.
    #[default]
    Merge,
    /// A fast-forward where one is possible.
    FastForward,
    /// A merge commit in any case.
    NoFastForward,
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
    /// What git is to call it.
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
/// Where git cannot be started, or staged changes would get into the commit.
pub fn take(repo: &Repository, run: &RunId, take: &Take<'_>) -> Result<i32> {
    let edit = if take.edit { "--edit" } else { "--no-edit" };
    let mut git = process::in_our_place("git");
    match take.way {
        Way::Merge | Way::FastForward | Way::NoFastForward => {
            git.arg("merge");
            match take.way {
                Way::FastForward => _ = git.arg("--ff"),
                Way::NoFastForward => _ = git.arg("--no-ff"),
                _ => {}
            }
            // git says of a message that it has no use for it where no commit is made.
            if !is_forward(repo, take) {
                git.args([edit, "-m", take.message]);
            }
            run_it(git.arg(take.name))
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
            git.args(["cherry-pick", "--keep-redundant-commits", "-m", "1"]);
            run_it(git.args(own.iter().map(ToString::to_string)))
        }
    }
}

/// Whether git only moves the user's branch forward to what is taken.
fn is_forward(repo: &Repository, take: &Take<'_>) -> bool {
    let may = match take.way {
        Way::FastForward => true,
        Way::Merge => repo.gix().config_snapshot().boolean("merge.ff") != Some(false),
        _ => false,
    };
    may && preview::head(repo).is_ok_and(|(head, _)| preview::is_reachable(repo, &head, take.commit).unwrap_or(false))
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
/// Where it cannot be tried, or the checkout holds what the merge would change: git would refuse it in the end.
pub fn meet(repo: &Repository, commit: &str) -> Result<Meeting> {
    let (head, branch) = preview::head(repo)?;
    let trial = preview::try_merge(repo, &head, commit)?;
    let tree = tree_of(&repo.gix(), Repository::id(&head)?)?.to_string();
    if !trial.conflicts.is_empty() {
        refuse_under_way(repo)?;
        let mut git = process::in_our_place("git");
        let changed = git.args(["diff-tree", "-r", "--name-only", "--no-renames", "-z", &head, &trial.tree]);
        let changed = names(&command::run(changed)?);
        let mut git = process::in_our_place("git");
        git.env("GIT_OPTIONAL_LOCKS", "0");
        git.args(["status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--ignore-submodules=all"]);
        let edited = command::run(&mut git)?;
        let edited =
            edited.split(|byte| *byte == 0).filter_map(|entry| Some(entry.get(3..)?.to_str_lossy().into_owned()));
        let both: Vec<String> = edited.filter(|path| changed.contains(path)).collect();
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

fn names(printed: &[u8]) -> HashSet<String> {
    let paths = printed.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    paths.map(|path| path.to_str_lossy().into_owned()).collect()
}

/// Takes `take` with `tree`, what its conflict with `met` was resolved to: as one commit, to which the user's branch is
/// fast-forwarded by their git.
///
/// # Errors
/// Where the commit cannot be made, a hook of the user's refuses its message, the user has gone on since, or git does not
/// take it.
pub fn take_resolved(repo: &Repository, run: &RunId, take: &Take<'_>, met: &Meeting, tree: &str) -> Result<()> {
    let commit = |message: &str| {
        let mut git = process::in_our_place("git");
        git.args(["commit-tree", "-m", message.trim_end(), "-p", &met.head]);
        if take.way != Way::Squash {
            git.args(["-p", take.commit]);
        }
        if repo.gix().config_snapshot().boolean("commit.gpgSign").unwrap_or_default() {
            git.arg("-S");
        }
        repo.identity().stand_in(&mut git);
        command::word(git.arg(tree))
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
    let mut git = process::in_our_place("git");
    git.env("GIT_REFLOG_ACTION", format!("merge {}", take.name));
    match run_it(git.args(["merge", "--ff-only", &commit]))? {
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
        let mut git = process::in_our_place("git");
        git.env("GIT_EDITOR", ":").args(["hook", "run", "--ignore-missing", hook, "--"]).arg(&file).args(source);
        if run_it(&mut git)? != 0 {
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
    let mut git = process::in_our_place("git");
    let code = run_it(git.args(["merge", "--squash", take.name]))?;
    // The words that git offers with the commit, now or once conflicts are resolved: ours instead of its list.
    let offered = repo.git_dir().join("SQUASH_MSG");
    if offered.exists() {
        std::fs::write(&offered, take.message).context("the commit's message cannot be drafted")?;
    }
    let mut git = process::in_our_place("git");
    let nothing = git.args(["diff", "--cached", "--quiet"]).status().context("git cannot be started")?;
    if code != 0 || nothing.success() {
        return Ok(code);
    }
    let mut git = process::in_our_place("git");
    run_it(git.args(["commit", edit]))
}

/// git lets a squash and a cherry-pick begin over staged changes that they do not touch; those would be committed along.
fn refuse_staged(repo: &Repository) -> Result<()> {
    refuse_under_way(repo)?;
    let mut git = process::in_our_place("git");
    let clean = git.args(["diff", "--cached", "--quiet"]).status().context("git cannot be started")?;
    if clean.success() {
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

fn run_it(git: &mut Command) -> Result<i32> {
    let status = git.status().map_err(command::cannot_start)?;
    Ok(status.code().unwrap_or(1))
}
