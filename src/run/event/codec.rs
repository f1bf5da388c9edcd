//! An event's line in the log, and a log's text as events.
//!
//! Anybody may have written a line. What it says is taken in only where every field of it is within its range; the rest is
//! set aside: kept where it is, counted, named, and never folded.

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
/// Most values in a line: a short text can hold many of them, and each takes memory.
const VALUES_LIMIT: usize = 200_000;
/// A line of fewer bytes holds no more values than can be.
const SHORT_LINE: usize = VALUES_LIMIT;
/// Most events of a page. A driver closes one that is longer than 64 KiB, which holds about a thousand.
const EVENTS_LIMIT: usize = 50_000;
/// How many lines that were set aside are kept; the others are counted.
const KEPT: usize = 64;
/// How many lines that were set aside are named.
const NAMED: usize = 3;

/// The envelope on the wire, its data not yet looked at.
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

/// As much of a line that is no event as can be told.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Torn<'a> {
    #[serde(borrow)]
    seq: Option<&'a RawValue>,
    #[serde(borrow)]
    kind: Option<&'a RawValue>,
}

/// A line of a log that looks like an event and is none that can be folded.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Aside {
    /// Which line it is and why it is set aside: `seq 7 review: base: expected an object id`.
    pub reason: String,
}

impl Aside {
    fn new(seq: &dyn fmt::Display, kind: &str, why: &str) -> Self {
        Self { reason: one_line(&format!("seq {seq} {kind}: {why}"), REASON_LENGTH) }
    }

    /// A page of `bytes`, which is longer than any that is read.
    #[must_use]
    pub fn page(bytes: u64) -> Self {
        Self { reason: format!("a page of {bytes} bytes") }
    }
}

/// What a log's text holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// The events, in order.
    pub events: Vec<Event>,
    /// What was set aside, as far as it is kept.
    pub aside: Vec<Aside>,
    /// How many further lines were set aside.
    pub further: usize,
}

impl Log {
    /// Reads pages of a log, in any order.
    pub fn parse<'a>(pages: impl IntoIterator<Item = &'a str>) -> Self {
        Self::join(pages.into_iter().map(Self::read_page))
    }

    /// The log that `parts` are together.
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

    /// Reads one page, as it stands.
    #[must_use]
    pub fn read_page(page: &str) -> Self {
        let mut log = Self::default();
        for line in page.lines() {
            match Event::read(line) {
                Ok(Some(event)) => {
                    if let Fact::Unknown { kind, flaw: Some(flaw), .. } = &event.fact {
                        log.set_aside(Aside::new(&event.seq, kind, flaw));
                    }
                    if log.events.len() < EVENTS_LIMIT {
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

    /// Orders the events, drops what is there twice, and sets aside what is numbered beyond any gap that a log can have.
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

    fn set_aside(&mut self, aside: Aside) {
        if self.aside.len() < KEPT {
            self.aside.push(aside);
        } else {
            self.further += 1;
        }
    }

    /// What was set aside, in a sentence; nothing where nothing was.
    #[must_use]
    pub fn notice(&self) -> Option<String> {
        let named: Vec<&str> = self.aside.iter().take(NAMED).map(|aside| aside.reason.as_str()).collect();
        let lines = self.aside.len() + self.further;
        let was = if lines == 1 { "was" } else { "were" };
        let more = lines.saturating_sub(NAMED);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        let named = named.join("; ");
        (lines > 0).then(|| {
            format!("{} of the log could not be read and {was} set aside: {named}{rest}", count(lines, "line"))
        })
    }
}

/// About how many values a JSON text holds.
fn values(text: &str) -> usize {
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
    /// Its line in the log, without the newline. JSON escapes every newline inside it.
    #[must_use]
    pub fn to_line(&self) -> String {
        // Serialising to a string fails on maps with keys that are not strings; an event has none.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The event on `line`; nothing where the line is not one.
    #[must_use]
    pub fn from_line(line: &str) -> Option<Self> {
        Self::read(line).ok().flatten()
    }

    /// The event on `line`; nothing where it does not look like one, as a person's words do not.
    fn read(line: &str) -> Result<Option<Self>, Aside> {
        if !line.trim_start().starts_with('{') {
            return Ok(None);
        }
        if line.len() > LINE_LIMIT {
            return Err(Aside::new(&"?", "?", &format!("it is {} long", count(line.len(), "byte"))));
        }
        if line.len() > SHORT_LINE && values(line) > VALUES_LIMIT {
            return Err(Aside::new(&"?", "?", &format!("it holds more than {VALUES_LIMIT} values")));
        }
        let envelope: Envelope<'_> = serde_json::from_str(line).map_err(|error| {
            let torn: Torn<'_> = serde_json::from_str(line).unwrap_or_default();
            let text =
                |value: Option<&RawValue>| value.map_or_else(|| "?".to_owned(), |value| one_line(value.get(), 40));
            Aside::new(&text(torn.seq), text(torn.kind).trim_matches('"'), &flaw(line, &error))
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
    /// The fact with the texts in it that `change` returns another text for replaced by that.
    #[must_use]
    pub fn with_texts(self, change: &dyn Fn(&str) -> Option<String>) -> Self {
        let Ok(mut data) = serde_json::to_value(Data(&self)) else { return self };
        if !change_texts(&mut data, change) {
            return self;
        }
        // An id or a path has a narrow form, which a changed text may not have.
        Self::parse(self.kind(), &data.to_string()).unwrap_or(self)
    }
}

/// Changes the texts in `value`; whether there was one to change.
fn change_texts(value: &mut Value, change: &dyn Fn(&str) -> Option<String>) -> bool {
    match value {
        Value::String(text) => change(text).map(|new| *text = new).is_some(),
        // Not `any`, which would end at the first.
        Value::Array(items) => items.iter_mut().map(|item| change_texts(item, change)).max().unwrap_or_default(),
        Value::Object(fields) => fields.values_mut().map(|item| change_texts(item, change)).max().unwrap_or_default(),
        _ => false,
    }
}

/// The events in a log's text, in order: what is not an event is skipped, what is there twice is taken once.
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
    fn what_is_out_of_its_range_is_set_aside_and_named() {
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
    fn a_log_says_how_much_of_it_was_set_aside() {
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
    fn a_gap_is_gone_over_and_a_leap_is_not() {
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
