//! Classification of values by their form: possible secrets, placeholders, names, paths and ids.

/// Replacement of a secret.
pub(super) const REDACTED: &str = "[redacted]";

/// Returns whether `value` is a placeholder for a secret.
pub(super) fn is_placeholder(value: &[u8]) -> bool {
    matches!(value.first(), Some(b'$' | b'<' | b'{'))
        || value == b"%s"
        || value.iter().all(|byte| matches!(byte, b'*' | b'x' | b'X' | b'.'))
        || value.starts_with(REDACTED.as_bytes())
}

/// Returns whether digits and letters are mixed in `value` as in generated values.
pub(super) fn is_random(value: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in value {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    let has = |is: fn(&u8) -> bool| value.iter().any(is);
    distinct >= 6 && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic)
}

/// Returns whether `value` is a name: lower-case letters or capitals, with separators.
pub(super) fn is_identifier(value: &[u8]) -> bool {
    let joined = |byte: &u8| matches!(byte, b'_' | b'-' | b'.' | b' ' | b':');
    value.iter().all(|byte| byte.is_ascii_lowercase() || joined(byte))
        || value.iter().all(|byte| byte.is_ascii_uppercase() || joined(byte))
}

/// Returns whether `value` is an expression of a program: names joined by dots.
pub(super) fn is_expression(value: &[u8]) -> bool {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    value.contains(&b'.')
        && value
            .split(|byte| *byte == b'.')
            .all(|part| part.first().is_some_and(u8::is_ascii_alphabetic) && part.iter().all(is_name))
}

pub(super) fn is_path(value: &str) -> bool {
    let is_name = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'.' | b'-' | b'_') || byte.is_ascii_digit())
    };
    let below = value.strip_prefix("~/").or_else(|| value.strip_prefix("./")).or_else(|| value.strip_prefix('/'));
    below.is_some_and(|below| below.split('/').filter(|part| is_name(part)).count() * 2 >= below.split('/').count())
}

/// Returns whether `value` is a UUID (RFC 9562).
pub(super) fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value
            .iter()
            .enumerate()
            .all(|(at, byte)| if matches!(at, 8 | 13 | 18 | 23) { *byte == b'-' } else { byte.is_ascii_hexdigit() })
}
