//! The lines that an agent prints.

/// The longest message that is read, in bytes.
const LONGEST: usize = 8 << 20;
/// Bytes of room for a line that are kept for the next.
const KEPT: usize = 64 << 10;

/// A line of an agent's output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Text<'a> {
    Whole(&'a [u8]),
    /// The beginning of one that is longer than a message may be.
    Long(&'a [u8]),
}

/// Puts lines together from what comes, each in bounded room.
#[derive(Default)]
pub(super) struct Lines {
    line: Vec<u8>,
    is_long: bool,
}

impl Lines {
    pub(super) fn hear(&mut self, bytes: &[u8], mut each: impl FnMut(Text<'_>)) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            self.add(part);
            self.end(&mut each);
        }
        self.add(last);
    }

    fn add(&mut self, part: &[u8]) {
        let room = LONGEST - self.line.len();
        self.is_long |= part.len() > room;
        self.line.extend_from_slice(&part[..part.len().min(room)]);
    }

    pub(super) fn end(&mut self, mut each: impl FnMut(Text<'_>)) {
        let is_long = std::mem::take(&mut self.is_long);
        each(if is_long { Text::Long(&self.line) } else { Text::Whole(&self.line) });
        self.line.clear();
        self.line.shrink_to(KEPT);
    }
}
