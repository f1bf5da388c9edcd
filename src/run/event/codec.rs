//! Lines of events, and logs made of them.
//!
//! Any program may have written a line. It is folded only if each field is within its range. Other lines are set aside: they
//! stay in the log, are counted and reported, and never folded.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::fact::{Event, Fact};
use super::flaw::{REASON_LENGTH, flaw};
use crate::run::id::SessionId;
use crate::run::range::{self, LARGEST_GAP};
use crate::run::text::{count, one_line};
use crate::run::timestamp::Timestamp;

/// Longest line that is read, in bytes. The longest that a driver writes, a plan of many long subgoals, is shorter.
const LINE_LIMIT: usize = 16 * 1024 * 1024;
/// Largest number of values in a line: a short text can hold many, and each takes memory.
const MOST_VALUES: usize = 200_000;
/// Length in bytes below which a line cannot hold more values than that.
const SHORT_LINE: usize = MOST_VALUES;
/// Largest number of events in a page. A driver closes one that is longer than 64 KiB, which holds about a thousand.
const MOST_EVENTS: usize = 50_000;
/// Number of set-aside lines that are kept; the others are counted.
const MOST_KEPT: usize = 64;
/// Number of set-aside lines that are reported.
const MOST_REPORTED: usize = 3;

/// The envelope of a line, with its data unparsed.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(deserialize_with = "range::seq")]
    seq: u64,
    ts: Timestamp,
    session: SessionId,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(default, deserialize_with = "range::iteration")]
    iteration: Option<u32>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The fields of an invalid line that a reason names.
#[derive(Default, Deserialize)]
#[serde(default)]
struct InvalidLine<'a> {
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
}

/// A line of a log that looks like an event but cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aside {
    /// Line and reason: `seq 7 review: base: expected an object id`.
    pub reason: String,
}

impl Aside {
    pub(super) fn new(seq: &dyn fmt::Display, kind: &str, why: &str) -> Self {
        Self { reason: one_line(&format!("seq {seq} {kind}: {why}"), REASON_LENGTH) }
    }

    /// Returns the reason for a page of `bytes`, which is too long to be read.
    #[must_use]
    pub fn page(bytes: u64) -> Self {
        Self { reason: format!("a page of {bytes} bytes") }
    }
}

/// A parsed log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Events, in order.
    pub events: Vec<Event>,
    /// Lines that were set aside, up to a limit.
    pub aside: Vec<Aside>,
    /// Number of further lines that were set aside.
    pub further: usize,
}

