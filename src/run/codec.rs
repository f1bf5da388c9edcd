//! An event's line in the log, and a log's text as events.

use std::collections::HashSet;
use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::event::{Event, Fact, Timestamp};

/// The envelope on the wire, its data not yet looked at.
#[derive(Deserialize)]
struct Envelope<'a> {
    seq: u64,
    ts: Timestamp,
    #[serde(borrow)]
    session: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    kind: std::borrow::Cow<'a, str>,
    iteration: Option<u32>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
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
        if !line.trim_start().starts_with('{') {
            return None;
        }
        let envelope: Envelope<'_> = serde_json::from_str(line).ok()?;
        let data = envelope.data.map_or("{}", RawValue::get);
        let fact = Fact::parse(&envelope.kind, data).unwrap_or_else(|| Fact::Unknown {
            kind: envelope.kind.clone().into_owned(),
            data: serde_json::from_str(data).unwrap_or(Value::Null),
        });
        Some(Self {
            seq: envelope.seq,
            ts: envelope.ts,
            session: envelope.session.into_owned(),
            iteration: envelope.iteration,
            fact,
        })
    }
}

/// The events in a log's text, in order: what is not an event is skipped, what stands twice is taken once.
#[must_use]
pub fn parse_log<'a>(pages: impl IntoIterator<Item = &'a str>) -> Vec<Event> {
    let mut seen = HashSet::new();
    let mut events: Vec<Event> = pages
        .into_iter()
        .flat_map(str::lines)
        .filter_map(Event::from_line)
        .filter(|event| seen.insert((event.seq, event.session.clone())))
        .collect();
    events.sort_by(|a, b| a.seq.cmp(&b.seq).then_with(|| a.ts.cmp(&b.ts)).then_with(|| a.session.cmp(&b.session)));
    events
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_line())
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Reviewed;
    use super::super::work::Review;
    use super::*;

    #[test]
    fn the_line_is_the_documented_one() {
        let event = Event {
            seq: 12,
            ts: Timestamp(1_790_000_000_123),
            session: "k3v9qp".into(),
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
}
