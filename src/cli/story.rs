//! Formats a run's events as lines for a person who follows it.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use super::paint;
use super::render::{check_lines, span};
use crate::run::Run;
use crate::run::event::{AgentFinished, Conflicted, Event, Fact, Integrated, Provisioned, Timestamp, Unheard, Waiting};
use crate::run::goal::{Asking, Budget, Role, StopReason};
use crate::run::retries::Trouble;
use crate::run::sanitize::{lines, short};
use crate::run::text::{count, waiting_for};
use crate::run::work::{CheckResult, Review, Verification};

/// Longest line of an agent's text, in characters.
const WIDTH: usize = 160;
/// Longest remark, in characters: it has names and commands that a reader needs whole.
const NOTE: usize = 1000;
/// Number of a review's issues that are shown.
const ISSUES: usize = 8;

/// Formats a wait that began at `since`: until when in local time, for which backend, and the failure before it.
pub fn waiting(data: &Waiting, since: Timestamp, trouble: &Trouble) -> String {
    let waiting = waiting_for(&short(&data.backend, WIDTH), data.until, since, &TimeZone::system());
    let attempt = if data.shared { String::new() } else { format!(", attempt {} failed", trouble.attempts) };
    format!("{waiting}{attempt}: {}", short(&data.reason, WIDTH))
}

/// Formats `event` of `run`; `None` if it has nothing new for a person. `took` is the duration of its worker; `closing` adds
/// how the run ended and how to merge it, for readers who see no result.
#[must_use]
pub fn tell(run: &Run, event: &Event, took: Option<f64>, closing: bool) -> Option<String> {
    let time = took.map(|seconds| format!(" ({})", span(seconds))).unwrap_or_default();
    Some(match &event.fact {
        Fact::RunStarted(data) => {
            let id = data.run_id.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{}: {}", paint::head(&format!("run {id}")), short(&data.goal.text, WIDTH))
        }
        Fact::RunResumed(_) => {
            let id = run.id.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("{}: {}", paint::head(&format!("run {id} goes on")), short(&run.goal.text, WIDTH))
        }
        Fact::WorktreeReady(data) => {
            let notes = data.remarks.iter().map(|remark| format!("\nnote: {}", lines(remark)));
            format!("branch {}, from {}{}", data.branch, hash(&data.base), notes.collect::<String>())
        }
        Fact::BaselineTaken(data) => baseline(&data.verification),
        Fact::Provisioned(data) => provisioned(data),
        Fact::CriteriaProposed(data) => format!("criteria: {}", short(&data.criteria, WIDTH)),
        Fact::NeedsInput(data) if run.options.asking != Asking::Console => questions(run, &data.questions),
        Fact::IntakeFinished(data) => {
            format!("no questions could be asked: {}", short(data.error.as_deref()?, WIDTH))
        }
        Fact::IterationStarted(data) => {
            paint::head(&format!("iteration {} of {}", event.iteration.unwrap_or_default(), data.max_iterations))
        }
        Fact::Decomposed(data) => {
            let mut text = format!("  plan: {}", count(data.plan.subgoals.len(), "subgoal"));
            for subgoal in &data.plan.subgoals {
                let _ = write!(text, "\n    {}: {}", subgoal.id, short(&subgoal.description, WIDTH));
            }
            if !data.plan.dropped.is_empty() {
                text += "\n    the rest of a longer plan is left for the next iteration";
            }
            text
        }
        Fact::SubagentFinished(data) => {
            format!("  {} {}{time}: {}", data.id, paint::good("done"), short(&data.preview, WIDTH))
        }
        Fact::SubagentFailed(data) => {
            let failed = paint::bad("failed");
            format!("  {} {failed}, attempt {}{time}: {}", data.id, data.attempt, short(&data.error, WIDTH))
        }
        Fact::Verified(data) => verified(run, &data.verification)?,
        Fact::Reviewed(data) => reviewed(&data.review),
        Fact::Checkpointed(data) => {
            let files = count(data.changed, "file");
            let partial = if data.partial { ", partial" } else { "" };
            let mut text = format!("  committed {}, {files} changed{partial}", hash(&data.commit));
            for remark in &data.remarks {
                let _ = write!(text, "\n  note: {}", short(remark, NOTE));
            }
            text
        }
        Fact::IterationFinished(data) => {
            let number = event.iteration.unwrap_or_default();
            let next = if !data.complete && number < run.budget().max_iterations.get() {
                format!("\n  next: iteration {} mends what is left", number + 1)
            } else {
                String::new()
            };
            format!("  {}{next}", short(&data.summary, WIDTH))
        }
        Fact::Integrated(data) => integrated(data),
        Fact::Conflicted(data) => conflicted(data),
        Fact::Steered(data) => format!("  guidance: {}", short(&data.text, WIDTH)),
        Fact::BudgetChanged(data) => format!("  budget: {}", budget(&data.budget)),
        Fact::Unheard(data) => unheard(data),
        Fact::Tampered(data) => {
            let notes =
                data.remarks.iter().map(|remark| format!("  {}: {}", paint::notable("warning"), short(remark, WIDTH)));
            notes.collect::<Vec<String>>().join("\n")
        }
        Fact::RunCancelled(_) => "stopping".to_owned(),
        Fact::RunError(data) => format!("{}: {}", paint::bad("error"), short(&data.message, WIDTH)),
        Fact::RunFinished(data) if closing => {
            let mut text = lines(&data.summary).trim().to_owned();
            if let Some(hint) = &data.hint {
                let _ = write!(text, "\nhint: {}", lines(hint));
            }
            if let Some(id) = run.id.as_ref().filter(|_| data.stop_reason != Some(StopReason::NeedsInput)) {
                // This may be read in another clone and much later, when the branch has another name or is gone.
                let _ = write!(text, "\nreview: git agentloop show {id}");
                if data.completed && !run.checkpoints.is_empty() {
                    let _ = write!(text, "\nmerge:  git agentloop merge {id}");
                }
            }
            text
        }
        _ => return None,
    })
}

