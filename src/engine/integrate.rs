//! Integration: merges workers' commits into the run's tree in plan order, and has the integrator resolve conflicts.

use std::sync::Arc;

use super::Engine;
use super::call::{Answer, spool};
use super::work::store_transcript;
use crate::agent::prompts::{self, Between, Side};
use crate::error::{Error, Result};
use crate::ledger::{Ledger, Merged, Merging, Resolving, Task};
use crate::run::event::{Conflicted, Fact, Integrated};
use crate::run::goal::{AgentChoice, Isolation, Role};
use crate::run::id::Oid;
use crate::run::message::{self, Work};
use crate::run::work::Subgoal;
use crate::run::{Conflict, Run};

/// Length of one side's diff that the integrator sees, in bytes.
pub(super) const SIDE_BYTES: usize = 64 * 1024;

/// A worker's commit that is to be merged, and the state that it is merged into.
#[derive(Clone)]
struct PendingMerge {
    task: Task,
    subgoal: Subgoal,
    commit: Oid,
    tip: String,
    merged: Vec<String>,
    /// Tree that is integrated so far; `None` before the first merge.
    tree: Option<String>,
    conflict: Conflict,
}

impl PendingMerge {
    fn of(run: &Run, id: &str) -> Option<Self> {
        let iteration = run.iteration()?;
        let task = iteration.tasks.iter().find(|task| task.id == id)?;
        let subgoal = iteration.plan.as_ref()?.subgoals.iter().find(|subgoal| subgoal.id == id)?.clone();
        let integration = iteration.integration.clone();
        Some(Self {
            task: Task { iteration: iteration.number, subgoal: id.to_owned() },
            subgoal,
            commit: task.commit.clone()?,
            tip: run.tip.commit.to_string(),
            tree: integration.as_ref().map(|integration| integration.tree.to_string()),
            merged: integration.iter().flat_map(|so_far| &so_far.merged).map(ToString::to_string).collect(),
            conflict: task.conflict.clone().unwrap_or_default(),
        })
    }

    fn merging<'a>(&'a self, tree: &'a str) -> Merging<'a> {
        Merging { tip: &self.tip, merged: &self.merged, tree, commit: &self.commit }
    }
}

impl Engine {
    /// Merges the work of subgoal `id`, or records its conflict.
    pub(super) async fn integrate(&self, id: &str) -> Result<()> {
        let pending = self.pending(id)?;
        let onto = match pending.tree.clone() {
            Some(tree) => tree,
            None => self.blocking(|ledger| ledger.write_tree()).await?.id,
        };
        let (at, tree) = (pending.clone(), onto.clone());
        let fact: Fact = match self.blocking(move |ledger| ledger.merge(&at.merging(&tree))).await? {
            Merged::Clean(tree) => Integrated {
                commit: pending.commit,
                tree: tree.parse()?,
                subgoal: Some(pending.subgoal.id),
                onto: Some(onto.parse()?),
                ..Integrated::default()
            }
            .into(),
            Merged::Conflict(paths) => {
                let Conflict { attempts: attempt, error, .. } = pending.conflict;
                let (subgoal, onto) = (pending.subgoal.id, onto.parse()?);
                Conflicted { subgoal, commit: pending.commit, onto, paths, attempt, error }.into()
            }
        };
        self.recorder.stage([fact]);
        Ok(())
    }

    /// Merges the unfinished work of a single stopped worker into the partial checkpoint, unless it conflicts. Unfinished
    /// work of several workers could break that of others, and stays on their refs.
    pub(super) async fn integrate_stopped(&self) -> Result<()> {
        let edits_files = self.edits_files(Role::Subagent);
        let stopped = self.recorder.with(|run| {
            let iteration = run.iteration()?;
            let [task] = &iteration.tasks[..] else { return None };
            let is_apart = edits_files && run.options.isolation == Isolation::Worktree;
            // Its worktree shows whether it began: a driver that was killed may not have recorded that.
            let is_open = !task.running && task.output.is_none() && !task.merged;
            let of = Task { iteration: iteration.number, subgoal: task.id.to_string() };
            let known = (task.id.clone(), of, run.tip.commit.to_string());
            let so_far = iteration.integration.as_ref().map(|so_far| so_far.tree.to_string());
            (is_apart && is_open && task.conflict.is_none()).then_some((known, so_far))
        });
        let Some(((subgoal, task, tip), so_far)) = stopped else { return Ok(()) };
        let merged = self.blocking(move |ledger| {
            let Some(commit) = ledger.left_behind(&task, &tip)? else { return Ok(None) };
            let onto = so_far.map_or_else(|| ledger.write_tree().map(|written| written.id), Ok)?;
            let merging = Merging { tip: &tip, merged: &[], tree: &onto, commit: &commit };
            Ok(match ledger.merge(&merging)? {
                Merged::Clean(tree) => Some((commit, onto, tree)),
                Merged::Conflict(_) => None,
            })
        });
        let Some((commit, onto, tree)) = merged.await? else { return Ok(()) };
        let (commit, tree, onto) = (commit.parse()?, tree.parse()?, Some(onto.parse()?));
        self.recorder
            .record([Integrated { commit, tree, subgoal: Some(subgoal), onto, ..Integrated::default() }.into()])
            .await
    }

