//! Keeps secrets off the record: values of this process's environment, and what has the shape of a secret.
//!
//! What commits hold is not looked at: it is the user's work.

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

/// Knows the secrets of an environment, and the shapes of others. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Redactor(Arc<Finder>);

impl Redactor {
    /// A redactor for the secrets in `env`.
    pub fn new(env: impl IntoIterator<Item = (String, String)>) -> Self {
        let secrets = env.into_iter().flat_map(|(name, value)| names::secrets_of(&name, &value));
        Self(Arc::new(Finder::new(secrets.flat_map(|secret| forms(&secret)))))
    }

    /// A redactor for the secrets in this process's environment. A value that is not UTF-8 appears in no text.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// `text` without its secrets.
    #[must_use]
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.clean_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(clean) => Cow::Owned(String::from_utf8_lossy(&clean).into_owned()),
        }
    }

    /// `bytes`, which need not be UTF-8, without their secrets. A text without any is not copied: a transcript is long.
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
            let range = plain.place(range);
            clean.extend_from_slice(&bytes[copied..range.start]);
            clean.extend_from_slice(REDACTED.as_bytes());
            copied = range.end;
        }
        clean.extend_from_slice(&bytes[copied..]);
        Cow::Owned(clean)
    }

    /// What cleans a stream that comes in pieces.
    #[must_use]
    pub fn stream(&self) -> Stream {
        Stream::new(Arc::clone(&self.0))
    }
}

/// Knows the shapes alone.
impl Default for Redactor {
    fn default() -> Self {
        Self::new([])
    }
}

/// `secret` as it is, and as JSON, URLs and base64 hold it.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    if let Ok(text) = std::str::from_utf8(secret) {
        let once = json(text);
        let ascii: String = once.chars().flat_map(escaped).collect();
        // Go's encoder escapes what HTML gives a meaning.
        let go = once.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
        // A transcript in JSON holds what another program printed as JSON.
        forms.extend([json(&once), once.replace('/', "\\/"), ascii, go, once].map(String::into_bytes));
    }
    for (upper, keep) in [(true, &b"-._~"[..]), (false, b"-._~"), (true, b"-._~!'()*"), (true, b"-._~/")] {
        forms.push(percent_encoded(secret, upper, keep));
    }
    forms.extend(base64::forms(secret));
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// `text` as JSON holds it, without its quotes.
fn json(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A character as JSON in ASCII holds it (RFC 8259, section 7).
fn escaped(letter: char) -> Vec<char> {
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

/// `secret` with all but letters, digits and `keep` percent-encoded.
fn percent_encoded(secret: &[u8], upper: bool, keep: &[u8]) -> Vec<u8> {
    let encode = |byte: &u8| match byte {
        byte if byte.is_ascii_alphanumeric() || keep.contains(byte) => vec![*byte],
        byte if upper => format!("%{byte:02X}").into_bytes(),
        byte => format!("%{byte:02x}").into_bytes(),
    };
    secret.iter().flat_map(encode).collect()
}
