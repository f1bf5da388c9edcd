//! Formats views as text for people. Text of agents goes through `sanitize` first.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use serde::Serialize;

use super::paint;
use crate::app::Listed;
use crate::error::{Context as _, Result};
use crate::options::{Origin, Setting};
use crate::run::event::Timestamp;
pub use crate::run::event::span;
use crate::run::goal::RunId;
use crate::run::sanitize::{self, line, lines, short};
use crate::run::text::count;
use crate::run::view::{RunResult, Status};
use crate::run::work::CheckResult;
use crate::run::{Awaited, State};

/// Longest goal in a table, in characters.
const GOAL_WIDTH: usize = 50;
/// Longest line of an agent's text, in characters.
const LINE_WIDTH: usize = 200;
/// Text that explains why a record is unverified.
const UNVERIFIED: &str = "unverified: another clone recorded it, or a version without seals";
/// Number of lines of a failed check's output that are shown.
const CHECK_LINES: usize = 10;

/// Formats `view` as JSON: indented for a person, on one line for a program.
pub fn json(view: &impl Serialize, person: bool) -> Result<String> {
    let text = if person { serde_json::to_string_pretty(view) } else { serde_json::to_string(view) };
    Ok(sanitize::json(text.context("the answer cannot be written as JSON")?) + "\n")
}

/// Formats a status; `branch` is the name of the run's branch in this clone.
#[must_use]
pub fn status(status: &Status, branch: Option<&str>, now: Timestamp) -> String {
    let id = &status.run_id;
    let mut text = format!("{id}: {}", paint::state(status.state, &state(status)));
    let iteration = format!("iteration {} of {}", status.iteration, status.max_iterations);
    let _ = if status.running {
        writeln!(text, ", {}, {iteration}", status.phase)
    } else {
        writeln!(text, " after {iteration}")
    };
    let _ = writeln!(text, "goal:    {}", short(&status.goal, LINE_WIDTH));
    let _ = writeln!(text, "started: {} ago", span(now.since(status.started_at)));
    let _ = writeln!(text, "branch:  {}", self::branch(&status.branch, branch));
    if status.spent.tokens > 0 {
        let cost = status.spent.cost_usd.map_or_else(String::new, |cost| format!(", ${cost:.2}"));
        let _ = writeln!(text, "used:    {}{cost}", count(status.spent.tokens, "token"));
    }
    if let Some(Awaited { until, why }) = &status.waiting {
        let _ = writeln!(text, "waiting: until {}, {}", until.shown(now, &TimeZone::system()), short(why, LINE_WIDTH));
    }
    if !status.verified {
        let _ = writeln!(text, "record:  {UNVERIFIED}");
    }
    let next = match status.state {
        State::Running | State::Waiting => format!("'git agentloop tail -f {id}' follows it"),
        State::Interrupted => format!("its driver is gone; 'git agentloop resume {id}' goes on"),
        State::NeedsInput => format!("'git agentloop result {id}' shows the questions"),
        _ => format!("'git agentloop result {id}' shows what it came to"),
    };
    let _ = writeln!(text, "next:    {next}");
    text
}

/// Formats a run's branch; `name` is the branch, a remote-tracking branch or a commit, whichever this clone has.
#[must_use]
pub fn branch(branch: &str, name: Option<&str>) -> String {
    match name {
        Some(name) if name.contains('/') => name.to_owned(),
        Some(commit) => format!("{branch} (gone; its newest commit is {})", commit.get(..12).unwrap_or(commit)),
        None => format!("{branch} (not in this clone)"),
    }
}

fn state(status: &Status) -> String {
    match (status.state, &status.stop_reason) {
        (State::Stopped | State::Failed, Some(reason)) => {
            format!("{} ({})", status.state, reason.to_string().replace('_', " "))
        }
        (state, _) => state.name().replace('_', " "),
    }
}

/// Formats all runs as a table.
#[must_use]
pub fn list(runs: &[Listed], now: Timestamp) -> String {
    if runs.is_empty() {
        return "no runs yet; 'git agentloop run \"a goal\"' starts one\n".to_owned();
    }
    let row = |listed: &Listed| {
        let status = &listed.status;
        vec![
            status.run_id.to_string(),
            {
                let unverified = if status.verified { "" } else { ", unverified" };
                if listed.merged {
                    paint::good(&format!("merged{unverified}"))
                } else {
                    paint::state(status.state, &format!("{}{unverified}", status.state.name().replace('_', " ")))
                }
            },
            format!("{}/{}", status.iteration, status.max_iterations),
            span(now.since(status.started_at)),
            short(&status.goal, GOAL_WIDTH),
        ]
    };
    table(&["RUN", "STATE", "ITERATION", "AGE", "GOAL"], runs.iter().map(row).collect())
}

