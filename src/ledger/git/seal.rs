//! Seals identify the lines of a run's log that drivers of this clone wrote.
//!
//! Before a flush moves the notes ref, its driver acknowledges it in the clone's private store: the code of each line under
//! the store's key, and the commit that the ref is about to move to. So the exact lines of the log are known even if the
//! notes are merged, rewritten or copied. A line that is not among them is from elsewhere, and a missing one is searched in
//! the acknowledged commits. The commit itself has a seal over its trailers and lines. It proves the state without reading
//! the store's file, and proves lines whose acknowledgement was lost in a power cut.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use gix::ObjectId;

use crate::error::{Context as _, Result};
use crate::host::store::{Key, Mac, RunStore, Store, from_hex, to_hex};
use crate::run::Snapshot;
use crate::run::goal::RunId;

/// Name of the file of acknowledgements in a run's store.
pub(super) const FILE: &str = "seals";
/// Key of the seal's trailer.
const TRAILER: &str = "Agentloop-Seal: ";
/// Suffix of the seal of a run that adopted lines from elsewhere.
const MIXED: &str = " mixed";
/// Bytes at the file's end in which the newest acknowledgement is searched first.
const TAIL: u64 = 4096;
/// Longest file of acknowledgements that is read, in bytes. No driver writes a longer one.
const LONGEST_FILE: u64 = 1 << 30;

/// The seals of one run.
#[derive(Clone, Debug)]
pub struct Seals {
    key: Key,
    run: RunId,
    store: RunStore,
}

/// Durability or origin of an acknowledged flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It may be lost in a power cut.
    Later,
    /// It was synced.
    Durable,
    /// Its lines are from elsewhere and were adopted by a user.
    Adopted,
}

/// Content of a commit's seal.
#[derive(Clone, Debug, PartialEq)]
pub struct Sealed {
    pub snapshot: Snapshot,
    /// Digest of its lines.
    digest: Mac,
    /// True if the run has lines from elsewhere.
    pub is_mixed: bool,
}

/// An acknowledged flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The commit that the ref was about to move to.
    pub tip: ObjectId,
    /// The number of its newest event.
    pub seq: u64,
    pub kind: Kind,
    /// The codes of its lines, in order.
    lines: Vec<Mac>,
    /// Offset at which its record ends in the file.
    end: u64,
    mac: Mac,
}

/// All acknowledgements of a run.
#[derive(Clone, Debug, Default)]
pub struct Acks {
    all: Vec<Ack>,
    order: HashMap<Mac, usize>,
}

impl Seals {
    /// Returns the seals of `run` in `store`, even if there are none yet.
    pub fn of(store: &Store, run: &RunId) -> Self {
        Self { key: store.key().clone(), run: run.clone(), store: store.run(run) }
    }

    /// Returns the code of a line of the log.
    pub fn line(&self, line: &[u8]) -> Mac {
        self.key.mac(&[b"line", self.run.as_str().as_bytes(), line.trim_ascii_end()])
    }

    /// Returns the trailers of a commit that appends `lines`: the snapshot's, and a seal over both.
    fn trailers(&self, snapshot: &Snapshot, lines: &[Mac], is_mixed: bool) -> String {
        let mut text = snapshot.to_trailers();
        let digest = self.digest(lines);
        let (seal, mixed) = (self.seal(&text, &digest, is_mixed), if is_mixed { MIXED } else { "" });
        let _ = writeln!(text, "{TRAILER}{}{}{mixed}", to_hex(&digest), to_hex(&seal));
        text
    }

    fn seal(&self, trailers: &str, digest: &Mac, is_mixed: bool) -> Mac {
        self.key.mac(&[b"seal", self.run.as_str().as_bytes(), trailers.as_bytes(), digest, &[u8::from(is_mixed)]])
    }

    fn digest(&self, lines: &[Mac]) -> Mac {
        self.key.mac(&[b"lines", lines.as_flattened()])
    }

