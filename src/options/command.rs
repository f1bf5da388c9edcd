//! Commands of the user's configuration: checks and set-up.
//!
//! As git does, a command that uses shell syntax is run by `sh -c`; any other is split into words and started directly.

use std::iter::Peekable;
use std::str::Chars;

use super::wrong::Wrong;
use crate::run::goal::Check;

/// Characters that a shell interprets outside of quotes.
const SHELL: &str = "|&;<>()$`*?[~\n";
/// Characters that a shell interprets within double quotes.
const IN_DOUBLE_QUOTES: &str = "$`";
/// Commands that a shell runs without a program of that name.
const BUILTIN: &[&str] = &[
    "!", ".", ":", "[", "alias", "bg", "break", "case", "cd", "command", "continue", "echo", "eval", "exec", "exit",
    "export", "false", "fg", "for", "getopts", "hash", "if", "jobs", "kill", "local", "printf", "pwd", "read",
    "readonly", "return", "set", "shift", "test", "times", "trap", "true", "type", "ulimit", "umask", "unalias",
    "unset", "until", "wait", "while", "{",
];

/// Parses a command.
pub fn read(text: &str) -> Result<Check, Wrong> {
    let wrong = |why: &str| Wrong::new(&text.replace('\0', "\u{fffd}"), format!("a command; it {why}"));
    let command = text.trim();
    if command.contains('\0') {
        return Err(wrong("contains a NUL byte"));
    }
    let shell = Syntax::of(command);
    if shell.is_open {
        return Err(wrong("has a quote that is not closed"));
    }
    let argv = if shell.needs_shell {
        ["sh", "-c", command].map(ToOwned::to_owned).to_vec()
    } else {
        shell_words::split(command).map_err(|_| wrong("has a quote that is not closed"))?
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(wrong("is empty"));
    }
    Ok(Check { name: command.to_owned(), argv })
}

/// Returns the program that `check` starts first, if that can be determined: a shell may start anything.
#[must_use]
pub fn program(check: &Check) -> Option<String> {
    let [shell, flag, text] = check.argv.as_slice() else { return check.argv.first().cloned() };
    if shell != "sh" || flag != "-c" {
        return Some(shell.clone());
    }
    let is_word = |character: char| character.is_ascii_alphanumeric() || "_-./+@%,:".contains(character);
    let mut rest = text.trim_start();
    loop {
        let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if is_name(word) && after.starts_with('=') {
            // A variable is set for the following program; its value must be a plain word.
            let value = after[1..].find(char::is_whitespace)?;
            if !after[1..=value].chars().all(is_word) {
                return None;
            }
            rest = after[1 + value..].trim_start();
            continue;
        }
        let is_whole =
            after.starts_with(|next: char| next.is_whitespace() || ";|&<>".contains(next)) || after.is_empty();
        return (is_whole && !word.is_empty() && !BUILTIN.contains(&word)).then(|| word.to_owned());
    }
}

/// Returns whether a part of `check` could fail without a failing exit status, as all but the last command of a pipeline
/// can.
#[must_use]
pub fn hides_failures(check: &Check) -> bool {
    matches!(check.argv.as_slice(), [shell, flag, text] if shell == "sh" && flag == "-c" && Syntax::of(text).has_pipe)
}

fn is_name(word: &str) -> bool {
    !word.is_empty()
        && !word.starts_with(|first: char| first.is_ascii_digit())
        && word.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}

/// The shell syntax that a text uses.
#[derive(Default)]
struct Syntax {
    needs_shell: bool,
    has_pipe: bool,
    /// True if a quote is not closed.
    is_open: bool,
}

