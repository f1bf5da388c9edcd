//! What a living driver knows of its run's log: whatever becomes of the ref, it is put back from here.

use std::collections::{BTreeMap, HashSet};

use gix::objs::Tree;
use gix::{ObjectId, Repository};

use super::notes::{self, Note};
use super::objects::blob;
use super::union;
use crate::error::{Context as _, Result};
use crate::run::event::Event;

/// The lines of a run's drivers, page by page. As long as the log itself: some megabytes for thousands of calls.
#[derive(Debug, Default)]
pub(super) struct Own {
    pages: BTreeMap<ObjectId, Vec<u8>>,
}

impl Own {
    /// Every event's line in `root`, whoever wrote it.
    pub fn read(repo: &Repository, root: &Tree) -> Result<Self> {
        let mut own = Self::default();
        for note in notes::all(repo, root)? {
            events_in(&blob(repo, note.blob)?).for_each(|line| own.add(note.on, line));
        }
        Ok(own)
    }

    /// Takes in a line that is noted on `on`.
    pub fn add(&mut self, on: ObjectId, line: &[u8]) {
        let page = self.pages.entry(on).or_default();
        page.extend_from_slice(line);
        page.push(b'\n');
    }

    /// Puts the lines that `root` misses back into it; how many, and the objects that were written below it.
    pub fn restore(&self, repo: &Repository, root: &mut Tree) -> Result<(usize, Vec<ObjectId>)> {
        let (mut restored, mut written) = (0, Vec::new());
        for (on, lines) in &self.pages {
            let now = match notes::find(repo, root, *on)? {
                Some(id) => blob(repo, id)?,
                None => Vec::new(),
            };
            let Some(united) = union::unite(&now, std::slice::from_ref(lines)) else { continue };
            restored += count(&united) - count(&now);
            let blob = repo.write_blob(&united).context("cannot write the run's log")?.detach();
            written.push(blob);
            written.extend(notes::put(repo, root, Note { on: *on, blob })?);
        }
        Ok((restored, written))
    }

    /// How many events in `root` are not among them.
    pub fn foreign(&self, repo: &Repository, root: &Tree) -> Result<usize> {
        let own: HashSet<&[u8]> = self.pages.values().flat_map(|page| page.split(|byte| *byte == b'\n')).collect();
        let mut foreign = HashSet::new();
        for note in notes::all(repo, root)? {
            let text = blob(repo, note.blob)?;
            foreign.extend(events_in(&text).filter(|line| !own.contains(line)).map(<[u8]>::to_vec));
        }
        Ok(foreign.len())
    }
}

/// The lines of a page that are events.
fn events_in(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    lines.filter(|line| std::str::from_utf8(line).is_ok_and(|line| Event::from_line(line).is_some()))
}

fn count(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count()
}

/// The notes tree of the commit `id`, where it and all its pages can be read.
pub(super) fn whole(repo: &Repository, id: ObjectId) -> Option<Tree> {
    let root = notes::read(repo, union::commit(repo, id)?.tree).ok()?;
    let pages = notes::all(repo, &root).ok()?;
    pages.iter().all(|page| repo.has_object(page.blob)).then_some(root)
}
