//! Capture of output in bounded memory: the head and the tail are kept, the middle is counted.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::redact::{Redactor, Stream};

/// Length of a spool file's head and of its tail, in bytes each.
const SPOOL_HALF: u64 = 8 << 20;

/// An output stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Source {
    Stdout,
    Stderr,
}

/// The head, the tail and the length of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Kept bytes: the whole stream, or its head and its tail with nothing between them.
    pub(super) kept: Vec<u8>,
    cut: usize,
    /// Number of bytes that the process wrote, kept or not.
    pub(super) total: u64,
}

impl Captured {
    /// Returns whether every byte was kept.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.left_out() == 0
    }

    /// Returns the kept bytes as lossy UTF-8, with a line in the middle that counts the bytes left out.
    #[must_use]
    pub fn text(&self) -> String {
        if self.is_whole() {
            return String::from_utf8_lossy(&self.kept).into_owned();
        }
        let (head, tail) = self.kept.split_at(self.cut);
        let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
        format!("{head}{}{tail}", marker(self.left_out()))
    }

    fn left_out(&self) -> u64 {
        self.total - self.kept.len() as u64
    }
}

/// Returns the line that replaces the middle. It starts on a line of its own.
fn marker(bytes: u64) -> String {
    format!("\n[{bytes} bytes left out]\n")
}

/// Collects a stream into a [`Captured`]. Memory grows with the stream, up to the limit.
pub(super) struct Capture {
    head: Vec<u8>,
    head_room: usize,
    tail: Vec<u8>,
    tail_room: usize,
    /// Position of the oldest byte of a full tail, where the next one is written.
    oldest: usize,
    total: u64,
}

impl Capture {
    pub(super) fn new(keep: usize) -> Self {
        let tail_room = keep / 2;
        Self { head: Vec::new(), head_room: keep - tail_room, tail: Vec::new(), tail_room, oldest: 0, total: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        let (head, rest) = bytes.split_at(bytes.len().min(self.head_room - self.head.len()));
        self.head.extend_from_slice(head);
        let rest = &rest[rest.len().saturating_sub(self.tail_room)..];
        let (grow, wrap) = rest.split_at(rest.len().min(self.tail_room - self.tail.len()));
        self.tail.extend_from_slice(grow);
        let (first, second) = wrap.split_at(wrap.len().min(self.tail.len() - self.oldest));
        self.tail[self.oldest..][..first.len()].copy_from_slice(first);
        self.tail[..second.len()].copy_from_slice(second);
        if !wrap.is_empty() {
            self.oldest = (self.oldest + wrap.len()) % self.tail_room;
        }
    }

    pub(super) fn finish(mut self) -> Captured {
        self.tail.rotate_left(self.oldest);
        let cut = self.head.len();
        self.head.append(&mut self.tail);
        Captured { kept: self.head, cut, total: self.total }
    }
}

/// The file that a call's output is streamed to while it runs, and the redactor of its secrets.
#[derive(Clone, Debug)]
pub struct Transcript {
    /// Path of the file.
    pub path: PathBuf,
    /// Redactor of the text.
    pub redactor: Redactor,
}

/// A file that follows a process's output while it runs, without secrets. Up to 16 MiB it is a plain copy. Longer output
/// keeps its first 8 MiB, and its last 8 MiB in a ring buffer that [`Spool::finish`] puts in order.
pub struct Spool {
    file: File,
    half: u64,
    total: u64,
    failed: Option<io::Error>,
    /// Streams of stdout and stderr: a secret in one is not split by output on the other.
    streams: [Stream; 2],
    clean: Vec<u8>,
}

impl Spool {
    /// Creates or truncates the file.
    ///
    /// Fails if the file cannot be written.
    pub fn create(transcript: &Transcript) -> io::Result<Self> {
        Self::with_half(transcript, SPOOL_HALF)
    }

    fn with_half(transcript: &Transcript, half: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&transcript.path)?;
        let streams = [transcript.redactor.stream(), transcript.redactor.stream()];
        Ok(Self { file, half, total: 0, failed: None, streams, clean: Vec::new() })
    }

