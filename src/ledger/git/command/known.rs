//! Environment and settings of every git process of this program. `tests` compares them with those that the installed git
//! has.

use std::process::Command;

#[cfg(test)]
mod tests;

/// Variables that git still sees, and the reason. A trailing `*` matches the rest of a name. All other variables that begin
/// with `GIT_` are removed: git has some 200, hooks pass many on, and most change git's behaviour.
const KEPT: [(&str, &str); 21] = [
    ("GIT_ALLOW_PROTOCOL", "which protocols the user allows"),
    ("GIT_ATTR_NOSYSTEM", "which of the user's files git reads"),
    ("GIT_AUTHOR_*", "who the user is"),
    ("GIT_CEILING_DIRECTORIES", "how a repository is found"),
    ("GIT_COMMITTER_*", "who the user is"),
    ("GIT_CONFIG_GLOBAL", "which of the user's files git reads"),
    ("GIT_CONFIG_NOSYSTEM", "which of the user's files git reads"),
    ("GIT_CONFIG_SYSTEM", "which of the user's files git reads"),
    ("GIT_CURL_*", "how the user reaches remotes: a partial clone fetches whenever it lacks an object"),
    ("GIT_DISCOVERY_ACROSS_FILESYSTEM", "how a repository is found"),
    ("GIT_EXEC_PATH", "where git itself is installed"),
    ("GIT_HTTP_*", "how the user reaches remotes"),
    ("GIT_NO_LAZY_FETCH", "whether the user lets git reach remotes"),
    ("GIT_PROXY_*", "how the user reaches remotes"),
    ("GIT_SSH", "how the user reaches remotes"),
    ("GIT_SSH_*", "how the user reaches remotes"),
    ("GIT_SSL_*", "how the user reaches remotes"),
    ("GIT_SMART_HTTP", "how the user reaches remotes"),
    ("GIT_TRACE*", "what the user wants to know of git's insides"),
    ("GIT_TRANSPORT_HELPER_DEBUG", "what the user wants to know of git's insides"),
    ("GIT_USER_AGENT", "how the user reaches remotes"),
];

/// Variables that git sees in addition if it reaches a remote in the user's name.
const KEPT_FOR_REMOTES: [(&str, &str); 6] = [
    ("GIT_ASKPASS", "how the user is asked for a password"),
    ("GIT_CONFIG_COUNT", "what the user set for this command: credentials, proxies"),
    ("GIT_CONFIG_KEY_*", "what the user set for this command"),
    ("GIT_CONFIG_PARAMETERS", "what the user set for this command by `git -c`"),
    ("GIT_CONFIG_VALUE_*", "what the user set for this command"),
    ("GIT_TERMINAL_PROMPT", "whether the user is asked for a password"),
];

