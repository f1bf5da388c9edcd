//! Workers' worktrees, held against those that git itself makes: when they are new, and when they are used again.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
use git_agentloop::ledger::{Leaving, Ledger as _, Opening, Preferences, Task, Workers as _};
use git_agentloop::run::goal::{Isolation, RunId};

use crate::support::Repo;

fn ledger(repo: &Repo) -> GitLedger {
    let opened = Repository::open(Some(repo.path())).unwrap();
    let (run, base) = (RunId::new("places", 7), opened.resolve_base(None).unwrap());
    let message = "agentloop: places\n".to_owned();
    let ledger = GitLedger::create(
        opened,
        NewRecord { run, base, message, isolation: Isolation::Worktree, preferences: Preferences::default() },
    )
    .unwrap();
    ledger.workspace().unwrap();
    ledger
}

fn open(ledger: &GitLedger, task: &Task, tip: &str) -> PathBuf {
    ledger.open_place(&Opening { task, tip, earlier: None }).unwrap().path
}

fn leave(ledger: &GitLedger, task: &Task, tip: &str) {
    let leaving = Leaving { task, tip, message: "agentloop: work\n", settled: true };
    ledger.close_place(&leaving).unwrap();
}

fn task(iteration: u32, subgoal: &str) -> Task {
    Task { iteration, subgoal: subgoal.to_owned() }
}

/// A repository with everything that a checkout is more than a copy for.
fn special(with_module: bool) -> Repo {
    let repo = Repo::new();
    repo.git(&["config", "filter.rot.clean", "tr n-za-m a-z"]);
    repo.git(&["config", "filter.rot.smudge", "tr a-z n-za-m"]);
    repo.write(".gitattributes", "*.rot filter=rot\n*.dos text eol=crlf\n*.id ident\n");
    repo.write(".gitignore", "build/\n");
    repo.write("secret.rot", "hello\n");
    repo.write("lines.dos", "one\ntwo\n");
    repo.write("version.id", "$Id$\n");
    repo.write("deep/er/run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(repo.path().join("deep/er/run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("../README", repo.path().join("deep/link")).unwrap();
    for number in 0..200 {
        repo.write(&format!("many/{number}"), &format!("{number}\n"));
    }
    repo.git(&["add", "."]);
    if with_module {
        let head = repo.git(&["rev-parse", "HEAD"]);
        repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},module")]);
        std::fs::create_dir(repo.path().join("module")).unwrap();
    }
    repo.git(&["commit", "-qm", "special"]);
    repo
}

