//! Makes places fit to work in, once each: what they need of the user's checkout, and the user's own setup commands.

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

/// Lines of a failed command's output that an error repeats.
const TAIL: usize = 10;

/// Files that tell what to install: manifests, lock files and what pins a tool's version.
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

/// What the user has new places made fit with. It comes from the user's own configuration, never from a log: a log can
/// come from anyone.
#[derive(Clone, Debug, Default)]
pub struct Provisioning {
    /// Ignored files that they get from the user's checkout, as patterns of gitignore(5).
    pub copy: Vec<String>,
    /// Commands that are run in them.
    pub setup: Vec<Check>,
    /// Seconds that one of those may take.
    pub setup_timeout: Option<Seconds>,
    /// Files whose change has them run again before checks, as globs that match at any depth.
    pub setup_on: Vec<String>,
    /// Whether ignored files are removed before checks.
    pub check_clean: bool,
    /// Whether checks have a HOME of their own.
    pub private_home: bool,
}

/// Makes the places of one run fit.
#[derive(Clone)]
pub(super) struct Provisioner {
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) commands: Commands,
    pub(super) wanted: Provisioning,
    pub(super) ports: Ports,
}

impl Provisioner {
    /// Makes `place`, which was made or is used again, fit to work in, and puts on record what that took; the first of its
    /// ports. `subgoal` is whose it is. A run that is stopped meanwhile goes on without, and whoever resumes it begins here
    /// anew.
    pub(super) async fn provision(&self, recorder: &Arc<Recorder>, place: &Path, subgoal: Option<&str>) -> Result<u16> {
        let (run, iteration, isolation) = recorder.with(|run| {
            let iteration = run.iteration().map_or(0, |iteration| iteration.number);
            (run.id.as_ref().map(ToString::to_string), iteration, run.options.isolation)
        });
        let is_work = subgoal.is_some() || isolation != Isolation::Worktree;
        let fitted = self.fit(place, &run.unwrap_or_default(), iteration, subgoal, is_work).await?;
        let Fitted { port, done, failure } = fitted;
        if self.commands.cancel.is_cancelled() {
            return Ok(port);
        }
        if is_worth_telling(&done) {
            recorder.record([done.into()]).await?;
        }
        failure.map_or(Ok(port), Err)
    }

    /// The same with nothing put on record. Where what it holds `is_work`, so is what set-up changes of it; else that is
    /// restored.
    pub(super) async fn fit(
        &self,
        place: &Path,
        run: &str,
        iteration: u32,
        subgoal: Option<&str>,
        is_work: bool,
    ) -> Result<Fitted> {
        let port = {
            let (ports, place) = (self.ports.clone(), place.to_owned());
            tokio::task::spawn_blocking(move || ports.base(&place))
                .await
                .context("a thread that looked for ports died")?
        };
        let subgoal = subgoal.and_then(|id| id.parse().ok());
        let mut fitted = Fitted { port, done: Provisioned { subgoal, ..Provisioned::default() }, failure: None };
        if self.commands.cancel.is_cancelled() {
            return Ok(fitted);
        }
        let (at, patterns, cancel) = (place.to_owned(), self.wanted.copy.clone(), self.commands.cancel.clone());
        let outfit = self
            .blocking(move |ledger| {
                ledger.provision(&at, &Wanted { copy: &patterns, go_on: &|| !cancel.is_cancelled() })
            })
            .await?;
        (fitted.done.copied, fitted.done.remarks) = (outfit.copied, outfit.remarks);
        if !outfit.set_up && !self.wanted.setup.is_empty() {
            let setting = Setting { place, port, run, iteration, is_work };
            fitted.failure = self.set_up(setting, &mut fitted.done).await?;
        }
        Ok(fitted)
    }

    /// Makes the run's worktree, which is at `tree`, fit for checks again: without the files that git ignores, where the user
    /// wants that, and set up anew where files that tell what to install have changed since. The setup command that failed.
    pub(super) async fn renew(
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
            let Fitted { done, failure, .. } = self.fit(place, &run, iteration, None, false).await?;
            let failed = failure.and_then(|_| done.setup.last().cloned());
            if !self.commands.cancel.is_cancelled() && is_worth_telling(&done) {
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
        let setting = Setting { place, port: port.unwrap_or_default(), run: &run, iteration, is_work: false };
        let failure = self.set_up(setting, &mut done).await?;
        let failed = failure.and_then(|_| done.setup.last().cloned());
        if !self.commands.cancel.is_cancelled() {
            recorder.record([done.into()]).await?;
        }
        Ok(failed)
    }

    /// Runs the setup commands up to the first that fails; that one's failure.
    async fn set_up(&self, setting: Setting<'_>, done: &mut Provisioned) -> Result<Option<Error>> {
        let (at, is_work) = (setting.place.to_owned(), setting.is_work);
        let (before, tree) = self
            .blocking(move |ledger| {
                ledger.set_up(&at, None)?;
                let tree = if is_work { None } else { Some(ledger.write_tree()?.id) };
                Ok((if is_work { ledger.uncommitted(&at)? } else { BTreeSet::new() }, tree))
            })
            .await?;
        let failure = self.run_setup(&setting, done).await;
        done.remarks.extend(self.blocking(|ledger| ledger.mend()).await?);
        let (at, is_through) = (setting.place.to_owned(), failure.is_none() && !self.commands.cancel.is_cancelled());
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

    async fn run_setup(&self, setting: &Setting<'_>, done: &mut Provisioned) -> Option<Error> {
        let whose = done.subgoal.clone();
        for (position, command) in self.wanted.setup.iter().enumerate() {
            let job = Job {
                run: setting.run.to_owned(),
                iteration: setting.iteration,
                call: format!("setup-{}-{position}", setting.port),
                subgoal: whose.as_deref(),
                cwd: setting.place,
                port: Some(setting.port),
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
                return Some(explain(&result, setting.place, setting.run));
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

/// Where setup commands run, and for whom.
struct Setting<'a> {
    place: &'a Path,
    /// The first of its ports.
    port: u16,
    run: &'a str,
    iteration: u32,
    /// Whether what they change that git does not ignore is work.
    is_work: bool,
}

fn is_worth_telling(done: &Provisioned) -> bool {
    done.copied > 0 || !done.setup.is_empty() || !done.remarks.is_empty()
}

/// What making a place fit came to.
pub(super) struct Fitted {
    /// The first of its ports.
    pub(super) port: u16,
    pub(super) done: Provisioned,
    /// The setup command that failed.
    pub(super) failure: Option<Error>,
}

/// A failed setup command: which, how, what it said last, and how to go on.
fn explain(result: &CheckResult, place: &Path, run: &str) -> Error {
    let how = result.ended();
    let said = if result.stderr.trim().is_empty() { &result.stdout } else { &result.stderr };
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    let name = &result.name;
    let error = Error::failed(format!("the setup command '{name}' failed in '{}': {how}", place.display())).hint(format!(
        "mend what it needs, or change it: 'git config --edit', agentloop.setup; then 'git agentloop resume {run}' runs it again"
    ));
    if tail.is_empty() { error } else { error.because(tail) }
}
