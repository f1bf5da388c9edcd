//! What every ledger must do. Each implementation passes the same suite, made by a factory of fresh ledgers.

use std::fs;
use std::path::Path;

use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
use git_agentloop::ledger::memory::Memory;
use git_agentloop::ledger::{
    Batch, Draft, Found, Leaving, Ledger, Merged, Merging, Opening, Outfit, Preferences, Resolving, Task, Wanted,
};
use git_agentloop::run::event::{Event, Fact, Steered, Timestamp};
use git_agentloop::run::goal::{Isolation, RunId};
use git_agentloop::run::{Run, Snapshot};

/// A fresh ledger, and the commit that its run starts from.
struct Fresh<L> {
    ledger: L,
    start: String,
    /// Whatever must outlive the ledger.
    _place: tempfile::TempDir,
}

/// Declares the suite for one implementation.
macro_rules! contract {
    ($name:ident, $fresh:expr) => {
        mod $name {
            use super::*;

            contract!(@ $fresh; events_come_back_in_order a_batch_that_is_appended_twice_is_read_once
                unknown_kinds_and_odd_texts_survive appends_from_many_threads_are_all_there
                the_workspace_is_made_once_and_then_kept a_tree_is_what_the_files_are
                commits_go_on_top_of_the_tip events_go_on_after_a_commit a_diff_names_what_it_leaves_out
                what_is_protected_is_taken_back
                a_place_begins_at_the_tip_and_goes_on_as_it_was_left what_a_worker_left_is_a_commit_or_nothing
                places_are_apart_and_used_again clean_work_is_merged_in_turn a_conflict_is_resolved_or_stays_open
                unmerged_work_is_where_the_next_one_begins the_workspace_moves_and_loses_nothing
                a_place_is_set_up_once a_place_that_is_gone_is_said closing_commits_what_a_place_holds
                outputs_are_kept_beside_the_log nobody_else_adds_commits_here scratch_is_not_part_of_the_tree);
        }
    };
    (@ $fresh:expr; $($test:ident)*) => {
        $(#[test] fn $test() { super::$test(&$fresh()); })*
    };
}

contract!(memory, || {
    let place = tempfile::tempdir().unwrap();
    let ledger = Memory::new(place.path().join("workspace"));
    Fresh { ledger, start: "0".repeat(40), _place: place }
});

contract!(git, || {
    let repo = crate::support::Repo::new();
    let opened = Repository::open(Some(repo.path())).unwrap();
    let base = opened.resolve_base(None).unwrap();
    let run = RunId::new("contract", 7);
    let message = "agentloop: contract\n".to_owned();
    let ledger = GitLedger::create(
        opened,
        NewRecord { run, base, message, isolation: Isolation::Shared, preferences: Preferences::default() },
    )
    .unwrap();
    Fresh { start: ledger.start(), ledger, _place: repo.into_home() }
});

fn event(seq: u64, text: &str) -> Event {
    let ts = Timestamp(1_790_000_000_000 + i64::try_from(seq).unwrap());
    let fact = Steered { text: text.to_owned() }.into();
    Event { seq, ts, session: "k3v9qp".parse().unwrap(), iteration: Some(1), fact }
}

fn snapshot(events: &[Event]) -> Snapshot {
    Run::replay(events).snapshot()
}

fn append(ledger: &impl Ledger, events: &[Event]) {
    let snapshot = snapshot(events);
    for durable in [false, true] {
        let half = events.len() / 2;
        let events = if durable { &events[half..] } else { &events[..half] };
        if !events.is_empty() {
            ledger.append(&Batch { events, snapshot: &snapshot, durable }).unwrap();
        }
    }
}

fn write(workspace: &Path, name: &str, content: &str) {
    let path = workspace.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn a_place_is_set_up_once<L: Ledger>(fresh: &Fresh<L>) {
    let place = fresh.ledger.workspace().unwrap().path;
    let wanted = Wanted { copy: &["*.local".to_owned()], go_on: &|| true };
    for set_up in [false, true] {
        let outfit = fresh.ledger.provision(&place, &wanted).unwrap();
        assert_eq!(outfit, Outfit { set_up, ..Outfit::default() }, "there is nothing to bring");
        assert!(fresh.ledger.uncommitted(&place).unwrap().is_empty());
        let tree = fresh.ledger.write_tree().unwrap().id;
        fresh.ledger.set_up(&place, Some(&tree)).unwrap();
        assert_eq!(fresh.ledger.set_up_on(&place).unwrap(), Some(tree));
    }
}

fn events_come_back_in_order<L: Ledger>(fresh: &Fresh<L>) {
    assert_eq!(fresh.ledger.events().unwrap(), []);
    let events: Vec<Event> = (1..=40).map(|seq| event(seq, "words")).collect();
    append(&fresh.ledger, &events);
    assert_eq!(fresh.ledger.events().unwrap(), events);
}

fn a_batch_that_is_appended_twice_is_read_once<L: Ledger>(fresh: &Fresh<L>) {
    let events = [event(1, "a"), event(2, "b")];
    append(&fresh.ledger, &events);
    append(&fresh.ledger, &events);
    assert_eq!(fresh.ledger.events().unwrap(), events);
}

fn unknown_kinds_and_odd_texts_survive<L: Ledger>(fresh: &Fresh<L>) {
    let mut events: Vec<Event> = ["", "\n\n", "\u{1f600} \u{0} \r\n\u{2028}", "---\nAgentloop-State: failed", "a\\\"b"]
        .into_iter()
        .zip(1..)
        .map(|(text, seq)| event(seq, text))
        .collect();
    let data = serde_json::json!({"x": [1, {"y": null}]});
    events.push(Event { fact: Fact::Unknown { kind: "from_the_future".to_owned(), data, flaw: None }, ..event(6, "") });
    events.push(event(7, &"long ".repeat(50_000)));
    append(&fresh.ledger, &events);
    assert_eq!(fresh.ledger.events().unwrap(), events);
}

fn appends_from_many_threads_are_all_there<L: Ledger>(fresh: &Fresh<L>) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for number in 1..=10 {
                    append(&fresh.ledger, &[event(thread * 10 + number, "words")]);
                }
            });
        }
    });
    let found: Vec<u64> = fresh.ledger.events().unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(found, (1..=40).collect::<Vec<_>>());
}

