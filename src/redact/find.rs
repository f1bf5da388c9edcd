//! Finds secrets in bytes: one table look-up a byte, and a closer check where three bytes start a known pattern.

use std::fmt;
use std::ops::Range;

use super::base64;
use super::bytes::run;
use super::names;
use super::pem;
use super::shapes::{Alphabet, SHAPES, Shape};
use super::url;

/// Length of a rest, in bytes, that makes a prefix in the middle of a word a key's, if it is as mixed as keys are.
const GLUED: usize = 16;
/// Length of a word, in bytes, that a key may be joined to; anything longer is encoded data.
const MOST_JOINED: usize = 64;

/// A pattern that marks a secret. All are at least three bytes long.
enum Pattern {
    /// An entry of [`SHAPES`].
    Shape(usize),
    /// A JSON web token's header.
    Jwt,
    /// A private key's first line.
    Pem,
    /// The separator of a URL's scheme and authority, and whether it is percent-encoded.
    Url(&'static str, bool),
    /// The end of a variable's name.
    Name(&'static str),
    /// The scheme of a credential, as HTTP names it.
    Scheme(&'static str),
    /// The middle of a client secret of Microsoft Entra (gitleaks: azure-ad-client-secret).
    Entra([u8; 3]),
    /// A known secret, as it is or encoded.
    Value(Box<[u8]>),
}

/// The patterns, in groups by their first bytes.
pub(super) struct Finder {
    groups: Vec<Vec<Pattern>>,
    /// For each of the first three bytes the groups that have it there, as a bit set.
    begins: Box<[[u64; 256]; 3]>,
    /// Length of the longest pattern.
    pub(super) longest: usize,
}

/// The output hides the patterns, which contain secrets.
impl fmt::Debug for Finder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finder")
    }
}

/// Secrets that were found.
#[derive(Default)]
pub(super) struct Found {
    /// Ranges of secrets, sorted and disjoint.
    pub(super) ranges: Vec<Range<usize>>,
    /// Start of a possible secret that ends beyond the text.
    pub(super) open: Option<usize>,
}

impl Finder {
    /// Returns a finder for the known forms and `values`.
    pub(super) fn new(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut patterns: Vec<Pattern> = (0..SHAPES.len()).map(Pattern::Shape).collect();
        patterns.extend([Pattern::Jwt, Pattern::Pem]);
        let separators = [("://", false), (":\\/\\/", false), ("%3a%2f%2f", true)];
        patterns.extend(separators.map(|(text, encoded)| Pattern::Url(text, encoded)));
        patterns.extend(names::STEMS.iter().map(|stem| Pattern::Name(stem)));
        patterns.extend(["bearer ", "bearer%20"].map(Pattern::Scheme));
        patterns.extend((b'0'..=b'9').map(|digit| Pattern::Entra([digit, b'Q', b'~'])));
        patterns.extend(values.into_iter().filter(|value| value.len() >= 3).map(|value| Pattern::Value(value.into())));
        patterns.sort_by_cached_key(|pattern| pattern.start()[..3].to_ascii_lowercase());
        let longest = patterns.iter().map(|pattern| pattern.start().len()).max().unwrap_or_default();
        let in_group = patterns.len().div_ceil(64);
        let (mut groups, mut begins) = (Vec::new(), Box::new([[0; 256]; 3]));
        let mut patterns = patterns.into_iter().peekable();
        while patterns.peek().is_some() {
            let group: Vec<Pattern> = patterns.by_ref().take(in_group).collect();
            for (at, byte) in group.iter().flat_map(|pattern| pattern.start()[..3].iter().enumerate()) {
                for byte in [byte.to_ascii_lowercase(), byte.to_ascii_uppercase()] {
                    begins[at][usize::from(byte)] |= 1_u64 << groups.len();
                }
            }
            groups.push(group);
        }
        Self { groups, begins, longest }
    }

    /// Finds the secrets in `text`. Unless it is `whole`, more text follows.
    pub(super) fn find(&self, text: &[u8], whole: bool) -> Found {
        let mut found = self.find_plain(text, whole);
        base64::each_text(text, |decoded, place| {
            found.ranges.extend(self.find_plain(decoded, true).ranges.into_iter().map(place));
        });
        found.ranges.sort_unstable_by_key(|range| range.start);
        found.ranges.dedup_by(|next, last| {
            let joined = next.start <= last.end;
            if joined {
                last.end = last.end.max(next.end);
            }
            joined
        });
        found
    }

    fn find_plain(&self, text: &[u8], whole: bool) -> Found {
        let mut found = Found::default();
        let [first, second, third] = &*self.begins;
        for (at, three) in text.windows(3).enumerate() {
            let groups = first[usize::from(three[0])] & second[usize::from(three[1])] & third[usize::from(three[2])];
            if groups != 0 {
                self.match_patterns(text, at, groups, whole, &mut found);
            }
        }
        found
    }

