//! Ranges of the numbers in a record, enforced as they are read: a number beyond them was not written by a driver, and would
//! overflow, never end or never begin.

use serde::{Deserialize, Deserializer, de};

use super::amount::Seconds;
use super::id::is_inside;

/// Largest number of an event. Drivers number without gaps, so that no run comes near it.
pub const LAST_SEQ: u64 = 1 << 53;
/// Largest distance between the numbers of two events: a log that lost pages has gaps.
pub const LARGEST_GAP: u64 = 1 << 20;
/// Largest number of agent calls of a run.
const MOST_CALLS: u64 = 1 << 40;
/// Largest number of iterations of a run, and of attempts at a subgoal.
const MOST_ATTEMPTS: u32 = 1 << 24;
/// Largest number of subgoals of an iteration.
pub const MOST_SUBGOALS: usize = 4096;

pub(super) fn within<'de, D, T>(
    deserializer: D,
    fits: impl Fn(&T) -> bool,
    expected: &'static str,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let value = T::deserialize(deserializer)?;
    if fits(&value) { Ok(value) } else { Err(de::Error::custom(format_args!("expected {expected}"))) }
}

pub(super) fn seq<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, |seq| (1..=LAST_SEQ).contains(seq), "a number from 1 to 2^53")
}

pub(super) fn call<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    within(deserializer, |call| *call <= MOST_CALLS, "a number up to 2^40")
}

pub(super) fn attempts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    within(deserializer, |attempts| *attempts <= MOST_ATTEMPTS, "a number up to 2^24")
}

pub(super) fn iteration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let fits = |number: &Option<u32>| number.is_none_or(|number| number <= MOST_ATTEMPTS);
    within(deserializer, fits, "an iteration up to 2^24")
}

/// Reads a duration in seconds.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    within(deserializer, |seconds| Seconds::try_from(*seconds).is_ok(), "seconds from 0 to 1000000000")
}

/// Reads a text without control characters.
pub(super) fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    within(deserializer, |name: &String| !name.contains(char::is_control), "a name without control characters")
}

pub(super) fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let fits = |name: &Option<String>| name.as_ref().is_none_or(|name| !name.contains(char::is_control));
    within(deserializer, fits, "a name without control characters")
}

/// Reads paths of a repository, relative to its top level.
pub(super) fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let fits = |paths: &Vec<String>| paths.iter().all(|path| is_inside(path));
    within(deserializer, fits, "paths inside the repository")
}
