//! Verbs that drive a run in this process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::authority::{approval, give, given};
use super::before;
use super::leftovers::{ORPHAN_GRACE, stop_leftovers};
use super::nested::refuse_nested;
use super::new_run::{NewRun, affordable, callable, check_agents, settle};
use super::replay::{replay, replay_with};
use super::site::{Site, branch, now, provisioning};
use crate::agent::prompts::Prompts;
use crate::engine::limits::Limits;
use crate::engine::{Engine, Parts, Unwatched, Watch};
use crate::error::{Error, Result};
use crate::interaction::{Answers, Interaction, Suspend};
use crate::ledger::Ledger;
use crate::ledger::git::record::Adoption;
use crate::ledger::git::{GitLedger, NewRecord, OnRecord, lock, read};
use crate::options::Changes;
use crate::process;
use crate::redact::Redactor;
use crate::run::event::{FORMAT, RunResumed, RunStarted};
use crate::run::goal::{Budget, Goal, Isolation, Options, RunId, StopReason, session_id};
use crate::run::id::ForkPoint;
use crate::run::message;
use crate::run::text::count;
use crate::run::view::{RunResult, Status};
use crate::run::{Run, Word};

/// Longest time that a verb waits for a driver that was sent a signal or a message.
pub(super) const STOP_WAIT: Duration = Duration::from_secs(30);

/// Callbacks of the caller that drives a run; by default questions suspend the run, nothing is shown, and it is not
/// cancelled.
pub struct Drive {
    /// Source of answers to the run's questions.
    pub interaction: Arc<dyn Interaction>,
    /// Observer of the run's events.
    pub watch: Arc<dyn Watch>,
    /// Token that stops the run when it is cancelled.
    pub cancel: CancellationToken,
}

impl Default for Drive {
    fn default() -> Self {
        Self { interaction: Arc::new(Suspend), watch: Arc::new(Unwatched), cancel: CancellationToken::new() }
    }
}

/// Starts a run and drives it to its end, or to questions for the user.
pub async fn run(site: &Site, mut new: NewRun, drive: Drive) -> Result<RunResult> {
    settle(site, &mut new)?;
    let (id, engine) = open(site, new, drive).await?;
    let (_, run) = engine.drive().await?;
    driven(site, id, &run)
}

/// Returns the result of a run that was driven in this process. It is made from the driver's own state, even if the record
/// was tampered with.
fn driven(site: &Site, id: RunId, run: &Run) -> Result<RunResult> {
    let noted = read::snapshot(&site.repo.gix(), site.repo.store().as_deref(), &id)?;
    super::read::result_of(site, id, run, false, noted.is_some_and(|noted| noted.verified))
}

/// Records a new run and returns its driver.
pub(super) async fn open(site: &Site, new: NewRun, drive: Drive) -> Result<(RunId, Engine)> {
    site.repo.check_for_runs()?;
    check_agents(site, &new.options).await?;
    process::become_subreaper();
    let redactor = Redactor::of_process();
    let id = new.id.clone().unwrap_or_else(|| new_id(site, &new, &redactor));
    let opened = put_on_record(site, &id, new, drive, redactor).await;
    if opened.is_err() {
        GitLedger::withdraw(&site.repo, &id);
    }
    opened.map(|engine| (id, engine))
}

async fn put_on_record(site: &Site, id: &RunId, new: NewRun, drive: Drive, redactor: Redactor) -> Result<Engine> {
    let goal =
        Goal { text: redactor.clean(&new.goal).into_owned(), criteria: redactor.clean(&new.criteria).into_owned() };
    let base = site.repo.resolve_base(new.base.as_deref())?;
    ensure_store(site);
    // The approval is stored before the record: whenever the driver dies, a recorded run has its approval.
    keep_authority(site, id, &new.options);
    let ledger = GitLedger::create(
        site.repo.clone(),
        NewRecord {
            run: id.clone(),
            base: base.clone(),
            message: message::start(id, &goal, &base, env!("CARGO_PKG_VERSION"), new.forked_from.as_deref()),
            isolation: new.options.isolation,
            preferences: site.settings().preferences()?,
        },
    )?;
    let started = RunStarted {
        format: FORMAT,
        run_id: Some(id.clone()),
        goal,
        options: new.options.clone(),
        base: base.parse()?,
        start: ledger.start().parse()?,
        tree: ledger.tree().parse()?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host(),
        forked_from: new.forked_from.map(ForkPoint::try_from).transpose()?,
    };
    let parts = parts(site, id, Arc::new(ledger), &new.options, drive, redactor)?;
    Engine::start(parts, branch(id), started).await
}

