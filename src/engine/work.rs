//! Workers: they run side by side, and each answer is recorded as soon as it is complete.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::Engine;
use super::call::{Answer, Call, spool};
use super::on_ledger::on_ledger;
use super::provision::Provisioner;
use super::recorder::Recorder;
use crate::agent::prompts::{self, Attempt};
use crate::agent::{Response, Transcript};
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Leaving, Ledger, Left, Opening, Task};
use crate::redact::Redactor;
use crate::run::Run;
use crate::run::event::{AgentFinished, Aggregated, Fact, SubagentFailed, SubagentFinished, SubagentStarted};
use crate::run::goal::{AgentChoice, Isolation, Role};
use crate::run::id::SubgoalId;
use crate::run::message::{self, Work};
use crate::run::work::{Failure, FailureKind, Subgoal, one_line};

/// Longest preview of a report, in characters.
const PREVIEW: usize = 200;

impl Engine {
    /// Starts workers for the subgoals in `start`; if it is empty, waits until a running worker is done.
    pub(super) async fn work(&self, start: Vec<String>, flight: &mut JoinSet<Result<()>>) -> Result<()> {
        if start.is_empty() {
            let finished = flight.join_next().await;
            // A run that has failed already winds down for its first reason.
            let has_failed = self.recorder.with(|run| run.error.is_some());
            return match finished {
                Some(finished) => match finished.context("a worker's task died")? {
                    Err(error) if has_failed => {
                        tracing::warn!("a worker could not work: {error}");
                        Ok(())
                    }
                    finished => finished,
                },
                None => Err(Error::failed("the record says that a worker is running, and none is")),
            };
        }
        let mut workers = Vec::new();
        let all = start.iter().try_for_each(|id| self.stage_worker(id).map(|worker| workers.push(worker)));
        // All starts are recorded as one group before any worker begins.
        self.recorder.flush_staged().await?;
        for worker in workers {
            flight.spawn(worker.run());
        }
        all
    }

    /// Returns the task whose worker was stopped in the run's own worktree, where a single worker worked in older versions,
    /// and the run's newest commit.
    pub(super) fn worked_in_workspace(&self) -> Option<(Task, String)> {
        let edits_files = self.edits_files(Role::Subagent);
        self.recorder.with(|run| {
            let iteration = run.iteration().filter(|iteration| iteration.checkpoint.is_none())?;
            let [task] = &iteration.tasks[..] else { return None };
            let apart = edits_files && run.options.isolation == Isolation::Worktree;
            let is_left =
                task.begun && task.output.is_none() && task.commit.is_none() && iteration.integration.is_none();
            let task = Task { iteration: iteration.number, subgoal: task.id.to_string() };
            (apart && run.touched && is_left).then(|| (task, run.tip.commit.to_string()))
        })
    }

    /// Stages the start of an attempt at subgoal `id` and returns its worker.
    fn stage_worker(&self, id: &str) -> Result<Worker> {
        let Assignment { subgoal, prompt, attempt, path, own_worktree } = self.assign(id)?;
        let transcript = spool(&*self.parts.ledger, &self.parts.redactor, &path);
        let (started, of) = (SubagentStarted { id: subgoal.clone(), attempt }, Some(subgoal.clone()));
        let started = |_: &Run| vec![Fact::from(started)];
        let call = self.begin_call(Role::Subagent, prompt, of, attempt, transcript, started)?;
        Ok(Worker {
            call,
            id: subgoal,
            attempt,
            path,
            own_worktree,
            ledger: Arc::clone(&self.parts.ledger),
            provisioner: self.provisioner.clone(),
            recorder: Arc::clone(&self.recorder),
            redactor: self.parts.redactor.clone(),
        })
    }

