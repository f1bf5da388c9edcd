//! The command line: reads what is asked, calls `app`, prints the answer.
//!
//! Standard output is the answer, standard error the conversation.

mod args;
mod bisect;
mod complete;
mod console;
mod display;
mod follow;
mod fork;
mod goal;
mod health;
mod hooks;
mod hosts;
mod install;
mod live;
mod manual;
mod options;
mod overview;
mod pager;
mod paint;
mod porcelain;
mod print;
mod render;
mod restore;
mod review;
mod share;
mod shown;
mod story;
mod take;
mod transcript;
mod usage;

use std::future::Future;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::args::{Cli, Driving, Json, McpArgs, PromptsArgs, ResumeArgs, RunArgs, RunJson, Verb};
use self::console::Console;
use self::display::{Display, Mode};
use self::usage::Refusal;
use crate::app::{self, Changes, Drive, NewRun, Site};
use crate::error::{Context as _, Error, Result};
use crate::interaction::{Interaction, Suspend};
use crate::process;
use crate::run::goal::{Asking, Role};
use crate::run::sanitize;
use crate::run::view::{RunResult, Status};

/// What a usage error, a failure of ours and a failed run exit with.
const ERROR: u8 = 2;
/// What a wait exits with that ends before its run, as timeout(1) has it.
const TIMED_OUT: u8 = 124;
/// What a run that the user stopped exits with.
const CANCELLED: u8 = 4;

/// How long one waits before one is told what for.
const SILENCE: Duration = Duration::from_secs(1);

/// What serves the repository of a directory to agents, until they are gone.
pub type Serve = fn(Option<&Path>) -> Result<()>;

/// The program: what the process's arguments ask for; its exit code. `serve` is the other surface, which this one does
/// not know.
#[must_use]
pub fn main(serve: Serve) -> ExitCode {
    // git waits for its hooks: they need no command line to be understood.
    if let Some(words) = hooks::called(std::env::args_os()) {
        return ExitCode::from(hooks::hook(&words));
    }
    ExitCode::from(match usage::parse(std::env::args_os()) {
        Ok(cli) => perform(cli, serve).unwrap_or_else(|error| refuse(&error)),
        Err(Refusal::Answer(text)) => print::out(text).map_or(ERROR, |_| 0),
        Err(Refusal::Help(text)) => {
            print::note(text.trim_end());
            ERROR
        }
        Err(Refusal::Wrong(error)) => refuse(&error),
    })
}

/// Says what is wrong; to a program that asked for JSON, as its answer too.
fn refuse(error: &Error) -> u8 {
    if std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json") {
        let answer = serde_json::json!({ "error": error.chain(), "hint": error.hint_text() });
        let _ = print::out(sanitize::json(format!("{answer}\n"))); // who does not read it has the exit code
    }
    print::note(&error.report());
    ERROR
}

fn perform(cli: Cli, serve: Serve) -> Result<u8> {
    if cli.verbose {
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(print::stderr)
            .with_ansi(false)
            .init();
    }
    let site = || {
        let site = Site::open(None)?;
        paint::choose(&site);
        Ok::<_, Error>(site)
    };
    match cli.verb {
        Verb::Drive => drive(),
        Verb::Mcp(arguments) => mcp(&arguments, serve),
        Verb::Hook(arguments) => Ok(hooks::hook(&arguments.words)),
        Verb::Install(arguments) => install::install(&arguments),
        Verb::Complete(arguments) => complete::complete(&arguments.words),
        Verb::Doctor(Json { json }) => doctor(json),
        Verb::Prompts(PromptsArgs { role, dump }) => prompts(&site()?, role.as_deref(), dump.as_deref()),
        Verb::Run(arguments) => run(&site()?, &arguments),
        Verb::Resume(arguments) => resume(&site()?, &arguments),
        Verb::Answer(arguments) => answer(&site()?, &arguments.run, &arguments.answers, arguments.driving),
        Verb::Status(arguments) if arguments.short => short_status(arguments.run.as_deref()),
        Verb::Status(arguments) => {
            let site = site()?;
            let status = app::status(&site, arguments.run.as_deref())?;
            if arguments.porcelain {
                return print::out(porcelain::status(&status)).map(|_| 0);
            }
            say_status(&site, &status, arguments.json)
        }
        Verb::List(arguments) => {
            let runs = app::list(&site()?)?;
            if arguments.porcelain {
                return print::out(porcelain::list(&runs)).map(|_| 0);
            }
            say(arguments.json, &runs, || Ok(render::list(&runs, app::now())))
        }
        Verb::Tail(arguments) => follow::tail(&site()?, &arguments),
        Verb::Result(arguments) => follow::result(&site()?, &arguments),
        Verb::Show(arguments) => review::show(&site()?, &arguments),
        Verb::Log(arguments) => review::log(&site()?, &arguments),
        Verb::Diff(arguments) => review::diff(&site()?, &arguments),
        Verb::Merge(arguments) => take::merge(&site()?, &arguments),
        Verb::Discard(arguments) => take::discard(&site()?, &arguments),
        Verb::Restore(arguments) => restore::restore(&site()?, &arguments),
        Verb::Prune(arguments) => take::prune(&site()?, &arguments),
        Verb::Steer(arguments) => fork::steer(&site()?, &arguments),
        Verb::Fork(arguments) => fork::fork(&site()?, &arguments),
        Verb::Bisect(arguments) => bisect::bisect(&site()?, &arguments),
        Verb::Sync(arguments) => share::sync(&site()?, &arguments),
        Verb::Hooks(arguments) => hooks::hooks(&site()?, &arguments),
        Verb::Output(arguments) => follow::output(&site()?, &arguments),
        Verb::Cancel(RunJson { run, json }) => cancel(&site()?, run.as_deref(), json),
        Verb::Backends(Json { json }) => {
            let site = site()?;
            let backends = with_runtime(async { Ok(app::examined_backends(&site).await) })?;
            say(json, &backends, || Ok(health::backends(&backends)))
        }
        Verb::Config(Json { json }) => config(&site()?, json),
    }
}

