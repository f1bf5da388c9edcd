//! Stores the observations of a guard for the driver that follows a killed one: in the clone's private store, since they
//! decide what is restored, or in the run's folder if this clone has no store.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::StoredState;
use super::sight::{Harmful, Observation};
use crate::error::{Context as _, Result};
use crate::host::store::RunStore;

/// Name of the file.
const NAME: &str = "guard";
/// Directory of the store for temporary files.
const SCRATCH: &str = "scratch";
/// Longest file that is read, in bytes. No driver writes a longer one.
const LONGEST: u64 = 1 << 30;

/// The place where a guard's observations are stored.
#[derive(Debug)]
pub(in crate::ledger::git) enum GuardStore {
    Store(RunStore),
    Folder(PathBuf),
}

impl GuardStore {
    pub(in crate::ledger::git) fn new(store: Option<RunStore>, folder: PathBuf) -> Self {
        store.map_or(Self::Folder(folder), Self::Store)
    }

    fn open(&self) -> Option<File> {
        match self {
            Self::Store(store) => store.open(NAME).ok()?,
            Self::Folder(folder) => File::open(folder.join(NAME)).ok(),
        }
    }

    /// Returns when the file was last written; `None` if there is none.
    pub(super) fn written(&self) -> Option<SystemTime> {
        self.open()?.metadata().ok()?.modified().ok()
    }

    /// Loads the observations of an earlier driver.
    pub(super) fn load(&self) -> Option<StoredState> {
        let mut text = Vec::new();
        self.open()?.take(LONGEST).read_to_end(&mut text).ok()?;
        let kept: StoredState = serde_json::from_slice(&text).ok()?;
        // Files of these names will be written, so none may lead out of the git directory.
        let leads_down = |name: &String| {
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        let is_inside = |harmful: &Harmful| harmful.settings.keys().chain(harmful.rules.keys()).all(leads_down);
        (is_inside(&kept.0.harmful) && is_inside(&kept.1)).then_some(kept)
    }

    pub(super) fn save(&self, kept: (&Observation, &Harmful, &[String])) -> Result<()> {
        let failed = "what was seen of the repository's settings cannot be kept";
        let text = serde_json::to_vec(&kept).context(failed)?;
        match self {
            Self::Store(store) => store.write(NAME, &text),
            Self::Folder(folder) => {
                let staged = folder.join(NAME).with_added_extension("new");
                // Settings may contain secrets.
                let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(&staged);
                let written = opened.and_then(|mut staged| staged.write_all(&text));
                written.and_then(|()| std::fs::rename(&staged, folder.join(NAME))).context(failed)
            }
        }
    }

    pub(super) fn forget(&self) {
        let forgotten = match self {
            Self::Store(store) => store.forget(NAME),
            Self::Folder(folder) => remove(&folder.join(NAME)),
        };
        if let Err(error) = forgotten {
            tracing::warn!("{}", error.chain());
        }
    }

    /// Removes a file from the run's `folder` if there is a store, since a worker may have written it. Reports whether there
    /// was one.
    pub(super) fn remove_stray(&self, folder: &Path) -> Result<bool> {
        let old = folder.join(NAME);
        if matches!(self, Self::Folder(_)) || old.symlink_metadata().is_err() {
            return Ok(false);
        }
        remove(&old).map(|()| true)
    }

    /// Returns a directory for temporary files.
    pub(super) fn scratch(&self) -> Result<PathBuf> {
        match self {
            Self::Store(store) => store.make_dir(SCRATCH),
            Self::Folder(folder) => Ok(folder.clone()),
        }
    }
}

fn remove(file: &Path) -> Result<()> {
    crate::ledger::git::folder::remove_any(file).context(format!("'{}' cannot be removed", file.display()))
}