fn the_workspace_is_made_once_and_then_kept<L: Ledger>(fresh: &Fresh<L>) {
    let made = fresh.ledger.workspace().unwrap();
    assert!(made.path.is_dir());
    assert_eq!((made.found, made.before), (Found::Made, None));
    write(&made.path, "edited", "x\n");
    let kept = fresh.ledger.workspace().unwrap();
    assert_eq!((kept.found, kept.path.join("edited").is_file()), (Found::Kept, true));
    fresh.ledger.close().unwrap();
}

fn a_tree_is_what_the_files_are<L: Ledger>(fresh: &Fresh<L>) {
    let workspace = fresh.ledger.workspace().unwrap().path;
    let empty = fresh.ledger.write_tree().unwrap().id;
    write(&workspace, "a/b c.txt", "one\n");
    let one = fresh.ledger.write_tree().unwrap();
    assert_eq!(one.remarks, Vec::<String>::new());
    write(&workspace, "a/b c.txt", "two\n");
    let two = fresh.ledger.write_tree().unwrap().id;
    assert!(empty != one.id && one.id != two && empty != two);
    write(&workspace, "a/b c.txt", "one\n");
    assert_eq!(fresh.ledger.write_tree().unwrap().id, one.id);
    fs::remove_dir_all(workspace.join("a")).unwrap();
    assert_eq!(fresh.ledger.write_tree().unwrap().id, empty);
}

fn commits_go_on_top_of_the_tip<L: Ledger>(fresh: &Fresh<L>) {
    let workspace = fresh.ledger.workspace().unwrap().path;
    write(&workspace, "a", "1\n");
    write(&workspace, "b", "1\n");
    append(&fresh.ledger, &[event(1, "begun")]);
    let tree = fresh.ledger.write_tree().unwrap().id;
    let draft = Draft { tip: &fresh.start, tree: &tree, message: "agentloop: iteration 1/4\n", merged: &[] };
    let first = fresh.ledger.commit(&draft).unwrap();
    assert_eq!(first.changed, 2);
    // A checkpoint is made every iteration, even if nothing changed.
    let second = fresh.ledger.commit(&Draft { tip: &first.commit, ..draft }).unwrap();
    assert_eq!(second.changed, 0);
    assert_ne!(first.commit, second.commit);
    assert!(fresh.ledger.commit(&Draft { tip: &first.commit, ..draft }).is_err());
}

fn events_go_on_after_a_commit<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    append(&fresh.ledger, &[event(1, "before"), event(2, "before")]);
    let tree = fresh.ledger.write_tree().unwrap().id;
    fresh.ledger.commit(&Draft { tip: &fresh.start, tree: &tree, message: "one\n", merged: &[] }).unwrap();
    append(&fresh.ledger, &[event(3, "after"), event(4, "after")]);
    let seqs: Vec<u64> = fresh.ledger.events().unwrap().iter().map(|event| event.seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
}