    /// Returns the content of the seal in a commit's message; `None` unless a driver of this clone sealed it.
    pub fn sealed(&self, message: &str) -> Option<Sealed> {
        // Parsed and written again: the seal covers everything that the snapshot holds.
        let snapshot = Snapshot::from_message(message)?;
        let hex = message.lines().find_map(|line| line.strip_prefix(TRAILER))?;
        let (hex, is_mixed) = hex.strip_suffix(MIXED).map_or((hex, false), |hex| (hex, true));
        let (digest, seal) = hex.split_at_checked(hex.len() / 2)?;
        let (digest, seal) = (from_hex(digest)?, from_hex(seal)?);
        let is_ours = self.seal(&snapshot.to_trailers(), &digest, is_mixed) == seal;
        is_ours.then_some(Sealed { snapshot, digest, is_mixed })
    }

    /// Reports whether `lines` are those of the seal.
    pub fn covers(&self, sealed: &Sealed, lines: &[Mac]) -> bool {
        self.digest(lines) == sealed.digest
    }

    /// Reads all acknowledgements; `None` if no driver of this clone has acknowledged any.
    pub fn read(&self) -> Result<Option<Acks>> {
        let Some(mut file) = self.store.open(FILE)? else { return Ok(None) };
        Ok(Some(self.read_all(&mut file)?).filter(|acks| !acks.all.is_empty()))
    }

    fn read_all(&self, file: &mut File) -> Result<Acks> {
        let mut text = Vec::new();
        file.take(LONGEST_FILE).read_to_end(&mut text).context("cannot read the run's seals")?;
        Ok(self.parse(&text))
    }

    /// Parses the acknowledgements in `text`, up to the first that is torn or was not written by a driver.
    fn parse(&self, text: &[u8]) -> Acks {
        let mut acks = Acks::default();
        let mut end = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            end += line.len() as u64;
            let before = acks.all.last().map_or(Mac::default(), |ack| ack.mac);
            let Some((ack, known)) = self.ack(line, end) else { break };
            if known != before {
                break;
            }
            acks.push(ack);
        }
        acks
    }

    /// Reads the newest acknowledgement from the end of the file.
    pub fn newest(&self) -> Result<Option<Ack>> {
        let Some(mut file) = self.store.open(FILE)? else { return Ok(None) };
        let unreadable = "cannot read the run's seals";
        let length = file.metadata().context(unreadable)?.len().min(LONGEST_FILE);
        let mut window = TAIL;
        loop {
            let from = length.saturating_sub(window);
            let mut text = Vec::new();
            file.seek(SeekFrom::Start(from)).context(unreadable)?;
            (&file).take(length - from).read_to_end(&mut text).context(unreadable)?;
            let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
            if from > 0 {
                lines.remove(0); // it starts before the window
            }
            if let Some(ack) = lines.iter().rev().find_map(|line| Some(self.ack(line, 0)?.0)) {
                return Ok(Some(ack));
            }
            if from == 0 {
                return Ok(None);
            }
            window *= 16;
        }
    }

    /// Parses a line of the file as an acknowledgement and the code of the previous one.
    fn ack(&self, line: &[u8], end: u64) -> Option<(Ack, Mac)> {
        let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
        let (body, mac) = line.rsplit_once(' ')?;
        let mac = from_hex(mac)?;
        if self.record(body) != mac {
            return None;
        }
        let mut words = body.split(' ');
        let mut next = || words.next();
        let (codes, tip, seq, kind, before) = (next()?, next()?, next()?, next()?, next()?);
        let lines = codes.strip_prefix(':')?.as_bytes().chunks(2 * size_of::<Mac>());
        let lines = lines.map(|code| from_hex(std::str::from_utf8(code).ok()?)).collect::<Option<Vec<Mac>>>()?;
        let kind = match kind {
            "later" => Kind::Later,
            "durable" => Kind::Durable,
            "adopted" => Kind::Adopted,
            _ => return None,
        };
        let tip = ObjectId::from_hex(tip.as_bytes()).ok()?;
        Some((Ack { tip, seq: seq.parse().ok()?, kind, lines, end, mac }, from_hex(before)?))
    }

    fn record(&self, body: &str) -> Mac {
        self.key.mac(&[b"ack", self.run.as_str().as_bytes(), body.as_bytes()])
    }

    fn to_line(&self, tip: ObjectId, seq: u64, kind: Kind, lines: &[Mac], before: &Mac) -> (String, Mac) {
        let kind = match kind {
            Kind::Later => "later",
            Kind::Durable => "durable",
            Kind::Adopted => "adopted",
        };
        let mut text = format!(":{} {tip} {seq} {kind} {}", to_hex(lines.as_flattened()), to_hex(before));
        let mac = self.record(&text);
        let _ = writeln!(text, " {}", to_hex(&mac));
        (text, mac)
    }
}

