//! Transcripts, on a ref of their own that is pushed only on request: `refs/agentloop/run/<run>/output`.
//!
//! The ref is at a tree, `iter<N>/<subgoal>/<attempt>.out`; plain git shows a transcript with `git cat-file blob
//! refs/agentloop/run/<run>/output:iter1/s1/1.out`.

use std::sync::{Arc, Mutex, PoisonError};

use gix::bstr::ByteSlice as _;
use gix::objs::tree::EntryKind;
use gix::{ObjectId, Repository};

use super::held::FAILURES;
use super::refs::{Change, Expect, RefMover, Swap};
use super::union;
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;
use crate::run::text::count;

/// Longest transcript in bytes; only head and tail of a longer one are kept. This leaves room for the line in one that was
/// cut at 16 MiB while it was written.
const OUTPUT_LIMIT: usize = 16 * 1024 * 1024 + 1024;
/// Attempts of a store while other processes move the ref.
const TRIES: usize = 100;

/// The writer of one run's transcripts.
#[derive(Debug)]
pub struct Output {
    mover: Arc<RefMover>,
    name: String,
    /// The lock serializes workers of one driver; other processes can still move the ref.
    repo: Mutex<Repository>,
}

impl Output {
    /// Makes a writer of the transcripts of `run`.
    #[must_use]
    pub fn new(repo: &Repository, mover: Arc<RefMover>, run: &RunId) -> Self {
        Self { mover, name: ref_name(run), repo: Mutex::new(repo.clone()) }
    }

    /// Stores `content` under `path`, replacing what was there. It is written again while `is_whole` reports objects missing
    /// from the tree that the ref is then at.
    ///
    /// # Errors
    /// Fails if `path` is absolute or has components other than plain names.
    pub fn store(&self, path: &str, content: &[u8], is_whole: impl Fn(ObjectId) -> Result<bool>) -> Result<()> {
        let is_plain = |name: &str| !matches!(name, "" | "." | "..") && !name.eq_ignore_ascii_case(".git");
        if !path.split('/').all(is_plain) || path.contains(['\0', '\\']) {
            return Err(Error::usage(format!("'{path}' is no path of a transcript")));
        }
        let failed = format!("cannot keep the transcript {path}");
        let repo = self.repo.lock().unwrap_or_else(PoisonError::into_inner);
        let mut failures = 0;
        // The tree of the ref before any of our objects was pruned.
        let mut base = None;
        for _ in 0..TRIES {
            match self.try_store(&repo, path, content, &mut base) {
                Ok(Some(tree)) if is_whole(tree)? => return Ok(()),
                Ok(_) => {}
                Err(error) => {
                    failures += 1;
                    if failures == FAILURES {
                        return Err(error).context(failed);
                    }
                }
            }
        }
        Err(Error::failed(failed).hint(format!("another process changes {} all the time", self.name)))
    }

    /// Moves the ref to a tree that has `content` under `path`; `None` if another process moved it first.
    fn try_store(
        &self,
        repo: &Repository,
        path: &str,
        content: &[u8],
        base: &mut Option<ObjectId>,
    ) -> Result<Option<ObjectId>> {
        let blob = match clip(content) {
            Some(short) => repo.write_blob(short),
            None => repo.write_blob(content),
        };
        let blob = blob.context("it cannot be written")?.detach();
        let old = union::tip(repo, &self.name)?;
        let tree = match old.map(|id| repo.find_object(id).and_then(gix::Object::peel_to_tree)) {
            Some(Ok(tree)) => tree.id,
            Some(Err(error)) => base.ok_or(error).context("those before it cannot be read")?,
            None => ObjectId::empty_tree(repo.object_hash()),
        };
        *base = Some(tree);
        let mut editor = repo.edit_tree(tree).context("those before it cannot be read")?;
        editor.upsert(path, EntryKind::Blob, blob).context("it cannot be added")?;
        let new = editor.write().context("it cannot be written")?.detach();
        let change = Change { name: self.name.clone(), new: Some(new), old: old.map_or(Expect::Absent, Expect::Is) };
        Ok((self.mover.swap(&[change])? == Swap::Done).then_some(new))
    }
}

