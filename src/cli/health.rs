//! Formats the list of backends and the report of `doctor`.

use std::fmt::Write as _;

use super::render::table;
use crate::agent::probe::{Examined, LoggedIn};
use crate::app::{Doctor, Health};
use crate::run::sanitize::line;

/// Formats the backends as a table, with hints below it for those that cannot be used.
#[must_use]
pub fn backends(backends: &[Examined]) -> String {
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    let row = |one: &Examined| {
        let login = match one.login {
            LoggedIn::Yes => "yes",
            LoggedIn::No => "no",
            LoggedIn::Unknown => "?",
        };
        let can = [
            (one.can.edit_files, "edits"),
            (one.can.run_commands, "commands"),
            (one.can.resume, "sessions"),
            (one.can.usage, "usage"),
            (one.can.cost, "cost"),
        ];
        let can: Vec<&str> = can.into_iter().filter(|(can, _)| *can).map(|(_, word)| word).collect();
        vec![
            line(&one.backend.name),
            yes(one.backend.installed),
            one.version.as_deref().map_or_else(|| "-".to_owned(), line),
            login.to_owned(),
            can.join(" "),
            line(one.backend.path.as_deref().unwrap_or(&one.backend.detail)),
        ]
    };
    let mut text =
        table(&["NAME", "INSTALLED", "VERSION", "LOGIN", "CAN", "WHERE"], backends.iter().map(row).collect());
    for one in backends {
        let name = line(&one.backend.name);
        for note in one.note.iter().chain(one.hint.iter().filter(|_| one.backend.installed)) {
            let _ = writeln!(text, "{name}: {}", line(note));
        }
    }
    text
}

/// Formats the findings, one per line, with their hints.
#[must_use]
pub fn doctor(found: &Doctor) -> String {
    let mut text = format!("git-agentloop {}\n", found.version);
    for finding in &found.checks {
        let state = match finding.state {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Failed => "FAILED",
        };
        let _ = writeln!(text, "{state:8} {:10} {}", finding.name, line(&finding.detail));
        if let Some(hint) = &finding.hint {
            let _ = writeln!(text, "{:19} {}", "", line(hint));
        }
    }
    let _ = write!(text, "\n{}", backends(&found.backends));
    text
}
