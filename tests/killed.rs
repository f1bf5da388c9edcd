//! The driver is killed at random instants; nothing that was acknowledged is lost and nothing is left in the way.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Repo, processes_with, wait_for};

fn kill(child: &mut Child) {
    let _ = kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::KILL);
    child.wait().unwrap();
}

/// A repository whose mock runs take many events: six subgoals, four iterations, edits in each.
fn eventful() -> Repo {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.plan", r#"["a","b","c","d","e","f"]"#]);
    repo.git(&["config", "agentloop.mock.acceptIteration", "4"]);
    repo.git(&["config", "agentloop.mock.edit", "out-{subgoal}.txt={iteration}\n"]);
    repo.git(&["config", "agentloop.mock.delay", "3"]);
    // A gc in the background takes objects from under the fsck that looks at them.
    repo.git(&["config", "gc.autoDetach", "false"]);
    repo
}

const ARGUMENTS: [&str; 7] = ["run", "many events", "--backend", "mock", "--verify", "true", "--progress"];

/// The trees of the branch's iterations: what the end of a run is, whatever way it took.
fn trees(repo: &Repo, run: &str) -> Vec<String> {
    let log = repo.git(&[
        "log",
        "--first-parent",
        "--reverse",
        "--format=%T %(trailers:key=Agentloop-Verdict,valueonly)",
        &format!("agentloop/{run}"),
    ]);
    log.lines()
        .filter(|line| line.ends_with("complete"))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect()
}

fn assert_git_is_free(repo: &Repo) {
    repo.git(&["commit", "-q", "--allow-empty", "-m", "the user goes on"]);
    repo.git(&["branch", "x"]);
    repo.git(&["branch", "-q", "-D", "x"]);
    repo.git(&["fsck", "--strict", "--no-dangling"]);
}

/// Kills a run after each of `delays`, resumes it, and holds the end against the one of a run that was left alone.
fn kill_at(delays: impl Iterator<Item = Duration>) {
    let repo = eventful();
    let whole = repo.mock_run("left alone", &["--verify", "true"]);
    let wanted = trees(&repo, whole["run_id"].as_str().unwrap());
    assert_eq!(wanted.len(), 4);
    let mut known = repo.agentloop(&["list", "--json"]).expect(0).json().as_array().unwrap().len();
    let mut resumed = 0;
    for (round, delay) in delays.enumerate() {
        let mut child = repo.command(crate::support::PROGRAM);
        let mut child =
            child.args(ARGUMENTS).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(delay); // the instant of death is the point of this test
        kill(&mut child);
        let mut acknowledged = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut acknowledged).unwrap();
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        let listed = listed.as_array().unwrap();
        assert_git_is_free(&repo);
        if round % 5 == 0 {
            // What was interrupted goes on from packs.
            repo.git(&["gc", "-q"]);
        }
        if listed.len() == known {
            continue; // killed before the run was opened
        }
        known = listed.len();
        let run = listed[0]["run_id"].as_str().unwrap();
        let seqs: Vec<u64> = repo.events(run).iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "round {round}: the log has gaps");
        let finished = repo.kinds(run).iter().filter(|kind| *kind == "iteration_finished").count();
        // A line of progress is printed when its iteration is on record.
        let progress = acknowledged.lines().filter(|line| serde_json::from_str::<Value>(line).is_ok()).count();
        assert!(finished + 1 >= progress, "round {round}: an acknowledged iteration is missing: {acknowledged}");
        if listed[0]["state"] != "completed" {
            assert_eq!(listed[0]["state"], "interrupted", "round {round}");
            repo.agentloop(&["resume", run, "--json"]).expect(0);
            resumed += 1;
        }
        assert_eq!(trees(&repo, run), wanted, "round {round}: another end");
    }
    assert!(resumed > 0, "no run was interrupted: the delays are wrong");
    repo.git(&["gc", "-q"]);
    repo.assert_sound();
}

/// Delays over the length of a run, from a fixed seed so that a failure can be met again.
fn delays(count: u32, seed: u64) -> impl Iterator<Item = Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..count).map(move |_| Duration::from_micros(random.u64(3_000..450_000)))
}

#[test]
fn a_driver_killed_at_any_instant_loses_nothing_1() {
    kill_at(delays(35, 1));
}

#[test]
fn a_driver_killed_at_any_instant_loses_nothing_2() {
    kill_at(delays(35, 2));
}

#[test]
fn a_driver_killed_at_any_instant_loses_nothing_3() {
    kill_at(delays(35, 3));
}