    /// Matches the patterns of `groups` at `at`.
    fn match_patterns(&self, text: &[u8], at: usize, groups: u64, whole: bool, found: &mut Found) {
        let groups = self.groups.iter().enumerate().filter(|(bit, _)| groups >> bit & 1 == 1);
        for pattern in groups.flat_map(|(_, patterns)| patterns) {
            let start = pattern.start();
            let here = text.get(at..at + start.len()).unwrap_or_default();
            let same = if pattern.ignores_case() { here.eq_ignore_ascii_case(start) } else { here == start };
            if !same {
                continue;
            }
            let end = at + start.len();
            let range = match pattern {
                Pattern::Shape(shape) => match_shape(text, at, *shape),
                Pattern::Jwt => web_token(text, at),
                Pattern::Pem => match pem::private_key(text, at, whole) {
                    pem::Key::Open => {
                        found.open = Some(found.open.map_or(at, |open| open.min(at)));
                        None
                    }
                    pem::Key::At(end) => Some(at..end),
                    pem::Key::None => None,
                },
                Pattern::Url(_, false) => url::password(text, at, end),
                Pattern::Url(_, true) => url::encoded_password(text, end),
                Pattern::Name(_) => names::assigned_value(text, at, end),
                Pattern::Scheme(_) => names::credential(text, end),
                Pattern::Entra(_) => match_entra_secret(text, at),
                Pattern::Value(_) => Some(at..end),
            };
            found.ranges.extend(range);
        }
    }
}

impl Pattern {
    fn start(&self) -> &[u8] {
        match self {
            Self::Shape(shape) => SHAPES[*shape].0.as_bytes(),
            Self::Jwt => b"eyJ",
            Self::Pem => b"-----BEGIN ",
            Self::Url(text, _) | Self::Name(text) | Self::Scheme(text) => text.as_bytes(),
            Self::Entra(text) => text,
            Self::Value(value) => value,
        }
    }

    fn ignores_case(&self) -> bool {
        matches!(self, Self::Url(..) | Self::Name(_) | Self::Scheme(_))
    }
}

/// Returns whether a word starts at `at`: not after a letter or digit, unless that ends an escape such as `\n`, `\u001b` or
/// `%20`.
fn begins_word(text: &[u8], at: usize) -> bool {
    let before = &text[..at];
    let ends_escape = |lead: &[u8], digits: usize| {
        before.len() >= lead.len() + digits && {
            let (escape, hex) = before[before.len() - lead.len() - digits..].split_at(lead.len());
            escape == lead && hex.iter().all(u8::is_ascii_hexdigit)
        }
    };
    !before.last().is_some_and(u8::is_ascii_alphanumeric)
        || (before.len() > 1 && before[at - 2] == b'\\')
        || ends_escape(b"\\u", 4)
        || ends_escape(b"\\x", 2)
        || ends_escape(b"%", 2)
}

/// Returns whether `text` is as mixed as generated keys are: digits, and letters of either case.
fn is_mixed(text: &[u8]) -> bool {
    let digits = text.iter().filter(|byte| byte.is_ascii_digit()).count();
    digits > 0 && text.iter().any(u8::is_ascii_uppercase) && text.iter().any(u8::is_ascii_lowercase)
}

fn match_shape(text: &[u8], at: usize, shape: usize) -> Option<Range<usize>> {
    let Shape(start, alphabet, least) = SHAPES[shape];
    let rest = &text[at + start.len()..];
    let mut length = run(rest, |byte| alphabet.holds(byte));
    while length > 0 && rest[length - 1] == b'.' {
        length -= 1; // of the sentence
    }
    let secret = at..at + start.len() + length;
    // The few short prefixes are also ends of words: only digits after them make a key.
    if length < least || (start.len() <= 3 && !rest[..length].iter().any(u8::is_ascii_digit)) {
        return None;
    }
    // Letters alone occur by chance in base64 data, such as an image.
    let is_word = start.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let in_base64 = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_');
    let joined = text[..at].iter().rev().take(MOST_JOINED + 1).take_while(in_base64).count();
    let by_chance = is_word && (joined > GLUED || (!matches!(alphabet, Alphabet::Base64) && length > least + GLUED));
    let is_generated = || match alphabet {
        Alphabet::Upper => rest[..length].iter().any(u8::is_ascii_digit),
        _ => is_mixed(&text[secret.clone()]),
    };
    let glued = || joined <= MOST_JOINED && length >= least.max(GLUED) && is_generated();
    (!by_chance && (begins_word(text, at) || glued())).then_some(secret)
}

/// RFC 7515 and 7516: three or five parts of base64url, joined by dots.
fn web_token(text: &[u8], at: usize) -> Option<Range<usize>> {
    let part = |from: usize| run(&text[from..], |byte| Alphabet::Word.holds(byte));
    let header = part(at);
    let mut end = at + header;
    let mut parts = 1;
    while parts < 5 && text.get(end) == Some(&b'.') {
        let length = part(end + 1);
        if length == 0 && parts != 1 {
            break;
        }
        end += 1 + length;
        parts += 1;
    }
    (header >= 12 && parts >= 3 && end - at >= 40).then_some(at..end)
}

fn match_entra_secret(text: &[u8], at: usize) -> Option<Range<usize>> {
    let holds = |byte: u8| Alphabet::Dotted.holds(byte) || byte == b'~';
    let start = at.checked_sub(3)?;
    let length = run(&text[at + 3..], holds);
    (text[start..at].iter().all(|byte| holds(*byte)) && (31..=40).contains(&length)).then(|| start..at + 3 + length)
}
