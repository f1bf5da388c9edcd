//! Short-lived programs that belong to no call, such as git.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, Output, Stdio};

use super::mark::{CALL_VAR, CLONE_VAR, RUN_VAR};
use super::{environment, tree};
use crate::error::{Error, Result};

/// Returns a command in a process group of its own, so that Ctrl-C does not end it half-way, without git's local environment
/// and without input.
#[must_use]
pub fn quiet(program: impl AsRef<OsStr>) -> Command {
    use std::os::unix::process::CommandExt as _;
    let mut command = without(environment::git_env_to_remove(), program);
    command.process_group(0);
    command
}

/// Returns a command without input and without these variables.
fn without(names: impl IntoIterator<Item: AsRef<OsStr>>, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for name in names {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// Marks the processes of `command` as belonging to `run` in one clone, so that they are stopped with the other processes
/// that a dead driver of the run left.
pub fn works_for<'a>(command: &'a mut Command, run: &str, clone: &str) -> &'a mut Command {
    command.env(RUN_VAR, run).env(CLONE_VAR, clone)
}

/// Returns a command that is to outlive this process in a session that it makes itself: it leads no group yet, as setsid(2)
/// requires, and carries no run's mark, so that it is not taken for a leftover of the run. It inherits the settings of `git
/// -c`.
#[must_use]
pub fn outliving(program: impl AsRef<OsStr>) -> Command {
    let mut command = without(environment::git_locations(), program);
    command.env_remove(RUN_VAR).env_remove(CALL_VAR).env_remove(CLONE_VAR);
    command
}

/// Starts `command`, which belongs to no call.
pub fn spawn_aside(command: &mut Command) -> io::Result<Child> {
    tree::spawn_unowned(|| {
        command.spawn().map(|child| {
            let id = child.id();
            (child, id)
        })
    })
    .map(|(child, _)| child)
}

/// Runs `command` to its end and returns its output.
pub fn output(command: &mut Command) -> io::Result<Output> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    spawn_aside(command)?.wait_with_output()
}

/// Sends SIGTERM to a process; one that has ended is no error.
pub fn terminate(pid: u32) -> Result<()> {
    let Some(process) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return Ok(()) };
    let sent = rustix::process::kill_process(process, rustix::process::Signal::TERM)
        // A stopped process acts on the signal only when it continues.
        .and_then(|()| rustix::process::kill_process(process, rustix::process::Signal::CONT));
    match sent {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Error::failed(format!("process {pid} cannot be told to stop")).because(error)),
    }
}

/// Returns a command that inherits this process's environment, terminal and working directory.
#[must_use]
pub fn in_our_place(program: impl AsRef<OsStr>) -> Command {
    Command::new(program)
}

/// Replaces this process with `command`; returns only if that fails.
#[must_use]
pub fn become_program(command: &mut Command) -> Error {
    use std::os::unix::process::CommandExt as _;
    let program = command.get_program().to_string_lossy().into_owned();
    Error::failed(format!("'{program}' cannot be started")).because(command.exec())
}
