//! A command of the user's: a check, or what sets a worktree up.

use super::value::Wrong;
use crate::run::goal::Check;

/// Splits `text` into the words of a command, as a shell would.
///
/// # Errors
/// Where it is none.
pub fn read(text: &str) -> Result<Check, Wrong> {
    if text.contains('\0') {
        return Err(Wrong::new(&text.replace('\0', "\u{fffd}"), "a command; it contains a NUL byte"));
    }
    match shell_words::split(text) {
        Ok(argv) if argv.first().is_some_and(|program| !program.is_empty()) => {
            Ok(Check { name: text.trim().to_owned(), argv })
        }
        Ok(_) => Err(Wrong::new(text, "a command; it is empty")),
        Err(_) => Err(Wrong::new(text, "a command; it has a quote that is not closed")),
    }
}
