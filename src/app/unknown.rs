//! Finds keys and variables that look like settings but are unknown.

use super::site::Site;
use crate::error::alike;
use crate::options::TABLE;

/// An unknown setting; neither git nor the shell reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSetting {
    /// The warning.
    pub said: String,
    /// The command that removes it.
    pub undo: String,
}

/// Lists unknown keys in `[agentloop]` of git's configuration, and environment variables whose names resemble a setting's.
#[must_use]
pub fn unknown_settings(site: &Site) -> Vec<NoSetting> {
    let known: Vec<(String, &str)> =
        TABLE.iter().map(|entry| (entry.key["agentloop.".len()..].to_ascii_lowercase(), entry.key)).collect();
    let is_known = |name: &String| known.iter().any(|(lower, _)| lower == name);
    let keys = site.repo.config_keys("agentloop").into_iter().filter(|name| !is_known(name)).map(|name| {
        let alike = alike(&name, known.iter().map(|(lower, _)| lower.as_str()));
        let meant = alike.and_then(|alike| known.iter().find(|(lower, _)| lower == alike));
        let meant = meant.map_or_else(String::new, |(_, key)| format!(": did you mean '{key}'?"));
        NoSetting {
            said: format!("'agentloop.{name}' in git's configuration is no setting{meant}"),
            undo: format!("git config --unset-all agentloop.{name}"),
        }
    });
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = set.filter(|name| name.starts_with("AGENTLOOP_") && TABLE.iter().all(|entry| entry.env != *name));
    // Other variables with this prefix may belong to other programs; workers get some, too.
    let variables = unknown.filter_map(|name| {
        let meant = alike(&name, TABLE.iter().map(|entry| entry.env))?;
        let said = format!("the environment variable {name} is no setting: did you mean {meant}?");
        Some(NoSetting { said, undo: format!("unset {name}") })
    });
    keys.chain(variables).collect()
}
