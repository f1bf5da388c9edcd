//! The error type: what went wrong, why, and what to do next.
//!
//! Failures of the *work* (a failed check, an agent that died) are values in events. This type is for failures of the
//! program or its use: bad input, an unreadable ref, a full disk.

use std::fmt;
use std::fmt::Write as _;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Party that has to act on an [`Error`]. All kinds end the process with exit code 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request cannot be carried out as it was given.
    Usage,
    /// The request names more than one thing; the hint lists them.
    Ambiguous,
    /// The request was fine; the repository, the machine or this program failed it.
    Failed,
}

/// Causes that any access to a file may have, as strerror(3) words them (no locale is set here, and git runs in C), and a
/// hint for each.
const COMMON: [(&str, &str); 4] = [
    ("No space left on device", FULL),
    ("Disk quota exceeded", FULL),
    ("Read-only file system", "the repository must be writable for you"),
    ("Permission denied", "see whose it is: it must be open to you"),
];
const FULL: &str = "make room; 'git agentloop resume' then goes on with a run that was under way";

/// Number of typing errors by which a word may differ from a known one.
const SLIPS: usize = 2;

/// Returns the word of `known` that a person who wrote `name` may have meant: one that differs by two typing errors at most
/// (a missing, added, replaced or swapped character), or that begins with it.
#[must_use]
pub fn alike<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let begins = |known: &str| name.len() > 2 && known.starts_with(name);
    let slips = |known: &str| if begins(known) { 1 } else { strsim::osa_distance(name, known) };
    let near = known.into_iter().map(|known| (slips(known), known)).min_by_key(|(slips, _)| *slips);
    near.filter(|(slips, _)| *slips <= SLIPS && *slips < name.chars().count()).map(|(_, known)| known)
}

/// Parses a word of a choice. The error lists the words.
pub fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        match words.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => words.concat(),
        }
    })
}

/// An error as it is printed: `error: <message>`, `caused by: <source>`, `hint: <hint>`.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Returns an error about bad input, which the caller can correct.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Returns an error about a name with several meanings, which the hint lists.
    pub fn ambiguous(message: impl Into<String>) -> Self {
        Self::new(Kind::Ambiguous, message)
    }

    /// Returns an error about the repository, the machine or this program.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the hint, or else the hint for a common cause.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        let common = || {
            let is_cause = |words: &str| self.causes().any(|cause| cause.to_string().contains(words));
            COMMON.iter().find(|(words, _)| is_cause(words)).map(|(_, hint)| *hint)
        };
        self.hint.as_deref().or_else(common)
    }

    /// Returns the message and its causes on one line, for an event.
    #[must_use]
    pub fn chain(&self) -> String {
        self.causes().fold(self.to_string(), |text, cause| format!("{text}: {cause}"))
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        std::iter::successors(std::error::Error::source(self), |error| error.source())
    }

    /// Returns the whole error as it is printed: the message, its causes and the hint, a line each.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = format!("error: {self}");
        for cause in self.causes() {
            let _ = write!(text, "\ncaused by: {cause}");
        }
        if let Some(hint) = self.hint_text() {
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

/// Adds a message about the failed operation to any error.
pub trait Context<T> {
    /// Adds `message`; the original error becomes the cause.
    fn context(self, message: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::failed(message).because(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_recognized() {
        let verbs = ["run", "resume", "result", "status", "install", "show"];
        for (written, meant) in [
            ("rnu", Some("run")),
            ("stat", Some("status")),
            ("resutl", Some("result")),
            ("shwo", Some("show")),
            ("x", None),
            ("frobnicate", None),
        ] {
            assert_eq!(alike(written, verbs), meant, "{written}");
        }
    }

    #[test]
    fn a_common_cause_has_a_hint_at_any_depth() {
        let full = std::io::Error::from_raw_os_error(28);
        let deep = Error::failed("the log").because(Error::failed("an object").because(full));
        assert!(
            deep.report()
                .ends_with("hint: make room; 'git agentloop resume' then goes on with a run that was under way")
        );
        assert_eq!(Error::failed("x").because("Permission denied").hint("y").hint_text(), Some("y"));
        assert_eq!(Error::failed("x").because("other").hint_text(), None);
    }
}