fn a_diff_names_what_it_leaves_out<L: Ledger>(fresh: &Fresh<L>) {
    let workspace = fresh.ledger.workspace().unwrap().path;
    write(&workspace, "small", "old\n");
    let from = fresh.ledger.write_tree().unwrap().id;
    assert_eq!(fresh.ledger.diff(&from, &from, &[], 10_000).unwrap(), "");
    write(&workspace, "small", "new\n");
    write(&workspace, "big", &"0123456789\n".repeat(10_000));
    let to = fresh.ledger.write_tree().unwrap().id;
    let diff = fresh.ledger.diff(&from, &to, &[], 10_000).unwrap();
    assert!(diff.contains("-old\n") && diff.contains("+new\n"), "{diff}");
    assert!(diff.contains("big") && !diff.contains("+0123456789"), "{diff}");
    assert!(fresh.ledger.diff(&from, &to, &[], 1_000_000).unwrap().contains("+0123456789\n"));
}

fn what_is_protected_is_taken_back<L: Ledger>(fresh: &Fresh<L>) {
    let workspace = fresh.ledger.workspace().unwrap().path;
    write(&workspace, "tests/old", "as it was\n");
    write(&workspace, "tests/gone", "as it was\n");
    let from = fresh.ledger.write_tree().unwrap().id;
    write(&workspace, "tests/old", "weaker\n");
    fs::remove_file(workspace.join("tests/gone")).unwrap();
    write(&workspace, "tests/new", "mine\n");
    write(&workspace, "src", "work\n");
    write(&workspace, "a.lock", "work\n");
    let tree = fresh.ledger.write_tree().unwrap().id;
    let named = |pathspecs: &[&str]| {
        let pathspecs: Vec<String> = pathspecs.iter().map(ToString::to_string).collect();
        fresh.ledger.protected(&from, &tree, &pathspecs).unwrap()
    };
    assert_eq!(named(&[]), Vec::<String>::new());
    assert_eq!(named(&["*.lock"]), ["a.lock"]);
    let paths = named(&["tests"]);
    assert_eq!(paths, ["tests/gone", "tests/new", "tests/old"]);
    let settled = fresh.ledger.take_back(&from, &tree, &paths).unwrap();
    assert_eq!(fs::read_to_string(workspace.join("tests/old")).unwrap(), "as it was\n");
    assert!(workspace.join("tests/gone").exists() && !workspace.join("tests/new").exists());
    assert_eq!(fs::read_to_string(workspace.join("src")).unwrap(), "work\n");
    assert_eq!(fresh.ledger.write_tree().unwrap().id, settled.id);
}

fn outputs_are_kept_beside_the_log<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.store_output("iter1/s1/1.out", b"\xff not text").unwrap();
    fresh.ledger.store_output("iter1/s1/1.out", b"again").unwrap();
    fresh.ledger.store_output("iter1/s1/2.out", b"").unwrap();
    assert_eq!(fresh.ledger.events().unwrap(), []);
}

fn nobody_else_adds_commits_here<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    append(&fresh.ledger, &[event(1, "begun")]);
    assert_eq!(fresh.ledger.adopt(&fresh.start).unwrap(), None);
}

fn scratch_is_not_part_of_the_tree<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    let before = fresh.ledger.write_tree().unwrap().id;
    write(&fresh.ledger.scratch(), "live.out", "words\n");
    assert_eq!(fresh.ledger.write_tree().unwrap().id, before);
}

fn task(subgoal: &str) -> Task {
    Task { iteration: 1, subgoal: subgoal.to_owned() }
}

fn open<L: Ledger>(fresh: &Fresh<L>, task: &Task) -> std::path::PathBuf {
    fresh.ledger.open_place(&Opening { task, tip: &fresh.start, earlier: None }).unwrap().path
}

fn leave<L: Ledger>(fresh: &Fresh<L>, task: &Task, settled: bool) -> Option<String> {
    let message = format!("agentloop: {task}\n");
    let left = fresh.ledger.close_place(&Leaving { task, tip: &fresh.start, message: &message, settled }).unwrap();
    assert_eq!((left.lost, left.remarks), (None, Vec::new()));
    left.commit
}

/// The commit of a worker that writes one file.
fn worked<L: Ledger>(fresh: &Fresh<L>, subgoal: &str, name: &str, content: &str) -> String {
    let task = task(subgoal);
    write(&open(fresh, &task), name, content);
    leave(fresh, &task, true).unwrap()
}

