//! One argument's text as a value.

use crate::options::{self, Value, Wrong};
use crate::run::amount::Seconds;
use crate::run::goal::Check;

/// What stands before an argument that begins with a dash and is no flag; no argument can hold it by itself.
pub const MARK: char = '\0';

/// An argument as it was given.
#[allow(clippy::unnecessary_wraps)] // what a value parser looks like
pub fn text(text: &str) -> Result<String, String> {
    Ok(unmarked(text).to_owned())
}

pub fn unmarked(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

/// A value as options of its type are read.
pub fn value<T: Value>(text: &str) -> Result<T, Wrong> {
    T::read(&[unmarked(text).to_owned()])
}

pub fn command(text: &str) -> Result<Check, Wrong> {
    options::command::read(unmarked(text))
}

/// A duration that may be 0.
pub fn duration(text: &str) -> Result<Seconds, Wrong> {
    let text = unmarked(text);
    text.parse().map_err(|error: crate::run::amount::OutOfRange| Wrong { value: text.to_owned(), expected: error.0 })
}

pub fn at_least_one<T: std::str::FromStr + Default + PartialOrd>(text: &str) -> Result<T, Wrong> {
    let number = unmarked(text).parse().ok().filter(|number| *number > T::default());
    number.ok_or_else(|| Wrong { value: text.to_owned(), expected: "a whole number of at least 1".to_owned() })
}
