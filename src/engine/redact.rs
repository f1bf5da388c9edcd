//! Keeps secrets off the record.

use std::borrow::Cow;

/// Environment variables whose values are secrets, by the ends of their names.
const SECRET_NAMES: [&str; 5] = ["API_KEY", "TOKEN", "SECRET", "PASSWORD", "ACCESS_KEY"];
/// How well-known secrets begin: keys of model services, tokens of code hosts and of Slack, key ids of clouds.
const SECRET_SHAPES: [&str; 15] = [
    "sk-ant-",
    "sk-proj-",
    "sk-svcacct-",
    "sk-or-",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "AIza",
];
/// Shorter values are words, not secrets.
const SHORTEST: usize = 8;
/// Characters after a well-known beginning that make it a secret.
const SHORTEST_TAIL: usize = 12;
const REDACTED: &str = "[redacted]";

/// Knows the secrets of this process's environment, and the shapes of others.
#[derive(Clone, Default)]
pub struct Redactor {
    values: Vec<String>,
}

impl Redactor {
    /// A redactor for the secrets in `env`.
    pub fn new(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut values: Vec<String> = env
            .into_iter()
            .filter(|(name, value)| SECRET_NAMES.iter().any(|end| name.ends_with(end)) && value.len() >= SHORTEST)
            .map(|(_, value)| value)
            .collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values }
    }

    /// A redactor for the secrets in this process's environment; what is no UTF-8 could stand in no text.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// `text` without its secrets.
    #[must_use]
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut clean = Cow::Borrowed(text);
        for value in &self.values {
            if clean.contains(value.as_str()) {
                clean = Cow::Owned(clean.replace(value.as_str(), REDACTED));
            }
        }
        for shape in SECRET_SHAPES {
            if clean.contains(shape) {
                clean = Cow::Owned(clean_shape(&clean, shape));
            }
        }
        clean
    }

    /// The same for what need not be UTF-8; the rest stays byte for byte. No copy is made of a text without secrets: a
    /// transcript is long.
    #[must_use]
    pub fn clean_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if let Ok(text) = std::str::from_utf8(bytes) {
            return match self.clean(text) {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            };
        }
        let mut clean = Vec::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            clean.extend_from_slice(self.clean(chunk.valid()).as_bytes());
            clean.extend_from_slice(chunk.invalid());
        }
        Cow::Owned(clean)
    }
}

fn clean_shape(text: &str, shape: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(shape) {
        let (before, found) = rest.split_at(start);
        let tail = &found[shape.len()..];
        let length = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').unwrap_or(tail.len());
        let inside_word = before.ends_with(|c: char| c.is_ascii_alphanumeric());
        clean.push_str(before);
        clean.push_str(if length >= SHORTEST_TAIL && !inside_word { REDACTED } else { &found[..shape.len() + length] });
        rest = &tail[length..];
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_shapes_are_taken_out_and_words_are_not() {
        let env = [("MY_API_KEY", "hunter2hunter2"), ("PGPASSWORD", "correct horse"), ("HOME", "/home/someone")];
        let redactor = Redactor::new(env.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(redactor.clean("key=hunter2hunter2; correct horse"), "key=[redacted]; [redacted]");
        assert_eq!(redactor.clean("\"sk-ant-api03-abcdefgh\\n"), "\"[redacted]\\n");
        for text in ["/home/someone", "the AKIA prefix", "disk-ant-abcdefghijklmn", "ghp_short"] {
            assert_eq!(redactor.clean(text), text);
        }
        let bytes = |text: &'static [u8]| redactor.clean_bytes(text).into_owned();
        assert_eq!(bytes(b"key=hunter2hunter2;"), b"key=[redacted];");
        assert_eq!(bytes(b"\xff key=hunter2hunter2\xc3;"), b"\xff key=[redacted]\xc3;");
    }
}
