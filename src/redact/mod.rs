//! Removal of secrets from all that is recorded: values of this process's environment, and texts with the form of a secret.
//!
//! The content of commits is not searched: it is the user's work.

mod base64;
mod bytes;
mod find;
mod names;
mod pem;
mod plain;
mod shapes;
mod stream;
#[cfg(test)]
mod tests;
mod url;
mod value;

use std::borrow::Cow;
use std::sync::Arc;

use self::find::Finder;
use self::plain::Plain;
pub use self::stream::Stream;
use self::value::REDACTED;

/// Finds the secrets of an environment, and texts with the form of a secret. Clones share their tables.
#[derive(Clone, Debug)]
pub struct Redactor(Arc<Finder>);

impl Redactor {
    /// Returns a redactor for the secrets in `env`.
    pub fn new(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let secrets = env.into_iter().flat_map(|(name, value)| names::secrets_of(&name, &value));
        Self(Arc::new(Finder::new(secrets.flat_map(|secret| forms(&secret)))))
    }

    /// Returns a redactor for the secrets in this process's environment. A value that is not UTF-8 appears in no text.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// Removes the secrets from `text`.
    #[must_use]
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.clean_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(clean) => Cow::Owned(String::from_utf8_lossy(&clean).into_owned()),
        }
    }

    /// Removes the secrets from `bytes`, which need not be UTF-8. Bytes without secrets are not copied: a transcript is
    /// long.
    #[must_use]
    pub fn clean_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let plain = Plain::new(bytes);
        let found = self.0.find(&plain.text, true);
        if found.ranges.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut clean = Vec::with_capacity(bytes.len());
        let mut copied = 0;
        for range in found.ranges {
            let range = plain.range(range);
            clean.extend_from_slice(&bytes[copied..range.start]);
            clean.extend_from_slice(REDACTED.as_bytes());
            copied = range.end;
        }
        clean.extend_from_slice(&bytes[copied..]);
        Cow::Owned(clean)
    }

    /// Returns a redactor of a stream that comes in pieces.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::new(Arc::clone(&self.0))
    }
}

/// The default redactor knows the forms of secrets only.
impl Default for Redactor {
    fn default() -> Self {
        Self::new([])
    }
}

/// Returns `secret` as it is, and as JSON, URLs and base64 contain it.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    if let Ok(text) = std::str::from_utf8(secret) {
        let once = json(text);
        let ascii: String = once.chars().flat_map(escape_non_ascii).collect();
        // Go's encoder also escapes characters that are special in HTML.
        let go = once.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        // A transcript in JSON may contain JSON that another program printed.
        forms.extend([json(&once), once.replace('/', "\\/"), ascii, go, once].map(String::into_bytes));
    }
    for (upper, keep) in [(true, &b"-._~"[..]), (false, b"-._~"), (true, b"-._~!'()*"), (true, b"-._~/")] {
        forms.push(percent_encode(secret, upper, keep));
    }
    forms.extend(base64::forms(secret));
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// Encodes `text` as JSON, without its quotes.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// Encodes a character as ASCII-only JSON does (RFC 8259, section 7).
fn escape_non_ascii(letter: char) -> Vec<char> {
    if letter.is_ascii() {
        return vec![letter];
    }
    let mut units = [0; 2];
    letter
        .encode_utf16(&mut units)
        .iter()
        .flat_map(|unit| format!("\\u{unit:04x}").chars().collect::<Vec<_>>())
        .collect()
}

/// Percent-encodes all of `secret` but letters, digits and `keep`.
fn percent_encode(secret: &[u8], upper: bool, keep: &[u8]) -> Vec<u8> {
    let encode = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || keep.contains(byte) => vec![*byte],
        byte if upper => format!("%{byte:02X}").into_bytes(),
        byte => format!("%{byte:02x}").into_bytes(),
    };
    secret.iter().flat_map(encode).collect()
}