/// Holds a place against a worktree that git makes of the same commit; what git ignores is nobody's.
#[track_caller]
fn assert_like_git_s(repo: &Repo, place: &Path, commit: &str) {
    let plain = repo.home().join(format!("plain-{}", fastrand::u32(..)));
    repo.git(&["worktree", "add", "-q", "--detach", plain.to_str().unwrap(), commit]);
    let at = |dir: &Path, words: &[&str]| repo.git(&[&["-C", dir.to_str().unwrap()], words].concat());
    // Before anything that refreshes it: entries whose stat data is not that of the file are named.
    assert_eq!(at(place, &["diff-files", "--name-only"]), "", "the index does not know the files");
    for words in [
        &["status", "--porcelain", "--ignored=no"][..],
        &["ls-files", "--stage", "-t", "-v"],
        &["ls-files", "--eol"],
        &["rev-parse", "HEAD^{tree}"],
        &["stash", "list"],
    ] {
        assert_eq!(at(place, words), at(&plain, words), "{words:?}");
    }
    let listed = |dir: &Path| {
        let mut command = repo.command("find");
        command.current_dir(dir).args([".", "-path", "./build", "-prune", "-o", "-name", ".git", "-prune", "-o"]);
        let output = command.args(["-printf", "%p %y %#m %l\n"]).output().unwrap();
        let mut lines: Vec<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(listed(place), listed(&plain));
    for name in ["secret.rot", "lines.dos", "version.id"] {
        assert_eq!(std::fs::read(place.join(name)).unwrap(), std::fs::read(plain.join(name)).unwrap(), "{name}");
    }
    repo.git(&["worktree", "remove", "-f", plain.to_str().unwrap()]);
}

#[test]
fn new_ones_and_used_ones_are_like_git_s_own() {
    new_and_used(&special(false));
}

#[test]
fn and_so_they_are_with_a_submodule() {
    new_and_used(&special(true));
}

fn new_and_used(repo: &Repo) {
    let ledger = ledger(repo);
    let tip = ledger.start();
    let tasks = ["a", "b", "c"].map(|id| task(1, id));
    let places: Vec<PathBuf> = std::thread::scope(|scope| {
        let made = tasks.each_ref().map(|task| scope.spawn(|| open(&ledger, task, &tip)));
        made.into_iter().map(|place| place.join().unwrap()).collect()
    });
    for place in &places {
        assert_like_git_s(repo, place, &tip);
    }

    // What a worker may leave that is not in the next tip: `c` leaves nothing.
    let a = &places[0];
    std::fs::write(a.join("many/7"), "another\n").unwrap();
    std::fs::remove_file(a.join("deep/er/run.sh")).unwrap();
    std::fs::remove_file(a.join("README")).unwrap();
    std::os::unix::fs::symlink("many/1", a.join("README")).unwrap();
    std::fs::write(a.join("come"), "x\n").unwrap();
    std::fs::create_dir_all(a.join("empty/er")).unwrap();
    std::fs::create_dir(a.join("build")).unwrap();
    std::fs::write(a.join("build/cache"), "x\n").unwrap();
    std::fs::set_permissions(places[1].join("many/1"), PermissionsExt::from_mode(0o755)).unwrap();
    for task in &tasks {
        leave(&ledger, task, &tip);
    }

    repo.write("many/7", "seven\n");
    repo.write("secret.rot", "another\n");
    repo.write("fresh/file", "x\n");
    // Git does not ignore this one, and where it goes a worker left one that git does ignore.
    repo.write("build/cache", "tracked\n");
    repo.git(&["rm", "-q", "lines.dos"]);
    repo.write("lines.dos", "three\n");
    repo.git(&["add", "-f", "."]);
    repo.git(&["commit", "-qm", "more"]);
    let next = repo.git(&["rev-parse", "HEAD"]);
    let mut again = Vec::new();
    for id in ["d", "e", "f"] {
        let place = open(&ledger, &task(2, id), &next);
        assert_like_git_s(repo, &place, &next);
        assert_eq!(std::fs::read_to_string(place.join("build/cache")).unwrap(), "tracked\n");
        again.push(place);
    }
    again.sort();
    let mut first = places.clone();
    first.sort();
    assert_eq!(again, first, "a place that nobody needs is used again");
    ledger.close().unwrap();
    repo.assert_sound();
}

#[test]
fn a_sparse_checkout_is_one_in_the_places_too() {
    let repo = special(false);
    repo.git(&["sparse-checkout", "set", "--cone", "deep"]);
    let ledger = ledger(&repo);
    let tip = ledger.start();
    let (one, two) = (task(1, "one"), task(2, "two"));
    let place = open(&ledger, &one, &tip);
    assert!(place.join("deep/er/run.sh").exists() && !place.join("many").exists());
    assert_like_git_s(&repo, &place, &tip);
    std::fs::write(place.join("deep/new"), "x\n").unwrap();
    leave(&ledger, &one, &tip);
    let place = open(&ledger, &two, &tip);
    assert_like_git_s(&repo, &place, &tip);
}

#[test]
fn what_an_older_version_s_worker_left_in_the_run_s_worktree_is_where_its_place_begins() {
    let repo = special(false);
    let ledger = ledger(&repo);
    let (tip, own) = (ledger.start(), ledger.workspace().unwrap().path);
    std::fs::write(own.join("many/7"), "half\n").unwrap();
    std::fs::write(own.join("new"), "half\n").unwrap();
    let one = task(1, "one");
    // A driver that is killed right after does it again.
    for _ in 0..2 {
        ledger.hand_over(&one, &tip).unwrap();
        assert_like_git_s(&repo, &own, &tip);
    }
    let place = open(&ledger, &one, &tip);
    assert_eq!(std::fs::read_to_string(place.join("many/7")).unwrap(), "half\n");
    assert_eq!(std::fs::read_to_string(place.join("new")).unwrap(), "half\n");
}

#[test]
fn a_workspace_is_restored_to_its_tree_whatever_was_done_in_it() {
    let repo = special(false);
    let ledger = ledger(&repo);
    let own = ledger.workspace().unwrap().path;
    let tree = ledger.write_tree().unwrap().id;
    assert_eq!(ledger.restore(&tree).unwrap(), [""; 0]);
    let deeds: [(&str, &[&str]); 5] = [
        (
            "echo changed > many/7; rm many/8; touch many/new; mkdir -p fresh; touch fresh/file",
            &["fresh/", "many/7", "many/8", "many/new"],
        ),
        ("git update-index --skip-worktree many/7; echo changed > many/7", &["many/7"]),
        ("git update-index --assume-unchanged many/7; echo changed > many/7; git commit -qam own", &["many/7"]),
        ("touch -r many/7 t; printf '9\n' > many/7; touch -r t many/7; rm t", &["many/7"]),
        ("git init -q nested; touch nested/file", &["nested/"]),
    ];
    for (deed, changed) in deeds {
        let done = repo.command("sh").current_dir(&own).args(["-c", deed]).status().unwrap();
        assert!(done.success() || deed.contains("commit"), "{deed}");
        assert_eq!(ledger.restore(&tree).unwrap(), changed, "{deed}");
        assert_eq!(ledger.write_tree().unwrap().id, tree, "{deed}");
        assert_eq!(std::fs::read_to_string(own.join("many/7")).unwrap(), "7\n", "{deed}");
    }
    std::fs::create_dir_all(own.join("build")).unwrap();
    std::fs::write(own.join("build/cache"), "x\n").unwrap();
    assert_eq!(ledger.restore(&tree).unwrap(), [""; 0]);
    assert!(own.join("build/cache").exists(), "what git ignores stays");
}

/// What is done in a place of a repository.
type Act = fn(&Repo, &Path);

#[test]
fn a_place_that_is_used_again_is_never_emptied_of_what_nobody_has_kept() {
    let repo = special(false);
    let ledger = ledger(&repo);
    let tip = ledger.start();
    let run = RunId::new("places", 7);
    // After its worker's end, when everything it had done was kept.
    let later: [(&str, Act); 5] = [
        ("an edit", |_, place| std::fs::write(place.join("many/7"), "later\n").unwrap()),
        ("a new file", |_, place| std::fs::write(place.join("later"), "later\n").unwrap()),
        ("a staged file", |repo, place| {
            std::fs::write(place.join("later"), "later\n").unwrap();
            repo.git(&["-C", place.to_str().unwrap(), "add", "later"]);
        }),
        ("a commit", |repo, place| {
            std::fs::write(place.join("later"), "later\n").unwrap();
            repo.git(&["-C", place.to_str().unwrap(), "add", "later"]);
            repo.git(&["-C", place.to_str().unwrap(), "commit", "-qm", "later"]);
        }),
        ("an edit where .git is gone", |_, place| {
            std::fs::write(place.join("many/7"), "later\n").unwrap();
            std::fs::remove_file(place.join(".git")).unwrap();
        }),
    ];
    for (number, (what, act)) in (1..).zip(later) {
        let of = |subgoal: &str| task(number, subgoal);
        let place = open(&ledger, &of("worker"), &tip);
        std::fs::write(place.join("work"), format!("{number}\n")).unwrap();
        leave(&ledger, &of("worker"), &tip);
        act(&repo, &place);
        let next = open(&ledger, &task(number + 1, "next"), &tip);
        assert_eq!(next, place, "{what}");
        assert_like_git_s(&repo, &next, &tip);
        let kept = repo.git(&["log", "--all", "-p", "--format="]);
        assert!(kept.contains("+later"), "{what} is lost");
        let own = format!("refs/agentloop/run/{run}/iter{number}/worker");
        assert!(repo.git(&["log", "-p", "--format=", &own]).contains(&format!("+{number}")), "{what}");
        // Not to be found by the round after this one.
        for name in repo.git(&["for-each-ref", "--format=%(refname)", "refs/agentloop"]).lines() {
            repo.git(&["update-ref", "-d", name]);
        }
        leave(&ledger, &task(number + 1, "next"), &tip);
    }
}
