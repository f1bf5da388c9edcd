//! What the hooks and 10,000 runs cost the user's own git.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::measure::{Aim, Row, pairs};
use crate::record::add_runs;
use crate::scratch::{PROGRAM, Scratch};

const ROUNDS: usize = 150;

/// In a tree of `files` files. Two hooks that do nothing cost two starts of a shell: less than that no hook can.
pub fn beside_runs(files: usize) -> Vec<Row> {
    let plain = Scratch::with_files(files);
    let ours = Scratch::with_files(files);
    let run = add_runs(&ours, 10_000);
    ours.run(PROGRAM, &["hooks", "install"]);
    let empty = Scratch::with_files(files);
    for event in ["prepare-commit-msg", "post-rewrite"] {
        let path = empty.path().join(".git/hooks").join(event);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "#!/bin/sh\n:\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for scratch in [&plain, &ours, &empty] {
        scratch.git(&["commit", "-q", "--allow-empty", "-m", "to be amended"]);
        scratch.git(&["pack-refs", "--all"]);
        scratch.git(&["update-index", "--refresh"]); // files as young as their index are read again each time
    }
    let amend = ["commit", "-q", "--amend", "--allow-empty", "-m", "amended"];
    let row = |what: &str, scratch: &Scratch, arguments: &[&str], aim: Aim| {
        let both = pairs(ROUNDS, || git(scratch, arguments), || git(&plain, arguments));
        Row::pairs(&format!("{files} files: {what}"), &both, aim)
    };
    let mut rows = vec![
        row("git commit --amend, two empty hooks / none", &empty, &amend, Aim::None),
        row("git commit --amend beside 10,000 runs and our hooks / without", &ours, &amend, Aim::Ratio(1.2)),
        row("git commit beside them / without", &ours, &["commit", "-q", "--allow-empty", "-m", "x"], Aim::None),
        row("git log -1 beside them / without", &ours, &["log", "-1"], Aim::Ratio(1.2)),
        row("git status beside them / without", &ours, &["status"], Aim::Ratio(1.2)),
    ];
    // One of the run's own commits: its events come along.
    ours.git(&["switch", "-q", &format!("agentloop/{run}")]);
    rows.push(row("git commit --amend of a run's commit / of another, no hooks", &ours, &amend, Aim::None));
    rows
}

/// The user's git, which finds the program under test as an installed one is found.
fn git(scratch: &Scratch, arguments: &[&str]) {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let first = std::iter::once(Path::new(PROGRAM).parent().unwrap().to_owned());
    let path: OsString = std::env::join_paths(first.chain(std::env::split_paths(&rest))).unwrap();
    let output = scratch.command("git").env("PATH", path).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {output:?}");
}
