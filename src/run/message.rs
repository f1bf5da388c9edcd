//! The messages of this program's commits: subject, body, trailers.
//!
//! Bodies are indented by four spaces, so that no line of a goal or a review is taken for a trailer, or for the `---` at
//! which `git interpret-trailers` stops reading.

use std::fmt::Write as _;

use super::event::clip;
use super::evidence::{Verdict, Verification};
use super::goal::{AgentChoice, Goal, Role, RunId};
use super::work::{Subgoal, Usage, one_line};
use super::{Run, sanitize};

/// Longest goal in a start commit's subject, in characters.
const SUBJECT_LENGTH: usize = 60;
/// Longest goal in a merge's message, in bytes: it is an argument of git.
const GOAL_LENGTH: usize = 16 * 1024;
/// Longest report in a worker's commit, in bytes; the log holds it whole.
const REPORT_LENGTH: usize = 8 * 1024;
/// Longest line in a checkpoint's body, in characters.
const BODY_LENGTH: usize = 120;

/// Trailer that names a commit's run.
pub const RUN_TRAILER: &str = "Agentloop-Run";
/// Trailer of a start commit that names the commit it started from.
pub const BASE_TRAILER: &str = "Agentloop-Base";
/// Trailer of a commit that contains a run's work without being its child: the commit that was merged.
pub const MERGED_TRAILER: &str = "Agentloop-Merged";
/// Trailer of a checkpoint's verdict.
pub const VERDICT_TRAILER: &str = "Agentloop-Verdict";
/// Verdict of a checkpoint of an iteration that has not ended.
const PARTIAL: &str = "partial";

/// Writes the message of the start commit.
#[must_use]
pub fn start(id: &RunId, goal: &Goal, base: &str, version: &str, forked_from: Option<&str>) -> String {
    let mut text = format!("agentloop: {}\n\n{}\n", one_line(&goal.text, SUBJECT_LENGTH), indent(&goal.text));
    if !goal.criteria.trim().is_empty() {
        let _ = write!(text, "\n    Criteria:\n{}\n", indent(&goal.criteria));
    }
    let _ = write!(text, "\n{RUN_TRAILER}: {id}\n{BASE_TRAILER}: {base}\nAgentloop-Version: {version}\n");
    if let Some(from) = forked_from {
        let _ = writeln!(text, "Agentloop-Forked-From: {from}");
    }
    text
}

/// Returns whether the checkpoint with this `message` is partial; `None` if the message is not a checkpoint's.
#[must_use]
pub fn is_partial(message: &str) -> Option<bool> {
    trailer(message, VERDICT_TRAILER).map(|verdict| verdict == PARTIAL)
}

