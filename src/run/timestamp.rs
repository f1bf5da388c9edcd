//! Times, as the log holds them.

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The last millisecond of the year 9999.
const LAST: i64 = 253_402_300_799_999;

/// A time: milliseconds since the Unix epoch. In JSON, seconds with three decimals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Returns the time `seconds` later.
    #[must_use]
    pub fn plus(self, seconds: f64) -> Self {
        #[allow(clippy::cast_possible_truncation)] // `as` saturates, which is what a far future should do
        Self(self.0.saturating_add((seconds * 1000.0).round() as i64))
    }

    /// Returns the time `seconds` after the Unix epoch, or `None` if it is before that or after the year 9999.
    #[must_use]
    pub fn from_seconds(seconds: f64) -> Option<Self> {
        let moment = Self(0).plus(seconds);
        (seconds >= 0.0 && moment.0 <= LAST).then_some(moment)
    }

    /// Returns the seconds since `earlier`; negative if that is later.
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // exact for 285,000 years
    pub fn since(self, earlier: Self) -> f64 {
        self.0.saturating_sub(earlier.0) as f64 / 1000.0
    }

    /// Writes the time in `zone` for a reader at `now`: `15:04`, `Dec 4, 15:04` or `Jan 4 2027, 15:04`.
    #[must_use]
    pub fn shown(self, now: Self, zone: &TimeZone) -> String {
        let civil = |moment: Self| jiff::Timestamp::from_millisecond(moment.0).ok().map(|it| it.to_zoned(zone.clone()));
        let Some((moment, now)) = civil(self).zip(civil(now)) else { return "never".to_owned() };
        let form = match moment.date() {
            date if date == now.date() => "%H:%M",
            date if date.year() == now.year() => "%b %-d, %H:%M",
            _ => "%b %-d %Y, %H:%M",
        };
        moment.strftime(form).to_string()
    }

    /// Returns the seconds since the Unix epoch.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_in_the_zone_of_its_reader() {
        let now = Timestamp(1_796_126_400_000); // 2026-12-01T12:00Z
        let zone = TimeZone::get("America/New_York").unwrap();
        let shown = |hours: f64| now.plus(hours * 3600.0).shown(now, &zone);
        assert_eq!([shown(0.5), shown(17.0), shown(24.0 * 40.0)], ["07:30", "Dec 2, 00:00", "Jan 10 2027, 07:00"]);
        assert_eq!(Timestamp(i64::MAX).shown(now, &zone), "never");
    }
}