/// Formats the results of checks with the last lines of those that failed, and remarks; `None` if there are none.
fn verified(run: &Run, verification: &Verification) -> Option<String> {
    let of_check = |check: &CheckResult| {
        check_lines(check, run.id.as_ref()).lines().map(|line| format!("  {line}")).collect::<Vec<_>>()
    };
    let mut all: Vec<String> = verification.checks.iter().flat_map(of_check).collect();
    all.extend(verification.remarks.iter().map(|remark| format!("  note: {}", short(remark, NOTE))));
    let shadows = verification.shadows.iter();
    all.extend(shadows.map(|file| format!("  can change what a check says: {}", short(file, NOTE))));
    (!all.is_empty()).then(|| all.join("\n"))
}

/// Formats the results of the checks before any work.
fn baseline(verification: &Verification) -> String {
    let line = |check: &CheckResult| {
        let name = short(&check.name, WIDTH);
        if check.ok {
            format!("  {} {name}: passes before any work, so it proves little", paint::notable("baseline"))
        } else {
            format!("  baseline {name}: {}, before any work", short(&check.ended(), WIDTH))
        }
    };
    let notes = verification.remarks.iter().map(|remark| format!("  note: {}", short(remark, WIDTH)));
    verification.checks.iter().map(line).chain(notes).collect::<Vec<_>>().join("\n")
}

/// Formats a review.
fn reviewed(review: &Review) -> String {
    let verdict = if review.accepts() { paint::good("accepted") } else { paint::notable("not accepted") };
    let mut text = format!("  review: {verdict}");
    for issue in review.issues.iter().take(ISSUES) {
        let _ = write!(text, "\n    {}", short(issue, WIDTH));
    }
    if review.issues.len() > ISSUES {
        let _ = write!(text, "\n    and {} more", review.issues.len() - ISSUES);
    }
    text
}

