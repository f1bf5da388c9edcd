//! Drives a run through the three seams: calls agents, runs checks, writes commits, and records every outcome as facts.
//!
//! The whole engine is `while let Some(step) = run.next_step(now) { perform(step) }`. Nothing here decides what comes next;
//! a driver that resumes a run is the same code after a replay.

mod baseline;
mod call;
mod command;
pub mod dispute;
mod ending;
pub mod entering;
pub mod inbox;
mod integrate;
pub mod limits;
mod on_ledger;
mod ports;
mod provision;
mod reader;
mod recorder;
mod remarks;
mod review;
mod shared;
mod verify;
mod waiting;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::baseline::Baseline;
use self::command::Commands;
use self::ending::summary_and_hint;
use self::inbox::Inbox;
use self::limits::Limits;
use self::on_ledger::on_ledger;
use self::ports::Ports;
use self::provision::Provisioner;
pub use self::provision::{Provisioning, SETUP_ON};
pub use self::recorder::{Clock, Recorder, Unwatched, Watch};
use self::remarks::late_changes;
use crate::agent::Agent;
use crate::agent::prompts::Prompts;
use crate::error::{Error, Result};
use crate::host::store::RunStore;
use crate::interaction::Interaction;
use crate::ledger::{Adopted, Draft, Found, Ledger, PROCESSES};
use crate::process;
use crate::redact::Redactor;
use crate::run::event::{
    AnswersGiven, Checkpointed, Fact, Integrated, IterationFinished, IterationStarted, PhaseChanged, RunCancelled,
    RunError, RunFinished, RunResumed, RunStarted, Uncommitted, WorktreeReady,
};
use crate::run::goal::StopReason;
use crate::run::id::SessionId;
use crate::run::message::{self, RUN_TRAILER};
use crate::run::{Intake, Phase, Run, Step, Word};

/// Interval at which a driver lists its agents' processes and checks what they changed.
const WATCH_INTERVAL: std::time::Duration = std::time::Duration::from_millis(250);

/// Everything that a driver needs beside the run.
pub struct Parts {
    /// Record and workspace of the run.
    pub ledger: Arc<dyn Ledger>,
    /// Backends that the run's roles name.
    pub agents: BTreeMap<String, Arc<dyn Agent>>,
    /// Instructions of the roles.
    pub prompts: Prompts,
    /// Channel to the user, for questions.
    pub interaction: Arc<dyn Interaction>,
    /// Observer of the recorded events.
    pub watch: Arc<dyn Watch>,
    /// Source of the time.
    pub clock: Clock,
    /// Removes secrets from all that is recorded.
    pub redactor: Redactor,
    /// Id of this driver.
    pub session: SessionId,
    /// Token that is cancelled when the run must stop.
    pub cancel: CancellationToken,
    /// Length of the iteration's diff that the reviewer sees, in bytes.
    pub review_bytes: usize,
    /// Usage limits that this user's runs share.
    pub limits: Limits,
    /// Set-up of new worktrees.
    pub provisioning: Provisioning,
    /// Store of the run's inbox, to which verbs send messages; `None` if this clone has no private store.
    pub inbox: Option<RunStore>,
}

/// A driver of one run.
pub struct Engine {
    parts: Parts,
    recorder: Arc<Recorder>,
    provisioner: Provisioner,
    workspace: PathBuf,
    /// First of the workspace's ports.
    port: Option<u16>,
    /// Name of the branch, for the record.
    branch: String,
    baseline: Baseline,
}

/// State in which a driver leaves a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The run has ended.
    Ended(StopReason),
    /// The run waits for the user's answers.
    Suspended,
}

impl Engine {
    /// Starts a new run, whose first fact is `started`.
    pub async fn start(parts: Parts, branch: String, started: RunStarted) -> Result<Self> {
        let engine = Self::new(parts, branch, Run::default());
        engine.recorder.record([started.into()]).await?;
        Ok(engine)
    }

    /// Resumes a run that another driver left, with the options of `resumed`.
    pub async fn resume(parts: Parts, branch: String, run: Run, mut resumed: RunResumed) -> Result<Self> {
        let mut engine = Self::new(parts, branch, run);
        // This comes first: git writes files as its settings tell it to, and the last driver may have left its workers'
        // settings.
        engine.blocking(|ledger| ledger.guard()).await?;
        let workspace = engine.blocking(|ledger| ledger.workspace()).await?;
        resumed.worktree = Word::Known(workspace.found.into());
        engine.workspace = workspace.path;
        let found = engine.blocking(|ledger| ledger.write_tree()).await?;
        resumed.dirty = engine.recorder.with(|run| run.tip.tree != found.id);
        engine.recorder.record([resumed.into()]).await?;
        if let Some((task, tip)) = engine.worked_in_workspace() {
            engine.blocking(move |ledger| ledger.hand_over(&task, &tip)).await?;
        }
        engine.adopt().await?;
        Ok(engine)
    }