/// Stores `options` as approved. If they cannot be stored the run goes on, and `resume` asks for them.
fn keep_authority(site: &Site, id: &RunId, options: &Options) {
    if let Err(error) = give(site, id, options) {
        tracing::warn!("'git agentloop resume {id}' will ask again what may run: {}", error.chain());
    }
}

/// Makes a run's id from words without secrets: the name alone if it is free, which reserves it.
pub(super) fn new_id(site: &Site, new: &NewRun, redactor: &Redactor) -> RunId {
    let named = new.name.as_deref().and_then(|name| RunId::named(&redactor.clean(name)));
    if let Some(id) = named.filter(|id| GitLedger::reserve(&site.repo, id)) {
        return id;
    }
    RunId::new(&redactor.clean(new.name.as_deref().unwrap_or(&new.goal)), fastrand::u64(..))
}

/// Resumes a run after a crash, a cancel, or a spent budget that `changes` raise.
pub async fn resume(site: &Site, run: &str, changes: Changes, drive: Drive) -> Result<RunResult> {
    if changes.take_over
        && let Some(result) = adopt_end(site, run)?
    {
        return Ok(result);
    }
    let (id, engine) = reopen(site, run, &changes, drive).await?;
    let (_, run) = engine.drive().await?;
    driven(site, id, &run)
}

/// Adopts lines from elsewhere by which the run has reached its goal, so that nothing is left to drive. Returns `None` if
/// there are no such lines.
fn adopt_end(site: &Site, name: &str) -> Result<Option<RunResult>> {
    refuse_nested(site)?;
    let id = site.repo.resolve(Some(name))?;
    let (own, reading) = replay_with(site, &id, false)?;
    let (run, _) = replay_with(site, &id, true)?;
    let is_complete = |run: &Run| run.ended.as_ref().is_some_and(|ended| ended.reason == StopReason::GoalComplete);
    if reading.elsewhere == 0 || is_complete(&own) || !is_complete(&run) {
        return Ok(None);
    }
    site.repo.check_for_runs()?;
    ensure_store(site);
    let known = on_record(site, &id, &run, run.options.isolation)?;
    drop(GitLedger::take_over(site.repo.clone(), known, Adoption::Everything)?);
    driven(site, id, &run).map(Some)
}

fn on_record(site: &Site, id: &RunId, run: &Run, isolation: Isolation) -> Result<OnRecord> {
    let preferences = site.settings().preferences()?;
    Ok(OnRecord { run: id.clone(), tip: run.tip.commit.to_string(), isolation, preferences })
}

/// Takes over a run's record and returns its driver.
pub(super) async fn reopen(site: &Site, name: &str, changes: &Changes, drive: Drive) -> Result<(RunId, Engine)> {
    refuse_nested(site)?;
    let id = site.repo.resolve(Some(name))?;
    let (run, _) = replay_with(site, &id, changes.take_over)?;
    let approval = approval(site, &run, &id, changes)?;
    may_go_on(&run, &id, &approval.options.budget)?;
    same_place(&run, &id, changes)?;
    let options = approval.granted(&id, changes, &format!("git agentloop resume {id}"))?;
    let protect = changes.protect.as_deref().unwrap_or_default();
    before::protects(site, protect, &run.base, &site.folder(None)?)?;
    before::runnable(site, "check", changes.checks.as_deref().unwrap_or_default())?;
    callable(site, &options)?;
    take_over(site, id, changes, options, drive).await
}

/// Takes over a run with `options`, all of which are approved.
async fn take_over(
    site: &Site,
    id: RunId,
    changes: &Changes,
    options: Options,
    drive: Drive,
) -> Result<(RunId, Engine)> {
    site.repo.check_for_runs()?;
    process::become_subreaper();
    let (run, _) = replay_with(site, &id, changes.take_over)?;
    elsewhere(site, &run, &id, changes)?;
    ensure_store(site);
    let known = on_record(site, &id, &run, options.isolation)?;
    let adoption = if changes.take_over { Adoption::Everything } else { Adoption::Unsealed };
    let ledger = GitLedger::take_over(site.repo.clone(), known, adoption)?;
    stop_leftovers(site, &id, ORPHAN_GRACE).await;
    // Only now that this process holds the lock can the previous driver have written its last event.
    let run = replay(site, &id)?;
    let unproven = ledger.is_unproven();
    if !drive.cancel.is_cancelled() {
        keep_authority(site, &id, &options);
    }
    let parts = parts(site, &id, Arc::new(ledger), &options, drive, Redactor::of_process())?;
    let resumed = RunResumed {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host(),
        worktree: Word::default(),
        dirty: false,
        options: (options != run.options).then_some(options),
        unproven,
    };
    let engine = Engine::resume(parts, branch(&id), run, resumed).await?;
    Ok((id, engine))
}

