//! Why a text is no value of an option.

use std::fmt;

/// A text that is no value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The text.
    pub value: String,
    /// What was expected instead.
    pub expected: String,
}

impl Wrong {
    pub(super) fn new(value: &str, expected: impl Into<String>) -> Self {
        Self { value: value.to_owned(), expected: expected.into() }
    }

    /// The whole message, where `place` is what was given the value.
    #[must_use]
    pub fn of(&self, place: &str) -> String {
        format!("invalid value '{}' for {place} (expected {})", self.value, self.expected)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid value '{}' (expected {})", self.value, self.expected)
    }
}

impl std::error::Error for Wrong {}