/// Stops a run, and says so where that takes a while: its driver gives the workers time, and commits what they did.
fn cancel(site: &Site, run: Option<&str>, json: bool) -> Result<u8> {
    let status = with_runtime(async {
        let mut cancelled = std::pin::pin!(app::cancel(site, run));
        tokio::select! {
            biased;
            status = &mut cancelled => return status,
            () = tokio::time::sleep(SILENCE) => {}
        }
        print::note("stopping: its workers are given time to end, and what they did is being committed");
        cancelled.await
    })?;
    say_status(site, &status, json)
}

fn config(site: &Site, json: bool) -> Result<u8> {
    for unknown in app::unknown_settings(site) {
        print::note(&unknown.said);
    }
    let settings = site.settings().all();
    say(json, &settings, || Ok(render::config(settings)))
}

/// For a prompt, which is no place for errors: where there is no repository or no run, there is nothing to say.
fn short_status(run: Option<&str>) -> Result<u8> {
    let status = Site::open(None).and_then(|site| app::status(&site, run));
    print::out(status.map_or_else(|_| String::new(), |status| porcelain::short(&status))).map(|_| 0)
}

/// What a role is told as things stand, the roles' names, or the built-in texts as files.
fn prompts(site: &Site, role: Option<&str>, dump: Option<&std::path::Path>) -> Result<u8> {
    let text = match (dump, role) {
        (Some(dir), _) => app::dump_prompts(dir)?.iter().map(|made| made.display().to_string() + "\n").collect(),
        (None, Some(role)) => app::prompt(site, role)?,
        (None, None) => Role::ALL.map(Role::name).join("\n") + "\n",
    };
    print::out(text)?;
    Ok(0)
}

/// What a run needs is looked at outside of any repository too: that there is none is one of its answers.
fn doctor(json: bool) -> Result<u8> {
    let found = with_runtime(async { Ok(app::doctor(None).await) })?;
    say(json, &found, || Ok(health::doctor(&found)))?;
    Ok(if found.ok { 0 } else { ERROR })
}

fn run(site: &Site, arguments: &RunArgs) -> Result<u8> {
    let driving = arguments.driving;
    if let Some(token) = &arguments.resume {
        return answer(site, token, &arguments.answers, driving);
    }
    let person = print::person_answers() && !driving.non_interactive;
    let folder = site.folder(arguments.cwd.as_deref())?;
    let new = options::new_run(arguments, site.settings(), folder, person)?;
    notice(site, &new, driving)?;
    if driving.detach {
        return say_status(site, &app::run_detached(site, new)?, driving.json);
    }
    let console = new.options.asking == Asking::Console;
    drive_here(driving, console, |drive| app::run(site, new, drive))
}

/// Says what the user should know before `new` begins.
fn notice(site: &Site, new: &NewRun, driving: Driving) -> Result<()> {
    if !driving.quiet {
        for notice in app::notices(site, new)? {
            print::note(&notice);
        }
    }
    Ok(())
}

fn resume(site: &Site, arguments: &ResumeArgs) -> Result<u8> {
    let driving = arguments.driving;
    let (isolation, take_over, force) = (arguments.isolation, arguments.take_over, arguments.force);
    let given = options::changes(&arguments.options, site)?;
    let changes = Changes { isolation, take_over, force, ..given };
    let run = match &arguments.run {
        Some(run) => run.clone(),
        None => app::status(site, None)?.run_id.to_string(),
    };
    if driving.detach {
        return say_status(site, &app::resume_detached(site, &run, changes)?, driving.json);
    }
    if let Some(status) = app::change_live(site, &run, &changes)? {
        return say_status(site, &status, driving.json);
    }
    let person = print::person_answers() && !driving.non_interactive;
    drive_here(driving, person, |drive| app::resume(site, &run, changes, drive))
}

