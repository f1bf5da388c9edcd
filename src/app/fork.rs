//! Forks a run: starts a new one from a commit of another.

use super::authority::approval;
use super::replay::replay;
use super::{Changes, NewRun, Site};
use crate::error::{Error, Result};
use crate::ledger::git::preview;

/// Differences between a fork and its original.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fork {
    /// Its goal; `None` keeps the original's.
    pub goal: Option<String>,
    /// Its criteria; `None` keeps the original's unless the goal changes.
    pub criteria: Option<String>,
    /// Its name; `None` takes words of the goal.
    pub name: Option<String>,
    /// Changes to the options.
    pub changes: Changes,
}

/// Prepares a run from the commit of an iteration of another: `from` is `RUN` (its newest commit) or `RUN@N`.
///
/// # Errors
/// Fails if there is no such run or iteration, if its commit is not in this clone, or if something that its log would run
/// lacks approval.
pub fn fork(site: &Site, from: Option<&str>, fork: Fork) -> Result<NewRun> {
    let (name, number) = match from.map(|from| from.split_once('@').unwrap_or((from, ""))) {
        None => (None, ""),
        Some((name, number)) => (Some(if name.is_empty() { "@" } else { name }), number),
    };
    let id = site.repo.resolve(name)?;
    let run = replay(site, &id)?;
    let (commit, number) = if number.is_empty() {
        let tip = preview::branch_tip(&site.repo, &id, &run.tip.commit)?.commit;
        (tip, run.iterations.last().map_or(0, |iteration| iteration.number))
    } else if number == "0" {
        (run.base.to_string(), 0) // where it started, as `bisect` numbers it
    } else {
        let wanted = run.iterations.iter().find(|iteration| iteration.number.to_string() == number);
        let checkpoint =
            wanted.and_then(|iteration| Some((iteration.checkpoint.clone()?.commit.into(), iteration.number)));
        checkpoint.ok_or_else(|| {
            Error::usage(format!("{id} has committed no iteration '{number}'"))
                .hint(format!("'git agentloop show {id}' lists its iterations"))
        })?
    };
    let command = format!("git agentloop fork {}", from.unwrap_or(id.as_str()));
    let approval = approval(site, &run, &id, &fork.changes)?;
    let options = approval.granted(&id, &fork.changes, &command)?;
    let criteria = match (&fork.goal, fork.criteria) {
        (_, Some(criteria)) => criteria,
        (Some(_), None) => String::new(),
        (None, None) => run.goal.criteria.clone(),
    };
    Ok(NewRun {
        goal: fork.goal.unwrap_or(run.goal.text),
        criteria,
        options,
        force: fork.changes.force,
        base: Some(commit),
        name: fork.name,
        forked_from: Some(format!("{id}@{number}")),
        ..NewRun::default()
    })
}