/// Formats the failure of a call that no other event reports, and remarks about its work. A call that is retried is reported
/// by its wait; a failure that `is_repeated` is shortened.
pub fn finished(data: &AgentFinished, is_tried_again: bool, is_repeated: bool) -> Option<String> {
    let role = data.role.map_or("agent", Role::name);
    let failure = data.error.as_ref().filter(|_| data.role != Some(Role::Subagent) && !is_tried_again);
    let failed = failure.map(|failure| {
        let failed = paint::bad("failed");
        if is_repeated {
            format!("  {role} {failed} again, in the same way")
        } else {
            format!("  {role} {failed}: {}", short(&failure.message, WIDTH))
        }
    });
    let name = data.subgoal.as_deref().unwrap_or(role);
    let notes = data.remarks.iter().map(|remark| format!("  note on {name}: {}", short(remark, NOTE)));
    let lines: Vec<String> = failed.into_iter().chain(notes).collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn provisioned(data: &Provisioned) -> String {
    let whose = data.subgoal.as_deref().map_or_else(String::new, |subgoal| format!(" of {subgoal}"));
    let copied = (data.copied > 0).then(|| format!("{} copied from your checkout", count(data.copied, "file")));
    let setup = data.setup.iter().map(|command| {
        let name = short(&command.name, WIDTH);
        let how = if command.ok { span(command.duration) } else { paint::bad("failed") };
        format!("{name} ({how})")
    });
    let parts: Vec<String> = copied.into_iter().chain(setup).collect();
    let parts = if parts.is_empty() { "as git keeps it".to_owned() } else { parts.join(", ") };
    let notes = data.remarks.iter().map(|remark| format!("\n  note: {}", short(remark, NOTE)));
    format!("  worktree{whose}: {parts}{}", notes.collect::<String>())
}

fn integrated(data: &Integrated) -> String {
    let commit = hash(&data.commit);
    match &data.subgoal {
        Some(subgoal) if data.conflict.is_empty() => format!("  merged the work of {subgoal}: {commit}"),
        Some(subgoal) => {
            let at = short(&data.conflict.join(", "), WIDTH);
            let mut text = format!("  merged the work of {subgoal}: {commit}, its conflict resolved in {at}");
            for remark in &data.remarks {
                let _ = write!(text, "\n  note: {}", short(remark, NOTE));
            }
            text
        }
        None => format!("  took in a commit that is not the run's: {commit}"),
    }
}

fn unheard(data: &Unheard) -> String {
    let name = short(&data.name, WIDTH);
    format!("  note: '{name}' was sent to the run, and cannot be read: {}", short(&data.error, WIDTH))
}

fn conflicted(data: &Conflicted) -> String {
    match &data.error {
        None => format!("  the work of {} conflicts in {}", data.subgoal, short(&data.paths.join(", "), WIDTH)),
        Some(error) => format!("  the conflict of {} is not resolved: {}", data.subgoal, short(error, WIDTH)),
    }
}

/// Formats a budget.
fn budget(budget: &Budget) -> String {
    let limits = [
        Some(count(budget.max_iterations.get(), "iteration")),
        budget.max_seconds.map(|most| span(most.get())),
        budget.max_agent_calls.map(|calls| count(calls.get(), "agent call")),
        budget.max_tokens.map(|tokens| count(tokens.get(), "token")),
        budget.max_cost.map(|cost| format!("{:.2} USD", cost.get())),
    ];
    limits.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn questions(run: &Run, questions: &[String]) -> String {
    let mut text = format!("{} for you", count(questions.len(), "question"));
    for (number, question) in questions.iter().enumerate() {
        let _ = write!(text, "\n  {}. {}", number + 1, lines(question).trim());
    }
    if let Some(id) = &run.id {
        let _ = write!(text, "\nanswer: git agentloop answer {id}{}", " \"…\"".repeat(questions.len()));
    }
    text
}

/// Formats a commit id.
fn hash(commit: &str) -> String {
    paint::notable(commit.get(..12).unwrap_or(commit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::{
        Checkpointed, IterationFinished, IterationStarted, PhaseChanged, Reviewed, RunFinished, SubagentFinished,
        Timestamp,
    };
    use crate::run::goal::RunId;
    use crate::run::{Phase, Word};

    fn line_of(fact: impl Into<Fact>, closing: bool) -> Option<String> {
        let mut run = Run::default();
        run.id = Some(RunId::new("x", 0));
        let event = Event {
            seq: 1,
            ts: Timestamp(0),
            session: "abcdef".parse().unwrap(),
            iteration: Some(2),
            fact: fact.into(),
        };
        tell(&run, &event, Some(12.0), closing).map(|text| paint::plain(&text).into_owned())
    }

    #[test]
    fn a_line_says_what_happened_and_what_comes_next() {
        let cases: [(Fact, &str); 5] = [
            (IterationStarted { max_iterations: 4, ..IterationStarted::default() }.into(), "iteration 2 of 4"),
            (
                SubagentFinished {
                    id: "s1".parse().unwrap(),
                    preview: "did\u{1b}[2J it".into(),
                    ..SubagentFinished::default()
                }
                .into(),
                "  s1 done (12s): did it",
            ),
            (
                Reviewed { review: Review { issues: vec!["no tests".into()], ..Review::default() } }.into(),
                "  review: not accepted\n    no tests",
            ),
            (
                Checkpointed { commit: "a".repeat(40).parse().unwrap(), changed: 1, ..Checkpointed::default() }.into(),
                "  committed aaaaaaaaaaaa, 1 file changed",
            ),
            (
                IterationFinished { complete: false, summary: "checks fail".into() }.into(),
                "  checks fail\n  next: iteration 3 mends what is left",
            ),
        ];
        for (fact, line) in cases {
            assert_eq!(line_of(fact, false).as_deref(), Some(line));
        }
        assert_eq!(line_of(PhaseChanged { phase: Word::Known(Phase::Review) }, true), None);
    }

    #[test]
    fn the_end_is_told_where_no_result_tells_it() {
        let end = || RunFinished {
            stop_reason: Some(StopReason::GoalComplete),
            summary: "done".into(),
            ..RunFinished::default()
        };
        assert_eq!(line_of(end(), false), None);
        assert_eq!(line_of(end(), true).unwrap(), "done\nreview: git agentloop show x-000000");
    }
}
