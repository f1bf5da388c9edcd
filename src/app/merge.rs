//! Taking a run's work into the user's branch: by the user's own git, in their checkout, on their word.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::leftovers::{ORPHAN_GRACE, stop_leftovers};
use super::replay::replay;
use super::site::{Site, now, provisioning};
use crate::agent::prompts::Prompts;
use crate::engine::dispute::{Dispute, Settled};
use crate::engine::limits::Limits;
use crate::error::{Error, Result};
use crate::ledger::git::preview::{self, BranchTip};
use crate::ledger::git::{GitLedger, OnRecord, lock, merge as git, merged};
use crate::process;
use crate::redact::Redactor;
use crate::run::Run;
use crate::run::goal::{AgentChoice, Permissions, Role, RunId, session_id};
use crate::run::message;
use crate::run::shadow;
use crate::run::text::a_few;
use crate::run::work::Subgoal;

pub use crate::ledger::git::merge::Way;

/// Commits of one side of a conflict that the integrator is told of.
const TOLD_COMMITS: usize = 50;

/// Files that configure agents, of those that a run changed, that are named.
const NAMED: usize = 10;

/// How to take a run's work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merge {
    /// By which of git's means.
    pub way: Way,
    /// Whether the user's editor shows the message first.
    pub edit: bool,
    /// Whether a run is taken that is incomplete or red.
    pub force: bool,
}

/// A run's work to be taken.
struct Work {
    id: RunId,
    run: Run,
    tip: BranchTip,
    draft: String,
}

/// Takes the run's work into the user's current branch; what git exits with. Where git stops, at conflicts or before it
/// would touch uncommitted changes, the checkout is as git leaves it. `tell` hears first which run that is and what it
/// came to. Of one that changed no file a merge takes the history, as git does; a squash and a rebase have nothing to take,
/// and neither have they of one whose work is in the branch already.
///
/// # Errors
/// Where there is no such run, it is running, or git cannot be started.
pub fn merge(site: &Site, run: Option<&str>, how: Merge, tell: impl Fn(&str)) -> Result<(RunId, i32)> {
    let work = work(site, run, how)?;
    let code = if work.announce(site, how, &tell)? { work.take_it(site, how)? } else { 0 };
    Ok((work.id, code))
}

/// The same, but conflicts are resolved by `integrator`, or the run's own, in a worktree of ours; the user's branch is then
/// fast-forwarded to the merge. `tell` hears what happens meanwhile.
///
/// # Errors
/// As before; and where the conflict stays open, which leaves the checkout as it was.
pub async fn merge_with_agent(
    site: &Site,
    run: Option<&str>,
    how: Merge,
    integrator: Option<AgentChoice>,
    cancel: CancellationToken,
    tell: impl Fn(&str),
) -> Result<(RunId, i32)> {
    let work = work(site, run, how)?;
    if !work.announce(site, how, &tell)? {
        return Ok((work.id, 0));
    }
    let met = git::meet(&site.repo, &work.tip.commit)?;
    if met.conflicts.is_empty() {
        let code = work.take_it(site, how)?;
        return Ok((work.id, code));
    }
    let (choice, permissions, checks) = chosen(site, &work, integrator)?;
    let agent = site.agent(&choice.backend)?;
    if !agent.edits_files() {
        return Err(Error::usage(format!("'{choice}' does not edit files: it cannot resolve a conflict"))
            .hint("--integrator names another agent"));
    }
    process::become_subreaper();
    let known = OnRecord {
        run: work.id.clone(),
        tip: work.run.tip.commit.to_string(),
        isolation: work.run.options.isolation,
        preferences: site.settings().preferences()?,
    };
    let held = GitLedger::hold(site.repo.clone(), known)?;
    stop_leftovers(site, &work.id, ORPHAN_GRACE).await;
    let into = met.branch.as_deref().unwrap_or("HEAD");
    tell(&format!("{into} and {} conflict in {}", work.tip.name, met.conflicts.join(", ")));
    let base =
        preview::merge_base(&site.repo, &met.head, &work.tip.commit)?.unwrap_or_else(|| work.run.base.to_string());
    let commits = |to: &str| -> Result<Vec<Subgoal>> {
        let told = preview::commits(&site.repo, &base, to, TOLD_COMMITS)?;
        // As long as a name may be, whatever `core.abbrev` says.
        let name = |id: String| id.chars().take(12).collect::<String>().parse();
        told.into_iter().map(|(id, description)| Ok(Subgoal { id: name(id)?, description })).collect()
    };
    let dispute = Dispute {
        commits: [commits(&met.head)?, commits(&work.tip.commit)?],
        ledger: Arc::new(held),
        run: work.run.clone(),
        ours: met.head.clone(),
        tree: met.tree.clone(),
        theirs: work.tip.commit.clone(),
        base,
        paths: met.conflicts.clone(),
        agent,
        choice: choice.clone(),
        permissions,
        checks,
        provisioning: provisioning(site)?,
        session: session_id(fastrand::u64(..)).into(),
        prompts: Prompts::load(site.settings().prompts()?.as_deref())?,
        limits: Limits::of_user(),
        clock: now,
        redactor: Redactor::of_process(),
        cancel,
    };
    dispute.ledger.guard()?;
    let settled = dispute.settle(tell).await;
    dispute.ledger.stand_down();
    // Whatever came of it, what the integrator left is committed on a ref of the run, and its place goes.
    dispute.ledger.close()?;
    let Settled { tree, usage } = settled?;
    let tree = tree.map_err(|why| {
        Error::failed("the conflict is not resolved, and your checkout is as it was").because(why).hint(format!(
            "'git agentloop merge {}' leaves it to you; what the integrator left is under refs/agentloop/run/{}/",
            work.id, work.id
        ))
    })?;
    let message = message::resolved_by(&work.draft, &choice, &usage);
    git::take_resolved(&site.repo, &work.id, &work.take(how, &message), &met, &tree)?;
    Ok((work.id, 0))
}

