//! What people send to a live driver: files renamed into the run's inbox, taken in as facts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::recorder::Recorder;
use super::redact::Redactor;
use crate::error::{Context as _, Result};
use crate::run::event::{BudgetChanged, Fact, Steered, VALUE_LIMIT, clip};
use crate::run::goal::Budget;

/// How often a driver looks.
const EVERY: Duration = Duration::from_millis(200);

/// How the name of a file ends that holds a budget; any other holds guidance.
const BUDGET: &str = ".budget";

/// Something for a live driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Guidance for its next plan.
    Guidance(String),
    /// What the run may spend from here on.
    Budget(Budget),
}

/// The inbox of the run whose live files are in `scratch`.
#[must_use]
pub fn inbox(scratch: &Path) -> PathBuf {
    scratch.join("inbox")
}

/// Puts `message` into the inbox, whole or not at all; the file, which goes once the driver has it on record.
///
/// # Errors
/// Where it cannot be written.
pub fn send(scratch: &Path, name: &str, message: &Message) -> Result<PathBuf> {
    let dir = inbox(scratch);
    let (name, text) = match message {
        Message::Guidance(text) => (name.to_owned(), text.clone()),
        Message::Budget(budget) => {
            (format!("{name}{BUDGET}"), serde_json::to_string(budget).context("a budget cannot be written down")?)
        }
    };
    let file = dir.join(&name);
    let staged = scratch.join(format!("{name}.new"));
    let sent = std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&staged, text))
        .and_then(|()| std::fs::rename(&staged, &file));
    sent.context(format!("'{}' cannot be written", dir.display())).map(|()| file)
}

/// Takes in what comes, for as long as it is polled.
pub(super) async fn watch(scratch: PathBuf, recorder: Arc<Recorder>, redactor: Redactor) {
    loop {
        if let Err(error) = take(&scratch, &recorder, &redactor).await {
            tracing::warn!("what was sent to the run waits to be recorded: {error}");
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
        if let Some(fact) = fact(&file, &text, redactor) {
            recorder.record([fact]).await?;
        }
        std::fs::remove_file(&file).context(format!("'{}' cannot be removed", file.display()))?;
    }
    Ok(())
}

/// What a file says; nothing where it is a budget that cannot be read.
fn fact(file: &Path, text: &[u8], redactor: &Redactor) -> Option<Fact> {
    if file.as_os_str().as_encoded_bytes().ends_with(BUDGET.as_bytes()) {
        return serde_json::from_slice(text).ok().map(|budget| BudgetChanged { budget }.into());
    }
    let text = clip(&redactor.clean(&String::from_utf8_lossy(text)), VALUE_LIMIT);
    Some(Steered { text }.into())
}
