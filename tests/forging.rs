//! Ways to have a run pass for done whose check is red, by whoever can write a ref, a note or a file but does not read the
//! private store; and honest runs, of which nothing of that kind is ever said.

use serde_json::Value;

use crate::fanout::{RUN, plan, scripted};
use crate::support::{PROGRAM, Ran, Repo, wait_for};

/// What the deeds are written in: `R` is the run, `N` its notes ref, `C` the commit of its first page, `DONE` an event that
/// ends it well; `event SEQ KIND DATA` makes others, `put MESSAGE PARENT…` a notes commit of the page on its input.
const PRELUDE: &str = r#"
R=${AGENTLOOP_RUN:-$1}; N=refs/notes/agentloop/$R; S=zzzzzz; G=$(git rev-parse --git-common-dir)
C=$(git ls-tree -r --name-only $N | head -1 | tr -d /)
page() { git notes --ref=agentloop/$R show $C; }
seq_next() { echo $(($(page | grep -c '^{') + 1)); }
event() { printf '{"seq":%s,"ts":1999999999,"session":"%s","kind":"%s","data":%s}\n' "$1" $S "$2" "$3"; }
append() { git notes --ref=agentloop/$R append -m "$1" $C; }
ENDED='{"stop_reason":"goal_complete","completed":true,"summary":"goal complete after 1 iteration: 1/1 subgoals, checks pass, goal complete"}'
DONE=$(event 900000 run_finished "$ENDED")
GREEN='{"tree":"4b825dc642cb6eb9a060e54bf8d69288fbee4904","checks":[{"name":"false","ok":true,"exit_code":0}]}'
ACCEPTED='{"gates_passed":true,"goal_complete":true,"issues":[]}'
PLAN='{"plan":{"subgoals":[{"id":"s1","description":"x"}]}}'
put() { M=$1; shift; B=$(git hash-object -w --stdin); T=$(printf '100644 blob %s\t%s\n' $B $C | git mktree)
  P=; for p in "$@"; do P="$P -p $p"; done; git commit-tree $T $P -m "$M"; }
SNAPSHOT="agentloop: 1 event

Agentloop-State: completed
Agentloop-Phase: done
Agentloop-Iteration: 1
Agentloop-Max-Iterations: 4
Agentloop-Seq: 900000
Agentloop-Session: zzzzzz
Agentloop-Started: 1790000000
Agentloop-Stop-Reason: goal_complete
Agentloop-Tokens: 0
Agentloop-Goal: a goal"
whole_iteration() { n=$1; event $n iteration_started '{"max_iterations":4}'; event $((n+1)) decomposed "$PLAN"
  event $((n+2)) subagent_started '{"id":"s1","attempt":1}'; event $((n+3)) subagent_finished '{"id":"s1","attempt":1,"output":"x"}'
  event $((n+4)) verification "$GREEN"; event $((n+5)) review "$ACCEPTED"
  event $((n+6)) checkpoint "{\"commit\":\"$(git rev-parse HEAD)\",\"tree\":\"$(git rev-parse HEAD^{tree})\",\"partial\":false}"; }
"#;

