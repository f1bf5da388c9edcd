//! Reads from an agent's words when a usage limit resets.
//!
//! A reset follows a word such as "resets" or "again" and is a span ("in 2h 5m"), a time of day, a date, or both, in the
//! zone that is named or else the machine's, or seconds since the Unix epoch. The table in `reset_tests.rs` has the texts
//! and where each comes from.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp as Instant, ToSpan as _};

use crate::run::event::Timestamp;
use crate::run::work::is_believable_reset;

/// Bytes of a text that are read.
const LONGEST: usize = 16 << 10;
/// Words and marks between the word that announces a moment and the moment.
const FILLERS: usize = 8;
/// How long ago a time of day may be, in seconds, and still mean today: the clocks of two machines differ, and an agent
/// may repeat an older message. A later one means tomorrow.
const GRACE: i64 = 600;

/// The words that announce a moment.
const ANNOUNCING: &str = "reset resets again retry retrydelay wait access back available";
/// The words that may come before it.
const FILLING: &str = "at on in after for until your limit limits the it to be about less than by";

/// Abbreviations of zones: those of RFC 5322, section 4.3, and others that mean one offset everywhere.
const ABBREVIATIONS: [(i8, &str); 15] = [
    (-8, "pst"),
    (-7, "pdt mst"),
    (-6, "mdt cst"),
    (-5, "cdt est"),
    (-4, "edt"),
    (0, "z ut utc gmt"),
    (1, "bst west"),
    (2, "cest"),
    (3, "eest msk"),
    (9, "jst kst"),
    (10, "aest"),
    (11, "aedt"),
    (12, "nzst"),
    (13, "nzdt"),
    (-10, "hst"),
];
/// Zones of the United States by their everyday names.
const EVERYDAY: [(&str, &str); 4] = [
    ("pacific", "America/Los_Angeles"),
    ("mountain", "America/Denver"),
    ("central", "America/Chicago"),
    ("eastern", "America/New_York"),
];
const MONTHS: &str = "january february march april may june july august september october november december";
const WEEKDAYS: &str = "monday tuesday wednesday thursday friday saturday sunday";

/// Reads when a limit resets: the earliest moment that `words` name, where one is after `now` and not absurdly far.
pub(super) fn read(words: &str, now: Timestamp, here: &TimeZone) -> Option<Timestamp> {
    let words = words[..words.floor_char_boundary(LONGEST)].to_lowercase();
    let pieces = scan(&words);
    let now = Instant::from_millisecond(now.0).ok()?;
    let moments = (0..pieces.len()).filter_map(|at| {
        let reader = Reader { words: &words, pieces: &pieces, at: at + 1, now, here };
        match pieces[at].token {
            Token::Word(word) if is_one_of(ANNOUNCING, word) => reader.announced(word),
            Token::Mark('|') => reader.epoch(),
            _ => None,
        }
    });
    let moments = moments.map(|moment| Timestamp(moment.as_millisecond()));
    moments.filter(|moment| is_believable_reset(*moment, Timestamp(now.as_millisecond()))).min()
}

