//! Remarks that name files.

use crate::run::text::a_few;

/// Files that a remark names.
const NAMED_FILES: usize = 10;

/// What checks or the reviewer changed after the tree was written belongs to the next iteration, and is said.
pub(super) fn changed_later(files: &[String]) -> Vec<String> {
    let remark = format!("changed after the checks began, so not in this checkpoint: {}", name_files(files));
    if files.is_empty() { Vec::new() } else { vec![remark] }
}

/// The first of `files`, and how many more there are.
pub(super) fn name_files(files: &[String]) -> String {
    a_few(files, NAMED_FILES)
}
