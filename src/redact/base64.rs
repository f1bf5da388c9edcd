//! Base64 (RFC 4648, either alphabet): texts that are encoded in it, and known values as they appear in it.

use std::ops::Range;

use super::bytes::run;

/// Length of the shortest run that is decoded, in characters.
const SHORTEST: usize = 24;
/// Number of characters that decide whether a run contains text.
const PROBE: usize = 16;

/// Value of each character; 0xff for characters outside of the alphabets.
const VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut at = 0;
    while at < 64 {
        values[alphabet[at as usize] as usize] = at;
        at += 1;
    }
    values[b'-' as usize] = 62;
    values[b'_' as usize] = 63;
    values
};

/// Length of the shortest line at which a text is wrapped, in characters.
const WRAPPED: usize = 40;

/// Calls `look` with each text that is encoded in `text`, in one line or wrapped over several, and with a function that maps
/// a part of it to its position in `text`.
pub(super) fn each_text(text: &[u8], mut look: impl FnMut(&[u8], &dyn Fn(Range<usize>) -> Range<usize>)) {
    let mut start = 0;
    let mut joined = 0; // the text before this was decoded with the lines after it
    // A run that is long enough contains the last byte of any stretch of that length which it starts.
    while let Some(stretch) = text.get(start..start + SHORTEST) {
        if let Some(other) = stretch.iter().rposition(|byte| !is_base64(*byte)) {
            start += other + 1;
            continue;
        }
        let end = start + run(&text[start..], is_base64);
        let mut after = joined;
        for shift in 0..4 {
            let from = start + shift;
            if decode(&text[from..from + PROBE]).iter().all(|byte| is_printed(*byte)) {
                let place = |part: Range<usize>| from + part.start / 3 * 4..end.min(from + part.end.div_ceil(3) * 4);
                look(&decode(&text[from..end]), &place);
                let lines = if start < joined { Vec::new() } else { wrapped(text, start..end) };
                if let [_, .., last] = &lines[..] {
                    look_at_lines(text, &lines, shift, &mut look);
                    after = last.end;
                }
            }
        }
        (start, joined) = (end, after);
    }
}

fn is_base64(byte: u8) -> bool {
    VALUES[usize::from(byte)] != 0xff
}

/// Returns the lines over which an encoded text is wrapped, from its first, `line`, on: all but the last have its length.
fn wrapped(text: &[u8], line: Range<usize>) -> Vec<Range<usize>> {
    let length = line.len();
    let mut lines = vec![line];
    while let Some(last) = lines.last().filter(|last| length >= WRAPPED && (lines.len() == 1 || last.len() == length)) {
        let rest = &text[last.end..];
        let Some(rest) = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n")) else { break };
        let from = text.len() - rest.len() + run(rest, |byte| matches!(byte, b' ' | b'\t'));
        let next = from..from + run(&text[from..], is_base64);
        if next.is_empty() || next.len() > length {
            break;
        }
        lines.push(next);
    }
    lines
}

/// Calls `look` with the text that `lines` contain together, from the character `shift` on.
fn look_at_lines(
    text: &[u8],
    lines: &[Range<usize>],
    shift: usize,
    look: &mut impl FnMut(&[u8], &dyn Fn(Range<usize>) -> Range<usize>),
) {
    let whole: Vec<u8> = lines.iter().flat_map(|line| &text[line.clone()]).skip(shift).copied().collect();
    let length = lines[0].len();
    // The position of a character: all lines but the last have one length.
    let at = |character: usize| {
        let character = character + shift;
        let line = (character / length).min(lines.len() - 1);
        lines[line].start + character - line * length
    };
    let place = |part: Range<usize>| {
        let end = (part.end.div_ceil(3) * 4).min(whole.len());
        at(part.start / 3 * 4)..at(end.saturating_sub(1)) + 1
    };
    look(&decode(&whole), &place);
}

fn is_printed(byte: u8) -> bool {
    byte.is_ascii_graphic() || matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

fn decode(run: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(run.len() / 4 * 3 + 3);
    let (mut bits, mut held) = (0_u32, 0);
    for byte in run {
        bits = bits << 6 | u32::from(VALUES[usize::from(*byte)]);
        held += 6;
        if held >= 8 {
            held -= 8;
            decoded.push((bits >> held & 0xff) as u8);
        }
    }
    decoded
}

/// Returns `value` as it appears in encoded text at any offset: the characters that its bits alone determine, in both
/// alphabets.
pub(super) fn forms(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let padded: Vec<u8> = std::iter::repeat_n(0, before).chain(value.iter().copied()).collect();
        let first = (before * 8_usize).div_ceil(6);
        let last = padded.len() * 8 / 6;
        for alphabet in [
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
        ] {
            let sextet = |at: usize| {
                let bit = at * 6;
                let two = u16::from(padded[bit / 8]) << 8 | u16::from(*padded.get(bit / 8 + 1).unwrap_or(&0));
                alphabet[usize::from(two >> (10 - bit % 8) & 63)]
            };
            forms.push((first..last).map(sextet).collect());
        }
    }
    forms.dedup();
    forms
}
