//! Passwords in URLs (RFC 3986, section 3.2.1).

use std::ops::Range;

use super::bytes::run;
use super::value::{is_placeholder, is_random};

/// Longest user and password that are looked for, in bytes.
const LONGEST: usize = 2048;
/// Length from which a user without a password is taken for a token, if digits and letters are mixed in it.
const TOKEN: usize = 20;

/// Returns the range of the password in the URL whose `://` is at `at` and ends at `end`.
pub(super) fn password(text: &[u8], at: usize, end: usize) -> Option<Range<usize>> {
    if !text[..at].last().is_some_and(u8::is_ascii_alphanumeric) {
        return None;
    }
    let rest = &text[end..text.len().min(end + LONGEST)];
    let authority = run(rest, |byte| !byte.is_ascii_whitespace() && !b"/?#\"'<>`\\{}|".contains(&byte));
    let user_info = rest[..authority].iter().rposition(|byte| *byte == b'@')?;
    secret_part(&rest[..user_info], end, |part| part.iter().position(|byte| *byte == b':').map(|at| (at, 1)))
}

/// Returns the range of the password in a percent-encoded URL whose authority starts at `from`.
pub(super) fn encoded_password(text: &[u8], from: usize) -> Option<Range<usize>> {
    let rest = &text[from..text.len().min(from + LONGEST)];
    let length = run(rest, |byte| !byte.is_ascii_whitespace() && !b"/?#\"'<>`\\{}|&".contains(&byte));
    let find = |part: &[u8], what: &[u8]| part.windows(3).position(|here| here.eq_ignore_ascii_case(what));
    let authority = find(&rest[..length], b"%2f").unwrap_or(length);
    let user_info = find(&rest[..authority], b"%40")?;
    secret_part(&rest[..user_info], from, |part| find(part, b"%3a").map(|at| (at, 3)))
}

fn secret_part(user_info: &[u8], from: usize, colon: impl Fn(&[u8]) -> Option<(usize, usize)>) -> Option<Range<usize>> {
    let Some((at, length)) = colon(user_info) else {
        let is_token = user_info.len() >= TOKEN && is_random(user_info);
        return is_token.then(|| from..from + user_info.len());
    };
    let password = &user_info[at + length..];
    let is_known = !password.is_empty() && !is_placeholder(password);
    is_known.then(|| from + at + length..from + user_info.len())
}
