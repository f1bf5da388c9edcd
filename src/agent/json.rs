//! Finds the JSON in what a model says: alone, fenced, or in the midst of prose.

use serde_json::{Deserializer, Value};

/// How often, on average, a byte may be read in search of a value: hostile text must not cost more than its length.
const READINGS: usize = 4;
/// Bytes that a try counts for at least.
const LEAST_READING: usize = 64;
/// Keys that mark an object as the one that was asked for.
const EXPECTED: [&str; 3] = ["goal_complete", "gates_passed", "subgoals"];
/// Keys under which an object holds the list that was asked for.
const LISTS: [&str; 5] = ["subgoals", "tasks", "plan", "goals", "steps"];

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A list; an object that holds one under a usual name will do.
    Array,
    /// An object.
    Object,
}

/// The value of `shape` in `text`: the whole text, else what stands in a fence, else the last that fits best.
#[must_use]
pub fn find(text: &str, shape: Shape) -> Option<Value> {
    if let Some(whole) = parse(text, shape) {
        return Some(whole);
    }
    let fenced = text.split("```").skip(1).step_by(2);
    let bodies = fenced.map(|block| block.strip_prefix("json").or_else(|| block.strip_prefix("JSON")).unwrap_or(block));
    bodies.filter_map(|body| parse(body, shape)).last().or_else(|| scan(text, shape))
}

fn parse(text: &str, shape: Shape) -> Option<Value> {
    let value = serde_json::from_str(text.trim()).ok()?;
    fits(&value, shape).then_some(value)
}

/// How well a value answers: not at all, or the better the higher.
fn rank(value: &Value, shape: Shape) -> Option<u8> {
    match (shape, value) {
        (Shape::Array, Value::Array(items)) => {
            let usable = items.iter().filter(|item| item.is_string() || item.is_object()).count();
            Some(if usable == 0 { 0 } else { 2 })
        }
        (Shape::Array, Value::Object(fields)) => {
            LISTS.iter().any(|key| fields.get(*key).is_some_and(Value::is_array)).then_some(1)
        }
        (Shape::Object, Value::Object(fields)) => Some(u8::from(EXPECTED.iter().any(|key| fields.contains_key(*key)))),
        _ => None,
    }
}

fn fits(value: &Value, shape: Shape) -> bool {
    rank(value, shape).is_some()
}

/// Tries a value wherever one could begin. What parsed is stepped over.
fn scan(text: &str, shape: Shape) -> Option<Value> {
    let mut best: Option<(u8, Value)> = None;
    let mut from = 0;
    let mut readings = text.len().saturating_mul(READINGS).saturating_add(4096);
    while let Some(start) = text[from..].find(['[', '{']).map(|at| from + at) {
        let mut values = Deserializer::from_str(&text[start..]).into_iter::<Value>();
        let read = match values.next() {
            Some(Ok(value)) => {
                let length = values.byte_offset();
                from = start + length;
                if let Some(rank) = rank(&value, shape)
                    && best.as_ref().is_none_or(|(known, _)| *known <= rank)
                {
                    best = Some((rank, value));
                }
                length
            }
            Some(Err(error)) => {
                from = start + 1;
                let lines = text[start..].split_inclusive('\n').take(error.line().saturating_sub(1));
                lines.map(str::len).sum::<usize>() + error.column()
            }
            None => break,
        };
        let Some(left) = readings.checked_sub(read.max(LEAST_READING)) else { break };
        readings = left;
    }
    best.map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_is_found_however_it_is_wrapped() {
        let plan = json!([{"id": "a", "description": "b"}]);
        for text in [
            r#"[{"id": "a", "description": "b"}]"#,
            "Sure! Here it is:\n```json\n[{\"id\": \"a\", \"description\": \"b\"}]\n```\nAnything else?",
            r#"I looked at list[0] and {x}; the plan: [{"id": "a", "description": "b"}] as asked [1]."#,
            "```\n[{\"id\": \"a\", \"description\": \"b\"}]\n```",
        ] {
            assert_eq!(find(text, Shape::Array), Some(plan.clone()), "{text}");
        }
        assert_eq!(find(r#"{"plan": ["x"]}"#, Shape::Array), Some(json!({"plan": ["x"]})));
        assert_eq!(find("no JSON at all", Shape::Array), None);
        assert_eq!(find("[1, 2", Shape::Array), None);
    }

    #[test]
    fn the_verdict_is_told_from_other_objects() {
        let text = r#"The config {"a": 1} is fine. {"gates_passed": true, "goal_complete": false} {"b": 2}"#;
        assert_eq!(find(text, Shape::Object), Some(json!({"gates_passed": true, "goal_complete": false})));
    }

    #[test]
    fn hostile_text_takes_no_time() {
        let started = std::time::Instant::now();
        for text in ["[".repeat(1 << 20), "[{".repeat(1 << 19), "{\"a\":".repeat(1 << 18), "]}".repeat(1 << 19)] {
            assert_eq!(find(&text, Shape::Array), None);
            assert_eq!(find(&text, Shape::Object), None);
        }
        assert!(started.elapsed().as_secs() < 20, "not linear");
    }
}
