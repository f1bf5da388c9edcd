//! Puts facts on record: takes secrets out of them, stamps them, folds them, flushes them as a group.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::ledger::{Batch, Ledger};
use crate::redact::Redactor;
use crate::run::Run;
use crate::run::event::{Event, Fact, SessionId, Tampered, Timestamp};

/// How long a fact that nothing waits for may stay off the record.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Tells the time. Handed in, so that tests own it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Sees every fact of a run as it is recorded.
pub trait Watch: Send + Sync {
    /// `event` was recorded; `run` is the run with it.
    fn event(&self, run: &Run, event: &Event);
}

/// Sees nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn event(&self, _run: &Run, _event: &Event) {}
}

/// The one writer of a run's events.
pub struct Recorder {
    ledger: Arc<dyn Ledger>,
    clock: Clock,
    /// Seconds that the record was ahead of the clock when it was opened.
    ahead: f64,
    session: SessionId,
    redactor: Redactor,
    watch: Arc<dyn Watch>,
    state: Mutex<Recorded>,
    /// Held over a whole flush: batches reach the ledger in order.
    flushing: Mutex<()>,
    late: Arc<Notify>,
}

struct Recorded {
    run: Run,
    pending: Vec<Event>,
    /// Since when the oldest of them waits.
    since: Instant,
}

/// How soon a fact must be on record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// With the next group.
    Later,
    /// Before the loop goes on.
    Now,
    /// Before the loop goes on, and through a power cut: it was paid for.
    Durable,
}

fn weight(fact: &Fact) -> Weight {
    match fact {
        Fact::PhaseChanged(_)
        | Fact::IntakeStarted(_)
        | Fact::WorktreeReady(_)
        | Fact::Provisioned(_)
        | Fact::IterationStarted(_)
        | Fact::AgentStarted(_)
        | Fact::Aggregated(_)
        | Fact::IterationFinished(_) => Weight::Later,
        Fact::AgentFinished(_) | Fact::Verified(_) | Fact::Checkpointed(_) | Fact::RunFinished(_) => Weight::Durable,
        _ => Weight::Now,
    }
}

