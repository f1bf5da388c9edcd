//! The one way in which git itself is run: for what gix has not.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use super::repository::Repository;
use super::run_dir;
use crate::error::{Error, Result};
use crate::process;
use crate::run::goal::RunId;

/// No hooks of the user's on refs and commits of ours, neither from a folder nor, since git 2.54, from configuration.
pub(super) const NO_HOOKS: [&str; 8] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "hook.reference-transaction.enabled=false",
    "-c",
    "hook.post-checkout.enabled=false",
    "-c",
    "hook.post-index-change.enabled=false",
];

/// git with nothing of the caller's environment that could point it elsewhere, no hooks, no prompts, no signatures.
pub(super) fn plumbing() -> Command {
    let mut git = process::quiet("git");
    git.env("LC_ALL", "C")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "true")
        .env("SSH_ASKPASS", "true")
        .env("GIT_EDITOR", "true")
        .args(NO_HOOKS)
        .args(["-c", "core.fsmonitor=false", "-c", "commit.gpgSign=false"])
        // Submodules are filled and followed by us: git would look for clones that a worktree does not have.
        .args(["-c", "submodule.recurse=false"])
        // What git's log finds and prints is read here.
        .args(["-c", "grep.patternType=default", "-c", "log.showSignature=false"])
        .args(["-c", "advice.addEmbeddedRepo=false", "-c", "core.safecrlf=false", "-c", "gc.auto=0"]);
    git
}

/// git in `dir`.
pub(super) fn git(dir: &Path) -> Command {
    let mut git = plumbing();
    git.arg("-C").arg(dir);
    git
}

/// Marks it as working for `run`: git goes on when its driver is killed, and is stopped before another begins.
pub(super) fn works_for<'a>(git: &'a mut Command, repo: &Repository, run: &RunId) -> &'a mut Command {
    process::works_for(git, run.as_str(), &process::clone_of(&run_dir(repo.common_dir(), run)))
}

/// Runs it; its output, whatever its status.
pub(super) fn output(git: &mut Command) -> Result<Output> {
    process::output(git).map_err(cannot_start)
}

/// The same with `input` to read.
pub(super) fn output_of_input(git: &mut Command, input: Vec<u8>) -> Result<Output> {
    git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = process::spawn_aside(git).map_err(cannot_start)?;
    let stdin = child.stdin.take();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(&input))); // one that does not read it all says why
        child.wait_with_output().map_err(cannot_start)
    })
}

/// Runs it; what it printed. A status other than 0 is an error with git's own words.
pub(super) fn run(git: &mut Command) -> Result<Vec<u8>> {
    let output = output(git)?;
    printed(git, output)
}

/// The same with `input` to read.
pub(super) fn run_on_input(git: &mut Command, input: Vec<u8>) -> Result<Vec<u8>> {
    let output = output_of_input(git, input)?;
    printed(git, output)
}

fn printed(git: &Command, output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(failure(&name(git), output.status, &String::from_utf8_lossy(&output.stderr)))
}

/// Runs it; the one word that it printed.
pub(super) fn word(git: &mut Command) -> Result<String> {
    run(git).map(|printed| the_word(&printed))
}

/// The same with `input` to read.
pub(super) fn word_of_input(git: &mut Command, input: Vec<u8>) -> Result<String> {
    run_on_input(git, input).map(|printed| the_word(&printed))
}

fn the_word(printed: &[u8]) -> String {
    String::from_utf8_lossy(printed).trim_end().to_owned()
}

/// `git write-tree` and the like: the first word that is a subcommand.
fn name(git: &Command) -> String {
    let words: Vec<&OsStr> = git.get_args().collect();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match word.to_str() {
            Some("-c" | "-C" | "--git-dir" | "--work-tree") => {
                rest.next();
            }
            Some(word) if !word.starts_with('-') => return format!("git {word}"),
            _ => {}
        }
    }
    "git".to_owned()
}

pub(super) fn cannot_start(error: std::io::Error) -> Error {
    let error = Error::failed("git cannot be started").because(error);
    error.hint("install git 2.39 or newer, and see that it is on PATH")
}

/// A failed git command, its own words as the cause, with what to do where the reason is a common one.
pub(super) fn failure(what: &str, status: ExitStatus, stderr: &str) -> Error {
    let said = stderr.trim();
    let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
    let error = Error::failed(format!("{what} failed ({code})"));
    if said.is_empty() { error } else { error.because(said.to_owned()) }
}
