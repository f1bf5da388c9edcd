//! The run's branch: commits on it, a person's commits on top, and rescue refs for what would otherwise be lost.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::identity::Identity;
use super::link;
use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Repository;
use super::worktree::Worktree;
use crate::error::{Context as _, Error, Result};
use crate::ledger::Adopted;
use crate::run::goal::RunId;
use crate::run::message::{BASE_TRAILER, RUN_TRAILER, VERDICT_TRAILER, trailer};

/// Returns the branch's full name.
pub fn name(run: &RunId) -> String {
    format!("refs/heads/agentloop/{run}")
}

/// Returns the commit that the ref `name` is at, if it exists.
pub fn tip(gix: &gix::Repository, name: &str) -> Option<ObjectId> {
    gix.try_find_reference(name).ok()??.try_id().map(gix::Id::detach)
}

/// Creates the branch of a run that was only fetched, at the newest commit of its record.
pub fn create(repo: &Repository, mover: &RefMover, run: &RunId, known: &str) -> Result<()> {
    let known = Repository::id(known)?;
    if tip(&repo.gix(), &name(run)).is_some() {
        return Ok(());
    }
    let change = Change { name: name(run), new: Some(known), old: Expect::Absent };
    match mover.swap(&[change])? {
        Swap::Done => Ok(()),
        Swap::Lost => Err(Error::failed(format!("the branch 'agentloop/{run}' came into being meanwhile"))),
    }
}

/// Writes a commit object; no ref is moved.
pub fn commit(
    gix: &gix::Repository,
    identity: &Identity,
    message: &str,
    tree: ObjectId,
    parents: Vec<ObjectId>,
) -> Result<ObjectId> {
    let commit = gix::objs::Commit {
        message: message.into(),
        tree,
        author: identity.author_now(),
        committer: identity.committer_now(),
        encoding: None,
        parents: parents.into(),
        extra_headers: Vec::new(),
    };
    // Tried twice, since a gc may remove the folder that the object goes into.
    let written = gix.write_object(&commit).or_else(|_| gix.write_object(&commit));
    Ok(written.context("a commit cannot be written")?.detach())
}

/// Writes a commit object as [`commit`] does, signed by git if `sign` is set.
pub fn write(
    repo: &Repository,
    sign: bool,
    identity: &Identity,
    message: &str,
    tree: ObjectId,
    parents: &[ObjectId],
) -> Result<ObjectId> {
    if !sign {
        return commit(&repo.gix(), identity, message, tree, parents.to_vec());
    }
    let mut git = repo.git("commit-tree").args(["-S", "-F", "-"]);
    for parent in parents {
        git = git.arg("-p").id(*parent);
    }
    let signed = git.id(tree).identity(identity).input(message).word().map_err(|error| {
        Error::failed("a commit cannot be signed")
            .because(error)
            .hint("mend git's signing (user.signingKey, gpg.format), or 'git config agentloop.sign false'")
    })?;
    Repository::id(&signed)
}

/// Returns the tree of `commit`.
pub(super) fn tree_of(gix: &gix::Repository, commit: ObjectId) -> Result<ObjectId> {
    let tree = gix.find_commit(commit).and_then(|commit| commit.tree_id().map(gix::Id::detach));
    tree.context(format!("the commit {commit} cannot be read"))
}

/// Reports whether `id` is `tip` or one of its ancestors.
pub fn contains(gix: &gix::Repository, tip: ObjectId, id: ObjectId) -> bool {
    tip == id || gix.merge_base(tip, id).ok().flatten().is_some_and(|base| base.detach() == id)
}