fn answer(site: &Site, run: &str, answers: &[String], driving: Driving) -> Result<u8> {
    let answers = answers.to_vec();
    if driving.detach {
        return say_status(site, &app::answer_detached(site, run, answers)?, driving.json);
    }
    drive_here(driving, false, |drive| app::answer(site, run, answers, drive))
}

/// The driver of a detached run: what to do comes on standard input.
fn drive() -> Result<u8> {
    let mut request = Vec::new();
    std::io::stdin().lock().read_to_end(&mut request).context("what to drive cannot be read from standard input")?;
    let cancel = CancellationToken::new();
    with_runtime(async {
        stop_on_signals(cancel.clone(), |_| {}, || {})?;
        Box::pin(app::drive(request, cancel)).await
    })?;
    Ok(0)
}

fn mcp(arguments: &McpArgs, serve: Serve) -> Result<u8> {
    if let Some(host) = arguments.print_config {
        hosts::print_config(host, arguments)?;
        return Ok(0);
    }
    if print::person_answers() {
        print::note("this speaks JSON-RPC on stdin and stdout, for a host that starts it");
        print::note("hint: 'git agentloop mcp -h' says how to tell your agent of it; Ctrl-D ends it");
    }
    serve(arguments.repo.as_deref())?;
    Ok(0)
}

/// Drives a run in this process, shows it, and prints what it comes to.
fn drive_here<F>(driving: Driving, console: bool, verb: impl FnOnce(Drive) -> F) -> Result<u8>
where
    F: Future<Output = Result<RunResult>>,
{
    let mode = Mode::for_run(driving.quiet, driving.progress);
    // The result tells the end, unless the person who looks on does not see it.
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

/// The first SIGINT or SIGTERM stops what `cancel` belongs to; the second ends the process and what it has at work. A
/// terminal that is closed says so more than once, and is as good as the first. `leave` comes before the second one's end.
fn stop_on_signals(
    cancel: CancellationToken,
    tell: impl Fn(&str) + Send + 'static,
    leave: impl Fn() + Send + 'static,
) -> Result<()> {
    let listen = |kind| signal(kind).context("signals cannot be listened to");
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hangup = process::hangup_ends_us().then(|| listen(SignalKind::hangup())).transpose()?;
    tokio::spawn(async move {
        // The token says nothing here: a run that comes to its end cancels it too.
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

fn with_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let done = runtime.block_on(work);
    // A thread that waits for a line of the terminal holds nobody up.
    runtime.shutdown_background();
    done
}

/// Prints a view: as JSON, or as `text` says it.
fn say(as_json: bool, view: &impl serde::Serialize, text: impl FnOnce() -> Result<String>) -> Result<u8> {
    let text = if as_json { render::json(view, print::person_reads())? } else { paint::out(text()?) };
    page(&text).map(|()| 0)
}

/// Shows an answer, by the user's pager where it is longer than a screen.
fn page(text: &str) -> Result<()> {
    if text.lines().count() <= pager::SCREEN {
        return print::out(text).map(|_| ());
    }
    let mut pager = pager::Pager::start();
    pager.show(text)?;
    pager.close();
    Ok(())
}

fn say_status(site: &Site, status: &Status, json: bool) -> Result<u8> {
    if !json {
        warn_of_set_aside(app::set_aside(site, Some(status.run_id.as_str()))?.as_deref());
    }
    say(json, status, || {
        let branch = app::branch_here(site, &status.run_id);
        Ok(render::status(status, branch.as_deref(), app::now()))
    })
}

/// Warns of lines of the log that could not be read.
fn warn_of_set_aside(notice: Option<&str>) {
    if let Some(notice) = notice {
        print::note(&format!("warning: {notice}"));
    }
}

fn say_result(result: &RunResult, json: bool) -> Result<u8> {
    if !json {
        warn_of_set_aside(result.set_aside.as_deref());
    }
    say(json, result, || Ok(render::result(result)))?;
    Ok(exit_code(&result.status))
}

/// What a run in `state` exits with.
fn exit_code(state: &str) -> u8 {
    match state {
        "stopped" => 1,
        "failed" | "interrupted" => ERROR,
        "needs_input" => 3,
        "cancelled" => CANCELLED,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::State;

    #[test]
    fn exit_codes_are_the_contract_s() {
        let codes = [
            (State::Running, 0),
            (State::Waiting, 0),
            (State::Completed, 0),
            (State::Stopped, 1),
            (State::Failed, 2),
            (State::NeedsInput, 3),
            (State::Cancelled, 4),
        ];
        for (state, code) in codes {
            assert_eq!(exit_code(state.name()), code, "{state}");
        }
        assert_eq!(exit_code("interrupted"), 2);
    }
}
