//! The record in a real git repository while other programs change its ref.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use super::*;
use crate::ledger::git::fixture::{self, Fixture, append, event, events, run_id, seqs, snapshot};
use crate::ledger::git::places::Noted;
use crate::ledger::git::read::snapshot as noted;
use crate::run::event::Timestamp;

fn notes_ref(run: &RunId) -> String {
    format!("--ref=agentloop/{run}")
}

fn read_back(fixture: &Fixture, run: &RunId) -> Vec<Event> {
    read::events(&fixture.repo(), run).unwrap().unwrap()
}

#[test]
fn what_is_appended_is_read_back_and_plain_git_reads_it_too() {
    for kind in ["sha1", "sha256"] {
        let fixture = Fixture::of_kind(kind);
        let run = run_id("goal");
        assert_eq!(read::events(&fixture.repo(), &run).unwrap(), None);
        assert_eq!(noted(&fixture.repo(), None, &run).unwrap(), None);
        let identity = Author { name: "Bo <b>\n".into(), email: "b@example.com".into() };
        let record = fixture.record(&run).by(identity);
        append(&record, 1..=3);
        append(&record, 4..=4);
        assert_eq!(read_back(&fixture, &run), events(1..=4));
        assert_eq!(record.events().unwrap(), events(1..=4));
        let updated = Timestamp(event(4).ts.0 / 1000 * 1000);
        let expected = Noted { run: run.clone(), snapshot: snapshot(4), updated, remote: None, verified: false };
        assert_eq!(noted(&fixture.repo(), None, &run).unwrap(), Some(expected));
        let log =
            fixture.git(["log", "--format=%an <%ae> %s%n%(trailers:key=Agentloop-Seq)", &format!("{LOCAL}{run}")]);
        assert_eq!(
            log,
            "Bo b <b@example.com> agentloop: 1 event\nAgentloop-Seq: 4\n\n\
             Bo b <b@example.com> agentloop: 3 events\nAgentloop-Seq: 3\n\n"
        );
        let body = fixture.git(["notes", &notes_ref(&run), "show", "HEAD"]);
        assert_eq!(body.lines().map(str::to_owned).collect::<Vec<_>>(), lines(1..=4));
        fixture.git(["fsck", "--strict"]);
        assert!(Record::create(&fixture.repo(), fixture.mover(), run.clone(), fixture.head()).is_err());
    }
}

fn lines(seqs: impl IntoIterator<Item = u64>) -> Vec<String> {
    events(seqs).iter().map(Event::to_line).collect()
}

#[test]
fn pages_turn_with_checkpoints_and_close_when_full() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    let mut record = fixture.record(&run);
    for flush in 0..60_u64 {
        if flush == 20 {
            record.turn_page(fixture.commit("checkpoint"));
        }
        if flush == 40 {
            // A driver that continues after the newest page was closed.
            record = fixture.reopened(&run);
        }
        append(&record, flush * 50 + 1..=flush * 50 + 50);
        if flush % 15 == 0 {
            fixture.git(["gc", "-q"]);
        }
    }
    assert_eq!(read_back(&fixture, &run), events(1..=3000));
    let repo = fixture.repo();
    let log = union::load(&repo, &format!("{LOCAL}{run}")).unwrap().unwrap();
    let pages: Vec<usize> =
        notes::all(&repo, &log.root).unwrap().iter().map(|page| blob(&repo, page.blob).unwrap().len()).collect();
    assert!(pages.len() > 10 && pages.iter().all(|length| *length < PAGE_LIMIT + 50 * 400), "{pages:?}");
    fixture.git(["fsck", "--strict"]);
}