/// Answers the questions of a waiting run and resumes it.
///
/// # Errors
/// Fails if the run has no open questions, the token is not its newest, or the number of answers differs.
pub async fn answer(site: &Site, run: &str, answers: Vec<String>, drive: Drive) -> Result<RunResult> {
    let (id, drive) = answering(site, run, answers, drive)?;
    resume(site, id.as_str(), Changes::default(), drive).await
}

/// Checks `answers` against the run's questions.
pub(super) fn answering(site: &Site, name: &str, answers: Vec<String>, drive: Drive) -> Result<(RunId, Drive)> {
    refuse_nested(site)?;
    let (id, token) = match name.split_once('.') {
        // A token names its run by the whole id.
        Some((run, rest)) if run.parse::<RunId>().is_ok() && is_session(rest) => {
            (site.repo.resolve(Some(run))?, Some(name))
        }
        Some(_) => {
            return Err(Error::usage("this is no token (expected RUN.SESSION, as 'result --json' has it)"));
        }
        None => (site.repo.resolve(Some(name))?, None),
    };
    let run = replay(site, &id)?;
    if !run.is_waiting_for_answers() {
        return Err(Error::usage(format!("{id} waits with no questions"))
            .hint(format!("'git agentloop status {id}' says where it stands")));
    }
    if token.is_some_and(|token| run.intake.token.as_deref() != Some(token)) {
        return Err(Error::usage("this token is not the one that the run waits with")
            .hint(format!("'git agentloop result {id} --json' shows the questions and the token")));
    }
    let wanted = run.intake.questions.len();
    if answers.len() != wanted {
        let list: Vec<String> = run.intake.questions.iter().map(|question| format!("  - {question}")).collect();
        let (asked, given) = (count(wanted, "question"), count(answers.len(), "answer"));
        return Err(Error::usage(format!("{id} asks {asked}, and was given {given}"))
            .hint(format!("give one answer a question, in order:\n{}", list.join("\n"))));
    }
    Ok((id, Drive { interaction: Arc::new(Given(answers)), ..drive }))
}

