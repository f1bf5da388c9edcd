//! The lines of shell that are installed as hooks.

/// Names of the hooks, and the content of their files.
pub(super) const SHIMS: [(&str, &str); 3] = [
    ("prepare-commit-msg", include_str!("../../hooks/prepare-commit-msg")),
    ("pre-push", include_str!("../../hooks/pre-push")),
    ("post-rewrite", include_str!("../../hooks/post-rewrite")),
];

/// Returns the line of a shim that calls this program.
pub(super) fn line(shim: &str) -> &str {
    shim.lines().last().unwrap_or_default()
}

/// Returns whether a hook's file is a shim of this program, of any version.
pub(super) fn is_own_shim(text: &str) -> bool {
    text.lines().count() == 3 && text.lines().nth(1).is_some_and(|line| line.starts_with("# git-agentloop:"))
}
