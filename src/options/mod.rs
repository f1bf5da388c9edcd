//! Options and settings: flag > environment > `git config agentloop.*` > default, from one table.
//!
//! A surface reads what it is given into [`Changes`]; [`Settings::options`] adds what the user has set, and the defaults.

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
    /// The changes with their paths, which were given in `folder`, as they are written at the top level.
    pub fn seen_from(mut self, folder: &Folder) -> Result<Self, Wrong> {
        if let Some(protect) = &mut self.protect {
            for pathspec in protect {
                *pathspec = pathspec::from_top(folder, pathspec)?;
            }
        }
        Ok(self)
    }
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An environment variable.
    Environment,
    /// git's configuration.
    Config,
    /// The table.
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

/// An option or a setting as the user has set it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Its key in git's configuration.
    pub key: &'static str,
    /// Its values; more than one only where it may be set several times, none where nothing is set.
    pub values: Vec<String>,
    /// Where they come from.
    pub origin: Origin,
    /// Its environment variable.
    pub env: &'static str,
    /// What it is.
    pub meaning: &'static str,
}

/// What the user has set, as it was read; a value is parsed when it is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    all: Vec<Setting>,
    home: Option<PathBuf>,
}

impl Settings {
    /// Reads every entry: `config` gives a key's values in git's configuration, the strongest last; `env` a variable.
    ///
    /// An empty variable is one that is not set. As in git, an empty value in the configuration clears those before it.
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

    /// Every setting, in the order of the table.
    #[must_use]
    pub fn all(&self) -> &[Setting] {
        &self.all
    }

    /// The options of a run: those that are `given`, else what the user has set.
    pub fn options(&self, given: &Changes) -> Result<Options> {
        let mut all = given.clone();
        for entry in TABLE {
            // The model that goes with the agent is stronger than the one that is set for any agent.
            let has_model = entry.id == Id::Model && all.agent.as_ref().is_some_and(|agent| agent.model.is_some());
            let setting = self.of(entry.id);
            if !has_model && !all.has(entry.id) && !setting.values.is_empty() {
                all.set(entry.id, &setting.values).map_err(|wrong| bad(setting, &wrong))?;
            }
        }
        let mut options = Options::default();
        all.write(&mut options);
        Ok(options)
    }

    /// Who answers, with the model where the setting names one; `auto` picks.
    pub fn agent(&self) -> Result<AgentChoice> {
        self.get(Id::Backend).map(Option::unwrap_or_default)
    }

    /// Who answers a role instead.
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

    /// Where workers work.
    pub fn isolation(&self) -> Result<Isolation> {
        self.get(Id::Isolation).map(Option::unwrap_or_default)
    }

    /// The checks, in order.
    pub fn verify(&self) -> Result<Vec<Check>> {
        self.get(Id::Verify).map(Option::unwrap_or_default)
    }

    /// How long one call of an agent may take.
    pub fn timeout(&self) -> Result<Option<Seconds>> {
        self.get(Id::Timeout)
    }

    /// How long a run may take.
    pub fn max_seconds(&self) -> Result<Option<Seconds>> {
        self.get(Id::MaxSeconds)
    }

    /// How long one check may take.
    pub fn verify_timeout(&self) -> Result<Option<Seconds>> {
        self.get(Id::VerifyTimeout)
    }

    /// Files that workers may not change, as git pathspecs.
    #[must_use]
    pub fn protect(&self) -> Vec<String> {
        self.of(Id::Protect).values.clone()
    }

    /// Ignored files that new worktrees get from the user's checkout, as patterns of gitignore(5).
    #[must_use]
    pub fn copy(&self) -> Vec<String> {
        self.of(Id::Copy).values.clone()
    }

    /// Commands that are run once in each new worktree, in order.
    pub fn setup(&self) -> Result<Vec<Check>> {
        self.get(Id::Setup).map(Option::unwrap_or_default)
    }

    /// How long one setup command may take.
    pub fn setup_timeout(&self) -> Result<Option<Seconds>> {
        self.get(Id::SetupTimeout)
    }

    /// Files whose change has the setup run again before checks, as globs; empty where that is left to us.
    #[must_use]
    pub fn setup_on(&self) -> Vec<String> {
        self.of(Id::SetupOn).values.clone()
    }

    /// Whether ignored files are removed before checks, and the HOME that checks have.
    pub fn checks_alone(&self) -> Result<(bool, Home)> {
        Ok((self.get(Id::CheckClean)?.unwrap_or(false), self.get(Id::CheckHome)?.unwrap_or_default()))
    }

    /// How runs are kept.
    pub fn preferences(&self) -> Result<Preferences> {
        Ok(Preferences {
            durability: self.get(Id::Durable)?.unwrap_or_default(),
            cleanup: self.get(Id::Cleanup)?.unwrap_or_default(),
            output: self.get(Id::Output)?.unwrap_or_default(),
            sign: self.get(Id::Sign)?.unwrap_or(false),
            worktree_dir: self.path(Id::WorktreeDir)?,
        })
    }

    /// Whether a worker may start runs.
    pub fn allow_nested(&self) -> Result<bool> {
        Ok(self.get(Id::AllowNested)?.unwrap_or(false))
    }

    /// Whether the pre-push hook sends the records of what is pushed.
    pub fn push_notes(&self) -> Result<bool> {
        Ok(self.get(Id::PushNotes)?.unwrap_or(true))
    }

    /// Where transcripts are sent, where that is another place than the runs'.
    #[must_use]
    pub fn output_remote(&self) -> Option<String> {
        self.of(Id::OutputRemote).values.last().map(|value| value.trim().to_owned())
    }

    /// A folder of prompts that replace the built-in ones.
    pub fn prompts(&self) -> Result<Option<PathBuf>> {
        match self.path(Id::Prompts)? {
            Some(path) if !path.is_dir() => {
                Err(bad(self.of(Id::Prompts), &Wrong::new(&path.to_string_lossy(), "a folder that exists")))
            }
            path => Ok(path),
        }
    }

    /// Bytes of an iteration's diff that the reviewer sees.
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
        T::read(&setting.values).map(Some).map_err(|wrong| bad(setting, &wrong))
    }

    /// A leading `~/` is the home directory, as in git's own path settings.
    fn path(&self, id: Id) -> Result<Option<PathBuf>> {
        let Some(text) = self.get::<String>(id)? else { return Ok(None) };
        let below_home = text.strip_prefix("~/").and_then(|rest| Some(self.home.as_ref()?.join(rest)));
        Ok(Some(below_home.unwrap_or_else(|| PathBuf::from(text))))
    }
}

fn bad(setting: &Setting, wrong: &Wrong) -> Error {
    let (place, mend) = match setting.origin {
        Origin::Environment => (format!("the variable {}", setting.env), format!("unset {}", setting.env)),
        Origin::Config | Origin::Default => {
            (format!("'git config {}'", setting.key), format!("git config --unset-all {}", setting.key))
        }
    };
    Error::usage(wrong.of(&place))
        .hint(format!("'{mend}' takes it away; 'git agentloop config' shows every setting and where it comes from"))
}

/// The lines of a variable that hold anything: several checks are a line each.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests;