/// Reads `Retry-After`: seconds, or a date in one of the three forms of HTTP (RFC 9110, sections 10.2.3 and 5.6.7).
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Timestamp> {
    let value = value.trim();
    let dates = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let date = || dates.iter().find_map(|form| DateTime::strptime(form, value).ok());
    let moment = match value.parse::<f64>() {
        Ok(seconds) => now.plus(seconds),
        Err(_) => Timestamp(TimeZone::UTC.to_timestamp(date()?).ok()?.as_millisecond()),
    };
    is_believable_reset(moment, now).then_some(moment)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Number(&'a str),
    Word(&'a str),
    Mark(char),
}

#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    token: Token<'a>,
    /// Offset of its beginning, in bytes.
    start: usize,
}

/// Splits a text into numbers, words and marks.
fn scan(words: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0;
    while let Some(first) = words[start..].chars().next() {
        let rest = &words[start..];
        let length = |is_part: fn(char) -> bool| rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (token, length) = if first.is_ascii_digit() {
            let whole = length(|c| c.is_ascii_digit());
            let fraction = rest[whole..].strip_prefix('.').map_or(0, |rest| {
                let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                if digits == 0 { 0 } else { digits + 1 }
            });
            (Some(Token::Number(&rest[..whole + fraction])), whole + fraction)
        } else if first.is_alphabetic() {
            let length = length(char::is_alphabetic);
            (Some(Token::Word(&rest[..length])), length)
        } else {
            (Some(Token::Mark(first)).filter(|_| !first.is_whitespace()), first.len_utf8())
        };
        pieces.extend(token.map(|token| Piece { token, start }));
        start += length;
    }
    pieces
}

/// The day of a moment, as far as it is named.
enum Day {
    On(Date),
    EveryYear(i8, i8),
    Next(Weekday),
    Ahead(i64),
}

struct Reader<'a> {
    words: &'a str,
    pieces: &'a [Piece<'a>],
    at: usize,
    now: Instant,
    here: &'a TimeZone,
}

