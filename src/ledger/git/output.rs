//! Transcripts of workers, apart from the log: `refs/agentloop/run/<run>/output`, a tree of `iter<N>/<subgoal>/<attempt>.out`.

use std::sync::{Arc, Mutex, PoisonError};

use gix::bstr::ByteSlice as _;
use gix::objs::tree::EntryKind;

use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Identity;
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// Writes a run's transcripts, one after the other.
pub struct Output {
    run: RunId,
    mover: Arc<RefMover>,
    identity: Identity,
    repo: Mutex<gix::Repository>,
}

fn output_ref(run: &RunId) -> String {
    format!("refs/agentloop/run/{run}/output")
}

impl Output {
    /// The writer of `run`'s transcripts.
    pub fn new(repo: gix::Repository, mover: Arc<RefMover>, run: RunId, identity: Identity) -> Self {
        Self { run, mover, identity, repo: Mutex::new(repo) }
    }

    /// Keeps `content` under `path`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn store(&self, path: &str, content: &[u8]) -> Result<()> {
        let repo = self.repo.lock().unwrap_or_else(PoisonError::into_inner);
        let blob = repo.write_blob(content).context("a transcript cannot be written")?.detach();
        let name = output_ref(&self.run);
        loop {
            let old = repo.try_find_reference(name.as_str()).context("the transcripts' ref cannot be read")?;
            let old = old.and_then(|reference| reference.try_id().map(gix::Id::detach));
            let tree = match old {
                Some(old) => {
                    repo.find_commit(old).and_then(|commit| commit.tree()).context("the transcripts cannot be read")?
                }
                None => repo.empty_tree(),
            };
            let mut editor = tree.edit().context("the transcripts cannot be read")?;
            editor.upsert(path, EntryKind::Blob, blob).context("the transcript's path is not one")?;
            let tree = editor.write().context("the transcripts' tree cannot be written")?.detach();
            let commit = gix::objs::Commit {
                message: format!("agentloop: {path}\n").into(),
                tree,
                author: self.identity.author_now(),
                committer: self.identity.committer_now(),
                encoding: None,
                parents: old.into_iter().collect(),
                extra_headers: Vec::new(),
            };
            let new = repo.write_object(commit).context("the transcripts' commit cannot be written")?.detach();
            let expected = old.map_or(Expect::Absent, Expect::Is);
            let swap = self.mover.swap(&[Change { name: name.clone(), new: Some(new), old: expected }])?;
            if swap == Swap::Done {
                return Ok(());
            }
        }
    }
}

/// The transcript under `path`, where it is on record.
///
/// # Errors
/// Where git's objects cannot be read.
pub fn read(repo: &gix::Repository, run: &RunId, path: &str) -> Result<Option<Vec<u8>>> {
    let Some(tree) = tree(repo, run)? else { return Ok(None) };
    let entry = tree.lookup_entry_by_path(path).context("the transcripts cannot be read")?;
    let Some(entry) = entry.filter(|entry| entry.mode().is_blob()) else { return Ok(None) };
    let object = entry.object().context("a transcript cannot be read")?;
    Ok(Some(object.detach().data))
}

/// Every transcript of the run.
///
/// # Errors
/// Where git's objects cannot be read.
pub fn paths(repo: &gix::Repository, run: &RunId) -> Result<Vec<String>> {
    let Some(tree) = tree(repo, run)? else { return Ok(Vec::new()) };
    let files = tree
        .traverse()
        .breadthfirst
        .files()
        .map_err(|error| Error::failed("the transcripts cannot be read").because(error))?;
    let blobs = files.into_iter().filter(|entry| entry.mode.is_blob());
    Ok(blobs.map(|entry| entry.filepath.to_str_lossy().into_owned()).collect())
}

fn tree<'repo>(repo: &'repo gix::Repository, run: &RunId) -> Result<Option<gix::Tree<'repo>>> {
    let found = repo.try_find_reference(output_ref(run).as_str()).context("the transcripts' ref cannot be read")?;
    let Some(id) = found.and_then(|reference| reference.try_id().map(gix::Id::detach)) else { return Ok(None) };
    repo.find_commit(id).and_then(|commit| commit.tree()).context("the transcripts cannot be read").map(Some)
}