/// Formats a result.
#[must_use]
pub fn result(result: &RunResult) -> String {
    let id = &result.run_id;
    // The summary of an ended run has its state.
    let state = match result.status {
        state if state.is_final() => String::new(),
        state => format!("{}: ", state.name().replace('_', " ")),
    };
    let mut text = format!("{id}: {state}{}\n", paint::state(result.status, lines(&result.summary).trim()));
    if !result.questions.is_empty() {
        text += &questions(result);
        return text;
    }
    if let Some(pass) = result.history.last() {
        for check in &pass.verification {
            text += &check_lines(check, Some(id));
        }
        if !result.completed {
            let failed = pass.results.iter().filter(|task| !task.ok);
            for task in failed.filter(|task| task.error.is_some()) {
                let why = short(task.error.as_deref().unwrap_or_default(), LINE_WIDTH);
                let _ = writeln!(text, "subgoal failed: {}: {why}", task.id);
            }
            for issue in pass.review.iter().flat_map(|review| &review.issues) {
                let _ = writeln!(text, "issue: {}", short(issue, LINE_WIDTH));
            }
        }
    }
    if let Some(worktree) = &result.worktree {
        let files = worktree.changed_files.len();
        let branch = branch(&worktree.branch, worktree.name.as_deref());
        let _ = writeln!(text, "branch: {branch}, {} changed", count(files, "file"));
        if let Some(path) = &worktree.path {
            let _ = writeln!(text, "worktree: {}", line(path));
        }
        match &worktree.name {
            Some(name) => text += &merging(id, name, &worktree.base, files > 0, result.completed),
            None => {
                let _ = writeln!(text, "hint: its commits are not in this clone: 'git agentloop sync' fetches them");
            }
        }
    }
    if !result.verified {
        let _ = writeln!(text, "record: {UNVERIFIED}");
    }
    if let Some(hint) = &result.hint {
        let _ = writeln!(text, "hint: {}", lines(hint));
    }
    if result.status == State::Interrupted {
        let _ = writeln!(text, "hint: its driver is gone; 'git agentloop resume {id}' goes on");
    }
    text
}

/// Formats the commands that review and merge a run.
fn merging(id: &RunId, branch: &str, base: &str, changed: bool, complete: bool) -> String {
    let mut text = format!("review: git log --first-parent {branch}\n");
    if changed {
        let base = base.get(..12).unwrap_or(base);
        let _ = writeln!(text, "        git diff {base}...{branch}");
        if complete {
            let _ = writeln!(text, "merge:  git agentloop merge {id}");
        }
    }
    text
}

fn questions(result: &RunResult) -> String {
    let mut text = String::new();
    for (number, question) in result.questions.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", number + 1, lines(question).trim());
    }
    let answers = " \"…\"".repeat(result.questions.len());
    let _ = writeln!(text, "answer: git agentloop answer {}{answers}", result.run_id);
    text
}

/// Formats a check of `run` and, if it failed, the last lines of its output and the command that prints all of it.
#[must_use]
pub fn check_lines(check: &CheckResult, run: Option<&RunId>) -> String {
    let mut text = check_line(check) + "\n";
    if check.ok {
        return text;
    }
    let shown = check.last_lines(CHECK_LINES, LINE_WIDTH);
    for line in &shown {
        let _ = writeln!(text, "    {line}");
    }
    let printed = check.output().lines().filter(|line| !line.trim().is_empty()).count();
    if let (Some(path), Some(run)) = (&check.output_path, run.filter(|_| printed > shown.len())) {
        let _ = writeln!(text, "    all of it: git agentloop output {run} {}", path.trim_end_matches(".out"));
    }
    text
}

/// Formats a check in one line.
#[must_use]
pub fn check_line(check: &CheckResult) -> String {
    let name = short(&check.name, LINE_WIDTH);
    let time = span(check.duration);
    let (passed, failed) = (paint::good("check passed"), paint::bad("check failed"));
    match check.ok {
        true if check.reused => format!("{passed}: {name} (before, on the same tree)"),
        true => format!("{passed}: {name} ({time})"),
        false => format!("{failed}: {name}: {} ({time})", short(&check.ended(), LINE_WIDTH)),
    }
}

/// Formats the settings as a table.
#[must_use]
pub fn config(settings: &[Setting]) -> String {
    let row = |setting: &Setting| {
        let origin = match setting.origin {
            Origin::Environment => setting.env.to_owned(),
            origin => origin.to_string(),
        };
        let value = if setting.values.is_empty() { "-".to_owned() } else { line(&setting.values.join("; ")) };
        vec![setting.key.to_owned(), value, origin, setting.meaning.to_owned()]
    };
    table(&["KEY", "VALUE", "FROM", "MEANING"], settings.iter().map(row).collect())
}

/// Formats a table with columns as wide as their widest cell, the last one unpadded.
pub(super) fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut all = vec![heads.iter().map(|head| (*head).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let wide = |cell: &str| paint::plain(cell).chars().count();
    let width = |column: usize| all.iter().filter_map(|row| row.get(column)).map(|cell| wide(cell)).max();
    let widths: Vec<usize> = (0..heads.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &all {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| cell.to_owned() + &" ".repeat(width - wide(cell))).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