#[test]
fn writers_from_outside_lose_nothing_and_neither_do_we() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    let record = fixture.record(&run);
    append(&record, 1..=1);
    std::thread::scope(|scope| {
        for person in 0..8 {
            let (fixture, run) = (&fixture, &run);
            scope.spawn(move || {
                for number in 0..20 {
                    let words = format!("person {person} says {number}");
                    let mut git =
                        fixture.command(&fixture.path(), ["notes", &notes_ref(run), "append", "-m", &words, "HEAD"]);
                    // Git gives up if others hold the lock for too long; the message was then never written.
                    while !git.stderr(Stdio::null()).status().unwrap().success() {}
                }
            });
        }
        for seq in 2..=500 {
            append(&record, seq..=seq);
        }
    });
    assert_eq!(seqs(&read_back(&fixture, &run)), (1..=500).collect::<Vec<_>>());
    assert_eq!(noted(&fixture.repo(), None, &run).unwrap().unwrap().snapshot.seq, 500);
    append(&fixture.reopened(&run), 501..=501);
    let body = fixture.git(["notes", &notes_ref(&run), "show", "HEAD"]);
    for person in 0..8 {
        for number in 0..20 {
            let words = format!("person {person} says {number}");
            assert_eq!(body.lines().filter(|line| **line == words).count(), 1, "{words}");
        }
    }
    let pages = fixture.git(["log", "-1", "-p", "--format=", &format!("{LOCAL}{run}")]);
    assert!(!pages.is_empty());
    fixture.git(["fsck", "--strict"]);
}

/// Does what `git notes edit` does when its editor closes: writes the tree that it read onto the current tip, without a
/// check.
fn close_editor(fixture: &Fixture, run: &RunId, opened_at: &str, words: &str) {
    let name = format!("{LOCAL}{run}");
    let now = fixture.git(["rev-parse", &name]);
    fixture.git(["update-ref", &name, opened_at]);
    fixture.git(["notes", &notes_ref(run), "append", "-m", words, "HEAD"]);
    let stale = fixture.git(["rev-parse", &format!("{name}^{{tree}}")]);
    let commit = fixture.git(["commit-tree", "-m", "Notes added by 'git notes edit'", "-p", now.trim(), stale.trim()]);
    fixture.git(["update-ref", "-m", "notes: Notes added by 'git notes edit'", &name, commit.trim()]);
}

#[test]
fn an_editor_left_open_takes_nothing_with_it() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    let name = format!("{LOCAL}{run}");
    let record = fixture.record(&run);
    append(&record, 1..=5);
    let opened_at = fixture.git(["rev-parse", &name]);
    for seq in 6..=25 {
        append(&record, seq..=seq);
    }
    drop(record);
    close_editor(&fixture, &run, opened_at.trim(), "a person's words");
    let now = fixture.git(["notes", &notes_ref(&run), "show", "HEAD"]);
    assert_eq!(now.lines().count(), 7, "the tip lacks events: {now}");
    assert_eq!(read_back(&fixture, &run), events(1..=25));
    assert_eq!(noted(&fixture.repo(), None, &run).unwrap().unwrap().snapshot, snapshot(25));
    // A clone gets the history but no reflog; ancestry suffices there.
    let clone = fixture.path().with_file_name("clone");
    fixture.git(["clone", "-q", ".", clone.to_str().unwrap()]);
    fixture.git_in(&clone, ["fetch", "-q", "origin", &format!("{name}:refs/notes/agentloop-remote/o/r/{run}")]);
    let there = fixture::open(&clone);
    assert_eq!(read::events(&there, &run).unwrap().unwrap(), events(1..=25));
    assert_eq!(noted(&there, None, &run).unwrap().unwrap().remote.as_deref(), Some("o/r"));
    // The next driver restores it.
    append(&fixture.reopened(&run), 26..=26);
    let now = fixture.git(["notes", &notes_ref(&run), "show", "HEAD"]);
    let found: Vec<&str> = now.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(found.len(), 26);
    assert_eq!(now.matches("a person's words").count(), 1);
}

#[test]
fn an_update_that_overwrote_ours_is_healed_from_the_reflog() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    let name = format!("{LOCAL}{run}");
    let record = fixture.record(&run);
    append(&record, 1..=2);
    let old = fixture.git(["rev-parse", &name]);
    append(&record, 3..=4);
    // No longer in its history either, as after `git fetch origin +refs/notes/*:refs/notes/*`.
    fixture.git(["update-ref", "-m", "fetch: forced-update", &name, old.trim()]);
    assert_eq!(read_back(&fixture, &run), events(1..=4));
    append(&fixture.reopened(&run), 5..=5);
    fixture.git(["reflog", "expire", "--expire=now", "--all"]);
    assert_eq!(read_back(&fixture, &run), events(1..=5));
    // A driver that lives restores a deleted ref completely.
    let record = fixture.reopened(&run);
    append(&record, 6..=6);
    fixture.git(["update-ref", "-d", &name]);
    append(&record, 7..=7);
    assert_eq!(read_back(&fixture, &run), events(1..=7));
}

