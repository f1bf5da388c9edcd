//! Actions of the hooks, when git calls them.

use std::io::Read as _;
use std::path::Path;

use crate::app::{self, Site};
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::rewrite;
use crate::run::sanitize;

/// Exit code of a hook that makes git stop; after any other failure git continues.
const REFUSED: u8 = 113;

/// Performs the hook of `event`, called with `arguments`, and returns its exit code.
///
/// On an error git continues all the same.
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
    // A ref's name may be any bytes; one that is not UTF-8 is not a run's.
    Ok(String::from_utf8_lossy(&text).into_owned())
}
