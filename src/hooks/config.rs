//! This program's hooks in a file of git's configuration, as one block that can be removed without a trace.
//!
//! `git config` would leave traces: an added line end, sections in new places.

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use super::shim::{SHIMS, line};
use crate::error::{Context as _, Error, Result};

const BEGIN: &str = "# git-agentloop hooks: 'git agentloop hooks uninstall' removes from here";
/// Ends of the first line, if more than the block has to be removed.
const AFTER_CUT_LINE: &str = ", and the line end before\n";
const IN_NEW_FILE: &str = ", and the file\n";
const END: &str = "# git-agentloop hooks: to here\n";

/// Returns the name in git's configuration of the hook that runs at `event`; it must not be an event's name.
fn friendly_name(event: &str) -> String {
    format!("agentloop-{event}")
}

/// Returns the command of a hook as git-hook(1) requires it: git appends the hook's arguments to a one-liner.
fn command(shim: &str) -> String {
    format!("f() {{ {}; }}; f", line(shim))
}

fn sections() -> String {
    let mut text = String::new();
    for (event, shim) in SHIMS {
        let quoted = command(shim).replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(text, "[hook \"{}\"]\n\tevent = {event}\n\tcommand = \"{quoted}\"\n", friendly_name(event));
    }
    text
}

/// Adds the hooks to the content of a file; `None` is a missing file.
fn with_hooks(file: Option<&[u8]>) -> Vec<u8> {
    let (mut text, rest) = match file {
        None => (Vec::new(), IN_NEW_FILE),
        Some(text) if text.is_empty() || text.ends_with(b"\n") => (text.to_vec(), "\n"),
        Some(text) => ([text, b"\n"].concat(), AFTER_CUT_LINE),
    };
    for part in [BEGIN, rest, &sections(), END] {
        text.extend_from_slice(part.as_bytes());
    }
    text
}

/// The state of a file before the hooks were added.
#[derive(Debug, PartialEq, Eq)]
enum Before {
    /// The file did not exist.
    Absent,
    /// The file had this content.
    Held(Vec<u8>),
}

/// Removes the block of hooks from `file`; `None` if it has none.
fn without_hooks(file: &[u8]) -> Option<Before> {
    let start = find(file, BEGIN.as_bytes())?;
    let end = start + find(&file[start..], END.as_bytes())? + END.len();
    let rest = &file[start + BEGIN.len()..];
    let mut before = file[..start].to_vec();
    if rest.starts_with(AFTER_CUT_LINE.as_bytes()) {
        before.pop();
    }
    before.extend_from_slice(&file[end..]);
    let was_not_there = before.is_empty() && rest.starts_with(IN_NEW_FILE.as_bytes());
    Some(if was_not_there { Before::Absent } else { Before::Held(before) })
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

/// Returns whether the file at `path` contains this program's hooks.
pub fn holds_hooks(path: &Path) -> bool {
    std::fs::read(path).is_ok_and(|text| without_hooks(&text).is_some())
}

/// Adds the hooks to the file at `path`.
///
/// Fails if another process is writing it.
pub fn add_hooks(path: &Path) -> Result<()> {
    if holds_hooks(path) {
        return Ok(());
    }
    replace(path, |held| match held {
        Some(text) if without_hooks(text).is_some() => held.map(<[u8]>::to_vec),
        held => Some(with_hooks(held)),
    })
}

/// Removes the hooks from the file at `path`, and returns whether they were there.
///
/// Fails if another process is writing it.
pub fn remove_hooks(path: &Path) -> Result<bool> {
    if !holds_hooks(path) {
        return Ok(false);
    }
    let removed = |held: Option<&[u8]>| match without_hooks(held?) {
        Some(Before::Absent) => None,
        Some(Before::Held(text)) => Some(text),
        None => held.map(<[u8]>::to_vec),
    };
    replace(path, removed).map(|()| true)
}

/// Replaces the content of a file as git does: through `<file>.lock`, behind a symbolic link, with its permissions.
/// `content` maps the content under the lock to the new one; `None` is a missing file.
fn replace(path: &Path, content: impl Fn(Option<&[u8]>) -> Option<Vec<u8>>) -> Result<()> {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let failed = format!("'{}' cannot be written", path.display());
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(failed.as_str())?;
    }
    let mut lock = path.clone().into_os_string();
    lock.push(".lock");
    let lock = std::path::PathBuf::from(lock);
    let mut file = std::fs::File::options().write(true).create_new(true).open(&lock).map_err(|error| {
        Error::failed(failed.as_str())
            .because(error)
            .hint(format!("where another git is writing it, try again; a stale '{}' can go", lock.display()))
    })?;
    let mut written = || -> std::io::Result<()> {
        let held = match std::fs::read(&path) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        match content(held.as_deref()) {
            wanted if wanted == held => std::fs::remove_file(&lock),
            Some(content) => {
                // Permissions come first: content that only its owner may read is never readable by others.
                if let Ok(about) = path.metadata() {
                    file.set_permissions(about.permissions())?;
                }
                file.write_all(&content)?;
                file.sync_all()?;
                std::fs::rename(&lock, &path)
            }
            None => std::fs::remove_file(&path).and_then(|()| std::fs::remove_file(&lock)),
        }
    };
    written().map_err(|error| {
        let _ = std::fs::remove_file(&lock);
        Error::failed(failed).because(error)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn added_hooks_are_removed_without_a_trace(file in proptest::option::of("[a-z\\[\\]=\n\r\t#\"\\\\ ]{0,80}")) {
            let before = file.as_deref().map(str::as_bytes);
            let with = with_hooks(before);
            let expected = before.map_or(Before::Absent, |text| Before::Held(text.to_vec()));
            prop_assert_eq!(without_hooks(&with), Some(expected));
            // The block is also removed if git or a person has added something since.
            let more = [with.as_slice(), b"[user]\n\tname = x\n"].concat();
            let kept = [before.unwrap_or_default(), b"[user]\n\tname = x\n"].concat();
            prop_assert_eq!(without_hooks(&more), Some(Before::Held(kept)));
        }
    }

    #[test]
    fn other_hooks_in_a_file_are_not_found() {
        assert_eq!(without_hooks(b"[hook \"x\"]\n\tevent = pre-push\n"), None);
        assert_eq!(without_hooks(BEGIN.as_bytes()), None);
    }
}
