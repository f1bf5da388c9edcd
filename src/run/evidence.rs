//! Results of checks, with the tree that they are about.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{Oid, TranscriptPath};
use super::text::{cut, telling_line};
use super::{range, sanitize};

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The command as the user wrote it.
    pub name: String,
    /// True if it exited 0.
    pub ok: bool,
    /// Exit code; `None` if it was killed.
    pub exit_code: Option<i32>,
    /// Output, cut in the middle if it is long.
    pub stdout: String,
    /// Output on stderr, cut in the middle if it is long.
    pub stderr: String,
    /// Reason why it did not run to its end: missing, timed out, killed.
    pub error: Option<String>,
    /// Duration in seconds.
    #[serde(deserialize_with = "range::duration")]
    pub duration: f64,
    /// True if the result is one of an earlier run on the same tree.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reused: bool,
    /// Path of its whole output under the run's output ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_path: Option<TranscriptPath>,
}

impl CheckResult {
    /// Returns in words how a check that did not pass ended.
    #[must_use]
    pub fn ended(&self) -> String {
        match (&self.error, self.exit_code) {
            (Some(error), _) => error.clone(),
            (None, Some(code)) => format!("exit code {code}"),
            (None, None) => "it did not exit".to_owned(),
        }
    }

    /// Returns its stdout, followed by its stderr.
    #[must_use]
    pub fn output(&self) -> String {
        [self.stdout.trim(), self.stderr.trim()].join("\n").trim().to_owned()
    }

    /// Returns the last lines of output, at most `most`, safe to show and at most `width` characters long. If there is
    /// output on both streams, each has at least half of the lines.
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

    /// Returns the line of output that tells best why it failed, if it printed any.
    #[must_use]
    pub fn telling_line(&self, width: usize) -> Option<String> {
        telling_line(&self.output(), width)
    }
}

/// The result of all checks of an iteration together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every check passed.
    Pass,
    /// At least one check failed.
    Fail,
    /// There is no check.
    None,
}

impl fmt::Display for Verdict {
    /// Writes the word in the trailer `Agentloop-Checks`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::None => "none",
        })
    }
}

/// The checks of an iteration and the tree that they ran on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Tree that was written before the checks ran, and that the checkpoint commits.
    pub tree: Oid,
    /// Results in the order of the checks; empty if the run has none.
    pub checks: Vec<CheckResult>,
    /// Protected files that the work changed; the changes are not in the tree unless they are allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected: Vec<String>,
    /// Remarks about files that could not be captured as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// Files that the run added or changed and that can change the result of a check, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<String>,
}

impl Verification {
    /// Returns whether no check failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// Returns the names of the failing checks.
    #[must_use]
    pub fn failing(&self) -> BTreeSet<&str> {
        self.checks.iter().filter(|check| !check.ok).map(|check| check.name.as_str()).collect()
    }

    /// Returns the result of all checks together.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match (self.checks.is_empty(), self.passed()) {
            (true, _) => Verdict::None,
            (false, true) => Verdict::Pass,
            (false, false) => Verdict::Fail,
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
