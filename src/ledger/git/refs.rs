//! Moves refs by compare-and-swap, through one `git update-ref --stdin` that outlives the driver.
//!
//! A process that dies while it holds `<ref>.lock` or `packed-refs.lock` blocks the user's git for good. So a child in its
//! own process group takes the locks: if the driver is killed, the child reads end-of-file and releases them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, PoisonError};

use gix::ObjectId;

use super::command::Git;
use crate::error::{Context as _, Error, Result};

/// The reflog message of our moves. An entry with another message is a move by another program.
pub(super) const REFLOG_MESSAGE: &str = "agentloop";

/// A move of one ref.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The full name.
    pub name: String,
    /// The new value; `None` deletes the ref.
    pub new: Option<ObjectId>,
    /// The value that it must have now.
    pub old: Expect,
}

/// Value that a ref must have for a [`Change`] to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It is at this object.
    Is(ObjectId),
    /// Any value, or none.
    Any,
}

/// Result of a swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// All refs moved.
    Done,
    /// None moved: another program has moved at least one of them.
    Lost,
}

/// Moves refs of one repository. Its child starts with the first use, and again if it died.
#[derive(Debug)]
pub struct RefMover {
    common_dir: PathBuf,
    synced: bool,
    child: Mutex<Option<Updater>>,
}

impl RefMover {
    /// Makes a mover for the repository with this common directory (`git rev-parse --git-common-dir`).
    #[must_use]
    pub fn new(git_common_dir: PathBuf) -> Self {
        Self { common_dir: git_common_dir, synced: false, child: Mutex::new(None) }
    }

    /// Sets whether git syncs a ref's file before renaming it (`core.fsync=reference`, not among git's defaults). On file
    /// systems that do not do so by themselves, a power cut could otherwise leave it empty.
    #[must_use]
    pub fn synced(mut self, synced: bool) -> Self {
        self.synced = synced;
        self
    }

    /// Returns the repository's common directory.
    #[must_use]
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// Makes all `changes`, or none if one of the refs does not have its expected value.
    ///
    /// # Errors
    /// Fails if git cannot move a ref that is at its expected value: a lock that stays, a name in the way, a full disk.
    pub fn swap(&self, changes: &[Change]) -> Result<Swap> {
        if changes.is_empty() {
            return Ok(Swap::Done);
        }
        let script = script(changes);
        let mut slot = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let fresh = slot.is_none();
            let updater = match slot.take() {
                Some(updater) => updater,
                None => self.start()?,
            };
            let reason = match updater.run(&script) {
                Ok(updater) => {
                    *slot = Some(updater);
                    return Ok(Swap::Done);
                }
                Err(reason) => reason,
            };
            // Git's message is prose; the values of the refs are reliable.
            match self.compare(changes) {
                RefValues::Moved => return Ok(Swap::Done),
                RefValues::Elsewhere => {
                    // The next attempt is near: it must not wait for a process to start while others move the ref.
                    *slot = self.start().ok();
                    return Ok(Swap::Lost);
                }
                // An idle child may have been killed by another program; a fresh one failed at this very change.
                RefValues::Expected if fresh => {
                    let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
                    return Err(Error::failed(format!("cannot move {}", names.join(", "))).because(reason));
                }
                RefValues::Expected => {}
            }
        }
    }

    fn start(&self) -> Result<Updater> {
        let mut git = Git::in_git_dir(&self.common_dir, "update-ref");
        if self.synced {
            git = git.setting("core.fsync", "reference");
        }
        let git = git
            // An overwritten log is restored from the reflog; bare repositories keep none by default.
            .setting("core.logAllRefUpdates", "always")
            // Another git process may hold the lock during its own update.
            .setting("core.filesRefLockTimeout", "2000")
            .setting("core.packedRefsTimeout", "5000")
            .args(["--no-deref", "-m", REFLOG_MESSAGE, "--stdin", "-z"]);
        let mut child = git.spawn(|command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        })?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(input), Some(output)) => Ok(Updater { child, input: Some(input), output: BufReader::new(output) }),
            _ => Err(Error::failed("cannot talk to git")),
        }
    }

    fn compare(&self, changes: &[Change]) -> RefValues {
        let (mut all_new, mut all_expected) = (true, true);
        for change in changes {
            let kind = change.new.map_or(gix::hash::Kind::Sha1, |id| id.kind());
            let kind = if let Expect::Is(old) = change.old { old.kind() } else { kind };
            let store = gix::refs::file::Store::at(self.common_dir.clone(), kind);
            // A ref that cannot be read does not have its expected value.
            let Ok(found) = store.try_find(change.name.as_str()) else {
                all_new = false;
                all_expected &= change.old == Expect::Any;
                continue;
            };
            let now = found.and_then(|found| found.target.try_id().map(ToOwned::to_owned));
            all_new &= now == change.new;
            all_expected &= match change.old {
                Expect::Absent => now.is_none(),
                Expect::Is(old) => now == Some(old),
                Expect::Any => true,
            };
        }
        match (all_new, all_expected) {
            (true, _) => RefValues::Moved,
            (false, true) => RefValues::Expected,
            (false, false) => RefValues::Elsewhere,
        }
    }

    /// Removes a loose ref that holds neither an object id nor a symbolic ref, which git cannot move.
    pub(super) fn remove_broken(&self, name: &str) -> Result<()> {
        let file = self.common_dir.join(name);
        let is_broken = std::fs::read(&file).is_ok_and(|content| {
            let content = content.trim_ascii();
            !content.starts_with(b"ref:") && ObjectId::from_hex(content).is_err()
        });
        if is_broken {
            std::fs::remove_file(&file).context(format!("cannot remove the broken ref {name}"))
        } else {
            Ok(())
        }
    }
}