impl Log {
    /// Parses the pages of a log, in any order.
    pub fn parse<'a>(pages: impl IntoIterator<Item = &'a str>) -> Self {
        Self::join(pages.into_iter().map(Self::read_page))
    }

    /// Joins parts of a log.
    pub fn join(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut log = Self::default();
        for part in parts {
            log.events.extend(part.events);
            log.further += part.further;
            part.aside.into_iter().for_each(|aside| log.set_aside(aside));
        }
        log.settle();
        log
    }

    /// Parses one page, without ordering its events.
    #[must_use]
    pub fn read_page(page: &str) -> Self {
        let mut log = Self::default();
        for line in page.lines() {
            match Event::read(line) {
                Ok(Some(event)) => {
                    if let Fact::Unknown { kind, flaw: Some(flaw), .. } = &event.fact {
                        log.set_aside(Aside::new(&event.seq, kind, flaw));
                    }
                    if log.events.len() < MOST_EVENTS {
                        log.events.push(event);
                    } else {
                        log.set_aside(Aside::new(&event.seq, event.fact.kind(), "too many events in one page"));
                    }
                }
                Ok(None) => {}
                Err(aside) => log.set_aside(aside),
            }
        }
        log
    }

    /// Orders the events, drops duplicates, and sets aside events whose number is beyond any gap that a log can have.
    fn settle(&mut self) {
        let mut seen = HashSet::new();
        self.events.retain(|event| seen.insert((event.seq, event.session.clone())));
        self.events
            .sort_by(|a, b| a.seq.cmp(&b.seq).then_with(|| a.ts.cmp(&b.ts)).then_with(|| a.session.cmp(&b.session)));
        let mut last = 0;
        let sound = self.events.iter().position(|event| {
            let is_far = event.seq - last > LARGEST_GAP;
            last = event.seq;
            is_far
        });
        for event in self.events.split_off(sound.unwrap_or(self.events.len())) {
            self.set_aside(Aside::new(&event.seq, event.fact.kind(), "too far from the event before it"));
        }
        self.aside.sort();
        self.aside.dedup();
    }

    pub(super) fn set_aside(&mut self, aside: Aside) {
        if self.aside.len() < MOST_KEPT {
            self.aside.push(aside);
        } else {
            self.further += 1;
        }
    }

    /// Returns a sentence about the lines that were set aside, if there are any.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let named: Vec<&str> = self.aside.iter().take(MOST_REPORTED).map(|aside| aside.reason.as_str()).collect();
        let lines = self.aside.len() + self.further;
        let was = if lines == 1 { "was" } else { "were" };
        let more = lines.saturating_sub(MOST_REPORTED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = named.join("; ");
        (lines > 0).then(|| {
            format!("{} of the log could not be read and {was} set aside: {named}{rest}", count(lines, "line"))
        })
    }
}

/// Estimates the number of values in a JSON text.
fn count_values(text: &str) -> usize {
    let (mut inside, mut escaped, mut values) = (false, false, 0);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = inside,
            b'"' => inside = !inside,
            b',' | b'[' | b'{' if !inside => values += 1,
            _ => {}
        }
    }
    values
}

struct Data<'a>(&'a Fact);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_data(serializer)
    }
}

impl Serialize for Event {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("seq", &self.seq)?;
        map.serialize_entry("ts", &self.ts)?;
        map.serialize_entry("session", &self.session)?;
        map.serialize_entry("kind", self.fact.kind())?;
        if let Some(iteration) = self.iteration {
            map.serialize_entry("iteration", &iteration)?;
        }
        map.serialize_entry("data", &Data(&self.fact))?;
        map.end()
    }
}

impl Event {
    /// Returns the event's line in the log, without the newline. JSON escapes every newline inside it.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Serialization fails for maps whose keys are not strings; an event has none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses a line; `None` if it is not a valid event.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        Self::read(line).ok().flatten()
    }

    /// Parses a line; `None` if it does not look like an event, such as a person's note.
    fn read(line: &str) -> Result<Option<Self>, Aside> {
        if !line.trim_start().starts_with('{') {
            return Ok(None);
        }
        if line.len() > LINE_LIMIT {
            return Err(Aside::new(&"?", "?", &format!("it is {} long", count(line.len(), "byte"))));
        }
        if line.len() > SHORT_LINE && count_values(line) > MOST_VALUES {
            return Err(Aside::new(&"?", "?", &format!("it holds more than {MOST_VALUES} values")));
        }
        let envelope: Envelope<'_> = serde_json::from_str(line).map_err(|error| {
            let invalid: InvalidLine<'_> = serde_json::from_str(line).unwrap_or_default();
            let text =
                |value: Option<&RawValue>| value.map_or_else(|| "?".to_owned(), |value| one_line(value.get(), 40));
            Aside::new(&text(invalid.seq), text(invalid.kind).trim_matches('"'), &flaw(line, &error))
        })?;
        let data = envelope.data.map_or("{}", RawValue::get);
        let fact = Fact::parse(&envelope.kind, data).unwrap_or_else(|flaw| Fact::Unknown {
            kind: envelope.kind.clone().into_owned(),
            data: serde_json::from_str(data).unwrap_or(Value::Null),
            flaw,
        });
        Ok(Some(Self {
            seq: envelope.seq,
            ts: envelope.ts,
            session: envelope.session,
            iteration: envelope.iteration,
            fact,
        }))
    }
}