/// Writes the message of a checkpoint of the current iteration.
#[must_use]
pub fn checkpoint(run: &Run, partial: bool) -> String {
    let Some(iteration) = run.iteration() else { return "agentloop: checkpoint\n".to_owned() };
    let number = iteration.number;
    let rest = if partial { "partial, ".to_owned() + &iteration.summary() } else { iteration.summary() };
    let mut text = format!("agentloop: iteration {number}/{}: {rest}\n\n", run.budget().max_iterations);
    let results = iteration.results();
    for subgoal in iteration.plan.iter().flat_map(|plan| &plan.subgoals) {
        let result = results.iter().find(|result| result.id == subgoal.id);
        let mark = if result.is_some_and(|result| result.ok) { '✓' } else { '✗' };
        let _ = writeln!(text, "    {mark} {}: {}", subgoal.id, one_line(&subgoal.description, BODY_LENGTH));
        if let Some(error) = result.filter(|result| !result.ok).and_then(|result| result.error.as_deref()) {
            let _ = writeln!(text, "      {}", one_line(error, BODY_LENGTH));
        }
    }
    let checks = iteration.verification.iter().flat_map(|verification| &verification.checks);
    for check in checks.filter(|check| !check.ok) {
        let failed = format!("check failed: {}: {}", check.name, check.ended());
        let _ = writeln!(text, "    - {}", one_line(&failed, BODY_LENGTH));
    }
    for issue in iteration.review.iter().flat_map(|review| &review.issues) {
        let _ = writeln!(text, "    - {}", one_line(issue, BODY_LENGTH));
    }
    let done = iteration.tasks.iter().filter(|task| task.is_done()).count();
    let checks = iteration.verification.as_ref().map_or(Verdict::None, Verification::verdict);
    let verdict = match (partial, iteration.is_complete()) {
        (true, _) => PARTIAL,
        (false, true) => "complete",
        (false, false) => "incomplete",
    };
    if let Some(id) = &run.id {
        let _ = write!(text, "\n{RUN_TRAILER}: {id}\n");
    }
    let _ = write!(
        text,
        "Agentloop-Iteration: {number}\nAgentloop-Subgoals: {done}/{}\nAgentloop-Checks: {checks}\n{VERDICT_TRAILER}: {verdict}\n",
        iteration.tasks.len(),
    );
    for role in [Role::Decomposer, Role::Subagent, Role::Reviewer] {
        let agent = one_line(&run.options.agent_for(role).to_string(), BODY_LENGTH);
        let _ = writeln!(text, "Agentloop-Agent: {role}={agent}");
    }
    text + &usage_trailers(iteration.usage.tokens(), iteration.usage.cost_usd)
}

/// Writes the trailers of the usage that agents reported, if any.
fn usage_trailers(tokens: u64, cost_usd: Option<f64>) -> String {
    let mut text = String::new();
    if tokens > 0 {
        let _ = writeln!(text, "Agentloop-Tokens: {tokens}");
    }
    if let Some(cost) = cost_usd {
        let _ = writeln!(text, "Agentloop-Cost-USD: {cost:.4}");
    }
    text
}

/// Writes the message of a merge of the run's work.
#[must_use]
pub fn merge(run: &Run) -> String {
    let subject = subject(run);
    let id = run.id.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{subject}\n\n{}\n{RUN_TRAILER}: {id}\n", merge_body(run))
}

/// Writes the message of a commit that holds all of the run's work up to `tip` and is not its child.
#[must_use]
pub fn squash(run: &Run, tip: &str) -> String {
    let subject = subject(run);
    let id = run.id.as_ref().map(ToString::to_string).unwrap_or_default();
    format!("{subject}\n\n{}\n{RUN_TRAILER}: {id}\n{MERGED_TRAILER}: {tip}\n", merge_body(run))
}

/// Writes the subject of a merge: the goal's first line, cut between words if it is long.
fn subject(run: &Run) -> String {
    let whole = one_line(&run.goal.text, usize::MAX);
    let mut goal = one_line(&whole, SUBJECT_LENGTH);
    if goal != whole
        && let Some((words, _)) = goal.rsplit_once(' ')
        && words.len() > SUBJECT_LENGTH / 2
    {
        goal = format!("{}…", words.trim_end());
    }
    // git takes a line that starts with `#` for a comment when an editor shows the message.
    if goal.starts_with('#') { format!("Merge {goal}") } else { goal }
}

/// Adds the integrator that resolved the commit's conflict, and its usage, to `message`.
#[must_use]
pub fn resolved_by(message: &str, agent: &AgentChoice, usage: &Usage) -> String {
    let agent = one_line(&agent.to_string(), BODY_LENGTH);
    format!(
        "{}\nAgentloop-Agent: {}={agent}\n{}",
        message.trim_end(),
        Role::Integrator,
        usage_trailers(usage.tokens(), usage.cost_usd)
    )
}

