//! What the user has set: flag > environment > `git config agentloop.*` > default, from one table of keys.
//!
//! Flags are the command line's: it asks here for what no flag says.

mod keys;

use std::collections::BTreeMap;
use std::fmt;
use std::num::{IntErrorKind, ParseIntError};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

use self::keys::Index;
pub use self::keys::{KEYS, Key};
use crate::error::{Error, Result};
use crate::ledger::Preferences;
use crate::run::goal::{AgentChoice, Check, Isolation, Permissions, Role};

/// The longest time that may be named, in seconds (about 31 years), and the most dollars.
pub const LARGEST: f64 = 1e9;

/// What may be set several times.
const SEVERAL: [Index; 4] = [Index::Verify, Index::Protect, Index::Copy, Index::Setup];

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// An environment variable.
    Environment,
    /// git's configuration.
    Config,
    /// Nobody set it.
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

/// A setting as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
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

/// What the user has set, as it was read; a value is judged when it is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    entries: Vec<Entry>,
    home: Option<PathBuf>,
}

impl Settings {
    /// Reads every key: `config` gives a key's values in git's configuration, the strongest last; `env` a variable.
    ///
    /// An empty variable is one that is not set. As in git, an empty value in the configuration clears those before it.
    pub fn new(config: impl Fn(&str) -> Vec<String>, env: impl Fn(&str) -> Option<String>) -> Self {
        let read = |key: &Key| {
            let from_env: Vec<String> =
                env(key.env).iter().flat_map(|text| lines(text)).map(ToOwned::to_owned).collect();
            let from_config = || {
                let values = config(key.config);
                let cleared = values.iter().rposition(|value| value.trim().is_empty()).map_or(0, |at| at + 1);
                values[cleared..].to_vec()
            };
            let (mut values, mut origin) = (from_env, Origin::Environment);
            if values.is_empty() {
                (values, origin) = (from_config(), Origin::Config);
            }
            if values.is_empty() {
                values = lines(key.default).map(ToOwned::to_owned).collect();
                origin = Origin::Default;
            }
            if !SEVERAL.iter().any(|several| KEYS[*several as usize].config == key.config) {
                values = values.pop().into_iter().collect();
            }
            Entry { key: key.config, values, origin, env: key.env, meaning: key.meaning }
        };
        Self { entries: KEYS.iter().map(read).collect(), home: env("HOME").map(PathBuf::from) }
    }

    /// Every setting as it stands, in the order of the table.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Who answers, with the model where the setting names one; `auto` picks.
    ///
    /// # Errors
    /// Where the value is no agent.
    pub fn agent(&self) -> Result<AgentChoice> {
        self.parse(Index::Backend, str::parse).map(Option::unwrap_or_default)
    }

    /// Who answers a role instead.
    ///
    /// # Errors
    /// Where a value is no agent.
    pub fn roles(&self) -> Result<BTreeMap<Role, AgentChoice>> {
        let mut chosen = BTreeMap::new();
        let indices = [Index::Planner, Index::Worker, Index::Reviewer, Index::Integrator];
        for ((_, roles), index) in Role::CHOICES.iter().zip(indices) {
            if let Some(choice) = self.parse(index, str::parse::<AgentChoice>)? {
                chosen.extend(roles.iter().map(|role| (*role, choice.clone())));
            }
        }
        Ok(chosen)
    }

    /// Whether a usage limit ends a run instead of being waited out.
    ///
    /// # Errors
    /// Where the value is neither yes nor no.
    pub fn no_wait(&self) -> Result<bool> {
        Ok(self.parse(Index::NoWait, truth)?.unwrap_or(false))
    }

