//! Records facts: removes secrets from them, stamps them, folds them into the run, and flushes them as a group.

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

/// Time that a fact which nothing waits for may stay unrecorded.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Source of the time, passed in so that tests control it.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Observes every fact of a run as it is recorded.
pub trait Watch: Send + Sync {
    /// Is called after `event` was recorded; `run` includes it.
    fn event(&self, run: &Run, event: &Event);
}

/// Ignores every event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn event(&self, _run: &Run, _event: &Event) {}
}

/// The one writer of a run's events.
pub struct Recorder {
    ledger: Arc<dyn Ledger>,
    clock: Clock,
    /// Seconds by which the record was ahead of the clock when it was opened.
    ahead: f64,
    session: SessionId,
    redactor: Redactor,
    watch: Arc<dyn Watch>,
    state: Mutex<Recorded>,
    /// Lock over a whole flush, so that batches reach the ledger in order.
    flushing: Mutex<()>,
    late: Arc<Notify>,
}

struct Recorded {
    run: Run,
    pending: Vec<Event>,
    /// Time since which the oldest pending event waits.
    since: Instant,
}

/// Urgency with which a fact must be recorded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    /// It may wait for the next group.
    Later,
    /// It must be recorded before the loop goes on.
    Now,
    /// It must be recorded before the loop goes on and survive a power cut, as it was paid for.
    Durable,
}

fn urgency(fact: &Fact) -> Urgency {
    match fact {
        Fact::PhaseChanged(_)
        | Fact::IntakeStarted(_)
        | Fact::WorktreeReady(_)
        | Fact::Provisioned(_)
        | Fact::IterationStarted(_)
        | Fact::AgentStarted(_)
        | Fact::Aggregated(_)
        | Fact::IterationFinished(_) => Urgency::Later,
        Fact::AgentFinished(_) | Fact::Verified(_) | Fact::Checkpointed(_) | Fact::RunFinished(_) => Urgency::Durable,
        _ => Urgency::Now,
    }
}

impl Recorder {
    /// Returns a recorder that continues from `run`. It must be called in a tokio runtime, as late facts are flushed by a
    /// task.
    pub fn new(
        ledger: Arc<dyn Ledger>,
        run: Run,
        session: SessionId,
        redactor: Redactor,
        clock: Clock,
        watch: Arc<dyn Watch>,
    ) -> Arc<Self> {
        let late = Arc::new(Notify::new());
        // An event that is dated ahead of this clock must not stop the time, nor with it the budget of seconds.
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

    /// Returns the time, which is never before that of the newest event.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.clock)().plus(self.ahead)
    }

    /// Calls `look` with the current run.
    pub fn with<T>(&self, look: impl FnOnce(&Run) -> T) -> T {
        look(&self.state().run)
    }

    /// Records `facts` as one group, and returns once those are written that the loop must not go on without.
    pub async fn record(self: &Arc<Self>, facts: impl IntoIterator<Item = Fact>) -> Result<()> {
        let facts: Vec<Fact> = facts.into_iter().collect();
        self.record_with(|_| (facts, ())).await
    }

    /// Records the facts that `decide` returns for the current run, with nothing recorded in between.
    pub async fn record_with<T>(self: &Arc<Self>, decide: impl FnOnce(&Run) -> (Vec<Fact>, T)) -> Result<T> {
        let (most_urgent, value) = self.stamp(decide);
        match most_urgent {
            None => {}
            Some(Urgency::Later) => self.late.notify_one(),
            Some(Urgency::Now | Urgency::Durable) => self.flush().await?,
        }
        Ok(value)
    }

    /// Folds `facts` and leaves them to the next flush, which the caller makes before it acts on them.
    pub fn stage(&self, facts: impl IntoIterator<Item = Fact>) {
        self.stage_with(|_| (facts.into_iter().collect(), ()));
    }

    /// Stages the facts that `decide` returns for the current run, with nothing recorded in between.
    pub fn stage_with<T>(&self, decide: impl FnOnce(&Run) -> (Vec<Fact>, T)) -> T {
        let (staged, value) = self.stamp(decide);
        if staged.is_some() {
            self.late.notify_one();
        }
        value
    }

    /// Flushes all pending events if the loop must not go on without one of them.
    pub async fn flush_staged(self: &Arc<Self>) -> Result<()> {
        let must = self.state().pending.iter().any(|event| urgency(&event.fact) > Urgency::Later);
        if must { self.flush().await } else { Ok(()) }
    }

    /// Flushes all pending events.
    pub async fn flush(self: &Arc<Self>) -> Result<()> {
        let recorder = Arc::clone(self);
        let flushed = tokio::task::spawn_blocking(move || recorder.flush_now()).await;
        flushed.map_err(|error| Error::failed("the event log's writer died").because(error))?
    }

    fn stamp<T>(&self, decide: impl FnOnce(&Run) -> (Vec<Fact>, T)) -> (Option<Urgency>, T) {
        let mut state = self.state();
        let (facts, value) = decide(&state.run);
        let most_urgent = facts.iter().map(urgency).max();
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
        (most_urgent, value)
    }

    /// Ends the recording: flushes all events, and rewrites the record if other programs changed it.
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

    /// Records what other programs did to the record.
    fn report_tampering(&self) {
        let remarks = self.ledger.tampering();
        if !remarks.is_empty() {
            self.stamp(|_| (vec![Tampered { remarks }.into()], ()));
        }
    }

    /// Removes secrets from `fact`. The options of a run stay as given, since it is resumed with them.
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

    /// Flushes the pending events. Returns whether there were any.
    fn flush_pending(&self) -> Result<bool> {
        let (events, snapshot) = {
            let mut state = self.state();
            if state.pending.is_empty() {
                return Ok(false);
            }
            (std::mem::take(&mut state.pending), state.run.snapshot())
        };
        let durable = events.iter().any(|event| urgency(&event.fact) == Urgency::Durable);
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

/// Returns the iteration that `fact` belongs to; `None` for facts of the whole run.
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
            // The events that waited then may be recorded by now, and newer ones are not due yet.
            let since = recorder.state().since;
            if since + FLUSH_AFTER <= Instant::now() {
                break recorder;
            }
            due = since + FLUSH_AFTER;
        };
        // After a failure the events stay pending: the next flush that is awaited meets it again and reports it.
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
