//! Checks: commands that run on a tree that is recorded before they run.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::call::spool;
use super::command::{Commands, Job, unstarted};
use super::entering::enter;
use super::recorder::Recorder;
use super::remarks::name_files;
use super::work::store_transcript;
use crate::error::{Context as _, Result};
use crate::ledger::{Ledger, Tree};
use crate::run::event::Verified;
use crate::run::goal::{Check, Isolation, Role};
use crate::run::shadow;
use crate::run::work::{CheckResult, Verification};

/// The git pathspec that matches every file.
pub(super) const EVERYTHING: &str = "*";

/// A captured workspace.
pub(super) struct Captured {
    /// Tree of the workspace.
    pub(super) tree: Tree,
    /// Protected files that workers changed.
    pub(super) protected: Vec<String>,
}

impl Engine {
    /// Writes the tree, runs every check, and records the results. A run that is cancelled meanwhile records nothing.
    pub(super) async fn verify(&self) -> Result<()> {
        let Captured { mut tree, protected } = self.capture().await?;
        if protected.is_empty() && self.edits_files(Role::Subagent) {
            tree.remarks.extend(self.recorder.with(|run| run.unchanged(&tree.id)));
        }
        let shadows = self.find_shadows(&mut tree).await?;
        let (checks, recheck, isolation, iteration) = self.recorder.with(|run| {
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            (run.options.checks.clone(), run.options.recheck, run.options.isolation, iteration)
        });
        let known = |check: &Check| self.recorder.with(|run| run.evidence(&tree.id, &check.name).cloned());
        let reused: Vec<Option<CheckResult>> = checks.iter().map(|check| known(check).filter(|_| !recheck)).collect();
        let runs_any = reused.iter().any(Option::is_none);
        let failed_setup = if runs_any && isolation == Isolation::Worktree {
            self.provisioner.prepare_for_checks(&self.recorder, &self.workspace, self.port, &tree.id).await?
        } else {
            None
        };
        let checker = self.checker()?;
        let mut results = Vec::with_capacity(checks.len());
        for (position, (check, reused)) in checks.iter().zip(reused).enumerate() {
            let now = self.recorder.now();
            let result = if let Some(known) = reused {
                CheckResult { reused: true, ..known }
            } else if let Some(setup) = &failed_setup {
                let why = format!("not run: the setup command '{}' failed: {}", setup.name, setup.ended());
                CheckResult { stdout: setup.stdout.clone(), stderr: setup.stderr.clone(), ..unstarted(check, why) }
            } else if self.recorder.with(|run| run.out_of_time(now)) {
                unstarted(check, "not run: the run's seconds are spent".to_owned())
            } else {
                checker.run(check, format!("check-{position}"), iteration, position).await
            };
            if self.parts.cancel.is_cancelled() {
                checker.close();
                return self.restore_after("the checks", &tree.id).await.map(|_| ());
            }
            results.push(result);
        }
        checker.close();
        // The checks run what workers wrote.
        tree.remarks.extend(self.blocking(|ledger| ledger.mend()).await?);
        if runs_any {
            tree.remarks.extend(self.restore_after("the checks", &tree.id).await?);
        }
        let (id, remarks) = (tree.id.parse()?, tree.remarks);
        let verification = Verification { tree: id, checks: results, protected, remarks, shadows };
        self.recorder.stage([Verified { verification }.into()]);
        Ok(())
    }

    /// Lists files that the run changed and that can change the result of a check. Those that configure agents are named in
    /// the tree's remarks.
    async fn find_shadows(&self, tree: &mut Tree) -> Result<Vec<String>> {
        let (base, checks) =
            self.recorder.with(|run| (run.start_tree.as_ref().map(ToString::to_string), run.options.checks.clone()));
        let to = tree.id.clone();
        let Some(base) = base.filter(|base| *base != to) else { return Ok(Vec::new()) };
        let changed = self
            .blocking(move |ledger| {
                let paths = ledger.protected(&base, &to, &[EVERYTHING.to_owned()])?;
                let content = |tree: &str, path: &str| {
                    if shadow::wants_content(path) { ledger.content(tree, path) } else { Ok(None) }
                };
                let read = |path: String| {
                    let (before, after) = (content(&base, &path)?, content(&to, &path)?);
                    Ok(shadow::Changed { path, before, after })
                };
                paths.into_iter().map(read).collect::<Result<Vec<_>>>()
            })
            .await?;
        let paths = changed.iter().map(|file| file.path.clone());
        let agents: Vec<String> = paths.filter(|path| shadow::configures_agents(path)).collect();
        if !agents.is_empty() {
            tree.remarks.push(format!("files that configure agents were changed: {}", name_files(&agents)));
        }
        Ok(shadow::shadows(&changed, &checks))
    }

