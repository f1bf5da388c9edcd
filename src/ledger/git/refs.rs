//! Refs by compare-and-swap, through one `git update-ref --stdin` that outlives the driver.
//!
//! A process that dies while it holds `<ref>.lock` or `packed-refs.lock` blocks the user's git for good. So the locks are
//! taken by a child in a process group of its own: where the driver is killed, the child reads end-of-file and lets go.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, PoisonError};

use gix::ObjectId;

use super::command::Git;
use crate::error::{Context as _, Error, Result};

/// What our moves say in a reflog. Whatever says something else there was moved by other hands.
pub(super) const REFLOG_MESSAGE: &str = "agentloop";

/// One ref's move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The full name.
    pub name: String,
    /// Where it shall stand; none deletes it.
    pub new: Option<ObjectId>,
    /// Where it must stand now.
    pub old: Expect,
}

/// What a ref must be for a [`Change`] to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Not there.
    Absent,
    /// At this object.
    Is(ObjectId),
    /// Anything.
    Any,
}

/// How a swap ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Swap {
    /// All refs moved.
    Done,
    /// None did: another hand was quicker on at least one of them.
    Lost,
}

/// Moves refs of one repository. Started by its first use, and again where its child died.
#[derive(Debug)]
pub struct RefMover {
    common_dir: PathBuf,
    synced: bool,
    child: Mutex<Option<Updater>>,
}

impl RefMover {
    /// A mover for the repository whose common directory (`git rev-parse --git-common-dir`) is given.
    #[must_use]
    pub fn new(git_common_dir: PathBuf) -> Self {
        Self { common_dir: git_common_dir, synced: false, child: Mutex::new(None) }
    }

    /// Has git sync a ref's file before it takes its place (`core.fsync=reference`, not among git's defaults): on file
    /// systems that do not do so by themselves a power cut could otherwise leave it empty.
    #[must_use]
    pub fn synced(mut self, synced: bool) -> Self {
        self.synced = synced;
        self
    }

    /// The repository's common directory.
    #[must_use]
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// Makes all `changes`, or none where one of the refs is not where it must be.
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
            // Git says in prose why it refused; where the refs stand says it reliably.
            match self.standing(changes) {
                Standing::Moved => return Ok(Swap::Done),
                Standing::Elsewhere => {
                    // The next try is near: it must not wait for a process to start while others are quick.
                    *slot = self.start().ok();
                    return Ok(Swap::Lost);
                }
                // A child that was idle may have been ended by anybody; a fresh one failed at this very change.
                Standing::Expected if fresh => {
                    let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
                    return Err(Error::failed(format!("cannot move {}", names.join(", "))).because(reason));
                }
                Standing::Expected => {}
            }
        }
    }

    fn start(&self) -> Result<Updater> {
        let mut git = Git::in_git_dir(&self.common_dir, "update-ref");
        if self.synced {
            git = git.setting("core.fsync", "reference");
        }
        let git = git
            // A reflog is what an overwritten log is healed from; bare repositories keep none by default.
            .setting("core.logAllRefUpdates", "always")
            // Another git may hold the lock for the moment of its own update.
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

    fn standing(&self, changes: &[Change]) -> Standing {
        let (mut all_new, mut all_expected) = (true, true);
        for change in changes {
            let kind = change.new.map_or(gix::hash::Kind::Sha1, |id| id.kind());
            let kind = if let Expect::Is(old) = change.old { old.kind() } else { kind };
            let store = gix::refs::file::Store::at(self.common_dir.clone(), kind);
            // One that cannot be read is not where it was.
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
            (true, _) => Standing::Moved,
            (false, true) => Standing::Expected,
            (false, false) => Standing::Elsewhere,
        }
    }

    /// Removes a loose ref that holds neither an object's name nor another ref's: git moves none of that kind.
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

/// Where the refs of a failed swap stand.
enum Standing {
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
    /// Runs one transaction; gives the updater back, or what git said when it gave up.
    fn run(mut self, script: &[u8]) -> Result<Self, String> {
        match self.converse(script) {
            Ok(true) => Ok(self),
            Ok(false) | Err(_) => Err(self.last_words()),
        }
    }

    fn converse(&mut self, script: &[u8]) -> std::io::Result<bool> {
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

    fn last_words(&mut self) -> String {
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

/// The transaction in the language of `git update-ref --stdin -z` (git-update-ref(1)).
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
        // Another hand put one of them where it shall stand: that is not this swap.
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
