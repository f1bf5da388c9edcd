//! Waiting for a run: progress on the way, questions put to whoever can be asked, and an end that the caller may choose.
//!
//! A wait starts nothing and stops nothing. Where it ends early, the run goes on.

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

/// Phases of an iteration, in order: how far it has come.
const PHASES: [(Phase, f64); 5] = [
    (Phase::Decompose, 0.0),
    (Phase::Execute, 1.0),
    (Phase::Verify, 2.0),
    (Phase::Review, 3.0),
    (Phase::Checkpoint, 4.0),
];
/// Steps of an iteration: its phases.
const STEPS: f64 = 5.0;
/// How far a phase that comes back moves the progress, which must grow with every notification.
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
    /// A wait for `run` that tells the caller of `context` about its progress, if it wants to know.
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
            progress: token.map(|token| Progress { token, peer: context.peer.clone(), said: None }),
        }
    }

    /// What the run comes to: its end, its questions, or how far it is at `until`.
    ///
    /// # Errors
    /// Where the run cannot be read, or the caller does not wait any longer.
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

    /// Does `ask`, unless the run goes on without it: somebody else may answer, or stop the run.
    ///
    /// # Errors
    /// Where the caller does not wait any longer.
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

/// The moment `seconds` from now.
#[must_use]
pub fn deadline(timeout: Option<Seconds>) -> Option<Instant> {
    timeout.map(|timeout| Instant::now() + timeout.duration())
}

/// Tells a caller how far a run has come.
struct Progress {
    token: ProgressToken,
    peer: Peer<RoleServer>,
    said: Option<Said>,
}

/// What was told last.
struct Said {
    progress: f64,
    total: f64,
    iteration: u32,
    phase: Word<Phase>,
}

impl Progress {
    async fn tell(&mut self, status: &Status) {
        let unchanged =
            |said: &Said| status.running && (said.iteration, &said.phase) == (status.iteration, &status.phase);
        if self.said.as_ref().is_some_and(unchanged) {
            return;
        }
        // What was said once as the total stays so, whatever budget the run is given meanwhile.
        let total = self.said.as_ref().map_or_else(|| total(status), |said| said.total);
        let least = self.said.as_ref().map_or(0.0, |said| said.progress + NUDGE);
        let progress = if status.completed.is_some() { total } else { steps(status).min(total - 0.5) }.max(least);
        let mut note = ProgressNotificationParam::new(self.token.clone(), progress);
        note.total = Some(total);
        note.message = Some(said(status));
        let _ = self.peer.notify_progress(note).await; // a client that is gone wants to know nothing
        self.said = Some(Said { progress, total, iteration: status.iteration, phase: status.phase.clone() });
    }
}

/// Steps of a run that takes all its iterations: intake, and the phases of each.
fn total(status: &Status) -> f64 {
    1.0 + f64::from(status.max_iterations.max(status.iteration)) * STEPS
}

/// Steps that were taken.
fn steps(status: &Status) -> f64 {
    if status.iteration == 0 {
        return 0.0;
    }
    let phase = PHASES.iter().find(|(phase, _)| status.phase.known() == Some(*phase)).map_or(0.0, |(_, steps)| *steps);
    1.0 + f64::from(status.iteration - 1) * STEPS + phase
}

/// Where a run stands, in a line.
#[must_use]
pub fn said(status: &Status) -> String {
    match (&status.stop_reason, status.iteration) {
        (Some(reason), _) => format!("{}: {reason}", status.state),
        (None, 0) => format!("{}: {}", status.state, status.phase),
        (None, iteration) => {
            format!("{}: iteration {iteration}/{}, {}", status.state, status.max_iterations, status.phase)
        }
    }
}
