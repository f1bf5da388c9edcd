//! Text without the terminal's colour sequences, which may be in the middle of a key.

use std::borrow::Cow;
use std::ops::Range;

use super::bytes::run;

/// Longest sequence, in bytes.
const LONGEST: usize = 40;
/// ESC as programs print or escape it.
const ESCAPES: [&[u8]; 7] = [b"\x1b", b"\\u001b", b"\\u001B", b"\\x1b", b"\\x1B", b"\\033", b"\\e"];

/// A text without control sequences (ECMA-48, CSI), with their positions.
pub(super) struct Plain<'a> {
    pub(super) text: Cow<'a, [u8]>,
    /// For each sequence its position in the plain text, and the number of bytes left out up to it.
    gaps: Vec<(usize, usize)>,
}

impl<'a> Plain<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        let (mut plain, mut gaps) = (Vec::new(), Vec::new());
        if !text.contains(&0x1b) && !text.contains(&b'\\') {
            return Self { text: Cow::Borrowed(text), gaps };
        }
        let (mut copied, mut left_out, mut at) = (0, 0, 0);
        while let Some(next) = text[at..].iter().position(|byte| matches!(byte, 0x1b | b'\\')) {
            at += next;
            let length = sequence(&text[at..]);
            if length > 0 {
                plain.extend_from_slice(&text[copied..at]);
                left_out += length;
                gaps.push((plain.len(), left_out));
                copied = at + length;
            }
            at += length.max(1);
        }
        if gaps.is_empty() {
            return Self { text: Cow::Borrowed(text), gaps };
        }
        plain.extend_from_slice(&text[copied..]);
        Self { text: Cow::Owned(plain), gaps }
    }

    /// Maps a range of the plain text to the original text.
    pub(super) fn range(&self, part: Range<usize>) -> Range<usize> {
        self.at(part.start)..part.end.checked_sub(1).map_or(0, |last| self.at(last) + 1)
    }

    /// Maps a position of the plain text to the original text.
    pub(super) fn at(&self, at: usize) -> usize {
        let gaps = self.gaps.partition_point(|(gap, _)| *gap <= at);
        at + gaps.checked_sub(1).map_or(0, |gap| self.gaps[gap].1)
    }
}

/// Returns the length of the control sequence at the start of `text`, or 0.
fn sequence(text: &[u8]) -> usize {
    let text = &text[..text.len().min(LONGEST)];
    let Some(escape) = ESCAPES.iter().find(|escape| text.starts_with(escape)) else { return 0 };
    let Some(rest) = text[escape.len()..].strip_prefix(b"[") else { return 0 };
    let parameters = run(rest, |byte| (0x20..=0x3f).contains(&byte));
    match rest.get(parameters) {
        Some(0x40..=0x7e) => escape.len() + 1 + parameters + 1,
        _ => 0,
    }
}
