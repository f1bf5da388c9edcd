//! The user's pager, as git would use it.

use std::io::{ErrorKind, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::print;
use crate::app::Git;
use crate::error::{Context as _, Result};
use crate::process;
use crate::run::sanitize;

/// Lines that every terminal shows at once.
pub const SCREEN: usize = 23;

/// Where a long answer goes: through the pager where a person reads, straight to standard output otherwise.
pub enum Pager {
    /// Nobody pages.
    Off,
    /// The pager, reading.
    On(Child, Option<ChildStdin>),
}

impl Pager {
    /// The pager that git's settings name (`GIT_PAGER`, `core.pager`, `PAGER`, git-var(1)). `git --no-pager` and
    /// `pager.agentloop=false` reach us as a `GIT_PAGER` of `cat`.
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

    /// Shows `text`; `false` where nobody reads any more.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn show(&mut self, text: &str) -> Result<bool> {
        let Self::On(_, Some(stdin)) = self else { return print::out(text) };
        match stdin.write_all(sanitize::shown(text).as_bytes()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("the pager cannot be written to"),
        }
    }

    /// Has `git` print to where this goes, in the colours of the user's settings.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn run(&mut self, mut git: Command) -> Result<()> {
        if let Self::On(_, Some(stdin)) = self {
            let copy = std::os::fd::AsFd::as_fd(stdin).try_clone_to_owned().context("the pager cannot be shared")?;
            // Set for what prints into a pager: git then colours as for a terminal (git-config(1), color.pager).
            git.stdout(copy).env("GIT_PAGER_IN_USE", "true");
        }
        git.status().map(|_| ()).context("git cannot be started")
    }

    /// Waits until the person has read.
    pub fn close(self) {
        if let Self::On(mut child, stdin) = self {
            drop(stdin);
            let _ = child.wait();
        }
    }
}