#[test]
fn orphans_are_stopped_before_a_resumed_run_goes_on() {
    let repo = Repo::new();
    let (ready, stale) = (repo.home().join("ready"), repo.home().join("stale"));
    let body = format!(
        "read -r role; cat > /dev/null\ncase \"$role\" in\n*criteria*) echo ok ;;\n*decomposer*) echo '[\"x\"]' ;;\n\
         *reviewer*) echo '{{\"gates_passed\":true,\"goal_complete\":true}}' ;;\n\
         *) if [ -e {ready} ]; then [ -z \"$(pgrep -f {stale})\" ] || echo still there > orphan.txt; echo done\n\
         else touch {ready}; setsid sh -c 'while :; do sleep 1; done # {stale}'; fi ;;\nesac",
        ready = ready.display(),
        stale = stale.display(),
    );
    let agent = repo.script("agent", &body);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let mut child = repo.spawn(&["run", "a goal", "--backend", "scripted"]);
    wait_for("the worker", || ready.exists().then_some(()));
    kill(&mut child);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    assert!(!processes_with(&run).is_empty());
    let result = repo.agentloop(&["resume", &run, "--json"]).expect(0).json();
    assert_eq!(result["worktree"]["changed_files"], serde_json::json!([]), "the orphan was alive beside its successor");
}

#[test]
fn an_agent_has_its_whole_task_when_its_driver_dies_as_it_begins() {
    let repo = Repo::new();
    let (begun, go_on, heard) = (repo.home().join("begun"), repo.home().join("go-on"), repo.home().join("heard"));
    let body = format!(
        "touch {begun}; while [ ! -e {go_on} ]; do sleep 0.01; done; cat > {heard}.new; mv {heard}.new {heard}",
        begun = begun.display(),
        go_on = go_on.display(),
        heard = heard.display(),
    );
    let agent = repo.script("agent", &body);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    // More than a pipe holds, and the role's words come before it.
    let goal = format!("{} the last word", "many words ".repeat(20_000));
    std::fs::write(repo.home().join("goal"), &goal).unwrap();
    let mut child = repo.spawn(&["run", "-F", "../goal", "--backend", "scripted"]);
    wait_for("the agent", || begun.exists().then_some(()));
    kill(&mut child);
    std::fs::write(&go_on, "").unwrap();
    let heard = wait_for("what it heard", || std::fs::read_to_string(&heard).ok());
    assert!(heard.len() > goal.len() && heard.contains("the last word"), "{} of {} bytes", heard.len(), goal.len());
}

#[test]
fn git_of_a_dead_driver_is_stopped_before_a_resumed_run_goes_on() {
    let repo = Repo::new();
    repo.write(".gitattributes", "*.txt filter=slow\n");
    repo.commit("a filter");
    let (begun, stale) = (repo.home().join("begun"), repo.home().join("stale"));
    let slow =
        repo.script("slow", &format!("touch {}; while :; do sleep 1; done # {}", begun.display(), stale.display()));
    repo.git(&["config", "filter.slow.clean", &format!("sh {slow} {}", stale.display())]);
    repo.git(&["config", "agentloop.mock.edit", "out-{subgoal}.txt={iteration}\n"]);
    repo.git(&["config", "agentloop.isolation", "shared"]);
    let mut child = repo.spawn(&["run", "a goal", "--backend", "mock"]);
    wait_for("git, which asks the filter", || begun.exists().then_some(()));
    kill(&mut child);
    let stale = stale.to_str().unwrap();
    assert!(!processes_with(stale).is_empty(), "the git that this test is about");
    repo.git(&["config", "filter.slow.clean", "cat"]);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    repo.agentloop(&["resume", &run]).expect(0);
    assert_eq!(processes_with(stale), Vec::<u32>::new(), "it was alive beside its successor");
}

#[test]
fn other_people_s_notes_live_beside_a_run() {
    let repo = eventful();
    let mut child = repo.spawn(&["run", "a goal", "--backend", "mock"]);
    let run = wait_for("the run", || {
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        Some(listed.as_array()?.first()?["run_id"].as_str()?.to_owned())
    });
    let (notes, branch) = (format!("--ref=agentloop/{run}"), format!("agentloop/{run}"));
    let start = repo.git(&["rev-list", "--first-parent", "--reverse", &format!("main..{branch}")]);
    let start = start.lines().next().unwrap();
    // What `git notes edit` does: read the note, leave it open, write it back over whatever came since.
    let open = repo.git(&["notes", &notes, "show", start]);
    let mut remarks = 0;
    while remarks < 100 && child.try_wait().unwrap().is_none() {
        let remark = format!("remark {remarks}");
        if repo.try_git(&["notes", &notes, "append", "-m", &remark, start]).code == 0 {
            remarks += 1;
        }
    }
    child.wait().unwrap();
    repo.git(&["notes", &notes, "add", "-f", "-m", &format!("{open}\nedited by hand"), start]);
    assert!(remarks > 0);
    let kinds = repo.kinds(&run);
    assert_eq!(kinds.last().map(String::as_str), Some("run_finished"), "{kinds:?}");
    let seqs: Vec<u64> = repo.events(&run).iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(repo.status(&run)["state"], "completed");
    repo.assert_sound();
}

