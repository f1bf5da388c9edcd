//! Evidence of a run's checks, and its limits.

use super::evidence::CheckResult;
use super::state::{Run, Task};
use super::text::{a_few, one_line};

/// Longest name of a check in a summary, in characters.
const NAME_LENGTH: usize = 60;
/// Number of failed actions that are named if no file was changed.
const MOST_FAILED: usize = 5;

impl Run {
    /// Lists the checks that passed on the base, before any work: that they pass now proves little.
    #[must_use]
    pub fn green_before(&self) -> Vec<&str> {
        let checks = self.baseline.iter().flat_map(|baseline| &baseline.checks);
        checks.filter(|check| check.ok).map(|check| check.name.as_str()).collect()
    }

    /// Returns a caveat about the run's checks, if they prove little.
    #[must_use]
    pub fn proves_little(&self) -> Option<String> {
        if self.options.checks.is_empty() {
            return Some("no checks configured".to_owned());
        }
        let green = self.green_before();
        if green.is_empty() {
            return None;
        }
        let named: Vec<String> = green.iter().map(|name| format!("'{}'", one_line(name, NAME_LENGTH))).collect();
        Some(format!("passed before any work, so it proves little: {}", a_few(&named, 3)))
    }

    /// Returns a remark if no worker of the iteration changed a file, with the actions that failed according to their
    /// agents' output. `tree` holds all of their work.
    #[must_use]
    pub fn unchanged(&self, tree: &str) -> Option<String> {
        let tasks = &self.iteration()?.tasks;
        let ended = self.iterations.iter().rev().find_map(|iteration| iteration.checkpoint.as_ref());
        // Work in a partial checkpoint belongs to this iteration.
        let is_unchanged = self.tip.tree == tree && self.checkpoints.last() == ended;
        let has_worked = tasks.iter().any(|task| task.begun);
        let is_whole = tasks.iter().all(|task| task.commit.is_none() || task.merged);
        if !is_unchanged || !has_worked || !is_whole {
            return None;
        }
        let of_task = |task: &Task| task.failed_actions.iter().map(|action| format!("{}: {action}", task.id)).collect();
        let failed: Vec<String> = tasks.iter().flat_map::<Vec<String>, _>(of_task).collect();
        let failures =
            if failed.is_empty() { String::new() } else { format!("; this failed: {}", a_few(&failed, MOST_FAILED)) };
        Some(format!("no worker changed a file{failures}"))
    }

    /// Returns the result of `check` on `tree`, if it passed on it in this run.
    #[must_use]
    pub fn evidence(&self, tree: &str, check: &str) -> Option<&CheckResult> {
        let proven = self.iterations.iter().rev().filter(|iteration| !iteration.unproven);
        let verifications = proven.filter_map(|iteration| iteration.verification.as_ref()).chain(&self.baseline);
        let mut checks = verifications.filter(|seen| seen.tree == tree).flat_map(|seen| &seen.checks);
        checks.find(|seen| seen.ok && seen.name == check)
    }
}
