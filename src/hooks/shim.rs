//! The lines of shell that are installed as hooks.

/// A hook's name and its file, as it is installed.
pub(super) const SHIMS: [(&str, &str); 3] = [
    ("prepare-commit-msg", include_str!("../../hooks/prepare-commit-msg")),
    ("pre-push", include_str!("../../hooks/pre-push")),
    ("post-rewrite", include_str!("../../hooks/post-rewrite")),
];

/// The line of a shim that does the work.
pub(super) fn line(shim: &str) -> &str {
    shim.lines().last().unwrap_or_default()
}

/// Whether a hook's file is one of ours, of whatever version.
pub(super) fn is_ours(text: &str) -> bool {
    text.lines().count() == 3 && text.lines().nth(1).is_some_and(|line| line.starts_with("# git-agentloop:"))
}