impl Acks {
    fn push(&mut self, ack: Ack) {
        for line in &ack.lines {
            let next = self.order.len();
            self.order.entry(*line).or_insert(next);
        }
        self.all.push(ack);
    }

    /// Returns the position of the line with this code among all acknowledged ones.
    pub fn place(&self, line: &Mac) -> Option<usize> {
        self.order.get(line).copied()
    }

    /// Returns the number of acknowledged lines.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Returns the number of the newest acknowledged event.
    pub fn seq(&self) -> u64 {
        self.all.iter().map(|ack| ack.seq).max().unwrap_or(0)
    }

    /// Reports whether lines from elsewhere were adopted.
    pub fn are_mixed(&self) -> bool {
        self.all.iter().any(|ack| ack.kind == Kind::Adopted)
    }

    /// Lists the acknowledged commits, newest first.
    pub fn tips(&self) -> impl Iterator<Item = ObjectId> {
        let mut seen = HashSet::new();
        self.all.iter().rev().map(|ack| ack.tip).filter(move |tip| seen.insert(*tip))
    }

    /// Counts those of the missing lines, given by position, that cannot be missing without tampering. The others never
    /// reached the ref, or were lost in a power cut.
    pub fn lost(&self, is_missing: impl Fn(usize) -> bool) -> usize {
        self.all[..self.reached(&is_missing)].iter().map(|ack| self.missing(ack, &is_missing)).sum()
    }

    /// Counts the acknowledgements up to the last whose flush reached the ref permanently: one of a later flush exists, or
    /// they were synced and something was acknowledged afterwards.
    fn reached(&self, is_missing: &impl Fn(usize) -> bool) -> usize {
        let all = self.all.len();
        let is_reached = |(at, ack): &(usize, &Ack)| {
            (!ack.lines.is_empty() && self.missing(ack, is_missing) == 0) || (ack.kind == Kind::Durable && at + 1 < all)
        };
        self.all.iter().enumerate().filter(is_reached).map(|(at, _)| at + 1).max().unwrap_or(0)
    }

    fn missing(&self, ack: &Ack, is_missing: &impl Fn(usize) -> bool) -> usize {
        ack.lines.iter().filter(|line| self.order.get(*line).is_some_and(|at| is_missing(*at))).count()
    }
}

/// The acknowledgements of a living driver. It appends to the file that it opened, even if that was moved since.
#[derive(Debug)]
pub struct Acknowledger {
    seals: Seals,
    file: File,
    last: Mac,
    is_mixed: bool,
    /// The number of the newest acknowledged event.
    seq: u64,
    /// Offset of the newest record, and the code of the previous one.
    before: Option<(u64, Mac)>,
}

impl Acknowledger {
    /// Continues a run's acknowledgements after the last complete one.
    pub fn open(seals: Seals) -> Result<(Self, Acks)> {
        let mut file = seals.store.append_to(FILE)?;
        let acks = seals.read_all(&mut file)?;
        let last = acks.all.last().map_or(Mac::default(), |ack| ack.mac);
        let keeper = Self { last, seals, file, is_mixed: acks.are_mixed(), seq: acks.seq(), before: None };
        let end = acks.all.last().map_or(0, |ack| ack.end);
        keeper.file.set_len(end).context("cannot mend the run's seals")?;
        Ok((keeper, acks))
    }

    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Returns the code of a line of the log.
    pub fn line(&self, line: &[u8]) -> Mac {
        self.seals.line(line)
    }

    /// Returns the trailers of a commit that appends `lines`.
    pub fn trailers(&self, snapshot: &Snapshot, lines: &[Mac]) -> String {
        self.seals.trailers(snapshot, lines, self.is_mixed)
    }

