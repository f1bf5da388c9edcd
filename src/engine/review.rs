//! The review: an agent that only reads judges an iteration.

use std::fmt::Write as _;

use super::Engine;
use super::call::Answer;
use super::remarks::{late_changes, name_files};
use super::verify::EVERYTHING;
use crate::agent::json::{self, Shape};
use crate::agent::prompts;
use crate::error::Result;
use crate::run::event::{Fact, Reviewed, clip};
use crate::run::goal::{Isolation, Role};
use crate::run::work::{Failure, FailureKind, Review};

/// Longest part of an invalid answer that is shown to the reviewer again, in bytes.
const UNREAD: usize = 8 * 1024;

impl Engine {
    /// Asks the reviewer for a verdict on the iteration.
    pub(super) async fn review(&self) -> Result<()> {
        let (tip, verification, aggregate, merging) = self.recorder.with(|run| {
            let iteration = run.iteration().cloned().unwrap_or_default();
            let aggregate = iteration.aggregate();
            let mut merging = iteration.noticed();
            merging.extend(iteration.integration.unwrap_or_default().remarks);
            merging.extend(
                run.green_before()
                    .iter()
                    .map(|name| format!("the check '{name}' passed before any work, so that it passes proves little")),
            );
            (run.tip.tree.to_string(), iteration.verification.unwrap_or_default(), aggregate, merging)
        });
        let (to, limit) = (verification.tree.to_string(), self.parts.review_bytes);
        let diff = self.blocking(move |ledger| ledger.diff(&tip, &to, &[], limit)).await?;
        let diff = self.parts.redactor.clean(&diff).into_owned();
        let mut prompt = self.with_brief(|brief| prompts::review(brief, &aggregate, &merging, &verification, &diff));
        let (unread, may_ask_again) = self.recorder.with(|run| {
            let failed = run.role_failure.as_ref().filter(|failed| failed.role == Role::Reviewer);
            let unread = failed.filter(|failed| failed.failure.kind == FailureKind::Protocol);
            let times = failed.map_or(0, |failed| failed.times);
            (unread.map(|failed| failed.failure.message.clone()), times < run.budget().max_task_retries.get())
        });
        if let Some(unread) = unread {
            let _ = write!(prompt, "\n\n{unread}\n\nAnswer again, with the JSON object alone.");
        }
        let reader = self.open_reader(Role::Reviewer, Some(verification.tree.to_string())).await?;
        let mut call = self.begin_call(Role::Reviewer, prompt, None, 1, None, |_| Vec::new())?;
        if let Some(reader) = &reader {
            call.request.cwd.clone_from(&reader.path);
        }
        let only_reads = call.agent.only_reads(Role::Reviewer);
        // Changes that the checks made are not the reviewer's.
        let (before, mut remarks) = if verification.checks.is_empty() || only_reads || reader.is_some() {
            (verification.tree.to_string(), Vec::new())
        } else {
            self.after_checks(verification.tree.to_string()).await?
        };
        let Answer { result, mut finished } = call.make(&self.recorder, &self.parts.redactor).await;
        match reader {
            _ if only_reads => {}
            Some(reader) => remarks.extend(self.close_reader(Role::Reviewer, reader).await?),
            None => remarks.extend(self.restore_after_review(before).await?),
        }
        if let Some(failure) = finished.error.as_mut().filter(|_| !remarks.is_empty()) {
            failure.message = format!("{} ({})", failure.message, remarks.join("; "));
        }
        let verdict = result.ok().and_then(|response| {
            let answer = json::find(&response.text, Shape::Object);
            let mut review = Review::settle(answer.as_ref());
            if !Review::is_answer(answer.as_ref()) {
                let text = clip(&response.text, UNREAD);
                if may_ask_again {
                    let why = review.issues.join("; ");
                    let unread = format!("The answer before could not be read: {why}. It was:\n{text}");
                    finished.error = Some(Failure::new(FailureKind::Protocol, unread));
                    return None;
                }
                // Findings are kept although their form is invalid.
                review.issues.push(text);
            }
            Some(Fact::from(Reviewed { review: Review { remarks, ..review } }))
        });
        self.recorder.stage(std::iter::once(finished.into()).chain(verdict));
        Ok(())
    }

    /// Returns the tree of the worktree after the checks ran on `tree`, and remarks about files that they changed.
    async fn after_checks(&self, tree: String) -> Result<(String, Vec<String>)> {
        self.blocking(move |ledger| {
            let now = ledger.write_tree()?.id;
            let changed = ledger.protected(&tree, &now, &[EVERYTHING.to_owned()])?;
            Ok((now, late_changes(&changed)))
        })
        .await
    }

    /// Restores files that changed since the tree `before`; the changes stay reachable. In the user's own checkout the
    /// change may be the user's, so it is only reported.
    async fn restore_after_review(&self, before: String) -> Result<Vec<String>> {
        let is_users = self.recorder.with(|run| run.options.isolation == Isolation::None);
        self.blocking(move |ledger| {
            let after = ledger.write_tree()?;
            if after.id == before {
                return Ok(Vec::new());
            }
            let changed = ledger.protected(&before, &after.id, &[EVERYTHING.to_owned()])?;
            let named = name_files(&changed);
            if is_users {
                return Ok(vec![format!("changed while the reviewer looked: {named}")]);
            }
            let settled = ledger.take_back(&before, &after.id, &changed)?;
            let mut remarks = vec![format!("the reviewer changed files, and the changes were taken back: {named}")];
            remarks.extend(settled.remarks);
            Ok(remarks)
        })
        .await
    }
}
