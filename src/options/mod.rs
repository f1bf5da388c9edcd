//! Options and settings: flag > environment > `git config agentloop.*` > default, from one table.
//!
//! A surface reads its input into [`Changes`]; [`Settings::options`] adds the user's settings and the defaults.

pub mod command;
pub mod pathspec;
mod table;
mod value;
mod wrong;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

pub use self::table::{Argument, Changes, Entry, Flag, Id, TABLE, When};
pub use self::value::{Kind, Value};
pub use self::wrong::Wrong;
use crate::error::{Error, Result};
use crate::ledger::{Home, Preferences};
use crate::run::amount::Seconds;
use crate::run::folder::Folder;
use crate::run::goal::{AgentChoice, Check, Isolation, Options, Role};

impl Changes {
    /// Rewrites the paths, which are relative to `folder`, to be relative to the top level.
    pub fn seen_from(mut self, folder: &Folder) -> Result<Self, Wrong> {
        if let Some(protect) = &mut self.protect {
            for pathspec in protect {
                *pathspec = pathspec::from_top(folder, pathspec)?;
            }
        }
        Ok(self)
    }
}

/// The origin of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An environment variable.
    Environment,
    /// git's configuration.
    Config,
    /// The default in the table.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "environment",
            Self::Config => "git config",
            Self::Default => "default",
        })
    }
}

/// The value of an option or a setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Key in git's configuration.
    pub key: &'static str,
    /// Values; more than one only if it may be set several times, none if nothing is set.
    pub values: Vec<String>,
    /// Origin of the values.
    pub origin: Origin,
    /// Environment variable.
    pub env: &'static str,
    /// Meaning, in a line.
    pub meaning: &'static str,
}

/// The user's settings, as texts; a value is parsed when it is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    all: Vec<Setting>,
    home: Option<PathBuf>,
}

impl Settings {
    /// Reads every entry: `config` returns a key's values in git's configuration, the strongest last; `env` returns a
    /// variable.
    ///
    /// An empty variable counts as not set. As in git, an empty value in the configuration clears those before it.
    pub fn new(config: impl Fn(&str) -> Vec<String>, env: impl Fn(&str) -> Option<String>) -> Self {
        let read = |entry: &Entry| {
            let from_env: Vec<String> =
                env(entry.env).iter().flat_map(|text| lines(text)).map(ToOwned::to_owned).collect();
            let from_config = || {
                let values = config(entry.key);
                let cleared = values.iter().rposition(|value| value.trim().is_empty()).map_or(0, |at| at + 1);
                values[cleared..].to_vec()
            };
            let (mut values, mut origin) = (from_env, Origin::Environment);
            if values.is_empty() {
                (values, origin) = (from_config(), Origin::Config);
            }
            if values.is_empty() {
                values = lines(entry.default).map(ToOwned::to_owned).collect();
                origin = Origin::Default;
            }
            if !entry.kind.is_several() {
                values = values.pop().into_iter().collect();
            }
            Setting { key: entry.key, values, origin, env: entry.env, meaning: entry.meaning }
        };
        Self { all: TABLE.iter().map(read).collect(), home: env("HOME").map(PathBuf::from) }
    }

    /// Returns every setting, in the order of the table.
    #[must_use]
    pub fn all(&self) -> &[Setting] {
        &self.all
    }

    /// Returns the options of a run: those that are `given`, else the user's settings.
    pub fn options(&self, given: &Changes) -> Result<Options> {
        let mut all = given.clone();
        for entry in TABLE {
            // The model that is part of the agent is stronger than the one that is set for any agent.
            let has_model = entry.id == Id::Model && all.agent.as_ref().is_some_and(|agent| agent.model.is_some());
            let setting = self.of(entry.id);
            if !has_model && !all.has(entry.id) && !setting.values.is_empty() {
                all.set(entry.id, &setting.values).map_err(|wrong| invalid_setting(setting, &wrong))?;
            }
        }
        let mut options = Options::default();
        all.write(&mut options);
        Ok(options)
    }

    /// Returns the agent, with the model if the setting names one; `auto` picks an agent.
    pub fn agent(&self) -> Result<AgentChoice> {
        self.get(Id::Backend).map(Option::unwrap_or_default)
    }

    /// Returns the agents of single roles.
    pub fn roles(&self) -> Result<BTreeMap<Role, AgentChoice>> {
        let roles = Changes {
            planner: self.get(Id::Planner)?,
            worker: self.get(Id::Worker)?,
            reviewer: self.get(Id::Reviewer)?,
            integrator: self.get(Id::Integrator)?,
            ..Changes::default()
        };
        Ok(roles.roles())
    }

    /// Returns the isolation of workers.
    pub fn isolation(&self) -> Result<Isolation> {
        self.get(Id::Isolation).map(Option::unwrap_or_default)
    }

    /// Returns the checks, in order.
    pub fn verify(&self) -> Result<Vec<Check>> {
        self.get(Id::Verify).map(Option::unwrap_or_default)
    }

