//! Usage limits that a user's runs tell each other of: one small file a user, so that ten runs do not hammer one limit.
//!
//! It names backends and moments, and nothing of any repository or goal. It is a courtesy and no record: a file that
//! cannot be read or written, or that somebody damaged, only means that each run finds out by itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::process;
use crate::run::event::Timestamp;

/// The file's name in the user's state directory, below `git-agentloop`.
const NAME: &str = "limits.json";
/// What is read of it at most, in bytes: a handful of backends has less.
const LARGEST: u64 = 64 << 10;
/// The farthest reset that is believed, in seconds: services have limits of a week.
const FARTHEST: f64 = 14.0 * 86_400.0;

/// Until when each backend answers nobody of this user.
type Resets = BTreeMap<String, Timestamp>;

/// The limits of one user on one machine.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    dir: Option<PathBuf>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Content {
    resets: Resets,
}

impl Limits {
    /// Those that are kept in `dir`; `None` keeps none.
    #[must_use]
    pub fn kept_in(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Those of this process's user.
    #[must_use]
    pub fn of_user() -> Self {
        Self::kept_in(process::state_dir())
    }

    /// When `backend` answers again, where that is after `now`.
    #[must_use]
    pub fn reset_of(&self, backend: &str, now: Timestamp) -> Option<Timestamp> {
        let resets = read(&self.dir.as_ref()?.join(NAME));
        resets.get(backend).copied().filter(|reset| holds(*reset, now))
    }

    /// Tells the user's other runs that `backend` answers again at `reset`. What is over is forgotten.
    pub fn tell(&self, backend: &str, reset: Timestamp, now: Timestamp) {
        let Some(dir) = &self.dir else { return };
        if let Err(error) = write(dir, backend, reset, now) {
            tracing::debug!(%error, "other runs are not told of a limit");
        }
    }
}

/// Whether a reset is still to come, and not so far off that somebody made it up.
fn holds(reset: Timestamp, now: Timestamp) -> bool {
    reset > now && reset.since(now) <= FARTHEST
}

fn read(path: &Path) -> Resets {
    let small = path.metadata().is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
    let text = if small { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice::<Content>(&text).unwrap_or_default().resets
}

/// Under a lock, as other runs write too, and renamed into place, as they read.
fn write(dir: &Path, backend: &str, reset: Timestamp, now: Timestamp) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let lock = File::options().create(true).append(true).open(dir.join(format!("{NAME}.lock")))?;
    lock.lock()?;
    let path = dir.join(NAME);
    let mut resets = read(&path);
    resets.retain(|_, reset| holds(*reset, now));
    let newest = resets.get(backend).copied().unwrap_or_default().max(reset);
    resets.insert(backend.to_owned(), newest);
    let new = dir.join(format!("{NAME}.new"));
    std::fs::write(&new, serde_json::to_vec(&Content { resets })?)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_told_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::kept_in(Some(dir.path().join("state")));
        let (now, later) = (Timestamp(1_000_000), Timestamp(1_005_000));
        assert_eq!(limits.reset_of("codex", now), None);
        limits.tell("codex", later, now);
        limits.tell("codex", Timestamp(1_001_000), now);
        limits.tell("aider", Timestamp(1_002_000), now);
        assert_eq!(limits.reset_of("codex", now), Some(later), "the latest holds");
        assert_eq!(limits.reset_of("codex", later), None);
        limits.tell("aider", Timestamp(9_000_000), Timestamp(8_000_000));
        let text = std::fs::read_to_string(dir.path().join("state").join(NAME)).unwrap();
        assert_eq!(text, r#"{"resets":{"aider":9000.0}}"#, "what is over is gone");
    }

    #[test]
    fn a_damaged_file_is_no_limit_and_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits::kept_in(Some(dir.path().to_owned()));
        let now = Timestamp(1_000_000);
        for text in ["", "{", "[]", r#"{"resets": {"codex": "soon"}}"#, r#"{"resets": {"codex": 1e300}}"#] {
            std::fs::write(dir.path().join(NAME), text).unwrap();
            assert_eq!(limits.reset_of("codex", now), None, "{text}");
        }
        limits.tell("codex", Timestamp(1_001_000), now);
        assert!(limits.reset_of("codex", now).is_some(), "it is written anew");
        Limits::kept_in(Some("/proc/nowhere".into())).tell("codex", Timestamp(1_001_000), now);
        Limits::default().tell("codex", Timestamp(1_001_000), now);
    }
}