    fn new(parts: Parts, branch: String, run: Run) -> Self {
        let recorder = Recorder::new(
            Arc::clone(&parts.ledger),
            run,
            parts.session.clone(),
            parts.redactor.clone(),
            Arc::clone(&parts.clock),
            Arc::clone(&parts.watch),
        );
        let commands = Commands {
            session: parts.session.to_string(),
            clone: process::clone_of(&parts.ledger.scratch()),
            cancel: parts.cancel.clone(),
            redactor: parts.redactor.clone(),
        };
        let provisioner = Provisioner {
            ledger: Arc::clone(&parts.ledger),
            commands,
            wanted: parts.provisioning.clone(),
            ports: Ports::of_user(),
        };
        Self {
            parts,
            recorder,
            provisioner,
            workspace: PathBuf::new(),
            port: None,
            branch,
            baseline: Baseline::default(),
        }
    }

    /// Drives the run to its end, or to questions for the user, and returns the run as this driver knows it.
    ///
    /// Fails if the record can no longer be written; the run can then be resumed from its record.
    pub async fn drive(mut self) -> Result<(End, Run)> {
        let mut flight = JoinSet::new();
        // A task of its own records guidance at once, however long the current step takes.
        let inbox = Inbox::new(self.parts.inbox.clone(), &self.parts.ledger.scratch(), self.parts.redactor.clone());
        let (cancel, recorder) = (self.parts.cancel.clone(), Arc::clone(&self.recorder));
        tokio::spawn(async move { cancel.run_until_cancelled(inbox.watch(recorder)).await });
        let (cancel, ledger) = (self.parts.cancel.clone(), Arc::clone(&self.parts.ledger));
        tokio::spawn(async move { cancel.run_until_cancelled(watch_agents(&ledger, &cancel)).await });
        let driven = match self.open_workspace().await {
            Ok(()) => self.run_steps(&mut flight).await,
            Err(error) => Err(error),
        };
        let end = match driven {
            Err(error) if self.record_error(&error).await => self.run_steps(&mut flight).await,
            driven => driven,
        };
        self.parts.cancel.cancel();
        let settled = self.settle_baseline(true).await;
        let end = end.and_then(|end| settled.map(|()| end));
        while flight.join_next().await.is_some() {}
        self.parts.ledger.stand_down();
        let _ = std::fs::remove_file(self.parts.ledger.scratch().join(PROCESSES)); // all of its processes have ended
        let closed = self.recorder.close().await;
        // The first failure is reported, not one that it caused later.
        let end = end.map_err(|error| {
            if error.hint_text().is_some() {
                return error;
            }
            let id = self.recorder.with(|run| run.id.as_ref().map(ToString::to_string).unwrap_or_default());
            error.hint(format!("what is on record stays: 'git agentloop resume {id}' goes on from it"))
        })?;
        closed?;
        Ok((end, self.recorder.with(Run::clone)))
    }

    /// Creates the workspace of a new run (that of a resumed run exists already) and sets it up.
    async fn open_workspace(&mut self) -> Result<()> {
        if self.workspace.as_os_str().is_empty() {
            // Agents start only after the baseline of the settings is taken; it is taken while the workspace is created.
            let guard = self.blocking(|ledger| ledger.guard());
            let (workspace, guard) = tokio::join!(self.blocking(|ledger| ledger.workspace()), guard);
            let workspace = guard.and(workspace)?;
            self.workspace = workspace.path;
            let (base, isolation) = self.recorder.with(|run| (run.base.clone(), run.options.isolation));
            let remarks = isolation.unpromised().map(ToOwned::to_owned).into_iter().collect();
            let mut facts = vec![WorktreeReady { branch: self.branch.clone(), base, remarks }.into()];
            facts.extend(workspace.before.as_ref().map(integrated).transpose()?);
            self.recorder.record(facts).await?;
        }
        self.port = Some(self.provisioner.provision(&self.recorder, &self.workspace, None).await?);
        self.start_baseline().await
    }

    /// Records a failure of the driver, so that the run winds down. Returns `false` if it had failed before.
    async fn record_error(&self, error: &Error) -> bool {
        if self.recorder.with(|run| run.error.is_some()) {
            return false;
        }
        let message = error.chain();
        let fact = RunError { message, hint: error.hint_text().map(ToOwned::to_owned) };
        self.recorder.record([fact.into()]).await.is_ok()
    }

