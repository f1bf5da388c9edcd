//! Removal of secrets from a stream that is cut into pieces anywhere.

use std::sync::Arc;

use super::bytes::run;
use super::find::Finder;
use super::plain::Plain;
use super::shapes::Alphabet;
use super::value::REDACTED;

/// Length from which on a line is processed before its end, in bytes.
const LONG_LINE: usize = 32 * 1024;
/// Length of such a line's end that is held back, in bytes: longer than any pattern of a secret.
const HELD: usize = 8 * 1024;
/// Length up to which a secret is held back for its end, in bytes.
const LONGEST: usize = 64 * 1024;
/// Length of the context before a piece, in bytes, that decides whether a word starts with it.
const CONTEXT: usize = 128;

/// Removes secrets from a stream. Complete lines are released at once, except those of a key that continues; of a line
/// without end, all but its last 8 KiB. Memory is bounded.
#[derive(Debug)]
pub struct Stream {
    finder: Arc<Finder>,
    /// The end of the released text, and the text that is held back.
    held: Vec<u8>,
    /// Length of the released part of `held`.
    out: usize,
    /// Start of the last line of `held`.
    line: usize,
    /// True if the last secret was too long to be held back, and may continue.
    in_secret: bool,
}

impl Stream {
    pub(super) fn new(finder: Arc<Finder>) -> Self {
        Self { finder, held: Vec::new(), out: 0, line: 0, in_secret: false }
    }

    /// Reads `bytes`, and appends the text that is complete to `clean`.
    pub fn push(&mut self, bytes: &[u8], clean: &mut Vec<u8>) {
        if let Some(newline) = bytes.iter().rposition(|byte| *byte == b'\n') {
            self.line = self.held.len() + newline + 1;
        }
        self.held.extend_from_slice(bytes);
        let unfinished = self.held.len() - self.line;
        if unfinished > LONG_LINE {
            let held_back = HELD.max(2 * self.finder.longest);
            self.release(self.held.len().saturating_sub(held_back), false, clean);
        } else if self.line > self.out {
            self.release(self.line, false, clean);
        }
    }

    /// Appends the rest to `clean`.
    pub fn finish(&mut self, clean: &mut Vec<u8>) {
        self.release(self.held.len(), true, clean);
    }

    fn release(&mut self, until: usize, whole: bool, clean: &mut Vec<u8>) {
        if self.in_secret {
            let rest = run(&self.held[self.out..], |byte| Alphabet::Base64.holds(byte));
            self.out += rest;
            self.in_secret = self.out == self.held.len();
        }
        let (mut ranges, mut until) = {
            let plain = Plain::new(&self.held);
            let found = self.finder.find(&plain.text, whole);
            let open = found.open.map(|open| plain.at(open)).filter(|open| self.held.len() - open < LONGEST);
            let ranges: Vec<_> = found.ranges.into_iter().map(|range| plain.range(range)).collect();
            (ranges, open.map_or(until, |open| until.min(open)))
        };
        // Secrets in the released text were handled before.
        ranges.retain(|range| range.end > self.out);
        for range in &ranges {
            let crosses = range.start < until && (range.end > until || !whole && range.end == self.held.len());
            if crosses && self.held.len() - range.start < LONGEST {
                until = range.start;
                break;
            } else if crosses {
                until = range.end;
                self.in_secret = until == self.held.len();
            }
        }
        for range in ranges.into_iter().filter(|range| range.end <= until) {
            clean.extend_from_slice(&self.held[self.out..range.start.max(self.out)]);
            clean.extend_from_slice(REDACTED.as_bytes());
            self.out = range.end;
        }
        if until > self.out {
            clean.extend_from_slice(&self.held[self.out..until]);
            self.out = until;
        }
        let gone = self.out.saturating_sub(CONTEXT);
        self.held.drain(..gone);
        self.out -= gone;
        self.line = self.line.saturating_sub(gone);
    }
}