    /// Appends the complete lines of output, as a secret ends with its line.
    pub fn push(&mut self, source: Source, bytes: &[u8]) {
        let mut clean = std::mem::take(&mut self.clean);
        self.streams[source as usize].push(bytes, &mut clean);
        self.write(&clean);
        clean.clear();
        self.clean = clean;
    }

    /// Writes to the file. After a failed write (a full disk) the rest is dropped: a transcript that stops early must not
    /// stop the work.
    fn write(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.failed.is_none() {
            let (at, room) = self.place();
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            match self.file.write_all_at(now, at) {
                Ok(()) => self.total += now.len() as u64,
                Err(error) => self.failed = Some(error),
            }
            bytes = later;
        }
    }

    /// Returns the position of the next byte, and the number of bytes that fit from there on.
    fn place(&self) -> (u64, u64) {
        let Some(past) = self.total.checked_sub(self.half) else { return (self.total, self.half - self.total) };
        let turn = past % self.half;
        (self.half + turn, self.half - turn)
    }

    /// Writes the incomplete last line, and orders the tail after a line that counts the bytes left out.
    ///
    /// Fails with the first write error.
    pub fn finish(mut self) -> io::Result<()> {
        for source in [Source::Stdout, Source::Stderr] {
            let mut clean = Vec::new();
            self.streams[source as usize].finish(&mut clean);
            self.write(&clean);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(cut) = self.total.checked_sub(2 * self.half).filter(|&cut| cut > 0) else { return Ok(()) };
        let mut tail = vec![0; usize::try_from(self.half).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut tail, self.half)?;
        let (newest, oldest) = tail.split_at(usize::try_from(cut % self.half).map_err(io::Error::other)?);
        let mut at = self.half;
        for part in [marker(cut).as_bytes(), oldest, newest] {
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(keep: usize, bytes: &[u8], chunk: usize) -> Captured {
        let mut capture = Capture::new(keep);
        bytes.chunks(chunk).for_each(|chunk| capture.push(chunk));
        capture.finish()
    }

    #[test]
    fn a_capture_keeps_head_and_tail_however_the_bytes_arrive() {
        let bytes: Vec<u8> = (b'a'..=b'z').collect();
        for chunk in 1..=bytes.len() {
            for keep in 0..bytes.len() {
                let captured = captured(keep, &bytes, chunk);
                let tail = keep / 2;
                let expected = [&bytes[..keep - tail], &bytes[bytes.len() - tail..]].concat();
                assert_eq!((&captured.kept, captured.total), (&expected, 26), "keep {keep}, chunk {chunk}");
                assert!(!captured.is_whole());
            }
            let whole = captured(bytes.len(), &bytes, chunk);
            assert!(whole.is_whole());
            assert_eq!(whole.text(), "abcdefghijklmnopqrstuvwxyz");
        }
    }

    #[test]
    fn a_text_names_the_bytes_left_out() {
        assert_eq!(captured(4, b"abcdefgh", 3).text(), "ab\n[4 bytes left out]\ngh");
        assert_eq!(captured(0, b"abc", 3).text(), "\n[3 bytes left out]\n");
        assert_eq!(captured(9, b"a\xffb", 3).text(), "a\u{fffd}b");
    }

    #[test]
    fn a_spool_holds_head_marker_and_ordered_tail() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("spool");
        let transcript = Transcript { path: path.clone(), redactor: Redactor::default() };
        let bytes: Vec<u8> = (b'a'..=b'z').collect();
        for chunk in 1..=bytes.len() {
            for half in 1..30 {
                let mut spool = Spool::with_half(&transcript, half as u64).unwrap();
                bytes.chunks(chunk).for_each(|chunk| spool.push(Source::Stdout, chunk));
                spool.finish().unwrap();
                let expected = match bytes.len().checked_sub(2 * half) {
                    None | Some(0) => bytes.clone(),
                    Some(cut) => [&bytes[..half], marker(cut as u64).as_bytes(), &bytes[bytes.len() - half..]].concat(),
                };
                assert_eq!(std::fs::read(&path).unwrap(), expected, "half {half}, chunk {chunk}");
            }
        }
    }
}
