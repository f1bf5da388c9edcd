//! The transcript of a call over a protocol: the agent's words and actions, as they come, for those who follow it.

use crate::process::{Source, Spool, Transcript};

/// The last part that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voice {
    /// The agent's answer.
    Answer,
    /// The agent's thinking.
    Thought,
    /// Everything that is a line of its own.
    Line,
}

/// A transcript, put in order when it is dropped; one that cannot be written is no reason to stop.
pub(super) struct Story {
    spool: Option<Spool>,
    voice: Voice,
    at_start: bool,
}

impl Story {
    pub(super) fn new(transcript: Option<&Transcript>) -> Self {
        Self {
            spool: transcript.and_then(|transcript| Spool::create(transcript).ok()),
            voice: Voice::Line,
            at_start: true,
        }
    }

    /// A piece of the agent's words or thoughts.
    pub(super) fn say(&mut self, voice: Voice, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.voice != voice {
            self.break_line();
            if voice == Voice::Thought {
                self.push("[thinking] ".as_bytes());
            }
            self.voice = voice;
        }
        self.push(text.as_bytes());
    }

    /// A line of its own.
    pub(super) fn line(&mut self, text: &str) {
        self.break_line();
        self.push(text.as_bytes());
        self.break_line();
        self.voice = Voice::Line;
    }

    /// Adds output of the agent beside the protocol, byte for byte.
    pub(super) fn note(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() && self.voice != Voice::Line {
            self.break_line();
            self.voice = Voice::Line;
        }
        self.push(bytes);
    }

    fn break_line(&mut self) {
        if !self.at_start {
            self.push(b"\n");
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        if let (Some(spool), Some(last)) = (&mut self.spool, bytes.last()) {
            spool.push(Source::Stdout, bytes);
            self.at_start = *last == b'\n';
        }
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.spool.take().map(Spool::finish) {
            tracing::warn!(%error, "a transcript is incomplete");
        }
    }
}