/// Variables that are set for each git process of ours.
pub(super) const ENVIRONMENT: [(&str, &str); 7] = [
    ("LC_ALL", "C"),
    ("GIT_PAGER", "cat"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", "true"),
    ("SSH_ASKPASS", "true"),
    ("GIT_EDITOR", "true"),
    ("GIT_SEQUENCE_EDITOR", "true"),
];

/// Settings of each git process of ours, whatever the user has set, and the reason.
pub(super) const SETTINGS: [(&str, &str, &str); 44] = [
    ("core.hooksPath", "/dev/null", "the user's hooks are not for refs and commits of ours"),
    ("hook.reference-transaction.enabled", "false", "since git 2.54 hooks are in the configuration too"),
    ("hook.post-checkout.enabled", "false", "since git 2.54 hooks are in the configuration too"),
    ("hook.post-index-change.enabled", "false", "since git 2.54 hooks are in the configuration too"),
    ("add.ignoreErrors", "false", "a file that cannot be read is noticed"),
    ("advice.addEmbeddedRepo", "false", "nested repositories are named by us"),
    ("clone.defaultRemoteName", "origin", "the clone of a submodule is looked up by this name"),
    ("clone.rejectShallow", "false", "a submodule is cloned as the user has it"),
    ("color.ui", "false", "its output is read by us"),
    ("column.ui", "never", "its output is read by us"),
    ("commit.cleanup", "verbatim", "a line of a goal may look like a comment"),
    ("commit.gpgSign", "false", "a pinentry must never block a run"),
    ("core.commentChar", "#", "a trailer must not look like a comment"),
    ("core.commentString", "#", "a trailer must not look like a comment"),
    ("core.fsmonitor", "false", "it runs a command, and may say that a file did not change"),
    ("core.ignoreStat", "false", "it has git take written files for unchanged from then on"),
    ("core.logAllRefUpdates", "true", "what a worker's HEAD has stood at is kept by its reflog"),
    ("core.preferSymlinkRefs", "false", "a HEAD is a file that is read by us"),
    ("core.quotePath", "false", "paths are shown as they are"),
    ("core.safecrlf", "false", "a worker's line ends are no reason to lose a file"),
    ("core.splitIndex", "false", "our indexes are read by us, whole"),
    ("core.untrackedCache", "false", "an index that a worker wrote may hold a cache that hides files"),
    ("diff.ignoreSubmodules", "none", "work in a submodule is work"),
    ("diff.orderFile", "/dev/null", "one that cannot be read has git give up"),
    ("fetch.writeCommitGraph", "false", "workers' fetches into one clone would wait for each other's lock, and fail"),
    ("gc.auto", "0", "a run never waits for a tidying"),
    ("grep.patternType", "basic", "what git's log finds is read by us"),
    ("i18n.commitEncoding", "UTF-8", "messages of ours are UTF-8"),
    ("i18n.logOutputEncoding", "UTF-8", "messages are read as UTF-8"),
    ("index.sparse", "false", "our indexes are read by us, whole"),
    ("init.defaultRefFormat", "files", "refs of a submodule's clone are read by us"),
    ("log.showSignature", "false", "what git's log prints is read by us"),
    ("maintenance.auto", "false", "a run never waits for a tidying"),
    ("merge.autoStash", "false", "a merge stashes nothing where workers merge"),
    ("merge.conflictStyle", "merge", "a conflict looks the same for everybody who resolves it"),
    ("merge.verifySignatures", "false", "workers' commits are unsigned"),
    ("push.followTags", "false", "tags are no business of ours"),
    ("push.gpgSign", "false", "a remote may not know signed pushes"),
    ("rerere.enabled", "false", "a conflict is resolved by an integrator or the user"),
    ("status.showUntrackedFiles", "normal", "a new file is work"),
    (
        "submodule.recurse",
        "false",
        "submodules are filled and followed by us: a worktree lacks clones that git looks for",
    ),
    ("fetch.recurseSubmodules", "false", "a commit that a run made in a submodule is in the user's clone alone"),
    ("push.recurseSubmodules", "no", "a commit that a run made in a submodule is in the user's clone alone"),
    ("trailer.separators", ":", "trailers of ours are read by us"),
];

/// Reports whether a git process of ours sees the user's variable `name`.
pub(super) fn is_kept(name: &str) -> bool {
    KEPT.iter().any(|(pattern, _)| matches(pattern, name))
}

/// Reports whether a git process that reaches a remote in the user's name sees the variable.
pub(super) fn is_kept_for_remotes(name: &str) -> bool {
    is_kept(name) || KEPT_FOR_REMOTES.iter().any(|(pattern, _)| matches(pattern, name))
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// Removes git's variables from the environment of `command`, except those that are kept.
pub(super) fn remove(command: &mut Command, is_kept: impl Fn(&str) -> bool) {
    for (name, _) in std::env::vars_os() {
        let is_gits = name.as_encoded_bytes().starts_with(b"GIT_");
        if is_gits && !name.to_str().is_some_and(&is_kept) {
            command.env_remove(name);
        }
    }
}
