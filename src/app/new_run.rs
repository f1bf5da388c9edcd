//! A run to start: what is asked of it, and whether it may be started.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::before;
use super::nested::refuse_nested;
use super::site::{Site, provisioning};
use super::unknown::unknown_settings;
use crate::agent::probe;
use crate::agent::prompts::Prompts;
use crate::error::{Error, Result};
use crate::host::store::{Bases, Store};
use crate::run::goal::{AgentChoice, Isolation, Options, Permissions, Role, RunId};

/// A run to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewRun {
    /// The goal.
    pub goal: String,
    /// What must hold for it to be reached; empty lets an agent propose it.
    pub criteria: String,
    /// Everything else.
    pub options: Options,
    /// The revision to start from; `None` = HEAD.
    pub base: Option<String>,
    /// What to call it; `None` = words of the goal.
    pub name: Option<String>,
    /// Its id; `None` = one of its own, as everybody but a driver's starter leaves it.
    pub id: Option<RunId>,
    /// Whether everything may be permitted in the user's checkout.
    pub force: bool,
    /// The run and iteration that it goes on from, as `<run>@<iteration>`.
    #[serde(default)]
    pub forked_from: Option<String>,
}

impl NewRun {
    /// A run for `goal` by `backend`, with every option at its default.
    #[must_use]
    pub fn new(goal: impl Into<String>, backend: impl Into<String>) -> Self {
        let agent = AgentChoice { backend: backend.into(), model: None };
        Self { goal: goal.into(), options: Options { agent, ..Options::default() }, ..Self::default() }
    }
}

/// What the user should know before a run begins, a line each.
///
/// # Errors
/// Where a run cannot begin here.
pub fn notices(site: &Site, new: &NewRun) -> Result<Vec<String>> {
    site.repo.check_for_runs()?;
    let base = site.repo.resolve_base(new.base.as_deref())?;
    // What is refused is refused first.
    settle(site, &mut new.clone())?;
    let mut notices = Vec::new();
    if site.repo.identity().is_fallback {
        notices.push("git does not know your name: commits are by git-agentloop <agentloop@localhost>".to_owned());
    }
    if new.options.isolation != Isolation::None && site.repo.has_uncommitted_changes()? {
        notices.push("uncommitted changes in your checkout are not part of the run".to_owned());
    }
    let bases = Bases::of_process();
    if Store::find(site.repo.common_dir(), &bases).is_none() && !bases.are_writable() {
        let lacks = "'resume' will ask again what may run, and 'steer' has no way to the run";
        notices.push(format!("no private store can be made in the state directory: {lacks}"));
    }
    notices.extend(unknown_settings(site).into_iter().map(|unknown| unknown.said));
    notices.extend(before::notices(site, &new.options.checks, &base)?);
    Ok(notices)
}

/// Holds a run that is to be started against what is allowed, and settles who answers.
pub(super) fn settle(site: &Site, new: &mut NewRun) -> Result<()> {
    if new.goal.trim().is_empty() {
        return Err(Error::usage("the goal is empty")
            .hint("say what is to be done: git agentloop run \"add a /health endpoint\""));
    }
    refuse_nested(site)?;
    let options = &mut new.options;
    if options.isolation == Isolation::None && options.permissions == Permissions::All && !new.force {
        return Err(Error::usage("everything would be permitted in your own checkout")
            .hint("leave out --no-isolate to work in a worktree, or say --force as well"));
    }
    if options.isolation == Isolation::None && site.repo.work_dir().is_none() {
        return Err(Error::usage("--no-isolate needs a checkout, and this repository is bare")
            .hint("leave it out: the run then works in a worktree of its own"));
    }
    // A fork's paths are seen from where its user stands, and not from where the other run was started.
    let folder = if new.forked_from.is_some() { site.folder(None)? } else { options.cwd.clone() };
    before::check_paths(site, &options.protect, &folder)?;
    // What the user protects everywhere need not be in every project.
    if options.protect != site.settings().protect() {
        before::protects(site, &options.protect, &site.repo.resolve_base(new.base.as_deref())?, &folder)?;
    }
    before::runnable(site, "check", &options.checks)?;
    before::runnable(site, "set-up command", &site.settings().setup()?)?;
    for choice in std::iter::once(&mut options.agent).chain(options.roles.values_mut()) {
        if choice.backend == "auto" || choice.backend.is_empty() {
            choice.backend = site.registry().auto()?;
        }
    }
    affordable(site, options)?;
    // What its driver will ask the settings for, before there is anything to leave behind.
    provisioning(site)?;
    site.settings().review_bytes()?;
    site.settings().preferences()?;
    Prompts::load(site.settings().prompts()?.as_deref())?;
    site.agents(options)?;
    callable(site, options)
}

/// Every agent that may be called must be one that can be: none is found missing after hours of work.
pub(super) fn callable(site: &Site, options: &Options) -> Result<()> {
    let registry = site.registry();
    let choices = Role::ALL.into_iter().map(|role| options.agent_for(role));
    choices.filter(|choice| !site.own.contains_key(&choice.backend)).try_for_each(|choice| registry.check(choice))
}

/// Refuses a run whose agents' programs can tell already that they cannot work: each is asked once.
pub(super) async fn check_agents(site: &Site, options: &Options) -> Result<()> {
    let registry = site.registry();
    let names = Role::ALL.into_iter().map(|role| options.agent_for(role).backend.as_str());
    let names: BTreeSet<&str> = names.filter(|name| !site.own.contains_key(*name)).collect();
    for asked in names.into_iter().map(|name| probe::check(registry, name, options.permissions)) {
        asked.await?;
    }
    Ok(())
}

/// A limit on what a run may cost holds only where every agent tells what it costs.
pub(super) fn affordable(site: &Site, options: &Options) -> Result<()> {
    if options.budget.max_cost.is_none() {
        return Ok(());
    }
    let registry = site.registry();
    let silent = Role::ALL
        .into_iter()
        .map(|role| options.agent_for(role))
        .find(|choice| !site.own.contains_key(&choice.backend) && !registry.tells_cost(&choice.backend));
    match silent {
        None => Ok(()),
        Some(choice) => Err(Error::usage(format!(
            "'{}' does not tell what a call costs, so a limit on the cost would never stop the run",
            choice.backend
        ))
        .hint("leave --max-cost or agentloop.maxCost out: --max-tokens bounds what it uses, --max-agent-calls how often it is called")),
    }
}
