//! Texts of people and agents, brought within bounds; numbers and names in words.

use std::fmt::Display;

use super::sanitize;

/// Longest text in an event, in bytes; longer ones are cut at head and tail.
pub const VALUE_LIMIT: usize = 256 * 1024;
/// Longest goal, in bytes.
pub const GOAL_LIMIT: usize = 1024 * 1024;

/// `text` within `limit` bytes: whole, or its head and tail around a line that counts what was left out.
#[must_use]
pub fn clip(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let half = limit / 2;
    let head = text.floor_char_boundary(half);
    let tail = text.ceil_char_boundary(text.len() - half);
    format!("{}\n[… {} left out …]\n{}", &text[..head], count(tail - head, "byte"), &text[tail..])
}

/// The first line of `text` that says something, made safe to show, at most `limit` characters.
#[must_use]
pub fn one_line(text: &str, limit: usize) -> String {
    let clean = sanitize::lines(text);
    let line = clean.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let clean = line.replace('\t', " ");
    if clean.chars().count() <= limit {
        return clean;
    }
    let mut cut: String = clean.chars().take(limit.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The first `most` of `names`, and how many more there are: `a, b and 3 more`.
#[must_use]
pub fn a_few<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let few = names.iter().take(most).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    let more = names.len().saturating_sub(most);
    if more > 0 { format!("{few} and {more} more") } else { few }
}

/// `1 run`, `2 runs`.
#[must_use]
pub fn count<N: Copy + Display + From<u8> + PartialEq>(number: N, what: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// A span of time in its largest unit: `0.4s`, `12s`, `5m`, `3h`, `2d`.
#[must_use]
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    match seconds {
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 119.5 => format!("{s:.0}s"),
        s if s < 2.0 * 3600.0 => format!("{:.0}m", (s / 60.0).floor()),
        s if s < 48.0 * 3600.0 => format!("{:.0}h", (s / 3600.0).floor()),
        s => format!("{:.0}d", (s / 86_400.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clipped_text_names_what_is_missing() {
        let text = "é".repeat(100);
        let short = clip(&text, 21);
        assert!(short.starts_with("ééééé\n[… 180 bytes left out …]"), "{short}");
        assert_eq!(clip("abc", 3), "abc");
    }

    #[test]
    fn numbers_and_names_are_told_as_a_person_tells_them() {
        assert_eq!([0, 1, 2].map(|number| count(number, "run")), ["0 runs", "1 run", "2 runs"]);
        assert_eq!(a_few(&["a", "b"], 2), "a, b");
        assert_eq!(a_few(&["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(a_few::<&str>(&[], 2), "");
    }
}
