//! Evidence: what checks said, and of which tree.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::{Oid, TranscriptPath};
use super::text::{a_few, one_line};
use super::{Run, range, sanitize};

/// Characters of a check's name that a summary shows.
const NAMED: usize = 60;

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

    /// The line of its output that tells best why it failed, safe to show: the first that speaks of an error, or else the
    /// last one. None where it printed nothing.
    #[must_use]
    pub fn telling_line(&self, width: usize) -> Option<String> {
        let output = self.output();
        let clean = sanitize::lines(&output);
        let mut lines = clean.lines().map(str::trim).filter(|line| line.contains(char::is_alphanumeric));
        let line = lines.clone().find(|line| tells_of_failure(line)).or_else(|| lines.next_back())?;
        Some(cut(line, width))
    }
}

/// `line` in at most `width` characters.
fn cut(line: &str, width: usize) -> String {
    let line = line.replace('\t', "    ");
    if line.chars().count() <= width {
        return line;
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Whether a line of a test's or a compiler's output speaks of a failure, and not of the lack of one.
fn tells_of_failure(line: &str) -> bool {
    let words: Vec<&str> =
        line.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let denies = |word: &str| ["0", "no", "without", "zero", "not"].iter().any(|no| word.eq_ignore_ascii_case(no));
    let is_failure = |word: &str| {
        let lower = word.to_ascii_lowercase();
        let begins = ["fail", "panick", "fatal", "assertion", "traceback"].iter().any(|sign| lower.starts_with(sign));
        let is_class = word.len() > 5 && (word.ends_with("Error") || word.ends_with("Exception"));
        begins || is_class || matches!(lower.as_str(), "error" | "errors" | "exception")
    };
    let mut before = "";
    words.into_iter().any(|word| {
        let tells = is_failure(word) && !denies(before);
        before = word;
        tells
    }) || line.starts_with("not ok")
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
    fn the_line_that_tells_why_a_check_failed() {
        let cases = [
            // cargo test
            (
                "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n",
                "   Compiling thiserror v1.0\nerror: test failed, to rerun pass `--lib`\n",
                "test b ... FAILED",
            ),
            // rustc
            (
                "",
                "   Compiling thiserror v1.0\nwarning: unused\nerror[E0425]: cannot find value `x`\n",
                "error[E0425]: cannot find value `x`",
            ),
            // pytest
            (
                "==== test session starts ====\n1 passed, 0 failed\nE   AssertionError: assert 1 == 2\n",
                "",
                "E   AssertionError: assert 1 == 2",
            ),
            // TAP
            ("1..2\nok 1 - fine\nnot ok 2 - sums\n", "", "not ok 2 - sums"),
            // go test
            ("ok  \tx/a\t0.1s\n--- FAIL: TestB (0.00s)\n", "", "--- FAIL: TestB (0.00s)"),
            // tsc
            (
                "src/a.ts(1,2): error TS2304: Cannot find name 'b'.\nFound 1 error.\n",
                "",
                "src/a.ts(1,2): error TS2304: Cannot find name 'b'.",
            ),
            ("found no errors\n2 files differ\n----\n", "", "2 files differ"),
            ("\u{1b}[31mfailed\u{1b}[0m: \u{202e}x", "", "failed: x"),
        ];
        for (stdout, stderr, line) in cases {
            assert_eq!(red(stdout, stderr).telling_line(80).as_deref(), Some(line), "{stdout}{stderr}");
        }
        assert_eq!(red(" \n", "---\n").telling_line(80), None);
        assert_eq!(red(&"error ".repeat(1000), "").telling_line(9).unwrap(), "error er…");
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
