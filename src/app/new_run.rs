//! Describes a run to start, and checks that it may be started.

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
    /// The success criteria; if empty, an agent proposes them.
    pub criteria: String,
    /// Everything else.
    pub options: Options,
    /// The revision to start from; `None` is HEAD.
    pub base: Option<String>,
    /// Its name; `None` takes words of the goal.
    pub name: Option<String>,
    /// Its id; `None` makes a new one. Only the process that starts a detached driver sets it.
    pub id: Option<RunId>,
    /// True if agents may have all permissions in the user's checkout.
    pub force: bool,
    /// The run and iteration that it was forked from, as `<run>@<iteration>`.
    #[serde(default)]
    pub forked_from: Option<String>,
}

impl NewRun {
    /// Makes a run for `goal` with `backend`, and every other option at its default.
    #[must_use]
    pub fn new(goal: impl Into<String>, backend: impl Into<String>) -> Self {
        let agent = AgentChoice { backend: backend.into(), model: None };
        Self { goal: goal.into(), options: Options { agent, ..Options::default() }, ..Self::default() }
    }
}

/// Lists the warnings that the user gets before a run begins, one per line.
pub fn notices(site: &Site, new: &NewRun) -> Result<Vec<String>> {
    site.repo.check_for_runs()?;
    let base = site.repo.resolve_base(new.base.as_deref())?;
    // Refusals come before warnings.
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

/// Checks that a new run may be started, and resolves its backends.
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
    // A fork's paths are relative to the user's current folder, not to the one that the other run was started in.
    let folder = if new.forked_from.is_some() { site.folder(None)? } else { options.cwd.clone() };
    before::check_paths(site, &options.protect, &folder)?;
    // Paths in the user's settings need not exist in every project.
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
    // Reads the settings that the driver will need, so that it cannot fail after the run is recorded.
    provisioning(site)?;
    site.settings().review_bytes()?;
    site.settings().preferences()?;
    Prompts::load(site.settings().prompts()?.as_deref())?;
    site.agents(options)?;
    callable(site, options)
}

/// Checks that every agent which may be called can be: a missing one must not be found after hours of work.
pub(super) fn callable(site: &Site, options: &Options) -> Result<()> {
    let registry = site.registry();
    let choices = Role::ALL.into_iter().map(|role| options.agent_for(role));
    choices.filter(|choice| !site.own.contains_key(&choice.backend)).try_for_each(|choice| registry.check(choice))
}

/// Refuses a run whose agents report that they cannot work; each program is asked once.
pub(super) async fn check_agents(site: &Site, options: &Options) -> Result<()> {
    let registry = site.registry();
    let names = Role::ALL.into_iter().map(|role| options.agent_for(role).backend.as_str());
    let names: BTreeSet<&str> = names.filter(|name| !site.own.contains_key(*name)).collect();
    for asked in names.into_iter().map(|name| probe::check(registry, name, options.permissions)) {
        asked.await?;
    }
    Ok(())
}

/// Refuses a cost limit if an agent does not report its costs.
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
