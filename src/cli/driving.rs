//! Drives a run in this process, with its notices, its display and its signals.

use std::future::Future;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::Driving;
use super::console::Console;
use super::display::{Display, Mode};
use super::print;
use super::say::{CANCELLED, say_result};
use crate::app::{self, Drive, NewRun, Site};
use crate::error::{Context as _, Result};
use crate::interaction::{Interaction, Suspend};
use crate::process;
use crate::run::view::RunResult;

/// Prints the notices about `new`.
pub(super) fn notice(site: &Site, new: &NewRun, driving: Driving) -> Result<()> {
    if !driving.quiet {
        for notice in app::notices(site, new)? {
            print::note(&notice);
        }
    }
    Ok(())
}

/// Drives a run in this process, shows its progress, and prints its result.
pub(super) fn drive_here<F>(driving: Driving, console: bool, verb: impl FnOnce(Drive) -> F) -> Result<u8>
where
    F: Future<Output = Result<RunResult>>,
{
    let mode = Mode::for_run(driving.quiet, driving.progress);
    // The result shows how the run ended, unless it does not go to the terminal.
    let closing = driving.json || (print::person_listens() && !print::person_reads());
    let display = Arc::new(Display::new(mode, closing));
    let interaction: Arc<dyn Interaction> = if console { Arc::new(Console) } else { Arc::new(Suspend) };
    let cancel = CancellationToken::new();
    let drive = Drive { interaction, watch: Arc::clone(&display) as _, cancel: cancel.clone() };
    let driven = with_runtime(async {
        let (teller, left) = (Arc::clone(&display), Arc::clone(&display));
        stop_on_signals(cancel, move |line| teller.note(line), move || left.close())?;
        verb(drive).await
    });
    display.close();
    say_result(&driven?, driving.json)
}

/// Cancels `cancel` at the first SIGINT or SIGTERM; the second calls `leave`, kills the agents and exits. A hangup counts as
/// a first signal only, since a closed terminal may send several.
pub(super) fn stop_on_signals(
    cancel: CancellationToken,
    tell: impl Fn(&str) + Send + 'static,
    leave: impl Fn() + Send + 'static,
) -> Result<()> {
    let listen = |kind| signal(kind).context("signals cannot be listened to");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = process::hangup_ends_us().then(|| listen(SignalKind::hangup())).transpose()?;
    tokio::spawn(async move {
        // The token cannot tell whether a signal came: a run that ends cancels it too.
        let mut asked = false;
        loop {
            let by_person = tokio::select! {
                _ = interrupt.recv() => true,
                _ = terminate.recv() => true,
                Some(()) = async { hangup.as_mut()?.recv().await } => false,
            };
            if asked && by_person {
                process::kill_calls();
                leave();
                std::process::exit(CANCELLED.into());
            }
            if asked {
                continue;
            }
            asked = true;
            cancel.cancel();
            tell("stopping: the work so far is being committed; a second Ctrl-C leaves at once");
        }
    });
    Ok(())
}

pub(super) fn with_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let done = runtime.block_on(work);
    // Without this a thread that reads from the terminal would block the exit.
    runtime.shutdown_background();
    done
}
