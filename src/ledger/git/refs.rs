//! Moves refs by compare-and-swap through one `git update-ref --stdin` that lives as long as we do.
//!
//! A process that is killed in the midst of a ref update leaves a lock behind that stops the user's own git. This child
//! leads a process group of its own, so that what kills us does not kill it: at the end of its input it finishes or
//! drops its transaction, and cleans up. A swap through it costs about 0.1 ms.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Mutex, PoisonError};

use gix::ObjectId;

use super::command;
use crate::error::{Context as _, Error, Result};
use crate::process;

/// One ref to move.
#[derive(Clone, Debug)]
pub struct Change {
    /// The full name.
    pub name: String,
    /// Where to; `None` deletes it.
    pub new: Option<ObjectId>,
    /// Where it must stand.
    pub old: Expect,
}

/// What must hold for a ref to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// It does not exist.
    Absent,
    /// It stands there.
    Is(ObjectId),
}

/// What came of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Every ref was moved.
    Done,
    /// Somebody else moved one of them first; none was moved.
    Lost,
}

/// The one writer of refs in this process.
pub struct RefMover {
    common_dir: PathBuf,
    child: Mutex<Option<Updater>>,
}

struct Updater {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl RefMover {
    /// A mover for the repository whose common directory this is. git is started with the first swap.
    #[must_use]
    pub fn new(common_dir: PathBuf) -> Self {
        Self { common_dir, child: Mutex::new(None) }
    }

    /// Moves every ref, or none.
    ///
    /// # Errors
    /// Where a ref cannot be moved for a reason other than somebody else's move.
    pub fn swap(&self, changes: &[Change]) -> Result<Swap> {
        let mut slot = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let mut updater = match slot.take() {
            Some(updater) => updater,
            None => self.start()?,
        };
        match updater.transact(changes) {
            Ok(()) => {
                *slot = Some(updater);
                Ok(Swap::Done)
            }
            // git ends with the first transaction that fails; the next swap starts another.
            Err(_) => self.explain(updater, changes),
        }
    }

    fn start(&self) -> Result<Updater> {
        let mut git = command::plumbing();
        git.arg("--git-dir").arg(&self.common_dir);
        // git keeps a reflog of notes where the repository has a work tree; ours are kept in bare ones too.
        git.args(["-c", "core.logAllRefUpdates=always", "update-ref", "-m", "agentloop", "--stdin"]);
        git.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = process::spawn_aside(&mut git).map_err(command::cannot_start)?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Updater { child, stdin, stdout: BufReader::new(stdout) }),
            _ => Err(Error::failed("git update-ref has no input or output")),
        }
    }

    /// Whether a failed transaction was a lost race, or what else it was.
    fn explain(&self, updater: Updater, changes: &[Change]) -> Result<Swap> {
        let Updater { mut child, stdin, stdout } = updater;
        drop((stdin, stdout));
        let mut said = String::new();
        if let Some(stderr) = child.stderr.take() {
            let _ = stderr.take(64 * 1024).read_to_string(&mut said); // the status below says enough without it
        }
        let status = child.wait().context("git update-ref cannot be waited for")?;
        let repo = gix::open(&self.common_dir).context("the repository cannot be opened")?;
        let stands = |change: &Change| -> Result<bool> {
            let found = repo.try_find_reference(change.name.as_str()).context("a ref cannot be read")?;
            let found = found.and_then(|reference| reference.try_id().map(gix::Id::detach));
            Ok(match change.old {
                Expect::Absent => found.is_none(),
                Expect::Is(id) => found == Some(id),
            })
        };
        for change in changes {
            if !stands(change)? {
                return Ok(Swap::Lost);
            }
        }
        Err(command::failure("git update-ref", status, &said))
    }
}

impl Updater {
    fn transact(&mut self, changes: &[Change]) -> std::io::Result<()> {
        let orders = changes.iter().map(|Change { name, new, old }| match (new, old) {
            (Some(new), Expect::Absent) => format!("create {name} {new}\n"),
            (Some(new), Expect::Is(old)) => format!("update {name} {new} {old}\n"),
            (None, Expect::Is(old)) => format!("delete {name} {old}\n"),
            (None, Expect::Absent) => String::new(),
        });
        let lines = format!("start\n{}prepare\ncommit\n", orders.collect::<String>());
        self.stdin.write_all(lines.as_bytes())?;
        self.stdin.flush()?;
        for expected in ["start: ok", "prepare: ok", "commit: ok"] {
            let mut line = String::new();
            self.stdout.read_line(&mut line)?;
            if line.trim_end() != expected {
                return Err(std::io::Error::other(format!("git answered '{}'", line.trim_end())));
            }
        }
        Ok(())
    }
}

impl Drop for RefMover {
    fn drop(&mut self) {
        if let Some(mut updater) = self.child.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            drop(updater.stdin);
            let _ = updater.child.wait(); // at the end of its input it has nothing left to do
        }
    }
}
