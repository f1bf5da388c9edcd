//! Writes a run's record: events into pages, pages into notes, the state after them into the commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use gix::actor::Signature;
use gix::bstr::BString;
use gix::objs::{Tree, Write as _};
use gix::{ObjectId, Repository};

use super::held::{FAILURES, Patience};
use super::notes::{self, Note};
use super::objects::{self, blob};
use super::own::Own;
use super::places::LOCAL;
use super::read::{self, Reading};
use super::refs::{Change, Expect, RefMover, Swap};
use super::seal::{Acknowledger, Kind, Seals};
use super::union::{self, Log};
use super::verify;
use crate::error::{Context as _, Error, Result};
use crate::host::store::Mac;
use crate::ledger::{Batch, Durability};
use crate::run::event::Event;
use crate::run::goal::RunId;
use crate::run::text::count;

pub use self::resume::Adoption;

/// Bytes of a page after which it is closed.
pub const PAGE_LIMIT: usize = 64 * 1024;
/// Attempts of a flush while other programs move the ref.
const TRIES: usize = 1000;

/// Author of the record's commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    /// The name.
    pub name: String,
    /// The mail address.
    pub email: String,
}

impl Default for Author {
    fn default() -> Self {
        Self { name: "git-agentloop".to_owned(), email: "agentloop@localhost".to_owned() }
    }
}

impl Author {
    /// Makes the signature at `seconds` since the epoch, without characters that would break a commit's header, as git does.
    fn at(&self, seconds: i64) -> Signature {
        let clean = |text: &str| BString::from(text.replace(['<', '>', '\n', '\0'], "").trim());
        let time = gix::date::Time::new(seconds.max(0), 0);
        Signature { name: clean(&self.name), email: clean(&self.email), time }
    }
}

/// Writer of one run's log. There is one: the driver that holds the run's lock.
#[derive(Debug)]
pub struct Record {
    mover: Arc<RefMover>,
    run: RunId,
    name: String,
    identity: Author,
    durability: Durability,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    repo: Repository,
    /// The last known value of the ref.
    at: Expect,
    /// The parent of the next commit.
    parent: Option<ObjectId>,
    root: Tree,
    /// The commit on which the open page is noted.
    page: ObjectId,
    /// The open page, once it was read.
    text: Option<Vec<u8>>,
    /// Objects that were written and not yet synced.
    unsynced: Vec<ObjectId>,
    /// A ref that is created together with the first events, and the content of its commit.
    new_branch: Option<(Change, Vec<u8>)>,
    /// All lines that this driver and earlier ones have recorded.
    own: Own,
    /// Acknowledges what is recorded, if this clone has a private store.
    keeper: Option<Acknowledger>,
    /// The number of events in the log that are not among our own.
    foreign: usize,
    /// Messages on changes that other programs made to the log.
    tampering: Vec<String>,
    /// When git last packed objects before this driver began.
    packed: Option<SystemTime>,
    /// True if objects were removed before a ref named them.
    is_pruned: bool,
    patience: Patience,
    /// Message and time of the newest commit.
    newest: Option<(String, i64)>,
}

impl Record {
    /// Makes the record of a new run, whose events are noted on `page`, its start commit. Nothing is written before the
    /// first [`append`](Self::append).
    ///
    /// # Errors
    /// Fails if a log exists under this id.
    pub fn create(repo: &Repository, mover: Arc<RefMover>, run: RunId, page: ObjectId) -> Result<Self> {
        if union::tip(repo, &format!("{LOCAL}{run}"))?.is_some() {
            return Err(Error::failed(format!("there is a run {run} already")));
        }
        Ok(Self::with(State::new(repo, page), mover, run))
    }

    /// Opens the record of a run that continues, whose events are noted on `page`, its newest commit. Lines that other
    /// programs removed are restored with the next append. A log that was only fetched becomes this repository's own.
    ///
    /// # Errors
    /// Fails if there is no such log.
    pub fn open(repo: &Repository, mover: Arc<RefMover>, run: RunId, page: ObjectId) -> Result<Self> {
        Self::open_sealed(repo, mover, run, page, None, Adoption::Never).map(|(record, _)| record)
    }

    /// Acknowledges everything that is recorded, from the first event of a new run on.
    pub fn sealed(self, seals: Option<Seals>) -> Result<Self> {
        self.state().keeper = seals.map(|seals| Acknowledger::open(seals).map(|(keeper, _)| keeper)).transpose()?;
        Ok(self)
    }

