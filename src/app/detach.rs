//! Runs whose driver is a process of its own: it has its own session, no standard input, and outlives who started it.

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

/// Where a detached driver writes what a foreground one says on stderr, in the run's folder.
const LOG: &str = "drive.log";
/// Bytes of stack for a thread that does nothing but wait.
const REAPER_STACK: usize = 64 * 1024;

/// What a detached driver is told on its standard input.
#[derive(Debug, Serialize, Deserialize)]
enum Request {
    Run(Box<NewRun>),
    Resume { run: String, changes: Box<Changes> },
    Answer { run: String, answers: Vec<String> },
    Cancel { run: String },
}

/// What it answers on its standard output once its run is on record, in one line.
#[derive(Debug, Serialize, Deserialize)]
enum Opened {
    Run(RunId),
    Refused { message: String, hint: Option<String> },
}

/// Starts a run and returns once it is on record.
///
/// # Errors
/// Where the run cannot be started.
pub fn run_detached(site: &Site, mut new: NewRun) -> Result<Status> {
    settle(site, &mut new)?;
    let id = new_id(site, &new, &Redactor::of_process());
    new.id = Some(id.clone());
    let dir = GitLedger::scratch_of(&site.repo, &id);
    let started = hand_over(site, &id, &Request::Run(Box::new(new)));
    if started.is_err() && !site.repo.resolve(Some(id.as_str())).is_ok_and(|run| run == id) {
        // Nothing of a run that never was stays behind; a folder that holds more is not removed.
        let _ = std::fs::remove_file(dir.join(LOG));
        let _ = std::fs::remove_dir(&dir);
    }
    started
}

/// Goes on with a run and returns once that is on record; one that is running has its budget changed.
///
/// # Errors
/// Where the run cannot go on.
pub fn resume_detached(site: &Site, run: &str, changes: Changes) -> Result<Status> {
    super::refuse_nested(site)?;
    let id = site.repo.resolve(Some(run))?;
    if let Some(status) = change_live(site, id.as_str(), &changes)? {
        return Ok(status);
    }
    hand_over(site, &id, &Request::Resume { run: id.to_string(), changes: Box::new(changes) })
}

/// Answers a run's questions and returns once it goes on.
///
/// # Errors
/// Where the answers do not match the questions.
pub fn answer_detached(site: &Site, run: &str, answers: Vec<String>) -> Result<Status> {
    super::refuse_nested(site)?;
    let id = site.repo.resolve(Some(run.split('.').next().unwrap_or(run)))?;
    let mut status = hand_over(site, &id, &Request::Answer { run: run.to_owned(), answers })?;
    // Its driver has the answers, and may not have recorded them yet.
    if status.running {
        status.state = State::Running;
    }
    Ok(status)
}

/// Stops a run as [`super::cancel`] does, in a process of its own, since a run whose driver died is wound down by a
/// driver: the caller stays none, and may end meanwhile.
///
/// # Errors
/// Where the run has ended, or its driver does not come to its end.
pub fn cancel_detached(site: &Site, run: &str) -> Result<Status> {
    super::refuse_nested(site)?;
    let id = site.repo.resolve(Some(run))?;
    hand_over(site, &id, &Request::Cancel { run: id.to_string() })
}

/// Starts a driver, tells it what to do, and waits until its run is on record.
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
    let told = serde_json::to_vec(request).context("the request cannot be written down")?;
    let mut line = String::new();
    if let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) {
        // A driver that refuses before it has read everything says why on its output.
        let _ = stdin.write_all(&told);
        drop(stdin);
        BufReader::new(stdout).read_line(&mut line).context("the run's driver could not be heard")?;
    }
    let Ok(opened) = serde_json::from_str(&line) else {
        let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        return Err(Error::failed(format!("the run's driver ended before its run was on record: {status}")));
    };
    // A starter that lives on must take note of its driver's end, or a zombie is left; one that ends need not.
    let _ = std::thread::Builder::new().stack_size(REAPER_STACK).spawn(move || child.wait());
    match opened {
        Opened::Run(id) => super::status(site, Some(id.as_str())),
        Opened::Refused { message, hint } => {
            let error = Error::usage(message);
            Err(hint.into_iter().fold(error, Error::hint))
        }
    }
}

/// The detached driver itself: `request` is what `hand_over` wrote.
///
/// # Errors
/// Where the run cannot be opened or its record can no longer be written.
pub async fn drive(request: Vec<u8>, cancel: CancellationToken) -> Result<()> {
    // A session of its own: neither a hangup of the terminal nor a signal to the starter's group reaches it.
    let _ = rustix::process::setsid();
    let (opened, engine) = match Box::pin(begin(&request, cancel)).await {
        Ok((id, engine)) => (Opened::Run(id), Ok(engine)),
        Err(error) => {
            let hint = error.hint_text().map(ToOwned::to_owned);
            (Opened::Refused { message: error.chain(), hint }, Err(error))
        }
    };
    let line = serde_json::to_string(&opened).context("the answer cannot be written down")?;
    // Whoever started the run may be gone by now; the run goes on.
    let _ = writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush());
    match engine? {
        Some(engine) => engine.drive().await.map(|_| ()),
        None => Ok(()),
    }
}

/// Does what is asked for up to the point where it is on record; the engine that goes on from there, where one does.
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