/// Comparison of the refs with a swap that failed.
enum RefValues {
    Moved,
    Expected,
    Elsewhere,
}

/// A running `git update-ref --stdin`.
#[derive(Debug)]
struct Updater {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Updater {
    /// Runs one transaction. Returns the updater, or git's error message.
    fn run(mut self, script: &[u8]) -> Result<Self, String> {
        match self.send(script) {
            Ok(true) => Ok(self),
            Ok(false) | Err(_) => Err(self.error_message()),
        }
    }

    fn send(&mut self, script: &[u8]) -> std::io::Result<bool> {
        let Some(input) = self.input.as_mut() else { return Ok(false) };
        input.write_all(script)?;
        input.flush()?;
        let mut line = String::new();
        for expected in ["start: ok\n", "prepare: ok\n", "commit: ok\n"] {
            line.clear();
            self.output.read_line(&mut line)?;
            if line != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn error_message(&mut self) -> String {
        self.input = None;
        let mut text = Vec::new();
        if let Some(stderr) = self.child.stderr.as_mut() {
            let _ = stderr.read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if text.is_empty() { "git update-ref ended without a word".to_owned() } else { text }
    }
}

impl Drop for Updater {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

/// Writes the transaction in the language of `git update-ref --stdin -z` (git-update-ref(1)).
fn script(changes: &[Change]) -> Vec<u8> {
    let mut text = b"start\0".to_vec();
    for Change { name, new, old } in changes {
        let line = match (new, old) {
            (Some(new), Expect::Absent) => format!("create {name}\0{new}\0"),
            (Some(new), Expect::Is(old)) => format!("update {name}\0{new}\0{old}\0"),
            (Some(new), Expect::Any) => format!("update {name}\0{new}\0\0"),
            (None, Expect::Absent) => format!("verify {name}\0\0"),
            (None, Expect::Is(old)) => format!("delete {name}\0{old}\0"),
            (None, Expect::Any) => format!("delete {name}\0\0"),
        };
        text.extend_from_slice(line.as_bytes());
    }
    text.extend_from_slice(b"prepare\0commit\0");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::git::fixture::Fixture;

    fn change(name: &str, new: Option<ObjectId>, old: Expect) -> Change {
        Change { name: name.to_owned(), new, old }
    }

    #[test]
    fn all_changes_or_none() {
        let fixture = Fixture::new();
        let (mover, a, b) = (fixture.mover(), fixture.commit("a"), fixture.commit("b"));
        let done = mover.swap(&[change("refs/x/a", Some(a), Expect::Absent), change("refs/x/b", Some(b), Expect::Any)]);
        assert_eq!(done.unwrap(), Swap::Done);
        let lost =
            mover.swap(&[change("refs/x/a", Some(b), Expect::Is(a)), change("refs/x/b", Some(a), Expect::Is(a))]);
        assert_eq!(lost.unwrap(), Swap::Lost);
        assert_eq!(fixture.git(["rev-parse", "refs/x/a", "refs/x/b"]), format!("{a}\n{b}\n"));
        assert_eq!(mover.swap(&[change("refs/x/a", Some(b), Expect::Absent)]).unwrap(), Swap::Lost);
        // Another program moved one of them to the same value: that is not this swap.
        let lost =
            mover.swap(&[change("refs/x/a", Some(a), Expect::Absent), change("refs/x/c", Some(a), Expect::Absent)]);
        assert_eq!(lost.unwrap(), Swap::Lost);
        assert_eq!(mover.swap(&[change("refs/x/a", None, Expect::Is(b))]).unwrap(), Swap::Lost);
        assert_eq!(mover.swap(&[change("refs/x/a", None, Expect::Is(a))]).unwrap(), Swap::Done);
        assert_eq!(mover.swap(&[change("refs/x/none", None, Expect::Any)]).unwrap(), Swap::Done);
        assert_eq!(mover.swap(&[change("refs/x/none", None, Expect::Absent)]).unwrap(), Swap::Done);
        assert_eq!(fixture.git(["for-each-ref", "--format=%(refname)", "refs/x"]), "refs/x/b\n");
    }

    #[test]
    fn a_name_in_the_way_is_an_error_that_says_so() {
        let fixture = Fixture::new();
        let (mover, a) = (fixture.mover(), fixture.commit("a"));
        fixture.git(["update-ref", "refs/notes/agentloop", &a.to_string()]);
        let error = mover.swap(&[change("refs/notes/agentloop/x", Some(a), Expect::Absent)]).unwrap_err();
        assert!(error.report().contains("'refs/notes/agentloop' exists"), "{}", error.report());
    }

    #[test]
    fn a_child_that_was_killed_is_replaced() {
        let fixture = Fixture::new();
        let (mover, a) = (fixture.mover(), fixture.commit("a"));
        assert_eq!(mover.swap(&[change("refs/x/a", Some(a), Expect::Absent)]).unwrap(), Swap::Done);
        mover.child.lock().unwrap().as_mut().unwrap().child.kill().unwrap();
        assert_eq!(mover.swap(&[change("refs/x/b", Some(a), Expect::Absent)]).unwrap(), Swap::Done);
        assert_eq!(fixture.git(["reflog", "show", "--format=%gs", "refs/x/b"]), "agentloop\n");
    }

    #[test]
    fn neither_hooks_nor_the_environment_of_a_hook_reach_it() {
        let fixture = Fixture::new();
        let hook = fixture.git_dir().join("hooks/reference-transaction");
        std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
        std::fs::write(&hook, "#!/bin/sh\nexit 1\n").unwrap();
        std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let command = Git::in_git_dir(&fixture.git_dir(), "update-ref").into_command();
        assert!(command.get_envs().any(|(name, value)| name == "GIT_INDEX_FILE" && value.is_none()));
        let head = fixture.head();
        let created = fixture.mover().swap(&[change("refs/x/a", Some(head), Expect::Absent)]);
        assert_eq!(created.unwrap(), Swap::Done);
    }
}
