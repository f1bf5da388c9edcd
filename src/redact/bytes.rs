//! Runs of bytes.

/// The length of the run of bytes at the beginning of `text` that `is` holds of.
pub(super) fn run(text: &[u8], is: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|byte| !is(*byte)).unwrap_or(text.len())
}
