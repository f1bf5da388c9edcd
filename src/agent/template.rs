//! Command lines as users write them: words as a shell would split them, with placeholders, and no shell.

use std::ffi::OsString;

use crate::error::{Error, Result};

/// A command line with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    words: Vec<String>,
}

impl Template {
    /// The command line that `text` is; `place` is where the user wrote it, `example` a right one there.
    ///
    /// # Errors
    /// A text that is empty, or has a quote that is not closed.
    pub(super) fn new(place: &str, text: &str, example: &str) -> Result<Self> {
        let hint = format!("for example: {example}");
        let words = shell_words::split(text).map_err(|error| {
            Error::usage(format!("{place} cannot be split into words")).because(error).hint(hint.clone())
        })?;
        if words.first().is_none_or(|program| program.trim().is_empty()) {
            return Err(Error::usage(format!("{place} names no program")).hint(hint));
        }
        Ok(Self { words })
    }

    /// The program, as it is named.
    pub(super) fn program(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// Reports whether a word has this placeholder.
    pub(super) fn names(&self, placeholder: &str) -> bool {
        self.words.iter().any(|word| word.contains(placeholder))
    }

    /// The words with `texts` for their placeholders and the model for `{model}`; without one the word that has it is
    /// left out, and so is a bare option before it.
    pub(super) fn argv(&self, model: Option<&str>, texts: &[(&str, &str)]) -> Vec<OsString> {
        let mut argv: Vec<OsString> = Vec::new();
        let texts: Vec<_> = texts.iter().copied().chain([("{model}", model.unwrap_or_default())]).collect();
        for (position, word) in self.words.iter().enumerate() {
            if model.is_none() && word.contains("{model}") {
                let option = position > 1 && word == "{model}" && self.words[position - 1].starts_with('-');
                if option && !self.words[position - 1].contains('=') {
                    argv.pop();
                }
                continue;
            }
            argv.push(fill(word, &texts).into());
        }
        argv
    }
}

/// `word` with its placeholders filled in, once: what is put in is not looked at again.
fn fill(word: &str, texts: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((name, text)) = texts.iter().find(|(name, _)| rest.starts_with(name)) {
            filled.push_str(text);
            rest = &rest[name.len()..];
        } else {
            filled.push('{');
            rest = &rest[1..];
        }
    }
    filled.push_str(rest);
    filled
}
