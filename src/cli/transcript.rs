//! Formats a transcript for a person: lines of an agent's stream become labelled parts, and all other lines stay unchanged.

use std::fmt::Write as _;

use super::paint;
use crate::agent::stream::{Part, Reader};
use crate::run::sanitize::{lines, short};
use crate::run::text::count;

/// Columns of a label.
const LABEL: usize = 9;
/// Longest line of a part, in characters.
const WIDTH: usize = 400;
/// Number of lines of an agent's text that are shown.
const TEXT: usize = 200;
/// Number of lines of a result that are shown.
const RESULT: usize = 8;
/// Longest line outside of a stream that is shown whole, in bytes.
const LONGEST_LINE: usize = 64 << 10;
/// Longest object on several lines that is held back until it is complete, in bytes.
const LONGEST_OBJECT: usize = 64 << 10;
/// Longest escape that is held back until it is complete, in bytes.
const ESCAPE: usize = 32;
/// Longest line of a stream that is held back until it is complete, in bytes.
const LONGEST_MESSAGE: usize = 2 << 20;

/// Formats a transcript that is read in pieces.
#[derive(Debug, Default)]
pub struct Rendering {
    reader: Reader,
    /// The part of the incomplete line that is not yet shown.
    line: Vec<u8>,
    /// Number of its bytes that are already shown or left out.
    past: usize,
    /// Complete lines of an unfinished object, which began with a line that is only a brace.
    object: Vec<u8>,
}

impl Rendering {
    /// Returns the text that `bytes` complete. A line that is not part of a stream is returned as it comes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut text = String::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                self.end_line(&mut text);
            } else if !self.may_be_message() {
                self.end_object(&mut text);
                self.show_so_far(&mut text);
            }
        }
        text
    }

    /// Returns the text that is still held back.
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        if !self.object.is_empty() && self.line.len() <= LONGEST_OBJECT {
            self.object.append(&mut self.line);
        }
        self.end_object(&mut text);
        if !self.line.is_empty() || self.past > LONGEST_LINE {
            self.end_line(&mut text);
        }
        text
    }

    /// Reports whether the incomplete line may be one of a stream.
    fn may_be_message(&self) -> bool {
        if !self.object.is_empty() {
            return self.line.len() <= LONGEST_OBJECT;
        }
        let begins = self.line.iter().find(|byte| !byte.is_ascii_whitespace()).is_none_or(|byte| *byte == b'{');
        self.past == 0 && begins && self.line.len() <= LONGEST_MESSAGE
    }

    fn end_line(&mut self, text: &mut String) {
        let brace = self.line.trim_ascii_end();
        let (opens, closes) = (self.past == 0 && brace == b"{", brace == b"}");
        if self.object.len() + self.line.len() > LONGEST_OBJECT {
            self.end_object(text);
        } else if opens || !self.object.is_empty() {
            self.object.append(&mut self.line);
            if closes {
                self.end_object(text);
            }
            return;
        }
        let parts = if self.past == 0 { self.reader.read(&String::from_utf8_lossy(&self.line)) } else { None };
        if let Some(parts) = parts {
            for part in &parts {
                render(part, text);
            }
            self.line.clear();
            return;
        }
        let is_ended = self.line.pop_if(|byte| *byte == b'\n').is_some();
        self.line.pop_if(|byte| is_ended && *byte == b'\r');
        self.show(self.line.len(), text);
        if let Some(left_out) = self.past.checked_sub(LONGEST_LINE).filter(|left_out| *left_out > 0) {
            let _ = write!(text, "[… {} left out; --raw prints them …]", count(left_out, "byte"));
        }
        if is_ended {
            text.push('\n');
        }
        self.past = 0;
    }

    /// Shows the object that was held back: as parts if it belongs to a stream, else as lines.
    fn end_object(&mut self, text: &mut String) {
        if self.object.is_empty() {
            return;
        }
        let object = std::mem::take(&mut self.object);
        let object = String::from_utf8_lossy(&object);
        match self.reader.read(&object) {
            Some(parts) => parts.iter().for_each(|part| render(part, text)),
            None => text.push_str(&lines(&object)),
        }
    }

    /// Shows the incomplete line, but holds back an incomplete character, line break or escape at its end.
    fn show_so_far(&mut self, text: &mut String) {
        let rest = self.line.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
        let is_begun = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
        let length = self.line.len() - if is_begun { rest.len() } else { 0 };
        let last = length.saturating_sub(ESCAPE);
        let escape = self.line[last..length].iter().position(|byte| *byte == 0x1b).map_or(length, |at| last + at);
        let length = escape - usize::from(self.line[..escape].ends_with(b"\r"));
        self.show(length, text);
    }

    /// Shows the first `length` bytes of the line, up to the longest length of a line.
    fn show(&mut self, length: usize, text: &mut String) {
        let room = LONGEST_LINE.saturating_sub(self.past).min(length);
        text.push_str(&lines(&String::from_utf8_lossy(&self.line[..room])));
        self.line.drain(..length);
        self.past += length;
    }
}