impl<'a> Reader<'a> {
    fn token(&self, ahead: usize) -> Option<Token<'a>> {
        self.pieces.get(self.at + ahead).map(|piece| piece.token)
    }

    fn word(&self, ahead: usize) -> Option<&'a str> {
        match self.token(ahead)? {
            Token::Word(word) => Some(word),
            _ => None,
        }
    }

    /// The whole number there, of at most `digits` digits.
    fn number(&self, ahead: usize, digits: usize) -> Option<i64> {
        match self.token(ahead)? {
            Token::Number(number) if number.len() <= digits => number.parse().ok(),
            _ => None,
        }
    }

    fn has_mark(&self, ahead: usize, mark: char) -> bool {
        self.token(ahead) == Some(Token::Mark(mark))
    }

    fn skip_mark(&mut self, mark: char) {
        self.at += usize::from(self.has_mark(0, mark));
    }

    /// Reads the moment that follows the word `by`.
    fn announced(mut self, by: &str) -> Option<Instant> {
        // A field such as `retry-after` or `retry_after` is in seconds.
        let is_field = by == "retry" && (self.has_mark(0, '-') || self.has_mark(0, '_'));
        for _ in 0..FILLERS {
            match self.token(0)? {
                Token::Word(word) if is_one_of(FILLING, word) => self.at += 1,
                Token::Mark(mark) if !".,;!?(".contains(mark) => self.at += 1,
                _ => break,
            }
        }
        if let Some(moment) = self.span().or_else(|| self.epoch()) {
            return Some(moment);
        }
        let bare = self.number(0, 8).filter(|_| is_field && !self.has_mark(1, ':'));
        self.dated().or_else(|| self.now.checked_add(SignedDuration::from_secs(bare?)).ok())
    }

    /// Reads "2h 5m", "3 hours and 12 minutes", "an hour", "9m38.016s", and `in_seconds: 13872`.
    fn span(&mut self) -> Option<Instant> {
        if let Some(unit) = self.word(0).and_then(unit) {
            let number = (1..4).find_map(|ahead| match self.token(ahead) {
                Some(Token::Number(number)) => number.parse::<f64>().ok(),
                _ => None,
            });
            return self.after(number? * unit);
        }
        let mut seconds = None;
        loop {
            let number = match self.token(0) {
                Some(Token::Number(number)) => number.parse::<f64>().ok(),
                Some(Token::Word("a" | "an")) if seconds.is_none() => Some(1.0),
                _ => None,
            };
            let Some((number, unit)) = number.zip(self.word(1).and_then(unit)) else { break };
            seconds = Some(seconds.unwrap_or(0.0) + number * unit);
            self.at += 2;
            self.skip_mark(',');
            self.at += usize::from(self.word(0) == Some("and"));
        }
        self.after(seconds?)
    }

    fn after(&self, seconds: f64) -> Option<Instant> {
        self.now.checked_add(SignedDuration::try_from_secs_f64(seconds).ok()?).ok()
    }

    /// Reads seconds or milliseconds since the Unix epoch.
    fn epoch(&self) -> Option<Instant> {
        match self.number(0, 13)? {
            milliseconds @ 1_000_000_000_000.. => Instant::from_millisecond(milliseconds).ok(),
            seconds @ 1_000_000_000.. => Instant::from_second(seconds).ok(),
            _ => None,
        }
    }

    /// Reads a date, a time and a zone, in any order; a date or a time must be there.
    fn dated(&mut self) -> Option<Instant> {
        let (mut day, mut time, mut zone) = (None, None, None);
        while self.at < self.pieces.len() {
            if day.is_none() && self.day(&mut day) || time.is_none() && self.time(&mut time) {
                continue;
            }
            if zone.is_none() && self.zone(&mut zone, time.is_some())? {
                continue;
            }
            match self.token(0) {
                Some(Token::Mark(',') | Token::Word("at" | "on" | "t" | "the" | "time")) => self.at += 1,
                _ => break,
            }
        }
        let zone = zone.unwrap_or_else(|| self.here.clone());
        if day.is_none() && time.is_none() { None } else { next(day.as_ref(), time, &zone, self.now) }
    }

    fn day(&mut self, day: &mut Option<Day>) -> bool {
        let found = self.iso_date().or_else(|| self.month_and_day()).or_else(|| {
            let word = self.word(0)?;
            let found = match word {
                "today" => Day::Ahead(0),
                "tomorrow" => Day::Ahead(1),
                _ => Day::Next(Weekday::from_monday_zero_offset(named(WEEKDAYS, word)?).ok()?),
            };
            self.at += 1;
            self.skip_mark('.');
            let comma = usize::from(self.has_mark(0, ','));
            self.at += comma;
            // "Friday, December 4"
            Some(self.iso_date().or_else(|| self.month_and_day()).unwrap_or(found))
        });
        *day = found;
        day.is_some()
    }

    fn iso_date(&mut self) -> Option<Day> {
        let is_date = self.has_mark(1, '-') && self.has_mark(3, '-');
        let year = self.number(0, 4).filter(|year| is_date && *year > 1999)?;
        let (month, day) = (self.number(2, 2)?, self.number(4, 2)?);
        let date = Date::new(year.try_into().ok()?, month.try_into().ok()?, day.try_into().ok()?).ok()?;
        self.at += 5;
        Some(Day::On(date))
    }

    /// Reads "Dec 4", "Dec. 4th, 2026" and "4 December 2026".
    fn month_and_day(&mut self) -> Option<Day> {
        let begun = self.at;
        let found = self.try_month_and_day();
        if found.is_none() {
            self.at = begun;
        }
        found
    }

    fn try_month_and_day(&mut self) -> Option<Day> {
        let is_month_first = self.word(0).is_some();
        let (month, day) = if is_month_first {
            let month = self.month()?;
            (month, self.day_of_month()?)
        } else {
            let day = self.day_of_month()?;
            self.at += usize::from(self.word(0) == Some("of"));
            (self.month()?, day)
        };
        let comma = usize::from(self.has_mark(0, ','));
        let year = self.number(comma, 4).filter(|year| (2000..2200).contains(year));
        let Some(year) = year.filter(|_| !self.has_mark(comma + 1, ':')) else {
            return Some(Day::EveryYear(month, day));
        };
        self.at += comma + 1;
        Date::new(year.try_into().ok()?, month, day).ok().map(Day::On)
    }

    fn month(&mut self) -> Option<i8> {
        let month = named(MONTHS, self.word(0)?)?;
        self.at += 1;
        self.skip_mark('.');
        Some(month + 1)
    }

    fn day_of_month(&mut self) -> Option<i8> {
        let day = self.number(0, 2).filter(|day| (1..=31).contains(day) && !self.has_mark(1, ':'))?;
        self.at += 1;
        self.at += usize::from(matches!(self.word(0), Some("st" | "nd" | "rd" | "th")));
        day.try_into().ok()
    }

    /// Reads "3pm", "11:27 p.m.", "17:00", "05:38:28", "noon" and "midnight".
    fn time(&mut self, time: &mut Option<Time>) -> bool {
        let read = self.clock().and_then(|(hour, minute, second, length)| {
            let time = Time::new(hour.try_into().ok()?, minute.try_into().ok()?, second.try_into().ok()?, 0);
            Some((time.ok()?, length))
        });
        self.at += read.map_or(0, |(_, length)| length);
        *time = read.map(|(time, _)| time);
        time.is_some()
    }

    /// The hour, minute and second there, and how many pieces they are.
    fn clock(&self) -> Option<(i64, i64, i64, usize)> {
        match self.word(0) {
            Some("noon") => return Some((12, 0, 0, 1)),
            Some("midnight") => return Some((0, 0, 0, 1)),
            _ => {}
        }
        let hour = self.number(0, 2)?;
        let minute = self.number(2, 2).filter(|_| self.has_mark(1, ':'));
        let second = match self.token(4) {
            Some(Token::Number(second)) if minute.is_some() && self.has_mark(3, ':') => {
                second.split('.').next()?.parse().ok()
            }
            _ => None,
        };
        let length = 1 + 2 * usize::from(minute.is_some()) + 2 * usize::from(second.is_some());
        let (is_pm, suffix) = match self.word(length) {
            Some("am") => (Some(false), 1),
            Some("pm") => (Some(true), 1),
            Some(half @ ("a" | "p")) if self.has_mark(length + 1, '.') && self.word(length + 2) == Some("m") => {
                (Some(half == "p"), 3 + usize::from(self.has_mark(length + 3, '.')))
            }
            _ => (None, 0),
        };
        let hour = match is_pm {
            Some(is_pm) => (1..=12).contains(&hour).then_some(hour % 12 + if is_pm { 12 } else { 0 })?,
            None => minute.map(|_| hour)?,
        };
        Some((hour, minute.unwrap_or(0), second.unwrap_or(0), length + suffix))
    }

    /// Reads a zone; nothing where one is named that is not known.
    fn zone(&mut self, zone: &mut Option<TimeZone>, has_time: bool) -> Option<bool> {
        let rest = &self.words[self.pieces[self.at].start..];
        let (name, length) = if let Some(inner) = rest.strip_prefix('(') {
            let name = inner.split(')').next().unwrap_or_default();
            (name.trim(), name.len() + 2)
        } else {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "/_+-:".contains(c)));
            let name = rest[..end.unwrap_or(rest.len())].trim_end_matches([':', '-', '+']);
            (name, name.len())
        };
        let is_bracketed = rest.starts_with('(');
        let name = name.strip_suffix(" time").unwrap_or(name);
        // "(in 2 hours)" is no zone.
        let known = (!name.contains(' ')).then(|| self.zone_of(name)).flatten();
        if known.is_none() && (!is_bracketed || self.words.len() < self.pieces[self.at].start + length) {
            return Some(false);
        }
        if known.is_none() && !name.contains(' ') {
            return None;
        }
        let starts_with_sign = name.starts_with(['+', '-']);
        if !is_bracketed && starts_with_sign && !has_time {
            return Some(false);
        }
        let end = self.pieces[self.at].start + length;
        *zone = known;
        self.at += self.pieces[self.at..].iter().take_while(|piece| piece.start < end).count();
        Some(true)
    }

    fn zone_of(&self, name: &str) -> Option<TimeZone> {
        if name == "local" || self.is_abbreviation_here(name) {
            return Some(self.here.clone());
        }
        if let Some((hours, _)) = ABBREVIATIONS.iter().find(|(_, known)| is_one_of(known, name)) {
            return Offset::from_hours(*hours).ok().map(TimeZone::fixed);
        }
        if let Some((_, name)) = EVERYDAY.iter().find(|(known, _)| *known == name) {
            return TimeZone::get(name).ok();
        }
        let offset = name.strip_prefix("utc").or_else(|| name.strip_prefix("gmt")).unwrap_or(name);
        if offset.starts_with(['+', '-']) {
            return offset_of(offset).map(TimeZone::fixed);
        }
        // Names without a slash, such as "Cuba", are words of prose too; those of three letters and more are zones' own.
        (name.contains('/') || name.len() == 3).then(|| TimeZone::get(name).ok()).flatten()
    }

    /// Reports whether the machine's zone is abbreviated so, now or in the other half of the year.
    fn is_abbreviation_here(&self, name: &str) -> bool {
        let half_a_year = SignedDuration::from_hours(183 * 24);
        [Some(self.now), self.now.checked_add(half_a_year).ok()]
            .into_iter()
            .flatten()
            .any(|moment| self.here.to_offset_info(moment).abbreviation().eq_ignore_ascii_case(name))
    }
}

