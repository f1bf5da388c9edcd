//! Evidence: what checks said, and of which tree.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::id::Oid;
use super::text::{a_few, one_line};
use super::{Run, range};

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
