//! Reads a log with its seals, which separate the lines of this clone's drivers from those of others.

use std::collections::{BTreeMap, HashSet};

use gix::{ObjectId, Repository};

use super::notes::{self, Note};
use super::objects::{blob, hex_length};
use super::pages::{in_parallel, too_long};
use super::places::{Noted, Place};
use super::seal::{Ack, Acks, Seals};
use super::union::{self, Commit, Log};
use crate::error::Result;
use crate::host::store::Mac;
use crate::run::Run;
use crate::run::event::{self, Aside, Event, Timestamp};
use crate::run::goal::RunId;

/// Number of acknowledged commits in which missing lines are searched. Each has all lines known when it was made.
pub(super) const SOUGHT: usize = 32;

/// An event's line in a log.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// The commit that it is noted on.
    pub on: ObjectId,
    pub text: Vec<u8>,
    pub code: Mac,
    pub event: Event,
}

/// The lines of a log by origin.
#[derive(Debug, Default)]
pub(super) struct Verified {
    /// The acknowledged lines by their positions in the log.
    pub ours: BTreeMap<usize, Line>,
    /// Lines in order whose acknowledgement was lost in a power cut: the commits that appended them are sealed.
    pub tail: Vec<Line>,
    /// Lines from elsewhere.
    pub foreign: Vec<Line>,
    /// Diagnostics of unreadable lines, none of which is a driver's.
    pub aside: Vec<Aside>,
    /// The number of acknowledged lines that were not found.
    pub lost: usize,
}

/// Content of a page.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub events: Vec<Line>,
    pub aside: Vec<Aside>,
}

impl Verified {
    /// Sorts the lines of `log` by origin and finds missing ones. `log` is `None` if its ref is gone.
    pub fn of(repo: &Repository, seals: &Seals, acks: &Acks, log: Option<&Log>) -> Result<Self> {
        let mut found = Self::default();
        if let Some(log) = log {
            let lines = lines(repo, seals, log)?;
            found.classify(acks, lines.events);
            found.aside = lines.aside;
        }
        for tip in acks.tips().take(SOUGHT) {
            if found.ours.len() == acks.len() {
                break;
            }
            // A commit that cannot be read any more is skipped.
            let Some(log) = union::commit(repo, tip).and_then(|commit| union::at(repo, &commit).ok()) else { continue };
            let mut older = Self::default();
            older.classify(acks, lines(repo, seals, &log).unwrap_or_default().events);
            for (place, line) in older.ours {
                found.ours.entry(place).or_insert(line);
            }
        }
        if let Some(log) = log {
            found.find_tail(repo, seals, acks, log);
        }
        found.lost = acks.lost(|place| !found.ours.contains_key(&place));
        Ok(found)
    }

    fn classify(&mut self, acks: &Acks, lines: Vec<Line>) {
        let mut seen = HashSet::new();
        for line in lines {
            match acks.place(&line.code) {
                Some(place) => {
                    self.ours.entry(place).or_insert(line);
                }
                None if seen.insert(line.code) => self.foreign.push(line),
                None => {}
            }
        }
    }

    /// Moves lines that sealed commits appended after the newest acknowledgement from `foreign` to `tail`.
    fn find_tail(&mut self, repo: &Repository, seals: &Seals, acks: &Acks, log: &Log) {
        let known = acks.seq();
        if !self.foreign.iter().any(|line| line.event.seq > known) {
            return;
        }
        let mut flushes = Vec::new();
        let mut next = Some(log.base);
        while let Some(commit) = next.and_then(|id| union::commit(repo, id)) {
            if let Some(sealed) = seals.sealed(&commit.message) {
                if sealed.snapshot.seq <= known {
                    break;
                }
                flushes.push(sealed);
            }
            next = commit.parents.first().copied();
        }
        let mut from = known;
        while let Some(sealed) = flushes.pop() {
            let is_its = |line: &Line| line.event.seq > from && line.event.seq <= sealed.snapshot.seq;
            let (mut its, rest): (Vec<Line>, Vec<Line>) =
                std::mem::take(&mut self.foreign).into_iter().partition(is_its);
            its.sort_by_key(|line| line.event.seq);
            self.foreign = rest;
            let codes: Vec<Mac> = its.iter().map(|line| line.code).collect();
            if !seals.covers(&sealed, &codes) {
                self.foreign.extend(its);
                return;
            }
            self.tail.extend(its);
            from = sealed.snapshot.seq;
        }
    }

    /// Lists the lines that drivers of this clone wrote, in order.
    pub fn own(&self) -> impl Iterator<Item = &Line> {
        self.ours.values().chain(&self.tail)
    }
}

