//! `sync`.

use std::fmt::Write as _;

use super::args::SyncArgs;
use super::{sanitize, say};
use crate::app::{self, Site, SyncReport};
use crate::error::Result;
use crate::run::goal::RunId;

/// Exchanges runs with a remote. Exits with 1 where a run went on in two places, or the remote did not take something.
///
/// # Errors
/// Where the remote is unknown or cannot be reached.
pub fn sync(site: &Site, arguments: &SyncArgs) -> Result<u8> {
    let report = app::sync(site, arguments.remote.as_deref(), arguments.output)?;
    say(arguments.json, &report, || Ok(text(&report)))?;
    Ok(u8::from(!report.diverged.is_empty() || !report.refused.is_empty()))
}

fn text(report: &SyncReport) -> String {
    let mut text = String::new();
    let mut line = |what: &str, runs: &[RunId]| {
        for run in runs {
            let _ = writeln!(text, "{what:<8} {run}");
        }
    };
    line("fetched", &report.fetched);
    line("updated", &report.updated);
    line("pushed", &report.pushed);
    for kept in &report.kept {
        let _ = writeln!(text, "kept     {kept}");
    }
    for run in &report.diverged {
        let _ = writeln!(
            text,
            "diverged {}: it went on here ({}) and there ({}); both are kept",
            run.run_id, run.here, run.there
        );
    }
    for refused in &report.refused {
        let _ = writeln!(text, "refused  {}: {}", refused.name, sanitize::line(&refused.reason));
        if let Some(branch) =
            refused.name.strip_prefix("refs/heads/").filter(|_| refused.reason.contains("fast-forward"))
        {
            let remote = sanitize::line(&report.remote);
            let _ = writeln!(text, "         'git push --force-with-lease {remote} {branch}' puts yours in its place");
        }
    }
    if let Some(remote) = &report.output {
        let _ = writeln!(text, "output   with {}", sanitize::line(remote));
    }
    if text.is_empty() {
        text = format!("nothing to exchange with {}\n", sanitize::line(&report.remote));
    }
    text
}