    /// Acknowledges the flush whose commit is `tip`. Called before the ref moves there.
    pub fn acknowledge(&mut self, tip: ObjectId, seq: u64, kind: Kind, lines: &[Mac]) -> Result<()> {
        let (text, mac) = self.seals.to_line(tip, seq, kind, lines, &self.last);
        let end = self.file.metadata().context("cannot acknowledge what is recorded")?.len();
        self.before = Some((end, self.last));
        // One write: a killed driver leaves the whole record or a torn one, which is not read.
        self.file.write_all(text.as_bytes()).context("cannot acknowledge what is recorded")?;
        self.last = mac;
        self.seq = self.seq.max(seq);
        self.is_mixed |= kind == Kind::Adopted;
        Ok(())
    }

    /// Removes the newest acknowledgement, whose flush did not reach the ref.
    pub fn retract(&mut self) -> Result<()> {
        let Some((end, last)) = self.before.take() else { return Ok(()) };
        self.cut(end, last)
    }

    /// Removes the acknowledgements whose flushes never reached the ref, of `acks`, which the file held when it was opened.
    pub fn drop_unreached(&mut self, acks: &Acks, is_missing: impl Fn(usize) -> bool) -> Result<()> {
        let reached = acks.reached(&is_missing);
        if acks.all[reached..].iter().all(|ack| acks.missing(ack, &is_missing) == 0) {
            return Ok(());
        }
        let last = acks.all[..reached].last();
        self.cut(last.map_or(0, |ack| ack.end), last.map_or(Mac::default(), |ack| ack.mac))
    }

    fn cut(&mut self, end: u64, last: Mac) -> Result<()> {
        self.file.set_len(end).context("cannot mend the run's seals")?;
        self.last = last;
        Ok(())
    }

    /// Removes all acknowledgements, before those of the remaining lines are written.
    pub fn clear(&mut self) -> Result<()> {
        self.cut(0, Mac::default())
    }

    /// Ends the acknowledgements of a driver, whose log is at `tip`, with the proof that its last flush reached the ref.
    pub fn close(&mut self, tip: ObjectId) -> Result<()> {
        self.acknowledge(tip, self.seq, Kind::Later, &[])?;
        self.restore()
    }

