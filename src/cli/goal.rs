//! Reads the goal and criteria from the command line, a file, standard input, or the terminal.

use std::io::{BufRead as _, Read, Write as _};
use std::path::Path;

use super::print;
use crate::error::{Error, Result};
use crate::run::event::GOAL_LIMIT;

/// The text that is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Goal,
    Criteria,
}

impl Text {
    fn name(self) -> &'static str {
        match self {
            Self::Goal => "the goal",
            Self::Criteria => "the criteria",
        }
    }

    /// Adds the hint for an empty or missing text.
    fn missing(self, error: Error) -> Error {
        match self {
            Self::Goal => {
                error.hint("say what is to be reached: git agentloop run \"add a /health endpoint\", or -F FILE")
            }
            Self::Criteria => error.hint("leave them out, and an agent proposes what must hold"),
        }
    }
}

/// Returns the goal in `given` or `file`; without either, asks for it at the terminal if `ask` is set.
pub fn goal(given: Option<&str>, file: Option<&Path>, ask: bool) -> Result<String> {
    match (given, file) {
        (Some("-"), _) => from_stdin(Text::Goal),
        (Some(text), _) => sound(Text::Goal, "", text.to_owned()),
        (None, Some(path)) => from_file(Text::Goal, path),
        (None, None) if ask => asked(),
        (None, None) => Err(Text::Goal.missing(Error::usage("there is no goal"))),
    }
}

/// Returns the criteria in `given` or `file`; empty without either.
pub fn criteria(given: Option<&str>, file: Option<&Path>) -> Result<String> {
    match (given, file) {
        (Some(text), _) => sound(Text::Criteria, "", text.to_owned()),
        (None, Some(path)) => from_file(Text::Criteria, path),
        (None, None) => Ok(String::new()),
    }
}

fn from_file(what: Text, path: &Path) -> Result<String> {
    if path == Path::new("-") {
        return from_stdin(what);
    }
    let file = std::fs::File::open(path)
        .map_err(|error| unreadable(&format!("{} cannot be read from '{}'", what.name(), path.display()), error))?;
    from_reader(what, &format!(" in '{}'", path.display()), file)
}

fn from_stdin(what: Text) -> Result<String> {
    from_reader(what, " on standard input", std::io::stdin().lock())
}

/// Reads a text; errors name its origin by `place`.
fn from_reader(what: Text, place: &str, reader: impl Read) -> Result<String> {
    let mut bytes = Vec::new();
    let name = format!("{}{place}", what.name());
    reader
        .take(most())
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&format!("{name} cannot be read"), error))?;
    let mut text = String::from_utf8(bytes).map_err(|_| {
        Error::usage(format!("{name} is not UTF-8")).hint("save it as UTF-8: iconv -t UTF-8 FILE | git agentloop run -")
    })?;
    // A file's last newline belongs to the file; all other bytes are kept.
    if text.ends_with('\n') {
        text.pop();
    }
    sound(what, place, text)
}

/// Number of bytes to read at most: one more than a text and its last newline may have, which detects a text that is too
/// long without reading an endless one.
fn most() -> u64 {
    u64::try_from(GOAL_LIMIT).unwrap_or(u64::MAX).saturating_add(2)
}

fn sound(what: Text, place: &str, text: String) -> Result<String> {
    let name = format!("{}{place}", what.name());
    if text.trim().is_empty() {
        return Err(what.missing(Error::usage(format!("there is nothing in {name}"))));
    }
    if text.len() > GOAL_LIMIT {
        return Err(Error::usage(format!("{name}: longer than 1 MiB"))
            .hint("commit the long part as a file, and let the goal name it"));
    }
    if text.contains('\0') {
        return Err(
            Error::usage(format!("{name}: holds a NUL byte, so it is no text")).hint("give it as plain text in UTF-8")
        );
    }
    Ok(text)
}

fn asked() -> Result<String> {
    let mut stderr = print::stderr();
    let _ = write!(stderr, "What is to be reached? ").and_then(|()| stderr.flush());
    let mut line = String::new();
    std::io::stdin()
        .lock()
        .take(most())
        .read_line(&mut line)
        .map_err(|error| unreadable("the goal cannot be read", error))?;
    sound(Text::Goal, "", line.trim_end_matches(['\n', '\r']).to_owned())
}

fn unreadable(what: &str, error: std::io::Error) -> Error {
    Error::usage(what).because(error).hint("-F takes a readable file, and '-' is standard input")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> String {
        from_reader(Text::Goal, "", text).unwrap_err().report()
    }

    #[test]
    fn a_goal_is_kept_to_the_letter() {
        for text in ["two\nlines", "  spaces  ", "$(touch x)", "💥", "--flag"] {
            assert_eq!(goal(Some(text), None, false).unwrap(), text);
            assert_eq!(from_reader(Text::Goal, "", format!("{text}\n").as_bytes()).unwrap(), text);
        }
        let longest = "x".repeat(GOAL_LIMIT);
        assert_eq!(from_reader(Text::Goal, "", format!("{longest}\n").as_bytes()).unwrap().len(), GOAL_LIMIT);
    }

    #[test]
    fn what_is_no_goal_is_refused_with_a_hint() {
        let long = vec![b'x'; GOAL_LIMIT + 1];
        let endless = vec![b'x'; 3 * GOAL_LIMIT];
        let cases: [(&[u8], &str); 6] = [
            (b"", "nothing in the goal"),
            (b" \n\t\n", "nothing in the goal"),
            (b"a\0b", "NUL"),
            (b"\xff\xfe", "not UTF-8"),
            (&long, "longer than 1 MiB"),
            (&endless, "longer than 1 MiB"),
        ];
        for (text, why) in cases {
            let error = refused(text);
            assert!(error.contains(why) && error.contains("\nhint: "), "{error}");
        }
        for error in [
            goal(None, None, false).unwrap_err(),
            goal(Some(" "), None, false).unwrap_err(),
            goal(None, Some(Path::new("/no/such/file")), false).unwrap_err(),
            criteria(Some(""), None).unwrap_err(),
        ] {
            assert!(error.hint_text().is_some(), "{error}");
        }
        assert_eq!(criteria(None, None).unwrap(), "");
    }
}
