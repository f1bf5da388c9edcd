//! Merges a run's work into the user's branch with the user's own git, in their checkout and at their request.

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

/// Number of commits of each side of a conflict that the integrator gets.
const COMMITS_PER_SIDE: usize = 50;

/// Number of files that a warning names.
const NAMED: usize = 10;

/// Ways to merge a run's work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merge {
    /// The git command that is used.
    pub way: Way,
    /// True if the user edits the message first.
    pub edit: bool,
    /// True if a run is merged that is incomplete or whose checks failed.
    pub force: bool,
}

/// A run whose work is to be merged.
struct Work {
    id: RunId,
    run: Run,
    tip: BranchTip,
    draft: String,
}

/// Merges the run's work into the user's current branch and returns git's exit code. If git stops, at conflicts or before it
/// would overwrite uncommitted changes, the checkout is as git leaves it. `tell` first reports the run and its summary. A
/// run that changed no file is merged for its history, as git does; a squash or rebase then does nothing, and neither does
/// it if the work is in the branch already.
pub fn merge(site: &Site, run: Option<&str>, how: Merge, tell: impl Fn(&str)) -> Result<(RunId, i32)> {
    let work = work(site, run, how)?;
    let code = if work.announce(site, how, &tell)? { work.take_it(site, how)? } else { 0 };
    Ok((work.id, code))
}

/// Merges like [`merge`], but `integrator`, or the run's own integrator, resolves conflicts in a separate worktree; the
/// user's branch is then fast-forwarded to the merge. `tell` reports progress.
///
/// # Errors
/// Fails like [`merge`], and if the conflict is not resolved, in which case the checkout is unchanged.
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
        let listed = preview::commits(&site.repo, &base, to, COMMITS_PER_SIDE)?;
        // The length of an id is limited, so `core.abbrev` does not decide.
        let name = |id: String| id.chars().take(12).collect::<String>().parse();
        listed.into_iter().map(|(id, description)| Ok(Subgoal { id: name(id)?, description })).collect()
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
    // Success or not, the integrator's files are committed on a ref of the run, and its worktree is removed.
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
    /// Reports what is merged; returns false if there is nothing to merge.
    fn announce(&self, site: &Site, how: Merge, tell: impl Fn(&str)) -> Result<bool> {
        let summary = self.run.ended.as_ref().map_or_else(|| self.run.summary(None), |ended| ended.summary.clone());
        tell(&format!("taking {}: {summary}", self.tip.name));
        if self.run.options.checks.is_empty() {
            tell("no checks ran on it: only its reviewer judged it");
        }
        // Without the base in this clone the difference is unknown.
        let changed = preview::differ(&site.repo, &self.run.base, &self.tip.commit).unwrap_or(true);
        let takes_history = !matches!(how.way, Way::Squash | Way::Rebase);
        // git recognizes a repeated merge by itself; a second copy of the same commits would be a conflict.
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

/// Returns the reason why `run` is not ready to merge: it is incomplete, or its last checks failed.
pub fn unfit(site: &Site, run: Option<&str>) -> Result<Option<String>> {
    let id = site.repo.resolve(run)?;
    Ok(replay(site, &id)?.unfit())
}

/// Loads the work of `run`; fails if the run is live or not ready to merge.
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

/// Chooses the agent that resolves conflicts, its permissions and the checks that must pass. The run's own are used only if
/// it was started in this clone, since a log can come from anyone.
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