    /// The model, where one is named.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        self.text(Index::Model).map(ToOwned::to_owned)
    }

    /// Iterations a run may take.
    ///
    /// # Errors
    /// Where the value is not a number of at least 1.
    pub fn max_iterations(&self) -> Result<u32> {
        self.count(Index::MaxIterations, 1)
    }

    /// Further attempts at a subgoal after its first.
    ///
    /// # Errors
    /// Where the value is not a number.
    pub fn max_task_retries(&self) -> Result<u32> {
        self.count(Index::MaxTaskRetries, 0)
    }

    /// Seconds a run may take.
    ///
    /// # Errors
    /// Where the value is not a number of seconds.
    pub fn max_seconds(&self) -> Result<Option<f64>> {
        self.parse(Index::MaxSeconds, seconds)
    }

    /// Agent calls a run may make.
    ///
    /// # Errors
    /// Where the value is not a number of at least 1.
    pub fn max_agent_calls(&self) -> Result<Option<u64>> {
        self.parse(Index::MaxAgentCalls, |text| whole(text, 1..=u64::MAX))
    }

    /// Tokens a run may use, in and out together.
    ///
    /// # Errors
    /// Where the value is not a number of at least 1.
    pub fn max_tokens(&self) -> Result<Option<u64>> {
        self.parse(Index::MaxTokens, |text| whole(text, 1..=u64::MAX))
    }

    /// US dollars a run may cost.
    ///
    /// # Errors
    /// Where the value is not a number above 0.
    pub fn max_cost(&self) -> Result<Option<f64>> {
        self.parse(Index::MaxCost, dollars)
    }

    /// Seconds one agent call may take.
    ///
    /// # Errors
    /// Where the value is not a number of seconds.
    pub fn timeout(&self) -> Result<Option<f64>> {
        self.parse(Index::Timeout, seconds)
    }

    /// The checks, in order.
    ///
    /// # Errors
    /// Where a command cannot be split into words.
    pub fn verify(&self) -> Result<Vec<Check>> {
        self.commands(Index::Verify)
    }

    /// Seconds one check may take.
    ///
    /// # Errors
    /// Where the value is not a number of seconds.
    pub fn verify_timeout(&self) -> Result<Option<f64>> {
        self.parse(Index::VerifyTimeout, seconds)
    }

    /// Whether a check is run again on a tree that it passed on before.
    ///
    /// # Errors
    /// Where the value is neither yes nor no.
    pub fn recheck(&self) -> Result<bool> {
        Ok(self.parse(Index::Recheck, truth)?.unwrap_or(false))
    }

    /// Files that workers may not change, as git pathspecs.
    #[must_use]
    pub fn protect(&self) -> Vec<String> {
        self.entries[Index::Protect as usize].values.clone()
    }

    /// Whether workers may change protected files all the same.
    ///
    /// # Errors
    /// Where the value is neither yes nor no.
    pub fn allow_protected(&self) -> Result<bool> {
        Ok(self.parse(Index::AllowProtected, truth)?.unwrap_or(false))
    }

    /// Ignored files that new worktrees get from the user's checkout, as patterns of gitignore(5).
    #[must_use]
    pub fn copy(&self) -> Vec<String> {
        self.entries[Index::Copy as usize].values.clone()
    }

    /// Commands that are run once in each new worktree, in order.
    ///
    /// # Errors
    /// Where a command cannot be split into words.
    pub fn setup(&self) -> Result<Vec<Check>> {
        self.commands(Index::Setup)
    }

    /// Seconds one setup command may take.
    ///
    /// # Errors
    /// Where the value is not a number of seconds.
    pub fn setup_timeout(&self) -> Result<Option<f64>> {
        self.parse(Index::SetupTimeout, seconds)
    }

    /// What agents may do without being asked.
    ///
    /// # Errors
    /// Where the value is none of the words.
    pub fn permissions(&self) -> Result<Permissions> {
        self.word(Index::Permissions)
    }

    /// Where workers work.
    ///
    /// # Errors
    /// Where the value is none of the words.
    pub fn isolation(&self) -> Result<Isolation> {
        self.word(Index::Isolation)
    }

    /// Workers at a time.
    ///
    /// # Errors
    /// Where the value is not a number of at least 1.
    pub fn jobs(&self) -> Result<u32> {
        self.count(Index::Jobs, 1)
    }

    /// Subgoals an iteration.
    ///
    /// # Errors
    /// Where the value is not a number of at least 1.
    pub fn max_subgoals(&self) -> Result<u32> {
        self.count(Index::MaxSubgoals, 1)
    }

    /// Iterations without a change before a run is stuck; 0 is never.
    ///
    /// # Errors
    /// Where the value is not a number.
    pub fn patience(&self) -> Result<u32> {
        self.count(Index::Patience, 0)
    }

    /// How runs are kept.
    ///
    /// # Errors
    /// Where a value is none of its words.
    pub fn preferences(&self) -> Result<Preferences> {
        Ok(Preferences {
            durability: self.word(Index::Durable)?,
            cleanup: self.word(Index::Cleanup)?,
            sign: self.parse(Index::Sign, truth)?.unwrap_or(false),
            worktree_dir: self.path(Index::WorktreeDir),
        })
    }

    /// Whether a worker may start runs.
    ///
    /// # Errors
    /// Where the value is neither yes nor no.
    pub fn allow_nested(&self) -> Result<bool> {
        Ok(self.parse(Index::AllowNested, truth)?.unwrap_or(false))
    }

    /// Whether the pre-push hook sends the records of what is pushed.
    ///
    /// # Errors
    /// Where the value is neither yes nor no.
    pub fn push_notes(&self) -> Result<bool> {
        Ok(self.parse(Index::PushNotes, truth)?.unwrap_or(true))
    }

    /// Where transcripts are sent, where that is another place than the runs'.
    #[must_use]
    pub fn output_remote(&self) -> Option<String> {
        self.text(Index::OutputRemote).map(ToOwned::to_owned)
    }

    /// A folder of prompts that replace the built-in ones.
    ///
    /// # Errors
    /// Where there is no such folder.
    pub fn prompts(&self) -> Result<Option<PathBuf>> {
        match self.path(Index::Prompts) {
            Some(path) if !path.is_dir() => {
                let entry = &self.entries[Index::Prompts as usize];
                Err(bad(entry, &path.to_string_lossy(), "there is no such folder"))
            }
            path => Ok(path),
        }
    }

    /// Bytes of an iteration's diff that the reviewer sees.
    ///
    /// # Errors
    /// Where the value is not a number.
    pub fn review_bytes(&self) -> Result<usize> {
        self.parse(Index::ReviewBytes, |text| whole(text, 0..=usize::MAX)).map(Option::unwrap_or_default)
    }

    fn text(&self, index: Index) -> Option<&str> {
        self.entries[index as usize].values.last().map(|value| value.trim())
    }

    fn parse<T>(&self, index: Index, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        let entry = &self.entries[index as usize];
        self.text(index).map(|text| parse(text).map_err(|why| bad(entry, text, &why))).transpose()
    }

    fn commands(&self, index: Index) -> Result<Vec<Check>> {
        let entry = &self.entries[index as usize];
        entry.values.iter().map(|text| check(text).map_err(|why| bad(entry, text, &why))).collect()
    }

    fn count(&self, index: Index, least: u32) -> Result<u32> {
        self.parse(index, |text| whole(text, least..=u32::MAX)).map(|number| number.unwrap_or(least))
    }

    fn word<T: FromStr<Err = String> + Default>(&self, index: Index) -> Result<T> {
        self.parse(index, str::parse).map(Option::unwrap_or_default)
    }

    /// A leading `~/` is the home directory, as in git's own path settings.
    fn path(&self, index: Index) -> Option<PathBuf> {
        let text = self.text(index)?;
        let below_home = text.strip_prefix("~/").and_then(|rest| Some(self.home.as_ref()?.join(rest)));
        Some(below_home.unwrap_or_else(|| PathBuf::from(text)))
    }
}

