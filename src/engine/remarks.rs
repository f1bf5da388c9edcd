//! Remarks that name files.

use crate::run::text::a_few;

/// Number of files that a remark names at most.
const MOST_NAMED_FILES: usize = 10;

/// Reports files that changed after the tree was written: they belong to the next iteration.
pub(super) fn late_changes(files: &[String]) -> Vec<String> {
    let remark = format!("changed after the checks began, so not in this checkpoint: {}", name_files(files));
    if files.is_empty() { Vec::new() } else { vec![remark] }
}

/// Names the first of `files`, and the number of the others.
pub(super) fn name_files(files: &[String]) -> String {
    a_few(files, MOST_NAMED_FILES)
}