impl Work {
    /// Says what is taken; whether there is anything.
    fn announce(&self, site: &Site, how: Merge, tell: impl Fn(&str)) -> Result<bool> {
        let summary = self.run.ended.as_ref().map_or_else(|| self.run.summary(None), |ended| ended.summary.clone());
        tell(&format!("taking {}: {summary}", self.tip.name));
        if self.run.options.checks.is_empty() {
            tell("no checks ran on it: only its reviewer judged it");
        }
        // A base that is not in this clone tells nothing.
        let changed = preview::differ(&site.repo, &self.run.base, &self.tip.commit).unwrap_or(true);
        let takes_history = !matches!(how.way, Way::Squash | Way::Rebase);
        // Of a merge git itself knows; a second copy of the same commits would be a conflict.
        if changed
            && !takes_history
            && merged::merged(&site.repo, &[(&self.id, &self.run.snapshot())])?.contains(&self.id)
        {
            let again = format!("git merge --squash {}", self.tip.name);
            tell(&format!("its work is in your branch already; '{again}' would take it once more"));
            return Ok(false);
        }
        let files = GitLedger::changed_files(&site.repo, &self.run.base, &self.tip.commit).unwrap_or_default();
        let agents: Vec<String> = files.into_iter().filter(|file| shadow::configures_agents(file)).collect();
        if !agents.is_empty() {
            tell(&format!("it changes files that configure agents: {}", a_few(&agents, NAMED)));
        }
        match (changed, takes_history) {
            (true, _) => {}
            (false, true) => tell("it changed no file: only its history is taken"),
            (false, false) => tell("it changed no file: there is nothing to take"),
        }
        Ok(changed || takes_history)
    }

    fn take_it(&self, site: &Site, how: Merge) -> Result<i32> {
        git::take(&site.repo, &self.id, &self.take(how, &self.draft))
    }

    fn take<'a>(&'a self, how: Merge, message: &'a str) -> git::Take<'a> {
        git::Take { way: how.way, name: &self.tip.full, commit: &self.tip.commit, message, edit: how.edit }
    }
}

/// The reason why the work of `run` is not fit to be taken: it is incomplete, or its last checks failed.
///
/// # Errors
/// Where there is no such run.
pub fn unfit(site: &Site, run: Option<&str>) -> Result<Option<String>> {
    let id = site.repo.resolve(run)?;
    Ok(replay(site, &id)?.unfit())
}

/// The work of `run`, which is not going on.
fn work(site: &Site, run: Option<&str>, how: Merge) -> Result<Work> {
    let id = site.repo.resolve(run)?;
    super::refuse_nested(site)?;
    if lock::holder(site.repo.common_dir(), &id).is_some() {
        return Err(Error::usage(format!("{id} is running: its work is not whole yet"))
            .hint(format!("'git agentloop result {id} --wait' waits for its end")));
    }
    if site.repo.work_dir().is_none() {
        return Err(Error::usage("this repository is bare: there is no branch to merge into")
            .hint("merge in a clone that has a checkout"));
    }
    let run = replay(site, &id)?;
    if let Some(why) = run.unfit().filter(|_| !how.force) {
        let more = run.ended.as_ref().map(|ended| run.more(ended.reason)).unwrap_or_default();
        return Err(Error::usage(format!("{id} is not ready to merge: {why}")).hint(format!(
            "'git agentloop resume {id}{more}' goes on with it; 'git agentloop merge {id} --force' takes it as it is"
        )));
    }
    let tip = preview::branch_tip(&site.repo, &id, &run.tip.commit)?;
    let draft = match how.way {
        Way::Squash => message::squash(&run, &tip.commit),
        _ => message::merge(&run),
    };
    Ok(Work { id, run, tip, draft })
}

/// Who resolves, what that may do unasked, and what must pass: as the run has it only where it was started in this clone,
/// since a log can come from anyone.
fn chosen(
    site: &Site,
    work: &Work,
    integrator: Option<AgentChoice>,
) -> Result<(AgentChoice, Permissions, Vec<crate::run::goal::Check>)> {
    let given = super::authority::given(site, &work.run, &work.id);
    let (is_trusted, options) = (given.is_some(), given.as_ref().unwrap_or(&work.run.options));
    let recorded = options.agent_for(Role::Integrator);
    let mut choice = match integrator {
        Some(choice) => choice,
        None if is_trusted => recorded.clone(),
        None => {
            let again = shell_words::quote(&recorded.backend).into_owned();
            return Err(Error::usage(format!(
                "{} was started in another clone: the agent that its log names is not taken on trust",
                work.id
            ))
            .hint(format!("name it: git agentloop merge {} --with-agent --integrator {again}", work.id)));
        }
    };
    if choice.backend == "auto" {
        choice.backend = site.registry().auto()?;
    }
    Ok(if is_trusted {
        (choice, options.permissions, options.checks.clone())
    } else {
        (choice, Permissions::default(), Vec::new())
    })
}
