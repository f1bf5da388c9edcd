//! The summary and the hint that a run ends with.

use jiff::tz::TimeZone;

use crate::run::Run;
use crate::run::goal::StopReason;

/// Returns the summary of a run that ends for `reason`, and a hint how to go on.
pub(super) fn summary_and_hint(run: &Run, reason: StopReason) -> (String, Option<String>) {
    let id = run.id.as_ref().map(ToString::to_string).unwrap_or_default();
    let summary = run.summary(Some(reason));
    let resume = |with: &str| Some(format!("'git agentloop resume {id}{with}' goes on"));
    match reason {
        StopReason::GoalComplete if !run.steering.is_empty() => (
            summary,
            Some(format!("guidance came after the last plan; 'git agentloop fork {id} \"GOAL\"' goes on from here")),
        ),
        StopReason::GoalComplete => (summary, None),
        StopReason::NeedsInput
        | StopReason::Cancelled
        | StopReason::MaxIterations
        | StopReason::MaxSeconds
        | StopReason::MaxAgentCalls
        | StopReason::MaxTokens
        | StopReason::MaxCost => (summary, resume(&run.more(reason))),
        StopReason::UsageLimit => {
            let reset = run.pauses.values().filter_map(|pause| pause.reset).max();
            let reset = reset.map(|reset| format!("it resets at {}; ", reset.shown(run.now, &TimeZone::system())));
            (summary, resume("").map(|resume| reset.unwrap_or_default() + &resume))
        }
        StopReason::NoProgress => {
            (summary, Some(format!("look at 'git agentloop tail {id}', then resume or start anew")))
        }
        StopReason::RunError => match &run.error {
            Some((message, hint)) => (format!("{summary}: {message}"), hint.clone().or_else(|| resume(""))),
            None => (summary, resume("")),
        },
        StopReason::IntakeAgentError | StopReason::LoopAgentError => match run.fatal_failure() {
            Some((what, failure)) => (
                format!("{summary}: {what}: {}", failure.message),
                failure
                    .hint
                    .clone()
                    .map(|hint| format!("{hint}; then 'git agentloop resume {id}'"))
                    .or_else(|| resume("")),
            ),
            None => (summary, resume("")),
        },
    }
}
