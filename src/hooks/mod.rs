//! git's hooks: putting them in place, taking them away, and what they do.
//!
//! A hook is one line of shell that calls this program (`hooks/` in this project's source): where the program is missing
//! or broken, the shell says so in a line and git goes on.

mod act;
mod beside;
mod config;
mod place;

pub use self::act::act;
pub use self::place::{Hook, Scope, Standing, install, status, uninstall};

/// What a hook exits with to make git stop; whatever else goes wrong, git goes on.
const REFUSED: u8 = 113;

/// A hook's name and its file, as it is installed.
const SHIMS: [(&str, &str); 3] = [
    ("prepare-commit-msg", include_str!("../../hooks/prepare-commit-msg")),
    ("pre-push", include_str!("../../hooks/pre-push")),
    ("post-rewrite", include_str!("../../hooks/post-rewrite")),
];

/// The line of a shim that does the work.
fn line(shim: &str) -> &str {
    shim.lines().last().unwrap_or_default()
}

/// Whether a hook's file is one of ours, of whatever version.
fn is_ours(text: &str) -> bool {
    text.lines().count() == 3 && text.lines().nth(1).is_some_and(|line| line.starts_with("# git-agentloop:"))
}