    fn with(state: State, mover: Arc<RefMover>, run: RunId) -> Self {
        Self {
            mover,
            name: format!("{LOCAL}{run}"),
            run,
            identity: Author::default(),
            durability: Durability::default(),
            state: Mutex::new(state),
        }
    }

    /// Sets the author of the commits.
    #[must_use]
    pub fn by(mut self, identity: Author) -> Self {
        self.identity = identity;
        self
    }

    /// Sets which batches must survive a power cut. `mover` should be [`synced`](RefMover::synced) unless none must.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Creates `branch` together with the first events: a driver that is killed leaves both, or neither.
    pub fn begin_with(&self, branch: Change, commit: Vec<u8>) {
        let mut state = self.state();
        state.unsynced.extend(branch.new);
        state.new_branch = Some((branch, commit));
    }

    /// Appends `batch` in one commit and returns once the ref is at it.
    ///
    /// # Errors
    /// Fails if the record cannot be written; then none of the batch is on it.
    pub fn append(&self, batch: &Batch<'_>) -> Result<()> {
        let mut state = self.state();
        let mut failures = 0;
        for _ in 0..TRIES {
            match self.flush(&mut state, batch) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => {
                    failures += u32::from(state.parent_is_whole()?);
                    if failures > FAILURES {
                        return Err(error);
                    }
                    // Some of the objects on their way may be gone.
                    state.is_pruned = true;
                }
            }
        }
        Err(Error::failed(format!("cannot append to {}", self.name)).hint("another process changes it all the time"))
    }

    /// Appends `batch` and reports whether it is on the record. It is not if another program moved the ref first or removed
    /// objects.
    fn flush(&self, state: &mut State, batch: &Batch<'_>) -> Result<bool> {
        let sync = self.durability.wants(batch.durable);
        let flush = self.write(state, batch)?;
        if self.durability == Durability::Never {
            state.unsynced.clear();
        }
        if sync {
            objects::sync_objects(&state.repo, &state.unsynced)?;
            state.unsynced.clear();
        }
        if let Some(keeper) = &mut state.keeper {
            let kind = if sync { Kind::Durable } else { Kind::Later };
            keeper.acknowledge(flush.commit, batch.snapshot.seq, kind, &flush.codes)?;
        }
        let swap = self.move_ref(state, flush.commit);
        if !matches!(swap, Ok(Some(Swap::Done)))
            && let Some(keeper) = &mut state.keeper
        {
            keeper.retract()?;
        }
        match swap? {
            None => state.is_pruned = true,
            Some(Swap::Done) => {
                state.new_branch = None;
                state.root = flush.root;
                state.page = flush.page;
                state.text = Some(flush.text);
                state.newest = Some((flush.message, flush.seconds));
                for line in &flush.lines {
                    state.own.add(flush.page, line.as_bytes());
                }
                if sync {
                    objects::sync_ref(self.mover.common_dir(), &self.name)?;
                }
                return Ok(true);
            }
            Some(Swap::Lost) if state.new_branch.is_some() => {
                return Err(Error::failed(format!("the branch or the log of {} came into being meanwhile", self.run)));
            }
            Some(Swap::Lost) => state.reload(&self.mover, &self.name)?,
        }
        Ok(false)
    }

    /// Moves the ref to `commit`. Returns `None` if that is gone: a concurrent `git gc --prune=now` removed it before a ref
    /// named it.
    fn move_ref(&self, state: &mut State, commit: ObjectId) -> Result<Option<Swap>> {
        let change = Change { name: self.name.clone(), new: Some(commit), old: state.at };
        let changes: Vec<Change> =
            std::iter::once(change).chain(state.new_branch.iter().map(|(branch, _)| branch.clone())).collect();
        let swap = match self.mover.swap(&changes) {
            Err(_) if changes.iter().any(|change| change.new.is_some_and(|new| !state.repo.has_object(new))) => {
                return Ok(None);
            }
            swap => swap?,
        };
        if swap == Swap::Done {
            state.at = Expect::Is(commit);
            state.parent = Some(commit);
        }
        Ok(Some(swap))
    }

    fn write(&self, state: &mut State, batch: &Batch<'_>) -> Result<Flush> {
        let (page, mut text) = state.open_page()?;
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        let lines: Vec<String> = batch.events.iter().map(Event::to_line).collect();
        for line in &lines {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        let codes = |keeper: &Acknowledger| lines.iter().map(|line| keeper.line(line.as_bytes())).collect::<Vec<Mac>>();
        let codes = state.keeper.as_ref().map(codes).unwrap_or_default();
        let trailers = match &state.keeper {
            Some(keeper) => keeper.trailers(batch.snapshot, &codes),
            None => batch.snapshot.to_trailers(),
        };
        let repo = &state.repo;
        let failed = "cannot write the run's log";
        if let Some((_, commit)) = &state.new_branch {
            repo.objects.write_buf(gix::objs::Kind::Commit, commit).context(failed)?;
        }
        let note = Note { on: page, blob: repo.write_blob(&text).context(failed)?.detach() };
        let mut root = state.root.clone();
        let below = notes::put(repo, &mut root, note)?;
        let tree = repo.write_object(&root).context(failed)?.detach();
        let seconds = batch.events.last().map_or(batch.snapshot.started, |event| event.ts).0.div_euclid(1000);
        let message = format!("agentloop: {}\n\n{trailers}", count(batch.events.len(), "event"));
        let commit = self.commit(state, tree, message.clone(), seconds)?;
        state.unsynced.extend(below);
        state.unsynced.extend([note.blob, tree, commit]);
        Ok(Flush { commit, root, page, text, lines, codes, message, seconds })
    }

    fn commit(&self, state: &State, tree: ObjectId, message: String, seconds: i64) -> Result<ObjectId> {
        let signature = self.identity.at(seconds);
        let commit = gix::objs::Commit {
            tree,
            parents: state.parent.into_iter().collect(),
            author: signature.clone(),
            committer: signature,
            encoding: None,
            message: message.into(),
            extra_headers: Vec::new(),
        };
        Ok(state.repo.write_object(&commit).context("cannot write the run's log")?.detach())
    }

    /// Sets the commit on which later events are noted.
    pub fn turn_page(&self, commit: ObjectId) {
        let mut state = self.state();
        state.page = commit;
        state.text = None;
    }

    /// Returns all recorded events in order.
    pub fn events(&self) -> Result<Vec<Event>> {
        let state = self.state();
        let Some(seals) = state.keeper.as_ref().map(Acknowledger::seals) else {
            return Ok(read::events(&state.repo, &self.run)?.unwrap_or_default());
        };
        let Some(acks) = seals.read()? else { return Ok(Vec::new()) };
        let log = verify::load_if_readable(&state.repo, Some(&self.name))?;
        Ok(Reading::of(&state.repo, seals, &acks, log.as_ref(), false)?.log.events)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Flush {
    commit: ObjectId,
    root: Tree,
    page: ObjectId,
    text: Vec<u8>,
    lines: Vec<String>,
    codes: Vec<Mac>,
    message: String,
    seconds: i64,
}

impl State {
    /// Makes the state of an empty log.
    fn new(repo: &Repository, page: ObjectId) -> Self {
        let root = Tree { entries: Vec::new() };
        Self {
            repo: read::as_written(repo),
            at: Expect::Absent,
            parent: None,
            root,
            page,
            text: None,
            unsynced: Vec::new(),
            new_branch: None,
            own: Own::default(),
            keeper: None,
            foreign: 0,
            tampering: Vec::new(),
            packed: objects::packed(repo),
            is_pruned: false,
            patience: Patience::default(),
            newest: None,
        }
    }

    /// Returns the page that takes the next events, and its text.
    fn open_page(&mut self) -> Result<(ObjectId, Vec<u8>)> {
        let mut text = match self.text.take() {
            Some(text) => text,
            None => self.note(self.page)?,
        };
        let mut page = self.page;
        // A note on our own history: it exists wherever the log does, and cannot be lost by a rewrite of the branch.
        if text.len() > PAGE_LIMIT
            && let Some(tip) = self.parent
        {
            page = tip;
            text = self.note(tip)?;
        }
        Ok((page, text))
    }

    fn note(&self, on: ObjectId) -> Result<Vec<u8>> {
        notes::find(&self.repo, &self.root, on)?.map_or(Ok(Vec::new()), |id| blob(&self.repo, id))
    }

    /// Continues from `log`, with its missing lines restored.
    fn adopt_log(&mut self, log: Log) -> Result<()> {
        let mut root = log.root;
        for (on, text) in log.completed {
            let blob = self.repo.write_blob(&text).context("cannot mend the run's log")?.detach();
            self.unsynced.push(blob);
            self.unsynced.extend(notes::put(&self.repo, &mut root, Note { on, blob })?);
        }
        self.at = Expect::Is(log.tip);
        self.parent = Some(log.base);
        self.root = root;
        self.text = None;
        Ok(())
    }
}

mod resume;
#[cfg(test)]
mod tests;
