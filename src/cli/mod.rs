//! The command line: parses the arguments, calls `app`, and prints the answer.
//!
//! Answers go to standard output; progress, warnings and errors go to standard error.

mod args;
mod bisect;
mod complete;
mod console;
mod display;
mod driving;
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
mod say;
mod share;
mod shown;
mod story;
mod take;
mod transcript;
mod usage;

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::args::{Cli, Driving, Json, McpArgs, PromptsArgs, ResumeArgs, RunArgs, RunJson, Verb};
use self::driving::{drive_here, notice, stop_on_signals, with_runtime};
use self::say::{ERROR, say, say_status};
use self::usage::Refusal;
use crate::app::{self, Changes, Site};
use crate::error::{Context as _, Error, Result};
use crate::run::goal::{Asking, Role};
use crate::run::sanitize;

/// Time after which a verb that waits prints the reason.
const SILENCE: Duration = Duration::from_secs(1);

/// Function that serves the repository of a directory over MCP until the client is gone.
pub type Serve = fn(Option<&Path>) -> Result<()>;

/// Runs the program with the process's arguments and returns its exit code. `serve` is passed in because this module must
/// not depend on `mcp`.
#[must_use]
pub fn main(serve: Serve) -> ExitCode {
    // git waits for its hooks, so they skip the parser.
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

/// Prints an error; with `--json`, also as JSON on standard output.
fn refuse(error: &Error) -> u8 {
    if std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json") {
        let answer = serde_json::json!({ "error": error.chain(), "hint": error.hint_text() });
        let _ = print::out(sanitize::json(format!("{answer}\n"))); // a program that does not read it has the exit code
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

/// Cancels a run, with a note if that takes a while: the driver lets the workers end and commits their work.
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

/// Prints the status for a shell prompt, which must not show errors: without a repository or run it is empty.
fn short_status(run: Option<&str>) -> Result<u8> {
    let status = Site::open(None).and_then(|site| app::status(&site, run));
    print::out(status.map_or_else(|_| String::new(), |status| porcelain::short(&status))).map(|_| 0)
}

/// Prints a role's prompt or the names of all roles, or writes the built-in prompts to files.
fn prompts(site: &Site, role: Option<&str>, dump: Option<&std::path::Path>) -> Result<u8> {
    let text = match (dump, role) {
        (Some(dir), _) => app::dump_prompts(dir)?.iter().map(|made| made.display().to_string() + "\n").collect(),
        (None, Some(role)) => app::prompt(site, role)?,
        (None, None) => Role::ALL.map(Role::name).join("\n") + "\n",
    };
    print::out(text)?;
    Ok(0)
}

/// Runs the checks, also outside of a repository, which is then one of the findings.
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

/// Runs as the driver of a detached run; the request comes on standard input.
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
