//! Implements each verb as one function. Only this module picks implementations; `cli` and `mcp` call these functions and
//! print.

mod authority;
mod before;
mod bisect;
mod detach;
mod doctor;
mod drive;
mod fork;
mod hooked;
mod leftovers;
mod live;
mod merge;
mod nested;
mod new_run;
mod read;
mod removal;
mod replay;
mod restore;
mod review;
mod share;
mod site;
mod unknown;
mod watch;

use std::path::Path;

pub use self::bisect::{Bisected, Tried, bisect};
pub use self::detach::{answer_detached, cancel_detached, drive, resume_detached, run_detached};
pub use self::doctor::{Cwd, Doctor, Finding, Health, doctor, examined_backends};
pub use self::drive::{Drive, answer, cancel, resume, run};
pub use self::fork::{Fork, fork};
pub use self::hooked::{carry_events, name_merged, name_squashed, push_records};
pub use self::live::{change_live, steer};
pub use self::merge::{Merge, Way, merge, merge_with_agent, unfit};
pub use self::nested::{refuse_nested, worker_of};
pub use self::new_run::{NewRun, notices};
pub use self::read::{Listed, Transcript, branch_here, list, listed, output, resolve, result, set_aside, status, tail};
pub use self::removal::{Prunable, Removal, discard, prune};
pub use self::restore::{Restored, restore};
pub use self::review::{
    Diff, History, MergePreview, Shown, ShownIteration, Span, diff, history, merge_preview, show, span,
};
pub use self::share::{Diverged, Refused, SyncReport, sync};
pub use self::site::{Site, branch, now};
pub use self::unknown::{NoSetting, unknown_settings};
pub use self::watch::{LOOK, ListWatcher, Watcher};
use crate::agent::prompts::Prompts;
use crate::agent::registry::BackendView;
pub use crate::engine::{Unwatched, Watch};
use crate::error::{Error, Result};
pub(crate) use crate::ledger::git::Git;
pub use crate::ledger::git::preview::FileStat;
pub use crate::options::Changes;
use crate::run::goal::Role;

/// Lists the backends, built in and configured by the user.
pub fn backends(site: &Site) -> Result<Vec<BackendView>> {
    Ok(site.registry().list())
}

/// Returns the default backend as it is set, and the one that `auto` resolves to here.
#[must_use]
pub fn default_backend(site: &Site) -> (String, Option<String>) {
    let set = site.settings().agent().map(|choice| choice.to_string()).unwrap_or_default();
    if set.is_empty() || set == "auto" {
        return ("auto".to_owned(), site.registry().auto().ok());
    }
    (set.clone(), Some(set))
}

/// Returns the system prompt of `role`: the user's text if there is one, else the built-in one.
pub fn prompt(site: &Site, role: &str) -> Result<String> {
    // The name of a flag is taken too, for the last of its roles: `planner` is the decomposer.
    let chosen = Role::CHOICES.iter().find(|(flag, _)| *flag == role).and_then(|(_, roles)| roles.last().copied());
    let known = Role::ALL.into_iter().find(|known| known.name() == role).or(chosen).ok_or_else(|| {
        let names = Role::ALL.map(Role::name).join(", ");
        Error::usage(format!("there is no role '{role}'")).hint(format!("the roles are {names}"))
    })?;
    Ok(Prompts::load(site.settings().prompts()?.as_deref())?.system(known).to_owned())
}

/// Writes the built-in prompts to `dir`, to be edited there, and returns the files that were created.
pub fn dump_prompts(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    Prompts::dump(dir)
}
