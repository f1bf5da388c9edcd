//! Private keys in PEM (RFC 7468), over several lines or escaped in one, as programs print them: with line numbers, the
//! signs of a diff, in quotes.

use super::bytes::run;
use super::shapes::Alphabet;

/// Longest key, in bytes: RSA with 16384 bits takes 12.6 KiB.
const LONGEST: usize = 24 * 1024;
/// Number of base64 characters that make a line part of a key.
const LEAST_LINE: usize = 16;
/// Number of consecutive other lines (headers, an empty line) that a key may contain.
const OTHER_LINES: usize = 4;
/// Longest of those lines, in bytes.
const LONGEST_OTHER: usize = 120;

pub(super) enum Key {
    None,
    /// The key, or a possible key, ends beyond the text.
    Open,
    /// The key ends at this position.
    At(usize),
}

/// Finds the key whose `-----BEGIN ` is at `at`.
pub(super) fn private_key(text: &[u8], at: usize, whole: bool) -> Key {
    let limit = text.len().min(at + LONGEST);
    let may_go_on = !whole && limit == text.len();
    let label_at = at + "-----BEGIN ".len();
    let label = run(&text[label_at..limit], |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ');
    let rest = &text[label_at + label..limit];
    if rest.len() < 5 && may_go_on && b"-----".starts_with(rest) {
        return Key::Open;
    }
    let title = text[label_at..label_at + label].trim_ascii_end();
    if !(title.ends_with(b"PRIVATE KEY") || title.ends_with(b"PRIVATE KEY BLOCK")) || !rest.starts_with(b"-----") {
        return Key::None;
    }
    let mut line_at = label_at + label + 5;
    let mut end = None;
    let mut others = 0;
    loop {
        let Some((length, gap)) = split_line(&text[line_at..limit]) else {
            let last = &text[line_at..limit];
            if may_go_on {
                return Key::Open;
            }
            if let Some(close) = end_of_key(last).or_else(|| end_of_base64(last)) {
                end = Some(line_at + close);
            }
            break;
        };
        let content = &text[line_at..line_at + length];
        if let Some(close) = end_of_key(content) {
            return Key::At(line_at + close);
        }
        if let Some(length) = end_of_base64(content) {
            end = Some(line_at + length);
            others = 0;
        } else {
            others += 1;
            if others > OTHER_LINES || length > LONGEST_OTHER {
                break;
            }
        }
        line_at += length + gap;
    }
    end.map_or(Key::None, Key::At)
}

/// Returns the length of the first line, and that of its line break: a newline, or one that is escaped any number of times.
fn split_line(text: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'\n' => return Some((at, 1)),
            b'\\' => {
                let slashes = run(&text[at..], |byte| byte == b'\\');
                match text.get(at + slashes)? {
                    b'n' | b'r' => return Some((at, slashes + 1)),
                    _ => at += slashes,
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// Returns the end of the key, if `line` is its last line.
fn end_of_key(line: &[u8]) -> Option<usize> {
    let start = line.windows(9).position(|part| part == b"-----END ")? + 9;
    let end = line[start..].windows(5).position(|part| part == b"-----")?;
    Some(start + end + 5)
}

/// Returns the end of the base64 in `line`, if there is enough of it.
fn end_of_base64(line: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < line.len() {
        let length = run(&line[at..], |byte| Alphabet::Base64.holds(byte));
        if length >= LEAST_LINE {
            return Some(at + length);
        }
        at += length.max(1);
    }
    None
}