fn merge<L: Ledger>(fresh: &Fresh<L>, merged: &[String], tree: &str, commit: &str) -> Merged {
    fresh.ledger.merge(&Merging { tip: &fresh.start, merged, tree, commit }).unwrap()
}

fn a_place_begins_at_the_tip_and_goes_on_as_it_was_left<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    let one = task("one");
    let path = open(fresh, &one);
    write(&path, "half", "x\n");
    assert_eq!(open(fresh, &one), path, "a killed driver's worker goes on");
    assert!(path.join("half").exists());
    let first = leave(fresh, &one, false).unwrap();
    assert_eq!(open(fresh, &one), path, "so does a failed attempt's");
    write(&path, "whole", "x\n");
    let second = leave(fresh, &one, true).unwrap();
    assert_ne!(first, second);
    assert_eq!(fresh.ledger.diff(&first, &second, &["half".to_owned()], 1000).unwrap(), "");
    assert!(fresh.ledger.diff(&first, &second, &[], 1000).unwrap().contains("whole"));
    fresh.ledger.close().unwrap();
}

fn what_a_worker_left_is_a_commit_or_nothing<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    open(fresh, &task("idle"));
    assert_eq!(leave(fresh, &task("idle"), true), None);
    let commit = worked(fresh, "busy", "a", "x\n");
    assert!(fresh.ledger.diff(&fresh.start, &commit, &[], 1000).unwrap().contains("+x"));
}

fn places_are_apart_and_used_again<L: Ledger>(fresh: &Fresh<L>) {
    let own = fresh.ledger.workspace().unwrap().path;
    let (one, two) = (task("one"), task("two"));
    let (a, b) = (open(fresh, &one), open(fresh, &two));
    assert!(a != b && a != own && b != own);
    write(&a, "only in one", "x\n");
    assert!(!b.join("only in one").exists() && !own.join("only in one").exists());
    leave(fresh, &one, true);
    let c = open(fresh, &task("three"));
    assert!(c != b && !c.join("only in one").exists(), "a place is cleared before another has it");
    fresh.ledger.close().unwrap();
    assert!(!a.exists() && !b.exists() && !c.exists());
}

fn clean_work_is_merged_in_turn<L: Ledger>(fresh: &Fresh<L>) {
    let own = fresh.ledger.workspace().unwrap().path;
    append(&fresh.ledger, &[event(1, "begun")]);
    let base = fresh.ledger.write_tree().unwrap().id;
    let (a, b) = (worked(fresh, "a", "a", "1\n"), worked(fresh, "b", "b", "1\n"));
    let Merged::Clean(first) = merge(fresh, &[], &base, &a) else { panic!("a conflict") };
    let Merged::Clean(both) = merge(fresh, std::slice::from_ref(&a), &first, &b) else { panic!("a conflict") };
    assert!(!own.join("a").exists(), "a merge touches no file");
    assert_eq!(fresh.ledger.advance(&base, &both).unwrap().id, both);
    assert!(own.join("a").exists() && own.join("b").exists());
    assert_eq!(fresh.ledger.write_tree().unwrap().id, both);
    assert_eq!(fresh.ledger.advance(&base, &both).unwrap().id, both, "a second time it is there already");
    let draft = Draft { tip: &fresh.start, tree: &both, message: "one\n", merged: &[a, b] };
    assert_eq!(fresh.ledger.commit(&draft).unwrap().changed, 2);
}

