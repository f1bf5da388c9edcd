//! The baseline: results of the checks on the base, before any work. The checks run during intake and planning.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::on_ledger::on_ledger;
use super::remarks::name_files;
use crate::error::{Context as _, Result};
use crate::run::Step;
use crate::run::event::BaselineTaken;
use crate::run::goal::Isolation;
use crate::run::work::Verification;

/// The checks while they run on the base, if they do.
pub(super) type Baseline = tokio::sync::Mutex<Option<Running>>;

/// A baseline that is being taken.
pub(super) struct Running {
    task: JoinHandle<Result<()>>,
    cancel: CancellationToken,
}

impl Engine {
    /// Starts the checks on the base, unless an earlier driver did or work has begun already.
    pub(super) async fn start_baseline(&self) -> Result<()> {
        let wanted = self.recorder.with(|run| {
            let options = &run.options;
            let is_new = run.baseline.is_none() && !run.touched && run.checkpoints.is_empty();
            let is_wanted = options.baseline && is_new && !options.checks.is_empty();
            is_wanted.then(|| (options.checks.clone(), run.tip.tree.clone(), options.isolation))
        });
        let Some((checks, tree, isolation)) = wanted else { return Ok(()) };
        let cancel = self.parts.cancel.child_token();
        let (checker, stopped) = (self.checker()?.cancelled_by(&cancel), cancel.clone());
        let (ledger, recorder) = (Arc::clone(&self.parts.ledger), Arc::clone(&self.recorder));
        let running = async move {
            let mut verification = Verification { tree: tree.clone(), ..Verification::default() };
            for (position, check) in checks.iter().enumerate() {
                verification.checks.push(checker.run(check, format!("baseline-{position}"), 0, position).await);
                if stopped.is_cancelled() {
                    break;
                }
            }
            checker.close();
            if isolation == Isolation::Worktree {
                let changed = on_ledger(&ledger, move |ledger| ledger.restore(tree.as_str())).await?;
                if !changed.is_empty() {
                    let named = name_files(&changed);
                    verification.remarks.push(format!(
                        "the checks changed files that are not ignored, and they were restored: {named}"
                    ));
                }
            }
            if stopped.is_cancelled() { Ok(()) } else { recorder.record([BaselineTaken { verification }.into()]).await }
        };
        *self.baseline.lock().await = Some(Running { task: tokio::spawn(running), cancel });
        Ok(())
    }

    /// Returns whether `step` changes or reads the workspace. Workers do only if they share it.
    pub(super) fn changes_workspace(&self, step: &Step) -> bool {
        match step {
            Step::Intake(_) | Step::Await(_) | Step::Wait { .. } | Step::Plan => false,
            Step::Work(start) => {
                let is_shared = self.recorder.with(|run| run.options.isolation != Isolation::Worktree);
                is_shared && !start.is_empty()
            }
            _ => true,
        }
    }

    /// Returns whether the checks still run on the base; the workspace must not change until they are done.
    pub(super) async fn is_taking_baseline(&self) -> bool {
        self.baseline.lock().await.is_some()
    }

    /// Waits for the checks on the base. At the end of the run (`ends`) they are cancelled, as their results are no longer
    /// needed.
    pub(super) async fn settle_baseline(&self, ends: bool) -> Result<()> {
        let running = self.baseline.lock().await.take();
        let Some(Running { task, cancel }) = running else { return Ok(()) };
        if ends {
            cancel.cancel();
        }
        task.await.context("the task of the baseline died")?
    }
}