#[test]
fn the_next_driver_heals_a_notes_ref_that_was_edited_by_hand() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.acceptIteration", "9"]);
    repo.agentloop(&["run", "a goal", "--backend", "mock", "--max-iterations", "1"]).expect(1);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    let (notes, tip) = (format!("--ref=agentloop/{run}"), format!("agentloop/{run}"));
    repo.git(&["notes", &notes, "add", "-f", "-m", "a person's words", &tip]);
    let before = repo.kinds(&run);
    assert_eq!(before.last().map(String::as_str), Some("run_finished"), "events were lost to readers");
    repo.agentloop(&["resume", &run, "--max-iterations", "2"]).expect(1);
    let pages = repo.git(&["log", "--format=%N", &format!("--notes=agentloop/{run}"), &tip]);
    assert!(pages.contains("a person's words"), "{pages}");
    assert_eq!(pages.matches("\"kind\":\"run_finished\"").count(), 2, "{pages}");
}

/// A fan-out of four workers, two of which conflict, over two iterations.
fn conflicting() -> Repo {
    let repo = Repo::new();
    let work = "case $AGENTLOOP_SUBGOAL in x*) echo $AGENTLOOP_SUBGOAL > same-$AGENTLOOP_ITERATION ;;\n\
                *) echo $AGENTLOOP_ITERATION > $AGENTLOOP_SUBGOAL.txt ;; esac";
    // Sorted, since a cancel merges what is done first; through a file outside of the worktree, so that a script that is
    // killed half-way leaves nothing which its successor would keep.
    let resolve = "f=same-$AGENTLOOP_ITERATION; all=$(mktemp)\n\
                   grep -v -e '^<<<<<<< ' -e '^=======$' -e '^>>>>>>> ' -e '^||||||| ' $f | sort > $all && mv $all $f";
    crate::fanout::scripted(&repo, &crate::fanout::plan(&["a", "b", "x1", "x2"]), work, resolve);
    // A check that is red in the first iteration makes a second.
    let check = repo.script("second", "grep -q 2 a.txt");
    repo.git(&["config", "agentloop.verify", &check]);
    repo.git(&["config", "gc.autoDetach", "false"]);
    repo
}

/// Kills a fan-out `count` times, each at an instant of its own, resumes it, and looks for what is lost or left behind.
fn kill_fan_out(count: u32, seed: u64) {
    let repo = conflicting();
    let begun = Instant::now();
    let whole = repo.agentloop(&crate::fanout::RUN).expect(0).json();
    let length = begun.elapsed();
    let wanted = trees(&repo, whole["run_id"].as_str().unwrap());
    assert_eq!(wanted.len(), 2);
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut known, mut resumed) = (1, 0);
    for round in 0..count {
        let mut child = repo.spawn(&crate::fanout::RUN);
        std::thread::sleep(length.mul_f64(random.f64())); // the instant of death is the point of this test
        kill(&mut child);
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        let listed = listed.as_array().unwrap();
        if listed.len() == known {
            continue; // killed before the run was opened
        }
        known = listed.len();
        let run = listed[0]["run_id"].as_str().unwrap();
        if listed[0]["state"] != "completed" {
            resumed += 1;
            if round % 5 == 4 {
                repo.agentloop(&["cancel", run]).expect(0);
                crate::fanout::assert_cleared(&repo, run);
            }
            repo.agentloop(&["resume", run, "--json"]).expect(0);
        }
        let events = repo.events(run);
        assert_eq!(trees(&repo, run), wanted, "round {round}: another end:\n{events:#?}");
        let reachable = repo.git(&["rev-list", "--all"]);
        for event in events {
            let Some(commit) = event["data"]["commit"].as_str() else { continue };
            assert!(reachable.contains(commit), "round {round}: {commit} is unreachable: {event}");
        }
        crate::fanout::assert_cleared(&repo, run);
    }
    // On a machine that was busy when the length was taken, many of the others are over before they are killed.
    assert!(resumed > 0, "no run was interrupted: the delays are wrong");
    assert_git_is_free(&repo);
    repo.assert_sound();
}

#[test]
fn a_fan_out_killed_at_any_instant_loses_nobody_s_work_1() {
    kill_fan_out(25, 4);
}

#[test]
fn a_fan_out_killed_at_any_instant_loses_nobody_s_work_2() {
    kill_fan_out(25, 5);
}
