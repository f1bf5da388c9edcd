//! What people send to a live driver: files renamed into the run's inbox, taken in as facts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::recorder::Recorder;
use super::redact::Redactor;
use crate::error::{Context as _, Result};
use crate::run::event::{BudgetChanged, Fact, Steered, Unheard, VALUE_LIMIT, clip};
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

/// Whether `file`, which [`send`] made, could not be read by the driver, and was set aside.
#[must_use]
pub fn is_set_aside(scratch: &Path, file: &Path) -> bool {
    aside(scratch, file).symlink_metadata().is_ok()
}

/// Where what cannot be read goes, out of the way of the rest.
fn aside(scratch: &Path, file: &Path) -> PathBuf {
    scratch.join("unheard").join(file.file_name().unwrap_or_default())
}

/// Takes in what comes, for as long as it is polled.
pub(super) async fn watch(scratch: PathBuf, recorder: Arc<Recorder>, redactor: Redactor) {
    let mut stuck = BTreeSet::new();
    loop {
        if let Err(error) = take(&scratch, &recorder, &redactor, &mut stuck).await {
            tracing::warn!("what was sent to the run waits to be recorded: {error}");
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Takes in what is there, oldest first. A file goes only once its text is on record: a driver that dies in between hears
/// it twice, never not at all. One that cannot be read is named and set aside; one that does not go is `stuck`.
async fn take(
    scratch: &Path,
    recorder: &Arc<Recorder>,
    redactor: &Redactor,
    stuck: &mut BTreeSet<PathBuf>,
) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(inbox(scratch)) else { return Ok(()) };
    let files: BTreeSet<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    for file in files.difference(&stuck.clone()) {
        let heard = hear(file, redactor);
        let is_heard = heard.is_ok();
        let fact = heard.unwrap_or_else(|why| {
            let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Unheard { name, error: why }.into()
        });
        recorder.record([fact]).await?;
        let gone = if is_heard { std::fs::remove_file(file) } else { set_aside(scratch, file) };
        if let Err(error) = gone {
            tracing::warn!("'{}' stays where it is: {error}", file.display());
            stuck.insert(file.clone());
        }
    }
    Ok(())
}

fn set_aside(scratch: &Path, file: &Path) -> std::io::Result<()> {
    let aside = aside(scratch, file);
    std::fs::create_dir_all(aside.with_file_name("")).and_then(|()| std::fs::rename(file, aside))
}

/// What a file says, or why nobody can tell.
fn hear(file: &Path, redactor: &Redactor) -> Result<Fact, String> {
    // To read a pipe is to wait for who writes.
    if !file.is_file() {
        return Err("it is no file".to_owned());
    }
    let text = std::fs::read(file).map_err(|error| error.to_string())?;
    if file.as_os_str().as_encoded_bytes().ends_with(BUDGET.as_bytes()) {
        let budget = serde_json::from_slice(&text).map_err(|error| format!("it is no budget: {error}"))?;
        return Ok(BudgetChanged { budget }.into());
    }
    let text = clip(&redactor.clean(&String::from_utf8_lossy(&text)), VALUE_LIMIT);
    Ok(Steered { text }.into())
}
