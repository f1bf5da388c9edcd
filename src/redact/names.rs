//! Secrets that are found by the name of their variable, field or header: `DB_PASSWORD=…`, `"api_key": "…"`, `Authorization:
//! Bearer …`.

use std::ops::Range;

use super::bytes::run;
use super::shapes::Alphabet;
use super::url;
use super::value::{is_expression, is_identifier, is_path, is_placeholder, is_random, is_uuid};

/// Ends of names of secrets; each match in a text is checked further.
pub(super) const STEMS: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "_pass",
    "_pwd",
    "secret",
    "token",
    "key",
    "_pat",
    "auth",
    "credential",
    "credentials",
    "authorization",
];

/// Longest name and longest value, in bytes.
const LONGEST_NAME: usize = 64;
const LONGEST: usize = 4096;
/// Length of the shortest secret: anything shorter is a word.
const SHORTEST: usize = 8;
/// Length from which a value in code or data is taken for a token or a key.
const SHORTEST_TOKEN: usize = 16;

/// The kind of value that a name promises.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A value that a person may have chosen.
    Password,
    /// A generated value.
    Token,
    /// A generated value, or one that a map or a table is ordered by.
    Key,
    /// A URL, which may hold a password.
    Url,
}

/// Returns the kind of value that `name`, in any case and style, promises.
fn kind(name: &str) -> Option<Kind> {
    let name = name.to_ascii_uppercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if ends(&["PASSWORD", "PASSWD", "PASSPHRASE", "_PASS", "_PWD"]) {
        Some(Kind::Password)
    } else if ends(&["TOKEN", "SECRET", "_PAT", "AUTH", "CREDENTIAL", "CREDENTIALS", "AUTHORIZATION"]) {
        Some(Kind::Token)
    } else if ends(&["KEY"]) {
        Some(Kind::Key)
    } else {
        ends(&["_URL", "_URI", "_DSN", "CONNECTION_STRING"]).then_some(Kind::Url)
    }
}

/// Returns the secrets in an environment variable: its value or, if that is a URL, its password.
pub(super) fn secrets_of(name: &str, value: &str) -> Vec<Vec<u8>> {
    let Some(kind) = kind(name) else { return Vec::new() };
    let value = value.trim();
    if let Some(at) = value.find("://") {
        let password = url::password(value.as_bytes(), at, at + 3);
        let password = password.map(|part| value.as_bytes()[part].to_vec());
        return password.filter(|password| password.len() >= SHORTEST).into_iter().collect();
    }
    let is_database = name.to_ascii_uppercase().ends_with("DATABASE_URL");
    let is_secret = match kind {
        Kind::Url => is_database && is_random(value.as_bytes()),
        // A password of lower-case letters alone may be as short as common words: "postgres".
        Kind::Password => value.bytes().any(|byte| !byte.is_ascii_lowercase()) || value.len() >= 12,
        Kind::Token | Kind::Key => !is_identifier(value.as_bytes()),
    };
    if value.len() < SHORTEST || !is_secret || is_path(value) || is_placeholder(value.as_bytes()) {
        return Vec::new();
    }
    // The lines are separate secrets, as a text may break them elsewhere; a line that is not random, such as a brace, is
    // none.
    let lines = value.lines().map(str::trim).filter(|line| line.len() >= SHORTEST);
    let is_one = value.lines().count() == 1;
    let lines = lines.filter(|line| is_one || is_random(line.as_bytes()) && !line.contains("-----"));
    lines
        .flat_map(|line| line.as_bytes().chunks(1024).map(<[u8]>::to_vec))
        .filter(|part| part.len() >= SHORTEST)
        .collect()
}

/// Returns the range of the value that is assigned to the name which ends with `text[at..end]`.
pub(super) fn assigned_value(text: &[u8], at: usize, end: usize) -> Option<Range<usize>> {
    let holds = |byte: u8| Alphabet::Word.holds(byte);
    let first = end.saturating_sub(LONGEST_NAME);
    let mut before = text[first..at].iter().rev().take_while(|byte| holds(**byte)).count();
    if before > 0 && text[..at - before].last() == Some(&b'\\') {
        before -= 1; // of an escape such as \n
    }
    let start = at - before;
    let name = std::str::from_utf8(&text[start..end]).ok()?;
    let is_variable = name.bytes().all(|byte| !byte.is_ascii_lowercase());
    let begins_line = start == 0 || matches!(text[start - 1], b'\n' | b'\\');
    let words = upper_snake_case(name);
    let kind = kind(&words)?;
    if kind == Kind::Key && !is_key(&words, is_variable) {
        return None;
    }
    let mut from = end + run(&text[end..], |byte| matches!(byte, b'\\' | b'"' | b'\''));
    let spaces = |from: usize| run(&text[from..], |byte| matches!(byte, b' ' | b'\t')).min(8);
    let gap = spaces(from);
    from += gap;
    let separator = separator(&text[from..]);
    let is_flag = name.contains("--") && gap == 1;
    if separator == 0 && !is_flag {
        return None;
    }
    let is_plain = (is_variable || begins_line) && text.get(end) == Some(&b'=');
    from += separator;
    from += spaces(from);
    if kind == Kind::Token && words.ends_with("AUTHORIZATION") {
        from += open_quote(&text[from..]);
        let scheme = run(&text[from..], |byte| byte.is_ascii_alphabetic());
        let gap = spaces(from + scheme);
        from += if gap > 0 && scheme < 16 { scheme + gap } else { 0 };
        let length = run(&text[from..], |byte| Alphabet::Base64.holds(byte) || byte == b':');
        return (length >= SHORTEST && !is_identifier(&text[from..from + length])).then(|| from..from + length);
    }
    let quotes = open_quote(&text[from..]);
    from += quotes;
    let rest = &text[from..text.len().min(from + LONGEST)];
    let length = match quotes {
        0 => unquoted(rest, is_plain)?,
        _ => quoted(rest, text[from - 1], quotes > 1),
    };
    let value = &rest[..length];
    let is_word = value.len() < 12 && value.iter().all(u8::is_ascii_lowercase);
    let is_secret = match kind {
        Kind::Password if is_plain => value.len() >= SHORTEST && !is_word,
        Kind::Password => value.len() >= SHORTEST && is_random(value),
        Kind::Token if is_plain => value.len() >= SHORTEST && is_random(value),
        Kind::Token => value.len() >= SHORTEST_TOKEN && is_random(value),
        Kind::Key => value.len() >= SHORTEST_TOKEN && is_random(value) && !is_uuid(value),
        Kind::Url => false,
    };
    let repeats = value.len() >= name.len() && value[..name.len()].eq_ignore_ascii_case(name.as_bytes());
    let is_secret = is_secret && !repeats && !is_placeholder(value) && !value.iter().any(u8::is_ascii_whitespace);
    (is_secret && (quotes > 0 || is_plain || !is_expression(value))).then(|| from..from + length)
}

