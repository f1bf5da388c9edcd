//! Reads the settings in a file, and decides which changes of them are reverted.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use gix::bstr::{BStr, BString, ByteSlice as _};

use super::kinds::{Effect, effect};
use crate::error::{Context as _, Result};
use crate::ledger::git::command::{Git, nul_separated};

/// Names, below a git directory, of the repository's settings and of a single worktree's (git-worktree(1), "CONFIGURATION
/// FILE").
pub(super) const CONFIG: &str = "config";
pub(super) const OF_A_WORKTREE: &str = "config.worktree";

/// Length above which values are not repeated in a remark.
const LONG: usize = 300;

/// Settings by name, each with its values.
pub(super) type Settings = BTreeMap<String, Vec<BString>>;

/// A setting that is to be reverted.
#[derive(Debug)]
pub(super) struct SettingChange {
    /// The file that holds it.
    pub(super) file: String,
    pub(super) name: String,
    /// The values that it has now; empty if it is not set.
    pub(super) now: Vec<BString>,
    /// The values that it had.
    pub(super) before: Vec<BString>,
}

/// Parses the settings in a file with this content; `None` if git cannot read it.
pub(super) fn list(content: Option<&[u8]>) -> Result<Option<Settings>> {
    let mut settings = Settings::new();
    let Some(content) = content else { return Ok(Some(settings)) };
    let output = config().args(["--list", "--no-includes", "-z", "--file", "-"]).input(content).output()?;
    if !output.status.success() {
        return Ok(None);
    }
    for entry in nul_separated(&output.stdout) {
        let (name, value) = entry.split_once_str("\n").unwrap_or((entry, b"true"));
        settings.entry(name.to_str_lossy().into_owned()).or_default().push(value.into());
    }
    Ok(Some(settings))
}

/// Builds a `git config` that reads no other configuration first.
fn config() -> Git {
    let git = Git::discovering(Some(Path::new("/")), "config").env("GIT_CEILING_DIRECTORIES", "/");
    git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_SYSTEM", "/dev/null")
}

/// Returns the content of a file after `changes` are reverted.
pub(super) fn without(content: &[u8], changes: &[SettingChange], scratch: &Path) -> Result<Vec<u8>> {
    let failed = || "settings cannot be put back";
    let folder = tempfile::tempdir_in(scratch).context(failed())?;
    let file = folder.path().join("config");
    std::fs::write(&file, content).context(failed())?;
    for change in changes {
        let config = || config().arg("--file").arg(&file);
        if !change.now.is_empty() {
            config().args(["--unset-all", "--", &change.name]).run()?;
        }
        for value in &change.before {
            config().args(["--add", "--", &change.name]).arg(value.to_os_str_lossy().into_owned()).run()?;
        }
    }
    std::fs::read(&file).context(failed())
}

/// Lists the names whose values differ.
pub(super) fn changed<'a>(before: &'a Settings, now: &'a Settings) -> impl Iterator<Item = &'a String> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != now.get(*name))
}

/// Reports whether the setting `name`, which changed, is reverted.
pub(super) fn is_restored(name: &str, before: &Settings, now: &Settings) -> bool {
    match effect(name) {
        Some(Effect::Executes | Effect::Redirects | Effect::Hides) => true,
        Some(Effect::Defines) => now.contains_key(name) && before.keys().any(|known| is_of_same(known, name)),
        Some(Effect::Harmless) | None => false,
    }
}

/// Reports whether two settings belong to the same branch, remote or submodule.
fn is_of_same(one: &str, other: &str) -> bool {
    let subject = |name: &str| name.rsplit_once('.').map(|(subject, _)| subject.to_owned());
    subject(one) == subject(other)
}

/// Returns a setting's name, with its file unless that is the repository's own.
pub(super) fn describe_setting(name: &str, file: &str) -> String {
    if file == CONFIG {
        name.to_owned()
    } else if file.ends_with(OF_A_WORKTREE) {
        format!("{name} (in {OF_A_WORKTREE})")
    } else {
        format!("{name} (in {file})")
    }
}

