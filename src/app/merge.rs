//! Taking a run's work into the user's branch: by the user's own git, in their checkout, on their word.

use super::Site;
use super::drive::replay;
use crate::error::{Error, Result};
use crate::ledger::git::preview::{self, BranchTip};
use crate::ledger::git::{lock, merge as git};
use crate::run::goal::RunId;
use crate::run::message;

pub use crate::ledger::git::merge::Way;

/// How to take a run's work.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merge {
    /// By which of git's means.
    pub way: Way,
    /// Whether the user's editor shows the message first.
    pub edit: bool,
}

/// Takes the run's work into the user's current branch; what git exits with. Where git stops, at conflicts or before it
/// would touch uncommitted changes, the checkout is as git leaves it.
///
/// # Errors
/// Where there is no such run, it is running, or git cannot be started.
pub fn merge(site: &Site, run: Option<&str>, how: Merge) -> Result<(RunId, i32)> {
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
    let BranchTip { name, commit } = preview::branch_tip(&site.repo, &id, &run.tip.commit)?;
    let draft = match how.way {
        Way::Squash => message::squash(&run, &commit),
        _ => message::merge(&run, &name),
    };
    git::take(
        &site.repo,
        &id,
        &git::Take { way: how.way, name: &name, commit: &commit, message: &draft, edit: how.edit },
    )
    .map(|code| (id, code))
}
