//! What git is set to do: the settings in a file, and which of them could harm before anybody reads that they changed.

use std::collections::{BTreeMap, BTreeSet};

use gix::bstr::{BString, ByteSlice as _};

use super::sight::OF_A_WORKTREE;
use crate::error::Result;
use crate::ledger::git::command::Git;
use crate::ledger::git::repository::Repository;

/// Settings that have git run a command that nobody typed, work elsewhere or not see files: a section and its keys
/// (git-config(1)). No keys are all of them.
const DANGEROUS: [(&str, &[&str]); 12] = [
    (
        "core",
        &[
            "worktree",
            "bare",
            "repositoryformatversion",
            "hookspath",
            "fsmonitor",
            "sshcommand",
            "gitproxy",
            "askpass",
            "editor",
            "pager",
            "excludesfile",
            "attributesfile",
        ],
    ),
    ("credential", &["helper"]),
    ("diff", &["external", "command", "textconv"]),
    ("extensions", &[]),
    ("filter", &["clean", "smudge", "process"]),
    ("gpg", &["program", "defaultkeycommand"]),
    ("hook", &[]),
    ("include", &[]),
    ("includeif", &[]),
    ("merge", &["driver"]),
    ("sequence", &["editor"]),
    ("trailer", &["cmd", "command"]),
];

/// Settings by name, each with its values.
pub(super) type Settings = BTreeMap<String, Vec<BString>>;

/// The settings that a file with this content holds.
pub(super) fn list(repo: &Repository, content: Option<&[u8]>) -> Result<Settings> {
    let mut settings = Settings::new();
    let Some(content) = content else { return Ok(settings) };
    for entry in &Git::of(repo, "config").args(["--list", "--file", "-"]).input(content).records()? {
        let (name, value) = entry.split_once_str("\n").unwrap_or((entry, b"true"));
        settings.entry(name.to_str_lossy().into_owned()).or_default().push(value.into());
    }
    Ok(settings)
}

/// Whether the setting `name`, as git lists it, is one of [`DANGEROUS`].
pub(super) fn is_dangerous(name: &str) -> bool {
    let section = name.split('.').next().unwrap_or_default();
    let key = name.rsplit('.').next().unwrap_or_default();
    DANGEROUS.iter().any(|(known, keys)| *known == section && (keys.is_empty() || keys.contains(&key)))
}

/// The names whose values differ.
pub(super) fn changed<'a>(before: &'a Settings, now: &'a Settings) -> impl Iterator<Item = &'a String> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != now.get(*name))
}

/// A setting's name, with the file that holds it where that is not the repository's own.
pub(super) fn in_words(name: &str, file: &str) -> String {
    if file.ends_with(OF_A_WORKTREE) { format!("{name} (in {OF_A_WORKTREE})") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_or_redirects_is_dangerous() {
        for name in [
            "core.hookspath",
            "core.excludesfile",
            "filter.lfs.clean",
            "includeif.gitdir:~/x.y/.path",
            "hook.a.command",
        ] {
            assert!(is_dangerous(name), "{name}");
        }
        for name in
            ["core.autocrlf", "alias.st", "user.name", "remote.origin.url", "filter.lfs.required", "diff.renames"]
        {
            assert!(!is_dangerous(name), "{name}");
        }
    }
}
