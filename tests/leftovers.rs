//! What many runs leave behind: what cleanup promises, and nothing else.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::fanout::{RUN, assert_cleared, plan, scripted};
use crate::support::{Repo, wait_for};

/// Runs of each kind.
const EACH: usize = 10;

/// Bytes below `dir`, as the disk has them.
fn disk_use(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => disk_use(&entry.path()),
        _ => entry.metadata().map_or(0, |about| about.blocks() * 512),
    });
    sizes.sum()
}

fn names(dir: PathBuf) -> BTreeSet<String> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

#[test]
fn to_read_a_run_makes_no_folder() {
    let repo = Repo::new();
    let run = repo.mock_run("change nothing", &[])["run_id"].as_str().unwrap().to_owned();
    for verb in ["result", "show", "status", "list", "tail"] {
        let run = (verb != "list").then_some(run.as_str());
        repo.agentloop(&[&[verb][..], run.as_slice()].concat()).expect(0);
    }
    assert!(!repo.home().join("repo.agentloop").exists());
}

#[test]
fn a_place_that_was_half_cleared_goes_with_its_run() {
    let repo = Repo::new();
    scripted(&repo, &plan(&["a", "b"]), "touch \"$HOME/ready-$AGENTLOOP_SUBGOAL\"; sleep 1011", "true");
    let mut child = repo.spawn(&RUN);
    wait_for("both workers", || {
        ["ready-a", "ready-b"].map(|name| repo.home().join(name).exists()).eq(&[true; 2]).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    // A driver that was killed after it had cleared a place's files, and before git had ended its registration.
    let folder = repo.path().join(".git/agentloop").join(&run);
    repo.git(&["worktree", "unlock", &format!("../repo.agentloop/{run}.w1")]);
    std::fs::remove_dir_all(repo.home().join(format!("repo.agentloop/{run}.w1"))).unwrap();
    for name in ["w1", "index.w1"] {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    // Another that was killed while it copied, filled and examined an index.
    for name in ["index.w2.new", "index.w2.lock", "index.w2.nested", "index.w2.linked"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    assert!(repo.git(&["worktree", "list"]).contains(&format!("{run}.w1")));
    repo.agentloop(&["cancel", &run]).expect(0);
    assert_cleared(&repo, &run);
    repo.assert_sound();
}

#[test]
fn fifty_runs_leave_what_cleanup_promises() {
    let repo = Repo::new();
    repo.write(".gitignore", "*.local\n");
    repo.write("large.local", &"x".repeat(1_000_000));
    repo.commit("what is ignored");
    repo.git(&["config", "agentloop.copy", "*.local"]);
    repo.git(&["config", "agentloop.durable", "never"]);
    let before = disk_use(repo.path());
    let run = |arguments: &[&str]| -> String {
        let all =
            [&["run", "a goal", "--backend", "mock", "--criteria", "x", "--max-iterations", "1", "--json"], arguments];
        let ran = repo.agentloop(&all.concat());
        assert!(ran.code == 0 || ran.code == 1, "{}", ran.stderr);
        ran.json()["run_id"].as_str().unwrap().to_owned()
    };
    let several = |arguments: &[&str]| -> BTreeSet<String> {
        std::thread::scope(|scope| {
            let share = || (0..EACH / 2).map(|_| run(arguments)).collect::<Vec<_>>();
            let halves = [scope.spawn(share), scope.spawn(share)];
            halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
        })
    };
    // Nothing is changed, so that nothing stays.
    several(&[]);
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
    let changed = several(&[]);
    let shared = several(&["--isolation", "shared"]);
    repo.git(&["config", "agentloop.cleanup", "always"]);
    several(&[]);
    repo.git(&["config", "agentloop.mock.delay", "60000"]);
    let cancelled = several(&["--detach"]);
    for run in &cancelled {
        wait_for("a worker", || repo.kinds(run).contains(&"agent_started".to_owned()).then_some(()));
        repo.agentloop(&["cancel", run]).expect(0);
    }
    let kept: BTreeSet<String> = changed.union(&shared).cloned().collect();
    let folder = repo.home().join("repo.agentloop");
    assert_eq!(names(folder.clone()), kept);
    assert_eq!(names(repo.path().join(".git/worktrees")), kept);
    let listed = repo.git(&["worktree", "list", "--porcelain"]);
    assert_eq!(listed.lines().filter(|line| line.starts_with("worktree ")).count(), 1 + kept.len(), "{listed}");
    assert!(!listed.contains("prunable") && !listed.contains("locked"), "{listed}");
    let runs = repo.agentloop(&["list", "--json"]).expect(0).json();
    assert_eq!(runs.as_array().map(Vec::len), Some(5 * EACH));
    // A run leaves its record and its commits; only a worktree that stays has copies of anything.
    let (beside, record) = (disk_use(&folder), disk_use(repo.path()) - before);
    println!("50 runs: {} kB of record, {} kB in {} worktrees", record / 1000, beside / 1000, kept.len());
    assert!(record < 50 * 600_000, "{record} bytes");
    assert!(beside < 20 * 1_200_000, "{beside} bytes");
    for run in &kept {
        repo.agentloop(&["discard", run, "--yes"]).expect(0);
    }
    assert!(!folder.exists(), "{:?}", names(folder));
    assert_eq!(repo.git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(names(repo.path().join(".git/worktrees")), BTreeSet::new());
    repo.assert_sound();
}

#[test]
fn a_run_that_never_was_on_record_has_no_branch_and_its_folder_is_pruned() {
    use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
    let repo = Repo::new();
    let opened = Repository::open(Some(repo.path())).unwrap();
    let run = git_agentloop::run::goal::RunId::new("a goal", 7);
    let new = NewRecord {
        run: run.clone(),
        base: opened.resolve_base(None).unwrap(),
        message: "agentloop: a goal\n".to_owned(),
        isolation: git_agentloop::run::goal::Isolation::Worktree,
        preferences: git_agentloop::ledger::Preferences::default(),
    };
    // What a driver does until its first event, after which it is killed.
    drop(GitLedger::create(opened, new).unwrap());
    assert_eq!(repo.git(&["for-each-ref", "--format=%(refname)", "refs/heads/agentloop", "refs/notes"]), "");
    let folder = repo.path().join(".git/agentloop").join(run.as_str());
    assert!(folder.exists());
    // One that was started a moment ago is let alone.
    assert!(repo.agentloop(&["prune", "--yes"]).expect(0).stdout.starts_with("nothing to prune"));
    let said = repo.agentloop(&["prune", "--older-than", "0s"]).expect(0).stdout;
    let what = format!("{run}\n  folder {}\n", folder.canonicalize().unwrap().display());
    assert!(said.contains(&format!("would remove {what}")), "{said}");
    let kept = repo.mock_run("another", &[])["run_id"].as_str().unwrap().to_owned();
    let said = repo.agentloop(&["prune", "--older-than", "0s", "--yes"]).expect(0).stdout;
    assert!(said.contains(&format!("removed {what}")), "{said}");
    assert!(!folder.exists());
    repo.agentloop(&["result", &kept]).expect(0);
}