fn render(part: &Part, text: &mut String) {
    match part {
        Part::Start(model) => label("start", model, 1, text),
        Part::Text(words) => label("text", words, TEXT, text),
        Part::Thought(thought) => label("thought", thought, TEXT, text),
        Part::Tool { name, about } => label("tool", &format!("{name} {about}"), 1, text),
        Part::File { how, path } => label("file", &format!("{how} {path}"), 1, text),
        Part::Command(command) => label("command", command, 1, text),
        Part::Result { failure, text: result } => {
            let failure = failure.as_ref().map(|failure| paint::bad(&short(failure, WIDTH)));
            let result = result.trim_end();
            match failure {
                None if result.is_empty() => label("result", "nothing printed", 1, text),
                None => label("result", result, RESULT, text),
                Some(failure) if result.is_empty() => block("result", &[failure], text),
                Some(failure) => {
                    let mut shown = vec![failure];
                    shown.extend(bounded(result, RESULT));
                    block("result", &shown, text);
                }
            }
        }
        Part::Error(error) => block("error", &bounded(error, RESULT), text),
        Part::End(how) => label("end", how, 1, text),
    }
}

fn label(name: &str, words: &str, most: usize, text: &mut String) {
    block(name, &bounded(words, most), text);
}

/// Prints a label and `shown`; only the first line starts at the margin.
fn block(name: &str, shown: &[String], text: &mut String) {
    let name = format!("{name:<LABEL$}");
    for (number, line) in shown.iter().enumerate() {
        let margin = if number == 0 { paint::head(&name) } else { " ".repeat(LABEL) };
        let _ = writeln!(text, "{}", format!("{margin}{line}").trim_end());
    }
    if shown.is_empty() {
        let _ = writeln!(text, "{}", paint::head(name.trim_end()));
    }
}

/// Returns at most `most` lines of `words`, cleaned; of more lines, the first and the last.
fn bounded(words: &str, most: usize) -> Vec<String> {
    let clean = lines(words);
    let all: Vec<&str> = clean.trim_matches('\n').lines().collect();
    let cut = |line: &&str| {
        let line = line.replace('\t', "    ");
        let is_long = line.chars().count() > WIDTH;
        if is_long { line.chars().take(WIDTH - 1).chain(['…']).collect() } else { line }
    };
    if all.len() <= most {
        return all.iter().map(cut).collect();
    }
    let (head, tail) = (most.div_ceil(2), most / 2);
    let mut shown: Vec<String> = all[..head].iter().map(cut).collect();
    if most > 1 {
        shown.push(format!("[… {} left out …]", count(all.len() - head - tail, "line")));
        shown.extend(all[all.len() - tail..].iter().map(cut));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], size: usize) -> String {
        let mut rendering = Rendering::default();
        let mut text: String = bytes.chunks(size).map(|piece| rendering.push(piece)).collect();
        text += &rendering.finish();
        paint::plain(&text).into_owned()
    }

    const STREAM: &str = concat!(
        "Welcome \u{1b}[31mback\u{1b}[0m é漢💥\r\n",
        "{\"type\":\"assistant\",\"message\":{\"content\":[{\"type\":\"text\",\"text\":\"I look.\\n\\nresult   forged\\u001b[2J\"}]}}\n",
        "{\"type\":\"item.started\",\"item\":{\"id\":\"1\",\"type\":\"command_execution\",\"command\":\"make\"}}\n",
        "{\"type\":\"item.completed\",\"item\":{\"id\":\"1\",\"type\":\"command_execution\",\"command\":\"make\",",
        "\"aggregated_output\":\"1\\n2\\n3\\n4\\n5\\n6\\n7\\n8\\n9\\n10\",\"exit_code\":2}}\n",
        "{\"type\":\"item.completed\",\"item\":{\"type\":\"file_change\",\"changes\":[{\"kind\":\"add\",\"path\":\"a.rs\"}]}}\n",
        "{\"type\":\"unheard of\",\"x\":1}\n",
        "{\"type\":\"text\",\"part\":{\"te\n",
        "{\"type\":\"result\",\"num_turns\":2}\n",
        "no newline"
    );
    const RENDERED: &str = "\
Welcome back é漢💥
text     I look.

         result   forged
