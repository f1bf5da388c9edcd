//! What a client has asked for and not yet read.
//!
//! A client that sends and never reads must cost bounded memory: requests are taken only while few of them are open and few
//! answers wait to be written. Its notifications, and its end, are heard all the same.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::RequestId;
use tokio::sync::Notify;

/// Requests that are worked on at once, each on a thread that holds what it reads: on a busy machine 512 cost 120 MiB. A
/// call that waits for a run to end is one of them.
const OPEN: usize = 128;
/// Messages that wait to be written before no more requests are taken.
const WAITING: usize = 64;
/// How long nothing was written before a client that writes no more is taken for gone.
const STUCK: Duration = Duration::from_secs(2);

/// What is open between a client and its server.
#[derive(Default)]
pub struct Backlog {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    open: HashSet<RequestId>,
    waiting: usize,
    moved: Option<Instant>,
}

/// A message that waits to be written, for as long as this lives.
pub struct Waiting(Arc<Backlog>);

impl Backlog {
    /// A request is worked on.
    pub fn taken(&self, id: &RequestId) {
        self.state().open.insert(id.clone());
    }

    /// A request has its answer, which may still have to be written.
    pub fn answered(&self, id: &RequestId) {
        self.state().open.remove(id);
        self.changed.notify_one();
    }

    /// A message waits to be written.
    pub fn waiting(self: &Arc<Self>) -> Waiting {
        self.state().waiting += 1;
        Waiting(Arc::clone(self))
    }

    /// Something was written.
    pub fn moved(&self) {
        self.state().moved = Some(Instant::now());
    }

    /// Whether nothing was written for a while.
    pub fn is_stuck(&self) -> bool {
        self.state().moved.is_none_or(|moved| moved.elapsed() > STUCK)
    }

    /// Returns once more requests may be taken.
    pub async fn drained(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_drained() {
                return;
            }
            changed.await;
        }
    }

    fn is_drained(&self) -> bool {
        let state = self.state();
        state.open.len() < OPEN && state.waiting <= WAITING
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
        self.0.changed.notify_one();
    }
}