/// What the deeds are called, and what they do to a log.
const DEEDS: [(&str, &str); 38] = [
    ("an end far ahead", "append \"$DONE\""),
    ("an end that comes next", "append \"$(event $(seq_next) run_finished \"$ENDED\")\""),
    ("the greatest number of all", "append \"$(event 18446744073709551615 run_finished \"$ENDED\")\""),
    ("a number of zero", "append \"$(event 0 run_finished \"$ENDED\")\""),
    ("a green check", "append \"$(event $(seq_next) verification \"$GREEN\")\""),
    ("a review that accepts", "append \"$(event $(seq_next) review \"$ACCEPTED\")\""),
    ("a whole iteration", "append \"$(whole_iteration $(seq_next))\"; append \"$DONE\""),
    ("the driver's own session", "S=$(page | sed -n 's/.*\"session\":\"\\([a-z0-9]*\\)\".*/\\1/p' | head -1)
      append \"$(event $(seq_next) run_finished \"$ENDED\")\"; append \"$(event 1 run_finished \"$ENDED\")\""),
    ("another beginning", "append \"$(event 1 run_started \"$(page | grep run_started | sed 's/.*\"data\"://;s/}$//;s/\"false\"/\"true\"/g')\")\""),
    ("options without a check", "append \"$(event $(seq_next) run_resumed '{\"format\":1,\"options\":{\"checks\":[]}}')\""),
    ("a larger budget", "append \"$(event $(seq_next) budget_changed '{\"budget\":{\"max_iterations\":99}}')\""),
    ("a later format", "append \"$(event $(seq_next) run_resumed '{\"format\":999}')\""),
    ("its page edited", "page | sed 's/\"false\"/\"true\"/g;s/\"ok\":false/\"ok\":true/g' > \"$HOME/page\"; git notes --ref=agentloop/$R add -f -F \"$HOME/page\" $C"),
    ("its page replaced", "echo \"$DONE\" > \"$HOME/page\"; git notes --ref=agentloop/$R add -f -F \"$HOME/page\" $C"),
    ("its page in another order", "page | tac > \"$HOME/page\"; echo \"$DONE\" >> \"$HOME/page\"; git notes --ref=agentloop/$R add -f -F \"$HOME/page\" $C"),
    ("its page cut short", "page | head -2 > \"$HOME/page\"; git notes --ref=agentloop/$R add -f -F \"$HOME/page\" $C"),
    ("its page removed", "git notes --ref=agentloop/$R remove $C"),
    ("a note on another object", "git notes --ref=agentloop/$R append -m \"$DONE\" HEAD"),
    ("a snapshot on top", "git update-ref $N $( (page; echo \"$DONE\") | put \"$SNAPSHOT\" $N)"),
    ("a snapshot with no history", "git update-ref $N $( (page; echo \"$DONE\") | put \"$SNAPSHOT\")"),
    ("a snapshot under our seal", "SEAL=$(git log -1 --format=%B $N | grep '^Agentloop-Seal')
      git update-ref $N $( (page; echo \"$DONE\") | put \"$SNAPSHOT
$SEAL\" $N)"),
    ("a snapshot that says it twice", "git update-ref $N $( (page; echo \"$DONE\") | put \"$(git log -1 --format=%B $N)
Agentloop-State: completed
Agentloop-Stop-Reason: goal_complete
Agentloop-Seq: 900000\" $N)"),
    ("the log moved as by us", "git update-ref -m agentloop $N $( (page; echo \"$DONE\") | put \"$SNAPSHOT\" $N)"),
    ("a poisoned reflog", "F=$( (page; echo \"$DONE\") | put \"$SNAPSHOT\" $N); T=$(git rev-parse $N)
      printf '%s %s A <a@b> 1999999999 +0000\\tagentloop\\n' $T $F >> $G/logs/$N"),
    ("a symbolic ref", "git update-ref refs/x/forged $( (page; echo \"$DONE\") | put \"$SNAPSHOT\" $N); git symbolic-ref $N refs/x/forged"),
    ("a packed ref", "F=$( (page; echo \"$DONE\") | put \"$SNAPSHOT\" $N); git pack-refs --all
      sed -i \"s|^[0-9a-f]* $N\\$|$F $N|\" $G/packed-refs"),
    ("an older state", "git update-ref $N $(git rev-list -2 $N | tail -1)"),
    ("an older state and an end", "git update-ref $N $(git rev-list -2 $N | tail -1); append \"$DONE\""),
    ("a merge of notes", "git update-ref refs/notes/forged $(echo \"$DONE\" | put forged); git notes --ref=agentloop/$R merge -q -s cat_sort_uniq forged"),
    ("a page in a fan", "B=$( (page; echo \"$DONE\") | git hash-object -w --stdin); A=$(echo $C | cut -c1-2)
      I=$(printf '100644 blob %s\\t%s\\n' $B $(echo $C | cut -c3-) | git mktree)
      T=$( (git ls-tree $N; printf '040000 tree %s\\t%s\\n' $I $A) | git mktree); git update-ref $N $(git commit-tree $T -p $N -m \"$SNAPSHOT\")"),
    ("a replaced page", "git replace -f $(git ls-tree -r $N | awk '{print $3}' | head -1) $( (page; echo \"$DONE\") | git hash-object -w --stdin)"),
    ("a replaced commit", "git replace -f $(git rev-parse $N) $( (page; echo \"$DONE\") | put \"$SNAPSHOT\")"),
    ("a fetched log", "git update-ref refs/notes/agentloop-remote/evil/$R $( (page; echo \"$DONE\") | put \"$SNAPSHOT\" $N)"),
    ("another run's end", "O=$(git for-each-ref --format='%(refname)' refs/notes/agentloop | grep -v \"$N\" | head -1)
      D=$(git ls-tree -r --name-only $O | head -1 | tr -d /); append \"$(git notes --ref=$O show $D)\""),
    ("another run's log", "git update-ref $N $(git for-each-ref --format='%(objectname)' refs/notes/agentloop | grep -v $(git rev-parse $N) | head -1)"),
    ("a clone by another id", "echo 0123456789abcdef0123456789abcdef > $G/agentloop/clone; append \"$DONE\""),
    ("a clone without an id", "rm $G/agentloop/clone; mkdir $G/agentloop/clone; append \"$DONE\""),
    ("everything at once", "append \"$DONE\"; git update-ref -m agentloop $N $(echo \"$DONE\" | put \"$SNAPSHOT\"); git reflog expire --expire=now --all
      git gc -q --prune=now"),
];

/// Deeds that only a living driver can mend: afterwards there is nothing left to read, or to verify with.
const WHILE_IT_LIVES: [(&str, &str); 11] = [
    ("the ref deleted", "git update-ref -d $N"),
    (
        "every ref of ours deleted and pruned",
        "git for-each-ref --format='delete %(refname)' refs/heads/agentloop refs/notes refs/agentloop | git update-ref --stdin
      git reflog expire --expire=now --all; git gc -q --prune=now",
    ),
    ("the ref deleted and pruned", "git update-ref -d $N; git reflog expire --expire=now --all; git gc -q --prune=now"),
    ("a log of nothing", "git update-ref $N $(git commit-tree $(git hash-object -t tree -w /dev/null) -m x); git gc -q --prune=now"),
    ("a ref of rubbish", "echo rubbish > $G/$N"),
    ("a ref to a blob", "echo $(echo x | git hash-object -w --stdin) > $G/$N"),
    ("a ref to nothing", "echo 0123456789012345678901234567890123456789 > $G/$N"),
    ("the seals forgotten", "rm -r \"$XDG_STATE_HOME\"/git-agentloop/clones/*/runs; append \"$DONE\""),
    ("the seals written to", "for f in \"$XDG_STATE_HOME\"/git-agentloop/clones/*/runs/$R/seals; do tail -1 $f >> $f; echo junk >> $f; done; append \"$DONE\""),
    ("the store removed", "rm -r \"$XDG_STATE_HOME\"/git-agentloop/clones; append \"$DONE\""),
    ("a checkpoint of its own", "T=$(printf 'agentloop: iteration 1/4: 1/1 subgoals, checks pass, goal complete\\n\\nAgentloop-Run: %s\\nAgentloop-Checks: pass\\nAgentloop-Verdict: complete\\n' $R)
      git commit -q --allow-empty -m \"$T\"; append \"$DONE\""),
];

const RED: [&str; 4] = ["--verify", "false", "--max-iterations", "1"];

/// A repository with a run that is done, and an agent whose worker does `deed` once.
fn prepared(deed: &str) -> Repo {
    let repo = Repo::new();
    repo.git(&["config", "gc.autoDetach", "false"]);
    repo.mock_run("reached", &[]);
    let deed = repo.script("deed", &format!("{PRELUDE}\n{deed}"));
    let work =
        format!("[ -e \"$HOME/done\" ] || {{ touch \"$HOME/done\"; {deed} > \"$HOME/said\" 2>&1; }}; echo x >> f");
    scripted(&repo, &plan(&["s1"]), &work, "true");
    repo
}

/// Nothing says that `run` reached its goal, and what says how it stands agrees.
#[track_caller]
fn assert_not_done(repo: &Repo, run: &str, deed: &str) {
    let [status, result, show] = ["status", "result", "show"].map(|verb| repo.agentloop(&[verb, run, "--json"]));
    let all: Vec<String> = [(&status, "state"), (&result, "status"), (&show, "state")]
        .into_iter()
        .filter(|(ran, _)| ran.code != 2)
        .map(|(ran, key)| ran.json()[key].as_str().unwrap().to_owned())
        .collect();
    assert!(all.iter().all(|state| state == "stopped"), "{deed}: {all:?}\n{status:?}");
    let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
    let listed = listed.as_array().unwrap().iter().find(|listed| listed["run_id"] == run);
    assert!(listed.is_none_or(|listed| listed["state"] == "stopped"), "{deed}: {listed:?}");
    let tail = repo.agentloop(&["tail", run, "--json", "--limit", "100000"]);
    assert!(!tail.stdout.contains("\"goal_complete\",\"completed\":true"), "{deed}: {}", tail.stdout);
}

fn during(deed: &str, what: &str) {
    let repo = prepared(what);
    let driver = repo.agentloop(&[&RUN[..], &RED].concat());
    let said = std::fs::read_to_string(repo.home().join("said")).unwrap_or_default();
    assert_eq!(driver.code, 1, "{deed}: {said}\n{}\n{}", driver.stdout, driver.stderr);
    let ended = driver.json();
    let run = ended["run_id"].as_str().unwrap();
    assert_eq!((&ended["completed"], &ended["stop_reason"]), (&Value::Bool(false), &"max_iterations".into()), "{deed}");
    assert_not_done(&repo, run, deed);
    // The record is the driver's again, whole.
    let status = repo.status(run);
    assert_eq!((&status["verified"], &status["state"]), (&Value::Bool(true), &"stopped".into()), "{deed}: {said}");
    let events = repo.events(run);
    let seqs: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=events.len() as u64).collect::<Vec<_>>(), "{deed}: the log has gaps");
    let ends: Vec<_> = events.iter().filter(|event| event["kind"] == "run_finished").collect();
    assert!(ends.len() == 1 && ends[0]["data"]["stop_reason"] == "max_iterations", "{deed}");
    // And it goes on, as red as it was.
    // With what may run given again: it went with the store, where that was removed.
    let given = ["--max-iterations", "2", "--verify", "false", "--permissions", "edit", "--backend", "scripted"];
    let again = repo.agentloop(&[&["resume", run, "--json"][..], &given].concat()).expect(1).json();
    assert_eq!(again["stop_reason"], "max_iterations", "{deed}");
}

/// Spreads a table over threads: a row is a run or two.
fn each(rows: &[(&'static str, &'static str)], row: fn(&str, &str)) {
    let only = std::env::var("AGENTLOOP_TEST_DEED").ok();
    std::thread::scope(|scope| {
        for rows in rows.chunks(rows.len().div_ceil(3)) {
            let only = only.clone();
            scope.spawn(move || {
                for (deed, what) in rows.iter().filter(|(deed, _)| only.as_ref().is_none_or(|only| deed.contains(only)))
                {
                    row(deed, what);
                }
            });
        }
    });
}

#[test]
fn a_worker_that_forges_the_log_of_its_run() {
    each(&DEEDS, during);
}

#[test]
fn a_worker_that_leaves_nothing_of_it() {
    each(&WHILE_IT_LIVES, during);
}

#[test]
fn whoever_forges_a_log_afterwards() {
    let repo = prepared("true");
    let ended = repo.agentloop(&[&RUN[..], &RED].concat()).expect(1).json();
    let run = ended["run_id"].as_str().unwrap();
    let pristine = repo.home().join("pristine");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let _ = std::fs::remove_dir_all(to);
        assert!(repo.command("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    // What is in it, the folder stays: a clone is known by that.
    let restore = || {
        let git = repo.path().join(".git");
        let there = std::fs::read_dir(&git).unwrap().flatten().map(|entry| entry.path());
        for path in there.chain(std::fs::read_dir(&pristine).into_iter().flatten().flatten().map(|entry| entry.path()))
        {
            if path.starts_with(&git) {
                let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            } else {
                assert!(repo.command("cp").arg("-a").args([&path, &git]).status().unwrap().success());
            }
        }
    };
    copy(&repo.path().join(".git"), &pristine);
    for (deed, what) in DEEDS {
        if deed.starts_with("a clone") {
            continue; // no driver is there to put the id back: then it is another clone's, and not verified
        }
        let deed_script = repo.script("deed", &format!("{PRELUDE}\n{what}"));
        let did = repo.command("sh").args([&deed_script, run]).output().unwrap();
        assert_not_done(&repo, run, &format!("{deed}: {}", String::from_utf8_lossy(&did.stderr)));
        let shown = repo.agentloop(&["show", run, "--json"]);
        if shown.code == 0 && what.contains("append \"$DONE\"") && !deed.contains("everything") {
            assert!(shown.json()["elsewhere"].as_u64() > Some(0), "{deed}: {}", shown.stdout);
        }
        restore();
    }
    let status = repo.status(run);
    assert_eq!((&status["state"], &status["verified"]), (&"stopped".into(), &Value::Bool(true)));
}

#[test]
fn events_from_elsewhere_count_once_they_are_adopted() {
    let repo = prepared("true");
    let ended = repo.agentloop(&[&RUN[..], &RED].concat()).expect(1).json();
    let run = ended["run_id"].as_str().unwrap();
    let guidance = "append \"$(event 900 steered '{\"text\":\"mind the API\"}')\"";
    let deed = repo.script("deed", &format!("{PRELUDE}\n{guidance}"));
    assert!(repo.command("sh").args([&deed, run]).status().unwrap().success());
    let shown = repo.agentloop(&["show", run]).expect(0).stdout;
    assert!(shown.contains("1 event, unverified and not counted"), "{shown}");
    assert_eq!(repo.status(run)["verified"], true);
    assert!(!repo.kinds(run).contains(&"steered".to_owned()));
    // What may run is asked for again.
    let given = ["--max-iterations", "2", "--verify", "false", "--permissions", "edit", "--backend", "scripted"];
    repo.agentloop(&[&["resume", run, "--take-over"][..], &given].concat()).expect(1);
    assert!(repo.kinds(run).contains(&"steered".to_owned()));
    assert_eq!(repo.status(run)["verified"], false);
    assert!(repo.agentloop(&["status", run]).expect(0).stdout.contains("unverified"));
    assert!(repo.agentloop(&["list"]).expect(0).stdout.contains("stopped, unverified"));
    assert!(repo.agentloop(&["result", run]).expect(1).stdout.contains("unverified"));
}

#[test]
fn a_spent_budget_stays_spent_where_an_older_state_was_put_back() {
    let repo = prepared("true");
    let ended = repo.agentloop(&[&RUN[..], &["--verify", "false", "--max-agent-calls", "4"]].concat()).expect(1).json();
    let run = ended["run_id"].as_str().unwrap();
    assert_eq!(ended["stop_reason"], "max_agent_calls", "{ended:#}");
    let name = format!("refs/notes/agentloop/{run}");
    let first = repo.git(&["rev-list", "--max-parents=0", &name]);
    repo.git(&["update-ref", &name, &first]);
    std::fs::remove_file(repo.path().join(".git/logs").join(&name)).unwrap();
    assert_eq!(repo.status(run)["state"], "stopped");
    let spent = repo.agentloop(&["resume", run]).expect(2).stderr;
    assert!(spent.contains("has spent its budget"), "{spent}");
    // Nothing that could bring it back is left: said, and not gone on with unasked.
    repo.git(&["gc", "-q", "--prune=now"]);
    let gone = repo.agentloop(&["resume", run, "--max-agent-calls", "9"]).expect(2).stderr;
    assert!(gone.contains("cannot be found any more") && gone.contains("--take-over"), "{gone}");
    assert_eq!(repo.status(run)["verified"], false);
}

/// How many honest runs are made of each kind.
fn rounds() -> usize {
    std::env::var("AGENTLOOP_TEST_HONEST").ok().and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// No word of tampering, and all of it verified.
#[track_caller]
fn assert_honest(repo: &Repo, run: &str, what: &str) {
    let kinds = repo.kinds(run);
    assert!(!kinds.contains(&"tampered".to_owned()), "{what}: {kinds:?}");
    let shown = repo.agentloop(&["show", run, "--json"]).expect(0).json();
    let alarms = (&shown["verified"], &shown["elsewhere"], &shown["missing"]);
    assert_eq!(alarms, (&Value::Bool(true), &Value::Null, &Value::Null), "{what}");
    assert_eq!(repo.status(run)["verified"], true, "{what}");
}

#[test]
fn of_honest_runs_nothing_of_that_kind_is_said() {
    // What people and git do beside a run, all of it in each.
    let beside = "git notes --ref=agentloop/$R append -m 'a person was here' $C; git pack-refs --all; git gc -q
        git notes --ref=agentloop/$R append -m 'and here' HEAD; git reflog expire --expire=now --all; git gc -q --prune=now";
    for _ in 0..rounds() {
        let repo = prepared(beside);
        let ended = repo.agentloop(&RUN).expect(0).json();
        let run = ended["run_id"].as_str().unwrap();
        assert_honest(&repo, run, "beside");
        let bare = crate::sharing::bare(&repo);
        repo.agentloop(&["sync"]).expect(0);
        let clone = crate::sharing::clone_of(&bare);
        clone.agentloop(&["sync"]).expect(0);
        assert_eq!(clone.status(run)["verified"], false);
        let note = format!("--ref=agentloop/{run}");
        repo.git(&["notes", &note, "append", "-m", "after the end", &format!("agentloop/{run}")]);
        clone.git(&["fetch", "-q", "origin", &format!("+refs/notes/agentloop/{run}:refs/notes/agentloop/{run}")]);
        clone.git(&["push", "-q", "origin", &format!("refs/notes/agentloop/{run}")]);
        repo.git(&["gc", "-q"]);
        repo.agentloop(&["sync"]).expect(0);
        assert_honest(&repo, run, "and afterwards");
    }
}

#[test]
fn a_driver_that_was_killed_is_no_forger() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..2 * rounds() {
        let repo = Repo::new();
        repo.git(&["config", "gc.autoDetach", "false"]);
        repo.git(&["config", "agentloop.mock.acceptIteration", "3"]);
        repo.git(&["config", "agentloop.mock.delay", "3"]);
        let mut child = repo.spawn(&["run", "many events", "--backend", "mock", "--verify", "true", "--json"]);
        let run = wait_for("the run", || {
            let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
            Some(listed.as_array()?.first()?["run_id"].as_str()?.to_owned())
        });
        std::thread::sleep(std::time::Duration::from_millis(random.u64(0..300))); // the instant of death is the point
        let _ = child.kill();
        child.wait().unwrap();
        assert_honest(&repo, &run, &format!("killed, round {round}"));
        if repo.status(&run)["state"] != "completed" {
            repo.agentloop(&["resume", &run]).expect(0);
        }
        assert_honest(&repo, &run, &format!("resumed, round {round}"));
    }
}

#[test]
fn the_store_is_found_with_less_of_an_environment_and_missed_in_a_copy() {
    let repo = Repo::new();
    let run = repo.mock_run("reached", &[])["run_id"].as_str().unwrap().to_owned();
    let mut bare = repo.command(PROGRAM);
    let bare = bare.env_remove("XDG_STATE_HOME").args(["status", &run, "--json"]).output().unwrap();
    assert_eq!(Ran::of(&bare).expect(0).json()["verified"], true);
    let moved = repo.home().join("moved");
    let copy = repo.home().join("copy");
    assert!(repo.command("cp").arg("-a").args([repo.path(), &copy]).status().unwrap().success());
    std::fs::rename(repo.path(), &moved).unwrap();
    for (place, verified) in [(&moved, true), (&copy, false)] {
        let mut status = repo.command(PROGRAM);
        let status = Ran::of(&status.current_dir(place).args(["status", &run, "--json"]).output().unwrap());
        assert_eq!(status.expect(0).json()["verified"], verified, "{}", place.display());
    }
}

#[test]
fn a_list_is_not_misled_by_an_older_end() {
    let repo = Repo::new();
    repo.agentloop(&["run", "reached", "--backend", "mock", "--max-iterations", "1"]).expect(1);
    let run = repo.status("reached")["run_id"].as_str().unwrap().to_owned();
    let notes = format!("refs/notes/agentloop/{run}");
    let older = repo.git(&["rev-parse", &notes]);
    repo.agentloop(&["resume", &run, "--max-iterations", "4"]).expect(0);
    let newest = repo.git(&["rev-parse", &notes]);
    let listed = || repo.agentloop(&["list", "--json"]).expect(0).json()[0].clone();
    let is_completed = |how: &str| {
        let (listed, status) = (listed(), repo.status(&run));
        assert_eq!((&listed["state"], &listed["verified"]), (&"completed".into(), &true.into()), "{how}");
        assert_eq!((&listed["state"], &listed["verified"]), (&status["state"], &status["verified"]), "{how}");
    };
    repo.git(&["update-ref", &notes, &older]);
    is_completed("an older end");
    repo.git(&["update-ref", &notes, &newest]);
    repo.agentloop(&["discard", &run, "--yes"]).expect(0);
    repo.agentloop(&["restore", &run]).expect(0);
    is_completed("restored");
    // Of what was acknowledged nothing is left, but on the ref that is moved back.
    for reference in repo.git(&["for-each-ref", "--format=%(refname)", "refs/agentloop"]).lines() {
        repo.git(&["update-ref", "-d", reference]);
    }
    repo.git(&["update-ref", &notes, &older]);
    repo.git(&["reflog", "expire", "--expire=now", "--all"]);
    repo.git(&["prune", "--expire=now"]);
    assert_eq!(listed()["verified"], serde_json::json!(false));
    assert_eq!(listed()["verified"], repo.status(&run)["verified"]);
}

#[test]
fn without_a_place_for_the_store_a_run_proceeds() {
    let repo = Repo::new();
    std::fs::write(repo.home().join("state"), "in the way").unwrap();
    std::fs::write(repo.home().join(".local"), "in the way").unwrap();
    let ran = repo.agentloop(&["run", "--backend", "mock", "reached"]).expect(0);
    assert!(ran.stderr.contains("private store") && ran.stderr.contains("'resume' will ask"), "{}", ran.stderr);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json();
    assert_eq!((&run["state"], &run["verified"]), (&"completed".into(), &Value::Bool(false)));
}
