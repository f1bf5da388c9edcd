//! Bounds the work for a client that does not read its answers.
//!
//! A client that sends and never reads must cost bounded memory: requests are accepted only while few are open and few
//! answers wait to be written. Notifications and the end of input are read nevertheless.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::RequestId;
use tokio::sync::Notify;

/// Number of requests in progress at once, each on a thread that holds the data it reads: on a busy machine 512 cost 120
/// MiB. A call that waits for a run to end is one of them.
const OPEN: usize = 128;
/// Number of unwritten messages above which no request is accepted.
const WAITING: usize = 64;
/// Time without a write after which a client that closed its output is taken for gone.
const STUCK: Duration = Duration::from_secs(2);

/// Open requests and unwritten messages of a client.
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

/// An unwritten message; dropping this removes it from the backlog.
pub struct Waiting(Arc<Backlog>);

impl Backlog {
    /// Records that a request is in progress.
    pub fn taken(&self, id: &RequestId) {
        self.state().open.insert(id.clone());
    }

    /// Records that a request has its answer, which may still be unwritten.
    pub fn answered(&self, id: &RequestId) {
        self.state().open.remove(id);
        self.changed.notify_one();
    }

    /// Records an unwritten message.
    pub fn waiting(self: &Arc<Self>) -> Waiting {
        self.state().waiting += 1;
        Waiting(Arc::clone(self))
    }

    /// Records that a message was written.
    pub fn moved(&self) {
        self.state().moved = Some(Instant::now());
    }

    /// Reports whether no message was written for a while.
    pub fn is_stuck(&self) -> bool {
        self.state().moved.is_none_or(|moved| moved.elapsed() > STUCK)
    }

    /// Waits until another request may be accepted.
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