    /// Restores the file if another program removed or changed it.
    fn restore(&mut self) -> Result<()> {
        let unreadable = "cannot read the run's seals";
        let mut own = Vec::new();
        self.file.seek(SeekFrom::Start(0)).context(unreadable)?;
        self.file.read_to_end(&mut own).context(unreadable)?;
        let mut there = Vec::new();
        if let Some(mut file) = self.seals.store.open(FILE)? {
            file.read_to_end(&mut there).context(unreadable)?;
        }
        if own == there { Ok(()) } else { self.seals.store.write(FILE, &own) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::store::Bases;
    use crate::ledger::git::fixture::{run_id, snapshot};

    fn tip(number: u8) -> ObjectId {
        ObjectId::from_bytes_or_panic(&[number; 20])
    }

    fn seals(dir: &std::path::Path, run: &str) -> Seals {
        let common = dir.join("common");
        std::fs::create_dir_all(&common).unwrap();
        Seals::of(&Store::ensure(&common, &Bases::below(dir.join("state"))).unwrap(), &run_id(run))
    }

    #[test]
    fn acknowledgements_come_back_up_to_the_first_that_is_torn_or_forged() {
        let dir = tempfile::tempdir().unwrap();
        let seals = seals(dir.path(), "goal");
        assert!(seals.read().unwrap().is_none() && seals.newest().unwrap().is_none());
        let line = |text: &str| seals.line(text.as_bytes());
        let (mut keeper, none) = Acknowledger::open(seals.clone()).unwrap();
        assert_eq!(none.len(), 0);
        keeper.acknowledge(tip(1), 2, Kind::Durable, &[line("a"), line("b")]).unwrap();
        keeper.acknowledge(tip(2), 3, Kind::Later, &[line("c")]).unwrap();
        // Written again after another program moved the ref.
        keeper.acknowledge(tip(3), 3, Kind::Later, &[line("c")]).unwrap();
        let acks = seals.read().unwrap().unwrap();
        assert_eq!((acks.len(), acks.seq(), acks.are_mixed()), (3, 3, false));
        assert_eq!(
            [line("a"), line("b"), line("c"), line("d")].map(|code| acks.place(&code)),
            [Some(0), Some(1), Some(2), None]
        );
        assert_eq!(acks.tips().collect::<Vec<_>>(), [tip(3), tip(2), tip(1)]);
        assert_eq!(seals.newest().unwrap().unwrap().tip, tip(3));
        let whole = seals.store.read(FILE).unwrap().unwrap();
        let cut = |length: usize| seals.store.write(FILE, &whole[..length]).unwrap();
        // Torn, and continued.
        cut(whole.len() - 5);
        assert_eq!(seals.newest().unwrap().unwrap().tip, tip(2));
        let (mut keeper, acks) = Acknowledger::open(seals.clone()).unwrap();
        assert_eq!(acks.tips().next(), Some(tip(2)));
        keeper.acknowledge(tip(4), 4, Kind::Adopted, &[]).unwrap();
        let acks = seals.read().unwrap().unwrap();
        assert_eq!((acks.tips().next(), acks.are_mixed()), (Some(tip(4)), true));
        // Without a record in the middle, and with one of another run.
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        seals.store.write(FILE, &[lines[0], lines[2]].concat()).unwrap();
        assert_eq!(seals.read().unwrap().unwrap().tips().next(), Some(tip(1)));
        let other = self::seals(dir.path(), "other");
        other.store.write(FILE, &whole).unwrap();
        assert!(other.read().unwrap().is_none() && other.newest().unwrap().is_none());
        // Removed while its driver lives.
        seals.store.remove().unwrap();
        keeper.restore().unwrap();
        assert_eq!(seals.newest().unwrap().unwrap().tip, tip(4));
    }

    #[test]
    fn what_is_missing_is_lost_where_something_later_was_synced_or_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let seals = seals(dir.path(), "goal");
        let (mut keeper, _) = Acknowledger::open(seals.clone()).unwrap();
        for (number, kind) in
            [(0, Kind::Durable), (1, Kind::Later), (2, Kind::Durable), (3, Kind::Later), (4, Kind::Durable)]
        {
            keeper.acknowledge(tip(number), number.into(), kind, &[seals.line(&[number])]).unwrap();
        }
        let acks = seals.read().unwrap().unwrap();
        for (missing, lost) in [
            (vec![], 0),
            (vec![4], 0),
            (vec![3, 4], 0),
            (vec![3], 1),
            (vec![2, 3, 4], 1),
            (vec![0, 1, 2, 3, 4], 3),
            (vec![1], 1),
        ] {
            assert_eq!(acks.lost(|at| missing.contains(&at)), lost, "{missing:?}");
        }
    }

    #[test]
    fn a_sealed_commit_is_believed_for_its_run_alone_and_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let (seals, other) = (seals(dir.path(), "goal"), seals(dir.path(), "other"));
        let lines = [seals.line(b"{}"), seals.line(b"{1}")];
        let message = format!("agentloop: 2 events\n\n{}", seals.trailers(&snapshot(7), &lines, false));
        let found = seals.sealed(&message).unwrap();
        assert_eq!((&found.snapshot, found.is_mixed), (&snapshot(7), false));
        assert!(seals.covers(&found, &lines) && !seals.covers(&found, &lines[..1]));
        assert!(other.sealed(&message).is_none());
        let mixed = format!("agentloop: 2 events\n\n{}", seals.trailers(&snapshot(7), &lines, true));
        assert!(seals.sealed(&mixed).unwrap().is_mixed);
        assert!(seals.sealed(&mixed.replace(MIXED, "")).is_none());
        for (from, to) in
            [("Seq: 7", "Seq: 8"), ("running", "completed"), ("Agentloop-Seal: ", "Agentloop-Seal: 0"), ("a goal", "b")]
        {
            assert!(seals.sealed(&message.replace(from, to)).is_none(), "{to}");
        }
        assert!(seals.sealed(&message.replace("Agentloop-Seq: 7", "Agentloop-Seq: 7\nAgentloop-Seq: 9")).is_none());
        assert!(seals.sealed("Agentloop-State: completed\nAgentloop-Seal: é").is_none());
    }
}