    /// Writes the prompt of a worker and determines where it works.
    fn assign(&self, id: &str) -> Result<Assignment> {
        let edits_files = self.edits_files(Role::Subagent);
        let found = self.recorder.with(|run| {
            let iteration = run.iteration()?;
            let plan = iteration.plan.as_ref()?;
            let subgoal = plan.subgoals.iter().find(|subgoal| subgoal.id == id)?.clone();
            let task = iteration.tasks.iter().find(|task| task.id == id)?.clone();
            let apart = edits_files && run.options.isolation == Isolation::Worktree;
            let own_worktree = apart.then(|| OwnWorktree {
                task: Task { iteration: iteration.number, subgoal: id.to_owned() },
                tip: run.tip.commit.to_string(),
                earlier: run.earlier_work(&subgoal).map(ToOwned::to_owned),
                subgoal: subgoal.clone(),
            });
            Some((iteration.number, plan.subgoals.clone(), subgoal, task, own_worktree))
        });
        let (number, siblings, subgoal, task, own_worktree) =
            found.ok_or_else(|| Error::failed(format!("the plan has no subgoal '{id}'")))?;
        let attempt = task.attempts + 1;
        let prompt = self.with_brief(|brief| {
            let attempt = Attempt {
                number: attempt,
                carry_on: task.begun || (number > 1 && own_worktree.is_none()),
                error: task.error.as_deref(),
                isolated: own_worktree.is_some(),
                earlier: own_worktree.as_ref().and_then(|own_worktree| own_worktree.earlier.as_deref()),
            };
            prompts::work(brief, &subgoal, &siblings, attempt)
        });
        Ok(Assignment {
            subgoal: subgoal.id,
            prompt,
            attempt,
            path: format!("iter{number}/{id}/{attempt}.out"),
            own_worktree,
        })
    }
}

/// The assignment of a worker.
struct Assignment {
    subgoal: SubgoalId,
    prompt: String,
    attempt: u32,
    /// Path of the transcript.
    path: String,
    own_worktree: Option<OwnWorktree>,
}

/// The isolated worktree of a worker.
struct OwnWorktree {
    task: Task,
    subgoal: Subgoal,
    tip: String,
    earlier: Option<String>,
}

/// One attempt at one subgoal.
struct Worker {
    own_worktree: Option<OwnWorktree>,
    call: Call,
    id: SubgoalId,
    attempt: u32,
    path: String,
    ledger: Arc<dyn Ledger>,
    provisioner: Provisioner,
    recorder: Arc<Recorder>,
    redactor: Redactor,
}

impl Worker {
    /// Makes the call, stores the transcript and records the outcome; the last worker records the aggregate too.
    async fn run(mut self) -> Result<()> {
        if let Err(error) = self.open_worktree().await {
            // No worker is running then, and the record must not show one.
            let failure = Failure::new(FailureKind::Cancelled, error.chain());
            self.recorder.record([self.call.record_of_failed_start(failure).into()]).await?;
            return Err(error);
        }
        let spool = self.call.request.transcript.clone();
        let (id, attempt) = (self.id, self.attempt);
        let (choice, run) = (self.call.choice.clone(), self.call.request.run.clone());
        let Answer { mut result, mut finished } = self.call.make(&self.recorder, &self.redactor).await;
        if let Some(own_worktree) = self.own_worktree {
            let left = match own_worktree.commit_work(&self.ledger, attempt, &run, &choice, &finished, &result).await {
                Ok(left) => left,
                Err(error) => {
                    // The work is still in its worktree, and a further attempt continues there.
                    finished.error.get_or_insert_with(|| Failure::new(FailureKind::Cancelled, error.chain()));
                    self.recorder.record([finished.into()]).await?;
                    return Err(error);
                }
            };
            finished.commit = left.commit.and_then(|commit| commit.parse().ok());
            finished.remarks.extend(left.remarks);
            if let Some(lost) = left.lost {
                result = result.and_then(|_| Err(Failure::new(FailureKind::Crashed, lost)));
            }
        }
        let report = result.as_ref().map_or_else(|failure| failure.message.clone(), |response| response.text.clone());
        let output_path = store_transcript(self.ledger, self.path, spool, report, self.redactor).await;
        let output_path = output_path.and_then(|path| path.parse().ok());
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
            // A usage limit, a cancellation or a missing login does not count as an attempt.
            Err(failure) if !failure.counts() => None,
            Err(failure) => Some(SubagentFailed { id, attempt, error: failure.to_string(), output_path }.into()),
        };
        self.recorder
            .record_with(|run| {
                let settled = outcome.as_ref().and_then(|outcome| aggregate_after(run, outcome));
                (std::iter::once(finished.into()).chain(outcome).chain(settled).collect(), ())
            })
            .await
    }

    /// Opens and sets up the worker's own worktree, if it is to have one.
    async fn open_worktree(&mut self) -> Result<()> {
        let Some(own_worktree) = &self.own_worktree else { return Ok(()) };
        let (task, tip, earlier) = (own_worktree.task.clone(), own_worktree.tip.clone(), own_worktree.earlier.clone());
        let place = on_ledger(&self.ledger, move |ledger| {
            ledger.open_place(&Opening { task: &task, tip: &tip, earlier: earlier.as_deref() })
        })
        .await?;
        let port = self.provisioner.provision(&self.recorder, &place.path, Some(&self.id)).await?;
        self.call.set_worktree(place.path, port);
        Ok(())
    }
}

