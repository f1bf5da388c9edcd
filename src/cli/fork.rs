//! `steer` and `fork`.

use super::args::{ForkArgs, SteerArgs};
use super::driving::{drive_here, notice};
use super::say::say_status;
use super::{goal, options, print};
use crate::app::{self, Fork, Site};
use crate::error::{Error, Result};
use crate::options::Changes;
use crate::run::goal::Asking;

/// Sends guidance to a live run.
pub fn steer(site: &Site, arguments: &SteerArgs) -> Result<u8> {
    let id = app::steer(site, Some(&arguments.run), &arguments.text.join(" "))?;
    print::note(&format!("the next plan of {id} hears it"));
    Ok(0)
}

/// Reports whether a fork would only repeat its original.
fn is_the_same(arguments: &ForkArgs) -> bool {
    let has_goal = arguments.goal.is_some() || arguments.goal_file.is_some() || arguments.criteria.is_some();
    let has_iteration =
        arguments.run.as_deref().and_then(|run| run.split_once('@')).is_some_and(|(_, number)| !number.is_empty());
    !has_goal && !has_iteration && arguments.options.changes == Changes::default()
}

/// Starts a run from a commit of another.
pub fn fork(site: &Site, arguments: &ForkArgs) -> Result<u8> {
    let driving = arguments.driving;
    let is_goal = arguments.run.as_deref().is_some_and(|run| run.contains(char::is_whitespace));
    if is_the_same(arguments) && !is_goal {
        let run = arguments.run.as_deref().unwrap_or("@");
        return Err(Error::usage("a fork needs something that differs from its run").hint(format!(
            "a goal, an iteration or an option: git agentloop fork {run} \"GOAL\", fork {run}@1, or fork {run} --max-iterations 8"
        )));
    }
    let goal = match (&arguments.goal, &arguments.goal_file) {
        (None, None) => None,
        (text, file) => Some(goal::goal(text.as_deref(), file.as_deref(), false)?),
    };
    let fork = Fork {
        goal,
        criteria: arguments.criteria.clone(),
        name: arguments.name.clone(),
        changes: app::Changes {
            isolation: arguments.isolation,
            force: arguments.force,
            ..options::changes(&arguments.options, site)?
        },
    };
    let new = app::fork(site, arguments.run.as_deref(), fork).map_err(|error| match &arguments.run {
        Some(words) if words.contains(char::is_whitespace) => {
            error.hint("the run comes before the goal, and '@' is the newest: git agentloop fork @ GOAL")
        }
        _ => error,
    })?;
    notice(site, &new, driving)?;
    if driving.detach {
        return say_status(site, &app::run_detached(site, new)?, driving.json);
    }
    let console = new.options.asking == Asking::Console && print::person_answers() && !driving.non_interactive;
    drive_here(driving, console, |drive| app::run(site, new, drive))
}
