//! Sends messages to the driver of a live run.

use std::time::{Duration, Instant};

use super::drive::STOP_WAIT;
use super::new_run::affordable;
use super::replay::replay;
use super::{Changes, Site, now};
use crate::engine::inbox::{self, Message};
use crate::error::{Error, Result};
use crate::host::store::RunStore;
use crate::ledger::git::{GitLedger, lock};
use crate::run::goal::{RunId, StopReason};
use crate::run::view::Status;

/// Sends guidance to a live run, which its next planner reads.
///
/// # Errors
/// Fails if there is no such run, if it is not running, or if the guidance is empty.
pub fn steer(site: &Site, run: Option<&str>, text: &str) -> Result<RunId> {
    super::refuse_nested(site)?;
    let id = site.repo.resolve(run)?;
    if text.trim().is_empty() {
        return Err(Error::usage("the guidance is empty")
            .hint(format!("say what the next plan must hear: git agentloop steer {id} \"leave the API as it is\"")));
    }
    // A driver that has ended its run holds the lock for a moment longer.
    let is_live = || super::status(site, Some(id.as_str())).map(|status| status.running);
    if is_live()? && deliver(site, &id, &Message::Guidance(text.trim().to_owned()))? {
        return Ok(id);
    }
    let (run, anew) = (replay(site, &id)?, format!("'git agentloop fork {id} \"GOAL\"' starts anew from it"));
    let hint = match run.ended.as_ref().map(|ended| ended.reason) {
        Some(StopReason::GoalComplete) => anew,
        reason => {
            let more = reason.map_or_else(String::new, |reason| run.more(reason));
            format!("'git agentloop resume {id}{more}' goes on; {anew}")
        }
    };
    Err(Error::usage(format!("{id} is not running: nobody would hear it")).hint(hint))
}

/// Changes the budget of a live run; returns `None` if the run is not live or `changes` change nothing.
///
/// # Errors
/// Fails if there is no such run, or if `changes` hold more than the budget.
pub fn change_live(site: &Site, run: &str, changes: &Changes) -> Result<Option<Status>> {
    let id = site.repo.resolve(Some(run))?;
    if !super::status(site, Some(id.as_str()))?.running {
        return Ok(None);
    }
    super::refuse_nested(site)?;
    let run = replay(site, &id)?;
    let options = super::authority::given(site, &run, &id).ok_or_else(|| {
        Error::usage(format!("{id} is running, and its log says what was not given here"))
            .hint(format!("'git agentloop cancel {id}', then 'git agentloop resume {id}' asks for what may run"))
    })?;
    let Some(mut wanted) = changes.apply(&options) else { return Ok(None) };
    let given = wanted.clone();
    affordable(site, &wanted)?;
    let budget = std::mem::replace(&mut wanted.budget, options.budget.clone());
    if wanted != options {
        return Err(Error::usage(format!("{id} is running: what it may spend can change meanwhile, and nothing else"))
            .hint(format!("for the rest, 'git agentloop cancel {id}' first: what is there is committed")));
    }
    // The approval is stored before the driver gets the message: whenever the driver dies, recorded options are approved.
    super::authority::give(site, &id, &given)?;
    if !deliver(site, &id, &Message::Budget(budget))? {
        return Ok(None);
    }
    // A driver that was about to end may have read the message and ended nevertheless.
    Ok(Some(super::status(site, Some(id.as_str()))?).filter(|status| status.running))
}

/// Reports whether the driver has recorded `message`; if the driver ends before that, the message is withdrawn.
fn deliver(site: &Site, id: &RunId, message: &Message) -> Result<bool> {
    let name = format!("{:016}-{:08x}", now().0, fastrand::u32(..));
    let no_way = |error: Error| {
        error.hint(format!(
            "make the state directory writable, 'git agentloop cancel {id}', then 'git agentloop resume {id}'"
        ))
    };
    let kept = GitLedger::kept(&site.repo, id).filter(RunStore::exists).ok_or_else(|| {
        no_way(Error::failed(format!("{id} cannot be reached: this clone keeps no private store of it")))
    })?;
    let sent = inbox::send(&kept, &name, message).map_err(no_way)?;
    let deadline = Instant::now() + STOP_WAIT;
    while sent.waits() {
        if lock::holder(site.repo.common_dir(), id).is_none() {
            return Ok(!sent.take_back());
        }
        if Instant::now() > deadline {
            return Err(Error::failed(format!("the driver of {id} does not take it in; it stays in its inbox"))
                .hint(format!("'git agentloop tail {id}' shows whether it is still at work")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if sent.is_set_aside() {
        return Err(Error::failed(format!("the driver of {id} cannot read what was sent to it"))
            .hint("send it as the user that the driver runs as"));
    }
    Ok(true)
}