/// Returns the transcript of `run` under `path`; `None` if there is none.
#[must_use]
pub fn read(repo: &Repository, run: &RunId, path: &str) -> Option<Vec<u8>> {
    let tree = repo.find_object(union::tip(repo, &ref_name(run)).ok()??).ok()?.peel_to_tree().ok()?;
    let entry = tree.lookup_entry_by_path(path).ok()??;
    if !entry.mode().is_blob() {
        return None;
    }
    entry.object().ok().map(gix::Object::into_blob).map(|mut blob| blob.take_data())
}

/// Lists the paths of all transcripts of `run` in git's order.
#[must_use]
pub fn paths(repo: &Repository, run: &RunId) -> Vec<String> {
    let collect = || {
        let tip = union::tip(repo, &ref_name(run)).ok()??;
        repo.find_object(tip).ok()?.peel_to_tree().ok()?.traverse().breadthfirst.files().ok()
    };
    let mut entries = collect().unwrap_or_default();
    entries.retain(|entry| entry.mode.is_blob());
    entries.into_iter().map(|entry| entry.filepath.to_str_lossy().into_owned()).collect()
}

fn ref_name(run: &RunId) -> String {
    format!("refs/agentloop/run/{run}/output")
}

/// Returns head and tail of content that is too long, with a line between them that counts the omitted bytes.
fn clip(content: &[u8]) -> Option<Vec<u8>> {
    let missing = content.len().checked_sub(OUTPUT_LIMIT).filter(|missing| *missing > 0)?;
    let half = OUTPUT_LIMIT / 2;
    let mut short = content[..half].to_vec();
    short.extend_from_slice(format!("\n[… {} left out …]\n", count(missing, "byte")).as_bytes());
    short.extend_from_slice(&content[content.len() - half..]);
    Some(short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::git::fixture::{Fixture, run_id};

    #[test]
    fn parallel_workers_and_processes_keep_all_of_them() {
        for kind in ["sha1", "sha256"] {
            let fixture = Fixture::of_kind(kind);
            let (run, repo) = (run_id("goal"), fixture.repo());
            assert!(paths(&repo, &run).is_empty());
            assert_eq!(read(&repo, &run, "iter1/s0/1.out"), None);
            // Two writers act as two processes.
            let outputs: [Output; 2] = std::array::from_fn(|_| Output::new(&repo, fixture.mover(), &run));
            std::thread::scope(|scope| {
                for worker in 0..6 {
                    let output = &outputs[worker % 2];
                    scope.spawn(move || {
                        for attempt in 0..4 {
                            let text = format!("{worker} {attempt}\n");
                            let path = format!("iter1/s{worker}/{attempt}.out");
                            output.store(&path, text.as_bytes(), |_| Ok(true)).unwrap();
                        }
                    });
                }
            });
            assert_eq!(paths(&repo, &run).len(), 24);
            assert_eq!(read(&repo, &run, "iter1/s3/2.out").as_deref(), Some(b"3 2\n".as_slice()));
            assert_eq!(read(&repo, &run, "iter1/s3"), None);
            let shown = fixture.git(["cat-file", "blob", &format!("refs/agentloop/run/{run}/output:iter1/s5/3.out")]);
            assert_eq!(shown, "5 3\n");
            fixture.git(["fsck", "--strict"]);
        }
    }

    #[test]
    fn hostile_paths_are_refused_and_long_transcripts_cut() {
        let fixture = Fixture::new();
        let run = run_id("goal");
        let output = Output::new(&fixture.repo(), fixture.mover(), &run);
        for path in ["", "/a", "a/", "a//b", "../a", "a/../b", ".git/config", "a/.GIT/b", "./a", "a\\b"] {
            assert!(output.store(path, b"x", |_| Ok(true)).is_err(), "{path}");
        }
        output.store("iter1/s1/1.out", &vec![b'x'; OUTPUT_LIMIT + 10], |_| Ok(true)).unwrap();
        let kept = read(&fixture.repo(), &run, "iter1/s1/1.out").unwrap();
        assert!(kept.len() < OUTPUT_LIMIT + 60 && kept.windows(14).any(|part| part == "10 bytes left ".as_bytes()));
    }
}