/// Returns the range of the credential at `from`, after the scheme of HTTP's `Authorization` (RFC 9110, section 11).
pub(super) fn credential(text: &[u8], from: usize) -> Option<Range<usize>> {
    let rest = text.get(from..)?;
    let length = run(rest, |byte| Alphabet::Base64.holds(byte) || byte == b':');
    let value = &rest[..length];
    let is_credential = length >= SHORTEST_TOKEN && (is_random(value) || length >= 40 && !is_identifier(value));
    is_credential.then(|| from..from + length)
}

/// Converts `name` to capitals with `_` between its words: `accessToken`, `x-api-key`.
fn upper_snake_case(name: &str) -> String {
    let mut words = String::with_capacity(name.len() + 4);
    let mut was_lower = false;
    for letter in name.chars() {
        if was_lower && letter.is_ascii_uppercase() {
            words.push('_');
        }
        was_lower = letter.is_ascii_lowercase();
        words.push(if letter == '-' { '_' } else { letter.to_ascii_uppercase() });
    }
    words
}

/// Returns whether a key of this name gives access to something.
fn is_key(words: &str, is_variable: bool) -> bool {
    let before = words.trim_end_matches("KEY").trim_end_matches('_');
    let last = before.rsplit('_').next().unwrap_or_default();
    let opens = [
        "API",
        "SECRET",
        "ACCESS",
        "PRIVATE",
        "AUTH",
        "ENCRYPTION",
        "SIGNING",
        "ACCOUNT",
        "MASTER",
        "SERVICE",
        "APP",
        "LICENSE",
        "DEPLOY",
        "SUBSCRIPTION",
        "STORAGE",
    ];
    let orders = [
        "PRIMARY",
        "FOREIGN",
        "PUBLIC",
        "CACHE",
        "SORT",
        "PARTITION",
        "HOST",
        "UNIQUE",
        "INDEX",
        "IDEMPOTENCY",
        "RESTORE",
        "GPG",
        "",
        "HOT",
        "MON",
        "TUR",
    ];
    opens.iter().any(|word| last.ends_with(word)) || (is_variable && before != words && !orders.contains(&last))
}

/// Returns the length of the separator between a name and its value.
fn separator(text: &[u8]) -> usize {
    match text {
        [b'=', b'>', ..] | [b':', b'=', ..] => 2,
        [b'=', b'=' | b'~', ..] | [b':', b':', ..] => 0,
        [b'=' | b':', ..] => 1,
        [b'%', b'3', b'D' | b'd' | b'A' | b'a', ..] => 3,
        _ => 0,
    }
}

/// Returns the length of the quote that opens a value, with the backslashes before it.
fn open_quote(text: &[u8]) -> usize {
    let slashes = run(text, |byte| byte == b'\\').min(8);
    match text.get(slashes) {
        Some(b'"' | b'\'' | b'`') => slashes + 1,
        _ => 0,
    }
}

/// Returns the length of a value up to its closing quote.
fn quoted(rest: &[u8], quote: u8, is_escaped: bool) -> usize {
    let mut at = 0;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\n' => break,
            b'\\' if is_escaped => break,
            b'\\' => at += 1,
            byte if *byte == quote => break,
            _ => {}
        }
        at += 1;
    }
    at.min(rest.len())
}

/// Returns the length of a value without quotes, or `None` if it is the start of an expression.
fn unquoted(rest: &[u8], is_plain: bool) -> Option<usize> {
    let ends = |byte: u8| {
        byte.is_ascii_whitespace() || b"\"'`\\".contains(&byte) || (!is_plain && b"<>|;,&()[]{}".contains(&byte))
    };
    let length = run(rest, |byte| !ends(byte));
    (is_plain || !matches!(rest.get(length), Some(b'(' | b'[' | b'{'))).then_some(length)
}
