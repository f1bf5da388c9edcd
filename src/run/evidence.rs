//! Evidence: what checks said, and of which tree.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::{Oid, TranscriptPath};
use super::text::{cut, telling_line};
use super::{range, sanitize};

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
