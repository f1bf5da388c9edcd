//! Checks: real commands on a tree that is on record before they run.

use super::command::{Job, failed};
use super::entering::enter;
use super::{Engine, name_files};
use crate::error::Result;
use crate::ledger::Tree;
use crate::run::event::Verified;
use crate::run::goal::Check;
use crate::run::work::{CheckResult, Verification};

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
        let Captured { mut tree, protected } = self.capture().await?;
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
        // They run what workers wrote.
        tree.remarks.extend(self.blocking(|ledger| ledger.mend()).await?);
        let verification = Verification { tree: tree.id.parse()?, checks: results, protected, remarks: tree.remarks };
        self.recorder.record([Verified { verification }.into()]).await
    }

    /// Writes the workspace as a tree, without what workers did to protected files.
    pub(super) async fn capture(&self) -> Result<Captured> {
        let integration = self.recorder.with(|run| run.integration().cloned());
        let mended = self.blocking(|ledger| ledger.mend()).await?;
        let mut tree = match integration {
            Some(so_far) => self.blocking(move |ledger| ledger.advance(&so_far.onto, &so_far.tree)).await?,
            None => self.blocking(|ledger| ledger.write_tree()).await?,
        };
        tree.remarks.extend(mended);
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
        let (run, iteration, timeout, cwd) = self.recorder.with(|run| {
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            (run.id.clone(), iteration, run.options.check_timeout, enter(&self.workspace, &run.options.cwd))
        });
        let job = Job {
            run: run.map(|id| id.to_string()).unwrap_or_default(),
            iteration,
            call: format!("check-{position}"),
            subgoal: None,
            cwd: &cwd,
            port: self.port,
            timeout,
        };
        self.provisioner.commands.run(check, job).await
    }
}
