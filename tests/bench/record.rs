//! Writing and reading the record.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use git_agentloop::app::{self, Site};
use git_agentloop::ledger::git::record::{PAGE_LIMIT, Record};
use git_agentloop::ledger::git::refs::{Change, Expect, RefMover, Swap};
use git_agentloop::ledger::git::{Repository, read};
use git_agentloop::ledger::{Batch, Durability};
use git_agentloop::run::event::{AgentFinished, AgentStarted, Event, Fact, PhaseChanged, SubagentFinished, Timestamp};
use git_agentloop::run::goal::{Role, RunId, StopReason};
use git_agentloop::run::id::SubgoalId;
use git_agentloop::run::{Phase, Snapshot, State, Word};
use gix::ObjectId;
use gix::bstr::BString;
use gix::objs::tree::{Entry, EntryKind};

use crate::measure::{Aim, Row, pairs, times};
use crate::scratch::{PROGRAM, Scratch};

const FLUSHED: u64 = 50;

/// What a run's log holds most of: calls begun and done, workers' reports, phases.
fn event(seq: u64, session: &str) -> Event {
    let agent = git_agentloop::run::goal::AgentChoice { backend: "claude_code".into(), ..Default::default() };
    let role = Some(Role::Subagent);
    let id: SubgoalId = format!("subgoal-{}", seq % 7).parse().unwrap();
    let fact: Fact = match seq % 4 {
        0 => AgentStarted { call: seq, role, agent, subgoal: Some(id) }.into(),
        1 => AgentFinished { call: seq, role, agent, subgoal: Some(id), seconds: 12.5, ..Default::default() }.into(),
        2 => SubagentFinished {
            id,
            attempt: 1,
            output: format!("Changed the handler of request {seq} and its tests; they pass. ").repeat(8),
            preview: format!("Changed the handler of request {seq} and its tests; they pass."),
            chars: 500,
            output_path: Some(format!("iter1/subgoal-{}/1.out", seq % 7).parse().unwrap()),
        }
        .into(),
        _ => PhaseChanged { phase: Word::Known(Phase::Execute) }.into(),
    };
    let ts = Timestamp(1_790_000_000_000 + i64::try_from(seq).unwrap() * 100);
    Event { seq, ts, session: session.parse().unwrap(), iteration: Some(1), fact }
}

fn snapshot(seq: u64, state: State) -> Snapshot {
    Snapshot {
        state,
        phase: Word::Known(Phase::Execute),
        iteration: 1,
        max_iterations: 4,
        seq,
        session: "k3v9qp".parse().unwrap(),
        started: Timestamp(1_790_000_000_000),
        stop_reason: (state == State::Completed).then_some(Word::Known(StopReason::GoalComplete)),
        tokens: 120_000,
        cost_usd: Some(0.42),
        goal: "add a /health endpoint and show that it answers".into(),
        waiting: None,
    }
}

/// One run's record, and the next events for it.
struct Writer {
    record: Record,
    durable: bool,
    next: u64,
}

impl Writer {
    fn new(repo: &Repository, durability: Durability, run: u64) -> Self {
        let durable = durability != Durability::Never;
        let mover = Arc::new(RefMover::new(repo.common_dir().to_owned()).synced(durable));
        let page = repo.gix().head_id().unwrap().detach();
        let record = Record::create(&repo.gix(), mover, RunId::new("flush", run), page).unwrap();
        Self { record: record.durability(durability), durable, next: 1 }
    }

    fn batch(&mut self) -> Vec<Event> {
        let first = self.next;
        self.next += FLUSHED;
        (first..self.next).map(|seq| event(seq, "k3v9qp")).collect()
    }

    fn append(&self, events: &[Event]) {
        let snapshot = snapshot(events.last().unwrap().seq, State::Running);
        self.record.append(&Batch { events, snapshot: &snapshot, durable: self.durable }).unwrap();
    }
}

/// Writes what a flush writes, byte for byte as much, and nothing else: one blob, tree, commit and swap.
struct Bare {
    gix: gix::Repository,
    mover: RefMover,
    page: ObjectId,
    entries: Vec<Entry>,
    text: Vec<u8>,
    tip: Option<ObjectId>,
}

impl Bare {
    fn new(repo: &Repository) -> Self {
        let (gix, mover) = (repo.gix(), RefMover::new(repo.common_dir().to_owned()));
        let page = gix.head_id().unwrap().detach();
        Self { gix, mover, page, entries: Vec::new(), text: Vec::new(), tip: None }
    }

