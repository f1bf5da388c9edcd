//! Reasons why a text is not a value of a type, with the field.

use serde::de::DeserializeOwned;

use crate::run::text::one_line;

/// Longest reason, in characters.
pub(super) const REASON_LENGTH: usize = 160;

/// Parses a value; the error names the reason and the field.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| flaw(text, &error))
}

pub(super) fn flaw(text: &str, error: &serde_json::Error) -> String {
    let text_of_error = error.to_string();
    let why = text_of_error.rsplit_once(" at line ").map_or(text_of_error.as_str(), |(why, _)| why);
    // The brace that closes the object around the field may have been read by then.
    let seen = error.column() - usize::from(text.as_bytes().get(error.column().wrapping_sub(1)) == Some(&b'}'));
    let field = if error.line() == 1 { field_at(text, seen) } else { String::new() };
    let field = if field.is_empty() { field } else { field + ": " };
    one_line(&format!("{field}{why}"), REASON_LENGTH)
}

/// Returns the path of the field in which the first `length` bytes of a JSON text end: `options.budget.max_cost`.
fn field_at(text: &str, length: usize) -> String {
    let mut path: Vec<&str> = Vec::new();
    let (mut start, mut escaped, mut last) = (None, false, "");
    for (at, byte) in text.bytes().enumerate().take(length) {
        match (start, byte) {
            (Some(from), byte) => match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => (last, start) = (&text[from..at], None),
                _ => {}
            },
            (None, b'"') => start = Some(at + 1),
            (None, b'{' | b'[') => path.push(""),
            (None, b'}' | b']') => _ = path.pop(),
            (None, b':') => {
                if let Some(key) = path.last_mut() {
                    *key = last;
                }
            }
            _ => {}
        }
    }
    path.retain(|key| !key.is_empty());
    path.join(".")
}
