//! What may run for a run, as its user gave it in this clone.

use serde::{Deserialize, Serialize};

use super::store::RunStore;
use crate::error::{Context as _, Result};
use crate::run::goal::Options;

/// The file in the run's folder of the store.
const FILE: &str = "authority";
/// How many options are kept: one for each time that the user changed some.
const KEPT: usize = 64;

/// What was given for a run in this clone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Authority {
    /// The options, the newest last. Those that are on record may be older: what is given is written here first.
    options: Vec<Options>,
    /// Whether what works for the run may start runs of its own.
    pub allow_nested: bool,
}

impl Authority {
    /// What is kept of a run; nothing where nothing was given here, or it cannot be read: the user is then asked again.
    #[must_use]
    pub fn read(store: &RunStore) -> Option<Self> {
        let text = store.read(FILE).ok()??;
        let authority: Self = serde_json::from_slice(&text).ok()?;
        (!authority.options.is_empty()).then_some(authority)
    }

    /// Keeps `options` as what was given last.
    pub fn give(store: &RunStore, options: &Options, allow_nested: bool) -> Result<()> {
        let mut given = Self::read(store).map_or_else(Vec::new, |known| known.options);
        if given.last() != Some(options) {
            given.push(options.clone());
        }
        given.drain(..given.len().saturating_sub(KEPT));
        let authority = Self { options: given, allow_nested };
        let text = serde_json::to_vec(&authority).context("the options cannot be written as JSON")?;
        store.write(FILE, &text)
    }

    /// Forgets what was given: the user is asked again.
    pub fn forget(store: &RunStore) -> Result<()> {
        store.forget(FILE)
    }

    /// What the user gave last, where `recorded`, which the log says, was given here too.
    #[must_use]
    pub fn confirms(&self, recorded: &Options) -> Option<&Options> {
        self.options.contains(recorded).then(|| self.options.last()).flatten()
    }
}
