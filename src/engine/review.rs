//! The verdict on an iteration, by an agent that only looks.

use std::fmt::Write as _;

use super::Engine;
use super::call::Answer;
use super::remarks::{changed_later, name_files};
use super::verify::EVERYTHING;
use crate::agent::json::{self, Shape};
use crate::agent::prompts;
use crate::error::Result;
use crate::run::event::{Fact, Reviewed, clip};
use crate::run::goal::{Isolation, Role};
use crate::run::work::{Failure, FailureKind, Review};

/// Longest answer that could not be read and is shown again, in bytes.
const UNREAD: usize = 8 * 1024;

impl Engine {
    /// Asks for a verdict on the iteration.
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
        let mut prompt = self.brief(|brief| prompts::review(brief, &aggregate, &merging, &verification, &diff));
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
        let mut call = self.begin(Role::Reviewer, prompt, None, 1, None, |_| Vec::new())?;
        if let Some(reader) = &reader {
            call.request.cwd.clone_from(&reader.path);
        }
        let looks = call.agent.only_reads(Role::Reviewer);
        // What the checks have changed by now is not the reviewer's.
        let (before, mut remarks) = if verification.checks.is_empty() || looks || reader.is_some() {
            (verification.tree.to_string(), Vec::new())
        } else {
            self.after_checks(verification.tree.to_string()).await?
        };
        let Answer { result, mut finished } = call.make(&self.recorder, &self.parts.redactor).await;
        match reader {
            _ if looks => {}
            Some(reader) => remarks.extend(self.close_reader(Role::Reviewer, reader).await?),
            None => remarks.extend(self.undo_review(before).await?),
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
                // What it found is not lost for its form.
                review.issues.push(text);
            }
            Some(Fact::from(Reviewed { review: Review { remarks, ..review } }))
        });
        self.recorder.stage(std::iter::once(finished.into()).chain(verdict));
        Ok(())
    }

    /// The worktree as the checks, which ran on `tree`, have left it, and what is to be said of that.
    async fn after_checks(&self, tree: String) -> Result<(String, Vec<String>)> {
        self.blocking(move |ledger| {
            let now = ledger.write_tree()?.id;
            let changed = ledger.protected(&tree, &now, &[EVERYTHING.to_owned()])?;
            Ok((now, changed_later(&changed)))
        })
        .await
    }

    /// Takes back what changed since the tree `before`; it stays reachable. In the user's own checkout nobody can tell
    /// whose change it is, so there it is only said.
    async fn undo_review(&self, before: String) -> Result<Vec<String>> {
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
