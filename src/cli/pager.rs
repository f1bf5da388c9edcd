//! Runs the user's pager as git does.

use std::io::{ErrorKind, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::print;
use crate::app::Git;
use crate::error::{Context as _, Result};
use crate::process;
use crate::run::sanitize;

/// Number of lines that fit any terminal.
pub const SCREEN: usize = 23;

/// Output of a long answer: the pager if standard output is a terminal, else standard output.
pub enum Pager {
    /// No pager: text goes to standard output.
    Off,
    /// The pager's process and its standard input.
    On(Child, Option<ChildStdin>),
}

impl Pager {
    /// Starts the pager that git's settings name (`GIT_PAGER`, `core.pager`, `PAGER`, git-var(1)). `git --no-pager` and
    /// `pager.agentloop=false` reach this program as a `GIT_PAGER` of `cat`.
    pub fn start() -> Self {
        if !print::person_reads() {
            return Self::Off;
        }
        let named = Git::as_user("var").arg("GIT_PAGER").into_command().output();
        let named = named.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
        if named.is_empty() || named == "cat" {
            return Self::Off;
        }
        // git-config(1) on core.pager: the value is for a shell, and these two are set where the user has not set them.
        let mut pager = process::in_our_place("sh");
        pager.args(["-c", &named]).stdin(Stdio::piped());
        for (name, value) in [("LESS", "FRX"), ("LV", "-c")] {
            if std::env::var_os(name).is_none() {
                pager.env(name, value);
            }
        }
        match pager.spawn() {
            Ok(mut child) => {
                let stdin = child.stdin.take();
                Self::On(child, stdin)
            }
            Err(_) => Self::Off,
        }
    }

    /// Shows `text`; returns `false` if the pager has quit.
    pub fn show(&mut self, text: &str) -> Result<bool> {
        let Self::On(_, Some(stdin)) = self else { return print::out(text) };
        match stdin.write_all(sanitize::shown(text).as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("the pager cannot be written to"),
        }
    }

    /// Runs `git` with its output in the pager, coloured by the user's settings.
    pub fn run(&mut self, mut git: Command) -> Result<()> {
        if let Self::On(_, Some(stdin)) = self {
            let copy = std::os::fd::AsFd::as_fd(stdin).try_clone_to_owned().context("the pager cannot be shared")?;
            // Set for what prints into a pager: git then colours as for a terminal (git-config(1), color.pager).
            git.stdout(copy).env("GIT_PAGER_IN_USE", "true");
        }
        git.status().map(|_| ()).context("git cannot be started")
    }

    /// Waits until the user quits the pager.
    pub fn close(self) {
        if let Self::On(mut child, stdin) = self {
            drop(stdin);
            let _ = child.wait();
        }
    }
}
