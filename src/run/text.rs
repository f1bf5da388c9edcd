//! Texts of people and agents, limited in length; numbers and names in words.

use std::fmt::Display;

use jiff::tz::TimeZone;

use super::sanitize;
use super::timestamp::Timestamp;

/// Longest text in an event, in bytes; longer ones are cut in the middle.
pub const VALUE_LIMIT: usize = 256 * 1024;
/// Longest goal, in bytes.
pub const GOAL_LIMIT: usize = 1024 * 1024;

/// Limits `text` to `limit` bytes: a longer text is cut in the middle, where a line counts what was left out.
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

/// Returns the first line of `text` that is not blank, safe to show, with at most `limit` characters.
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

/// Returns the line of a program's output that tells best why it failed: the first about an error, or else the last one. It
/// is safe to show and at most `width` characters long. Returns `None` if no line holds a word.
#[must_use]
pub fn telling_line(output: &str, width: usize) -> Option<String> {
    let clean = sanitize::lines(output);
    let mut lines = clean.lines().map(str::trim).filter(|line| line.contains(char::is_alphanumeric));
    let line = lines.clone().find(|line| is_about_failure(line)).or_else(|| lines.next_back())?;
    Some(cut(line, width))
}

/// Limits `line` to `width` characters.
pub(super) fn cut(line: &str, width: usize) -> String {
    let line = line.replace('\t', "    ");
    if line.chars().count() <= width {
        return line;
    }
    line.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// Returns whether a line of a test's or a compiler's output is about a failure, and not about the lack of one.
fn is_about_failure(line: &str) -> bool {
    let words: Vec<&str> =
        line.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let denies = |word: &str| ["0", "no", "without", "zero", "not"].iter().any(|no| word.eq_ignore_ascii_case(no));
    let is_failure = |word: &str| {
        let lower = word.to_ascii_lowercase();
        let begins = ["fail", "panick", "fatal", "assertion", "traceback"].iter().any(|sign| lower.starts_with(sign));
        let is_class = word.len() > 5 && (word.ends_with("Error") || word.ends_with("Exception"));
        begins || is_class || matches!(lower.as_str(), "error" | "errors" | "exception")
    };
    let mut before = "";
    words.into_iter().any(|word| {
        let tells = is_failure(word) && !denies(before);
        before = word;
        tells
    }) || line.starts_with("not ok")
}

/// Names the first `most` of `names`, and the number of the others: `a, b and 3 more`.
#[must_use]
pub fn a_few<T: AsRef<str>>(names: &[T], most: usize) -> String {
    let few = names.iter().take(most).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
    let more = names.len().saturating_sub(most);
    if more > 0 { format!("{few} and {more} more") } else { few }
}

/// Writes a number with its noun: `1 run`, `2 runs`.
#[must_use]
pub fn count<N: Copy + Display + From<u8> + PartialEq>(number: N, what: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// Writes a duration in its largest unit: `0.4s`, `12s`, `5m`, `3h`, `2d`.
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

/// Writes how long a run waits for `backend` and, if that is a minute or more, until when in `zone`.
#[must_use]
pub fn waiting_for(backend: &str, until: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let left = until.since(now);
    let until = if left < 60.0 { String::new() } else { format!(" (until {})", until.shown(now, zone)) };
    format!("waiting {}{until} for {backend}", span(left))
}

/// Names the first `most` of `names`, sorted and without duplicates, and the number of the others; `None` without names.
#[must_use]
pub fn sorted_few(mut names: Vec<String>, most: usize) -> Option<String> {
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| a_few(&names, most))
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
    fn numbers_and_names_are_written_in_words() {
        assert_eq!([0, 1, 2].map(|number| count(number, "run")), ["0 runs", "1 run", "2 runs"]);
        assert_eq!(a_few(&["a", "b"], 2), "a, b");
        assert_eq!(a_few(&["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(a_few::<&str>(&[], 2), "");
    }

    #[test]
    fn the_line_that_tells_why_a_check_failed() {
        let cases = [
            // cargo test
            (
                "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n",
                "   Compiling thiserror v1.0\nerror: test failed, to rerun pass `--lib`\n",
                "test b ... FAILED",
            ),
            // rustc
            (
                "",
                "   Compiling thiserror v1.0\nwarning: unused\nerror[E0425]: cannot find value `x`\n",
                "error[E0425]: cannot find value `x`",
            ),
            // pytest
            (
                "==== test session starts ====\n1 passed, 0 failed\nE   AssertionError: assert 1 == 2\n",
                "",
                "E   AssertionError: assert 1 == 2",
            ),
            // TAP
            ("1..2\nok 1 - fine\nnot ok 2 - sums\n", "", "not ok 2 - sums"),
            // go test
            ("ok  \tx/a\t0.1s\n--- FAIL: TestB (0.00s)\n", "", "--- FAIL: TestB (0.00s)"),
            // tsc
            (
                "src/a.ts(1,2): error TS2304: Cannot find name 'b'.\nFound 1 error.\n",
                "",
                "src/a.ts(1,2): error TS2304: Cannot find name 'b'.",
            ),
            ("found no errors\n2 files differ\n----\n", "", "2 files differ"),
            ("\u{1b}[31mfailed\u{1b}[0m: \u{202e}x", "", "failed: x"),
        ];
        for (stdout, stderr, line) in cases {
            let output = [stdout, stderr].concat();
            assert_eq!(telling_line(&output, 80).as_deref(), Some(line), "{output}");
        }
        assert_eq!(telling_line(" \n---\n", 80), None);
        assert_eq!(telling_line(&"error ".repeat(1000), 9).unwrap(), "error er…");
    }
}
