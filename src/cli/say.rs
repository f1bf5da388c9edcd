//! Prints a verb's answer and chooses the exit code.

use super::{pager, paint, print, render};
use crate::app::{self, Site};
use crate::error::Result;
use crate::run::State;
use crate::run::view::{RunResult, Status};

/// Exit code of usage errors, other errors and failed runs.
pub(super) const ERROR: u8 = 2;
/// Exit code of a wait that timed out, as for timeout(1).
pub(super) const TIMED_OUT: u8 = 124;
/// Exit code of a cancelled run.
pub(super) const CANCELLED: u8 = 4;

/// Prints a view as JSON or as `text`.
pub(super) fn say(as_json: bool, view: &impl serde::Serialize, text: impl FnOnce() -> Result<String>) -> Result<u8> {
    let text = if as_json { render::json(view, print::person_reads())? } else { paint::out(text()?) };
    page(&text).map(|()| 0)
}

/// Prints an answer, through the user's pager if it is longer than a screen.
pub(super) fn page(text: &str) -> Result<()> {
    if text.lines().count() <= pager::SCREEN {
        return print::out(text).map(|_| ());
    }
    let mut pager = pager::Pager::start();
    pager.show(text)?;
    pager.close();
    Ok(())
}

pub(super) fn say_status(site: &Site, status: &Status, json: bool) -> Result<u8> {
    if !json {
        warn_of_set_aside(app::set_aside(site, Some(status.run_id.as_str()))?.as_deref());
    }
    say(json, status, || {
        let branch = app::branch_here(site, &status.run_id);
        Ok(render::status(status, branch.as_deref(), app::now()))
    })
}

/// Warns of lines of the log that could not be read.
pub(super) fn warn_of_set_aside(notice: Option<&str>) {
    if let Some(notice) = notice {
        print::note(&format!("warning: {notice}"));
    }
}

pub(super) fn say_result(result: &RunResult, json: bool) -> Result<u8> {
    if !json {
        warn_of_set_aside(result.set_aside.as_deref());
    }
    say(json, result, || Ok(render::result(result)))?;
    Ok(exit_code(result.status))
}

/// Returns the exit code for a run in `state`.
fn exit_code(state: State) -> u8 {
    match state {
        State::Stopped => 1,
        State::Failed | State::Interrupted => ERROR,
        State::NeedsInput => 3,
        State::Cancelled => CANCELLED,
        State::Running | State::Waiting | State::Completed => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_contract_s() {
        let codes = [
            (State::Running, 0),
            (State::Waiting, 0),
            (State::Completed, 0),
            (State::Stopped, 1),
            (State::Failed, 2),
            (State::NeedsInput, 3),
            (State::Cancelled, 4),
            (State::Interrupted, 2),
        ];
        for (state, code) in codes {
            assert_eq!(exit_code(state), code, "{state}");
        }
    }
}
