//! Parses the value of one argument.

use crate::options::{self, Value, Wrong};
use crate::run::amount::Seconds;
use crate::run::goal::Check;

/// Prefix of an argument that begins with a dash but is not a flag; a NUL cannot occur in an argument.
pub const MARK: char = '\0';

/// Returns an argument unchanged.
#[allow(clippy::unnecessary_wraps)] // the signature of a value parser
pub fn text(text: &str) -> Result<String, String> {
    Ok(unmarked(text).to_owned())
}

pub fn unmarked(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// Parses a value of an option's type.
pub fn value<T: Value>(text: &str) -> Result<T, Wrong> {
    T::read(&[unmarked(text).to_owned()])
}

pub fn command(text: &str) -> Result<Check, Wrong> {
    options::command::read(unmarked(text))
}

/// Parses a duration, which may be 0.
pub fn duration(text: &str) -> Result<Seconds, Wrong> {
    let text = unmarked(text);
    text.parse().map_err(|error: crate::run::amount::OutOfRange| Wrong { value: text.to_owned(), expected: error.0 })
}

pub fn at_least_one<T: std::str::FromStr + Default + PartialOrd>(text: &str) -> Result<T, Wrong> {
    let number = unmarked(text).parse().ok().filter(|number| *number > T::default());
    number.ok_or_else(|| Wrong { value: text.to_owned(), expected: "a whole number of at least 1".to_owned() })
}
