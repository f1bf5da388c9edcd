//! Colours as sparingly as git does and by its settings: `color.agentloop`, else `color.ui` (git-config(1)).
//!
//! Formatted text is always coloured; for an output without colours they are removed on the way. Text of others went through
//! `sanitize` before, so these are its only escapes.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::sync::OnceLock;

use crate::app::Site;
use crate::run::State;

/// The user's choice, once it has been read.
static CHOICE: OnceLock<Choice> = OnceLock::new();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Always,
    Auto,
    Never,
}

/// Reads the user's choice from the settings of `site`.
pub fn choose(site: &Site) {
    let set = |key| site.repository().config(key).pop();
    let value = set("color.agentloop").or_else(|| set("color.ui"));
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let _ = CHOICE.set(if refused { Choice::Never } else { choice(value.as_deref()) }); // later calls set the same
}

fn choice(value: Option<&str>) -> Choice {
    match value.map(str::to_ascii_lowercase).as_deref() {
        Some("always") => Choice::Always,
        Some("never" | "false" | "no" | "off" | "0") => Choice::Never,
        _ => Choice::Auto,
    }
}

fn is_seen(terminal: bool) -> bool {
    match CHOICE.get().unwrap_or(&Choice::Never) {
        Choice::Always => true,
        Choice::Never => false,
        Choice::Auto => terminal && std::env::var_os("TERM").is_some_and(|term| term != "dumb"),
    }
}

/// Reports whether standard output shows colours.
pub fn is_seen_out() -> bool {
    is_seen(std::io::stdout().is_terminal())
}

/// Removes the colours of `text` unless standard output shows them.
pub fn out(text: String) -> String {
    if is_seen_out() { text } else { plain(&text).into_owned() }
}

/// Removes the colours of `text` unless standard error shows them.
pub fn err(text: String) -> String {
    if is_seen(std::io::stderr().is_terminal()) { text } else { plain(&text).into_owned() }
}

/// Removes the colours of `text`.
pub fn plain(text: &str) -> Cow<'_, str> {
    let mut pieces = text.split('\u{1b}');
    let first = pieces.next().unwrap_or_default();
    if first.len() == text.len() {
        return Cow::Borrowed(text);
    }
    let after = |piece: &'_ str| piece.find('m').map_or(piece.len(), |end| end + 1);
    pieces.fold(first.to_owned(), |clean, piece| clean + &piece[after(piece)..]).into()
}

/// Colours success.
pub fn good(text: &str) -> String {
    paint("32", text)
}

/// Colours failure.
pub fn bad(text: &str) -> String {
    paint("31", text)
}

/// Colours warnings, and commits as in git's log.
pub fn notable(text: &str) -> String {
    paint("33", text)
}

/// Emphasizes headings.
pub fn head(text: &str) -> String {
    paint("1", text)
}

/// Colours `words` by a run's state.
pub fn state(state: State, words: &str) -> String {
    match state {
        State::Completed => good(words),
        State::Failed | State::Interrupted | State::Cancelled => bad(words),
        State::Stopped | State::NeedsInput | State::Waiting => notable(words),
        State::Running => paint("36", words),
    }
}

fn paint(code: &str, text: &str) -> String {
    format!("\u{1b}[{code}m{text}\u{1b}[m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_out_is_what_was_put_in() {
        assert_eq!(plain(&format!("a {} b {}\n", good("c"), head("d"))), "a c b d\n");
        assert_eq!(plain("no colours, mm\n"), "no colours, mm\n");
    }

    #[test]
    fn settings_are_git_s() {
        assert_eq!([None, Some("auto"), Some("true"), Some("")].map(choice), [Choice::Auto; 4]);
        assert_eq!([Some("never"), Some("false"), Some("Off")].map(choice), [Choice::Never; 3]);
        assert_eq!(choice(Some("always")), Choice::Always);
    }
}
