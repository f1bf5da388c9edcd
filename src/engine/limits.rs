//! Usage limits that a user's runs share in one small file, so that ten runs do not hammer one limit.
//!
//! The file names backends and times, and no repository or goal. Without it each run meets the limit by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::shared;
use crate::process;
use crate::run::event::Timestamp;
use crate::run::work::is_believable_reset;

/// File name, in `git-agentloop` of the user's state directory.
const FILE_NAME: &str = "limits.json";

/// Limits of one user on one machine.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    dir: Option<PathBuf>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    /// Time at which each backend answers this user again.
    resets: BTreeMap<String, Timestamp>,
}

impl Limits {
    /// Returns the limits that are kept in `dir`; `None` keeps none.
    #[must_use]
    fn kept_in(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Returns the limits of this process's user.
    #[must_use]
    pub fn of_user() -> Self {
        Self::kept_in(process::state_dir())
    }

    /// Returns the time at which `backend` answers again, if that is after `now`.
    #[must_use]
    pub fn reset_of(&self, backend: &str, now: Timestamp) -> Option<Timestamp> {
        let known: Content = shared::read(self.dir.as_ref()?, FILE_NAME);
        known.resets.get(backend).copied().filter(|reset| is_believable_reset(*reset, now))
    }

    /// Publishes to the user's other runs that `backend` answers again at `reset`, and drops limits that are over.
    pub fn publish(&self, backend: &str, reset: Timestamp, now: Timestamp) {
        let Some(dir) = &self.dir else { return };
        let updated = shared::update(dir, FILE_NAME, |known: &mut Content| {
            known.resets.retain(|_, reset| is_believable_reset(*reset, now));
            let newest = known.resets.get(backend).copied().unwrap_or_default().max(reset);
            known.resets.insert(backend.to_owned(), newest);
        });
        if let Err(error) = updated {
            tracing::debug!(%error, "a limit is not shared with other runs");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_published_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::kept_in(Some(dir.path().join("state")));
        let (now, later) = (Timestamp(1_000_000), Timestamp(1_005_000));
        assert_eq!(limits.reset_of("codex", now), None);
        limits.publish("codex", later, now);
        limits.publish("codex", Timestamp(1_001_000), now);
        limits.publish("aider", Timestamp(1_002_000), now);
        assert_eq!(limits.reset_of("codex", now), Some(later), "the latest holds");
        assert_eq!(limits.reset_of("codex", later), None);
        limits.publish("aider", Timestamp(9_000_000), Timestamp(8_000_000));
        let text = std::fs::read_to_string(dir.path().join("state").join(FILE_NAME)).unwrap();
        assert_eq!(text, r#"{"resets":{"aider":9000.0}}"#, "what is over is gone");
    }

    #[test]
    fn a_damaged_file_is_no_limit_and_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::kept_in(Some(dir.path().to_owned()));
        let now = Timestamp(1_000_000);
        for text in ["", "{", "[]", r#"{"resets": {"codex": "soon"}}"#, r#"{"resets": {"codex": 1e300}}"#] {
            std::fs::write(dir.path().join(FILE_NAME), text).unwrap();
            assert_eq!(limits.reset_of("codex", now), None, "{text}");
        }
        limits.publish("codex", Timestamp(1_001_000), now);
        assert!(limits.reset_of("codex", now).is_some(), "it is written anew");
        Limits::kept_in(Some("/proc/nowhere".into())).publish("codex", Timestamp(1_001_000), now);
        Limits::default().publish("codex", Timestamp(1_001_000), now);
    }
}
