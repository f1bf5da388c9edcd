//! Base64 (RFC 4648, either alphabet): texts that are hidden in it, and known values as they look in it.

use std::ops::Range;

/// Characters of the shortest run that is looked into.
const SHORTEST: usize = 24;
/// Characters that tell whether a run holds text.
const PROBE: usize = 16;

/// The value of each character; 0xff for what is none.
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

/// Calls `look` with each text that stands encoded in `text`, and with what tells where a part of it stands there.
pub(super) fn each_text(text: &[u8], mut look: impl FnMut(&[u8], &dyn Fn(Range<usize>) -> Range<usize>)) {
    let is_in = |byte: &u8| VALUES[usize::from(*byte)] != 0xff;
    let mut start = 0;
    // A run that is long enough holds the last byte of any stretch of that length which it begins.
    while let Some(stretch) = text.get(start..start + SHORTEST) {
        if let Some(other) = stretch.iter().rposition(|byte| !is_in(byte)) {
            start += other + 1;
            continue;
        }
        let end = start + SHORTEST + text[start + SHORTEST..].iter().take_while(|byte| is_in(byte)).count();
        for shift in 0..4 {
            let from = start + shift;
            if decode(&text[from..from + PROBE]).iter().all(|byte| is_printed(*byte)) {
                let place = |part: Range<usize>| from + part.start / 3 * 4..end.min(from + part.end.div_ceil(3) * 4);
                look(&decode(&text[from..end]), &place);
            }
        }
        start = end;
    }
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

/// `value` as it looks in encoded text, wherever it begins there: the characters that hold its bits alone, in both
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