/// Lists all events' lines of a log, with missing lines filled in.
pub(super) fn lines(repo: &Repository, seals: &Seals, log: &Log) -> Result<Lines> {
    let mut pages = notes::all(repo, &log.root)?;
    pages.retain(|page| !log.completed.contains_key(&page.on));
    let mut parts = in_parallel(repo, &pages, &|repo: &Repository, page: &Note| match too_long(repo, page) {
        Some(aside) => Ok(Lines { aside: vec![aside], ..Lines::default() }),
        None => blob(repo, page.blob).map(|text| lines_of(repo, seals, page.on, &text)),
    })?;
    parts.extend(log.completed.iter().map(|(on, text)| lines_of(repo, seals, *on, text)));
    let mut all = Lines::default();
    for part in parts {
        all.events.extend(part.events);
        all.aside.extend(part.aside);
    }
    Ok(all)
}

fn lines_of(repo: &Repository, seals: &Seals, on: ObjectId, text: &[u8]) -> Lines {
    let mut lines = Lines::default();
    for text in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end) {
        let line = String::from_utf8_lossy(text);
        match Event::from_line(&line).filter(|event| event.has_ids_of(hex_length(repo))) {
            Some(event) => lines.events.push(Line { on, text: text.to_vec(), code: seals.line(text), event }),
            None => lines.aside.extend(event::Log::read_page(&line).with_ids_of(hex_length(repo)).aside),
        }
    }
    lines
}

/// A run's log as it counts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The events that count, in order, and diagnostics of unreadable lines.
    pub log: event::Log,
    /// True if drivers of this clone wrote all of them and none is missing.
    pub verified: bool,
    /// The number of events in the log that no driver of this clone wrote and that do not count.
    pub elsewhere: usize,
    /// The number of events of this clone's drivers that were not found.
    pub missing: usize,
}

impl Reading {
    /// Reads a log by its seals, with `adopting` as if its lines from elsewhere were adopted.
    pub(super) fn of(repo: &Repository, seals: &Seals, acks: &Acks, log: Option<&Log>, adopting: bool) -> Result<Self> {
        let found = Verified::of(repo, seals, acks, log)?;
        let verified = found.lost == 0 && !acks.are_mixed();
        let (missing, elsewhere) = (found.lost, if adopting { 0 } else { found.foreign.len() });
        let own = found.ours.into_values().chain(found.tail);
        // Joining limits the number of diagnostics, as for any other log.
        let mut log = event::Log::join([event::Log { aside: found.aside, ..event::Log::default() }]);
        log.events.extend(own.map(|line| line.event));
        let adopts = adopting && !found.foreign.is_empty();
        if adopts {
            log.events.extend(found.foreign.into_iter().map(|line| line.event));
        }
        if adopts || acks.are_mixed() {
            log = event::Log::join([log]);
        }
        Ok(Self { log, verified: verified && !adopts, elsewhere, missing })
    }
}

/// Loads the log under the notes ref `name` if it can be read: acknowledged lines are found without it.
pub(super) fn load_if_readable(repo: &Repository, name: Option<&str>) -> Result<Option<Log>> {
    let Some(name) = name else { return Ok(None) };
    union::load(repo, name).or_else(|error| {
        tracing::warn!("{}", error.chain());
        Ok(None)
    })
}

/// Returns the state of a run by the seals of this clone. `place` is its own notes ref, `newest` the last acknowledgement. A
/// tip with fewer events is an older one that another program restored.
pub(super) fn verified_state(
    repo: &Repository,
    run: &RunId,
    seals: &Seals,
    newest: &Ack,
    place: &Place,
) -> Result<Option<Noted>> {
    let noted = |snapshot, updated, verified| Noted { run: run.clone(), snapshot, updated, remote: None, verified };
    let sealed = |commit: &Commit| {
        let sealed = seals.sealed(&commit.message)?;
        Some((sealed.snapshot, commit.time, sealed.is_mixed))
    };
    let tip = union::commit(repo, place.tip);
    let mut known = tip.as_ref().and_then(sealed);
    if known.as_ref().is_none_or(|(snapshot, ..)| snapshot.seq < newest.seq) {
        let acknowledged = union::commit(repo, newest.tip).as_ref().and_then(sealed);
        known = acknowledged.into_iter().chain(known).max_by_key(|(snapshot, ..)| snapshot.seq);
    }
    if let Some((snapshot, updated, is_mixed)) = known.filter(|(snapshot, ..)| snapshot.seq >= newest.seq) {
        return Ok(Some(noted(snapshot, updated, !is_mixed)));
    }
    // The slow way: the state is the fold of the events.
    let Some(acks) = seals.read()? else { return Ok(None) };
    let log = load_if_readable(repo, Some(&place.name))?;
    let reading = Reading::of(repo, seals, &acks, log.as_ref(), false)?;
    let folded = Run::replay(&reading.log.events);
    if folded.id.is_none() {
        return Ok(None);
    }
    let updated = Timestamp(folded.now.0.div_euclid(1000) * 1000);
    Ok(Some(noted(folded.snapshot(), updated, reading.verified)))
}
