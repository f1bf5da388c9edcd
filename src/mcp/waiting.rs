//! Waits for a run: reports progress, asks the caller the run's questions, and ends early if the caller wants that.
//!
//! A wait neither starts nor stops a run: if it ends early, the run goes on.

use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::{Peer, RequestContext};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::scope::Scope;
use crate::app::{self, LOOK};
use crate::error::{Error, Result};
use crate::run::amount::Seconds;
use crate::run::goal::RunId;
use crate::run::view::{RunResult, Status};
use crate::run::{Phase, Word};

/// Phases of an iteration, with the number of steps before each.
const PHASES: [(Phase, f64); 5] = [
    (Phase::Decompose, 0.0),
    (Phase::Execute, 1.0),
    (Phase::Verify, 2.0),
    (Phase::Review, 3.0),
    (Phase::Checkpoint, 4.0),
];
/// Number of steps of an iteration, one per phase.
const STEPS: f64 = 5.0;
/// Progress of a phase that is repeated: each notification must have a larger value than the one before.
const NUDGE: f64 = 0.01;

/// Waits for one run on behalf of one call.
pub struct Wait<'a> {
    scope: &'a Arc<Scope>,
    run: RunId,
    /// Cancelled with the call.
    cancelled: CancellationToken,
    /// Cancelled once the client is gone.
    closed: CancellationToken,
    progress: Option<Progress>,
}

impl<'a> Wait<'a> {
    /// Makes a wait for `run` that notifies the caller of `context` of progress if it asked for that.
    pub fn new(
        scope: &'a Arc<Scope>,
        run: RunId,
        context: &RequestContext<RoleServer>,
        closed: &CancellationToken,
    ) -> Self {
        let token = context.meta.get_progress_token();
        Self {
            scope,
            run,
            cancelled: context.ct.clone(),
            closed: closed.clone(),
            progress: token.map(|token| Progress { token, peer: context.peer.clone(), last: None }),
        }
    }

    /// Waits until the run ends or has questions, or until `until`, and returns its result.
    ///
    /// # Errors
    /// Fails if the run cannot be read, or if the call is cancelled or the client is gone.
    pub async fn result(&mut self, until: Option<Instant>) -> Result<RunResult> {
        let mut watcher = self.scope.watch(&self.run)?;
        loop {
            let id = self.run.clone();
            let status = self.scope.read(move |site| app::status(site, Some(id.as_str()))).await?;
            if let Some(progress) = &mut self.progress {
                progress.tell(&status).await;
            }
            if !status.running {
                break;
            }
            let mut moved = false;
            while !moved && !is_over(until) {
                self.pause().await?;
                moved = watcher.moved(&*self.scope.site()?);
            }
            if !moved {
                break;
            }
        }
        let id = self.run.clone();
        self.scope.read(move |site| app::result(site, Some(id.as_str()))).await
    }

    /// Waits for `ask`; returns `None` if the run changes before, since another process may answer or stop it.
    ///
    /// # Errors
    /// Fails if the call is cancelled or the client is gone.
    pub async fn meanwhile<T>(&self, ask: impl Future<Output = T>) -> Result<Option<T>> {
        let mut watcher = self.scope.watch(&self.run)?;
        let mut ask = std::pin::pin!(ask);
        loop {
            tokio::select! {
                answer = &mut ask => return Ok(Some(answer)),
                paused = self.pause() => paused?,
            }
            if watcher.moved(&*self.scope.site()?) {
                return Ok(None);
            }
        }
    }

    async fn pause(&self) -> Result<()> {
        let over = |why: &str| {
            Error::failed(format!("{why}; {} goes on", self.run))
                .hint(format!("orchestrate_result with run_id \"{}\" shows what it comes to", self.run))
        };
        tokio::select! {
            () = tokio::time::sleep(LOOK) => Ok(()),
            () = self.cancelled.cancelled() => Err(over("the call was cancelled")),
            () = self.closed.cancelled() => Err(over("the client is gone")),
        }
    }
}

fn is_over(until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
}

/// Returns the end of `timeout` from now.
#[must_use]
pub fn deadline(timeout: Option<Seconds>) -> Option<Instant> {
    timeout.map(|timeout| Instant::now() + timeout.duration())
}

/// Notifies a caller of progress.
struct Progress {
    token: ProgressToken,
    peer: Peer<RoleServer>,
    last: Option<Reported>,
}

/// The last notification.
struct Reported {
    progress: f64,
    total: f64,
    iteration: u32,
    phase: Word<Phase>,
}

impl Progress {
    async fn tell(&mut self, status: &Status) {
        let unchanged =
            |last: &Reported| status.running && (last.iteration, &last.phase) == (status.iteration, &status.phase);
        if self.last.as_ref().is_some_and(unchanged) {
            return;
        }
        // The total does not change during a wait, even if the run's budget does.
        let total = self.last.as_ref().map_or_else(|| total(status), |last| last.total);
        let least = self.last.as_ref().map_or(0.0, |last| last.progress + NUDGE);
        let progress = if status.completed.is_some() { total } else { steps(status).min(total - 0.5) }.max(least);
        let mut note = ProgressNotificationParam::new(self.token.clone(), progress);
        note.total = Some(total);
        note.message = Some(status_line(status));
        let _ = self.peer.notify_progress(note).await; // fails only if the client is gone
        self.last = Some(Reported { progress, total, iteration: status.iteration, phase: status.phase.clone() });
    }
}

/// Returns the steps of a run that takes all its iterations: intake, and the phases of each.
fn total(status: &Status) -> f64 {
    1.0 + f64::from(status.max_iterations.max(status.iteration)) * STEPS
}

/// Returns the steps so far.
fn steps(status: &Status) -> f64 {
    if status.iteration == 0 {
        return 0.0;
    }
    let phase = PHASES.iter().find(|(phase, _)| status.phase.known() == Some(*phase)).map_or(0.0, |(_, steps)| *steps);
    1.0 + f64::from(status.iteration - 1) * STEPS + phase
}

/// Formats a run's status in one line.
#[must_use]
pub fn status_line(status: &Status) -> String {
    match (&status.stop_reason, status.iteration) {
        (Some(reason), _) => format!("{}: {reason}", status.state),
        (None, 0) => format!("{}: {}", status.state, status.phase),
        (None, iteration) => {
            format!("{}: iteration {iteration}/{}, {}", status.state, status.max_iterations, status.phase)
        }
    }
}
