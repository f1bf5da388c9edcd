//! Secrets in a stream, wherever it is cut into pieces.

use std::sync::Arc;

use super::bytes::run;
use super::find::Finder;
use super::plain::Plain;
use super::shapes::Alphabet;
use super::value::REDACTED;

/// Bytes without a newline from which on a line is not waited for to its end.
const LONG_LINE: usize = 32 * 1024;
/// Bytes of such a line that are held back: longer than what makes a secret known.
const HELD: usize = 8 * 1024;
/// Bytes of a secret that are held back for its end.
const LONGEST: usize = 64 * 1024;
/// Bytes before a piece that tell what it begins with.
const CONTEXT: usize = 128;

/// Cleans a stream. What is complete comes out at once: lines, but for those of a key that goes on; of a line without end
/// all but its last 8 KiB. Memory is bounded.
#[derive(Debug)]
pub struct Stream {
    finder: Arc<Finder>,
    /// The end of what is out, and what is not.
    held: Vec<u8>,
    /// Length of what is out of `held`.
    out: usize,
    /// Where the last line of `held` begins.
    line: usize,
    /// Whether the last secret was longer than is waited for, and may go on.
    in_secret: bool,
}

impl Stream {
    pub(super) fn new(finder: Arc<Finder>) -> Self {
        Self { finder, held: Vec::new(), out: 0, line: 0, in_secret: false }
    }

    /// Takes `bytes` in, and appends what is complete to `clean`.
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

    /// Appends what is left to `clean`.
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
            let ranges: Vec<_> = found.ranges.into_iter().map(|range| plain.place(range)).collect();
            (ranges, open.map_or(until, |open| until.min(open)))
        };
        // What was decided before stays decided.
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
