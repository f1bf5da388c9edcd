//! Temporary repositories for the tests of the record.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use gix::ObjectId;
use tempfile::TempDir;

use super::record::Record;
use super::refs::RefMover;
use crate::ledger::Batch;
use crate::run::event::{Event, Steered, Timestamp};
use crate::run::goal::RunId;
use crate::run::{Phase, Snapshot, State, Word};

/// A real repository with one commit, isolated from the user's settings.
pub struct Fixture {
    dir: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self::of_kind("sha1")
    }

    pub fn of_kind(object_format: &str) -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(fixture.path()).unwrap();
        fixture.git(["init", "-q", "-b", "main", &format!("--object-format={object_format}")]);
        fixture.git(["commit", "-q", "--allow-empty", "-m", "first"]);
        fixture
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("repository ü")
    }

    pub fn git_dir(&self) -> PathBuf {
        self.path().join(".git")
    }

    pub fn command<S: AsRef<OsStr>>(&self, dir: &Path, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("git");
        command
            .args(args)
            .current_dir(dir)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1"), ("LC_ALL", "C")])
            .envs([("GIT_AUTHOR_NAME", "A"), ("GIT_AUTHOR_EMAIL", "a@example.com")])
            .envs([("GIT_COMMITTER_NAME", "A"), ("GIT_COMMITTER_EMAIL", "a@example.com")])
            .env("HOME", self.dir.path())
            .stdin(Stdio::null());
        command
    }

    pub fn git<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> String {
        self.git_in(&self.path(), args)
    }

    pub fn git_in<S: AsRef<OsStr>>(&self, dir: &Path, args: impl IntoIterator<Item = S>) -> String {
        let output = self.command(dir, args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes a commit that no ref points to.
    pub fn commit(&self, message: &str) -> ObjectId {
        let tree = self.git(["mktree"]);
        self.git(["commit-tree", "-m", message, "-p", "HEAD", tree.trim()]).trim().parse().unwrap()
    }

    pub fn head(&self) -> ObjectId {
        self.git(["rev-parse", "HEAD"]).trim().parse().unwrap()
    }

    pub fn repo(&self) -> gix::Repository {
        open(&self.path())
    }

    pub fn mover(&self) -> Arc<RefMover> {
        Arc::new(RefMover::new(self.git_dir()))
    }

    pub fn record(&self, run: &RunId) -> Record {
        Record::create(&self.repo(), self.mover(), run.clone(), self.head()).unwrap()
    }

    pub fn reopened(&self, run: &RunId) -> Record {
        Record::open(&self.repo(), self.mover(), run.clone(), self.head()).unwrap()
    }
}

pub fn open(path: &Path) -> gix::Repository {
    gix::open_opts(path, gix::open::Options::isolated()).unwrap()
}

pub fn run_id(name: &str) -> RunId {
    RunId::new(name, 0x0123_4567)
}

/// Makes an event of about 300 bytes.
pub fn event(seq: u64) -> Event {
    Event {
        seq,
        ts: Timestamp(1_790_000_000_000 + i64::try_from(seq).unwrap() * 1000),
        session: "k3v9qp".parse().unwrap(),
        iteration: Some(1),
        fact: Steered { text: format!("look at {seq}: {}", fastrand::Rng::with_seed(seq).u128(..)).repeat(4) }.into(),
    }
}

pub fn events(seqs: impl IntoIterator<Item = u64>) -> Vec<Event> {
    seqs.into_iter().map(event).collect()
}

pub fn snapshot(seq: u64) -> Snapshot {
    Snapshot {
        state: State::Running,
        phase: Word::Known(Phase::Execute),
        iteration: 1,
        max_iterations: 4,
        seq,
        session: "k3v9qp".parse().unwrap(),
        started: Timestamp(1_790_000_000_000),
        stop_reason: None,
        tokens: 1200,
        cost_usd: None,
        goal: "a goal".to_owned(),
        waiting: None,
    }
}

/// Appends the events of these numbers in one flush.
pub fn append(record: &Record, seqs: impl IntoIterator<Item = u64>) {
    let events = events(seqs);
    let snapshot = snapshot(events.last().map_or(0, |event| event.seq));
    record.append(&Batch { events: &events, snapshot: &snapshot, durable: false }).unwrap();
}

pub fn seqs(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}
