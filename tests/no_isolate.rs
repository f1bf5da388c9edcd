//! `--no-isolate`: agents edit the user's checkout, and everything else of the user's stays as it is.

use crate::support::Repo;

#[test]
fn head_index_and_branch_stay_and_what_was_there_is_recorded_apart() {
    let repo = Repo::new();
    repo.write("README", "hello, changed\n");
    repo.write("staged", "staged\n");
    repo.git(&["add", "staged"]);
    repo.write("loose", "untracked\n");
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
    let status = repo.git(&["status", "--porcelain"]);
    let before = repo.fingerprint();
    let result = repo.mock_run("work here", &["--no-isolate"]);
    let branch = result["worktree"]["branch"].as_str().unwrap().to_owned();

    let after = repo.fingerprint();
    for name in [".git/HEAD", ".git/index", ".git/config", "refs/stash", "refs/heads/main"] {
        assert_eq!(after[name], before[name], "{name}");
    }
    assert_eq!(result["worktree"]["path"], repo.path().to_str().unwrap());
    let subjects = repo.git(&["log", "--first-parent", "--reverse", "--format=%s", &format!("main..{branch}")]);
    let subjects: Vec<&str> = subjects.lines().collect();
    assert_eq!(subjects[1], "agentloop: uncommitted changes before the run");
    assert_eq!(subjects.len(), 4);
    let apart = repo.git(&["diff", "--name-only", &format!("{branch}~3"), &format!("{branch}~2")]);
    assert_eq!(apart.lines().collect::<Vec<_>>(), ["README", "loose", "staged"]);
    let made = repo.git(&["diff", "--name-only", &format!("{branch}~2"), &branch]);
    assert_eq!(made.lines().filter(|name| name.starts_with("made-")).count(), 3);
    let now = repo.git(&["status", "--porcelain"]);
    assert!(status.lines().all(|line| now.lines().any(|other| other == line)), "{now}");
    repo.assert_sound();
}

#[test]
fn everything_permitted_in_the_checkout_wants_force() {
    let repo = Repo::new();
    let refused = repo.agentloop(&["run", "x", "--backend", "mock", "--no-isolate", "--permissions", "all"]).expect(2);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    repo.mock_run("x", &["--no-isolate", "--permissions", "all", "--force"]);
}