    /// Has the integrator resolve the conflict of subgoal `id`.
    pub(super) async fn resolve(&self, id: &str) -> Result<()> {
        let pending = self.pending(id)?;
        let onto = pending.tree.clone().ok_or_else(|| Error::failed(format!("nothing conflicts with {id}")))?;
        let attempt = pending.conflict.attempts + 1;
        let met: Oid = onto.parse()?;
        let conflicted = |error: String| Conflicted {
            subgoal: pending.subgoal.id.clone(),
            commit: pending.commit.clone(),
            onto: met.clone(),
            paths: pending.conflict.paths.clone(),
            attempt,
            error: Some(error),
        };
        if !self.edits_files(Role::Integrator) {
            let error = "the integrator's backend does not edit files".to_owned();
            return self.recorder.record([conflicted(error).into()]).await;
        }
        let (at, tree) = (pending.clone(), onto.clone());
        let place = self.blocking(move |ledger| ledger.open_conflict(&at.task, &at.merging(&tree))).await?;
        let port = self.provisioner.provision(&self.recorder, &place.path, Some(id)).await?;
        let prompt = self.write_integrator_prompt(&pending, &onto).await?;
        let path = format!("{}.merge/{attempt}.out", pending.task);
        let transcript = spool(&*self.parts.ledger, &self.parts.redactor, &path);
        let subgoal = Some(pending.subgoal.id.clone());
        let mut call = self.begin_call(Role::Integrator, prompt, subgoal, attempt, transcript, |_| Vec::new())?;
        call.set_worktree(place.path, port);
        let (choice, spool) = (call.choice.clone(), call.request.transcript.clone());
        let Answer { result, finished } = call.make(&self.recorder, &self.parts.redactor).await;
        let report = result.as_ref().map_or_else(|failure| failure.message.clone(), |response| response.text.clone());
        store_transcript(Arc::clone(&self.parts.ledger), path, spool, report.clone(), self.parts.redactor.clone())
            .await;
        let message = self.work_message(&pending, attempt, &choice, finished.usage.tokens(), &report);
        let (at, tree, ended) = (pending.clone(), onto.clone(), result.is_ok());
        let close = move |ledger: &dyn Ledger| {
            let (merging, paths) = (at.merging(&tree), &at.conflict.paths);
            ledger.close_conflict(&Resolving { task: &at.task, merging: &merging, paths, message: &message, ended })
        };
        let resolution = self.blocking(close).await?;
        let open = match result {
            Ok(_) => resolution.open,
            // A usage limit, a cancellation or a missing login does not count as an attempt.
            Err(failure) if !failure.counts() => return self.recorder.record([finished.into()]).await,
            Err(failure) => Some(failure.to_string()),
        };
        let outcome: Fact = match open {
            Some(error) => conflicted(error).into(),
            None => Integrated {
                commit: pending.commit.clone(),
                tree: resolution.tree.parse()?,
                subgoal: Some(pending.subgoal.id.clone()),
                onto: Some(met.clone()),
                conflict: pending.conflict.paths.clone(),
                resolution: Some(resolution.commit.parse()?),
                remarks: resolution.remarks,
            }
            .into(),
        };
        self.recorder.record([finished.into(), outcome]).await
    }

    fn pending(&self, id: &str) -> Result<PendingMerge> {
        let pending = self.recorder.with(|run| PendingMerge::of(run, id));
        pending.ok_or_else(|| Error::failed(format!("the record has no work of '{id}' to merge")))
    }

    /// Writes the integrator's prompt, with both sides of the conflict: the subgoal that is merged, and those that it
    /// conflicts with.
    async fn write_integrator_prompt(&self, pending: &PendingMerge, onto: &str) -> Result<String> {
        let paths = &pending.conflict.paths;
        let others: Vec<(Subgoal, Oid)> = self.recorder.with(|run| {
            let iteration = run.iteration().cloned().unwrap_or_default();
            let merged = iteration.tasks.iter().filter(|task| task.merged);
            let subgoals = iteration.plan.map(|plan| plan.subgoals).unwrap_or_default();
            let of = |id: &str| subgoals.iter().find(|subgoal| subgoal.id == id).cloned();
            merged.filter_map(|task| Some((of(&task.id)?, task.commit.clone()?))).collect()
        });
        let diff = |from: &str, to: &str| {
            let (from, to, paths) = (from.to_owned(), to.to_owned(), paths.clone());
            self.blocking(move |ledger| ledger.diff(&from, &to, &paths, SIDE_BYTES))
        };
        let mut met = Vec::new();
        for (subgoal, commit) in others {
            if !diff(&pending.tip, &commit).await?.trim().is_empty() {
                met.push(subgoal);
            }
        }
        let clean = |text: String| self.parts.redactor.clean(&text).into_owned();
        let (ours, theirs) =
            (clean(diff(&pending.tip, onto).await?), clean(diff(&pending.tip, &pending.commit).await?));
        let theirs = Side { served: std::slice::from_ref(&pending.subgoal), diff: &theirs };
        let ours = Side { served: &met, diff: &ours };
        let conflict = prompts::Conflict {
            between: Between::Workers,
            paths,
            ours,
            theirs,
            commit: &pending.commit,
            error: pending.conflict.error.as_deref(),
        };
        Ok(self.with_brief(|brief| prompts::integrate(brief, &conflict)))
    }

    fn work_message(
        &self,
        pending: &PendingMerge,
        attempt: u32,
        agent: &AgentChoice,
        tokens: u64,
        text: &str,
    ) -> String {
        self.recorder.with(|run| {
            message::work(&Work {
                run: run.id.as_ref(),
                iteration: pending.task.iteration,
                subgoal: &pending.subgoal,
                attempt,
                role: Role::Integrator,
                agent,
                tokens,
                done: true,
                text,
            })
        })
    }
}
