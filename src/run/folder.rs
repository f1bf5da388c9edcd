//! Folders of a repository.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::amount::OutOfRange;

/// A folder of a repository, relative to its top level. It is neither outside of the repository nor in its git directory.
/// The default is the top level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Folder(String);

impl Folder {
    /// Returns the folder with `/` between its parts; empty for the top level.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether it is the top level.
    #[must_use]
    pub fn is_top(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns its path in the checkout whose top level is `top`.
    #[must_use]
    pub fn below(&self, top: &Path) -> PathBuf {
        top.join(&self.0)
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_top() { "." } else { &self.0 })
    }
}

impl TryFrom<String> for Folder {
    type Error = OutOfRange;

    fn try_from(text: String) -> Result<Self, OutOfRange> {
        let is_clean = |part: &str| !matches!(part, "" | "." | "..") && !part.eq_ignore_ascii_case(".git");
        if text.is_empty() || (!text.contains('\0') && text.split('/').all(is_clean)) {
            Ok(Self(text))
        } else {
            Err(OutOfRange("a folder of the repository, relative to its top level".to_owned()))
        }
    }
}

impl From<Folder> for String {
    fn from(folder: Folder) -> Self {
        folder.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_clean_and_inside() {
        for text in ["", "services/api", "a b", "...", "a.git"] {
            assert_eq!(Folder::try_from(text.to_owned()).unwrap().as_str(), text);
        }
        for text in ["/", "/etc", "a/", "a//b", ".", "..", "a/../b", "../x", ".git", "a/.GIT/hooks", "a\0b"] {
            assert!(Folder::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }
}
