//! Workers' places: made at once, and used again, beside `git worktree add`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
use git_agentloop::ledger::{Leaving, Ledger as _, Opening, Task, Workers as _};
use git_agentloop::run::goal::{Isolation, RunId};

use crate::measure::{Aim, Pairs, Row, time, times};
use crate::scratch::{PROGRAM, Scratch, undurable};

/// Workers at once.
const WORKERS: u32 = 8;

/// Files of the repository in which the aims are to be met.
const AIMED_AT: usize = 10_000;

/// Places for `rounds` runs of two iterations, in a repository of so many files.
pub fn made(files: usize, rounds: u32) -> Vec<Row> {
    let scratch = Scratch::with_files(files);
    let aim = |ratio| if files == AIMED_AT { Aim::Ratio(ratio) } else { Aim::None };
    let (mut ours, mut again, mut theirs, mut one) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut quick, mut plain) = (Vec::new(), Vec::new());
    for round in 0..=rounds {
        let run = Fan::new(&scratch, round);
        let first = time(&mut || run.sit_down(1));
        run.work(1);
        let second = time(&mut || run.sit_down(2));
        let status = time(&mut || assert_eq!(scratch.git(&["-C", &run.place(2), "status", "--porcelain"]), ""));
        run.work(2);
        run.ledger.close().unwrap();
        let folder = scratch.home().join("plain");
        let add = |number| {
            let path = folder.join(format!("w{number}"));
            scratch.run("git", &["worktree", "add", "-q", "--detach", path.to_str().unwrap()]);
        };
        let single = time(&mut || add(1));
        remove(&scratch, &folder);
        let eight = time(&mut || (1..=WORKERS).for_each(add));
        let in_plain = folder.join("w1");
        let look = time(&mut || {
            assert_eq!(scratch.git(&["-C", in_plain.to_str().unwrap(), "status", "--porcelain"]), "");
        });
        remove(&scratch, &folder);
        if round == 0 && rounds > 1 {
            continue; // warms up
        }
        ours.push(first);
        again.push(second);
        theirs.push(eight);
        one.push(single);
        quick.push(status);
        plain.push(look);
    }
    let row = |what: &str, ours: &[Duration], floor: &[Duration], aim| {
        Row::pairs(
            &format!("{files} files: {what}"),
            &Pairs::of(ours.iter().copied().zip(floor.iter().copied()).collect()),
            aim,
        )
    };
    vec![
        row("8 worktrees for workers at once / 8 × git worktree add in sequence", &ours, &theirs, aim(0.6)),
        row("the same / one git worktree add", &ours, &one, Aim::None),
        row("8 used again in the next iteration / 8 new", &again, &ours, aim(0.3)),
        row("the same / 8 × git worktree add in sequence", &again, &theirs, Aim::None),
        row("the first git status in one of ours / in one of git's", &quick, &plain, aim(1.1)),
    ]
}

/// A whole run whose eight workers take two seconds each, at once.
pub fn run() -> Vec<Row> {
    let scratch = Scratch::with_files(1_000);
    scratch.agent(WORKERS as usize, "sleep 2; echo $AGENTLOOP_SUBGOAL > $AGENTLOOP_SUBGOAL.txt");
    let rows = ["never", "answers"].map(|durable| {
        scratch.git(&["config", "agentloop.durable", durable]);
        let arguments = ["run", "a goal", "--backend", "bench", "--jobs", "8", "--criteria", "x", "-q"];
        let took = times(5, || scratch.run(PROGRAM, &arguments));
        let what = format!("a run of 8 workers of 2 s in 1000 files, merged and committed, durable={durable}");
        Row::times(&what, &took, Aim::Median(Duration::from_millis(2800)))
    });
    rows.into_iter().collect()
}

fn remove(scratch: &Scratch, folder: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
    scratch.run("git", &["worktree", "prune"]);
}

/// Has every worker act, all at once.
fn each<T>(iteration: u32, act: impl Fn(&Task) -> T + Sync) {
    std::thread::scope(|scope| {
        for number in 1..=WORKERS {
            let (act, task) = (&act, Task { iteration, subgoal: format!("s{number}") });
            scope.spawn(move || drop(act(&task)));
        }
    });
}

/// A run whose workers sit down at once.
struct Fan {
    ledger: GitLedger,
    tip: String,
}

impl Fan {
    fn new(scratch: &Scratch, round: u32) -> Self {
        let repo = Repository::open(Some(&scratch.path())).unwrap();
        let (run, base) = (RunId::new("fan", u64::from(round)), scratch.git(&["rev-parse", "HEAD"]));
        let new = NewRecord {
            run,
            base,
            message: "agentloop: fan\n".to_owned(),
            isolation: Isolation::Worktree,
            preferences: undurable(),
        };
        let ledger = GitLedger::create(repo, new).unwrap();
        ledger.workspace().unwrap();
        Self { tip: ledger.start(), ledger }
    }

    fn open(&self, task: &Task) -> PathBuf {
        self.ledger.open_place(&Opening { task, tip: &self.tip, earlier: None }).unwrap().path
    }

    fn sit_down(&self, iteration: u32) {
        each(iteration, |task| self.open(task));
    }

    /// Each changes three files and comes to its end.
    fn work(&self, iteration: u32) {
        each(iteration, |task| {
            let path = self.open(task);
            for folder in [1, 4, 7] {
                std::fs::write(path.join(format!("folder-{folder}/file-{folder}01.txt")), task.to_string()).unwrap();
            }
            let leaving = Leaving { task, tip: &self.tip, message: "agentloop: work\n", settled: true };
            assert!(self.ledger.close_place(&leaving).unwrap().commit.is_some());
        });
    }

    fn place(&self, iteration: u32) -> String {
        let task = Task { iteration, subgoal: "s1".to_owned() };
        self.open(&task).to_str().unwrap().to_owned()
    }
}