    /// Returns the time limit of an agent call.
    pub fn timeout(&self) -> Result<Option<Seconds>> {
        self.get(Id::Timeout)
    }

    /// Returns the time limit of a run.
    pub fn max_seconds(&self) -> Result<Option<Seconds>> {
        self.get(Id::MaxSeconds)
    }

    /// Returns the time limit of a check.
    pub fn verify_timeout(&self) -> Result<Option<Seconds>> {
        self.get(Id::VerifyTimeout)
    }

    /// Returns the protected files, as git pathspecs.
    #[must_use]
    pub fn protect(&self) -> Vec<String> {
        self.of(Id::Protect).values.clone()
    }

    /// Returns the ignored files that new worktrees get from the user's checkout, as patterns of gitignore(5).
    #[must_use]
    pub fn copy(&self) -> Vec<String> {
        self.of(Id::Copy).values.clone()
    }

    /// Returns the setup commands of new worktrees, in order.
    pub fn setup(&self) -> Result<Vec<Check>> {
        self.get(Id::Setup).map(Option::unwrap_or_default)
    }

    /// Returns the time limit of a setup command.
    pub fn setup_timeout(&self) -> Result<Option<Seconds>> {
        self.get(Id::SetupTimeout)
    }

    /// Returns the files whose change makes the setup run again before checks, as globs; empty for the built-in list.
    #[must_use]
    pub fn setup_on(&self) -> Vec<String> {
        self.of(Id::SetupOn).values.clone()
    }

    /// Returns whether ignored files are removed before checks, and the kind of HOME that checks have.
    pub fn checks_alone(&self) -> Result<(bool, Home)> {
        Ok((self.get(Id::CheckClean)?.unwrap_or(false), self.get(Id::CheckHome)?.unwrap_or_default()))
    }

    /// Returns the preferences for keeping runs.
    pub fn preferences(&self) -> Result<Preferences> {
        Ok(Preferences {
            durability: self.get(Id::Durable)?.unwrap_or_default(),
            cleanup: self.get(Id::Cleanup)?.unwrap_or_default(),
            output: self.get(Id::Output)?.unwrap_or_default(),
            sign: self.get(Id::Sign)?.unwrap_or(false),
            worktree_dir: self.path(Id::WorktreeDir)?,
        })
    }

    /// True if a worker may start runs.
    pub fn allow_nested(&self) -> Result<bool> {
        Ok(self.get(Id::AllowNested)?.unwrap_or(false))
    }

    /// Returns whether the pre-push hook pushes the records of the runs in the pushed commits.
    pub fn push_notes(&self) -> Result<bool> {
        Ok(self.get(Id::PushNotes)?.unwrap_or(true))
    }

    /// Returns the remote for transcripts, if it is not that of the runs.
    #[must_use]
    pub fn output_remote(&self) -> Option<String> {
        self.of(Id::OutputRemote).values.last().map(|value| value.trim().to_owned())
    }

    /// Returns the folder of prompts that replace the built-in ones.
    pub fn prompts(&self) -> Result<Option<PathBuf>> {
        match self.path(Id::Prompts)? {
            Some(path) if !path.is_dir() => {
                Err(invalid_setting(self.of(Id::Prompts), &Wrong::new(&path.to_string_lossy(), "a folder that exists")))
            }
            path => Ok(path),
        }
    }

    /// Returns the length of an iteration's diff that the reviewer sees, in bytes.
    pub fn review_bytes(&self) -> Result<usize> {
        self.get(Id::ReviewBytes).map(Option::unwrap_or_default)
    }

    fn of(&self, id: Id) -> &Setting {
        &self.all[id as usize]
    }

    fn get<T: Value>(&self, id: Id) -> Result<Option<T>> {
        let setting = self.of(id);
        if setting.values.is_empty() {
            return Ok(None);
        }
        T::read(&setting.values).map(Some).map_err(|wrong| invalid_setting(setting, &wrong))
    }

    /// Returns a path setting. A leading `~/` is the home directory, as in git's own path settings.
    fn path(&self, id: Id) -> Result<Option<PathBuf>> {
        let Some(text) = self.get::<String>(id)? else { return Ok(None) };
        let below_home = text.strip_prefix("~/").and_then(|rest| Some(self.home.as_ref()?.join(rest)));
        Ok(Some(below_home.unwrap_or_else(|| PathBuf::from(text))))
    }
}

fn invalid_setting(setting: &Setting, wrong: &Wrong) -> Error {
    let (place, fix) = match setting.origin {
        Origin::Environment => (format!("the variable {}", setting.env), format!("unset {}", setting.env)),
        Origin::Config | Origin::Default => {
            (format!("'git config {}'", setting.key), format!("git config --unset-all {}", setting.key))
        }
    };
    Error::usage(wrong.of(&place))
        .hint(format!("'{fix}' takes it away; 'git agentloop config' shows every setting and where it comes from"))
}

/// Returns the non-empty lines of a variable: several checks are a line each.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests;