impl Recorder {
    /// A recorder that goes on from `run`. Must be made inside a tokio runtime: it flushes late facts by itself.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        run: Run,
        session: SessionId,
        redactor: Redactor,
        clock: Clock,
        watch: Arc<dyn Watch>,
    ) -> Arc<Self> {
        let late = Arc::new(Notify::new());
        // An event that is dated ahead of this clock must not make time stand still, and with it the budget of seconds.
        let ahead = run.now.since(clock()).max(0.0);
        let recorder = Arc::new(Self {
            ledger,
            clock,
            ahead,
            session,
            redactor,
            watch,
            state: Mutex::new(Recorded { run, pending: Vec::new(), since: Instant::now() }),
            flushing: Mutex::new(()),
            late: Arc::clone(&late),
        });
        tokio::spawn(flush_late(Arc::downgrade(&recorder), late));
        recorder
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)().plus(self.ahead)
    }

    /// Looks at the run as it stands.
    pub fn with<T>(&self, look: impl FnOnce(&Run) -> T) -> T {
        look(&self.state().run)
    }

    /// Records `facts` as one group, and returns once those that the loop must not go on without are on record.
    pub async fn record(self: &Arc<Self>, facts: impl IntoIterator<Item = Fact>) -> Result<()> {
        let facts: Vec<Fact> = facts.into_iter().collect();
        self.record_with(|_| (facts, ())).await
    }

    /// Records what `decide` makes of the run as it stands, with nothing recorded in between.
    pub async fn record_with<T>(self: &Arc<Self>, decide: impl FnOnce(&Run) -> (Vec<Fact>, T)) -> Result<T> {
        let (heaviest, value) = self.stamp(decide);
        match heaviest {
            None => {}
            Some(Weight::Later) => self.late.notify_one(),
            Some(Weight::Now | Weight::Durable) => self.flush().await?,
        }
        Ok(value)
    }

    /// Folds `facts`, and leaves them to the next flush: the caller makes that before it acts on them.
    pub fn stage(&self, facts: impl IntoIterator<Item = Fact>) {
        self.stage_with(|_| (facts.into_iter().collect(), ()));
    }

    /// Stages what `decide` makes of the run as it stands, with nothing recorded in between.
    pub fn stage_with<T>(&self, decide: impl FnOnce(&Run) -> (Vec<Fact>, T)) -> T {
        let (staged, value) = self.stamp(decide);
        if staged.is_some() {
            self.late.notify_one();
        }
        value
    }

    /// Puts everything that is waiting on record where the loop must not go on without some of it.
    pub async fn flush_staged(self: &Arc<Self>) -> Result<()> {
        let must = self.state().pending.iter().any(|event| weight(&event.fact) > Weight::Later);
        if must { self.flush().await } else { Ok(()) }
    }

    /// Puts everything that is waiting on record.
    pub async fn flush(self: &Arc<Self>) -> Result<()> {
        let recorder = Arc::clone(self);
        let flushed = tokio::task::spawn_blocking(move || recorder.flush_now()).await;
        flushed.map_err(|error| Error::failed("the event log's writer died").because(error))?
    }

    fn stamp<T>(&self, decide: impl FnOnce(&Run) -> (Vec<Fact>, T)) -> (Option<Weight>, T) {
        let mut state = self.state();
        let (facts, value) = decide(&state.run);
        let heaviest = facts.iter().map(weight).max();
        for fact in facts {
            let fact = self.without_secrets(fact);
            let event = Event {
                seq: state.run.seq + 1,
                ts: self.now().max(state.run.now),
                session: self.session.clone(),
                iteration: iteration_of(&state.run, &fact),
                fact,
            };
            state.run.apply(&event);
            self.watch.event(&state.run, &event);
            if state.pending.is_empty() {
                state.since = Instant::now();
            }
            state.pending.push(event);
        }
        (heaviest, value)
    }

    /// Ends the recording: everything is on record, and the record is what was recorded, whatever was done to it.
    pub async fn close(self: &Arc<Self>) -> Result<()> {
        let recorder = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || {
            recorder.flush_now()?;
            recorder.ledger.settle()?;
            recorder.report_tampering();
            recorder.flush_now()
        });
        closed.await.map_err(|error| Error::failed("the event log's writer died").because(error))?
    }

    /// Puts on record what other programs did to it.
    fn report_tampering(&self) {
        let remarks = self.ledger.tampering();
        if !remarks.is_empty() {
            self.stamp(|_| (vec![Tampered { remarks }.into()], ()));
        }
    }

    /// The fact as it may be on the record. A run's options stay as they were given: it is resumed with them.
    fn without_secrets(&self, fact: Fact) -> Fact {
        if matches!(fact, Fact::RunStarted(_) | Fact::RunResumed(_)) {
            return fact;
        }
        fact.with_texts(&|text| match self.redactor.clean(text) {
            Cow::Owned(clean) => Some(clean),
            Cow::Borrowed(_) => None,
        })
    }

    fn flush_now(&self) -> Result<()> {
        let _order = self.flushing.lock().unwrap_or_else(PoisonError::into_inner);
        while self.flush_pending()? {
            self.report_tampering();
        }
        Ok(())
    }

    /// Flushes what is waiting; whether anything was.
    fn flush_pending(&self) -> Result<bool> {
        let (events, snapshot) = {
            let mut state = self.state();
            if state.pending.is_empty() {
                return Ok(false);
            }
            (std::mem::take(&mut state.pending), state.run.snapshot())
        };
        let durable = events.iter().any(|event| weight(&event.fact) == Weight::Durable);
        let written = self.ledger.append(&Batch { events: &events, snapshot: &snapshot, durable });
        if written.is_err() {
            let mut state = self.state();
            let newer = std::mem::replace(&mut state.pending, events);
            state.pending.extend(newer);
        }
        written.map(|()| true)
    }

    fn state(&self) -> MutexGuard<'_, Recorded> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The iteration that `fact` belongs to; none for facts of the whole run.
fn iteration_of(run: &Run, fact: &Fact) -> Option<u32> {
    let current = run.iteration().map(|iteration| iteration.number);
    match fact {
        Fact::IterationStarted(_) => Some(current.unwrap_or(0) + 1),
        Fact::RunStarted(_)
        | Fact::RunResumed(_)
        | Fact::RunFinished(_)
        | Fact::RunCancelled(_)
        | Fact::BaselineTaken(_)
        | Fact::Steered(_)
        | Fact::BudgetChanged(_)
        | Fact::Unheard(_)
        | Fact::Tampered(_) => None,
        _ => current,
    }
}

async fn flush_late(recorder: Weak<Recorder>, late: Arc<Notify>) {
    loop {
        late.notified().await;
        let mut due = Instant::now() + FLUSH_AFTER;
        let recorder = loop {
            tokio::time::sleep_until(due).await;
            let Some(recorder) = recorder.upgrade() else { return };
            // What waited then may be on record by now, and what waits since is not due.
            let since = recorder.state().since;
            if since + FLUSH_AFTER <= Instant::now() {
                break recorder;
            }
            due = since + FLUSH_AFTER;
        };
        // A failure stays with the events: the next flush that somebody waits for meets it again and reports it.
        if let Err(error) = recorder.flush().await {
            tracing::warn!("events wait to be recorded: {error}");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.late.notify_one();
    }
}
