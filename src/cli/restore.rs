//! `restore`.

use super::args::RestoreArgs;
use super::say::say;
use crate::app::{self, Site};
use crate::error::Result;
use crate::run::sanitize;

/// Reverts a discard or a prune.
pub fn restore(site: &Site, arguments: &RestoreArgs) -> Result<u8> {
    let restored = app::restore(site, arguments.run.as_deref())?;
    say(arguments.json, &restored, || {
        let refs = restored.refs.iter().map(|name| format!("  {name}\n"));
        let submodules = restored.submodules.iter().map(|words| format!("  {}\n", sanitize::line(words)));
        Ok(format!("restored {}\n", restored.run_id) + &refs.chain(submodules).collect::<String>())
    })
}
