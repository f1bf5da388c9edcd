//! Waiting for usage limits, those of other runs included.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;

use super::Engine;
use crate::error::{Context as _, Result};
use crate::run::Run;
use crate::run::event::{Fact, Timestamp, Waiting};
use crate::run::goal::Role;

/// Time after which a wait looks at the clock again: timers stand still while a machine sleeps.
pub(super) const SLICE: Duration = Duration::from_secs(30);

impl Engine {
    /// Records limits that other runs of this user have met since.
    pub(super) async fn record_shared_limits(&self) -> Result<()> {
        let now = self.recorder.now();
        let facts = self.recorder.with(|run| {
            let over = run.ended.is_some() || run.cancelled;
            let backends: BTreeSet<&str> =
                Role::ALL.iter().filter(|_| !over).map(|role| run.options.agent_for(*role).backend.as_str()).collect();
            let news = backends.into_iter().filter_map(|backend| {
                let until = self.parts.limits.reset_of(backend, now)?;
                let known = run.pauses.get(backend).is_some_and(|pause| pause.until >= until);
                let reason = "another run met a usage limit".to_owned();
                (!known).then(|| Waiting { until, backend: backend.to_owned(), reason, shared: true }.into())
            });
            news.collect::<Vec<Fact>>()
        });
        if facts.is_empty() { Ok(()) } else { self.recorder.record(facts).await }
    }

    /// Waits until `until`, for a slice at most, or until a worker finishes or the run is cancelled.
    pub(super) async fn wait(&self, until: Timestamp, backend: &str, flight: &mut JoinSet<Result<()>>) -> Result<()> {
        let announce = |run: &Run| {
            let pause = run.pauses.get(backend);
            let known = pause.is_some_and(|pause| pause.announced == Some(until));
            let reason = pause.map(|pause| pause.reason.clone()).unwrap_or_default();
            let fact = Waiting { until, backend: backend.to_owned(), reason, shared: false }.into();
            (if known { Vec::new() } else { vec![fact] }, ())
        };
        self.recorder.record_with(announce).await?;
        let left = Duration::from_secs_f64(until.since(self.recorder.now()).max(0.0)).min(SLICE);
        let is_quiet = flight.is_empty();
        tokio::select! {
            () = tokio::time::sleep(left) => if is_quiet { self.blocking(|ledger| ledger.guard()).await } else { Ok(()) },
            () = self.parts.cancel.cancelled() => Ok(()),
            Some(landed) = flight.join_next() => landed.context("a worker's task died")?,
        }
    }
}
