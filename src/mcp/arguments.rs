//! Arguments of tools: one table gives the schema that clients see and the check of every call.

use std::fmt::Write as _;

use rmcp::model::JsonObject;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::run::amount::{self, Seconds};

/// Longest piece of a value that an error repeats, in characters.
const SHOWN: usize = 60;
/// Largest integer that every JSON reader keeps exactly.
pub const LARGEST: u64 = (1 << 53) - 1;

/// An argument of a tool.
pub struct Argument {
    /// Its name.
    pub name: &'static str,
    /// Its type and range.
    pub kind: Kind,
    /// Its default.
    pub default: Default,
    /// Its description for the caller.
    pub meaning: &'static str,
}

/// Type and range of an argument.
pub enum Kind {
    /// A string of at most `most` bytes, which may be empty if `empty` is set.
    Text { most: usize, empty: bool },
    /// One of these words.
    Word(&'static [&'static str]),
    /// A boolean.
    Flag,
    /// A whole number.
    Whole { least: u64, most: u64 },
    /// A number above 0 and at most this.
    Positive { most: f64 },
    /// A number of seconds above 0. A duration such as "10m" is accepted too, but the schema omits it: strict clients want
    /// one type.
    Seconds,
    /// A list of at most `count` texts, each of at most `most` bytes.
    Texts { count: usize, most: usize },
}

/// Default of an argument.
pub enum Default {
    /// It must be given.
    Required,
    /// No value.
    None,
    /// A string.
    Text(&'static str),
    /// A boolean.
    Flag(bool),
    /// An integer.
    Whole(u64),
    /// The value of this key in git's configuration, or else this integer.
    Setting(&'static str, u64),
}

/// Makes the schema of a tool's arguments.
#[must_use]
pub fn schema(arguments: &[Argument]) -> JsonObject {
    let properties: JsonObject =
        arguments.iter().map(|argument| (argument.name.to_owned(), argument.schema())).collect();
    let required: Vec<&str> = arguments
        .iter()
        .filter(|argument| matches!(argument.default, Default::Required))
        .map(|argument| argument.name)
        .collect();
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), Value::Object(properties));
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    schema.insert("additionalProperties".to_owned(), json!(false));
    schema
}

impl Argument {
    fn schema(&self) -> Value {
        let mut schema = match &self.kind {
            Kind::Text { most, empty } => {
                let mut schema = json!({ "type": "string", "maxLength": most });
                if !empty {
                    schema["minLength"] = json!(1);
                }
                schema
            }
            Kind::Word(words) => json!({ "type": "string", "enum": words }),
            Kind::Flag => json!({ "type": "boolean" }),
            Kind::Whole { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
            Kind::Positive { most } => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": most }),
            Kind::Seconds => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": amount::LARGEST }),
            Kind::Texts { count, most } => json!({
                "type": "array", "maxItems": count, "items": { "type": "string", "minLength": 1, "maxLength": most },
            }),
        };
        let mut meaning = self.meaning.to_owned();
        match self.default {
            Default::Required | Default::None => {}
            Default::Text(text) => schema["default"] = json!(text),
            Default::Flag(flag) => schema["default"] = json!(flag),
            Default::Whole(number) => schema["default"] = json!(number),
            Default::Setting(key, number) => {
                schema["default"] = json!(number);
                let _ = write!(meaning, " The user's 'git config {key}' comes before the default.");
            }
        }
        schema["description"] = json!(meaning);
        schema
    }

    /// Describes what is wrong with `value`, if anything.
    fn wrong(&self, value: &Value) -> Option<String> {
        match (&self.kind, value) {
            (Kind::Text { most, empty }, Value::String(text)) => wrong_text(text, *most, *empty),
            (Kind::Word(words), Value::String(text)) if words.contains(&text.as_str()) => None,
            (Kind::Flag, Value::Bool(_)) => None,
            (Kind::Whole { least, most }, _)
                if whole(value).is_some_and(|number| (*least..=*most).contains(&number)) =>
            {
                None
            }
            (Kind::Positive { most }, Value::Number(number))
                if number.as_f64().is_some_and(|number| number > 0.0 && number <= *most) =>
            {
                None
            }
            (Kind::Seconds, Value::Number(_) | Value::String(_)) if seconds(value).is_some() => None,
            (Kind::Texts { count, most }, Value::Array(items)) => {
                let text = |item: &Value| match item.as_str() {
                    Some(text) => wrong_text(text, *most, false),
                    None => Some(format!("{} is no text", shown(item))),
                };
                if items.len() > *count {
                    return Some(format!("at most {count} texts, and there are {}", items.len()));
                }
                items.iter().find_map(text)
            }
            _ => Some(format!("{}, and not {}", self.wanted(), shown(value))),
        }
    }

    fn wanted(&self) -> String {
        match &self.kind {
            Kind::Text { .. } => "a text".to_owned(),
            Kind::Word(words) => format!("one of {}", words.join(", ")),
            Kind::Flag => "true or false".to_owned(),
            Kind::Whole { least, most } if *most == LARGEST => format!("a whole number of at least {least}"),
            Kind::Whole { least, most } => format!("a whole number from {least} to {most}"),
            Kind::Positive { most } => format!("a number above 0 and at most {most}"),
            Kind::Seconds => format!("a number above 0 and at most {}", amount::LARGEST),
            Kind::Texts { .. } => "a list of texts".to_owned(),
        }
    }
}

fn wrong_text(text: &str, most: usize, empty: bool) -> Option<String> {
    if !empty && text.trim().is_empty() {
        return Some("there is nothing in it".to_owned());
    }
    if text.contains('\0') {
        return Some("it holds a NUL byte, so it is no text".to_owned());
    }
    (text.len() > most).then(|| format!("at most {most} bytes, and it has {}", text.len()))
}

/// Reads an integer, even if it is written as `4.0`: JSON Schema makes no difference.
fn whole(value: &Value) -> Option<u64> {
    let from_float = || {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && *number >= 0.0)?;
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in range
        (number <= LARGEST as f64).then_some(number as u64)
    };
    value.as_u64().or_else(from_float)
}

