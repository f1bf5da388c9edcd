//! One argument's text as a value.

use crate::run::goal::{AgentChoice, Check, Isolation, Permissions};
use crate::settings::{self, check, whole};

/// What stands before an argument that begins with a dash and is no flag; no argument can hold it by itself.
pub const MARK: char = '\0';

/// An argument as it was given.
#[allow(clippy::unnecessary_wraps)] // what a value parser looks like
pub fn text(text: &str) -> Result<String, String> {
    Ok(unmarked(text).to_owned())
}

fn unmarked(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

pub fn verify(text: &str) -> Result<Check, String> {
    check(unmarked(text))
}

pub fn agent(text: &str) -> Result<AgentChoice, String> {
    unmarked(text).parse()
}

pub fn permissions(text: &str) -> Result<Permissions, String> {
    text.parse()
}

pub fn isolation(text: &str) -> Result<Isolation, String> {
    text.parse()
}

pub fn at_least_none(text: &str) -> Result<u32, String> {
    whole(unmarked(text), 0..=u32::MAX)
}

pub fn at_least_one(text: &str) -> Result<u32, String> {
    whole(unmarked(text), 1..=u32::MAX)
}

pub fn at_least_one_u64(text: &str) -> Result<u64, String> {
    whole(unmarked(text), 1..=u64::MAX)
}

pub fn at_least_one_usize(text: &str) -> Result<usize, String> {
    whole(unmarked(text), 1..=usize::MAX)
}

pub fn dollars(text: &str) -> Result<f64, String> {
    settings::dollars(unmarked(text))
}

/// A span of time, in seconds.
pub fn age(text: &str) -> Result<f64, String> {
    let text = unmarked(text);
    let wrong = || format!("'{text}' is no span of time like 30m, 12h or 14d");
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        "w" => 604_800.0,
        _ => return Err(wrong()),
    };
    number.parse::<u32>().map(|number| f64::from(number) * seconds).map_err(|_| wrong())
}