#[test]
fn a_fetched_log_goes_on_at_home() {
    let origin = Fixture::new();
    let run = run_id("goal");
    append(&origin.record(&run), 1..=3);
    let fixture = Fixture::new();
    let from = format!("{LOCAL}{run}:refs/notes/agentloop-remote/origin/{run}");
    fixture.git(["fetch", "-q", origin.path().to_str().unwrap(), &from]);
    append(&fixture.reopened(&run), 4..=4);
    assert_eq!(read_back(&fixture, &run), events(1..=4));
    assert_eq!(fixture.git(["rev-list", "--count", &format!("{LOCAL}{run}")]), "2\n");
}

#[test]
fn shallow_and_partial_clones_and_linked_worktrees_read_it() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    let record = fixture.record(&run);
    (0..8).for_each(|flush| append(&record, flush * 100 + 1..=flush * 100 + 100));
    fixture.git(["config", "uploadpack.allowFilter", "true"]);
    let url = format!("file://{}", fixture.path().display());
    for (name, option) in [("shallow", "--depth=1"), ("partial", "--filter=blob:none"), ("bare", "--bare")] {
        let clone = fixture.path().with_file_name(name);
        fixture.git(["clone", "-q", option, &url, clone.to_str().unwrap()]);
        let mut fetch = vec!["fetch".to_owned(), "-q".to_owned(), "origin".to_owned()];
        fetch.extend((name == "shallow").then(|| option.to_owned()));
        fetch.push(format!("{LOCAL}{run}:{LOCAL}{run}"));
        fixture.git_in(&clone, fetch);
        let repo = fixture::open(&clone);
        assert_eq!(read::events(&repo, &run).unwrap().unwrap(), events(1..=800), "{name}");
        let page = fixture.head();
        let mover = Arc::new(RefMover::new(repo.common_dir().to_owned()));
        let there = Record::open(&repo, mover, run.clone(), page).unwrap();
        append(&there, 801..=801);
        assert_eq!(there.events().unwrap(), events(1..=801), "{name}");
    }
    let linked = fixture.path().with_file_name("linked");
    fixture.git(["worktree", "add", "-q", linked.to_str().unwrap()]);
    fixture.git(["pack-refs", "--all"]);
    let repo = fixture::open(&linked);
    assert_eq!(read::events(&repo, &run).unwrap().unwrap(), events(1..=800));
    let mover = Arc::new(RefMover::new(repo.common_dir().to_owned()));
    append(&Record::open(&repo, mover, run.clone(), fixture.head()).unwrap(), 801..=801);
    assert_eq!(read_back(&fixture, &run), events(1..=801));
}

#[test]
fn a_damaged_tip_falls_back_to_what_can_be_read() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    let record = fixture.record(&run);
    append(&record, 1..=2);
    append(&record, 3..=3);
    drop(record);
    let tip = fixture.git(["rev-parse", &format!("{LOCAL}{run}")]);
    let object = fixture.git_dir().join("objects").join(&tip[..2]).join(tip[2..].trim());
    std::fs::remove_file(&object).unwrap();
    assert_eq!(read_back(&fixture, &run), events(1..=2));
    append(&fixture.reopened(&run), 3..=4);
    assert_eq!(read_back(&fixture, &run), events(1..=4));
}