fn is_session(text: &str) -> bool {
    (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Answers that were given before the questions are asked.
struct Given(Vec<String>);

impl Interaction for Given {
    fn ask<'a>(&'a self, _questions: &'a [String]) -> Answers<'a> {
        Box::pin(async { Ok(Some(self.0.clone())) })
    }
}

/// Cancels a run: its workers stop, then its driver, and their work so far is committed. A run whose driver died is ended in
/// the same way.
///
/// # Errors
/// Fails if the run has ended, or if its driver does not exit in time.
pub async fn cancel(site: &Site, run: Option<&str>) -> Result<Status> {
    refuse_nested(site)?;
    let id = site.repo.resolve(run)?;
    let status = super::status(site, Some(id.as_str()))?;
    if status.completed.is_some() {
        return Err(Error::usage(format!("{id} has ended: {}", status.state))
            .hint(format!("'git agentloop result {id}' shows what it came to")));
    }
    let deadline = Instant::now() + STOP_WAIT;
    let mut signaled = None;
    while let Some(holder) = lock::holder(site.repo.common_dir(), &id) {
        if let Some(pid) = holder.pid.filter(|pid| signaled != Some(*pid)) {
            process::terminate(pid)?;
            signaled = Some(pid);
        }
        if Instant::now() > deadline {
            let Some(pid) = holder.pid else {
                return Err(Error::failed(format!(
                    "the driver of {id} does not stop, and its lock does not say who it is"
                ))
                .hint(format!(
                    "find the process of git-agentloop that holds it, stop it, then 'git agentloop cancel {id}' again"
                )));
            };
            return Err(Error::failed(format!("the driver of {id}, process {pid}, does not stop"))
                .hint(format!("'kill -9 {pid}', then 'git agentloop cancel {id}' again")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = super::status(site, Some(id.as_str()))?;
    if status.completed.is_some() {
        return Ok(status);
    }
    let cancel = CancellationToken::new();
    cancel.cancel();
    let drive = Drive { cancel, ..Drive::default() };
    // Since it is cancelled before it begins, this driver runs no check and calls no agent. A log from elsewhere must not
    // decide that the user's checkout is committed.
    let run = replay(site, &id)?;
    let mut options =
        given(site, &run, &id).unwrap_or_else(|| Options { isolation: Isolation::Shared, ..run.options.clone() });
    if run.options.isolation != Isolation::None {
        options.isolation = run.options.isolation;
    }
    let (_, engine) = take_over(site, id.clone(), &Changes::default(), options, drive).await?;
    engine.drive().await?;
    super::status(site, Some(id.as_str()))
}

/// Creates the clone's private store if possible; without one the run goes on, after a warning.
fn ensure_store(site: &Site) {
    if let Err(error) = site.repo.ensure_store() {
        tracing::warn!("{}", error.chain());
    }
}

/// Refuses a run that has reached its goal or spent `budget`.
fn may_go_on(run: &Run, id: &RunId, budget: &Budget) -> Result<()> {
    let Some(ended) = &run.ended else { return Ok(()) };
    let is_spent = match ended.reason {
        StopReason::GoalComplete => {
            return Err(Error::usage(format!("{id} has reached its goal"))
                .hint(format!("'git agentloop merge {id}' takes its work; a new goal is a new run")));
        }
        StopReason::MaxIterations => run.iterations.len() >= budget.max_iterations.get() as usize,
        StopReason::MaxSeconds => budget.max_seconds.is_some_and(|limit| run.seconds(run.now) >= limit.get()),
        StopReason::MaxAgentCalls => budget.max_agent_calls.is_some_and(|limit| run.agent_calls >= limit.get()),
        StopReason::MaxTokens => budget.max_tokens.is_some_and(|limit| run.usage.tokens() >= limit.get()),
        StopReason::MaxCost => budget.max_cost.is_some_and(|limit| run.usage.cost_usd.unwrap_or(0.0) >= limit.get()),
        _ => false,
    };
    if !is_spent {
        return Ok(());
    }
    Err(Error::usage(format!("{id} has spent its budget: {}", ended.reason))
        .hint(format!("give it more: git agentloop resume {id}{}", run.more(ended.reason))))
}

/// Refuses to move a run between worktrees and the user's checkout, since its files do not move along.
fn same_place(run: &Run, id: &RunId, changes: &Changes) -> Result<()> {
    let begun = run.options.isolation;
    let wanted = changes.isolation.unwrap_or(begun);
    if (wanted == Isolation::None) == (begun == Isolation::None) {
        return Ok(());
    }
    let place = if begun == Isolation::None { "your checkout" } else { "a worktree of its own" };
    Err(Error::usage(format!("{id} works in {place}, and cannot go on elsewhere"))
        .hint("--isolation takes worktree or shared for a run in a worktree; a new run starts anywhere"))
}

/// Refuses a run that was last driven on another host or in another clone and may still be: only the lock there could tell.
fn elsewhere(site: &Site, run: &Run, id: &RunId, changes: &Changes) -> Result<()> {
    let Some(last) = run.sessions.last().filter(|_| run.ended.is_none()) else { return Ok(()) };
    let place = if last.host != host() {
        format!("on '{}'", last.host)
    } else if !GitLedger::was_driven_here(&site.repo, id) {
        "in another clone".to_owned()
    } else {
        return Ok(());
    };
    if changes.take_over || run.is_waiting_for_answers() {
        return Ok(());
    }
    let age = now().since(run.now).max(0.0);
    let again = if *changes == Changes::default() {
        format!("then: git agentloop resume {id} --take-over")
    } else {
        "add this to the command: --take-over".to_owned()
    };
    Err(Error::usage(format!("{id} was last driven {place}, {age:.0} seconds ago, and may still be"))
        .hint(format!("see that it has stopped there, sync, and {again}")))
}

fn parts(
    site: &Site,
    id: &RunId,
    ledger: Arc<dyn Ledger>,
    options: &Options,
    drive: Drive,
    redactor: Redactor,
) -> Result<Parts> {
    // A cancelled driver needs no agents: a run can be ended even if its agents are no longer installed.
    let (agents, prompts) = if drive.cancel.is_cancelled() {
        (BTreeMap::new(), Prompts::default())
    } else {
        affordable(site, options)?;
        (site.agents(options)?, Prompts::load(site.settings().prompts()?.as_deref())?)
    };
    Ok(Parts {
        ledger,
        agents,
        prompts,
        interaction: drive.interaction,
        watch: drive.watch,
        clock: Arc::new(now),
        redactor,
        session: session_id(fastrand::u64(..)),
        cancel: drive.cancel,
        review_bytes: site.settings().review_bytes()?,
        limits: Limits::of_user(),
        inbox: GitLedger::kept(&site.repo, id),
        provisioning: provisioning(site)?,
    })
}

/// Returns this host's name, which tells two machines apart.
fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
