//! `steer` and `fork`.

use super::args::{ForkArgs, SteerArgs};
use super::{drive_here, goal, notice, print, say_status};
use crate::app::{self, Fork, Site};
use crate::error::Result;
use crate::run::goal::Asking;

/// Sends guidance to a live run.
///
/// # Errors
/// Where it is not running, or there is no guidance.
pub fn steer(site: &Site, arguments: &SteerArgs) -> Result<u8> {
    let id = app::steer(site, Some(&arguments.run), &arguments.text.join(" "))?;
    print::note(&format!("the next plan of {id} hears it"));
    Ok(0)
}

/// Starts a run from where another one was.
///
/// # Errors
/// Where there is no such run or iteration, or the new one cannot be started.
pub fn fork(site: &Site, arguments: &ForkArgs) -> Result<u8> {
    let driving = arguments.driving;
    let goal = match (&arguments.goal, &arguments.goal_file) {
        (None, None) => None,
        (text, file) => Some(goal::goal(text.as_deref(), file.as_deref(), false)?),
    };
    let fork = Fork {
        goal,
        criteria: arguments.criteria.clone(),
        name: arguments.name.clone(),
        changes: arguments.options.changes.clone(),
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
