//! Short-lived programs that are tools of ours and no call's: git.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, Output, Stdio};

use super::mark::{CALL_VAR, CLONE_VAR, RUN_VAR};
use super::{environment, tree};
use crate::error::{Error, Result};

/// A program in a process group of its own, so that a Ctrl-C meant for us does not end it half-way, without git's local
/// environment, reading nothing.
#[must_use]
pub fn quiet(program: impl AsRef<OsStr>) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = without(environment::git_env_to_remove(), program);
    command.process_group(0);
    command
}

/// A program that reads nothing, and hears nothing of these variables.
fn without(names: impl IntoIterator<Item: AsRef<OsStr>>, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in names {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Marks what `command` starts as working for `run` in one clone, so that it is stopped with what else a dead driver of it
/// left.
pub fn works_for<'a>(command: &'a mut Command, run: &str, clone: &str) -> &'a mut Command {
    command.env(RUN_VAR, run).env(CLONE_VAR, clone)
}

/// A program that is to outlive us in a session that it makes itself: it leads no group yet, which setsid(2) asks for,
/// and carries no run's mark, so that nobody takes it for something that a run left behind. What `git -c` set for us holds
/// for it too.
#[must_use]
pub fn outliving(program: impl AsRef<OsStr>) -> Command {
    let mut command = without(environment::git_places(), program);
    command.env_remove(RUN_VAR).env_remove(CALL_VAR).env_remove(CLONE_VAR);
    command
}

/// Starts it; it is not taken for something that a call left behind.
pub fn spawn_aside(command: &mut Command) -> io::Result<Child> {
    tree::detach(|| {
        command.spawn().map(|child| {
            let id = child.id();
            (child, id)
        })
    })
    .map(|(child, _)| child)
}

/// Runs it to its end and returns what it printed.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn_aside(command)?.wait_with_output()
}

/// Asks a process of ours to come to its end.
pub fn terminate(pid: u32) -> Result<()> {
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
    let told = rustix::process::kill_process(process, rustix::process::Signal::TERM)
        // One that was stopped hears of it only when it goes on.
        .and_then(|()| rustix::process::kill_process(process, rustix::process::Signal::CONT));
    match told {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Error::failed(format!("process {pid} cannot be told to stop")).because(error)),
    }
}

/// A program that talks to the user in our place: it has our environment, our terminal and our working directory.
#[must_use]
pub fn in_our_place(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Becomes `command`; returns only where that fails.
#[must_use]
pub fn become_program(command: &mut Command) -> Error {
    use std::os::unix::process::CommandExt as _;
    let program = command.get_program().to_string_lossy().into_owned();
    Error::failed(format!("'{program}' cannot be started")).because(command.exec())
}
