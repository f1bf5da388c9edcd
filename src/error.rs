//! One error type: what went wrong, why, and what to do next.
//!
//! Failures of the *work* (a red check, an agent that died) are values in events. This type is for failures of
//! ours: bad usage, an unreadable ref, a full disk.

use std::fmt;
use std::fmt::Write as _;

/// The result of anything that can fail on our side.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who has to act on an [`Error`]. Both kinds end the process with exit code 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be carried out as it was given.
    Usage,
    /// The request was fine; the repository, the machine or this program failed it.
    Failed,
}

/// A failure with the words a person needs: `error: <message>`, `caused by: <source>`, `hint: <hint>`.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Bad input: the caller can mend it.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// A failure of the repository, the machine or this program.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the failure below this one.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Who has to act.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The hint, where there is one.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The message and its causes on one line, for an event.
    #[must_use]
    pub fn chain(&self) -> String {
        self.causes().fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        std::iter::successors(std::error::Error::source(self), |error| error.source())
    }

    /// The whole error as it is printed: the message, what caused it, and the hint, a line each.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("error: {self}");
        for cause in self.causes() {
            let _ = write!(text, "\ncaused by: {cause}");
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\nhint: {hint}");
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as &(dyn std::error::Error + 'static))
    }
}

/// Turns any failure into an [`Error`] that says what was being done.
pub trait Context<T> {
    /// Names what failed; the original error becomes the cause.
    ///
    /// # Errors
    /// The original failure, as the cause of an [`Error::failed`].
    fn context(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::failed(message).because(error))
    }
}
