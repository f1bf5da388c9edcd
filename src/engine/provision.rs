//! Makes places fit to work in, once each: what they need of the user's checkout, and the user's own setup commands.

use std::path::Path;
use std::sync::Arc;

use super::command::{Commands, Job};
use super::ports::Ports;
use super::recorder::Recorder;
use super::{name_files, on_ledger};
use crate::error::{Context as _, Error, Result};
use crate::ledger::{Ledger, Wanted};
use crate::run::amount::Seconds;
use crate::run::event::Provisioned;
use crate::run::goal::Check;
use crate::run::work::CheckResult;

/// Lines of a failed command's output that an error repeats.
const TAIL: usize = 10;

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
    ///
    /// # Errors
    /// Where something cannot be written there, or a setup command fails: whoever worked there would fail of it too.
    pub(super) async fn provision(&self, recorder: &Arc<Recorder>, place: &Path, subgoal: Option<&str>) -> Result<u16> {
        let (run, iteration) = recorder.with(|run| {
            (run.id.as_ref().map(ToString::to_string), run.iteration().map_or(0, |iteration| iteration.number))
        });
        let Fitted { port, done, failure } = self.fit(place, &run.unwrap_or_default(), iteration, subgoal).await?;
        if self.commands.cancel.is_cancelled() {
            return Ok(port);
        }
        if done.copied > 0 || !done.setup.is_empty() || !done.remarks.is_empty() {
            recorder.record([done.into()]).await?;
        }
        failure.map_or(Ok(port), Err)
    }

    /// The same with nothing put on record.
    ///
    /// # Errors
    /// Where something cannot be written there.
    pub(super) async fn fit(&self, place: &Path, run: &str, iteration: u32, subgoal: Option<&str>) -> Result<Fitted> {
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
            fitted.failure = self.set_up(place, port, run, iteration, &mut fitted.done).await?;
        }
        Ok(fitted)
    }

    /// Runs the setup commands up to the first that fails; that one's failure.
    async fn set_up(
        &self,
        place: &Path,
        port: u16,
        run: &str,
        iteration: u32,
        done: &mut Provisioned,
    ) -> Result<Option<Error>> {
        let at = place.to_owned();
        let before = self.blocking(move |ledger| ledger.uncommitted(&at)).await?;
        let whose = done.subgoal.clone();
        for (position, command) in self.wanted.setup.iter().enumerate() {
            let job = Job {
                run: run.to_owned(),
                iteration,
                call: format!("setup-{port}-{position}"),
                subgoal: whose.as_deref(),
                cwd: place,
                port: Some(port),
                timeout: self.wanted.setup_timeout,
            };
            let result = self.commands.run(command, job).await;
            if self.commands.cancel.is_cancelled() {
                return Ok(None);
            }
            done.setup.push(result.clone());
            if !result.ok {
                return Ok(Some(explain(&result, place, run)));
            }
        }
        let at = place.to_owned();
        done.remarks.extend(self.blocking(|ledger| ledger.mend()).await?);
        let left = self.blocking(move |ledger| ledger.set_up(&at).and_then(|()| ledger.uncommitted(&at))).await?;
        let new: Vec<String> = left.difference(&before).cloned().collect();
        if !new.is_empty() {
            let named = name_files(&new);
            done.remarks
                .push(format!("the setup changed what git does not ignore, so it is part of the work: {named}"));
        }
        Ok(None)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Ledger) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        on_ledger(&self.ledger, work).await
    }
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