fn a_conflict_is_resolved_or_stays_open<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    let base = fresh.ledger.write_tree().unwrap().id;
    let (a, b) = (worked(fresh, "a", "same", "from a\n"), worked(fresh, "b", "same", "from b\n"));
    let Merged::Clean(tree) = merge(fresh, &[], &base, &a) else { panic!("a conflict") };
    let merged = [a];
    let Merged::Conflict(paths) = merge(fresh, &merged, &tree, &b) else { panic!("no conflict") };
    assert_eq!(paths, ["same"]);
    let (task, merging) = (task("b"), Merging { tip: &fresh.start, merged: &merged, tree: &tree, commit: &b });
    let open = || fresh.ledger.open_conflict(&task, &merging).unwrap().path;
    let open_marked = || {
        let place = open();
        let marked = fs::read_to_string(place.join("same")).unwrap();
        assert!(marked.contains("<<<<<<< ") && marked.contains("from a") && marked.contains("from b"), "{marked}");
        place
    };
    let close = |ended| {
        let (task, merging, paths, message) = (&task, &merging, &paths, "resolved\n");
        fresh.ledger.close_conflict(&Resolving { task, merging, paths, message, ended }).unwrap()
    };
    // Whoever was at it is gone without an end of its own: half of a file, and no marker in it.
    write(&open_marked(), "same", "from b\n");
    write(&open_marked(), "same", "from b\n");
    assert_eq!(close(false).open, None);
    let place = open_marked();
    write(&place, "half way", "x\n");
    assert!(close(true).open.unwrap().contains("same"));
    let place = open_marked();
    assert!(place.join("half way").exists(), "what was left by an end of its own is not made anew");
    write(&place, "same", "from b\n");
    let place = open_marked();
    assert!(!place.join("half way").exists(), "but with what was begun after it, all is");
    write(&place, "same", "from a\n");
    assert!(close(true).open.unwrap().contains("nothing of the work that was to be merged"));
    write(&open_marked(), "same", "from both\n");
    let resolved = close(true);
    assert_eq!(resolved.open, None);
    fresh.ledger.advance(&base, &resolved.tree).unwrap();
    let own = fresh.ledger.workspace().unwrap().path;
    assert_eq!(fs::read_to_string(own.join("same")).unwrap(), "from both\n");
}

fn unmerged_work_is_where_the_next_one_begins<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    let half = worked(fresh, "hard", "half", "x\n");
    let next = Task { iteration: 2, subgoal: "hard".to_owned() };
    let opening = Opening { task: &next, tip: &fresh.start, earlier: Some(&half) };
    let path = fresh.ledger.open_place(&opening).unwrap().path;
    assert!(path.join("half").exists());
    let message = "agentloop: hard\n";
    let leaving = Leaving { task: &next, tip: &fresh.start, message, settled: true };
    assert!(fresh.ledger.close_place(&leaving).unwrap().commit.is_some(), "what it began with is its work too");
}

fn the_workspace_moves_and_loses_nothing<L: Ledger>(fresh: &Fresh<L>) {
    let own = fresh.ledger.workspace().unwrap().path;
    write(&own, "left by a check", "x\n");
    write(&own, "same", "mine\n");
    let before = fresh.ledger.write_tree().unwrap().id;
    let a = worked(fresh, "a", "a", "1\n");
    let Merged::Clean(tree) = merge(fresh, &[], &before, &a) else { panic!("a conflict") };
    write(&own, "edited meanwhile", "x\n");
    let moved = fresh.ledger.advance(&before, &tree).unwrap();
    assert_ne!(moved.id, tree);
    assert_eq!(fresh.ledger.write_tree().unwrap().id, moved.id);
    for name in ["left by a check", "edited meanwhile", "a", "same"] {
        assert!(own.join(name).exists(), "{name}");
    }
}

fn a_place_that_is_gone_is_said<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    let one = task("one");
    fs::remove_dir_all(open(fresh, &one)).unwrap();
    let leaving = Leaving { task: &one, tip: &fresh.start, message: "x\n", settled: false };
    assert!(fresh.ledger.close_place(&leaving).unwrap().lost.is_some());
    assert!(open(fresh, &one).is_dir(), "a new place is made");
    fresh.ledger.close().unwrap();
}

fn closing_commits_what_a_place_holds<L: Ledger>(fresh: &Fresh<L>) {
    fresh.ledger.workspace().unwrap();
    let one = task("one");
    write(&open(fresh, &one), "half", "x\n");
    fresh.ledger.close().unwrap();
    fresh.ledger.workspace().unwrap();
    assert!(open(fresh, &one).join("half").exists());
    fresh.ledger.close().unwrap();
}

#[test]
fn memory_shows_what_it_holds() {
    let place = tempfile::tempdir().unwrap();
    let ledger = Memory::new(place.path());
    append(&ledger, &[event(1, "a"), event(2, "b")]);
    assert_eq!(ledger.log().lines().count(), 2);
    assert_eq!(ledger.snapshot().unwrap().seq, 2);
    ledger.store_output("iter1/s1/1.out", b"x").unwrap();
    assert_eq!(ledger.output("iter1/s1/1.out").as_deref(), Some(b"x".as_slice()));
    let tree = ledger.write_tree().unwrap().id;
    let committed = ledger.commit(&Draft { tip: "start", tree: &tree, message: "m", merged: &[] }).unwrap();
    let commits = ledger.commits();
    assert_eq!((commits[0].id.as_str(), commits[0].parent.as_str()), (committed.commit.as_str(), "start"));
    assert!(!ledger.is_closed());
    ledger.close().unwrap();
    assert!(ledger.is_closed());
}
