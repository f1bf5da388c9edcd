//! The error of an invalid value.

use std::fmt;

/// An error: the text is not a valid value of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The invalid text.
    pub value: String,
    /// Description of valid values.
    pub expected: String,
}

impl Wrong {
    pub(super) fn new(value: &str, expected: impl Into<String>) -> Self {
        Self { value: value.to_owned(), expected: expected.into() }
    }

    /// Writes the whole message; `place` is the flag, variable or key that has the value.
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
