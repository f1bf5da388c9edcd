//! Drives a run through the three seams: asks agents, runs checks, writes commits, and reports every outcome as facts.
//!
//! The whole engine is `while let Some(step) = run.next_step(now) { perform(step) }`. Nothing here decides what comes
//! next; a driver that resumes a run is the same code after a replay.

mod baseline;
mod call;
mod command;
pub mod dispute;
pub mod entering;
pub mod inbox;
mod integrate;
mod last_words;
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
use self::inbox::Inbox;
use self::last_words::last_words;
use self::limits::Limits;
use self::on_ledger::on_ledger;
use self::ports::Ports;
use self::provision::Provisioner;
pub use self::provision::{Provisioning, SETUP_ON};
pub use self::recorder::{Clock, Recorder, Unwatched, Watch};
use self::remarks::changed_later;
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
    RunError, RunFinished, RunResumed, RunStarted, WorktreeReady,
};
use crate::run::goal::StopReason;
use crate::run::id::SessionId;
use crate::run::message::{self, RUN_TRAILER, VERDICT_TRAILER};
use crate::run::{Intake, Phase, Run, Step};

/// How often a driver looks whether agents changed what could harm.
const LOOKS_OUT: std::time::Duration = std::time::Duration::from_millis(250);

/// Everything a driver needs beside the run.
pub struct Parts {
    /// The run's record and workspace.
    pub ledger: Arc<dyn Ledger>,
    /// The backends that the run's roles name.
    pub agents: BTreeMap<String, Arc<dyn Agent>>,
    /// The roles' instructions.
    pub prompts: Prompts,
    /// Where the user answers.
    pub interaction: Arc<dyn Interaction>,
    /// Who looks on.
    pub watch: Arc<dyn Watch>,
    /// The time.
    pub clock: Clock,
    /// Keeps secrets off the record.
    pub redactor: Redactor,
    /// This driver's id.
    pub session: SessionId,
    /// Cancelled when the run must stop.
    pub cancel: CancellationToken,
    /// Bytes of the iteration's diff that the reviewer sees.
    pub review_bytes: usize,
    /// Usage limits that this user's runs tell each other of.
    pub limits: Limits,
    /// What new places are made fit with.
    pub provisioning: Provisioning,
    /// Where verbs send something for the run; nothing where this clone has no private store.
    pub inbox: Option<RunStore>,
}

/// A driver of one run.
pub struct Engine {
    parts: Parts,
    recorder: Arc<Recorder>,
    provisioner: Provisioner,
    workspace: PathBuf,
    /// The first of its ports.
    port: Option<u16>,
    /// The branch's name, for the record.
    branch: String,
    baseline: Baseline,
}

/// Where a driver left a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has ended.
    Ended(StopReason),
    /// Questions wait for the user.
    Suspended,
}

impl Engine {
    /// Opens a new run: `started` is its first fact.
    pub async fn start(parts: Parts, branch: String, started: RunStarted) -> Result<Self> {
        let engine = Self::new(parts, branch, Run::default());
        engine.recorder.record([started.into()]).await?;
        Ok(engine)
    }

