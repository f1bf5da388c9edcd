//! The options of a run as the user gave them in this clone.

use serde::{Deserialize, Serialize};

use super::store::RunStore;
use crate::error::{Context as _, Result};
use crate::run::goal::Options;

/// File in the run's folder of the store.
pub const FILE: &str = "authority";
/// Number of options that are kept: one for each change by the user.
const MOST_KEPT: usize = 64;

/// The options that the user gave for a run in this clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// Options, the newest last. The recorded ones may be older: new options are written here first.
    options: Vec<Options>,
    /// True if workers of the run may start runs of their own.
    pub allow_nested: bool,
}

impl Authority {
    /// Reads the options of a run. Returns `None` if none were given here or the file is invalid: the user is then asked
    /// again.
    #[must_use]
    pub fn read(store: &RunStore) -> Option<Self> {
        let text = store.read(FILE).ok()??;
        let authority: Self = serde_json::from_slice(&text).ok()?;
        (!authority.options.is_empty()).then_some(authority)
    }

    /// Stores `options` as the newest.
    pub fn give(store: &RunStore, options: &Options, allow_nested: bool) -> Result<()> {
        let mut given = Self::read(store).map_or_else(Vec::new, |known| known.options);
        if given.last() != Some(options) {
            given.push(options.clone());
        }
        given.drain(..given.len().saturating_sub(MOST_KEPT));
        let authority = Self { options: given, allow_nested };
        let text = serde_json::to_vec(&authority).context("the options cannot be written as JSON")?;
        store.write(FILE, &text)
    }

    /// Removes the options, so that the user is asked again.
    pub fn forget(store: &RunStore) -> Result<()> {
        store.forget(FILE)
    }

    /// Returns the newest options, if the `recorded` ones of the log were given here too.
    #[must_use]
    pub fn confirms(&self, recorded: &Options) -> Option<&Options> {
        self.options.contains(recorded).then(|| self.options.last()).flatten()
    }
}
