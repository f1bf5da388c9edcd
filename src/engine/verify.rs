//! Checks: real commands on a tree that is on record before they run.

use std::time::Duration;

use super::{Engine, name_files};
use crate::error::Result;
use crate::ledger::Tree;
use crate::process::{self, Mark, Spec, Status, Stdin};
use crate::run::event::Verified;
use crate::run::goal::Check;
use crate::run::work::{CheckResult, Verification};

/// Bytes of a check's output that are kept, each of stdout and stderr.
const KEEP: usize = 64 * 1024;

/// The workspace as it goes on record.
pub(super) struct Captured {
    /// Its tree.
    pub(super) tree: Tree,
    /// Protected files that workers changed.
    pub(super) protected: Vec<String>,
}

impl Engine {
    /// Writes the tree, runs every check, records the results. A run that is stopped meanwhile records nothing.
    pub(super) async fn verify(&self) -> Result<()> {
        let Captured { tree, protected } = self.capture().await?;
        let (checks, recheck) = self.recorder.with(|run| (run.options.checks.clone(), run.options.recheck));
        let mut results = Vec::with_capacity(checks.len());
        for (position, check) in checks.iter().enumerate() {
            let now = self.recorder.now();
            let known = self.recorder.with(|run| run.evidence(&tree.id, &check.name).filter(|_| !recheck).cloned());
            let result = if let Some(known) = known {
                CheckResult { reused: true, ..known }
            } else if self.recorder.with(|run| run.out_of_time(now)) {
                failed(check, "not run: the run's seconds are spent".to_owned())
            } else {
                self.check(check, position).await
            };
            if self.parts.cancel.is_cancelled() {
                return Ok(());
            }
            results.push(result);
        }
        let verification = Verification { tree: tree.id, checks: results, protected, remarks: tree.remarks };
        self.recorder.record([Verified { verification }.into()]).await
    }

    /// Writes the workspace as a tree, without what workers did to protected files.
    pub(super) async fn capture(&self) -> Result<Captured> {
        let integration = self.recorder.with(|run| run.integration().cloned());
        let mut tree = match integration {
            Some(so_far) => self.blocking(move |ledger| ledger.advance(&so_far.onto, &so_far.tree)).await?,
            None => self.blocking(|ledger| ledger.write_tree()).await?,
        };
        let (tip, pathspecs, allowed) =
            self.recorder.with(|run| (run.tip.tree.clone(), run.options.protect.clone(), run.options.allow_protected));
        if pathspecs.is_empty() {
            return Ok(Captured { tree, protected: Vec::new() });
        }
        let (from, to) = (tip.clone(), tree.id.clone());
        let protected = self.blocking(move |ledger| ledger.protected(&from, &to, &pathspecs)).await?;
        if protected.is_empty() {
            return Ok(Captured { tree, protected });
        }
        let named = name_files(&protected);
        if allowed {
            tree.remarks.push(format!("protected files were changed, as the user allows: {named}"));
            return Ok(Captured { tree, protected });
        }
        let (to, paths) = (tree.id.clone(), protected.clone());
        let settled = self.blocking(move |ledger| ledger.take_back(&tip, &to, &paths)).await?;
        tree.id = settled.id;
        tree.remarks.push(format!("protected files were changed, and the changes taken back: {named}"));
        tree.remarks.extend(settled.remarks);
        Ok(Captured { tree, protected })
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
        let text = |captured: &process::Captured| self.record_text(&captured.text());
        CheckResult {
            name: check.name.clone(),
            ok: exit_code == Some(0),
            exit_code,
            stdout: text(&finished.stdout),
            stderr: text(&finished.stderr),
            error,
            duration: finished.seconds,
            reused: false,
        }
    }
}

fn failed(check: &Check, error: String) -> CheckResult {
    CheckResult { name: check.name.clone(), error: Some(error), ..CheckResult::default() }
}
