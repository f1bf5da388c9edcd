//! What a run's checks show of its work, and what they cannot show.

use super::evidence::CheckResult;
use super::state::{Run, Task};
use super::text::{a_few, one_line};

/// Characters of a check's name that a summary shows.
const NAMED: usize = 60;
/// Actions that failed and that are named where no file was changed.
const FAILED: usize = 5;

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