fn is_one_of(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

/// Seconds in a unit.
fn unit(word: &str) -> Option<f64> {
    Some(match word {
        "ms" | "millisecond" | "milliseconds" => 0.001,
        "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        _ => return None,
    })
}

/// Which of `names` a word is, whole or its first three letters or more.
fn named(names: &str, word: &str) -> Option<i8> {
    let is_named = |name: &str| word.len() >= 3 && name.starts_with(word);
    names.split(' ').position(is_named)?.try_into().ok()
}

/// Reads `+2`, `+02`, `+0530` and `+05:30`.
fn offset_of(text: &str) -> Option<Offset> {
    let (sign, digits) = text.split_at_checked(1)?;
    let digits: String = digits.split(':').collect();
    let number: i32 = digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (hours, minutes) = if digits.len() > 2 { (number / 100, number % 100) } else { (number, 0) };
    let seconds = (hours * 60 + minutes) * 60;
    Offset::from_seconds(if sign == "-" { -seconds } else { seconds }).ok().filter(|_| digits.len() <= 4)
}

/// The first moment after `now` that is on `day` at `time` in `zone`. A time that daylight saving skips is as much later;
/// of one that comes twice the first is meant while it is ahead.
fn next(day: Option<&Day>, time: Option<Time>, zone: &TimeZone, now: Instant) -> Option<Instant> {
    let today = now.to_zoned(zone.clone()).date();
    let ahead = |days: i64| today.checked_add(Span::new().try_days(days).ok()?).ok();
    let is_bare = day.is_none();
    let days: Vec<Date> = match day {
        None => (-1..=2).filter_map(ahead).collect(),
        Some(Day::On(date)) => vec![*date],
        Some(Day::Ahead(days)) => ahead(*days).into_iter().collect(),
        Some(Day::Next(weekday)) => (0..=7).filter_map(ahead).filter(|date| date.weekday() == *weekday).collect(),
        Some(Day::EveryYear(month, day)) => {
            let years = today.year().saturating_sub(1)..=today.year().saturating_add(1);
            years.filter_map(|year| Date::new(year, *month, *day).ok()).collect()
        }
    };
    let moments: Vec<Instant> = days
        .into_iter()
        .flat_map(|date| {
            let ambiguous = zone.to_ambiguous_timestamp(date.to_datetime(time.unwrap_or_default()));
            let twice = match ambiguous.offset() {
                AmbiguousOffset::Fold { .. } => ambiguous.later().ok(),
                _ => None,
            };
            [ambiguous.compatible().ok(), twice]
        })
        .flatten()
        .collect();
    let next = moments.iter().copied().filter(|moment| *moment > now).min()?;
    let grace = now.checked_sub(GRACE.seconds()).ok()?;
    let is_over = is_bare && moments.iter().any(|moment| (grace..=now).contains(moment));
    (!is_over || next.duration_since(now) < SignedDuration::from_hours(12)).then_some(next)
}

#[cfg(test)]
#[path = "reset_tests.rs"]
mod tests;
