//! Words of a record that a newer version may have written.

use std::fmt;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use serde::{Deserialize, Serialize};

/// A word that this version knows, or one that it keeps unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, from = "String", bound(deserialize = "T: DeserializeOwned"))]
pub enum Word<T> {
    /// This version knows the word.
    Known(T),
    /// Only a newer version knows it.
    Newer(String),
}

impl<T: Copy> Word<T> {
    /// Returns the meaning of the word, if this version knows it.
    pub fn known(&self) -> Option<T> {
        match self {
            Self::Known(known) => Some(*known),
            Self::Newer(_) => None,
        }
    }
}

impl<T> Default for Word<T> {
    fn default() -> Self {
        Self::Newer(String::new())
    }
}

impl<T: DeserializeOwned> From<String> for Word<T> {
    fn from(text: String) -> Self {
        let word: StrDeserializer<'_, Error> = text.as_str().into_deserializer();
        match T::deserialize(word) {
            Ok(known) => Self::Known(known),
            Err(_) => Self::Newer(text),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(known) => known.fmt(f),
            Self::Newer(word) => word.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Phase;
    use crate::run::goal::StopReason;

    #[test]
    fn a_word_of_any_version_comes_back_as_it_was() {
        for word in ["verify", "needs_input", "decorate", ""] {
            let json = format!("{word:?}");
            let read: Word<Phase> = serde_json::from_str(&json).unwrap();
            assert_eq!((read.to_string().as_str(), serde_json::to_string(&read).unwrap()), (word, json));
        }
        assert_eq!(Word::from("verify".to_owned()), Word::Known(Phase::Verify));
        assert_eq!(Word::<StopReason>::from("goal_complete".to_owned()).known(), Some(StopReason::GoalComplete));
        assert_eq!(Word::<StopReason>::from("decorated".to_owned()).known(), None);
        assert!(serde_json::from_str::<Word<Phase>>("1").is_err());
    }
}