    /// Writes the workspace as a tree, without workers' changes to protected files.
    pub(super) async fn capture(&self) -> Result<Captured> {
        let integration = self.recorder.with(|run| run.integration().cloned());
        let restored = self.blocking(|ledger| ledger.mend()).await?;
        let mut tree = match integration {
            Some(so_far) => self.blocking(move |ledger| ledger.advance(&so_far.onto, &so_far.tree)).await?,
            None => self.blocking(|ledger| ledger.write_tree()).await?,
        };
        tree.remarks.extend(restored);
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

    /// Restores the run's worktree to `tree`, on which `who` ran, and returns a remark about the files that had changed.
    /// Without isolation agents work in the same files, so nothing is restored.
    pub(super) async fn restore_after(&self, who: &str, tree: &str) -> Result<Vec<String>> {
        if self.recorder.with(|run| run.options.isolation != Isolation::Worktree) {
            return Ok(Vec::new());
        }
        let tree = tree.to_owned();
        let changed = self.blocking(move |ledger| ledger.restore(&tree)).await?;
        let remark =
            format!("{who} changed files that are not ignored, and they were restored: {}", name_files(&changed));
        Ok(if changed.is_empty() { Vec::new() } else { vec![remark] })
    }

    /// Returns the runner of checks in the run's workspace.
    pub(super) fn checker(&self) -> Result<Checker> {
        let home = self.provisioner.wanted.private_home.then(|| self.parts.ledger.scratch().join("check-home"));
        if let Some(home) = &home {
            let made = match std::fs::remove_dir_all(home) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => std::fs::create_dir_all(home),
            };
            made.context(format!("the checks' HOME '{}' cannot be made", home.display()))?;
        }
        Ok(Checker {
            commands: self.provisioner.commands.clone(),
            ledger: Arc::clone(&self.parts.ledger),
            recorder: Arc::clone(&self.recorder),
            workspace: self.workspace.clone(),
            port: self.port,
            home,
        })
    }
}

/// Runs checks in the workspace of a run.
#[derive(Clone)]
pub(super) struct Checker {
    commands: Commands,
    ledger: Arc<dyn Ledger>,
    recorder: Arc<Recorder>,
    workspace: PathBuf,
    port: Option<u16>,
    /// HOME of the checks, unless the user's own is used.
    home: Option<PathBuf>,
}

impl Checker {
    /// Has the checks be cancelled by `cancel`.
    pub(super) fn cancelled_by(mut self, cancel: &CancellationToken) -> Self {
        self.commands.cancel = cancel.clone();
        self
    }

    /// Removes the checks' own HOME; remains are removed with the run's folder.
    pub(super) fn close(&self) {
        if let Some(Err(error)) = self.home.as_ref().map(std::fs::remove_dir_all) {
            tracing::warn!("the checks' HOME was not removed: {error}");
        }
    }

    /// Runs `check`, the one at `position` of the run's checks, as `call` among the driver's commands. Its output is stored
    /// beside the transcripts of iteration `kept_in`, which is 0 before any work.
    pub(super) async fn run(&self, check: &Check, call: String, kept_in: u32, position: usize) -> CheckResult {
        let (run, iteration, timeout, cwd) = self.recorder.with(|run| {
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            (run.id.clone(), iteration, run.options.check_timeout, enter(&self.workspace, &run.options.cwd))
        });
        let path = format!("iter{kept_in}/check{}.out", position + 1);
        let transcript = spool(&*self.ledger, &self.commands.redactor, &path);
        let job = Job {
            run: run.map(|id| id.to_string()).unwrap_or_default(),
            iteration,
            call,
            subgoal: None,
            cwd: &cwd,
            port: self.port,
            timeout,
            home: self.home.as_deref(),
            spool: transcript.clone(),
        };
        let result = self.commands.run(check, job).await;
        // A check that could not be started printed nothing.
        let report = result.error.clone().unwrap_or_default();
        let redactor = self.commands.redactor.clone();
        let output_path = store_transcript(Arc::clone(&self.ledger), path, transcript, report, redactor).await;
        CheckResult { output_path: output_path.and_then(|path| path.parse().ok()), ..result }
    }
}
