//! Sets up worktrees, once each: with files of the user's checkout, and with the user's setup commands.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::command::{Commands, Job};
use super::on_ledger::on_ledger;
use super::ports::Ports;
use super::recorder::Recorder;
use super::remarks::name_files;
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Ledger, Wanted};
use crate::run::amount::Seconds;
use crate::run::event::Provisioned;
use crate::run::goal::{Check, Isolation};
use crate::run::work::CheckResult;

/// Number of lines of a failed command's output that an error repeats.
const TAIL: usize = 10;

/// Files that determine what has to be installed: manifests, lock files, and files that pin a tool's version.
pub const SETUP_ON: [&str; 53] = [
    "package.json",
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "pnpm-workspace.yaml",
    "bun.lock*",
    "deno.json",
    "deno.lock",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain*",
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "requirements*.txt",
    "requirements*.in",
    "requirements/*.txt",
    "constraints*.txt",
    "poetry.lock",
    "pdm.lock",
    "uv.lock",
    "Pipfile*",
    "environment.y*ml",
    ".python-version",
    ".nvmrc",
    ".node-version",
    ".tool-versions",
    "go.mod",
    "go.sum",
    "go.work",
    "go.work.sum",
    "Gemfile",
    "Gemfile.lock",
    "*.gemspec",
    "composer.json",
    "composer.lock",
    "mix.exs",
    "mix.lock",
    "pubspec.yaml",
    "pubspec.lock",
    "Package.swift",
    "Package.resolved",
    "pom.xml",
    "build.gradle*",
    "settings.gradle*",
    "gradle.lockfile",
    "*.csproj",
    "packages.lock.json",
    "build.sbt",
    "stack.yaml",
    "*.cabal",
    ".npmrc",
];

/// The set-up of new worktrees. It comes from the user's configuration and never from a log, which anyone can have written.
#[derive(Clone, Debug, Default)]
pub struct Provisioning {
    /// Ignored files that are copied from the user's checkout, as patterns of gitignore(5).
    pub copy: Vec<String>,
    /// Setup commands.
    pub setup: Vec<Check>,
    /// Time limit of a setup command.
    pub setup_timeout: Option<Seconds>,
    /// Files whose change makes the setup commands run again before checks, as globs that match at any depth.
    pub setup_on: Vec<String>,
    /// True if ignored files are removed before checks.
    pub check_clean: bool,
    /// True if checks have a HOME of their own.
    pub private_home: bool,
}

/// Sets up the worktrees of one run.
#[derive(Clone)]
pub(super) struct Provisioner {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) commands: Commands,
    pub(super) wanted: Provisioning,
    pub(super) ports: Ports,
}

impl Provisioner {
    /// Sets up `place`, the worktree of `subgoal` or of the run, which is new or used again, records what was done, and
    /// returns its first port. A cancelled run continues without a set-up; the driver that resumes it starts here again.
    ///
    /// Fails if a setup command fails: a worker would fail of it too.
    pub(super) async fn provision(&self, recorder: &Arc<Recorder>, place: &Path, subgoal: Option<&str>) -> Result<u16> {
        let (run, iteration, isolation) = recorder.with(|run| {
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            (run.id.as_ref().map(ToString::to_string), iteration, run.options.isolation)
        });
        let is_work = subgoal.is_some() || isolation != Isolation::Worktree;
        let prepared = self.prepare(place, &run.unwrap_or_default(), iteration, subgoal, is_work).await?;
        let Prepared { port, done, failure } = prepared;
        if self.commands.cancel.is_cancelled() {
            return Ok(port);
        }
        if is_worth_recording(&done) {
            recorder.record([done.into()]).await?;
        }
        failure.map_or(Ok(port), Err)
    }

    /// Sets up `place` and records nothing. Changes that the setup commands make are kept if `is_work`, else they are
    /// restored.
    pub(super) async fn prepare(
        &self,
        place: &Path,
        run: &str,
        iteration: u32,
        subgoal: Option<&str>,
        is_work: bool,
    ) -> Result<Prepared> {
        let port = {
            let (ports, place) = (self.ports.clone(), place.to_owned());
            tokio::task::spawn_blocking(move || ports.base(&place))
                .await
                .context("a thread that looked for ports died")?
        };
        let subgoal = subgoal.and_then(|id| id.parse().ok());
        let mut prepared = Prepared { port, done: Provisioned { subgoal, ..Provisioned::default() }, failure: None };
        if self.commands.cancel.is_cancelled() {
            return Ok(prepared);
        }
        let (at, patterns, cancel) = (place.to_owned(), self.wanted.copy.clone(), self.commands.cancel.clone());
        let outcome = self
            .blocking(move |ledger| {
                ledger.provision(&at, &Wanted { copy: &patterns, go_on: &|| !cancel.is_cancelled() })
            })
            .await?;
        (prepared.done.copied, prepared.done.remarks) = (outcome.copied, outcome.remarks);
        if !outcome.set_up && !self.wanted.setup.is_empty() {
            let context = SetupContext { place, port, run, iteration, is_work };
            prepared.failure = self.set_up(context, &mut prepared.done).await?;
        }
        Ok(prepared)
    }

