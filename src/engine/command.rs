//! Commands that the user's configuration names: checks, and what sets a worktree up. No shell, and nothing of theirs
//! outlives them.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::process::{self, Captured, Mark, Spec, Status, Stdin, Transcript};
use crate::redact::Redactor;
use crate::run::amount::Seconds;
use crate::run::event::{VALUE_LIMIT, clip};
use crate::run::goal::Check;
use crate::run::work::CheckResult;

/// Bytes of a command's output that are kept, each of stdout and stderr.
const KEEP: usize = 64 * 1024;

/// What all commands of a driver have in common.
#[derive(Clone)]
pub(super) struct Commands {
    pub(super) session: String,
    /// The clone that the run is in, as what works there is marked with it.
    pub(super) clone: String,
    pub(super) cancel: CancellationToken,
    pub(super) redactor: Redactor,
}

/// Where and for whom a command runs.
pub(super) struct Job<'a> {
    /// The run's id.
    pub(super) run: String,
    pub(super) iteration: u32,
    /// Its name among the driver's commands.
    pub(super) call: String,
    pub(super) subgoal: Option<&'a str>,
    pub(super) cwd: &'a Path,
    pub(super) port: Option<u16>,
    /// How long it may take.
    pub(super) timeout: Option<Seconds>,
    /// Its HOME, where that is not the user's.
    pub(super) home: Option<&'a Path>,
    /// Where all of its output goes, where that is kept.
    pub(super) spool: Option<Transcript>,
}

impl Commands {
    /// Runs `command` to its end, and says how it went.
    pub(super) async fn run(&self, command: &Check, job: Job<'_>) -> CheckResult {
        let own = variables(&job.run, &self.clone, job.iteration, job.subgoal, job.port);
        let env = own.iter().map(|(name, value)| (name.into(), Some(value.into())));
        let home = job.home.into_iter().flat_map(|home| {
            let below = ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"];
            std::iter::once(("HOME".into(), Some(home.into()))).chain(below.map(|name| (name.into(), None)))
        });
        // Whoever started this driver may itself work on a subgoal.
        let none = job.subgoal.is_none().then(|| (SUBGOAL.into(), None));
        let spec = Spec {
            argv: command.argv.iter().map(Into::into).collect(),
            cwd: Some(job.cwd.to_owned()),
            env: env.chain(none).chain(home).collect(),
            stdin: Stdin::Null,
            timeout: job.timeout.map(Seconds::duration),
            keep: KEEP,
            spool: job.spool,
            mark: Some(Mark { run: job.run, call: format!("{}-{}", self.session, job.call) }),
        };
        let finished = match process::run(spec, &self.cancel).await {
            Ok(finished) => finished,
            Err(error) => return failed(command, error.to_string()),
        };
        let (exit_code, error) = match finished.status {
            Status::Exited(code) => (Some(code), None),
            Status::Signaled(signal) => (None, Some(format!("killed by signal {signal}"))),
            Status::TimedOut => (None, Some(format!("timed out after {} s", job.timeout.unwrap_or_default()))),
            Status::Cancelled => (None, Some("stopped".to_owned())),
        };
        let text = |captured: &Captured| clip(&self.redactor.clean(&captured.text()), VALUE_LIMIT);
        CheckResult {
            name: command.name.clone(),
            ok: exit_code == Some(0),
            exit_code,
            stdout: text(&finished.stdout),
            stderr: text(&finished.stderr),
            error,
            duration: finished.seconds,
            ..CheckResult::default()
        }
    }
}

/// A command that was not run, or could not be.
pub(super) fn failed(command: &Check, error: String) -> CheckResult {
    CheckResult { name: command.name.clone(), error: Some(error), ..CheckResult::default() }
}

const SUBGOAL: &str = "AGENTLOOP_SUBGOAL";

/// What everything that works for a run finds in its environment.
pub(super) fn variables(
    run: &str,
    clone: &str,
    iteration: u32,
    subgoal: Option<&str>,
    port: Option<u16>,
) -> Vec<(String, String)> {
    let run = [
        (process::RUN_VAR, Some(run.to_owned())),
        (process::CLONE_VAR, Some(clone.to_owned())),
        ("AGENTLOOP_ITERATION", Some(iteration.to_string())),
    ];
    let place = [(SUBGOAL, subgoal.map(ToOwned::to_owned)), (PORT, port.map(|port| port.to_string()))];
    let all = run.into_iter().chain(place);
    all.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The first of ten ports that are the place's own.
pub(super) const PORT: &str = "AGENTLOOP_PORT";