/// Reads a duration above 0, as a number of seconds or a text with its unit.
fn seconds(value: &Value) -> Option<Seconds> {
    let read = match value {
        Value::String(text) => text.parse().ok(),
        _ => value.as_f64().and_then(|number| Seconds::try_from(number).ok()),
    };
    read.filter(|seconds| seconds.get() > 0.0)
}

/// Formats a value for an error.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let cut: String = text.chars().take(SHOWN).collect();
    if cut.len() < text.len() { format!("{cut}… ({} bytes)", text.len()) } else { cut }
}

/// Checked arguments, with defaults.
pub struct Given(JsonObject);

impl Given {
    /// Checks the arguments of a call against those that the tool takes.
    ///
    /// # Errors
    /// Fails if an argument is missing, unknown or invalid; the error names it and says what is expected.
    pub fn check(tool: &str, arguments: &[Argument], given: JsonObject) -> Result<Self> {
        let mut values = JsonObject::new();
        // Some hosts send null for arguments that they do not set.
        for (name, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
            let Some(argument) = arguments.iter().find(|argument| argument.name == name) else {
                return Err(unknown(tool, arguments, &name));
            };
            if let Some(wrong) = argument.wrong(&value) {
                return Err(Error::usage(format!("argument '{name}' of {tool}: {wrong}")).hint(argument.meaning));
            }
            values.insert(name, value);
        }
        for argument in arguments.iter().filter(|argument| !values.contains_key(argument.name)).collect::<Vec<_>>() {
            let default = match argument.default {
                Default::Required => {
                    return Err(Error::usage(format!("argument '{}' of {tool} is missing", argument.name))
                        .hint(argument.meaning));
                }
                Default::None | Default::Setting(..) => continue,
                Default::Text(text) => json!(text),
                Default::Flag(flag) => json!(flag),
                Default::Whole(number) => json!(number),
            };
            values.insert(argument.name.to_owned(), default);
        }
        Ok(Self(values))
    }

    /// Returns a string argument; `None` if it was not given and has no default.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// Returns a boolean; `false` if it was not given and has no default.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A whole number.
    #[must_use]
    pub fn whole(&self, name: &str) -> Option<u64> {
        whole(self.0.get(name)?)
    }

    /// Returns an integer that fits into 32 bits.
    #[must_use]
    pub fn small(&self, name: &str) -> Option<u32> {
        self.whole(name).and_then(|number| u32::try_from(number).ok())
    }

    /// Returns an integer that counts bytes or items in memory.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<usize> {
        self.whole(name).and_then(|number| usize::try_from(number).ok())
    }

    /// Returns a duration.
    #[must_use]
    pub fn seconds(&self, name: &str) -> Option<Seconds> {
        seconds(self.0.get(name)?)
    }

    /// Returns the values of a run's option as strings to parse; `None` if it was not given.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<Vec<String>> {
        match self.0.get(name)? {
            Value::String(text) => Some(vec![text.clone()]),
            Value::Bool(given) => given.then(|| vec!["true".to_owned()]),
            Value::Array(_) => self.texts(name),
            value => Some(vec![whole(value).map_or_else(|| value.to_string(), |number| number.to_string())]),
        }
    }

    /// Returns a list of strings.
    #[must_use]
    pub fn texts(&self, name: &str) -> Option<Vec<String>> {
        let items = self.0.get(name)?.as_array()?;
        Some(items.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
    }
}

