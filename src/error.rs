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

/// Causes that any file may run into, as strerror(3) words them (no locale is set here, and git is run in C), and what to
/// do about each.
const COMMON: [(&str, &str); 4] = [
    ("No space left on device", FULL),
    ("Disk quota exceeded", FULL),
    ("Read-only file system", "the repository must be writable for you"),
    ("Permission denied", "see whose it is: it must be open to you"),
];
const FULL: &str = "make room; 'git agentloop resume' then goes on with a run that was under way";

/// Slips of the hand that a word may be away from what was meant.
const SLIPS: usize = 2;

/// The one of `known` that a person who wrote `name` may have meant: at most two slips away (a character too many, too few,
/// another one, or two that changed places), or begun with it.
#[must_use]
pub fn alike<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let begins = |known: &str| name.len() > 2 && known.starts_with(name);
    let slips = |known: &str| if begins(known) { 1 } else { strsim::osa_distance(name, known) };
    let near = known.into_iter().map(|known| (slips(known), known)).min_by_key(|(slips, _)| *slips);
    near.filter(|(slips, _)| *slips <= SLIPS && *slips < name.chars().count()).map(|(_, known)| known)
}

/// What `text` stands for among the words of a choice.
pub fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    words.iter().find(|(word, _)| *word == text).map(|(_, meant)| *meant).ok_or_else(|| {
        let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        match words.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
            _ => words.concat(),
        }
    })
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

    /// The hint, where there is one; else what is to be done about the cause, where that is a common one.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        let common = || {
            let said = |words: &str| self.causes().any(|cause| cause.to_string().contains(words));
            COMMON.iter().find(|(words, _)| said(words)).map(|(_, hint)| *hint)
        };
        self.hint.as_deref().or_else(common)
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

/// Turns any failure into an [`Error`] that says what was being done.
pub trait Context<T> {
    /// Names what failed; the original error becomes the cause.
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
    fn what_was_meant_is_near() {
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
    fn a_common_cause_says_what_to_do_however_deep_it_is() {
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