fn bad(entry: &Entry, value: &str, why: &str) -> Error {
    let (place, mend) = match entry.origin {
        Origin::Environment => (format!("the environment variable {}", entry.env), format!("unset {}", entry.env)),
        Origin::Config | Origin::Default => {
            (format!("'git config {}'", entry.key), format!("git config --unset-all {}", entry.key))
        }
    };
    let why = if why.contains(value) { why.to_owned() } else { format!("'{value}': {why}") };
    Error::usage(format!("{place} cannot be used: {why}"))
        .hint(format!("'{mend}' takes it away; 'git agentloop config' shows every setting and where it comes from"))
}

/// The lines of a variable that hold anything: several checks are a line each.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// A whole number that is in `range`.
///
/// # Errors
/// Why `text` is none.
pub fn whole<T: FromStr<Err = ParseIntError> + PartialOrd + fmt::Display + Copy>(
    text: &str,
    range: RangeInclusive<T>,
) -> Result<T, String> {
    let parsed = text.parse::<T>();
    let is_too_large = match &parsed {
        Ok(number) => number > range.end(),
        Err(error) => *error.kind() == IntErrorKind::PosOverflow,
    };
    match parsed {
        Ok(number) if range.contains(&number) => Ok(number),
        _ if is_too_large => Err(format!("'{text}' is too large: at most {}", range.end())),
        _ => Err(format!("'{text}' is not a whole number of at least {}", range.start())),
    }
}

/// A number of seconds above 0.
///
/// # Errors
/// Why `text` is none.
pub fn seconds(text: &str) -> Result<f64, String> {
    above_zero(text, "a number of seconds")
}

/// An amount of money above 0.
///
/// # Errors
/// Why `text` is none.
pub fn dollars(text: &str) -> Result<f64, String> {
    above_zero(text, "an amount")
}

fn above_zero(text: &str, what: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > LARGEST => Err(format!("'{text}' is too large: at most {LARGEST}")),
        Ok(number) if number > 0.0 => Ok(number),
        _ => Err(format!("'{text}' is not {what} above 0")),
    }
}

/// A command of the user's, split as a shell would split it.
///
/// # Errors
/// Why `text` is none.
pub fn check(text: &str) -> Result<Check, String> {
    if text.contains('\0') {
        return Err("the command holds a NUL byte".to_owned());
    }
    match shell_words::split(text) {
        Ok(argv) if argv.first().is_some_and(|program| !program.is_empty()) => {
            Ok(Check { name: text.trim().to_owned(), argv })
        }
        Ok(_) => Err("the command is empty".to_owned()),
        Err(_) => Err(format!("'{text}' has a quote that is not closed")),
    }
}

/// A yes or a no in git's words.
fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

#[cfg(test)]
mod tests;