    /// Performs the run's steps until it ends or has to ask the user.
    async fn run_steps(&self, flight: &mut JoinSet<Result<()>>) -> Result<End> {
        let mut phase = Phase::Idle;
        loop {
            if self.parts.cancel.is_cancelled() && self.recorder.with(|run| !run.cancelled && run.ended.is_none()) {
                self.recorder.record([RunCancelled { by: "request".into() }.into()]).await?;
            }
            self.record_shared_limits().await?;
            let now = self.recorder.now();
            let (step, current) = self.recorder.with(|run| (run.next_step(now), run.phase()));
            if current != phase && step.is_some() {
                phase = current;
                self.recorder.stage([PhaseChanged { phase: Word::Known(phase) }.into()]);
            }
            let Some(step) = step else { break };
            if !records_first(&step) {
                self.recorder.flush_staged().await?;
            }
            if let Step::Await(questions) = step {
                if !self.put_questions(&questions).await? {
                    return Ok(End::Suspended);
                }
            } else {
                self.perform(step, flight).await?;
            }
        }
        let reason = self.recorder.with(|run| run.ended.as_ref().map(|ended| ended.reason));
        Ok(End::Ended(reason.unwrap_or(StopReason::RunError)))
    }

    async fn perform(&self, step: Step, flight: &mut JoinSet<Result<()>>) -> Result<()> {
        if self.changes_workspace(&step) {
            self.settle_baseline(matches!(step, Step::Stop(_) | Step::Checkpoint { partial: true })).await?;
        }
        match step {
            Step::Intake(Intake::Criteria) => self.propose_criteria().await,
            Step::Intake(Intake::Questions) => self.find_questions().await,
            Step::Intake(Intake::Close) => {
                self.close_intake();
                Ok(())
            }
            Step::Await(_) => Ok(()),
            Step::Wait { until, backend } => self.wait(until, &backend, flight).await,
            Step::Plan => self.plan().await,
            Step::Work(start) => self.work(start, flight).await,
            Step::Integrate(id) => self.integrate(&id).await,
            Step::Resolve(id) => self.resolve(&id).await,
            Step::Verify => self.verify().await,
            Step::Review => self.review().await,
            Step::Checkpoint { partial } => self.checkpoint(partial).await,
            Step::Stop(reason) => self.stop(reason).await,
        }
    }

    /// Asks the user and records the answers. Returns `false` if the run is to be suspended.
    async fn put_questions(&self, questions: &[String]) -> Result<bool> {
        let answers = tokio::select! {
            answers = self.parts.interaction.ask(questions) => answers?,
            () = self.parts.cancel.cancelled() => return Ok(true),
        };
        let Some(answers) = answers else { return Ok(false) };
        self.blocking(|ledger| ledger.guard()).await?;
        let answers = answers.iter().map(|answer| self.record_text(answer)).collect();
        self.recorder.record([AnswersGiven { answers }.into()]).await?;
        Ok(true)
    }

    /// Starts an iteration, unless the newest one still lacks its plan, and asks for the plan.
    async fn plan(&self) -> Result<()> {
        if self.recorder.with(|run| run.iteration().is_none_or(|iteration| iteration.checkpoint.is_some())) {
            // While the baseline is taken, a person's commits wait until the checkpoint.
            if !self.is_taking_baseline().await {
                self.adopt().await?;
            }
            let begin = |run: &Run| {
                let max_iterations = run.budget().max_iterations.get();
                (vec![Fact::from(IterationStarted { max_iterations, feedback: run.feedback() })], ())
            };
            self.recorder.record_with(begin).await?;
        }
        self.decompose().await
    }

    /// Records commits that a person made on the run's branch. Returns whether there were any.
    async fn adopt(&self) -> Result<bool> {
        let (id, tip) = self.recorder.with(|run| (run.id.clone(), run.tip.commit.clone()));
        let Some(adopted) = self.blocking(move |ledger| ledger.adopt(&tip)).await? else { return Ok(false) };
        let run = message::trailer(&adopted.message, RUN_TRAILER);
        let partial = message::is_partial(&adopted.message);
        // This run's own checkpoint without its event: the driver died between the two.
        let fact = match (run, partial) {
            (Some(run), Some(partial)) if id.is_some_and(|id| id.as_str() == run) => Checkpointed {
                commit: adopted.commit.parse()?,
                tree: adopted.tree.parse()?,
                partial,
                ..Checkpointed::default()
            }
            .into(),
            _ => integrated(&adopted)?,
        };
        self.recorder.record([fact]).await?;
        Ok(true)
    }

