//! Why a text is no value of a type, and in which field.

use serde::de::DeserializeOwned;

use crate::run::text::one_line;

/// Longest reason, in characters.
pub(super) const REASON_LENGTH: usize = 160;

/// Reads a value; where it is not one, why and in which field.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| flaw(text, &error))
}

pub(super) fn flaw(text: &str, error: &serde_json::Error) -> String {
    let said = error.to_string();
    let why = said.rsplit_once(" at line ").map_or(said.as_str(), |(why, _)| why);
    // What closes the object around the field may have been read by then.
    let seen = error.column() - usize::from(text.as_bytes().get(error.column().wrapping_sub(1)) == Some(&b'}'));
    let field = if error.line() == 1 { field_at(text, seen) } else { String::new() };
    let field = if field.is_empty() { field } else { field + ": " };
    one_line(&format!("{field}{why}"), REASON_LENGTH)
}

/// The path of the field that the first `length` bytes of a JSON text end in: `options.budget.max_cost`.
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