#[test]
fn foreign_lines_and_foreign_files_stay() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    let record = fixture.record(&run);
    append(&record, 1..=1);
    let name = format!("{LOCAL}{run}");
    let blob = fixture.git(["hash-object", "-w", ".git/HEAD"]);
    let list = fixture.git(["ls-tree", &name]) + &format!("100644 blob {}\tREADME\n", blob.trim());
    let mut child = fixture.command(&fixture.path(), ["mktree"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), list.as_bytes()).unwrap();
    let tree = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    let commit = fixture.git(["commit-tree", "-m", "x", "-p", &name, tree.trim()]);
    fixture.git(["update-ref", &name, commit.trim()]);
    fixture.git(["notes", &notes_ref(&run), "append", "-m", "{\"seq\":1,\n\u{1f600} {}", "HEAD"]);
    append(&record, 2..=2);
    assert_eq!(read_back(&fixture, &run), events(1..=2));
    assert!(fixture.git(["ls-tree", "--name-only", &name]).contains("README"));
    assert!(fixture.git(["notes", &notes_ref(&run), "show", "HEAD"]).contains("\u{1f600} {}"));
}

#[test]
fn a_driver_shares_it_between_threads() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Record>();
    is_shared::<RefMover>();
}

#[test]
fn what_must_last_is_synced() {
    let fixture = Fixture::new();
    for durability in ["answers", "always", "never"] {
        let run = run_id(durability);
        let mover = Arc::new(RefMover::new(fixture.git_dir()).synced(durability != "never"));
        let record = Record::create(&fixture.repo(), mover, run.clone(), fixture.head()).unwrap();
        let record = record.durability(durability.parse().unwrap());
        append(&record, 1..=1);
        let batch = Batch { events: &events(2..=2), snapshot: &snapshot(2), durable: true };
        record.append(&batch).unwrap();
        assert!(record.state().unsynced.is_empty());
        assert_eq!(read_back(&fixture, &run), events(1..=2));
    }
    assert!("sometimes".parse::<Durability>().is_err());
}

/// Folder in which [`a_writer_to_be_killed`] writes; without it that test does nothing.
const WRITER: &str = "AGENTLOOP_TEST_WRITER";

#[test]
fn a_writer_to_be_killed() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let repo = fixture::open(std::path::Path::new(&path));
    let (run, page) = (run_id("goal"), repo.head_id().unwrap().detach());
    let mover = Arc::new(RefMover::new(repo.common_dir().to_owned()));
    let record = Record::open(&repo, mover, run, page).unwrap();
    let next = record.events().unwrap().last().map_or(1, |event| event.seq + 1);
    for seq in next.. {
        append(&record, seq..=seq);
        eprintln!("appended {seq}");
    }
}

#[test]
fn a_writer_that_is_killed_loses_nothing_and_leaves_no_lock() {
    let fixture = Fixture::new();
    let run = run_id("goal");
    append(&fixture.record(&run), 1..=1);
    // With packed refs git takes a second lock for some updates.
    fixture.git(["pack-refs", "--all"]);
    let mut acknowledged = 1;
    for round in 0..25 {
        let mut writer = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ledger::git::record::tests::a_writer_to_be_killed", "--nocapture"])
            .env(WRITER, fixture.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let message = BufReader::new(writer.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut appended = message.filter_map(|line| line.strip_prefix("appended ")?.parse::<u64>().ok());
        let first = appended.next().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(fastrand::Rng::with_seed(round).u64(..30_000)));
        writer.kill().unwrap();
        writer.wait().unwrap();
        acknowledged = acknowledged.max(appended.max().unwrap_or(first));
        let locks = || {
            let found = std::process::Command::new("find").arg(fixture.git_dir()).args(["-name", "*.lock"]).output();
            String::from_utf8(found.unwrap().stdout).unwrap()
        };
        // The child that holds them reads end-of-file and releases them.
        let waited = std::time::Instant::now();
        while !locks().is_empty() && waited.elapsed().as_secs() < 5 {}
        assert_eq!(locks(), "");
        let found = seqs(&read_back(&fixture, &run));
        assert!(found.len() as u64 >= acknowledged, "{} of {acknowledged}", found.len());
        assert!(found.iter().zip(1..).all(|(found, seq)| *found == seq), "{found:?}");
    }
    assert!(acknowledged > 25, "{acknowledged}");
    fixture.git(["fsck", "--strict"]);
}