fn unknown(tool: &str, arguments: &[Argument], name: &str) -> Error {
    let names: Vec<&str> = arguments.iter().map(|argument| argument.name).collect();
    let error = Error::usage(format!("{tool} takes no argument {}", shown(&json!(name))));
    let taken = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
    error.hint(format!("it takes {taken}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARGUMENTS: [Argument; 7] = [
        Argument {
            name: "goal",
            kind: Kind::Text { most: 8, empty: false },
            default: Default::Required,
            meaning: "The goal.",
        },
        Argument { name: "word", kind: Kind::Word(&["a", "b"]), default: Default::Text("a"), meaning: "A word." },
        Argument { name: "flag", kind: Kind::Flag, default: Default::Flag(true), meaning: "A flag." },
        Argument {
            name: "count",
            kind: Kind::Whole { least: 1, most: 9 },
            default: Default::Setting("k", 4),
            meaning: "A count.",
        },
        Argument { name: "time", kind: Kind::Seconds, default: Default::None, meaning: "A time." },
        Argument { name: "cost", kind: Kind::Positive { most: 10.0 }, default: Default::None, meaning: "A cost." },
        Argument { name: "list", kind: Kind::Texts { count: 2, most: 4 }, default: Default::None, meaning: "A list." },
    ];

    fn check(given: &Value) -> Result<Given> {
        Given::check("tool", &ARGUMENTS, given.as_object().unwrap().clone())
    }

    #[test]
    fn what_is_right_is_taken_and_defaults_are_filled_in() {
        let given = check(&json!({ "goal": "x", "count": 4.0, "time": null, "list": ["a", "b"] })).unwrap();
        assert_eq!((given.text("goal"), given.text("word"), given.flag("flag")), (Some("x"), Some("a"), true));
        assert_eq!((given.whole("count"), given.seconds("time")), (Some(4), None));
        for (time, seconds) in [(json!(90), 90.0), (json!("10m"), 600.0), (json!(1.5), 1.5)] {
            let given = check(&json!({ "goal": "x", "time": time })).unwrap();
            assert_eq!(given.seconds("time").map(Seconds::get), Some(seconds));
            assert!(given.option("time").is_some());
        }
        assert_eq!(given.texts("list").unwrap(), ["a", "b"]);
        let given = check(&json!({ "goal": "x", "count": 4.0, "flag": false, "list": [] })).unwrap();
        assert_eq!((given.option("count"), given.option("flag")), (Some(vec!["4".to_owned()]), None));
        assert_eq!((given.option("list"), given.option("time")), (Some(Vec::new()), None));
        assert_eq!(check(&json!({ "goal": "x" })).unwrap().whole("count"), None);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        let cases = [
            (json!({}), "'goal' of tool is missing"),
            (json!({ "goal": "" }), "'goal' of tool: there is nothing in it"),
            (json!({ "goal": "  " }), "nothing in it"),
            (json!({ "goal": 3 }), "'goal' of tool: a text, and not 3"),
            (json!({ "goal": "a\0" }), "NUL"),
            (json!({ "goal": "123456789" }), "at most 8 bytes, and it has 9"),
            (json!({ "goal": "x", "word": "c" }), "one of a, b, and not \"c\""),
            (json!({ "goal": "x", "flag": "true" }), "'flag' of tool: true or false, and not \"true\""),
            (json!({ "goal": "x", "count": 0 }), "a whole number from 1 to 9, and not 0"),
            (json!({ "goal": "x", "count": 1.5 }), "'count'"),
            (json!({ "goal": "x", "count": -1 }), "'count'"),
            (json!({ "goal": "x", "cost": 0 }), "a number above 0 and at most 10, and not 0"),
            (json!({ "goal": "x", "cost": 11 }), "'cost'"),
            (json!({ "goal": "x", "time": 0 }), "'time' of tool: a number above 0"),
            (json!({ "goal": "x", "time": 1e300 }), "'time'"),
            (json!({ "goal": "x", "time": "soon" }), "'time'"),
            (json!({ "goal": "x", "list": "a" }), "a list of texts, and not \"a\""),
            (json!({ "goal": "x", "list": ["a", 1] }), "1 is no text"),
            (json!({ "goal": "x", "list": ["a", "b", "c"] }), "at most 2 texts"),
            (json!({ "goal": "x", "colour": 1 }), "takes no argument \"colour\""),
        ];
        for (given, wanted) in cases {
            let error = check(&given).err().unwrap_or_else(|| panic!("{given} was taken"));
            assert!(error.to_string().contains(wanted), "{given}: {error}");
            assert!(error.hint_text().is_some(), "{error}");
        }
        let long = check(&json!({ "x".repeat(1000): 1, "goal": "x" })).err().unwrap().report();
        assert!(long.len() < 300, "{long}");
    }

    #[test]
    fn the_schema_says_what_is_checked() {
        let schema = Value::Object(schema(&ARGUMENTS));
        assert_eq!(schema["required"], json!(["goal"]));
        assert_eq!(schema["additionalProperties"], json!(false));
        let count = &schema["properties"]["count"];
        assert_eq!((&count["type"], &count["minimum"], &count["maximum"]), (&json!("integer"), &json!(1), &json!(9)));
        assert_eq!(count["default"], json!(4));
        assert!(!schema.to_string().contains("format"));
    }
}
