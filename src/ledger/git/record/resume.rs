//! Continues a log that others may have changed, when a driver takes a run over and while it lives.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use gix::objs::Tree;
use gix::{ObjectId, Repository};

use super::super::objects;
use super::super::own::{self, Own};
use super::super::places::LOCAL;
use super::super::read;
use super::super::refs::{Expect, RefMover};
use super::super::seal::{Acknowledger, Acks, Kind, Seals};
use super::super::union::{self, Log};
use super::super::verify::{self, Line, Verified};
use super::{Record, State, TRIES};
use crate::error::{Context as _, Error, Result};
use crate::host::store::Mac;
use crate::run::goal::RunId;
use crate::run::text::count;

/// Which lines of an existing log a driver takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// Lines that drivers of this clone wrote. If no driver of this clone ever had the run, all lines, unsealed.
    Never,
    /// As `Never`, but the lines of a run that no driver of this clone had are sealed from now on.
    Unsealed,
    /// Lines from elsewhere too, and the remaining lines if some are missing.
    Everything,
}

impl Record {
    /// Opens the record as [`open`](Self::open) does, for a clone that has `seals`. Also reports whether lines from
    /// elsewhere were taken over, or no driver of this clone vouches for any.
    ///
    /// # Errors
    /// Fails if events that a driver recorded are gone, unless the caller accepts the loss.
    pub fn open_sealed(
        repo: &Repository,
        mover: Arc<RefMover>,
        run: RunId,
        page: ObjectId,
        seals: Option<Seals>,
        adoption: Adoption,
    ) -> Result<(Self, bool)> {
        let acks = seals.as_ref().map(Seals::read).transpose()?.flatten();
        let place = read::find(repo, &run)?.filter(|place| acks.is_none() || place.remote.is_none());
        let name = place.as_ref().map(|place| place.name.as_str());
        let log = match (name, &acks) {
            (name, Some(_)) => verify::load_if_readable(repo, name)?,
            (Some(name), None) => union::load(repo, name)?,
            (None, None) => None,
        };
        if log.is_none() && acks.is_none() {
            return Err(Error::failed(format!("run {run} has no log")));
        }
        let mut state = State::new(repo, page);
        let found = match (&seals, &acks) {
            (Some(seals), Some(acks)) => Some(Verified::of(repo, seals, acks, log.as_ref())?),
            _ => None,
        };
        let tip = log.as_ref().map(|log| log.tip);
        if let Some(log) = log {
            state.adopt_log(log)?;
        } else {
            state.at = if name.is_some() { Expect::Any } else { Expect::Absent };
            let mut tips = acks.iter().flat_map(Acks::tips).take(verify::SOUGHT);
            if let Some((tip, root)) = tips.find_map(|tip| Some((tip, own::read_whole(repo, tip)?))) {
                (state.parent, state.root) = (Some(tip), root);
            }
        }
        if place.is_some_and(|place| place.remote.is_some()) {
            state.at = Expect::Absent;
        }
        let adopted = match (seals, found) {
            (Some(seals), Some(found)) => state.resume(&run, seals, &found, tip, adoption)?,
            (Some(seals), None) if adoption != Adoption::Never => {
                state.seal_all(seals, tip)?;
                true
            }
            _ => {
                state.own = Own::read(repo, &state.root)?;
                true
            }
        };
        let written = state.own.restore(repo, &mut state.root)?.1;
        state.unsynced.extend(written);
        Ok((Self::with(state, mover, run), adopted))
    }

    /// Rewrites the log on the ref as it was recorded if another program changed it since. Called at the end, when no agent
    /// is running.
    pub fn settle(&self) -> Result<()> {
        let mut state = self.state();
        let Some((message, seconds)) = state.newest.clone() else { return Ok(()) };
        let packed = objects::packed(&state.repo);
        let was_packed = std::mem::replace(&mut state.packed, packed) != packed || state.is_pruned;
        for _ in 0..TRIES {
            state.patience.outlast_gc(self.mover.common_dir(), state.is_pruned);
            let is_there = union::tip(&state.repo, &self.name).is_ok_and(|tip| tip.map(Expect::Is) == Some(state.at));
            // A gc during a flush may have pruned objects of it that no ref named yet.
            let is_whole = !was_packed || state.parent_is_whole()?;
            if is_there && is_whole {
                break;
            }
            let reported = state.tampering.len();
            if !is_there {
                state.reload(&self.mover, &self.name)?;
            }
            // Notes that a person added on top stay.
            let newest = state.parent.and_then(|tip| union::commit(&state.repo, tip));
            let is_noted = newest.is_some_and(|tip| tip.snapshot.is_none());
            if is_whole && state.tampering.len() == reported && is_noted {
                break;
            }
            let tree = state.repo.write_object(&state.root).context("cannot write the run's log")?.detach();
            let commit = self.commit(&state, tree, message.clone(), seconds)?;
            // Checked once more if it is there, since a gc may have removed objects meanwhile.
            let _ = self.move_ref(&mut state, commit)?;
        }
        let Expect::Is(tip) = state.at else { return Ok(()) };
        state.keeper.as_mut().map_or(Ok(()), |keeper| keeper.close(tip))
    }

    /// Adds a message on a change by other programs.
    pub fn report(&self, remark: String) {
        self.state().tampering.push(remark);
    }

    /// Takes the messages on changes that other programs made to the log since the last call.
    pub fn tampering(&self) -> Vec<String> {
        std::mem::take(&mut self.state().tampering)
    }
}

