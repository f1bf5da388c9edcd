//! Evidence: what checks said, and of which tree.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::{Oid, TranscriptPath};
use super::text::{a_few, cut, one_line, telling_line};
use super::{Run, Task, range, sanitize};

/// Characters of a check's name that a summary shows.
const NAMED: usize = 60;
/// Actions that failed and that are named where no file was changed.
const FAILED: usize = 5;

/// What one check said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The command as the user wrote it.
    pub name: String,
    /// Whether it exited 0.
    pub ok: bool,
    /// Its exit status; none where it did not exit by itself.
    pub exit_code: Option<i32>,
    /// Its output, cut at head and tail when long.
    pub stdout: String,
    /// Its errors, cut at head and tail when long.
    pub stderr: String,
    /// Why it did not run to its end: missing, timed out, killed.
    pub error: Option<String>,
    /// Seconds.
    #[serde(deserialize_with = "range::took")]
    pub duration: f64,
    /// Whether it was not run again: it passed on the same tree before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reused: bool,
    /// Where all of its output is, under the run's output ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<TranscriptPath>,
}

impl CheckResult {
    /// How a check that did not pass came to its end, in words.
    #[must_use]
    pub fn ended(&self) -> String {
        match (&self.error, self.exit_code) {
            (Some(error), _) => error.clone(),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "it did not exit".to_owned(),
        }
    }

    /// What it printed and, after that, what it printed as errors.
    #[must_use]
    pub fn output(&self) -> String {
        [self.stdout.trim(), self.stderr.trim()].join("\n").trim().to_owned()
    }

    /// At most `most` lines, those that it ended with, safe to show and at most `width` characters long. Where it printed
    /// to both streams, each has at least half of them.
    #[must_use]
    pub fn last_lines(&self, most: usize, width: usize) -> Vec<String> {
        let [out, errors] = [&self.stdout, &self.stderr].map(|text| {
            let clean = sanitize::lines(text);
            let lines = clean.lines().filter(|line| !line.trim().is_empty());
            lines.map(|line| cut(line.trim_end(), width)).collect::<Vec<_>>()
        });
        let of_errors = errors.len().min((most / 2).max(most.saturating_sub(out.len())));
        let of_out = out.len().min(most - of_errors);
        [&out[out.len() - of_out..], &errors[errors.len() - of_errors..]].concat()
    }

    /// The line of its output that tells best why it failed; none where it printed nothing.
    #[must_use]
    pub fn telling_line(&self, width: usize) -> Option<String> {
        telling_line(&self.output(), width)
    }
}

/// The checks of an iteration and the tree that they ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// The tree object that was written before the checks ran, and that the checkpoint commits.
    pub tree: Oid,
    /// The results in the order of the checks; empty where the run has none.
    pub checks: Vec<CheckResult>,
    /// Protected files that the work changed; without leave to, the changes are not in the tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected: Vec<String>,
    /// What could not be captured as it stands, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Files that the run added or changed and that can change what a check says, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<String>,
}

impl Verification {
    /// Whether nothing is red.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// The names of the red checks.
    #[must_use]
    pub fn failing(&self) -> BTreeSet<&str> {
        self.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect()
    }

    /// `pass`, `fail` or `none`, as in the `Agentloop-Checks` trailer.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match (self.checks.is_empty(), self.passed()) {
            (true, _) => "none",
            (false, true) => "pass",
            (false, false) => "fail",
        }
    }
}

impl Run {
    /// The checks of the run that passed on the base, before any work: that they pass proves little.
    #[must_use]
    pub fn green_before(&self) -> Vec<&str> {
        let checks = self.baseline.iter().flat_map(|baseline| &baseline.checks);
        checks.filter(|check| check.ok).map(|check| check.name.as_str()).collect()
    }

    /// What the run's checks cannot show of its work, in words.
    #[must_use]
    pub fn proves_little(&self) -> Option<String> {
        if self.options.checks.is_empty() {
            return Some("no checks configured".to_owned());
        }
        let green = self.green_before();
        if green.is_empty() {
            return None;
        }
        let named: Vec<String> = green.iter().map(|name| format!("'{}'", one_line(name, NAMED))).collect();
        Some(format!("passed before any work, so it proves little: {}", a_few(&named, 3)))
    }

    /// That no worker of the iteration changed a file, and what failed for them by what their agents printed, where `tree`
    /// holds all that they did.
    #[must_use]
    pub fn unchanged(&self, tree: &str) -> Option<String> {
        let tasks = &self.iteration()?.tasks;
        let ended = self.iterations.iter().rev().find_map(|iteration| iteration.checkpoint.as_ref());
        // What a partial checkpoint has committed is work of this iteration.
        let is_unchanged = self.tip.tree == tree && self.checkpoints.last() == ended;
        let has_worked = tasks.iter().any(|task| task.begun);
        let is_whole = tasks.iter().all(|task| task.commit.is_none() || task.merged);
        if !is_unchanged || !has_worked || !is_whole {
            return None;
        }
        let of_task = |task: &Task| task.failed_actions.iter().map(|action| format!("{}: {action}", task.id)).collect();
        let failed: Vec<String> = tasks.iter().flat_map::<Vec<String>, _>(of_task).collect();
        let told = if failed.is_empty() { String::new() } else { format!("; this failed: {}", a_few(&failed, FAILED)) };
        Some(format!("no worker changed a file{told}"))
    }

    /// What `check` said of `tree` when it passed on it in this run.
    #[must_use]
    pub fn evidence(&self, tree: &str, check: &str) -> Option<&CheckResult> {
        let proven = self.iterations.iter().rev().filter(|iteration| !iteration.unproven);
        let verifications = proven.filter_map(|iteration| iteration.verification.as_ref()).chain(&self.baseline);
        let mut checks = verifications.filter(|seen| seen.tree == tree).flat_map(|seen| &seen.checks);
        checks.find(|seen| seen.ok && seen.name == check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn red(stdout: &str, stderr: &str) -> CheckResult {
        CheckResult { stdout: stdout.to_owned(), stderr: stderr.to_owned(), ..CheckResult::default() }
    }

    #[test]
    fn the_last_lines_are_of_both_streams_and_bounded() {
        let many = |name: &str| (1..=9).map(|number| format!("{name}{number}")).collect::<Vec<_>>().join("\n");
        let cases = [
            (red(&many("o"), &many("e")), vec!["o8", "o9", "e8", "e9"]),
            (red(&many("o"), "e1\n"), vec!["o7", "o8", "o9", "e1"]),
            (red("o1\n", &many("e")), vec!["o1", "e7", "e8", "e9"]),
            (red(&many("o"), " \n"), vec!["o6", "o7", "o8", "o9"]),
            (red("", &many("e")), vec!["e6", "e7", "e8", "e9"]),
            (red("", ""), vec![]),
            (red("  a\tb\u{1b}[2J\n\n", ""), vec!["  a    b"]),
            (red(&"x".repeat(100_000), ""), vec!["xxxxxxxxx…"]),
        ];
        for (check, lines) in cases {
            assert_eq!(check.last_lines(4, 10), lines);
        }
    }
}