impl SettingChange {
    /// Returns the commands that set the reverted values again.
    pub(super) fn undoing(&self, common_dir: &Path) -> Vec<String> {
        let config = if self.file == CONFIG {
            "git config".to_owned()
        } else if self.file == OF_A_WORKTREE {
            "git config --worktree".to_owned()
        } else {
            format!("git config --file {}", shell_words::quote(&common_dir.join(&self.file).to_string_lossy()))
        };
        let name = shell_words::quote(&self.name);
        let unset = format!("{config} --unset-all {name}");
        match (&self.before[..], &self.now[..]) {
            (_, []) => vec![unset],
            ([] | [_], [value]) => vec![format!("{config} {name} {}", self.quote_value(value.as_bstr()))],
            (before, now) => {
                let add =
                    now.iter().map(|value| format!("{config} --add {name} {}", self.quote_value(value.as_bstr())));
                (!before.is_empty()).then_some(unset).into_iter().chain(add).collect()
            }
        }
    }

    /// Quotes a value for a shell. A possible secret, or a value that cannot be typed, is replaced by a placeholder.
    fn quote_value(&self, value: &BStr) -> String {
        let name = self.name.to_ascii_lowercase();
        let is_secret = name.ends_with("extraheader")
            || name.ends_with("pass")
            || name.ends_with("password")
            || (value.find("://").is_some() && value.find("@").is_some());
        match value.to_str() {
            Ok(value) if !is_secret && value.len() <= LONG && !value.chars().any(char::is_control) => {
                shell_words::quote(value).into_owned()
            }
            _ => "VALUE".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(names: &[&str]) -> Settings {
        names.iter().map(|name| ((*name).to_owned(), vec![BString::from("x")])).collect()
    }

    #[test]
    fn what_a_new_remote_needs_is_left_and_what_could_harm_is_not() {
        let before = settings(&["remote.origin.url", "branch.main.remote"]);
        for (name, restored) in [
            ("remote.new.url", false),
            ("remote.new.fetch", false),
            ("remote.new.vcs", true),
            ("remote.new.proxy", true),
            ("remote.origin.url", true),
            ("remote.origin.pushurl", true),
            ("branch.main.merge", true),
            ("branch.topic.remote", false),
            ("user.name", false),
            ("core.pager", true),
        ] {
            let now = settings(&[name]);
            assert_eq!(is_restored(name, &before, &now), restored, "{name}");
        }
        assert!(!is_restored("remote.origin.url", &before, &Settings::new()), "a remote may be removed");
    }

    #[test]
    fn the_commands_that_undo_are_printed_without_secrets() {
        let change = |name: &str, before: &[&str], now: &[&str]| {
            let values = |values: &[&str]| values.iter().map(|value| BString::from(*value)).collect();
            let change =
                SettingChange { file: CONFIG.into(), name: name.into(), now: values(now), before: values(before) };
            change.undoing(Path::new("/r/.git")).join(" && ")
        };
        for (name, before, now, expected) in [
            ("core.pager", &[][..], &["less -R"][..], "git config core.pager 'less -R'"),
            ("core.pager", &["a"], &["b"], "git config core.pager b"),
            ("core.pager", &["a"], &[], "git config --unset-all core.pager"),
            ("alias.x", &[], &["a", "b"], "git config --add alias.x a && git config --add alias.x b"),
            ("alias.x", &["c", "d"], &["a"], "git config --unset-all alias.x && git config --add alias.x a"),
            ("http.extraheader", &[], &["Authorization: x"], "git config http.extraheader VALUE"),
            ("http.proxy", &[], &["http://me:secret@x"], "git config http.proxy VALUE"),
            ("core.pager", &[], &["a\nb"], "git config core.pager VALUE"),
        ] {
            assert_eq!(change(name, before, now), expected, "{name}");
        }
    }
}
