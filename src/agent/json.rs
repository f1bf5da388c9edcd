//! JSON out of what a model wrote: alone, in a fence, or somewhere in prose, and with the slips that models make.

use std::borrow::Cow;

use serde_json::Value;

use crate::run::sanitize;

/// Keys under which models put a plan, as [`crate::run::work::Plan::settle`] reads them.
const PLAN_KEYS: [&str; 5] = ["subgoals", "tasks", "plan", "goals", "steps"];
/// Keys of a review, as [`crate::run::work::Review::settle`] reads them.
const REVIEW_KEYS: [&str; 3] = ["gates_passed", "goal_complete", "issues"];
/// Deepest nesting that is looked into: `serde_json` reads no deeper.
const DEEPEST: usize = 127;
/// How many times its own length a text may cost to search, whatever is in it.
const PASSES: usize = 32;
/// Least budget of a search, however short the text is, in bytes.
const LEAST_BUDGET: usize = 1 << 20;
/// How many times less a lenient search may cost: it is slower, and one that is needed finds its answer early.
const LENIENT: usize = 8;

/// The kind of value to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An array of strings or objects; an object that holds a plan counts too, as it is.
    Array,
    /// An object, best one with the keys of a review.
    Object,
}

/// The value of this shape that `text` most likely means as its answer: of those that fit best, the last.
///
/// The time is linear in the length of the text.
#[must_use]
pub fn find(text: &str, shape: Shape) -> Option<Value> {
    let text = without_thoughts(text);
    let strict = best(Candidates::of(&text, strictly, 1), shape);
    if strict.as_ref().is_some_and(|(rank, _)| *rank > 0) {
        return strict.map(|(_, value)| value);
    }
    // Line breaks and control sequences inside of strings, quotes of the other kind, a comma too many.
    let mended = best(Candidates::of(&sanitize::lines(&text), leniently, LENIENT), shape);
    mended.filter(|(rank, _)| *rank > 0).or(strict).map(|(_, value)| value)
}

/// `text` without the blocks in which a model thinks aloud: what is in them is a draft.
fn without_thoughts(text: &str) -> Cow<'_, str> {
    let mut text = Cow::Borrowed(text);
    for (open, close) in [("<think>", "</think>"), ("<thinking>", "</thinking>")] {
        if let Some(end) = text.rfind(close) {
            let begin = text.find(open).filter(|begin| *begin < end).unwrap_or(0);
            let rest = [&text[..begin], &text[end + close.len()..]].concat();
            if rest.contains(['[', '{']) {
                text = Cow::Owned(rest);
            }
        }
    }
    text
}

/// The candidate that fits best; of those that fit equally well, the last.
fn best(candidates: Candidates<'_>, shape: Shape) -> Option<(u8, Value)> {
    let mut best: Option<(u8, Value)> = None;
    for value in candidates {
        if let Some((rank, value)) = ranked(value, shape)
            && best.as_ref().is_none_or(|(highest, _)| rank >= *highest)
        {
            best = Some((rank, value));
        }
    }
    best
}

/// How well `value` fits, and the part of it that does.
fn ranked(value: Value, shape: Shape) -> Option<(u8, Value)> {
    match (shape, value) {
        (Shape::Array, Value::Array(items)) => Some((array_rank(&items), Value::Array(items))),
        (Shape::Array, Value::Object(mut fields)) => {
            let holds_plan =
                PLAN_KEYS.iter().filter_map(|key| fields.get(*key)?.as_array()).any(|items| array_rank(items) > 1);
            if holds_plan {
                return Some((3, Value::Object(fields)));
            }
            match fields.remove("questions") {
                Some(Value::Array(items)) => Some((array_rank(&items), Value::Array(items))),
                _ => None,
            }
        }
        (Shape::Object, Value::Object(fields)) => {
            let known = REVIEW_KEYS.iter().filter(|key| fields.contains_key(**key)).count();
            Some((u8::try_from(known).unwrap_or(u8::MAX), Value::Object(fields)))
        }
        (Shape::Object, Value::Array(items)) => items
            .into_iter()
            .filter(Value::is_object)
            .filter_map(|item| ranked(item, shape))
            .max_by_key(|(rank, _)| *rank)
            .filter(|(rank, _)| *rank > 0),
        _ => None,
    }
}

/// A list of objects is what is asked for, a list of strings will do, an empty one may be the answer; what else stands
/// in brackets is prose more often than not.
fn array_rank(items: &[Value]) -> u8 {
    match items {
        [] => 1,
        _ if items.iter().all(Value::is_object) => 3,
        _ if items.iter().all(|item| item.is_object() || item.is_string()) => 2,
        _ => 0,
    }
}

/// The outermost JSON arrays and objects in a text, in its order.
struct Candidates<'a> {
    text: &'a str,
    at: usize,
    budget: usize,
    read: Read,
}