    /// Takes in lines outside of what is timed: how a page grows and turns is the record's.
    fn prepare(&mut self, lines: &[u8]) {
        if self.text.len() > PAGE_LIMIT {
            self.page = self.tip.unwrap();
            self.text.clear();
        }
        self.text.extend_from_slice(lines);
    }

    fn write(&mut self, message: String) {
        let blob = self.gix.write_blob(&self.text).unwrap().detach();
        let filename = BString::from(self.page.to_string());
        self.entries.retain(|entry| entry.filename != filename);
        self.entries.push(Entry { mode: EntryKind::Blob.into(), filename, oid: blob });
        self.entries.sort();
        let tree = self.gix.write_object(&gix::objs::Tree { entries: self.entries.clone() }).unwrap().detach();
        let time = gix::date::Time::new(1_790_000_000, 0);
        let author = gix::actor::Signature { name: "A User".into(), email: "user@example.com".into(), time };
        let commit = gix::objs::Commit {
            tree,
            parents: self.tip.into_iter().collect(),
            author: author.clone(),
            committer: author,
            encoding: None,
            message: message.into(),
            extra_headers: Vec::new(),
        };
        let commit = self.gix.write_object(&commit).unwrap().detach();
        let old = self.tip.map_or(Expect::Absent, Expect::Is);
        let change = Change { name: "refs/bare/floor".into(), new: Some(commit), old };
        assert_eq!(self.mover.swap(&[change]).unwrap(), Swap::Done);
        self.tip = Some(commit);
    }
}

pub fn flush() -> Vec<Row> {
    let scratch = Scratch::new();
    let repo = Repository::open(Some(&scratch.path())).unwrap();
    let mut writer = Writer::new(&repo, Durability::Never, 1);
    let mut bare = Bare::new(&repo);
    let batches: Vec<Vec<Event>> = (0..301).map(|_| writer.batch()).collect();
    // The same lines from another session, so that no object is there already.
    let lines: Vec<Vec<u8>> = batches
        .iter()
        .map(|batch| batch.iter().flat_map(|one| (event(one.seq, "q9v3kp").to_line() + "\n").into_bytes()).collect())
        .collect();
    let (mut ours, mut floors) = (batches.iter(), lines.iter());
    let never = pairs(
        300,
        || writer.append(ours.next().unwrap()),
        || {
            // A copy of a page into a buffer that has room: microseconds beside what follows.
            bare.prepare(floors.next().unwrap());
            bare.write(format!("agentloop: 50 events\n\n{}", snapshot(1, State::Running).to_trailers()));
        },
    );
    let mut answers = Writer::new(&repo, Durability::Answers, 2);
    let mut never_beside = Writer::new(&repo, Durability::Never, 3);
    let synced = pairs(
        60,
        || {
            let batch = answers.batch();
            answers.append(&batch);
        },
        || {
            let batch = never_beside.batch();
            never_beside.append(&batch);
        },
    );
    vec![
        Row::pairs("flush of 50 events, durable=never / bare write and swap", &never, Aim::Ratio(2.0)),
        Row::pairs("flush of 50 events, durable=answers / durable=never", &synced, Aim::None),
    ]
}

pub fn read() -> Vec<Row> {
    let scratch = Scratch::new();
    let repo = Repository::open(Some(&scratch.path())).unwrap();
    let mut writer = Writer::new(&repo, Durability::Never, 4);
    let run = RunId::new("flush", 4);
    for _ in 0..10_000 / FLUSHED {
        let batch = writer.batch();
        writer.append(&batch);
    }
    let measure = |what: &str| {
        let ours = || {
            let repo = Repository::open(Some(&scratch.path())).unwrap();
            let events = read::events(&repo.gix(), &run).unwrap().unwrap();
            assert_eq!(events.len(), 10_000);
        };
        let floor = || {
            let repo = gix::open(scratch.path()).unwrap();
            let name = format!("refs/notes/agentloop/{run}");
            let tree = repo.find_reference(&name).unwrap().peel_to_tree().unwrap();
            let sizes = tree.iter().map(|entry| entry.unwrap().object().unwrap().data.len());
            assert!(sizes.sum::<usize>() > 1_000_000);
        };
        Row::pairs(what, &pairs(40, ours, floor), Aim::Median(Duration::from_millis(30)))
    };
    let fresh = measure("reading 10,000 events, as written / pages only inflated");
    scratch.git(&["gc", "-q"]);
    vec![fresh, measure("reading 10,000 events, packed / pages only inflated")]
}

