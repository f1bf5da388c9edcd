//! The lines of a run's log that its living driver knows and restores if the ref is changed.

use std::collections::{BTreeMap, HashSet};

use gix::objs::Tree;
use gix::{ObjectId, Repository};

use super::notes::{self, Note};
use super::objects::blob;
use super::union;
use crate::error::{Context as _, Result};
use crate::run::event::Event;

/// Lines of a run's drivers by page. As large as the log itself: some megabytes for thousands of calls.
#[derive(Debug, Default)]
pub(super) struct Own {
    pages: BTreeMap<ObjectId, Vec<u8>>,
}

impl Own {
    /// Reads the lines of all events in `root`, by any writer.
    pub fn read(repo: &Repository, root: &Tree) -> Result<Self> {
        let mut own = Self::default();
        for note in notes::all(repo, root)? {
            events_in(&blob(repo, note.blob)?).for_each(|line| own.add(note.on, line));
        }
        Ok(own)
    }

    /// Adds a line that is noted on `on`.
    pub fn add(&mut self, on: ObjectId, line: &[u8]) {
        let page = self.pages.entry(on).or_default();
        page.extend_from_slice(line);
        page.push(b'\n');
    }

    /// Restores missing lines in `root`. Returns their number, and the objects that were written below it.
    pub fn restore(&self, repo: &Repository, root: &mut Tree) -> Result<(usize, Vec<ObjectId>)> {
        let (mut restored, mut written) = (0, Vec::new());
        for (on, lines) in &self.pages {
            let now = match notes::find(repo, root, *on)? {
                Some(id) => blob(repo, id)?,
                None => Vec::new(),
            };
            let Some(completed) = union::add_missing_lines(&now, std::slice::from_ref(lines)) else { continue };
            restored += count(&completed) - count(&now);
            let blob = repo.write_blob(&completed).context("cannot write the run's log")?.detach();
            written.push(blob);
            written.extend(notes::put(repo, root, Note { on: *on, blob })?);
        }
        Ok((restored, written))
    }

    /// Counts the events in `root` that are not among our lines.
    pub fn count_foreign(&self, repo: &Repository, root: &Tree) -> Result<usize> {
        let own: HashSet<&[u8]> = self.pages.values().flat_map(|page| page.split(|byte| *byte == b'\n')).collect();
        let mut count_foreign = HashSet::new();
        for note in notes::all(repo, root)? {
            let text = blob(repo, note.blob)?;
            count_foreign.extend(events_in(&text).filter(|line| !own.contains(line)).map(<[u8]>::to_vec));
        }
        Ok(count_foreign.len())
    }
}

/// Lists the lines of a page that are events.
fn events_in(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    lines.filter(|line| std::str::from_utf8(line).is_ok_and(|line| Event::from_line(line).is_some()))
}

fn count(text: &[u8]) -> usize {
    text.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count()
}

/// Returns the notes tree of the commit `id` if all its pages exist.
pub(super) fn read_whole(repo: &Repository, id: ObjectId) -> Option<Tree> {
    let root = notes::read(repo, union::commit(repo, id)?.tree).ok()?;
    let pages = notes::all(repo, &root).ok()?;
    pages.iter().all(|page| repo.has_object(page.blob)).then_some(root)
}