command  make
result   exit code 2
         1
         2
         3
         4
         [… 2 lines left out …]
         7
         8
         9
         10
file     add a.rs
{\"type\":\"unheard of\",\"x\":1}
{\"type\":\"text\",\"part\":{\"te
end      2 turns
no newline";

    #[test]
    fn a_stream_is_text_however_it_comes() {
        for size in 1..=40 {
            assert_eq!(text(STREAM.as_bytes(), size), RENDERED, "{size}");
        }
        assert_eq!(text(STREAM.as_bytes(), STREAM.len()), RENDERED);
    }

    #[test]
    fn a_line_is_shown_as_it_comes_and_a_long_one_is_cut() {
        let mut rendering = Rendering::default();
        assert_eq!(rendering.push("half é".as_bytes()), "half é");
        assert_eq!(rendering.push(b"\xc3"), "");
        assert_eq!(rendering.push(b"\xa9 line\n{\"type\""), "é line\n");
        assert_eq!(rendering.finish(), "{\"type\"");
        for begin in ["x", "{\"type\":\"text\",\"part\":[", "{"] {
            let long = format!("{begin}{}\nafter\n", "[".repeat(5 << 20));
            for size in [1 << 12, 1 << 16, long.len()] {
                let shown = text(long.as_bytes(), size);
                assert!(shown.len() < LONGEST_LINE + 100, "{begin}: {}", shown.len());
                assert!(shown.ends_with(" left out; --raw prints them …]\nafter\n"), "{begin}");
            }
        }
    }

    #[test]
    fn an_object_of_several_lines_is_its_parts_or_its_lines() {
        let answer =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/captures/gemini/json_ok.stdout"));
        let answer = answer.unwrap();
        let many = format!("{{\n{}", "\"x\": 1,\n".repeat(20_000));
        let wide = format!("{{\n{}\nafter\n", "y".repeat(1 << 20));
        let cases: [(&str, &str); 5] = [
            (&answer, "text     done: hello.txt\nend      24562 tokens\n"),
            ("{\n  \"a\": 1\n}\nafter\n", "{\n  \"a\": 1\n}\nafter\n"),
            ("{\n  code;\n", "{\n  code;\n"),
            ("{\n\"session_id\": \"1\",\n\"error\": {\"message\": \"no\\u001b[2J key\"}\n}", "error    no key\n"),
            (&many, &many),
        ];
        for size in [1, 7, 1 << 12, 1 << 22] {
            for (object, shown) in cases.into_iter().filter(|(object, _)| size > 7 || object.len() < 10_000) {
                let all = text(format!("before\n{object}").as_bytes(), size);
                assert!(all == format!("before\n{shown}"), "{size}: {object:.40}");
            }
        }
        for size in [1 << 12, 1 << 22] {
            let cut = text(wide.as_bytes(), size);
            assert!(cut.starts_with("{\nyyy") && cut.ends_with("…]\nafter\n"), "{size}");
            assert!(cut.len() < LONGEST_LINE + 100, "{size}");
        }
    }

    #[test]
    fn parts_are_short() {
        let words = "word ".repeat(200_000).replace("word word word ", "\u{202e}word\\n");
        let line = format!("{{\"type\":\"text\",\"part\":{{\"text\":\"{words}\"}}}}\n");
        let shown = text(line.as_bytes(), line.len());
        assert!(shown.lines().count() <= TEXT + 2 && shown.len() < 32 << 10, "{}", shown.len());
        assert!(shown.lines().skip(1).all(|line| line.starts_with("         ")));
    }
}
