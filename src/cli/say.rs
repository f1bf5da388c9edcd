//! A verb's answer, as it is printed, and what the program then exits with.

use super::{pager, paint, print, render};
use crate::app::{self, Site};
use crate::error::Result;
use crate::run::State;
use crate::run::view::{RunResult, Status};

/// What a usage error, a failure of ours and a failed run exit with.
pub(super) const ERROR: u8 = 2;
/// What a wait exits with that ends before its run, as timeout(1) has it.
pub(super) const TIMED_OUT: u8 = 124;
/// What a run that the user stopped exits with.
pub(super) const CANCELLED: u8 = 4;

/// Prints a view: as JSON, or as `text` says it.
pub(super) fn say(as_json: bool, view: &impl serde::Serialize, text: impl FnOnce() -> Result<String>) -> Result<u8> {
    let text = if as_json { render::json(view, print::person_reads())? } else { paint::out(text()?) };
    page(&text).map(|()| 0)
}

/// Shows an answer, by the user's pager where it is longer than a screen.
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

/// What a run in `state` exits with.
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