    async fn checkpoint(&self, partial: bool) -> Result<()> {
        if !partial && self.adopt().await? {
            return Ok(());
        }
        if partial {
            self.integrate_stopped().await?;
        }
        let verified = self.recorder.with(|run| run.iteration().and_then(|one| one.verification.clone()));
        let (tree, captured) = match verified.filter(|_| !partial) {
            Some(verification) => (verification.tree.into(), None),
            None => self.capture().await.map(|captured| (captured.tree.id, Some(captured.tree.remarks)))?,
        };
        self.recorder.flush().await?;
        let (tip, text) = self.recorder.with(|run| (run.tip.commit.clone(), message::checkpoint(run, partial)));
        let merged = self.recorder.with(|run| {
            run.integration().map_or_else(Vec::new, |so_far| so_far.merged.iter().map(ToString::to_string).collect())
        });
        let commit = {
            let tree = tree.clone();
            self.blocking(move |ledger| {
                ledger.commit(&Draft { tip: &tip, tree: &tree, message: &text, merged: &merged })
            })
        };
        // The comparison of every file takes longer than the commit, which does not depend on it.
        let look = async {
            match captured {
                Some(remarks) => Ok(remarks),
                None => self.blocking(|ledger| ledger.changed_since_tree()).await.map(|files| late_changes(&files)),
            }
        };
        let (committed, remarks) = tokio::join!(commit, look);
        let (committed, mut remarks) = (committed?, remarks?);
        let (commit, tree) = (committed.commit.parse()?, tree.parse()?);
        remarks.extend(committed.remarks);
        if !partial {
            remarks.extend(
                self.recorder.with(|run| Some(run.iteration()?.review.as_ref()?.remarks.clone())).unwrap_or_default(),
            );
        }
        let finish = |run: &Run| {
            let mut facts = vec![Checkpointed { commit, tree, partial, changed: committed.changed, remarks }.into()];
            if let Some(iteration) = run.iteration().filter(|_| !partial) {
                let (complete, summary) = (iteration.is_complete(), iteration.summary());
                facts.push(IterationFinished { complete, summary }.into());
            }
            (facts, ())
        };
        self.recorder.record_with(finish).await
    }

    async fn stop(&self, reason: StopReason) -> Result<()> {
        let finish = |run: &Run| {
            let (summary, hint) = summary_and_hint(run, reason);
            let completed = reason == StopReason::GoalComplete;
            (vec![RunFinished { stop_reason: Some(reason), completed, summary, hint }.into()], ())
        };
        // Worktrees are removed before the end is recorded: a run whose driver dies in between is resumed and removes them,
        // but a run that has ended is not resumed.
        let closed = self.blocking(|ledger| ledger.close()).await;
        self.recorder.record_with(finish).await?;
        closed
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Ledger) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        on_ledger(&self.parts.ledger, work).await
    }
}

/// Returns whether `step` flushes its own first facts before it acts, so that facts of the previous step may wait for that
/// flush: merges write objects only, and workers start once their starts are recorded.
fn records_first(step: &Step) -> bool {
    match step {
        Step::Intake(Intake::Close) | Step::Integrate(_) => true,
        Step::Work(start) => !start.is_empty(),
        _ => false,
    }
}

/// Records which settings agents change and which processes they start, as it happens. Cancels the run if another driver has
/// taken it over.
async fn watch_agents(ledger: &Arc<dyn Ledger>, cancel: &CancellationToken) {
    let file = ledger.scratch().join(PROCESSES);
    let mut listed = Vec::new();
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        if let Err(error) = process::list_descendants(&file, &mut listed) {
            tracing::warn!("what agents started is not known to the next driver: {error}");
        }
        if let Err(error) = on_ledger(ledger, |ledger| ledger.keep()).await {
            tracing::error!("the run is stopped: {error}");
            cancel.cancel();
        }
        if let Err(error) = on_ledger(ledger, |ledger| ledger.notice()).await {
            tracing::warn!("what agents changed is not known to the next driver: {error}");
        }
    }
}

impl From<Found> for Uncommitted {
    fn from(found: Found) -> Self {
        match found {
            Found::Made => Self::Rebuilt,
            Found::Kept => Self::Kept,
        }
    }
}

fn integrated(adopted: &Adopted) -> Result<Fact> {
    let (commit, tree) = (adopted.commit.parse()?, adopted.tree.parse()?);
    Ok(Integrated { commit, tree, ..Integrated::default() }.into())
}