/// Reads the value that a text begins with: how many bytes were looked at, and the value where they are one.
type Read = fn(&str) -> (usize, Option<Value>);

impl<'a> Candidates<'a> {
    fn of(text: &'a str, read: Read, share: usize) -> Self {
        Self { text, at: 0, read, budget: text.len().saturating_mul(PASSES).max(LEAST_BUDGET) / share }
    }
}

impl Iterator for Candidates<'_> {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        loop {
            let bytes = self.text.as_bytes();
            let start = self.at + bytes[self.at..].iter().position(|byte| matches!(byte, b'[' | b'{'))?;
            self.at = start + 1;
            let (length, value) = (self.read)(&self.text[start..]);
            self.budget = self.budget.checked_sub(length)?;
            if value.is_some() {
                self.at = start + length;
                return value;
            }
        }
    }
}

/// Reads JSON.
fn strictly(text: &str) -> (usize, Option<Value>) {
    let (length, balanced) = balance(text.as_bytes());
    let value = text.get(..length).filter(|_| balanced).and_then(|part| serde_json::from_str(part).ok());
    (length, value)
}

/// Reads what is JSON but for raw control characters in strings, single quotes, unescaped quotes, commas before a closing
/// bracket and words of Python's.
fn leniently(text: &str) -> (usize, Option<Value>) {
    let mut json = String::with_capacity(text.len().min(4096));
    let mut open = Vec::new();
    let mut quote = None;
    let mut rest = text.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        match (quote, character) {
            (Some(_), '\\') => match rest.next() {
                Some((_, '\'')) => json.push('\''),
                Some((_, escaped)) if !escaped.is_control() => json.extend(['\\', escaped]),
                _ => {}
            },
            (Some(end), character) if character == end && closes(&text[at + 1..]) => {
                quote = None;
                json.push('"');
            }
            (Some(_), '"') => json.push_str("\\\""),
            (Some(_), '\n') => json.push_str("\\n"),
            (Some(_), '\t') => json.push_str("\\t"),
            (Some(_), character) if character.is_control() => {}
            (None, '"' | '\'') => {
                quote = Some(character);
                json.push('"');
            }
            (None, '[' | '{') if open.len() == DEEPEST => return (at + 1, None),
            (None, '[') => {
                open.push(']');
                json.push('[');
            }
            (None, '{') => {
                open.push('}');
                json.push('{');
            }
            (None, ']' | '}') => {
                if open.pop() != Some(character) {
                    return (at + 1, None);
                }
                json.truncate(json.trim_end().len());
                json.truncate(json.strip_suffix(',').unwrap_or(&json).len());
                json.push(character);
            }
            (None, 'T' | 'F' | 'N') => {
                let word = ["True", "False", "None"].into_iter().find(|word| text[at..].starts_with(word));
                json.push_str(match word {
                    Some("True") => "true",
                    Some("False") => "false",
                    Some(_) => "null",
                    None => return (at + 1, None),
                });
                for _ in 1..word.map_or(1, str::len) {
                    rest.next();
                }
            }
            (_, character) => json.push(character),
        }
        if open.is_empty() {
            return (at + 1, serde_json::from_str(&json).ok());
        }
    }
    (text.len(), None)
}

/// Reports whether the text after a quote shows that the string ends with it.
fn closes(rest: &str) -> bool {
    rest.trim_start().chars().next().is_none_or(|next| matches!(next, ',' | ':' | ']' | '}'))
}

