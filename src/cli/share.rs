//! `sync`.

use std::fmt::Write as _;

use super::args::SyncArgs;
use super::say::say;
use crate::app::{self, Diverged, Site, SyncReport};
use crate::error::Result;
use crate::run::goal::RunId;
use crate::run::sanitize;

/// Exchanges runs with a remote. Exits with 1 if a run advanced in two places or the remote rejected a ref.
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
    let remote = sanitize::line(&report.remote);
    for Diverged { run_id, here, there } in &report.diverged {
        let _ = writeln!(
            text,
            "diverged {run_id}: it went on here ({here}) and there ({there}); both are kept, and here all verbs read yours\n         \
             for yours: git push --force {remote} agentloop/{run_id} {here}\n         \
             for theirs, yours put aside: git agentloop discard {run_id} --yes && git agentloop sync {remote}"
        );
    }
    for run in &report.discarded {
        let _ = writeln!(
            text,
            "discarded {run}: it stays so, and {remote} still has it\n         \
             to remove it there: git push {remote} --delete agentloop/{run} refs/notes/agentloop/{run}\n         \
             to have it back: 'git agentloop show {run}' says how"
        );
    }
    for refused in &report.refused {
        let _ = writeln!(text, "refused  {}: {}", refused.name, sanitize::line(&refused.reason));
        if let Some(branch) =
            refused.name.strip_prefix("refs/heads/").filter(|_| refused.reason.contains("fast-forward"))
        {
            let _ = writeln!(text, "         'git push --force-with-lease {remote} {branch}' puts yours in its place");
        }
    }
    if let Some(remote) = &report.output {
        let _ = writeln!(text, "output   with {}", sanitize::line(remote));
    }
    if text.is_empty() {
        text = format!("nothing to exchange with {remote}\n");
    }
    text
}
