//! Messages from verbs to a live driver: files in the run's folder of the private store, which the driver records as facts.
//!
//! Files in the repository's folder are not accepted, as workers can write there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::recorder::Recorder;
use crate::error::{Context as _, Result};
use crate::host::store::RunStore;
use crate::redact::Redactor;
use crate::run::event::{BudgetChanged, Fact, Steered, Unheard, VALUE_LIMIT, clip};
use crate::run::goal::Budget;

/// Interval at which a driver reads its inbox.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Folder of messages in the run's part of the store.
const INBOX: &str = "inbox";
/// Folder of messages that could not be read.
const REJECTED: &str = "unheard";
/// Number of ignored files that are reported.
const MOST_REPORTED: usize = 10;

/// A message to a live driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// Guidance for the next plan.
    Guidance(String),
    /// Limits that apply from now on.
    Budget(Budget),
}

impl Message {
    /// Parses a file that [`send`] wrote.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let message = serde_json::from_slice(text).map_err(|error| format!("it is no message: {error}"))?;
        match &message {
            Self::Guidance(text) if text.trim().is_empty() => Err("its guidance is empty".to_owned()),
            _ => Ok(message),
        }
    }
}

/// Writes `message` into the inbox of the run whose store is `kept`, atomically.
pub fn send(kept: &RunStore, name: &str, message: &Message) -> Result<Sent> {
    let text = serde_json::to_vec(message).context("a message cannot be written as JSON")?;
    let inbox = kept.make_dir(INBOX)?;
    kept.write(&format!("{INBOX}/{name}"), &text)?;
    Ok(Sent { file: inbox.join(name) })
}

/// A message that was sent.
#[derive(Debug)]
pub struct Sent {
    file: PathBuf,
}

impl Sent {
    /// Returns whether the driver has not read the message yet.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.file.symlink_metadata().is_ok()
    }

    /// Withdraws the message. Returns whether it was still there.
    #[must_use]
    pub fn take_back(&self) -> bool {
        std::fs::remove_file(&self.file).is_ok()
    }

    /// Returns whether the driver could not read the message and set it aside.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        rejected_path(&self.file).is_some_and(|file| file.symlink_metadata().is_ok())
    }
}

/// Returns the path that an unreadable file of the inbox is moved to.
fn rejected_path(file: &Path) -> Option<PathBuf> {
    Some(file.parent()?.parent()?.join(REJECTED).join(file.file_name()?))
}

/// The inbox as its driver reads it.
pub(super) struct Inbox {
    /// Store, and the inbox's folder in it.
    kept: Option<(RunStore, PathBuf)>,
    /// Inbox of older versions, which workers can write.
    old: PathBuf,
    redactor: Redactor,
    /// Files that were reported and could not be removed.
    stuck: BTreeSet<PathBuf>,
}

impl Inbox {
    pub(super) fn new(kept: Option<RunStore>, scratch: &Path, redactor: Redactor) -> Self {
        let kept = kept.and_then(|kept| kept.make_dir(INBOX).ok().map(|dir| (kept, dir)));
        Self { kept, old: scratch.join(INBOX), redactor, stuck: BTreeSet::new() }
    }

    /// Records messages as they come, for as long as it is polled.
    pub(super) async fn watch(mut self, recorder: Arc<Recorder>) {
        loop {
            if let Err(error) = self.record_messages(&recorder).await {
                tracing::warn!("what was sent to the run waits to be recorded: {error}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Records the messages, oldest first. A file is removed after its text is recorded: a driver that dies in between
    /// records it twice rather than not at all. An unreadable file is reported and moved away.
    async fn record_messages(&mut self, recorder: &Arc<Recorder>) -> Result<()> {
        self.report_ignored(recorder).await?;
        let Some((kept, dir)) = self.kept.clone() else { return Ok(()) };
        for file in list_files(&dir).difference(&self.stuck.clone()) {
            let read = self.read_message(&kept, file);
            let is_read = read.is_ok();
            let fact = read.unwrap_or_else(|why| Unheard { name: file_name(file), error: why }.into());
            recorder.record([fact]).await?;
            let removed = if is_read { std::fs::remove_file(file) } else { reject(file) };
            if let Err(error) = removed {
                tracing::warn!("'{}' stays where it is: {error}", file.display());
                self.stuck.insert(file.clone());
            }
        }
        Ok(())
    }

    /// Reports files in the repository's folder, which are ignored.
    async fn report_ignored(&mut self, recorder: &Arc<Recorder>) -> Result<()> {
        for file in list_files(&self.old) {
            if self.stuck.len() < MOST_REPORTED && self.stuck.insert(file.clone()) {
                let error = "it lies in the repository, where workers can write: only 'git agentloop steer' and 'resume' reach a run";
                recorder.record([Unheard { name: file_name(&file), error: error.to_owned() }.into()]).await?;
            }
        }
        Ok(())
    }

    /// Reads a message as a fact, or returns why it cannot be read.
    fn read_message(&self, kept: &RunStore, file: &Path) -> Result<Fact, String> {
        let name = file.file_name().and_then(|name| name.to_str()).ok_or("its name is not UTF-8")?;
        let text = kept.read(&format!("{INBOX}/{name}")).map_err(|error| error.chain())?;
        let text = text.ok_or("it is not a file of this user alone, or too large")?;
        Ok(match Message::parse(&text)? {
            Message::Guidance(text) => Steered { text: clip(&self.redactor.clean(&text), VALUE_LIMIT) }.into(),
            Message::Budget(budget) => BudgetChanged { budget }.into(),
        })
    }
}

fn file_name(file: &Path) -> String {
    clip(&file.file_name().unwrap_or_default().to_string_lossy(), 100)
}

/// Lists the first files of `dir`, by name.
fn list_files(dir: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().take(1000).map(|entry| entry.path()).collect()
}

fn reject(file: &Path) -> std::io::Result<()> {
    let Some(target) = rejected_path(file) else { return Ok(()) };
    std::fs::create_dir_all(target.with_file_name("")).and_then(|()| std::fs::rename(file, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_range_is_a_message() {
        let sent = Message::Budget(Budget { max_agent_calls: std::num::NonZeroU64::new(5), ..Budget::default() });
        assert_eq!(Message::parse(&serde_json::to_vec(&sent).unwrap()), Ok(sent));
        assert_eq!(Message::parse(br#"{"guidance":"mind the docs"}"#), Ok(Message::Guidance("mind the docs".into())));
        for wrong in [
            "",
            "accept everything",
            r#"{"guidance":" "}"#,
            r#"{"guidance":5}"#,
            r#"{"guidance":"x","budget":{}}"#,
            r#"{"command":"x"}"#,
            r#"{"budget":{"max_iterations":0}}"#,
            r#"{"budget":{"max_iterations":-1}}"#,
            r#"{"budget":{"max_seconds":-1}}"#,
            r#"{"budget":{"max_seconds":1e300}}"#,
            r#"{"budget":{"max_cost":-1}}"#,
            r#"{"budget":{"max_agent_calls":0}}"#,
        ] {
            assert!(Message::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
