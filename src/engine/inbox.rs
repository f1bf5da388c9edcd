//! What people send to a live driver: files renamed into the run's inbox, taken in as facts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::recorder::Recorder;
use super::redact::Redactor;
use crate::error::{Context as _, Result};
use crate::run::event::{Steered, VALUE_LIMIT, clip};

/// How often a driver looks.
const EVERY: Duration = Duration::from_millis(200);

/// The inbox of the run whose live files are in `scratch`.
#[must_use]
pub fn inbox(scratch: &Path) -> PathBuf {
    scratch.join("inbox")
}

/// Puts `text` into the inbox, whole or not at all.
///
/// # Errors
/// Where it cannot be written.
pub fn send(scratch: &Path, name: &str, text: &str) -> Result<()> {
    let dir = inbox(scratch);
    let staged = scratch.join(format!("{name}.new"));
    let sent = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&staged, text))
        .and_then(|()| std::fs::rename(&staged, dir.join(name)));
    sent.context(format!("'{}' cannot be written", dir.display()))
}

/// Takes in what comes, for as long as it is polled.
pub(super) async fn watch(scratch: PathBuf, recorder: Arc<Recorder>, redactor: Redactor) {
    loop {
        if let Err(error) = take(&scratch, &recorder, &redactor).await {
            tracing::warn!("guidance waits to be recorded: {error}");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Takes in what is there, oldest first. A file goes only once its text is on record: a driver that dies in between hears
/// it twice, never not at all.
async fn take(scratch: &Path, recorder: &Arc<Recorder>, redactor: &Redactor) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(inbox(scratch)) else { return Ok(()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read(&file).context(format!("'{}' cannot be read", file.display()))?;
        let text = clip(&redactor.clean(&String::from_utf8_lossy(&text)), VALUE_LIMIT);
        recorder.record([Steered { text }.into()]).await?;
        std::fs::remove_file(&file).context(format!("'{}' cannot be removed", file.display()))?;
    }
    Ok(())
}
