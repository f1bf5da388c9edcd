//! Notes that follow rewritten commits, each within its own run's log.
//!
//! git could do it by itself (`notes.rewriteRef`), but only by a pattern over all logs: with 10,000 runs every amend then
//! takes half a second.

use std::collections::BTreeMap;

use gix::ObjectId;

use super::notes::{self, Note};
use super::objects::blob;
use super::read::{self, LOCAL};
use super::refs::{Change, Expect, RefMover, Swap};
use super::repository::Repository;
use super::{taken, union};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// How often it is tried again where a driver was quicker.
const TRIES: usize = 100;

/// Copies the events noted on rewritten commits to what they became; `pairs` is `<old> <new>` a line (githooks(5),
/// post-rewrite). The old notes stay: the old commits may come back.
///
/// # Errors
/// Where a log cannot be read or written.
pub fn carry(repo: &Repository, pairs: &str) -> Result<()> {
    let gix = repo.gix();
    let mut rewritten: BTreeMap<RunId, Vec<(ObjectId, ObjectId)>> = BTreeMap::new();
    for line in pairs.lines() {
        let mut words = line.split_whitespace().map(|word| ObjectId::from_hex(word.as_bytes()));
        let (Some(Ok(old)), Some(Ok(new))) = (words.next(), words.next()) else { continue };
        if let Some(run) = taken::named_run(&gix, old).filter(|_| old != new) {
            rewritten.entry(run).or_default().push((old, new));
        }
    }
    rewritten.iter().try_for_each(|(run, pairs)| carry_run(repo, run, pairs))
}

fn carry_run(repo: &Repository, run: &RunId, pairs: &[(ObjectId, ObjectId)]) -> Result<()> {
    let gix = repo.gix();
    let name = format!("{LOCAL}{run}");
    let mover = RefMover::new(repo.common_dir().to_owned());
    for _ in 0..TRIES {
        // Fetched logs are other people's.
        let Some(log) = union::load(&gix, &name)? else { return Ok(()) };
        let Some(stands) = read::noted(&gix, run.clone(), &name, log.tip, None) else { return Ok(()) };
        let mut root = log.root;
        for (on, text) in &log.mended {
            let blob = write(&gix, text)?;
            notes::put(&gix, &mut root, Note { on: *on, blob })?;
        }
        let text = |root: &_, on| notes::find(&gix, root, on)?.map_or(Ok(Vec::new()), |id| blob(&gix, id));
        let mut carried = 0;
        for (old, new) in pairs {
            let (from, to) = (text(&root, *old)?, text(&root, *new)?);
            if let Some(united) = union::unite(&to, &[from]) {
                let blob = write(&gix, &united)?;
                notes::put(&gix, &mut root, Note { on: *new, blob })?;
                carried += 1;
            }
        }
        if carried == 0 {
            return Ok(());
        }
        let failed = "the run's log cannot be written";
        let commit = gix::objs::Commit {
            tree: gix.write_object(&root).context(failed)?.detach(),
            parents: vec![log.base].into(),
            author: repo.identity().author_now(),
            committer: repo.identity().committer_now(),
            encoding: None,
            message: format!("agentloop: {carried} rewritten\n\n{}", stands.snapshot.to_trailers()).into(),
            extra_headers: Vec::new(),
        };
        let commit = gix.write_object(&commit).context(failed)?.detach();
        let change = Change { name: name.clone(), new: Some(commit), old: Expect::Is(log.tip) };
        if mover.swap(&[change])? == Swap::Done {
            return Ok(());
        }
    }
    Err(Error::failed(format!("the log of {run} changes all the time")))
}

fn write(gix: &gix::Repository, text: &[u8]) -> Result<ObjectId> {
    Ok(gix.write_blob(text).context("the run's log cannot be written")?.detach())
}
