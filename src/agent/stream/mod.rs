//! The JSON lines that an agent prints while it works, read for people and for what failed.
//!
//! A line is recognised by its shape alone, whichever agent printed it: nothing that is read here decides anything. The shapes are those
//! under `tests/captures`, and of whole runs of the agents in `tests/agents`.

mod families;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use serde_json::Value;

use crate::run::event::clip;
use crate::run::text::{one_line, telling_line};

/// Longest line that is read, in bytes.
const LONGEST_LINE: usize = 1 << 20;
/// Longest text of a part, in bytes.
const LONGEST_TEXT: usize = 16 << 10;
/// Longest command, path or argument, in characters.
const WIDTH: usize = 300;
/// Longest line that tells why something failed, in characters.
const REASON: usize = 160;
/// Actions under way that are remembered.
const UNDER_WAY: usize = 64;
/// Failed actions that are remembered: the newest.
const FAILED: usize = 5;

/// A piece of what an agent did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// It began: its model, where it names one.
    Start(String),
    /// Text of the agent's.
    Text(String),
    /// It thought this.
    Thought(String),
    /// It uses a tool.
    Tool {
        /// The tool's name.
        name: String,
        /// Its purpose, in a line.
        about: String,
    },
    /// It works on a file.
    File {
        /// The tool, or the kind of change.
        how: String,
        /// The file.
        path: String,
    },
    /// It runs a command.
    Command(String),
    /// Result of one of these.
    Result {
        /// How it failed, where it did.
        failure: Option<String>,
        /// Its output or return value.
        text: String,
    },
    /// It met an error.
    Error(String),
    /// It came to its end.
    End(String),
}

/// Reads a stream line by line. Memory is bounded.
#[derive(Debug, Default)]
pub struct Reader {
    /// Actions under way, each with its id.
    under_way: VecDeque<(String, String)>,
    failed: VecDeque<String>,
}

impl Reader {
    /// The parts that `line` tells of; none where it tells nothing to people. `None` where it is no line of a known stream.
    pub fn read(&mut self, line: &str) -> Option<Vec<Part>> {
        let line = line.trim();
        if line.len() > LONGEST_LINE || !line.starts_with('{') {
            return None;
        }
        let message: Value = serde_json::from_str(line).ok()?;
        families::read(self, &message)
    }

    /// The use of a tool, remembered until its result comes.
    fn begin(&mut self, id: &Value, name: &str, input: &Value) -> Part {
        let part = action(name, input);
        let words = match &part {
            Part::Command(command) => format!("`{command}`"),
            Part::File { how, path } => format!("{how} {path}"),
            Part::Tool { name, about } if about.is_empty() => name.clone(),
            Part::Tool { name, about } => format!("{name} {about}"),
            _ => String::new(),
        };
        if self.under_way.len() == UNDER_WAY {
            self.under_way.pop_front();
        }
        self.under_way.push_back((one_line(id.as_str().unwrap_or_default(), WIDTH), words));
        part
    }

    /// Reports whether the action `id` is under way.
    fn has_begun(&self, id: &Value) -> bool {
        let id = id.as_str().map(|id| one_line(id, WIDTH));
        id.is_some_and(|id| self.under_way.iter().any(|(begun, _)| *begun == id))
    }

    /// The result of the action `id`, which failed where `failure` says how.
    fn end(&mut self, id: &Value, failure: Option<String>, text: &str) -> Part {
        let id = id.as_str().map(|id| one_line(id, WIDTH));
        let at = id.and_then(|id| self.under_way.iter().position(|(begun, _)| *begun == id));
        let what = at.and_then(|at| self.under_way.remove(at)).map_or_else(|| "a tool".to_owned(), |(_, what)| what);
        if let Some(failure) = &failure {
            let why = telling_line(text, REASON).filter(|why| why != failure);
            let why = why.map_or_else(String::new, |why| format!(": {why}"));
            if self.failed.len() == FAILED {
                self.failed.pop_front();
            }
            self.failed.push_back(format!("{what} ({failure}{why})"));
        }
        Part::Result { failure, text: clip(text, LONGEST_TEXT) }
    }
}

/// The actions that failed by what a whole stream tells, each with the reason; the newest of many.
#[must_use]
pub fn failed(stream: &str) -> Vec<String> {
    let mut reader = Reader::default();
    for line in stream.lines() {
        let _ = reader.read(line);
    }
    reader.failed.into()
}

/// Returns the words of a stream: its errors, and the lines that are not part of it.
#[must_use]
pub(super) fn words(stream: &str) -> String {
    let mut reader = Reader::default();
    let mut words = Vec::new();
    for line in stream.lines() {
        match reader.read(line) {
            None => words.push(line.to_owned()),
            Some(parts) => words.extend(parts.into_iter().filter_map(|part| match part {
                Part::Error(text) => Some(text),
                _ => None,
            })),
        }
    }
    words.join("\n")
}

/// Classifies the use of the tool `name` with `input`.
fn action(name: &str, input: &Value) -> Part {
    let name = one_line(name, WIDTH);
    let lower = name.to_ascii_lowercase();
    let text = |keys: &[&str]| keys.iter().find_map(|key| words_of(input.get(key)?));
    let is_shell =
        ["bash", "shell", "command", "exec", "terminal", "powershell"].iter().any(|word| lower.contains(word));
    if let Some(command) = text(&["command", "cmd", "script"]).filter(|_| is_shell) {
        return Part::Command(command);
    }
    if let Some(path) = text(&["file_path", "filePath", "path", "absolute_path", "notebook_path"]) {
        return Part::File { how: name, path };
    }
    let about = text(&["description", "command", "pattern", "query", "url", "prompt", "name"]);
    let whole = || if input.is_null() { String::new() } else { one_line(&input.to_string(), WIDTH) };
    Part::Tool { about: about.unwrap_or_else(whole), name }
}

/// A string, or the words of an array, on one line.
fn words_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(words) => words.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?.join(" "),
        _ => return None,
    };
    let lines: Vec<&str> = text.trim().lines().collect();
    let more = if lines.len() > 1 { " …" } else { "" };
    Some(one_line(&text, WIDTH) + more).filter(|text| !text.is_empty())
}