    /// Prepares the run's worktree, which is at `tree`, for checks: removes ignored files if the user wants that, and runs
    /// the setup commands again if files that determine the installation changed. Returns the setup command that failed.
    pub(super) async fn prepare_for_checks(
        &self,
        recorder: &Arc<Recorder>,
        place: &Path,
        port: Option<u16>,
        tree: &str,
    ) -> Result<Option<CheckResult>> {
        let at = place.to_owned();
        let (run, base, iteration) = recorder.with(|run| {
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            (run.id.as_ref().map(ToString::to_string).unwrap_or_default(), run.base.clone(), iteration)
        });
        if self.wanted.check_clean {
            self.blocking(move |ledger| ledger.strip(&at)).await?;
            let Prepared { done, failure, .. } = self.prepare(place, &run, iteration, None, false).await?;
            let failed = failure.and_then(|_| done.setup.last().cloned());
            if !self.commands.cancel.is_cancelled() && is_worth_recording(&done) {
                recorder.record([done.into()]).await?;
            }
            return Ok(failed);
        }
        if self.wanted.setup.is_empty() {
            return Ok(None);
        }
        let Some(before) = self.blocking(move |ledger| ledger.set_up_on(&at)).await? else { return Ok(None) };
        let (from, to) = (if before.is_empty() { base.to_string() } else { before }, tree.to_owned());
        let wanted: Vec<String> = self.wanted.setup_on.iter().map(|glob| format!(":(top,glob)**/{glob}")).collect();
        let changed = self.blocking(move |ledger| ledger.protected(&from, &to, &wanted)).await?;
        if changed.is_empty() {
            return Ok(None);
        }
        let mut done = Provisioned::default();
        done.remarks.push(format!("set up again, since these files changed: {}", name_files(&changed)));
        let context = SetupContext { place, port: port.unwrap_or_default(), run: &run, iteration, is_work: false };
        let failure = self.set_up(context, &mut done).await?;
        let failed = failure.and_then(|_| done.setup.last().cloned());
        if !self.commands.cancel.is_cancelled() {
            recorder.record([done.into()]).await?;
        }
        Ok(failed)
    }

    /// Runs the setup commands up to the first that fails, and returns its failure.
    async fn set_up(&self, context: SetupContext<'_>, done: &mut Provisioned) -> Result<Option<Error>> {
        let (at, is_work) = (context.place.to_owned(), context.is_work);
        let (before, tree) = self
            .blocking(move |ledger| {
                ledger.set_up(&at, None)?;
                let tree = if is_work { None } else { Some(ledger.write_tree()?.id) };
                Ok((if is_work { ledger.uncommitted(&at)? } else { BTreeSet::new() }, tree))
            })
            .await?;
        let failure = self.run_setup(&context, done).await;
        done.remarks.extend(self.blocking(|ledger| ledger.mend()).await?);
        let (at, is_through) = (context.place.to_owned(), failure.is_none() && !self.commands.cancel.is_cancelled());
        let changed = self
            .blocking(move |ledger| {
                let changed = match &tree {
                    Some(tree) => ledger.restore(tree)?,
                    None => ledger.uncommitted(&at)?.difference(&before).cloned().collect(),
                };
                if is_through {
                    ledger.set_up(&at, Some(tree.as_deref().unwrap_or_default()))?;
                }
                Ok(changed)
            })
            .await?;
        if !changed.is_empty() {
            let what = if is_work { "so it is part of the work" } else { "and it was restored" };
            let named = name_files(&changed);
            done.remarks.push(format!("the setup changed what git does not ignore, {what}: {named}"));
        }
        Ok(failure)
    }

    async fn run_setup(&self, context: &SetupContext<'_>, done: &mut Provisioned) -> Option<Error> {
        let subgoal = done.subgoal.clone();
        for (position, command) in self.wanted.setup.iter().enumerate() {
            let job = Job {
                run: context.run.to_owned(),
                iteration: context.iteration,
                call: format!("setup-{}-{position}", context.port),
                subgoal: subgoal.as_deref(),
                cwd: context.place,
                port: Some(context.port),
                timeout: self.wanted.setup_timeout,
                home: None,
                spool: None,
            };
            let result = self.commands.run(command, job).await;
            if self.commands.cancel.is_cancelled() {
                return None;
            }
            done.setup.push(result.clone());
            if !result.ok {
                return Some(setup_error(&result, context.place, context.run));
            }
        }
        None
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Ledger) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        on_ledger(&self.ledger, work).await
    }
}

/// Circumstances in which setup commands run.
struct SetupContext<'a> {
    place: &'a Path,
    /// First port of the worktree.
    port: u16,
    run: &'a str,
    iteration: u32,
    /// True if changes to files that are not ignored are part of the work.
    is_work: bool,
}

fn is_worth_recording(done: &Provisioned) -> bool {
    done.copied > 0 || !done.setup.is_empty() || !done.remarks.is_empty()
}

/// Result of setting up a worktree.
pub(super) struct Prepared {
    /// First port of the worktree.
    pub(super) port: u16,
    pub(super) done: Provisioned,
    /// Failure of a setup command.
    pub(super) failure: Option<Error>,
}

/// Returns the error of a failed setup command: its name, how it ended, its last output and a hint.
fn setup_error(result: &CheckResult, place: &Path, run: &str) -> Error {
    let how = result.ended();
    let output = if result.stderr.trim().is_empty() { &result.stdout } else { &result.stderr };
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    let name = &result.name;
    let error = Error::failed(format!("the setup command '{name}' failed in '{}': {how}", place.display())).hint(format!(
        "mend what it needs, or change it: 'git config --edit', agentloop.setup; then 'git agentloop resume {run}' runs it again"
    ));
    if tail.is_empty() { error } else { error.because(tail) }
}