/// Returns advice for each worktree that has the branch checked out after it moved: its files are not touched.
pub fn checkout_remarks(repo: &Repository, run: &RunId) -> Vec<String> {
    let common = repo.common_dir();
    let main = if common.ends_with(".git") { common.parent().unwrap_or(common) } else { repo.home() };
    let entries = std::fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten();
    let linked = entries.filter_map(|entry| Some((entry.path(), link::linked(&entry.path())?)));
    let name = name(run);
    let is_checked_out_in = |admin: &Path| {
        std::fs::read_to_string(admin.join("HEAD"))
            .is_ok_and(|head| head.trim_end().strip_prefix("ref: ") == Some(&name))
    };
    let places = std::iter::once((common.to_owned(), main.to_owned())).chain(linked);
    let in_words = |(_, path): (_, PathBuf)| {
        format!(
            "the branch is checked out in '{}', whose files are behind: 'git reset --merge' there updates them, and drops \
             what is staged",
            path.display()
        )
    };
    places.filter(|(admin, _)| is_checked_out_in(admin)).map(in_words).collect()
}

/// Creates the branch at `tip` if it does not exist. Reports whether it did.
pub fn recreate(mover: &RefMover, run: &RunId, tip: &str) -> Result<bool> {
    let back = Change { name: name(run), new: Some(Repository::id(tip)?), old: Expect::Absent };
    Ok(mover.swap(&[back])? == Swap::Done)
}

/// Returns the commits of the branch above `tip`, if any.
pub fn ahead(repo: &Repository, run: &RunId, tip: &str) -> Result<Option<Adopted>> {
    let gix = repo.gix();
    let short = name(run).trim_start_matches("refs/heads/").to_owned();
    let found = gix.try_find_reference(name(run).as_str()).context("the run's branch cannot be read")?;
    let Some(current) = found.and_then(|reference| reference.try_id().map(gix::Id::detach)) else {
        return Err(Error::failed(format!("the branch '{short}' is gone"))
            .hint(format!("'git branch {short} {tip}' brings it back as the record has it")));
    };
    let known = Repository::id(tip)?;
    if current == known {
        return Ok(None);
    }
    if !contains(&gix, current, known) {
        return Err(Error::failed(format!("the branch '{short}' was moved away from the run's newest commit {tip}"))
            .hint(format!(
                "keep what it holds now with 'git branch {short}-moved {short}', then 'git branch -f {short} {tip}' and resume"
            )));
    }
    let commit = gix.find_commit(current).context("the branch's commit cannot be read")?;
    let tree = commit.tree_id().context("the branch's commit cannot be read")?.to_string();
    let message = commit.message_raw_sloppy().to_str_lossy().into_owned();
    Ok(Some(Adopted { commit: current.to_string(), tree, message }))
}

/// Reports whether a commit is a checkpoint of `run`, by its trailers.
pub fn is_checkpoint(message: &str, run: &RunId) -> bool {
    trailer(message, RUN_TRAILER) == Some(run.as_str()) && trailer(message, VERDICT_TRAILER).is_some()
}

/// Checks `commit` out in a worktree; edits of files that do not differ in the commit stay.
pub fn check_out(worktree: &Worktree, commit: &str) -> Result<()> {
    let git = worktree.git("checkout").args(["-q", "--detach"]).id(Repository::id(commit)?);
    git.run().map(|_| ()).map_err(|error| {
        Error::failed("the commits that were added to the run's branch do not fit the edits in its worktree")
            .because(error)
            .hint(format!("commit or discard the edits in '{}', then resume", worktree.path.display()))
    })
}

/// Puts `commit` on a rescue ref, unless one contains it already. Returns a remark if it did.
pub fn rescue(repo: &Repository, mover: &Arc<RefMover>, run: &RunId, commit: ObjectId) -> Result<Option<String>> {
    let gix = repo.gix();
    let prefix = format!("refs/agentloop/rescue/{run}/");
    let kept = gix.references().context("refs cannot be read")?;
    let kept = kept.prefixed(prefix.as_str()).context("refs cannot be read")?;
    for reference in kept.filter_map(std::result::Result::ok) {
        if reference.try_id().is_some_and(|id| contains(&gix, id.detach(), commit)) {
            return Ok(None);
        }
    }
    let name = format!("{prefix}{}-{}", stamp(), &commit.to_string()[..8]);
    if mover.swap(&[Change { name: name.clone(), new: Some(commit), old: Expect::Absent }])? == Swap::Lost {
        return Err(Error::failed(format!("{commit} would be lost, and '{name}' is taken")));
    }
    Ok(Some(format!("{} would have been lost, and is kept as {name}", &commit.to_string()[..12])))
}

