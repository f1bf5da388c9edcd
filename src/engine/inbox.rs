//! What the user sends to a live driver, through verbs: files in the run's folder of the private store, taken in as facts.
//!
//! Workers know the repository, and what they put into its folder is not heard.

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

/// How often a driver looks.
const EVERY: Duration = Duration::from_millis(200);
/// The folder of messages in what the store keeps of a run.
const INBOX: &str = "inbox";
/// The folder of those that could not be read.
const ASIDE: &str = "unheard";
/// How many files that are not heard are named.
const NAMED: usize = 10;

/// Something for a live driver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// Guidance for its next plan.
    Guidance(String),
    /// What the run may spend from here on.
    Budget(Budget),
}

impl Message {
    /// Reads what [`send`] wrote.
    fn parse(text: &[u8]) -> Result<Self, String> {
        let message = serde_json::from_slice(text).map_err(|error| format!("it is no message: {error}"))?;
        match &message {
            Self::Guidance(text) if text.trim().is_empty() => Err("its guidance is empty".to_owned()),
            _ => Ok(message),
        }
    }
}

/// Puts `message` into the inbox of the run that the store keeps `kept` of, whole or not at all.
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
    /// Whether the driver has yet to take it in.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.file.symlink_metadata().is_ok()
    }

    /// Takes it back; whether it was still there.
    #[must_use]
    pub fn take_back(&self) -> bool {
        std::fs::remove_file(&self.file).is_ok()
    }

    /// Whether the driver could not read it, and set it aside.
    #[must_use]
    pub fn is_set_aside(&self) -> bool {
        aside(&self.file).is_some_and(|file| file.symlink_metadata().is_ok())
    }
}

/// Where a file of the inbox goes that cannot be read, out of the way of the rest.
fn aside(file: &Path) -> Option<PathBuf> {
    Some(file.parent()?.parent()?.join(ASIDE).join(file.file_name()?))
}

/// A driver's side of it.
pub(super) struct Inbox {
    /// The store and the folder in it.
    kept: Option<(RunStore, PathBuf)>,
    /// Where messages were in versions before, and where workers may write.
    old: PathBuf,
    redactor: Redactor,
    /// Files that were named and do not go.
    stuck: BTreeSet<PathBuf>,
}

impl Inbox {
    pub(super) fn new(kept: Option<RunStore>, scratch: &Path, redactor: Redactor) -> Self {
        let kept = kept.and_then(|kept| kept.make_dir(INBOX).ok().map(|dir| (kept, dir)));
        Self { kept, old: scratch.join(INBOX), redactor, stuck: BTreeSet::new() }
    }

    /// Takes in what comes, for as long as it is polled.
    pub(super) async fn watch(mut self, recorder: Arc<Recorder>) {
        loop {
            if let Err(error) = self.take(&recorder).await {
                tracing::warn!("what was sent to the run waits to be recorded: {error}");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Takes in what is there, oldest first. A file goes only once its text is on record: a driver that dies in between
    /// hears it twice, never not at all. One that cannot be read is named and set aside.
    async fn take(&mut self, recorder: &Arc<Recorder>) -> Result<()> {
        self.name_unheard(recorder).await?;
        let Some((kept, dir)) = self.kept.clone() else { return Ok(()) };
        for file in files(&dir).difference(&self.stuck.clone()) {
            let heard = self.hear(&kept, file);
            let is_heard = heard.is_ok();
            let fact = heard.unwrap_or_else(|why| Unheard { name: name_of(file), error: why }.into());
            recorder.record([fact]).await?;
            let gone = if is_heard { std::fs::remove_file(file) } else { set_aside(file) };
            if let Err(error) = gone {
                tracing::warn!("'{}' stays where it is: {error}", file.display());
                self.stuck.insert(file.clone());
            }
        }
        Ok(())
    }

    /// Names what lies in the repository's folder, where nothing is heard.
    async fn name_unheard(&mut self, recorder: &Arc<Recorder>) -> Result<()> {
        for file in files(&self.old) {
            if self.stuck.len() < NAMED && self.stuck.insert(file.clone()) {
                let error = "it lies in the repository, where workers can write: only 'git agentloop steer' and 'resume' reach a run";
                recorder.record([Unheard { name: name_of(&file), error: error.to_owned() }.into()]).await?;
            }
        }
        Ok(())
    }

    /// What a file says, or why it cannot be read.
    fn hear(&self, kept: &RunStore, file: &Path) -> Result<Fact, String> {
        let name = file.file_name().and_then(|name| name.to_str()).ok_or("its name is not UTF-8")?;
        let text = kept.read(&format!("{INBOX}/{name}")).map_err(|error| error.chain())?;
        let text = text.ok_or("it is not a file of this user alone, or too large")?;
        Ok(match Message::parse(&text)? {
            Message::Guidance(text) => Steered { text: clip(&self.redactor.clean(&text), VALUE_LIMIT) }.into(),
            Message::Budget(budget) => BudgetChanged { budget }.into(),
        })
    }
}

fn name_of(file: &Path) -> String {
    clip(&file.file_name().unwrap_or_default().to_string_lossy(), 100)
}

/// The first files in `dir`, by name.
fn files(dir: &Path) -> BTreeSet<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().take(1000).map(|entry| entry.path()).collect()
}

fn set_aside(file: &Path) -> std::io::Result<()> {
    let Some(aside) = aside(file) else { return Ok(()) };
    std::fs::create_dir_all(aside.with_file_name("")).and_then(|()| std::fs::rename(file, aside))
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