/// A repository with the branches and packed logs of `count` runs; the newest run's id.
pub fn repository_of(count: u64) -> (Scratch, RunId) {
    let scratch = Scratch::new();
    let newest = add_runs(&scratch, count);
    (scratch, newest)
}

/// The branches and packed logs of `count` runs into a repository; the newest run's id.
pub fn add_runs(scratch: &Scratch, count: u64) -> RunId {
    let main = scratch.git(&["rev-parse", "HEAD"]);
    let mut stream = String::new();
    for number in 0..count {
        let run = RunId::new(&format!("goal number {number}"), number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let at = 1_790_000_000 + number;
        let who = format!("A User <user@example.com> {at} +0000");
        let subject = format!("agentloop: goal number {number}\n");
        let log: String = (1..=6).map(|seq| event(seq + number, "k3v9qp").to_line() + "\n").collect();
        let state = if number % 100 == 7 { State::NeedsInput } else { State::Completed };
        let message = format!("agentloop: 6 events\n\n{}", snapshot(6, state).to_trailers());
        let _ = write!(
            stream,
            "commit refs/heads/agentloop/{run}\nmark :{mark}\ncommitter {who}\ndata {}\n{subject}\nfrom {main}\n\n\
             commit refs/notes/agentloop/{run}\ncommitter {who}\ndata {}\n{message}\nN inline :{mark}\ndata {}\n{log}\n",
            subject.len(),
            message.len(),
            log.len(),
            mark = number + 1,
        );
    }
    scratch.import(stream.as_bytes());
    scratch.git(&["pack-refs", "--all"]);
    scratch.git(&["gc", "-q"]);
    let last = count - 1;
    RunId::new(&format!("goal number {last}"), last.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

pub fn many_runs(count: u64) -> Vec<Row> {
    let (scratch, newest) = repository_of(count);
    let samples = if count > 5_000 { 30 } else { 100 };
    let limit = Duration::from_micros(5 * count);
    let ours = || {
        let site = Site::open(Some(&scratch.path())).unwrap();
        assert_eq!(app::list(&site).unwrap().len() as u64, count);
    };
    let floor = || {
        let repo = gix::open(scratch.path()).unwrap();
        let refs = repo.references().unwrap();
        let refs = refs.prefixed("refs/notes/agentloop/").unwrap();
        let read = refs.map(|reference| repo.find_object(reference.unwrap().id()).unwrap().data.len());
        assert!(read.sum::<usize>() > 0);
    };
    let listed = pairs(samples, ours, floor);
    let format = "--format=%(refname:lstrip=3) %(contents:trailers:key=Agentloop-State,valueonly,separator=%20)";
    let whole = pairs(
        samples,
        || scratch.run(PROGRAM, &["list", "--json"]),
        || scratch.run("git", &["for-each-ref", format, "refs/notes/agentloop/"]),
    );
    let name = newest.as_str();
    let log = format!("refs/notes/agentloop/{name}");
    let prefix = &name[..name.len() - 2];
    let status = |arguments: &[&str]| {
        let verb = [&["status", "--json"], arguments].concat();
        pairs(samples * 3, || scratch.run(PROGRAM, &verb), || scratch.run("git", &["log", "-1", "--format=%B", &log]))
    };
    let mut rows = vec![
        Row::pairs(&format!("list of {count} packed runs / one commit a run, only read"), &listed, Aim::Median(limit)),
        Row::pairs(&format!("'list' of {count}, whole process / git for-each-ref"), &whole, Aim::None),
    ];
    if count == 10_000 {
        let aim = Aim::Median(Duration::from_millis(10));
        rows.push(Row::pairs("'status RUN' beside 10,000 runs / git log -1", &status(&[name]), aim));
        rows.push(Row::pairs("'status PREFIX' beside 10,000 runs / git log -1", &status(&[prefix]), Aim::None));
        rows.push(Row::times(
            "'status' of the newest of 10,000 runs",
            &times(samples, || scratch.run(PROGRAM, &["status"])),
            Aim::None,
        ));
    }
    rows
}
