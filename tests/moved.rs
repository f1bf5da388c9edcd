//! Repositories that were moved or copied by hand, as a folder: whose a run's worktree is then.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::fanout::{RUN, plan, scripted};
use crate::support::{PROGRAM, Ran, Repo, wait_for};

/// A run that has its first iteration behind it and wants another, with something uncommitted in its worktree.
fn begun(repo: &Repo) -> (String, PathBuf) {
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
    let ended = repo.agentloop(&["run", "a goal", "--backend", "mock", "--max-iterations", "1", "--json"]).expect(1);
    let ended = ended.json();
    let place = PathBuf::from(ended["worktree"]["path"].as_str().unwrap());
    std::fs::write(place.join("late.txt"), "not committed\n").unwrap();
    (ended["run_id"].as_str().unwrap().to_owned(), place)
}

fn at(repo: &Repo, dir: &Path, arguments: &[&str]) -> Ran {
    let mut command = repo.command(PROGRAM);
    Ran::of(&command.current_dir(dir).args(arguments).stdin(Stdio::null()).output().unwrap())
}

/// Where the repository is, now that somebody moved it.
fn moved(repo: &Repo) -> PathBuf {
    let moved = repo.home().join("elsewhere");
    std::fs::rename(repo.path(), &moved).unwrap();
    moved
}

const RESUME: [&str; 4] = ["resume", "--max-iterations", "2", "--json"];

/// The run in a copy at `dir` goes on once what it would run is given there.
#[track_caller]
fn given_again(repo: &Repo, dir: &Path) -> serde_json::Value {
    let refused = at(repo, dir, &RESUME).expect(2).stderr;
    assert!(refused.contains("add this to the command: --permissions edit --backend mock\n"), "{refused}");
    at(repo, dir, &[&RESUME[..], &["--permissions", "edit", "--backend", "mock"]].concat()).expect(0).json()
}

/// The run at `dir` goes on in its worktree at `place`, and what stood there uncommitted is part of it.
#[track_caller]
fn assert_goes_on(repo: &Repo, dir: &Path, place: &Path) {
    let ended = at(repo, dir, &RESUME).expect(0).json();
    assert_eq!(ended["worktree"]["path"], place.to_str().unwrap());
    let branch = ended["worktree"]["branch"].as_str().unwrap();
    assert_eq!(Ran::of(&git(repo, dir, &["show", &format!("{branch}:late.txt")])).expect(0).stdout, "not committed\n");
    assert_eq!(Ran::of(&git(repo, place, &["status", "--porcelain"])).expect(0).stdout, "");
}

fn git(repo: &Repo, dir: &Path, arguments: &[&str]) -> std::process::Output {
    repo.command("git").current_dir(dir).args(arguments).output().unwrap()
}

#[test]
fn a_run_goes_on_in_a_repository_that_was_moved() {
    let repo = Repo::new();
    let (_, place) = begun(&repo);
    let moved = moved(&repo);
    assert_goes_on(&repo, &moved, &place);
}

#[test]
fn and_where_its_worktrees_were_moved_along() {
    let repo = Repo::new();
    let (_, place) = begun(&repo);
    let moved = moved(&repo);
    let beside = repo.home().join("elsewhere.agentloop");
    std::fs::rename(place.parent().unwrap(), &beside).unwrap();
    assert_goes_on(&repo, &moved, &beside.join(place.file_name().unwrap()));
}

#[test]
fn what_a_moved_repository_has_is_kept_when_its_run_is_discarded() {
    let repo = Repo::new();
    let (run, place) = begun(&repo);
    let moved = moved(&repo);
    let gone = at(&repo, &moved, &["discard", &run, "--yes", "--json"]).expect(0).json();
    assert!(!place.exists() && gone["kept"].as_array().unwrap().len() == 1, "{gone:#}");
}

#[test]
fn a_copy_has_no_hand_in_the_worktrees_of_the_other() {
    let repo = Repo::new();
    let (run, place) = begun(&repo);
    let copy = repo.home().join("copy");
    let copies = || {
        let _ = std::fs::remove_dir_all(&copy);
        assert!(repo.command("cp").arg("-a").args([repo.path(), &copy]).status().unwrap().success());
    };
    for verb in [&["discard", &run, "--yes", "--json"][..], &["prune", "--older-than", "0s", "--yes", "--json"]] {
        copies();
        if verb[0] == "prune" {
            at(&repo, &copy, &["merge", "--no-edit", "--force"]).expect(0);
        }
        at(&repo, &copy, verb).expect(0);
        assert_eq!(std::fs::read_to_string(place.join("late.txt")).unwrap(), "not committed\n", "{verb:?}");
        let listed = Ran::of(&git(&repo, &copy, &["worktree", "list"])).expect(0).stdout;
        assert_eq!(listed.lines().count(), 1, "{listed}");
    }
    copies();
    assert_eq!(at(&repo, &copy, &["result", "--json"]).expect(1).json()["worktree"]["path"], serde_json::Value::Null);
    // It is a clone of its own, where nothing was given.
    let apart = given_again(&repo, &copy);
    assert_eq!(apart["worktree"]["path"], repo.home().join("copy.agentloop").join(&run).to_str().unwrap());
    assert_goes_on(&repo, repo.path(), &place);
    // Once more in the copy: its own worktree, and not the other's.
    at(&repo, &copy, &["discard", &run, "--yes"]).expect(0);
    assert!(place.exists() && !repo.home().join("copy.agentloop").exists());
}

#[test]
fn what_works_for_the_other_is_left_alone_from_a_copy() {
    let repo = Repo::new();
    let work =
        "touch \"$HOME/at-work\"; while [ ! -e \"$HOME/go\" ]; do sleep 0.05; done; echo x > \"$AGENTLOOP_SUBGOAL\"";
    scripted(&repo, &plan(&["a", "b"]), work, "true");
    let child = repo.spawn(&RUN);
    wait_for("a worker at work", || repo.home().join("at-work").exists().then_some(()));
    let copy = repo.home().join("copy");
    assert!(repo.command("cp").arg("-a").args([repo.path(), &copy]).status().unwrap().success());
    at(&repo, &copy, &["discard", "a-goal", "--yes"]).expect(0);
    std::fs::write(repo.home().join("go"), "").unwrap();
    let ended = Ran::of(&child.wait_with_output().unwrap()).expect(0).json();
    let run = ended["run_id"].as_str().unwrap();
    assert!(!repo.kinds(run).contains(&"subagent_failed".to_owned()), "a worker was stopped from the copy");
    assert_eq!(ended["worktree"]["changed_files"].as_array().unwrap().len(), 2);
}

#[test]
fn a_copy_of_both_is_one_of_each() {
    let repo = Repo::new();
    let (_, place) = begun(&repo);
    let apart = repo.home().join("apart");
    std::fs::create_dir(&apart).unwrap();
    let both = [repo.path(), place.parent().unwrap()];
    assert!(repo.command("cp").arg("-a").args(both).arg(&apart).status().unwrap().success());
    let beside = apart.join(place.parent().unwrap().file_name().unwrap());
    let ended = given_again(&repo, &apart.join("repo"));
    assert_eq!(ended["worktree"]["path"], beside.join(place.file_name().unwrap()).to_str().unwrap());
    assert_goes_on(&repo, repo.path(), &place);
}
