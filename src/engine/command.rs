//! Commands of the user's configuration: checks and set-up. They run without a shell, and none of their processes outlives
//! them.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use crate::process::{self, Captured, Mark, Spec, Status, Stdin, Transcript};
use crate::redact::Redactor;
use crate::run::amount::Seconds;
use crate::run::event::{VALUE_LIMIT, clip};
use crate::run::goal::Check;
use crate::run::work::CheckResult;

/// Length of stdout and of stderr that is kept, in bytes each.
const KEPT_BYTES: usize = 64 * 1024;

/// Settings that all commands of a driver share.
#[derive(Clone)]
pub(super) struct Commands {
    pub(super) session: String,
    /// Mark of the run's clone, for the environment.
    pub(super) clone: String,
    pub(super) cancel: CancellationToken,
    pub(super) redactor: Redactor,
}

/// One execution of a command.
pub(super) struct Job<'a> {
    /// Id of the run.
    pub(super) run: String,
    pub(super) iteration: u32,
    /// Name among the driver's commands.
    pub(super) call: String,
    pub(super) subgoal: Option<&'a str>,
    pub(super) cwd: &'a Path,
    pub(super) port: Option<u16>,
    /// Time limit.
    pub(super) timeout: Option<Seconds>,
    /// HOME, unless the user's own is used.
    pub(super) home: Option<&'a Path>,
    /// Transcript of all output, if it is kept.
    pub(super) spool: Option<Transcript>,
}

impl Commands {
    /// Runs `command` to its end and returns the result.
    pub(super) async fn run(&self, command: &Check, job: Job<'_>) -> CheckResult {
        let own = variables(&job.run, &self.clone, job.iteration, job.subgoal, job.port);
        let env = own.iter().map(|(name, value)| (name.into(), Some(value.into())));
        let home = job.home.into_iter().flat_map(|home| {
            let below = ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"];
            std::iter::once(("HOME".into(), Some(home.into()))).chain(below.map(|name| (name.into(), None)))
        });
        // The driver itself may have been started by a worker that has a subgoal.
        let none = job.subgoal.is_none().then(|| (SUBGOAL.into(), None));
        let spec = Spec {
            argv: command.argv.iter().map(Into::into).collect(),
            cwd: Some(job.cwd.to_owned()),
            env: env.chain(none).chain(home).collect(),
            stdin: Stdin::Null,
            timeout: job.timeout.map(Seconds::duration),
            keep: KEPT_BYTES,
            spool: job.spool,
            mark: Some(Mark { run: job.run, call: format!("{}-{}", self.session, job.call) }),
        };
        let finished = match process::run(spec, &self.cancel).await {
            Ok(finished) => finished,
            Err(error) => return unstarted(command, error.to_string()),
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

/// Returns the result of a command that was not run or could not be started.
pub(super) fn unstarted(command: &Check, error: String) -> CheckResult {
    CheckResult { name: command.name.clone(), error: Some(error), ..CheckResult::default() }
}

const SUBGOAL: &str = "AGENTLOOP_SUBGOAL";

/// Returns the environment variables of agents and commands.
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

/// Variable of the first of the worktree's ten ports.
pub(super) const PORT: &str = "AGENTLOOP_PORT";
