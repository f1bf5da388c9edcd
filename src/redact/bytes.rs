//! Runs of bytes.

/// Returns the length of the run of bytes at the start of `text` for which `is` holds.
pub(super) fn run(text: &[u8], is: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !is(*byte)).unwrap_or(text.len())
}