impl OwnWorktree {
    /// Commits the work in the worktree and closes it.
    async fn commit_work(
        self,
        ledger: &Arc<dyn Ledger>,
        attempt: u32,
        run: &str,
        agent: &AgentChoice,
        finished: &AgentFinished,
        result: &Result<Response, Failure>,
    ) -> Result<Left> {
        let (run, settled) = (run.parse().ok(), result.is_ok());
        let message = message::work(&Work {
            run: run.as_ref(),
            iteration: self.task.iteration,
            subgoal: &self.subgoal,
            attempt,
            role: Role::Subagent,
            agent,
            tokens: finished.usage.tokens(),
            done: settled,
            text: result.as_ref().map_or_else(|failure| failure.message.as_str(), |response| response.text.as_str()),
        });
        on_ledger(ledger, move |ledger| {
            ledger.close_place(&Leaving { task: &self.task, tip: &self.tip, message: &message, settled })
        })
        .await
    }
}

/// Returns the aggregate, if `outcome` settles the iteration's last open subgoal.
fn aggregate_after(run: &Run, outcome: &Fact) -> Option<Fact> {
    let allowed = run.budget().attempts();
    let (id, mut total) = match outcome {
        Fact::SubagentFinished(data) => (&data.id, Aggregated { ok: 1, failed: 0, chars: data.chars }),
        Fact::SubagentFailed(data) if data.attempt >= allowed => (&data.id, Aggregated { ok: 0, failed: 1, chars: 0 }),
        _ => return None,
    };
    for task in run.iteration()?.tasks.iter().filter(|task| task.id != *id) {
        match &task.output {
            Some(output) => {
                total.ok += 1;
                total.chars += output.chars().count() as u64;
            }
            None if !task.running && task.attempts >= allowed => total.failed += 1,
            None => return None,
        }
    }
    Some(total.into())
}

/// Stores the transcript in the record: the agent's output, or its report if it printed nothing. A transcript that cannot be
/// stored does not lose the answer.
pub(super) async fn store_transcript(
    ledger: Arc<dyn Ledger>,
    path: String,
    spool: Option<Transcript>,
    report: String,
    redactor: Redactor,
) -> Option<String> {
    if !ledger.keeps_output() {
        return None;
    }
    let kept = tokio::task::spawn_blocking(move || {
        let printed = spool.as_ref().and_then(|spool| std::fs::read(&spool.path).ok()).filter(|text| !text.is_empty());
        let transcript = printed.unwrap_or_else(|| report.into_bytes());
        ledger.store_output(&path, &redactor.clean_bytes(&transcript))?;
        if let Some(spool) = spool {
            let _ = std::fs::remove_file(spool.path); // it is recorded; a leftover is removed with the run's folder
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