impl Fact {
    /// Returns the fact's data for a serializer.
    pub(in crate::run) fn data(&self) -> impl Serialize {
        Data(self)
    }

    /// Replaces each text in the fact for which `change` returns another text.
    #[must_use]
    pub fn with_texts(self, change: &dyn Fn(&str) -> Option<String>) -> Self {
        let Ok(mut data) = serde_json::to_value(Data(&self)) else { return self };
        if !change_texts(&mut data, change) {
            return self;
        }
        // Ids and paths have a strict form, which a changed text may not have.
        Self::parse(self.kind(), &data.to_string()).unwrap_or(self)
    }
}

/// Changes the texts in `value`. Returns whether one was changed.
fn change_texts(value: &mut Value, change: &dyn Fn(&str) -> Option<String>) -> bool {
    match value {
        Value::String(text) => change(text).map(|new| *text = new).is_some(),
        // `any` would end at the first.
        Value::Array(items) => items.iter_mut().map(|item| change_texts(item, change)).max().unwrap_or_default(),
        Value::Object(fields) => fields.values_mut().map(|item| change_texts(item, change)).max().unwrap_or_default(),
        _ => false,
    }
}

/// Parses the pages of a log as events in order, without invalid lines and duplicates.
#[must_use]
pub fn parse_log<'a>(pages: impl IntoIterator<Item = &'a str>) -> Vec<Event> {
    Log::parse(pages).events
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_line())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fact::Reviewed;
    use super::*;
    use crate::run::work::Review;

    #[test]
    fn the_line_is_the_documented_one() {
        let event = Event {
            seq: 12,
            ts: Timestamp(1_790_000_000_123),
            session: "k3v9qp".parse().unwrap(),
            iteration: Some(2),
            fact: Reviewed {
                review: Review {
                    gates_passed: true,
                    goal_complete: false,
                    issues: vec!["a\nb".into()],
                    ..Review::default()
                },
            }
            .into(),
        };
        let line = r#"{"seq":12,"ts":1790000000.123,"session":"k3v9qp","kind":"review","iteration":2,"data":{"gates_passed":true,"goal_complete":false,"issues":["a\nb"]}}"#;
        assert_eq!(event.to_line(), line);
        assert_eq!(Event::from_line(line), Some(event));
    }

    #[test]
    fn unknown_kinds_survive() {
        let line = r#"{"seq":1,"ts":1.5,"session":"a","kind":"from_the_future","data":{"x":[1,2]}}"#;
        assert_eq!(Event::from_line(line).map(|event| event.to_line()).as_deref(), Some(line));
        let odd = r#"{"seq":1,"ts":1.5,"session":"a","kind":"review","data":{"issues":7}}"#;
        assert_eq!(Event::from_line(odd).map(|event| event.to_line()).as_deref(), Some(odd));
    }

    #[test]
    fn foreign_and_torn_lines_are_skipped_and_doubles_dropped() {
        let a = r#"{"seq":2,"ts":1,"session":"a","kind":"intake_started","data":{}}"#;
        let b = r#"{"seq":1,"ts":1,"session":"a","kind":"intake_started","data":{}}"#;
        let log = format!("a person's words\n\n{a}\n{b}\n{a}\n{{\"seq\":3,\"ts\"\n{{}}\n");
        assert_eq!(parse_log([log.as_str()]).iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    }

    fn aside(line: &str) -> Vec<String> {
        Log::parse([line]).aside.into_iter().map(|aside| aside.reason).collect()
    }

    #[test]
    fn lines_out_of_range_are_set_aside_and_reported() {
        let cases = [
            (
                r#"{"seq":7,"ts":1,"session":"a","kind":"review","data":{"issues":7}}"#,
                "seq 7 review: issues: invalid type",
            ),
            (
                r#"{"seq":7,"ts":1,"session":"a","kind":"run_started","data":{"base":"--output=x"}}"#,
                "seq 7 run_started: base: expected an object id",
            ),
            (
                r#"{"seq":7,"ts":1,"session":"a","kind":"run_started","data":{"options":{"budget":{"max_cost":-1}}}}"#,
                "seq 7 run_started: options.budget.max_cost: expected an amount",
            ),
            (
                r#"{"seq":7,"ts":1,"session":"a","kind":"decomposed","data":{"plan":{"subgoals":[{"id":"../x","description":"d"}]}}}"#,
                "seq 7 decomposed: plan.subgoals.id: expected a subgoal id",
            ),
            (
                r#"{"seq":18446744073709551615,"ts":1,"session":"a","kind":"x"}"#,
                "seq 18446744073709551615 x: seq: expected",
            ),
            (r#"{"seq":9007199254740992,"ts":1,"session":"a","kind":"x"}"#, "seq 9007199254740992 x: too far"),
            (r#"{"seq":1,"ts":1e300,"session":"a","kind":"x"}"#, "seq 1 x: ts: expected seconds since 1970"),
            (r#"{"seq":1,"ts":1,"session":"../a","kind":"x"}"#, "seq 1 x: session: expected a session id"),
            ("{}", "seq ? ?: missing field"),
        ];
        for (line, reason) in cases {
            let found = aside(line);
            assert!(found.len() == 1 && found[0].starts_with(reason), "{line}: {found:?}");
        }
        assert!(aside("a person's words\n").is_empty());
        let future = r#"{"seq":1,"ts":1,"session":"a","kind":"from_the_future","data":{"base":"--output=x"}}"#;
        assert_eq!((aside(future).len(), parse_log([future]).len()), (0, 1));
    }

    #[test]
    fn a_log_reports_how_much_of_it_was_set_aside() {
        assert_eq!(Log::parse(["x\n"]).notice(), None);
        let line = |seq: u64| format!("{{\"seq\":{seq},\"ts\":-1,\"session\":\"a\",\"kind\":\"x\"}}\n");
        let text = (1..=5).map(line).collect::<String>();
        let notice = Log::parse([text.as_str()]).notice().unwrap();
        assert!(
            notice.starts_with("5 lines of the log could not be read and were set aside: seq 1 x: ts: "),
            "{notice}"
        );
        assert!(notice.ends_with(" and 2 more"), "{notice}");
    }

    #[test]
    fn a_small_gap_is_accepted_and_a_large_one_is_not() {
        let line = |seq: u64| format!("{{\"seq\":{seq},\"ts\":1,\"session\":\"a\",\"kind\":\"x\"}}\n");
        let text = [1, 2, 90_000, 2 + LARGEST_GAP, 3 + 2 * LARGEST_GAP, 1 << 52].map(line).concat();
        let log = Log::parse([text.as_str()]);
        assert_eq!(log.events.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 90_000, 2 + LARGEST_GAP]);
        assert_eq!(log.aside.len(), 2);
    }

    #[test]
    fn no_text_overflows_the_stack_or_takes_long() {
        let begun = std::time::Instant::now();
        let deep = "[".repeat(1_000_000);
        let (wide, keys) = ("[],".repeat(1_000_000), "\"a\":{".repeat(1_000_000));
        for data in
            [deep.clone(), format!("[{wide}0]"), format!("{{{keys}"), format!("{deep}{}", "]".repeat(1_000_000))]
        {
            for kind in ["x", "review", "run_started"] {
                let line = format!(r#"{{"seq":1,"ts":1,"session":"a","kind":"{kind}","data":{data}}}"#);
                let _ = Log::parse([line.as_str()]);
            }
        }
        assert!(begun.elapsed().as_secs() < 30, "{:?}", begun.elapsed());
    }
}
