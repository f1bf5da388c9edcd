//! Moments, as the log holds them.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The last millisecond of the year 9999.
const LAST: i64 = 253_402_300_799_999;

/// A moment: milliseconds since the Unix epoch. In JSON, seconds with three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The moment `seconds` later.
    #[must_use]
    pub fn plus(self, seconds: f64) -> Self {
        #[allow(clippy::cast_possible_truncation)] // `as` saturates, which is what a far future should do
        Self(self.0.saturating_add((seconds * 1000.0).round() as i64))
    }

    /// The moment `seconds` after the Unix epoch; nothing where that is before it, or after the year 9999.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let moment = Self(0).plus(seconds);
        (seconds >= 0.0 && moment.0 <= LAST).then_some(moment)
    }

    /// Seconds since `earlier`; negative where it is later.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // exact for 285,000 years
    pub fn since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1000.0
    }

    /// Seconds since the Unix epoch.
    #[must_use]
    pub fn seconds(self) -> f64 {
        self.since(Self(0))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(Self(self.0.clamp(0, LAST)).seconds())
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_seconds(f64::deserialize(deserializer)?)
            .ok_or_else(|| de::Error::custom("expected seconds since 1970, up to the year 9999"))
    }
}
