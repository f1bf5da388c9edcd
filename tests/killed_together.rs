//! Driver and git die at one instant, as in a power cut: what git had locked then stands in nobody's way.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Repo, wait_for};

/// Kills that are made where no more are asked for.
const SAMPLE: u32 = 10;

/// The process and everything below it.
fn tree(root: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let parents: Vec<(u32, u32)> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// Ends the driver and all it has started at one instant: none sees another die.
fn power_cut(child: &mut Child) {
    let signal = |pid: u32, signal| {
        let _ = kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal);
    };
    signal(child.id(), Signal::STOP);
    for pid in tree(child.id()) {
        signal(pid, Signal::STOP);
    }
    for pid in tree(child.id()) {
        signal(pid, Signal::KILL);
    }
    child.wait().unwrap();
}

#[test]
fn nothing_that_died_with_its_git_is_in_the_way() {
    let kills = std::env::var("AGENTLOOP_TEST_KILLS").map_or(SAMPLE, |kills| kills.parse().unwrap());
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.plan", r#"["a","b","c"]"#]);
    repo.git(&["config", "agentloop.mock.acceptIteration", "2"]);
    repo.git(&["config", "agentloop.mock.edit", "out-{subgoal}.txt={iteration}\n"]);
    repo.git(&["config", "gc.auto", "0"]);
    let begun = Instant::now();
    repo.mock_run("left alone", &[]);
    let length = begun.elapsed();
    let mut random = fastrand::Rng::with_seed(28);
    let (mut resumed, mut left) = (0, 0);
    for round in 0..kills {
        let mut child = repo.spawn(&["run", "a goal", "--backend", "mock", "--name", &format!("round-{round}")]);
        std::thread::sleep(length.mul_f64(random.f64())); // the instant of death is the point of this test
        power_cut(&mut child);
        left += repo.locks().len();
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        let run = listed[0]["run_id"].as_str().unwrap().to_owned();
        if run != format!("round-{round}") || listed[0]["state"] == "completed" {
            continue; // before it was opened, or after its end
        }
        if round % 5 == 4 {
            repo.agentloop(&["cancel", &run]).expect(0);
        }
        repo.agentloop(&["resume", &run]).expect(0);
        resumed += 1;
        repo.git(&["branch", "x"]);
        repo.git(&["branch", "-q", "-D", "x"]);
        repo.git(&["update-ref", &format!("refs/heads/agentloop/{run}"), &format!("agentloop/{run}")]);
    }
    println!("{kills} kills, {resumed} resumed, {left} locks left behind");
    assert!(resumed > 0, "no run was interrupted: the delays are wrong");
    // What a run left that was killed before it was opened is pruned.
    repo.agentloop(&["prune", "--older-than", "0s", "--yes"]).expect(0);
    repo.assert_sound();
}

/// Locks that a driver left are removed by whatever verb goes on; those that may be another program's stay.
#[test]
fn verbs_get_over_locks_of_a_driver_that_died_with_its_git() {
    let own = ["refs/notes/agentloop/RUN.lock", "refs/heads/agentloop/RUN.lock", "refs/agentloop/run/RUN/output.lock"];
    for verb in ["resume", "cancel", "discard"] {
        let repo = Repo::new();
        repo.git(&["config", "agentloop.mock.delay", "60000"]);
        let mut child = repo.spawn(&["run", "a goal", "--backend", "mock"]);
        let run = wait_for("a run at work", || {
            let run = repo.agentloop(&["status", "--json"]);
            let status: serde_json::Value = serde_json::from_str(&run.stdout).ok()?;
            (status["phase"] == "execute" || status["phase"] == "decompose").then(|| status["run_id"].clone())
        });
        let run = run.as_str().unwrap();
        power_cut(&mut child);
        repo.git(&["config", "agentloop.mock.delay", "0"]);
        let lock = |name: &str| repo.path().join(".git").join(name.replace("RUN", run));
        for name in own.iter().chain(&["packed-refs.lock", "index.lock", "config.lock"]) {
            std::fs::create_dir_all(lock(name).parent().unwrap()).unwrap();
            std::fs::write(lock(name), "").unwrap();
        }
        // Its git was killed while it registered a worktree: the user's own 'git worktree' fails until then, and 'git gc'.
        let half = repo.path().join(".git/worktrees").join(run).join("commondir");
        std::fs::write(&half, "").unwrap();
        assert_eq!(repo.try_git(&["worktree", "list"]).code, 128);
        let began = Instant::now();
        if verb == "discard" {
            // It deletes refs, for which git wants this lock: it names the file, and does it once that is gone.
            let refused = repo.agentloop(&["discard", run, "--yes"]).expect(2).stderr;
            assert!(refused.contains("packed-refs.lock"), "{refused}");
            assert!(lock("packed-refs.lock").exists());
            std::fs::remove_file(lock("packed-refs.lock")).unwrap();
            repo.agentloop(&["discard", run, "--yes"]).expect(0);
        } else {
            repo.agentloop(&[verb, run]).expect(0);
            assert!(began.elapsed() < Duration::from_mins(1));
            assert!(lock("packed-refs.lock").exists(), "it may be another program's");
        }
        assert!(own.iter().all(|name| !lock(name).exists()), "{verb}");
        repo.git(&["worktree", "list"]);
        assert!(lock("index.lock").exists() && lock("config.lock").exists(), "{verb}");
    }
}
