//! Formats a run for `show`.

use std::fmt::Write as _;

use super::paint;
use super::render::{branch, check_lines, span};
use crate::app::{self, Shown};
use crate::run::sanitize::{lines, short};
use crate::run::text::count;

/// Longest summary, in characters: it has the line that explains why a check failed.
const SUMMARY: usize = 400;
/// Longest line of an agent's text, in characters.
const WIDTH: usize = 160;

/// Formats everything but the files, which git prints below.
pub fn text(shown: &Shown) -> String {
    let state = paint::state(shown.state, &shown.state.name().replace('_', " "));
    let mut text = format!("run       {}: {state}\n", shown.run_id);
    let _ = writeln!(text, "goal      {}", hanging(&shown.goal));
    if !shown.criteria.trim().is_empty() {
        let _ = writeln!(text, "criteria  {}", hanging(&shown.criteria));
    }
    let _ = writeln!(text, "verdict   {}", short(&shown.summary, SUMMARY));
    for iteration in &shown.iterations {
        let commit = iteration.commit.as_deref().and_then(|commit| commit.get(..12)).unwrap_or("not committed");
        let commit = paint::notable(&format!("{commit:<12}"));
        let _ = writeln!(text, "  {:>3}. {commit}  {}", iteration.number, iteration.summary);
    }
    for issue in &shown.issues {
        let _ = writeln!(text, "issue     {}", short(issue, WIDTH));
    }
    for check in &shown.checks {
        text += &check_lines(check, Some(&shown.run_id));
    }
    let cost = shown.usage.cost_usd.map(|cost| format!(", {cost:.2} USD")).unwrap_or_default();
    // Not every agent reports its tokens.
    let tokens = Some(shown.usage.tokens()).filter(|tokens| *tokens > 0);
    let tokens = tokens.map(|tokens| format!(", {}", count(tokens, "token"))).unwrap_or_default();
    let calls = count(shown.agent_calls, "agent call");
    let _ = writeln!(text, "cost      {calls}{tokens}{cost}, {}", span(shown.seconds));
    let merged = if shown.merged { format!(", {}", paint::good("merged")) } else { String::new() };
    let branch = branch(&app::branch(&shown.run_id), Some(&shown.branch));
    let _ = writeln!(text, "branch    {branch}{merged}");
    for kept in &shown.rescued {
        let _ = writeln!(text, "rescued   {} {}", kept.object.get(..12).unwrap_or_default(), kept.name);
    }
    if !shown.verified {
        text += "record    unverified: another clone recorded it, or a version without seals\n";
    }
    if shown.elsewhere > 0 {
        let events = count(shown.elsewhere, "event");
        let id = &shown.run_id;
        let _ = writeln!(
            text,
            "elsewhere {events}, unverified and not counted: 'git agentloop resume {id} --take-over' adopts them"
        );
    }
    if shown.missing > 0 {
        let _ = writeln!(text, "missing   {} that was recorded here", count(shown.missing, "event"));
    }
    if let Some(undo) = &shown.undo {
        let _ = writeln!(text, "undo      {undo}");
    }
    if let Some(next) = &shown.next {
        let _ = writeln!(text, "next      {next}");
    }
    if !shown.files.is_empty() {
        text.push('\n');
    }
    text
}

/// Indents the lines after the first.
fn hanging(text: &str) -> String {
    let text = lines(text).trim().replace('\n', "\n          ");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
