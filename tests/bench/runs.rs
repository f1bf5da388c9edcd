//! Whole runs: what the driver costs beside plain git, and how soon a reader knows.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
use git_agentloop::ledger::{Batch, Draft, Ledger as _};
use git_agentloop::run::Run;
use git_agentloop::run::event::Event;
use git_agentloop::run::goal::{Isolation, RunId};

use crate::measure::{Aim, Row, Times, pairs, times};
use crate::scratch::{PROGRAM, Scratch, undurable};

const FILES: usize = 10_000;

/// Changes three of the files in `dir`.
fn change_three(dir: &Path, round: usize) {
    for folder in [3, 40, 77] {
        let file = dir.join(format!("folder-{folder}/file-{folder}01.txt"));
        std::fs::write(file, format!("round {round}\n")).unwrap();
    }
}

pub fn checkpoint() -> Vec<Row> {
    vec![
        checkpoint_of(
            "checkpoint of 3 files in 10,000 / git add, write-tree, commit-tree, update-ref",
            [false; 2],
            Aim::Ratio(1.1),
        ),
        checkpoint_of(
            "the same, and a look at what checks and reviewer changed since / as before",
            [true, false],
            Aim::Ratio(1.1),
        ),
        // git looks at nothing but what it commits.
        checkpoint_of("the same, and one at the user's settings and checkout / as before", [true; 2], Aim::None),
    ]
}