impl State {
    /// Continues a run that was driven in this clone. Reports whether lines from elsewhere were taken over.
    fn resume(
        &mut self,
        run: &RunId,
        seals: Seals,
        found: &Verified,
        tip: Option<ObjectId>,
        adoption: Adoption,
    ) -> Result<bool> {
        let adopts = adoption == Adoption::Everything;
        if found.lost > 0 && !adopts {
            let gone = count(found.lost, "event");
            return Err(Error::failed(format!(
                "{gone} that a driver of this clone recorded of {run} cannot be found any more"
            ))
            .hint(format!(
                "'git reflog show {LOCAL}{run}' or a remote may still have them; \
                     'git agentloop resume {run} --take-over' goes on with what is left"
            )));
        }
        let (mut keeper, acks) = Acknowledger::open(seals)?;
        let codes = |lines: &[&Line]| lines.iter().map(|line| line.code).collect::<Vec<Mac>>();
        let newest = |lines: &[&Line]| lines.iter().map(|line| line.event.seq).max().unwrap_or(0);
        let tip = tip.unwrap_or(self.page);
        let tail: Vec<_> = found.tail.iter().collect();
        let foreign: Vec<_> = found.foreign.iter().filter(|_| adopts).collect();
        if found.lost > 0 {
            let left: Vec<_> = found.own().chain(foreign.iter().copied()).collect();
            keeper.clear()?;
            keeper.acknowledge(tip, newest(&left), Kind::Adopted, &codes(&left))?;
        } else {
            keeper.drop_unreached(&acks, |place| !found.ours.contains_key(&place))?;
            if !tail.is_empty() {
                keeper.acknowledge(tip, newest(&tail), Kind::Later, &codes(&tail))?;
            }
            if !foreign.is_empty() {
                keeper.acknowledge(tip, acks.seq().max(newest(&foreign)), Kind::Adopted, &codes(&foreign))?;
            }
        }
        for line in found.own().chain(foreign.iter().copied()) {
            self.own.add(line.on, &line.text);
        }
        self.foreign = if adopts { 0 } else { found.foreign.len() };
        self.keeper = Some(keeper);
        Ok(found.lost > 0 || !foreign.is_empty())
    }

    /// Takes over the whole log of a run that was never driven in this clone.
    fn seal_all(&mut self, seals: Seals, tip: Option<ObjectId>) -> Result<()> {
        let root = Log { tip: self.page, base: self.page, root: self.root.clone(), completed: BTreeMap::default() };
        let mut lines = verify::lines(&self.repo, &seals, &root)?.events;
        lines.sort_by_key(|line| line.event.seq);
        let codes: Vec<Mac> = lines.iter().map(|line| line.code).collect();
        let (mut keeper, _) = Acknowledger::open(seals)?;
        let seq = lines.last().map_or(0, |line| line.event.seq);
        keeper.acknowledge(tip.unwrap_or(self.page), seq, Kind::Adopted, &codes)?;
        for line in &lines {
            self.own.add(line.on, &line.text);
        }
        self.keeper = Some(keeper);
        Ok(())
    }

    /// Reports whether the parent of the next commit can be read with all its history. If not, the parent becomes the newest
    /// commit that can, and all recorded lines are restored on top of it.
    pub(super) fn parent_is_whole(&mut self) -> Result<bool> {
        // Pruned objects must not be taken for existing ones.
        let again = gix::open_opts(self.repo.git_dir(), self.repo.open_options().clone());
        self.repo = read::as_written(&again.context("cannot open the repository again")?);
        let mut broken = None;
        let mut next = self.parent;
        let mut seen = HashSet::new();
        while let Some(id) = next.filter(|id| seen.insert(*id)) {
            let before = union::commit(&self.repo, id).and_then(|commit| commit.parents.first().copied());
            if own::read_whole(&self.repo, id).is_none() {
                broken = Some(before);
            }
            next = before;
        }
        let Some(parent) = broken else { return Ok(true) };
        self.parent = parent;
        let root = parent.and_then(|parent| own::read_whole(&self.repo, parent));
        self.root = root.unwrap_or_else(|| Tree { entries: Vec::new() });
        self.text = None;
        let (_, written) = self.own.restore(&self.repo, &mut self.root)?;
        self.unsynced.extend(written);
        Ok(false)
    }

    /// Continues from the current log after another program moved the ref, and restores all recorded lines in it.
    pub(super) fn reload(&mut self, mover: &RefMover, name: &str) -> Result<()> {
        match union::load(&self.repo, name) {
            Ok(Some(log)) => self.adopt_log(log)?,
            gone => {
                mover.remove_broken(name)?;
                self.parent_is_whole()?;
                if let Err(error) = gone {
                    let why = error.chain();
                    self.at = Expect::Any;
                    self.tampering
                        .push(format!("the run's log could not be read any more ({why}): it is written anew"));
                } else {
                    self.at = Expect::Absent;
                    self.tampering.push("the ref of the run's log was deleted: it is made again".to_owned());
                }
            }
        }
        let (restored, written) = self.own.restore(&self.repo, &mut self.root)?;
        self.unsynced.extend(written);
        if restored > 0 {
            let events = count(restored, "recorded event");
            self.tampering.push(format!("{events} had been taken off the run's log: put back"));
        }
        let foreign = self.own.count_foreign(&self.repo, &self.root)?;
        if foreign > self.foreign {
            let events = count(foreign - self.foreign, "event");
            self.tampering
                .push(format!("{events} that no driver of the run recorded came onto its log: they do not count"));
            self.foreign = foreign;
        }
        Ok(())
    }
}
