//! Makes text from outside safe to show on a terminal.

use std::borrow::Cow;

/// Colours that this program uses, as parameters of `SGR` (ECMA-48, 8.3.117).
const COLOURS: [&str; 6] = ["", "1", "31", "32", "33", "36"];

/// Removes terminal escapes, control characters and marks that reorder or hide text; newlines and tabs stay.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    clean(text, |_| 0)
}

/// Cleans `text` as [`lines`] does, but keeps this program's own colours.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    clean(text, colour)
}

/// Escapes every character of a JSON text that a terminal would act on; the value stays the same.
#[must_use]
pub fn json(text: String) -> String {
    use std::fmt::Write as _;
    if text.chars().all(|character| is_plain(character) || matches!(character, '\n' | '\t')) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 64);
    for character in text.chars() {
        if is_plain(character) || matches!(character, '\n' | '\t') {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        }
    }
    escaped
}

/// Returns the length of the colour sequence of this program that `text` starts with, or 0.
fn colour(text: &str) -> usize {
    let codes = COLOURS.iter().map(|code| ["\u{1b}[", code, "m"].concat());
    codes.filter(|code| text.starts_with(code.as_str())).map(|code| code.len()).next().unwrap_or(0)
}

/// Removes what a terminal would act on, except the sequences for which `keep` returns their length in bytes.
fn clean(text: &str, keep: impl Fn(&str) -> usize) -> Cow<'_, str> {
    if text.chars().all(|character| is_plain(character) || matches!(character, '\n' | '\t')) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        let kept = if character == '\u{1b}' { keep(&text[at..]) } else { 0 };
        if kept > 0 {
            clean.push_str(&text[at..at + kept]);
            while rest.next_if(|(next, _)| *next < at + kept).is_some() {}
            continue;
        }
        match character {
            '\n' | '\t' => clean.push(character),
            '\r' if rest.peek().is_some_and(|(_, next)| *next == '\n') => {}
            '\r' => clean.push('\n'),
            '\u{1b}' => skip_escape(&mut rest),
            // The introducers of sequences as single characters.
            '\u{9b}' => skip_control_sequence(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}' => skip_string(&mut rest),
            character if is_plain(character) => clean.push(character),
            _ => {}
        }
    }
    Cow::Owned(clean)
}

/// Cleans `text` and joins it to one line, with a single space for each separator.
#[must_use]
pub fn line(text: &str) -> String {
    lines(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Cleans `text` as [`line`] does and cuts it to `width` characters.
#[must_use]
pub fn short(text: &str, width: usize) -> String {
    let text = line(text);
    if text.chars().count() <= width {
        return text;
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.truncate(cut.trim_end().len());
    cut + "…"
}

fn is_plain(character: char) -> bool {
    let reorders_or_hides = matches!(character,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180e}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !character.is_control() && !reorders_or_hides
}

type Rest<'a> = std::iter::Peekable<std::str::CharIndices<'a>>;

fn skip_escape(rest: &mut Rest<'_>) {
    match rest.peek().map(|(_, next)| *next) {
        Some('[') => {
            rest.next();
            skip_control_sequence(rest);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => skip_string(rest),
        // Intermediate bytes, then a final byte.
        Some(' '..='~') => while matches!(rest.next(), Some((_, ' '..='/'))) {},
        _ => {}
    }
}

/// Skips parameters and intermediates up to the final character. An incomplete sequence ends at any other character.
fn skip_control_sequence(rest: &mut Rest<'_>) {
    while rest.next_if(|(_, character)| matches!(character, ' '..='?')).is_some() {}
    rest.next_if(|(_, character)| matches!(character, '@'..='~'));
}

/// Skips a title, a link or a palette up to its terminator. An incomplete one ends with its line, so that it hides no more.
fn skip_string(rest: &mut Rest<'_>) {
    while let Some((_, character)) = rest.next_if(|(_, character)| *character != '\n') {
        match character {
            '\u{7}' | '\u{9c}' => return,
            '\u{1b}' if rest.next_if(|(_, next)| *next == '\\').is_some() => return,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_go_and_words_stay() {
        let cases = [
            ("plain é 日本 💥\n\tindented", "plain é 日本 💥\n\tindented"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}]52;c;torn\nnext", "\nnext"),
            ("\u{9b}31mred\u{9d}0;t\u{9c}x", "redx"),
            ("\u{1b}Pq#0\u{1b}\\x\u{1b}(By\u{1b}c", "xy"),
            ("over\rwritten\r\nnext", "over\nwritten\nnext"),
            ("a\u{8}b\u{0}c\u{7f}d\u{7}", "abcd"),
            ("\u{202e}evil\u{2066}x\u{200b}y\u{feff}", "evilxy"),
            ("\u{1b}", ""),
            ("\u{1b}[", ""),
            ("\u{1b}[31日", "日"),
        ];
        for (text, clean) in cases {
            assert_eq!(lines(text), clean, "{text:?}");
        }
    }

    #[test]
    fn a_line_is_one_line_and_short_is_short() {
        assert_eq!(line(" a\n\tb\u{1b}[1m  c "), "a b c");
        assert_eq!(short("one two three", 8), "one two…");
        assert_eq!(short("日本語です", 3), "日本…");
        assert_eq!(short("exact", 5), "exact");
    }

    fn paintless(text: &str) -> String {
        let codes = COLOURS.iter().map(|code| ["\u{1b}[", code, "m"].concat());
        codes.fold(text.replace(['\n', '\t'], ""), |text, code| text.replace(&code, ""))
    }

    #[test]
    fn our_own_colours_stay_and_no_other_escape() {
        let text = "\u{1b}[31mbad\u{1b}[m \u{1b}[38;5;1mx\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}1my\u{202e}z\u{1b}[31";
        assert_eq!(shown(text), "\u{1b}[31mbad\u{1b}[m xyz");
        assert_eq!(shown("plain"), "plain");
    }

    #[test]
    fn json_means_the_same_and_shows_nothing_raw() {
        let text = "a\u{9b}b\u{202e}c\u{7f}\u{1b}\u{e0041}é\n";
        let before = serde_json::to_string(text).unwrap();
        let after = json(before.clone());
        assert!(after.chars().all(is_plain), "{after}");
        assert_eq!(serde_json::from_str::<String>(&after).unwrap(), text);
        assert_eq!(json("{\n}".to_owned()), "{\n}");
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_survives() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let text: String = (0..40)
                .map(|_| match random.u8(0..4) {
                    0 => char::from(random.u8(0..0x20)),
                    1 => char::from(random.u8(0x80..0xa0)),
                    2 => '\u{1b}',
                    _ => char::from(random.u8(0x20..0x7f)),
                })
                .collect();
            assert!(lines(&text).chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')), "{text:?}");
            assert!(!paintless(&shown(&text)).contains(char::is_control), "{text:?}");
        }
    }
}