impl Syntax {
    fn of(text: &str) -> Self {
        let name = text.split('=').next().filter(|name| name.len() < text.len());
        let mut syntax = Self { needs_shell: name.is_some_and(is_name), ..Self::default() };
        let mut characters = text.chars().peekable();
        let mut at_word = true;
        while let Some(character) = characters.next() {
            match character {
                '\\' => _ = characters.next(),
                '\'' => syntax.is_open |= !characters.any(|next| next == '\''),
                '"' => syntax.double_quoted(&mut characters),
                '#' if at_word => while characters.next_if(|next| *next != '\n').is_some() {},
                '|' => {
                    syntax.needs_shell = true;
                    if characters.next_if_eq(&'|').is_none() {
                        syntax.has_pipe = true;
                    }
                }
                _ => syntax.needs_shell |= SHELL.contains(character),
            }
            at_word = character.is_whitespace() || SHELL.contains(character);
        }
        syntax
    }

    fn double_quoted(&mut self, characters: &mut Peekable<Chars<'_>>) {
        while let Some(character) = characters.next() {
            match character {
                '"' => return,
                '\\' => _ = characters.next(),
                _ => self.needs_shell |= IN_DOUBLE_QUOTES.contains(character),
            }
        }
        self.is_open = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_shell_syntax_is_run_by_a_shell() {
        for text in [
            "npm run lint && npm test",
            "true || false",
            "a; b",
            "a & b",
            "npm test | tee log",
            "test -f x > y",
            "cat < x",
            "(cd web && make)",
            "echo $HOME",
            "echo \"$HOME\"",
            "echo `date`",
            "ls *.rs",
            "ls ?",
            "ls [ab]",
            "ls ~/x",
            "a\nb",
            "CI=1 npm test",
            "A= b",
            "echo 'a' | cat",
            "echo \\\\; b",
        ] {
            assert_eq!(read(text).unwrap().argv, ["sh", "-c", text], "{text:?}");
            assert_eq!(read(&format!(" {text} ")).unwrap().name, text);
        }
    }

    #[test]
    fn any_other_is_split_into_words() {
        for (text, words) in [
            ("cargo test", &["cargo", "test"][..]),
            (" make  -j4 ", &["make", "-j4"]),
            ("b 'c d'", &["b", "c d"]),
            ("b 'c && d' \"e | f\"", &["b", "c && d", "e | f"]),
            ("b c\\&d e\\ f", &["b", "c&d", "e f"]),
            ("b \"it's\" --a=b", &["b", "it's", "--a=b"]),
            ("b 'A=1 c'", &["b", "A=1 c"]),
            ("b \"\\$x\"", &["b", "$x"]),
            ("./a=b c", &["./a=b", "c"]),
        ] {
            assert_eq!(read(text).unwrap().argv, words, "{text:?}");
        }
    }

    #[test]
    fn invalid_commands_are_refused() {
        for (text, why) in [
            ("", "is empty"),
            (" ", "is empty"),
            ("''", "is empty"),
            ("a 'b", "a quote that is not closed"),
            ("a \"b", "a quote that is not closed"),
            ("a && 'b", "a quote that is not closed"),
            ("a\0b", "NUL"),
        ] {
            assert!(read(text).unwrap_err().to_string().contains(why), "{text:?}");
        }
        assert!(read("a # it's fine\nb").is_ok());
    }

    #[test]
    fn the_first_program_is_found_where_it_can_be() {
        for (text, program) in [
            ("cargo test", Some("cargo")),
            ("npm run lint && npm test", Some("npm")),
            ("CI=1 DEBUG=x npm test", Some("npm")),
            ("CI='1 2' npm test", None),
            ("cd web && npm test", None),
            ("(cd web; npm test)", None),
            ("$RUNNER test", None),
            ("! grep x y; z", None),
            ("./check.sh | cat", Some("./check.sh")),
            ("if a; then b; fi", None),
        ] {
            assert_eq!(super::program(&read(text).unwrap()).as_deref(), program, "{text:?}");
        }
    }

    #[test]
    fn a_pipeline_is_seen() {
        for (text, is_pipeline) in [
            ("npm test | tee log", true),
            ("a || b", false),
            ("a '|' b", false),
            ("a && b | c", true),
            ("a || b | c", true),
        ] {
            assert_eq!(hides_failures(&read(text).unwrap()), is_pipeline, "{text:?}");
        }
    }
}
