//! Several processes write settings while the guard reverts others.

use std::collections::BTreeSet;
use std::process::Child;

use super::*;
use crate::ledger::git::fixture::{Fixture, run_id};

const WRITERS: usize = 3;
/// All together are no more than a remark repeats.
const EACH: usize = RESTORED / WRITERS;

/// Starts a process that sets harmless and harmful settings, each until git succeeds.
fn writer(fixture: &Fixture, number: usize) -> Child {
    let script = format!(
        "for n in $(seq {EACH}); do for name in user alias; do \
         until git config $name.w{number}-$n x; do :; done; done; done"
    );
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(fixture.path()).args(["-c", &script]).stderr(std::process::Stdio::null()).spawn().unwrap()
}

#[test]
fn whatever_is_written_while_others_are_put_back_is_kept_or_named() {
    let fixture = Fixture::new();
    let repo = Repository::open(Some(&fixture.path())).unwrap();
    let folder = fixture.path().join("kept");
    std::fs::create_dir(&folder).unwrap();
    let shelf = GuardStore::new(None, folder.clone());
    let mut guard = Guard::begin(&repo, run_id("guarded"), Isolation::Worktree, shelf, &folder).unwrap();
    let mut remarks = Vec::new();
    let mut writers: Vec<Child> = (0..WRITERS).map(|number| writer(&fixture, number)).collect();
    while writers.iter_mut().any(|writer| writer.try_wait().unwrap().is_none()) {
        guard.revert_harmful(&repo).unwrap();
        remarks.extend(guard.take_remarks());
    }
    guard.revert_harmful(&repo).unwrap();
    remarks.extend(guard.take_remarks());
    let listed = fixture.git(["config", "--list", "--name-only"]);
    let kept: BTreeSet<&str> = listed.lines().collect();
    let remarks = remarks.join("\n");
    let is_named = |name: &str| remarks.contains(&format!("git config {name} x"));
    for (number, n) in (0..WRITERS).flat_map(|number| (1..=EACH).map(move |n| (number, n))) {
        let (harmless, harmful) = (format!("user.w{number}-{n}"), format!("alias.w{number}-{n}"));
        assert!(kept.contains(&*harmless) && !remarks.contains(&harmless), "{harmless} is lost");
        assert!(!kept.contains(&*harmful) && is_named(&harmful), "{harmful} is not named: {remarks}");
    }
    assert!(!remarks.contains("could not read"), "{remarks}");
    let left = std::fs::read_dir(fixture.git_dir()).unwrap().flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("config")).collect();
    assert_eq!(left, ["config"]);
}