fn checkpoint_of(what: &str, [looks, guards]: [bool; 2], aim: Aim) -> Row {
    let scratch = Scratch::with_files(FILES);
    let repo = Repository::open(Some(&scratch.path())).unwrap();
    let run = RunId::new("checkpoint", 1);
    let base = scratch.git(&["rev-parse", "HEAD"]);
    let message = "agentloop: checkpoint\n".to_owned();
    let new = NewRecord {
        run: run.clone(),
        base: base.clone(),
        message,
        isolation: Isolation::Shared,
        preferences: undurable(),
    };
    let ledger = GitLedger::create(repo, new).unwrap();
    ledger.append(&Batch { events: &[], snapshot: &Run::default().snapshot(), durable: false }).unwrap();
    let workspace = ledger.workspace().unwrap();
    if guards {
        ledger.guard().unwrap();
    }
    let mut tip = ledger.start();
    let mut round = 0;
    let ours = || {
        round += 1;
        change_three(&workspace.path, round);
        let tree = ledger.write_tree().unwrap().id;
        let draft = Draft { tip: &tip, tree: &tree, message: "agentloop: iteration 1/4: 3/3 subgoals\n", merged: &[] };
        // The engine looks beside the commit.
        let committed = std::thread::scope(|scope| {
            let look = looks.then(|| scope.spawn(|| ledger.changed_since_tree().unwrap()));
            let committed = ledger.commit(&draft).unwrap();
            assert_eq!(look.map_or(Vec::new(), |look| look.join().unwrap()), Vec::<String>::new());
            committed
        });
        assert_eq!(committed.changed, 3);
        tip = committed.commit;
    };
    let plain = scratch.home().join("plain");
    scratch.git(&["worktree", "add", "-q", "-b", "plain", plain.to_str().unwrap()]);
    let git = |arguments: &[&str]| {
        let output =
            scratch.command("git").current_dir(&plain).args(arguments).stdout(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (mut plain_tip, mut plain_round) = (base, 1_000_000);
    let floor = || {
        plain_round += 1;
        change_three(&plain, plain_round);
        git(&["add", "-A"]);
        let tree = git(&["write-tree"]);
        let commit = git(&["commit-tree", "-p", &plain_tip, "-m", "iteration", &tree]);
        git(&["update-ref", "refs/heads/plain", &commit, &plain_tip]);
        plain_tip = commit;
    };
    Row::pairs(what, &pairs(40, ours, floor), aim)
}

/// What each worker of the mock runs writes.
const EDIT: &str = "made-{subgoal}.txt={iteration}\n";
/// Workers share the worktree: the script makes one, too.
const RUN: [&str; 7] = ["run", "a goal", "--backend", "mock", "-q", "--isolation", "shared"];

pub fn whole() -> Vec<Row> {
    let [scratch, plain] = [(); 2].map(|()| {
        let scratch = Scratch::with_files(100);
        scratch.git(&["config", "agentloop.mock.edit", EDIT]);
        scratch
    });
    let script = plain.home().join("script.sh");
    std::fs::write(&script, same_in_shell(&plain)).unwrap();
    let script = script.to_str().unwrap();
    let mut number = 0;
    let both = pairs(
        25,
        || scratch.run(PROGRAM, &RUN),
        || {
            number += 1;
            plain.run("sh", &[script, &format!("run-{number}")]);
        },
    );
    let made = |scratch: &Scratch| {
        let branches = scratch.git(&["for-each-ref", "--format=%(tree)", "refs/heads/agentloop/"]);
        let notes = scratch.git(&["for-each-ref", "refs/notes/agentloop/"]);
        (branches, notes.lines().count(), scratch.git(&["worktree", "list"]).lines().count())
    };
    assert_eq!(made(&scratch), made(&plain), "the script does not make what a run makes");
    vec![Row::pairs("mock run, 2 iterations × 3 subgoals / the same by git in a script", &both, Aim::Ratio(1.5))]
}

/// A script that makes what one such run makes: its start commit, its worktree, its checkpoints, and every commit of
/// its log with the same bytes. Of all ways to do that in git's own commands it takes the one of the fewest processes.
fn same_in_shell(plain: &Scratch) -> String {
    let model = Scratch::with_files(100);
    model.git(&["config", "agentloop.mock.edit", EDIT]);
    model.run(PROGRAM, &RUN);
    let run = model.agentloop(&["status"])["run_id"].as_str().unwrap().to_owned();
    let branch = model.git(&["rev-list", "--reverse", &format!("main..agentloop/{run}")]);
    let branch: Vec<&str> = branch.lines().collect();
    assert_eq!(branch.len(), 3, "a start commit and two checkpoints");
    let message = |position: usize| {
        let file = plain.home().join(format!("message-{position}"));
        std::fs::write(&file, model.git(&["log", "-1", "--format=%B", branch[position]])).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let mut script = format!(
        "set -e\nrun=$1\nbase=$(git rev-parse HEAD)\n\
         tip=$(git commit-tree -p $base -F {} 'HEAD^{{tree}}')\n\
         git update-ref refs/heads/agentloop/$run $tip ''\n\
         git worktree add -q --detach --lock ../repo.agentloop/$run $tip\n\
         cd ../repo.agentloop/$run\n",
        message(0)
    );
    let mut checkpoints = 0;
    let mut pages: BTreeMap<String, String> = BTreeMap::new();
    let log = model.git(&["rev-list", "--reverse", &format!("refs/notes/agentloop/{run}")]);
    for (number, commit) in log.lines().enumerate() {
        let tree = model.git(&["ls-tree", "--format=%(path) %(objectname)", commit]);
        let notes = tree.lines().map(|line| line.split_once(' ').unwrap());
        let mut changed = notes.filter(|(on, blob)| pages.get(*on).is_none_or(|known| known != blob));
        let (on, blob) = changed.next_back().unwrap();
        pages.insert(on.to_owned(), blob.to_owned());
        while branch[checkpoints] != on {
            checkpoints += 1;
            let _ = write!(
                script,
                "for name in explore build verify; do echo {checkpoints} > made-$name.txt; done\n\
                 git add -A\n\
                 new=$(git commit-tree -p $tip -F {} $(git write-tree))\n\
                 git update-ref refs/heads/agentloop/$run $new $tip\n\
                 git update-ref --no-deref HEAD $new\n\
                 tip=$new\n",
                message(checkpoints)
            );
        }
        let page = plain.home().join(format!("page-{number}"));
        std::fs::write(&page, model.git(&["cat-file", "blob", blob])).unwrap();
        let _ = writeln!(script, "git notes --ref=agentloop/$run add -f -F {} $tip", page.display());
    }
    assert_eq!(checkpoints, 2);
    script
}

pub fn delay() -> Vec<Row> {
    let scratch = Scratch::with_files(100);
    scratch.git(&["config", "agentloop.durable", "answers"]);
    scratch.git(&["config", "agentloop.mock.plan", r#"["a","b","c","d","e","f"]"#]);
    scratch.git(&["config", "agentloop.mock.delay", "40"]);
    let (mut events, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..25 {
        let started = scratch.agentloop(&["run", "a goal", "--backend", "mock", "--detach"]);
        let run = started["run_id"].as_str().unwrap();
        let mut reader = scratch.command(PROGRAM);
        let mut reader = reader.args(["tail", "-f", "--json", run]).stdout(Stdio::piped()).spawn().unwrap();
        let mut begun = None;
        for line in BufReader::new(reader.stdout.take().unwrap()).lines() {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let event = Event::from_line(&line.unwrap()).expect("a reader prints events");
            let happened = Duration::from_millis(u64::try_from(event.ts.0).unwrap());
            // What happened before the reader looked on says nothing about its delay.
            if happened <= *begun.get_or_insert(now) {
                continue;
            }
            let delay = now.saturating_sub(happened);
            events.push(delay);
            if matches!(event.fact.kind(), "agent_finished" | "subagent_finished") {
                answers.push(delay);
            }
        }
        assert!(reader.wait().unwrap().success());
    }
    assert!(answers.len() > 200, "{} answers are too few for a percentile", answers.len());
    vec![
        Row::times(
            "until 'tail -f' has an event, durable=answers",
            &Times::of(events),
            Aim::Tail(Duration::from_millis(150)),
        ),
        Row::times(
            "until 'tail -f' has an agent's answer, durable=answers",
            &Times::of(answers),
            Aim::Tail(Duration::from_millis(30)),
        ),
    ]
}

/// Subgoals of the run whose calls are measured.
const CALLS: usize = 40;

/// What the driver adds to an agent's call: everything from one worker's start to the next one's, less what the same
/// command takes by itself with the same bytes to read.
pub fn calls() -> Vec<Row> {
    let scratch = Scratch::with_files(100);
    let agent = scratch.agent(CALLS, ":");
    let bare = times(CALLS, || {
        let mut child = scratch.command(&agent).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), &[b'x'; 4096]).unwrap();
        assert!(child.wait_with_output().unwrap().status.success());
    });
    let added = |durable: &str, isolation: &str, aim: Aim| {
        scratch.git(&["config", "agentloop.durable", durable]);
        let most = CALLS.to_string();
        let options = [
            "--backend",
            "bench",
            "--sequential",
            "--criteria",
            "x",
            "--max-subgoals",
            &most,
            "--isolation",
            isolation,
        ];
        let ended = scratch.agentloop(&[&["run", "a goal"][..], &options].concat());
        let tail = scratch.agentloop(&["tail", ended["run_id"].as_str().unwrap(), "--limit", "100000"]);
        let started = tail["events"].as_array().unwrap().iter().filter(|event| event["kind"] == "subagent_started");
        let started: Vec<f64> = started.map(|event| event["ts"].as_f64().unwrap()).collect();
        assert_eq!(started.len(), CALLS);
        let added =
            started.windows(2).map(|pair| Duration::from_secs_f64(pair[1] - pair[0]).saturating_sub(bare.p50()));
        let what = format!("what the driver adds to an agent's call, {isolation}, durable={durable}");
        Row::times(&what, &Times::of(added.collect()), aim)
    };
    let limit = || Aim::Median(Duration::from_millis(10));
    let rows = [
        added("never", "shared", limit()),
        added("answers", "shared", limit()),
        // A worktree made and its work committed, beside the call.
        added("answers", "worktree", Aim::None),
    ];
    let bare = Row::times("that command by itself", &bare, Aim::None);
    rows.into_iter().chain([bare]).collect()
}
