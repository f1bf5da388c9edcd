//! Paths that models name, held against the worktree they may work in.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// Resolves `path`, which must be in `root`, a path without links: neither `..` nor a link leads out of it. A model has
/// no access to git's own files.
///
/// # Errors
/// Why it is refused, in words for the model.
pub(super) fn inside(root: &Path, path: &str) -> Result<PathBuf, String> {
    let refused = |why: &str| Err(format!("'{path}' {why}"));
    let mut wanted = root.to_owned();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) if is_git(name) => return refused("is git's own"),
            Component::Normal(name) => wanted.push(name),
            Component::CurDir => {}
            Component::ParentDir => {
                wanted.pop();
            }
            Component::RootDir | Component::Prefix(_) => wanted = PathBuf::from("/"),
        }
    }
    if !wanted.starts_with(root) {
        return refused("is outside of the worktree");
    }
    // What is there may lead elsewhere; below it nothing is, that could.
    let mut there = wanted.as_path();
    while there.symlink_metadata().is_err() {
        there = there.parent().unwrap_or(root);
    }
    let real = there.canonicalize().map_err(|error| format!("'{path}' cannot be reached: {error}"))?;
    let inside = real.strip_prefix(root).map_err(|_| format!("'{path}' leads out of the worktree"))?;
    if inside.components().any(|part| is_git(part.as_os_str())) {
        return refused("is git's own");
    }
    Ok(match wanted.strip_prefix(there) {
        Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
        _ => real,
    })
}

/// File systems may take `.GIT` for the same, and HFS+ passes over some characters, as git itself minds (git-config(1),
/// `core.protectHFS`).
fn is_git(name: &OsStr) -> bool {
    let is_passed_over = |c: &char| matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let name: String = name.to_string_lossy().chars().filter(|c| !is_passed_over(c)).collect();
    name.eq_ignore_ascii_case(".git")
}