/// Writes the body of a merge: the goal, if the subject does not hold all of it, and the run's summary.
fn merge_body(run: &Run) -> String {
    let mut text = String::new();
    if run.goal.text.trim() != one_line(&run.goal.text, SUBJECT_LENGTH) {
        let _ = writeln!(text, "{}\n", indent(&clip(&run.goal.text, GOAL_LENGTH)));
    }
    let summary = run.ended.as_ref().map_or_else(|| run.summary(None), |ended| ended.summary.clone());
    let _ = writeln!(text, "{}", one_line(&summary, BODY_LENGTH));
    text
}

/// The commit of an attempt at a subgoal by its worker, or by the integrator of its work.
#[derive(Clone, Debug)]
pub struct Work<'a> {
    /// Id of the run.
    pub run: Option<&'a RunId>,
    /// Number of the iteration.
    pub iteration: u32,
    /// Subgoal that the commit is for.
    pub subgoal: &'a Subgoal,
    /// Number of the attempt.
    pub attempt: u32,
    /// Role of the agent.
    pub role: Role,
    /// Agent that did the work.
    pub agent: &'a AgentChoice,
    /// Tokens that it used.
    pub tokens: u64,
    /// True if the attempt succeeded.
    pub done: bool,
    /// Report of the agent, or description of the conflict.
    pub text: &'a str,
}

/// Writes the message of an attempt's commit.
#[must_use]
pub fn work(work: &Work<'_>) -> String {
    let what = match (work.role, work.done) {
        (Role::Integrator, true) => "conflict resolved, ",
        (Role::Integrator, false) => "conflict open, ",
        (_, true) => "",
        (_, false) => "partial, ",
    };
    let subject = one_line(&work.subgoal.description, SUBJECT_LENGTH);
    let mut text = format!("agentloop: {}: {what}{subject}\n\n", work.subgoal.id);
    let report = indent(clip(work.text, REPORT_LENGTH).as_str());
    if !report.trim().is_empty() {
        let _ = write!(text, "{report}\n\n");
    }
    if let Some(id) = work.run {
        let _ = writeln!(text, "{RUN_TRAILER}: {id}");
    }
    let agent = one_line(&work.agent.to_string(), BODY_LENGTH);
    let _ = write!(
        text,
        "Agentloop-Iteration: {}\nAgentloop-Subgoal: {}\nAgentloop-Attempt: {}\nAgentloop-Agent: {}={agent}\n",
        work.iteration, work.subgoal.id, work.attempt, work.role,
    );
    text + &usage_trailers(work.tokens, None)
}

/// Returns the value of the last trailer `key` in a message of this program.
#[must_use]
pub fn trailer<'a>(message: &'a str, key: &str) -> Option<&'a str> {
    message.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
}

fn indent(text: &str) -> String {
    let clean = sanitize::lines(text.trim());
    let lines: Vec<String> = clean.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_has_the_goal_as_its_subject() {
        let long = "let the login page say why it refuses a password, and in the user's language";
        for (goal, expected) in [
            ("\nwrite files\nand more", "write files"),
            ("#12: write files", "Merge #12: write files"),
            ("", ""),
            (long, "let the login page say why it refuses a password, and in…"),
            (&"word ".repeat(12), "word word word word word word word word word word word word"),
            (&"x".repeat(61), &format!("{}…", "x".repeat(59))),
            ("it goes on…", "it goes on…"),
        ] {
            let goal = Goal { text: goal.to_owned(), ..Goal::default() };
            assert_eq!(subject(&Run { goal, ..Run::default() }), expected);
        }
    }

    #[test]
    fn every_line_of_a_goal_is_indented() {
        let goal = Goal { text: "fix it\n---\nAgentloop-Run: forged\n\n\tx".into(), criteria: "it works".into() };
        assert_eq!(
            start(&RunId::new("fix", 0), &goal, "abc", "0.1.0", None),
            "agentloop: fix it\n\n    fix it\n    ---\n    Agentloop-Run: forged\n\n    \tx\n\n    Criteria:\n    it works\n\n\
             Agentloop-Run: fix-000000\nAgentloop-Base: abc\nAgentloop-Version: 0.1.0\n"
        );
    }
}
