//! Amounts that are within their ranges: finite, not negative and not absurdly large.
//!
//! They are read from text and JSON by the same rule; the error names the expected value.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest duration, in seconds (about 31 years), and largest amount of dollars.
pub const LARGEST: f64 = 1e9;

/// Units of a duration, in seconds.
const UNITS: [(char, f64); 5] = [('s', 1.0), ('m', 60.0), ('h', 3600.0), ('d', 86_400.0), ('w', 604_800.0)];

/// A duration in seconds: finite, not negative, at most [`LARGEST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Seconds(f64);

/// An amount of US dollars: finite, not negative, at most [`LARGEST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Dollars(f64);

/// A whole number from `LEAST` to `MOST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Count<const LEAST: u32, const MOST: u32>(u32);

/// Number of iterations of a run.
pub type Iterations = Count<1, 1_000_000>;
/// Number of further attempts at a subgoal.
pub type Retries = Count<0, 1000>;
/// Number of workers at a time.
pub type Jobs = Count<1, 1024>;
/// Number of subgoals of an iteration.
pub type Subgoals = Count<1, 512>;
/// Number of iterations without a change; 0 is no limit.
pub type Patience = Count<0, 1_000_000>;

/// An error: the value is out of its range. The text names the expected values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutOfRange(pub String);

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl std::error::Error for OutOfRange {}

fn amount(number: f64, expected: &str) -> Result<f64, OutOfRange> {
    if (0.0..=LARGEST).contains(&number) { Ok(number) } else { Err(OutOfRange(expected.to_owned())) }
}

impl Seconds {
    const EXPECTED: &str = "a duration such as 90, 30s, 10m, 2h or 1d";

    /// Returns the number of seconds.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// Returns the duration as the standard library's type.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs_f64(self.0)
    }
}

impl TryFrom<f64> for Seconds {
    type Error = OutOfRange;

    fn try_from(seconds: f64) -> Result<Self, OutOfRange> {
        amount(seconds, "seconds from 0 to 1000000000").map(Self)
    }
}

impl From<Seconds> for f64 {
    fn from(seconds: Seconds) -> Self {
        seconds.0
    }
}

impl FromStr for Seconds {
    type Err = OutOfRange;

    /// Parses a number of seconds, or a number with a unit.
    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        let text = text.trim();
        let with_unit = UNITS.iter().find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, *seconds)));
        let (number, unit) = with_unit.unwrap_or((text, 1.0));
        let number: f64 = number.trim_end().parse().map_err(|_| OutOfRange(Self::EXPECTED.to_owned()))?;
        amount(number * unit, Self::EXPECTED).map(Self)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Dollars {
    /// Returns the number of dollars.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Dollars {
    type Error = OutOfRange;

    fn try_from(dollars: f64) -> Result<Self, OutOfRange> {
        amount(dollars, "an amount from 0 to 1000000000").map(Self)
    }
}

impl From<Dollars> for f64 {
    fn from(dollars: Dollars) -> Self {
        dollars.0
    }
}

impl FromStr for Dollars {
    type Err = OutOfRange;

    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        Self::try_from(text.trim().parse().unwrap_or(f64::NAN))
    }
}

impl fmt::Display for Dollars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<const LEAST: u32, const MOST: u32> Count<LEAST, MOST> {
    /// Returns the count in the range that is nearest to `number`.
    #[must_use]
    pub const fn near(number: u32) -> Self {
        Self(if number < LEAST {
            LEAST
        } else if number > MOST {
            MOST
        } else {
            number
        })
    }

    /// Returns the count as a number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    fn out_of_range() -> OutOfRange {
        OutOfRange(format!("a whole number from {LEAST} to {MOST}"))
    }
}

impl<const LEAST: u32, const MOST: u32> TryFrom<u64> for Count<LEAST, MOST> {
    type Error = OutOfRange;

    /// Limits a number above the range to its end: earlier versions recorded any, and the smaller limit is the safe one.
    fn try_from(number: u64) -> Result<Self, OutOfRange> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if number < LEAST { Err(Self::out_of_range()) } else { Ok(Self::near(number)) }
    }
}

impl<const LEAST: u32, const MOST: u32> From<Count<LEAST, MOST>> for u64 {
    fn from(count: Count<LEAST, MOST>) -> Self {
        Self::from(count.0)
    }
}

impl<const LEAST: u32, const MOST: u32> FromStr for Count<LEAST, MOST> {
    type Err = OutOfRange;

    /// Parses a number. One above the range is an error, as a user's value is not changed.
    fn from_str(text: &str) -> Result<Self, OutOfRange> {
        let number = text.trim().parse().ok().filter(|number| (LEAST..=MOST).contains(number));
        number.map(Self).ok_or_else(Self::out_of_range)
    }
}

impl<const LEAST: u32, const MOST: u32> fmt::Display for Count<LEAST, MOST> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_and_without_units() {
        for (text, seconds) in [
            ("90", Some(90.0)),
            ("1.5", Some(1.5)),
            ("0", Some(0.0)),
            ("30s", Some(30.0)),
            ("10m", Some(600.0)),
            ("1.5h", Some(5400.0)),
            ("1d", Some(86_400.0)),
            ("2w", Some(1_209_600.0)),
            (" 5 m ", Some(300.0)),
            ("1e3", Some(1000.0)),
            ("-1", None),
            ("-1s", None),
            ("NaN", None),
            ("inf", None),
            ("infs", None),
            ("1e300", None),
            ("1e9d", None),
            ("", None),
            ("m", None),
            ("yesterday", None),
            ("10 minutes", None),
        ] {
            assert_eq!(text.parse::<Seconds>().ok().map(Seconds::get), seconds, "{text:?}");
        }
        assert!("x".parse::<Seconds>().unwrap_err().to_string().starts_with("expected a duration such as 90, 30s"));
    }

    #[test]
    fn what_is_read_from_json_is_in_its_range() {
        for (text, seconds) in [("90", Some(90.0)), ("0.5", Some(0.5)), ("-1", None), ("1e300", None), ("null", None)] {
            assert_eq!(serde_json::from_str::<Seconds>(text).ok().map(Seconds::get), seconds, "{text}");
            assert_eq!(serde_json::from_str::<Dollars>(text).ok().map(Dollars::get), seconds, "{text}");
        }
        for (text, count) in [
            ("1", Some(1)),
            ("9", Some(9)),
            ("10", Some(9)),
            ("1e3", None),
            ("18446744073709551615", Some(9)),
            ("0", None),
            ("-1", None),
        ] {
            assert_eq!(serde_json::from_str::<Count<1, 9>>(text).ok().map(Count::get), count, "{text}");
        }
        assert_eq!(serde_json::to_string(&(Seconds(90.0), Jobs::near(4))).unwrap(), "[90.0,4]");
    }

    #[test]
    fn a_count_a_person_names_is_in_the_range_or_refused() {
        for (text, count) in
            [("1", Some(1)), (" 1024 ", Some(1024)), ("0", None), ("1025", None), ("-1", None), ("x", None)]
        {
            assert_eq!(text.parse::<Jobs>().ok().map(Count::get), count, "{text:?}");
        }
        assert_eq!("0".parse::<Jobs>().unwrap_err().to_string(), "expected a whole number from 1 to 1024");
        assert_eq!((Jobs::near(0).get(), Jobs::near(u32::MAX).get()), (1, 1024));
    }
}
