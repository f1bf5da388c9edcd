//! What the hooks do, once git calls them.

use std::io::Read as _;
use std::path::Path;

use crate::app::{self, Site};
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::rewrite;
use crate::run::sanitize;

/// What a hook exits with to make git stop; whatever else goes wrong, git goes on.
const REFUSED: u8 = 113;

/// Does what is to be done at `event`, called with `arguments`; what the hook exits with.
pub fn act(event: &str, arguments: &[String]) -> Result<u8> {
    match (event, arguments) {
        ("prepare-commit-msg", [file, rest @ ..]) => {
            match rest.first().map(String::as_str) {
                Some("merge") => app::name_merged(&Site::open(None)?, Path::new(file))?,
                Some("squash") => app::name_squashed(&Site::open(None)?, Path::new(file))?,
                _ => {}
            }
            Ok(0)
        }
        ("pre-push", [remote, ..]) => {
            let site = Site::open(None)?;
            if let Some(run) = app::worker_of(Some(site.repository().common_dir())) {
                let refused = Error::usage(format!("a worker of the run {run} does not push"))
                    .hint("its work is committed by the run; you push it once you have looked at it");
                eprintln!("{}", sanitize::lines(&refused.report()));
                return Ok(REFUSED);
            }
            if site.settings().push_notes()? {
                app::push_records(&site, remote, &input()?)?;
            }
            Ok(0)
        }
        ("post-rewrite", _) => {
            let pairs = input()?;
            if rewrite::may_concern_runs(&pairs) {
                app::carry_events(&Site::open(None)?, &pairs)?;
            }
            Ok(0)
        }
        _ => Err(Error::usage(format!("'{event}' is no hook of ours, or it was called without its arguments"))
            .hint("'git agentloop hooks status' shows the lines that call them")),
    }
}

fn input() -> Result<String> {
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text).context("what git says to the hook cannot be read")?;
    // A ref's name may be any bytes, and none that is no UTF-8 is a run's.
    Ok(String::from_utf8_lossy(&text).into_owned())
}