    /// Takes a run over from the driver before; `resumed` says with which options.
    pub async fn resume(parts: Parts, branch: String, run: Run, mut resumed: RunResumed) -> Result<Self> {
        let mut engine = Self::new(parts, branch, run);
        // First: files are written as settings say, and the driver before may have left those of its workers.
        engine.blocking(|ledger| ledger.guard()).await?;
        let workspace = engine.blocking(|ledger| ledger.workspace()).await?;
        workspace.found.name().clone_into(&mut resumed.worktree);
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

    /// Drives the run to its end, or to questions for the user; and the run as this driver knows it.
    pub async fn drive(mut self) -> Result<(End, Run)> {
        let mut flight = JoinSet::new();
        // Guidance is on record the moment it comes, however long the step under way takes.
        let inbox = Inbox::new(self.parts.inbox.clone(), &self.parts.ledger.scratch(), self.parts.redactor.clone());
        let (cancel, recorder) = (self.parts.cancel.clone(), Arc::clone(&self.recorder));
        tokio::spawn(async move { cancel.run_until_cancelled(inbox.watch(recorder)).await });
        let (cancel, ledger) = (self.parts.cancel.clone(), Arc::clone(&self.parts.ledger));
        tokio::spawn(async move { cancel.run_until_cancelled(look_out(&ledger, &cancel)).await });
        let driven = match self.open_workspace().await {
            Ok(()) => self.follow(&mut flight).await,
            Err(error) => Err(error),
        };
        let end = match driven {
            Err(error) if self.record_error(&error).await => self.follow(&mut flight).await,
            driven => driven,
        };
        self.parts.cancel.cancel();
        let settled = self.settle_baseline(true).await;
        let end = end.and_then(|end| settled.map(|()| end));
        while flight.join_next().await.is_some() {}
        self.parts.ledger.stand_down();
        let _ = std::fs::remove_file(self.parts.ledger.scratch().join(PROCESSES)); // none of them is left
        let closed = self.recorder.close().await;
        // What failed first is the reason, also of what fails in the end.
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

    /// Makes a new run's workspace stand, as a resumed one's does already, and either's fit to work in.
    async fn open_workspace(&mut self) -> Result<()> {
        if self.workspace.as_os_str().is_empty() {
            // No agent begins before it is known what stood, and none waits for that longer than for the workspace.
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

    /// Puts a failure of ours on record, so that the run winds down; `false` where it had failed before.
    async fn record_error(&self, error: &Error) -> bool {
        if self.recorder.with(|run| run.error.is_some()) {
            return false;
        }
        let message = error.chain();
        let fact = RunError { message, hint: error.hint_text().map(ToOwned::to_owned) };
        self.recorder.record([fact.into()]).await.is_ok()
    }

    /// The loop.
    async fn follow(&self, flight: &mut JoinSet<Result<()>>) -> Result<End> {
        let mut phase = Phase::Idle;
        loop {
            if self.parts.cancel.is_cancelled() && self.recorder.with(|run| !run.cancelled && run.ended.is_none()) {
                self.recorder.record([RunCancelled { by: "request".into() }.into()]).await?;
            }
            self.heed_limits().await?;
            let now = self.recorder.now();
            let (step, stands) = self.recorder.with(|run| (run.next_step(now), run.phase()));
            if stands != phase && step.is_some() {
                phase = stands;
                self.recorder.stage([PhaseChanged { phase: phase.name().into() }.into()]);
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

    /// Whether the user answered; `false` suspends the run.
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

    /// Begins an iteration, unless the newest one still wants its plan, and asks for the plan.
    async fn plan(&self) -> Result<()> {
        if self.recorder.with(|run| run.iteration().is_none_or(|iteration| iteration.checkpoint.is_some())) {
            // What a person commits meanwhile is taken in before the checkpoint.
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

    /// Takes in what a person committed on the run's branch. Whether there was anything.
    async fn adopt(&self) -> Result<bool> {
        let (id, tip) = self.recorder.with(|run| (run.id.clone(), run.tip.commit.clone()));
        let Some(adopted) = self.blocking(move |ledger| ledger.adopt(&tip)).await? else { return Ok(false) };
        let run = message::trailer(&adopted.message, RUN_TRAILER);
        let verdict = message::trailer(&adopted.message, VERDICT_TRAILER);
        // A checkpoint of ours without its event: its driver died between the two.
        let fact = match (run, verdict) {
            (Some(run), Some(verdict)) if id.is_some_and(|id| id.as_str() == run) => Checkpointed {
                commit: adopted.commit.parse()?,
                tree: adopted.tree.parse()?,
                partial: verdict == "partial",
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
        // A look at every file takes longer than the commit, and does not need it.
        let look = async {
            match captured {
                Some(remarks) => Ok(remarks),
                None => self.blocking(|ledger| ledger.changed_since_tree()).await.map(|files| changed_later(&files)),
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
            let (summary, hint) = last_words(run, reason);
            let completed = reason == StopReason::GoalComplete;
            (vec![RunFinished { stop_reason: Some(reason), completed, summary, hint }.into()], ())
        };
        // First the places: a driver that dies in between is resumed and tidies up; nobody comes after the end.
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

/// Whether `step` does nothing before the facts that it begins with are flushed, so that those of the step before may wait
/// for them: merges are of objects alone, and workers begin once all of them are on record as begun.
fn records_first(step: &Step) -> bool {
    match step {
        Step::Intake(Intake::Close) | Step::Integrate(_) => true,
        Step::Work(start) => !start.is_empty(),
        _ => false,
    }
}

/// Sees what agents change that could harm, and which processes they start, as it happens. Where another driver has the run,
/// everything is stopped.
async fn look_out(ledger: &Arc<dyn Ledger>, cancel: &CancellationToken) {
    let file = ledger.scratch().join(PROCESSES);
    let mut listed = Vec::new();
    loop {
        tokio::time::sleep(LOOKS_OUT).await;
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

impl Found {
    fn name(self) -> &'static str {
        match self {
            Self::Made => "rebuilt",
            Self::Kept => "kept",
        }
    }
}

fn integrated(adopted: &Adopted) -> Result<Fact> {
    let (commit, tree) = (adopted.commit.parse()?, adopted.tree.parse()?);
    Ok(Integrated { commit, tree, ..Integrated::default() }.into())
}
