//! Checks: real commands on a tree that is on record before they run.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Engine;
use super::call::spool;
use super::command::{Commands, Job, failed};
use super::entering::enter;
use super::recorder::Recorder;
use super::remarks::name_files;
use super::work::store;
use crate::error::{Context as _, Result};
use crate::ledger::{Ledger, Tree};
use crate::run::event::Verified;
use crate::run::goal::{Check, Isolation, Role};
use crate::run::shadow;
use crate::run::work::{CheckResult, Verification};

/// The git pathspec that every file fits.
pub(super) const EVERYTHING: &str = "*";

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
        let runs = reused.iter().any(Option::is_none);
        let unfit = if runs && isolation == Isolation::Worktree {
            self.provisioner.renew(&self.recorder, &self.workspace, self.port, &tree.id).await?
        } else {
            None
        };
        let checker = self.checker()?;
        let mut results = Vec::with_capacity(checks.len());
        for (position, (check, reused)) in checks.iter().zip(reused).enumerate() {
            let now = self.recorder.now();
            let result = if let Some(known) = reused {
                CheckResult { reused: true, ..known }
            } else if let Some(setup) = &unfit {
                let why = format!("not run: the setup command '{}' failed: {}", setup.name, setup.ended());
                CheckResult { stdout: setup.stdout.clone(), stderr: setup.stderr.clone(), ..failed(check, why) }
            } else if self.recorder.with(|run| run.out_of_time(now)) {
                failed(check, "not run: the run's seconds are spent".to_owned())
            } else {
                checker.run(check, format!("check-{position}"), iteration, position).await
            };
            if self.parts.cancel.is_cancelled() {
                checker.close();
                return self.clean_up_after("the checks", &tree.id).await.map(|_| ());
            }
            results.push(result);
        }
        checker.close();
        // They run what workers wrote.
        tree.remarks.extend(self.blocking(|ledger| ledger.mend()).await?);
        if runs {
            tree.remarks.extend(self.clean_up_after("the checks", &tree.id).await?);
        }
        let (id, remarks) = (tree.id.parse()?, tree.remarks);
        let verification = Verification { tree: id, checks: results, protected, remarks, shadows };
        self.recorder.stage([Verified { verification }.into()]);
        Ok(())
    }

    /// The files that the run changed and that can change what a check says; those that configure agents are named in the
    /// tree's remarks.
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

    /// Restores the run's worktree to `tree`, on which `who` ran; what they had changed, in words. Elsewhere agents work where
    /// checks run, and it cannot be told whose change it is.
    pub(super) async fn clean_up_after(&self, who: &str, tree: &str) -> Result<Vec<String>> {
        if self.recorder.with(|run| run.options.isolation != Isolation::Worktree) {
            return Ok(Vec::new());
        }
        let tree = tree.to_owned();
        let changed = self.blocking(move |ledger| ledger.restore(&tree)).await?;
        let remark =
            format!("{who} changed files that are not ignored, and they were restored: {}", name_files(&changed));
        Ok(if changed.is_empty() { Vec::new() } else { vec![remark] })
    }

    /// What runs checks in the run's workspace.
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
    /// Their HOME, where that is not the user's.
    home: Option<PathBuf>,
}

impl Checker {
    /// The same, whose checks are stopped by `cancel`.
    pub(super) fn stopped_by(mut self, cancel: &CancellationToken) -> Self {
        self.commands.cancel = cancel.clone();
        self
    }

    /// Removes their HOME, where that is not the user's; what is left of it goes with the run's folder.
    pub(super) fn close(&self) {
        if let Some(Err(error)) = self.home.as_ref().map(std::fs::remove_dir_all) {
            tracing::warn!("the checks' HOME was not removed: {error}");
        }
    }

    /// Runs `check`, the one at `position` of the run's, as `call` among the driver's commands. All that it prints is kept
    /// beside the workers' transcripts of `kept_in`, an iteration, or 0 before any work.
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
        // One that could not be started printed nothing.
        let report = result.error.clone().unwrap_or_default();
        let redactor = self.commands.redactor.clone();
        let output_path = store(Arc::clone(&self.ledger), path, transcript, report, redactor).await;
        CheckResult { output_path: output_path.and_then(|path| path.parse().ok()), ..result }
    }
}
