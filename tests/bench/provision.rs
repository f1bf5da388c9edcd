//! What it costs to make worktrees fit to work in.

use std::path::PathBuf;

use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
use git_agentloop::ledger::{Ledger as _, Provision as _, Wanted};
use git_agentloop::run::goal::{Isolation, RunId};

use crate::measure::{Aim, Row, pairs, times};
use crate::scratch::{Scratch, undurable};

/// Files of the dependencies that are copied.
const DEPENDENCIES: usize = 20_000;

/// Dependencies copied into a worktree, beside cp(1) doing the same; and nothing to copy in one that has them.
pub fn copying() -> Vec<Row> {
    let scratch = Scratch::new();
    for number in 0..DEPENDENCIES {
        let file = scratch.path().join(format!("node_modules/package-{}/lib/{number}.js", number / 100));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, format!("module.exports = {number};\n").repeat(40)).unwrap();
    }
    std::fs::write(scratch.path().join(".git/info/exclude"), "node_modules\n").unwrap();
    let patterns = ["node_modules".to_owned()];
    let wanted = Wanted { copy: &patterns, go_on: &|| true };
    let base = scratch.git(&["rev-parse", "HEAD"]);
    let mut number = 0;
    let mut open = || {
        number += 1;
        let (run, message) = (RunId::new("provision", number), "agentloop: provision\n".to_owned());
        let repo = Repository::open(Some(&scratch.path())).unwrap();
        let new =
            NewRecord { run, base: base.clone(), message, isolation: Isolation::Shared, preferences: undurable() };
        let ledger = GitLedger::create(repo, new).unwrap();
        let place = ledger.workspace().unwrap().path;
        (ledger, place)
    };
    let mut places: Vec<(GitLedger, PathBuf)> = (0..6).map(|_| open()).collect();
    let mut copies = 0;
    let mut fresh = places.iter();
    let ours = || {
        let (ledger, place) = fresh.next().unwrap();
        assert_eq!(ledger.provision(place, &wanted).unwrap().copied, DEPENDENCIES as u64);
    };
    let floor = || {
        copies += 1;
        let to = scratch.home().join(format!("copy-{copies}"));
        let mut cp = scratch.command("cp");
        assert!(cp.args(["-a", "node_modules"]).arg(to).status().unwrap().success());
    };
    let both = pairs(5, ours, floor);
    let (ledger, place) = places.pop().unwrap();
    let again = times(5, || assert_eq!(ledger.provision(&place, &wanted).unwrap().copied, 0));
    vec![
        Row::pairs("20,000 ignored files into a new worktree / cp -a", &both, Aim::None),
        Row::times("the same into one that has them", &again, Aim::None),
    ]
}