/// Returns the current time as it appears in names of rescue refs.
pub fn stamp() -> String {
    let date = time::macros::format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:3]Z");
    time::OffsetDateTime::now_utc().format(&date).unwrap_or_default()
}

/// Returns the message of the commit that holds the changes of the user's checkout from before the run.
pub fn before_message(run: &RunId) -> String {
    format!("agentloop: uncommitted changes before the run\n\n{RUN_TRAILER}: {run}\n")
}

/// Returns the tree of the run's start commit, found along the first parents from `tip`.
pub fn base_tree(gix: &gix::Repository, tip: &str, run: &RunId) -> Result<Option<String>> {
    Ok(start(gix, Repository::id(tip)?, run)?.and_then(|start| start.tree_id().ok().map(|tree| tree.to_string())))
}

/// Returns the run's start commit, found along the first parents from `tip`.
pub fn start<'a>(gix: &'a gix::Repository, tip: ObjectId, run: &RunId) -> Result<Option<gix::Commit<'a>>> {
    let mut at = tip;
    loop {
        let commit = gix.find_commit(at).context("the run's commits cannot be read")?;
        if is_start(&commit, run) {
            return Ok(Some(commit));
        }
        let Some(parent) = commit.parent_ids().next() else { return Ok(None) };
        at = parent.detach();
    }
}

/// Lists the commits of the run that changed something, newest first, along the first parents from `tip` to its start
/// commit.
pub fn own_commits(gix: &gix::Repository, run: &RunId, tip: ObjectId) -> Result<Vec<ObjectId>> {
    let mut own = Vec::new();
    let mut at = tip;
    loop {
        let commit = gix.find_commit(at).context("the run's commits cannot be read")?;
        if is_start(&commit, run) {
            return Ok(own);
        }
        let Some(parent) = commit.parent_ids().next().map(gix::Id::detach) else { return Ok(own) };
        let parent_tree = gix.find_commit(parent).and_then(|commit| commit.tree_id().map(gix::Id::detach));
        if parent_tree.context("the run's commits cannot be read")?
            != commit.tree_id().context("a commit is damaged")?
        {
            own.push(at);
        }
        at = parent;
    }
}

pub fn is_start(commit: &gix::Commit<'_>, run: &RunId) -> bool {
    let message = commit.message_raw_sloppy().to_str_lossy();
    trailer(&message, BASE_TRAILER).is_some() && trailer(&message, RUN_TRAILER) == Some(run.as_str())
}

/// Moves refs of `run` below `rescue`. Two steps, so that nothing is deleted before all of it is kept.
pub(super) fn move_to_rescue(mover: &RefMover, run: &RunId, going: &[(String, ObjectId)], rescue: &str) -> Result<()> {
    let kept = going.iter().map(|(name, id)| Change {
        name: format!("{rescue}/{}", name.trim_start_matches("refs/")),
        new: Some(*id),
        old: Expect::Absent,
    });
    let gone = going.iter().map(|(name, id)| Change { name: name.clone(), new: None, old: Expect::Is(*id) });
    for changes in [kept.collect::<Vec<_>>(), gone.collect()] {
        if mover.swap(&changes)? == Swap::Lost {
            let place = mover.common_dir().display();
            return Err(Error::failed(format!("somebody moved a ref of {run} in '{place}' meanwhile"))
                .hint("look at what changed, then do it again"));
        }
    }
    Ok(())
}
