//! Workers: started side by side, each answer put on record the moment it is there.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Engine;
use super::call::{Answer, Call};
use super::recorder::Recorder;
use super::redact::Redactor;
use crate::agent::prompts;
use crate::error::{Context as _, Error, Result};
use crate::ledger::Ledger;
use crate::run::Run;
use crate::run::event::{Aggregated, Fact, SubagentFailed, SubagentFinished, SubagentStarted};
use crate::run::goal::Role;
use crate::run::work::{FailureKind, one_line};

/// Longest preview of a report, in characters.
const PREVIEW: usize = 200;

impl Engine {
    /// Starts workers on `start`; with none to start, waits until one in flight is done.
    pub(super) async fn work(&self, start: Vec<String>, flight: &mut JoinSet<Result<()>>) -> Result<()> {
        if start.is_empty() {
            return match flight.join_next().await {
                Some(landed) => landed.context("a worker's task died")?,
                None => Err(Error::failed("the record says that a worker is running, and none is")),
            };
        }
        for id in start {
            let worker = self.hire(&id).await?;
            flight.spawn(worker.toil());
        }
        Ok(())
    }

    /// Puts an attempt at the subgoal on record as begun.
    async fn hire(&self, id: &str) -> Result<Worker> {
        let (prompt, attempt, path) = self.brief_worker(id)?;
        let scratch = self.parts.ledger.scratch().join(&path);
        let transcript =
            scratch.parent().map(std::fs::create_dir_all).is_some_and(|made| made.is_ok()).then_some(scratch);
        let subgoal = Some(id.to_owned());
        let started = |_: &Run| vec![Fact::from(SubagentStarted { id: id.to_owned(), attempt })];
        let call = self.begin(Role::Subagent, prompt, subgoal, attempt, transcript, started).await?;
        Ok(Worker {
            call,
            id: id.to_owned(),
            attempt,
            path,
            ledger: Arc::clone(&self.parts.ledger),
            recorder: Arc::clone(&self.recorder),
            redactor: self.parts.redactor.clone(),
        })
    }

    /// The worker's prompt, the attempt's number and the transcript's path.
    fn brief_worker(&self, id: &str) -> Result<(String, u32, String)> {
        let found = self.recorder.with(|run| {
            let iteration = run.iteration()?;
            let plan = iteration.plan.as_ref()?;
            let subgoal = plan.subgoals.iter().find(|subgoal| subgoal.id == id)?.clone();
            let task = iteration.tasks.iter().find(|task| task.id == id)?.clone();
            Some((iteration.number, plan.subgoals.clone(), subgoal, task))
        });
        let (number, siblings, subgoal, task) =
            found.ok_or_else(|| Error::failed(format!("the plan has no subgoal '{id}'")))?;
        let attempt = task.attempts + 1;
        let prompt = self.brief(|brief| {
            prompts::work(brief, &subgoal, &siblings, attempt, task.begun || number > 1, task.error.as_deref())
        });
        Ok((prompt, attempt, format!("iter{number}/{id}/{attempt}.out")))
    }
}

/// One attempt at one subgoal.
struct Worker {
    call: Call,
    id: String,
    attempt: u32,
    path: String,
    ledger: Arc<dyn Ledger>,
    recorder: Arc<Recorder>,
    redactor: Redactor,
}

impl Worker {
    /// Makes the call, keeps the transcript, records the outcome; after the last one, the aggregate too.
    async fn toil(self) -> Result<()> {
        let spool = self.call.request.transcript.clone();
        let (id, attempt) = (self.id, self.attempt);
        let Answer { result, finished } = self.call.make(&self.recorder, &self.redactor).await;
        let report = result.as_ref().map_or_else(|failure| failure.message.clone(), |response| response.text.clone());
        let output_path = store(self.ledger, self.path, spool, report, self.redactor).await;
        let outcome: Option<Fact> = match result {
            Ok(response) => Some(
                SubagentFinished {
                    id,
                    attempt,
                    preview: one_line(&response.text, PREVIEW),
                    chars: response.text.chars().count() as u64,
                    output: response.text,
                    output_path,
                }
                .into(),
            ),
            // Neither a limit, nor a stop, nor a missing login says anything about the attempt.
            Err(failure)
                if failure.retry_at.is_some()
                    || failure.kind.is_permanent()
                    || failure.kind == FailureKind::Cancelled =>
            {
                None
            }
            Err(failure) => Some(SubagentFailed { id, attempt, error: failure.to_string(), output_path }.into()),
        };
        self.recorder
            .record_with(|run| {
                let settled = outcome.as_ref().and_then(|outcome| aggregated(run, outcome));
                (std::iter::once(finished.into()).chain(outcome).chain(settled).collect(), ())
            })
            .await
    }
}

/// The aggregate, where `outcome` settles the iteration's last open subgoal.
fn aggregated(run: &Run, outcome: &Fact) -> Option<Fact> {
    let (id, attempts, chars) = match outcome {
        Fact::SubagentFinished(data) => (&data.id, u32::MAX, data.chars),
        Fact::SubagentFailed(data) => (&data.id, data.attempt, 0),
        _ => return None,
    };
    let allowed = run.budget().max_task_retries + 1;
    let others = run.iteration()?.tasks.iter().filter(|task| task.id != *id);
    let mut total = Aggregated { ok: 0, failed: 0, chars };
    for task in others {
        match &task.output {
            Some(output) => {
                total.ok += 1;
                total.chars += output.chars().count() as u64;
            }
            None if !task.running && task.attempts >= allowed => total.failed += 1,
            None => return None,
        }
    }
    match attempts {
        u32::MAX => total.ok += 1,
        attempts if attempts >= allowed => total.failed += 1,
        _ => return None,
    }
    Some(total.into())
}

/// Moves the transcript from where it was streamed to into the record: what the agent printed, or, for one that prints
/// nothing, its report. A transcript that cannot be kept is no reason to lose the answer.
async fn store(
    ledger: Arc<dyn Ledger>,
    path: String,
    spool: Option<std::path::PathBuf>,
    report: String,
    redactor: Redactor,
) -> Option<String> {
    let kept = tokio::task::spawn_blocking(move || {
        let printed = spool.as_ref().and_then(|spool| std::fs::read(spool).ok()).filter(|text| !text.is_empty());
        let text = printed.map_or(report, |bytes| String::from_utf8_lossy(&bytes).into_owned());
        ledger.store_output(&path, redactor.clean(&text).as_bytes())?;
        if let Some(spool) = spool {
            let _ = std::fs::remove_file(spool); // it is on record; a leftover goes with the run's folder
        }
        Ok::<_, Error>(path)
    });
    match kept.await {
        Ok(Ok(path)) => Some(path),
        Ok(Err(error)) => {
            tracing::warn!("a transcript was not kept: {error}");
            None
        }
        Err(_) => None,
    }
}
