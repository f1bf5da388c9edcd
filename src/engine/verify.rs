//! Checks: real commands on a tree that is on record before they run.

use std::time::Duration;

use super::Engine;
use crate::error::Result;
use crate::process::{self, Captured, Mark, Spec, Status, Stdin};
use crate::run::event::Verified;
use crate::run::goal::Check;
use crate::run::work::{CheckResult, Verification};

/// Bytes of a check's output that are kept, each of stdout and stderr.
const KEEP: usize = 64 * 1024;

impl Engine {
    /// Writes the tree, runs every check, records the results. A run that is stopped meanwhile records nothing.
    pub(super) async fn verify(&self) -> Result<()> {
        let tree = self.blocking(|ledger| ledger.write_tree()).await?;
        let checks = self.recorder.with(|run| run.options.checks.clone());
        let mut results = Vec::with_capacity(checks.len());
        for (position, check) in checks.iter().enumerate() {
            let now = self.recorder.now();
            let result = if self.recorder.with(|run| run.out_of_time(now)) {
                failed(check, "not run: the run's seconds are spent".to_owned())
            } else {
                self.check(check, position).await
            };
            if self.parts.cancel.is_cancelled() {
                return Ok(());
            }
            results.push(result);
        }
        let verification = Verification { tree: tree.id, checks: results, remarks: tree.remarks };
        self.recorder.record([Verified { verification }.into()]).await
    }

    async fn check(&self, check: &Check, position: usize) -> CheckResult {
        let (run, seconds) = self.recorder.with(|run| (run.id.clone(), run.options.check_timeout));
        let run = run.map(|id| id.to_string()).unwrap_or_default();
        let spec = Spec {
            argv: check.argv.iter().map(Into::into).collect(),
            cwd: Some(self.workspace.clone()),
            env: self.parts.env.iter().map(|(name, value)| (name.into(), Some(value.into()))).collect(),
            stdin: Stdin::Null,
            timeout: seconds.map(Duration::from_secs_f64),
            keep: KEEP,
            spool: None,
            mark: Some(Mark { run, call: format!("{}-check-{position}", self.parts.session) }),
        };
        let finished = match process::run(spec, &self.parts.cancel).await {
            Ok(finished) => finished,
            Err(error) => return failed(check, error.to_string()),
        };
        let (exit_code, error) = match finished.status {
            Status::Exited(code) => (Some(code), None),
            Status::Signaled(signal) => (None, Some(format!("killed by signal {signal}"))),
            Status::TimedOut => (None, Some(format!("timed out after {} s", seconds.unwrap_or_default()))),
            Status::Cancelled => (None, Some("stopped".to_owned())),
        };
        let text = |captured: &Captured| self.record_text(&captured.text());
        CheckResult {
            name: check.name.clone(),
            ok: exit_code == Some(0),
            exit_code,
            stdout: text(&finished.stdout),
            stderr: text(&finished.stderr),
            error,
            duration: finished.seconds,
        }
    }
}

fn failed(check: &Check, error: String) -> CheckResult {
    CheckResult { name: check.name.clone(), error: Some(error), ..CheckResult::default() }
}
