//! Stable formats for scripts and prompts.

use std::fmt::Write as _;

use crate::app::Listed;
use crate::run::sanitize::line;
use crate::run::view::Status;

/// Formats a run in a few characters: `running 2/4`.
pub fn short(status: &Status) -> String {
    let state = status.state.name().replace('_', " ");
    if status.running {
        format!("{state} {}/{}\n", status.iteration, status.max_iterations)
    } else {
        format!("{state}\n")
    }
}

/// Formats a run, one field per line.
pub fn status(status: &Status) -> String {
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| {
        let _ = writeln!(text, "{name} {value}");
    };
    fact("run_id", status.run_id.as_str());
    fact("state", status.state.name());
    fact("running", if status.running { "1" } else { "0" });
    fact("phase", &status.phase.to_string());
    fact("iteration", &status.iteration.to_string());
    fact("max_iterations", &status.max_iterations.to_string());
    fact("events", &status.events.to_string());
    fact("started_at", &status.started_at.seconds().to_string());
    if let Some(reason) = &status.stop_reason {
        fact("stop_reason", &reason.to_string());
    }
    fact("branch", &status.branch);
    fact("goal", &line(&status.goal));
    fact("verified", if status.verified { "1" } else { "0" });
    text
}

/// Formats all runs, one per line.
pub fn list(runs: &[Listed]) -> String {
    let mut text = String::new();
    for listed in runs {
        let status = &listed.status;
        let _ = writeln!(
            text,
            "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
            status.run_id,
            status.state,
            status.iteration,
            status.max_iterations,
            status.started_at.seconds(),
            listed.updated_at.seconds(),
            u8::from(listed.merged),
            line(&status.goal),
        );
    }
    text
}
