//! Starts drivers in separate processes: such a driver has its own session and outlives the process that started it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::drive::{answering, new_id, open, reopen};
use super::new_run::settle;
use super::{Changes, Drive, NewRun, Site, change_live};
use crate::engine::Engine;
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::GitLedger;
use crate::process;
use crate::redact::Redactor;
use crate::run::State;
use crate::run::goal::RunId;
use crate::run::view::Status;

/// Log file in the run's directory that takes the standard error of a detached driver.
const LOG: &str = "drive.log";
/// Stack of the thread that waits for a driver to end, in bytes.
const REAPER_STACK: usize = 64 * 1024;

/// Request that a detached driver reads from its standard input.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Run(Box<NewRun>),
    Resume { run: String, changes: Box<Changes> },
    Answer { run: String, answers: Vec<String> },
    Cancel { run: String },
}

/// Reply that the driver prints as one line of JSON once its run is recorded or refused.
#[derive(Debug, Serialize, Deserialize)]
enum Opened {
    Run(RunId),
    Refused { message: String, hint: Option<String> },
}

/// Starts a run in a detached driver and returns once the run is recorded.
pub fn run_detached(site: &Site, mut new: NewRun) -> Result<Status> {
    settle(site, &mut new)?;
    let id = new_id(site, &new, &Redactor::of_process());
    new.id = Some(id.clone());
    let dir = GitLedger::scratch_of(&site.repo, &id);
    let started = hand_over(site, &id, &Request::Run(Box::new(new)));
    if started.is_err() && !site.repo.resolve(Some(id.as_str())).is_ok_and(|run| run == id) {
        // A run that was never recorded leaves no directory; one that holds more than the log is not removed.
        let _ = std::fs::remove_file(dir.join(LOG));
        let _ = std::fs::remove_dir(&dir);
    }
    started
}

/// Resumes a run in a detached driver and returns once that is recorded; a run that is already driven gets the new budget.
pub fn resume_detached(site: &Site, run: &str, changes: Changes) -> Result<Status> {
    super::refuse_nested(site)?;
    let id = site.repo.resolve(Some(run))?;
    if let Some(status) = change_live(site, id.as_str(), &changes)? {
        return Ok(status);
    }
    hand_over(site, &id, &Request::Resume { run: id.to_string(), changes: Box::new(changes) })
}

/// Answers a run's questions in a detached driver and returns once the run continues.
pub fn answer_detached(site: &Site, run: &str, answers: Vec<String>) -> Result<Status> {
    super::refuse_nested(site)?;
    let id = site.repo.resolve(Some(run.split('.').next().unwrap_or(run)))?;
    let mut status = hand_over(site, &id, &Request::Answer { run: run.to_owned(), answers })?;
    // The driver has the answers, but may not have recorded them yet.
    if status.running {
        status.state = State::Running;
    }
    Ok(status)
}

/// Cancels a run as [`super::cancel`] does, but in a separate process: a run whose driver died needs a driver to end it, and
/// the caller can end before that is done.
pub fn cancel_detached(site: &Site, run: &str) -> Result<Status> {
    super::refuse_nested(site)?;
    let id = site.repo.resolve(Some(run))?;
    hand_over(site, &id, &Request::Cancel { run: id.to_string() })
}

/// Starts a driver, sends it the request and waits until its run is recorded.
fn hand_over(site: &Site, id: &RunId, request: &Request) -> Result<Status> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let dir = GitLedger::scratch_of(&site.repo, id);
    let log = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::File::options().create(true).append(true).open(dir.join(LOG)))
        .map_err(|error| {
            Error::failed(format!("the driver's log cannot be made in '{}'", dir.display()))
                .because(error)
                .hint("the git directory must be writable for you, and its disk not full")
        })?;
    let mut driver = process::outliving(program);
    driver.arg("drive").current_dir(site.repo.home()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut child = process::spawn_aside(&mut driver).context("the run's driver could not be started")?;
    let input = serde_json::to_vec(request).context("the request cannot be written down")?;
    let mut line = String::new();
    if let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) {
        // A driver that refuses the request before it has read all of it prints the reason on its output.
        let _ = stdin.write_all(&input);
        drop(stdin);
        BufReader::new(stdout).read_line(&mut line).context("the run's driver could not be heard")?;
    }
    let Ok(opened) = serde_json::from_str(&line) else {
        let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        return Err(Error::failed(format!("the run's driver ended before its run was on record: {status}")));
    };
    // If this process lives on, it must wait for the driver, which else stays a zombie.
    let _ = std::thread::Builder::new().stack_size(REAPER_STACK).spawn(move || child.wait());
    match opened {
        Opened::Run(id) => super::status(site, Some(id.as_str())),
        Opened::Refused { message, hint } => {
            let error = Error::usage(message);
            Err(hint.into_iter().fold(error, Error::hint))
        }
    }
}

/// Runs as the detached driver: `request` is what `hand_over` wrote.
pub async fn drive(request: Vec<u8>, cancel: CancellationToken) -> Result<()> {
    // In its own session neither a hangup of the terminal nor a signal to the process group of its starter reaches the
    // driver.
    let _ = rustix::process::setsid();
    let (opened, engine) = match Box::pin(begin(&request, cancel)).await {
        Ok((id, engine)) => (Opened::Run(id), Ok(engine)),
        Err(error) => {
            let hint = error.hint_text().map(ToOwned::to_owned);
            (Opened::Refused { message: error.chain(), hint }, Err(error))
        }
    };
    let line = serde_json::to_string(&opened).context("the answer cannot be written down")?;
    // The process that started the run may be gone by now; the run goes on.
    let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
    match engine? {
        Some(engine) => engine.drive().await.map(|_| ()),
        None => Ok(()),
    }
}

/// Carries out the request until the run is recorded; returns the engine that drives the run from there, if there is one.
async fn begin(request: &[u8], cancel: CancellationToken) -> Result<(RunId, Option<Engine>)> {
    let request: Request = serde_json::from_slice(request).map_err(|error| {
        Error::usage("'drive' is told what to do by 'run --detach'; it is not for people").because(error)
    })?;
    let site = Site::open(None)?;
    let drive = Drive { cancel, ..Drive::default() };
    let (id, engine) = match request {
        Request::Run(new) => open(&site, *new, drive).await?,
        Request::Resume { run, changes } => reopen(&site, &run, &changes, drive).await?,
        Request::Answer { run, answers } => {
            let (id, drive) = answering(&site, &run, answers, drive)?;
            reopen(&site, id.as_str(), &Changes::default(), drive).await?
        }
        Request::Cancel { run } => return Ok((super::cancel(&site, Some(&run)).await?.run_id, None)),
    };
    Ok((id, Some(engine)))
}