/// How far the value that begins here was followed, and whether that is its end.
fn balance(bytes: &[u8]) -> (usize, bool) {
    let mut open = Vec::new();
    let mut in_string = false;
    let mut escaped = false;
    for (position, byte) in bytes.iter().enumerate() {
        let seen = position + 1;
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                0..=0x1f => return (seen, false), // RFC 8259, section 7: these must be escaped
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' if open.len() < DEEPEST => open.push(b']'),
            b'{' if open.len() < DEEPEST => open.push(b'}'),
            b'[' | b'{' => return (seen, false),
            b']' | b'}' if open.pop() != Some(*byte) => return (seen, false),
            _ => {}
        }
        if open.is_empty() {
            return (seen, true);
        }
    }
    (bytes.len(), false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn array(text: &str) -> Value {
        find(text, Shape::Array).unwrap_or(Value::Null)
    }

    fn object(text: &str) -> Value {
        find(text, Shape::Object).unwrap_or(Value::Null)
    }

    #[test]
    fn an_answer_is_found_wherever_it_stands() {
        let plan = json!([{"id": "a", "description": "say \"}]\" and [x]"}]);
        let written = plan.to_string();
        for text in [
            written.clone(),
            format!("\u{feff} {written}\n"),
            format!("Here is the plan:\n```json\n{written}\n```\nGood luck [1]!"),
            format!("See [the readme](README.md), {{braces}} and [1, 2].\n{written}"),
            format!("An example is [\"x\"]. Mine:\n{written}\nFiles: [\"a.rs\"]. Questions: []"),
            format!("`fn main() {{ let a = [0; 3]; }}` {written}"),
            format!("it said \"[ and went on {written}"),
        ] {
            assert_eq!(array(&text), plan, "{text}");
        }
    }

    #[test]
    fn an_array_may_stand_in_an_object() {
        assert_eq!(array(r#"{"subgoals": [{"description": "x"}]}"#), json!({"subgoals": [{"description": "x"}]}));
        assert_eq!(array(r#"ok {"questions": ["Which?"]}"#), json!(["Which?"]));
        assert_eq!(array(r#"{"id": "a", "files": ["a.rs"]}"#), Value::Null);
        assert_eq!(array(r#"{"subgoals": []} or ["x"]"#), json!(["x"]));
    }

    #[test]
    fn of_equals_the_last_is_the_answer() {
        assert_eq!(array(r#"["draft"] then ["final"]"#), json!(["final"]));
        assert_eq!(array("no questions: []"), json!([]));
        assert_eq!(
            object(
                r#"{"gates_passed": false, "goal_complete": false} no: {"gates_passed": true, "goal_complete": true}"#
            ),
            json!({"gates_passed": true, "goal_complete": true})
        );
    }

    #[test]
    fn a_review_is_told_from_other_objects() {
        let review = json!({"gates_passed": true, "goal_complete": false, "issues": ["x"]});
        for text in [
            format!("{{\"a\": 1}} {review} {{\"b\": [2]}}"),
            format!("[{review}]"),
            format!("```\n{review}\n```\ntrailing }} prose {{"),
        ] {
            assert_eq!(object(&text), review, "{text}");
        }
        assert_eq!(object(r#"["x", {"y": 1}]"#), Value::Null);
        assert_eq!(object(r#"{"y": 1}"#), json!({"y": 1}));
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        for text in ["", "no", "\"[1]", "[", "{]", "[1,]", "{'a': 1}", "null", "12"] {
            assert_eq!(find(text, Shape::Object), None, "{text}");
            assert!(find(text, Shape::Array).is_none_or(|value| value == json!([1])), "{text}");
        }
    }

    #[test]
    fn the_slips_of_models_are_understood() {
        let review = |issue: &str| json!({"gates_passed": false, "goal_complete": false, "issues": [issue]});
        for (text, issue) in [
            ("{\"gates_passed\": false, \"goal_complete\": false, \"issues\": [\"a\n\nb\"]}", "a\n\nb"),
            ("{\"gates_passed\": false, \"goal_complete\": false, \"issues\": [\"a\",],}", "a"),
            (
                "{'gates_passed': False, 'goal_complete': False, 'issues': ['it\\'s \"x\" and don't']}",
                "it's \"x\" and don't",
            ),
            ("{'gates_passed': false, \"goal_complete\": false, 'issues': ['a']}", "a"),
            ("{\"gates_passed\": false, \"goal_complete\": false, \"issues\": [\"use \"x\" here\"]}", "use \"x\" here"),
            (
                "\u{feff}```json\n{\"gates_passed\": false,\n\"goal_complete\": false, \"issues\": [\"a\tb\"]}\n```",
                "a\tb",
            ),
            ("{\"gates_passed\": false, \"goal_complete\": false, \"issues\": [\"\u{1b}[31ma\u{1b}[0m\"]}", "a"),
            (
                "<think>maybe {\"gates_passed\": true, \"goal_complete\": true, \"issues\": []}</think>\n\
                 {\"gates_passed\": false, \"goal_complete\": false, \"issues\": [\"a\"]}",
                "a",
            ),
            (
                "{\"gates_passed\": false, \"goal_complete\": false, \"issues\": [\"see ```\nx\n``` there\"]}",
                "see ```\nx\n``` there",
            ),
        ] {
            assert_eq!(object(text), review(issue), "{text}");
        }
        assert_eq!(array("[\"a\nb\"]"), json!(["a\nb"]));
        assert_eq!(array("['a', 'b',]"), json!(["a", "b"]));
        assert_eq!(object("I can't say [it's fine], {really}"), Value::Null);
    }

    #[test]
    fn hostile_input_costs_linear_time() {
        let million = 1 << 20;
        assert_eq!(find(&"[".repeat(million), Shape::Array), None);
        let started = Instant::now();
        for unit in ["[", "{", "[\"", "{\"a\":", "[\"[\\\"", "]", "[]", "[1,", "[{}", "\"[", "[[]", "ä[", "[\"a\","] {
            let text = unit.repeat(million / 16 / unit.len());
            let _ = find(&text, Shape::Array);
            let _ = find(&text, Shape::Object);
        }
        assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
        let items: Vec<Value> = (0..10_000).map(|n| json!({"id": n, "description": "x"})).collect();
        assert_eq!(array(&json!(items).to_string()).as_array().map(Vec::len), Some(10_000));
    }
}
