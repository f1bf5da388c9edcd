//! The verbs that move or remove things are killed at instants over the whole of what they do. Nothing committed is lost,
//! the checkout is as it was or as the verb promises, the same verb finishes what was begun, and the undo works.
//!
//! Where they are killed is counted, not timed: git stands behind a script that is an instant before each git and one
//! after it, and behind a hook that is one before and one after each move of refs. A few kills more, at shares of the
//! whole time, take the verb's process group along: what it does by itself, and git in the middle of its work.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use crate::fanout::{plan, scripted};
use crate::review::run_with_files;
use crate::support::{PROGRAM, Ran, Repo, processes_with, wait_for};

/// Instants at which a verb is killed, of all that were counted.
const COUNTED: usize = 8;
/// Kills of its process group, at shares of the time that it takes.
const TIMED: u32 = 2;

/// Sourced by both scripts: whether the verb lives on after this instant.
const INSTANT: &str = "echo >> \"$INSTANTS\"
if [ \"$(wc -l < \"$INSTANTS\")\" -ge \"$FATAL\" ]; then kill -9 \"$VICTIM\" 2> /dev/null; exit 1; fi";

/// Stands before git on PATH. The hooks that git is kept from running on refs of ours are those of the test.
const GIT: &str = "export VICTIM=${VICTIM:-$PPID}
for word; do
  shift
  case $word in
    core.hooksPath=/dev/null) word=core.hooksPath=$HOOKS ;;
    hook.reference-transaction.enabled=false) word=hook.reference-transaction.enabled=true ;;
  esac
  set -- \"$@\" \"$word\"
done
if [ \"${GIT_CONFIG_KEY_0-}\" = core.hooksPath ]; then
  export GIT_CONFIG_VALUE_0=\"$HOOKS\" GIT_CONFIG_VALUE_1=true
fi
(. \"$TOOLS/instant\") || exit 1
\"$REAL\" \"$@\"
code=$?
(. \"$TOOLS/instant\")
exit $code";

/// githooks(5): in `prepared` all locks are held and nothing has moved, and a failure leaves it so.
const REFERENCE_TRANSACTION: &str = "cat > /dev/null
case $1 in prepared | committed) . \"$TOOLS/instant\" ;; esac";

/// A repository in which a verb is about to do something, brought back as it was before each kill.
struct Scene {
    repo: Repo,
    run: String,
    verb: Vec<String>,
    /// The run's worktree holds a file that nobody committed.
    unsaved: bool,
    /// Whether some kills take git along. Not where a remote's git would be among it, which is another machine's.
    with_git: bool,
    tools: TempDir,
    before: State,
}

/// What must not be lost, and what the user sees.
#[derive(Clone, Debug)]
struct State {
    commits: BTreeSet<String>,
    refs: BTreeMap<String, String>,
    checkout: Checkout,
    files: BTreeMap<String, Vec<u8>>,
    listed: Option<Value>,
}

/// The user's branch, what it holds, how many commits that took, and what git says of the files. A commit's id tells no
/// more than when it was made.
type Checkout = [String; 4];

fn checkout(repo: &Repo) -> Checkout {
    [
        repo.git(&["symbolic-ref", "HEAD"]),
        repo.git(&["rev-parse", "HEAD^{tree}"]),
        repo.git(&["rev-list", "--count", "--first-parent", "HEAD"]),
        repo.git(&["--no-optional-locks", "status", "--porcelain"]),
    ]
}

fn commits(repo: &Repo) -> BTreeSet<String> {
    repo.git(&["rev-list", "--all"]).lines().map(ToOwned::to_owned).collect()
}

fn refs(repo: &Repo) -> BTreeMap<String, String> {
    let all = repo.git(&["for-each-ref", "--format=%(refname) %(objectname)"]);
    all.lines().filter_map(|line| line.split_once(' ')).map(|(name, id)| (name.to_owned(), id.to_owned())).collect()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Removes what is in `folder`. The folder `kept` is emptied instead: another in its place would be another clone.
fn clear(folder: &Path, kept: &Path) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if kept.starts_with(&path) {
            clear(&path, kept);
        } else if entry.file_type().unwrap().is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
}

impl Scene {
    fn new(repo: Repo, run: &str, verb: &[&str]) -> Self {
        let tools = tempfile::tempdir().unwrap();
        for folder in ["bin", "hooks", "before"] {
            std::fs::create_dir(tools.path().join(folder)).unwrap();
        }
        for (name, text) in
            [("instant", INSTANT), ("bin/git", GIT), ("hooks/reference-transaction", REFERENCE_TRANSACTION)]
        {
            let path = tools.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        // A gc in the background takes objects from under the fsck that looks at them.
        repo.git(&["config", "gc.autoDetach", "false"]);
        repo.git(&["config", "maintenance.auto", "false"]);
        // There are few files to bring back each time.
        repo.git(&["repack", "-adq"]);
        for samples in ["repo/.git/hooks", "bare.git/hooks"] {
            let _ = std::fs::remove_dir_all(repo.home().join(samples));
        }
        copy(repo.home(), &tools.path().join("before"));
        let verb = verb.iter().map(|word| word.replace("RUN", run)).collect();
        let files = repo.fingerprint();
        let before = State {
            commits: commits(&repo),
            refs: refs(&repo),
            checkout: checkout(&repo),
            files,
            listed: listed(&repo, run),
        };
        let mut scene = Self { repo, run: run.to_owned(), verb, unsaved: false, with_git: true, tools, before };
        scene.restore();
        scene.before.checkout = checkout(&scene.repo);
        scene
    }

    /// With a file in the run's worktree that nobody committed.
    fn unsaved(repo: Repo, run: &str, verb: &[&str]) -> Self {
        let worktree = repo.home().join("repo.agentloop").join(run);
        std::fs::write(worktree.join("unsaved"), "precious\n").unwrap();
        Self { unsaved: true, ..Self::new(repo, run, verb) }
    }

    fn restore(&self) {
        clear(self.repo.home(), &self.repo.path().join(".git"));
        copy(&self.tools.path().join("before"), self.repo.home());
    }

    fn run_verb(&self) -> Ran {
        self.repo.agentloop(&self.verb.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn command(&self) -> Command {
        let mut command = self.repo.command(PROGRAM);
        command.args(&self.verb).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// What the verb started comes to its own end.
    fn settle(&self) {
        let home = self.repo.home().to_str().unwrap();
        wait_for("git to end", || processes_with(home).is_empty().then_some(()));
    }

    /// Kills the verb at its `fatal`th instant; how many there were.
    fn kill_at(&self, fatal: usize) -> usize {
        let (tools, instants) = (self.tools.path(), self.tools.path().join("instants"));
        std::fs::write(&instants, "").unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let real = std::env::split_paths(&path).map(|folder| folder.join("git")).find(|git| git.exists()).unwrap();
        let folders = std::iter::once(tools.join("bin")).chain(std::env::split_paths(&path));
        let mut command = self.command();
        command
            .env("PATH", std::env::join_paths(folders).unwrap())
            .env("TOOLS", tools)
            .env("HOOKS", tools.join("hooks"))
            .env("INSTANTS", &instants)
            .env("FATAL", fatal.to_string())
            .env("REAL", real);
        command.status().unwrap();
        self.settle();
        std::fs::read_to_string(instants).unwrap().lines().count()
    }

    /// Kills the verb's process group after `delay`.
    fn kill_after(&self, delay: Duration) {
        let mut child = self.command().process_group(0).spawn().unwrap();
        std::thread::sleep(delay); // the instant of death is the point of this test
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let _ = if self.with_git { kill_process_group(pid, Signal::KILL) } else { kill_process(pid, Signal::KILL) };
        child.wait().unwrap();
        self.settle();
        // A git that is killed leaves its locks, as it does without us; it says so, and which.
        for lock in self.repo.locks() {
            std::fs::remove_file(lock).unwrap();
        }
    }

    /// Nothing that was committed, or that a worktree held, is out of reach.
    #[track_caller]
    fn assert_kept(&self, at: &str) {
        self.repo.assert_sound();
        let now = commits(&self.repo);
        let lost: Vec<&String> = self.before.commits.difference(&now).collect();
        assert!(lost.is_empty(), "{at}: out of reach: {lost:?}");
        if self.unsaved {
            let path = self.repo.home().join("repo.agentloop").join(&self.run).join("unsaved");
            let is_there = std::fs::read(path).is_ok_and(|text| text == b"precious\n");
            let rescued = || self.repo.git(&["for-each-ref", "--format=%(refname)", "refs/agentloop/rescue"]);
            let holds = |name: &str| self.repo.try_git(&["show", &format!("{name}:unsaved")]).stdout == "precious\n";
            assert!(is_there || rescued().lines().any(holds), "{at}: what nobody committed is lost");
        }
    }

    /// Every verb that reads answers, or says that the run was discarded and how to have it back.
    #[track_caller]
    fn assert_readable(&self, at: &str) {
        let is_listed = listed(&self.repo, &self.run).is_some();
        for verb in ["status", "result", "show"] {
            let read = self.repo.agentloop(&[verb, &self.run]);
            if is_listed {
                assert!(!read.stdout.is_empty() && !read.stderr.contains("error: "), "{at}: {verb}: {read:?}");
            } else {
                assert!(read.stderr.contains("was discarded\nhint: to have it back: "), "{at}: {verb}: {read:?}");
            }
        }
    }
}

fn listed(repo: &Repo, run: &str) -> Option<Value> {
    let all = repo.agentloop(&["list", "--json"]).expect(0).json();
    all.as_array().unwrap().iter().find(|one| one["run_id"] == run).cloned()
}

/// Kills the verb of `scene` again and again; what holds after each kill is `check`'s to say, which hears whether git was
/// killed with it.
#[track_caller]
fn sweep(scene: &Scene, check: impl Fn(&Scene, &str, bool)) {
    let count = scene.kill_at(usize::MAX);
    assert!(count >= 2, "{:?} starts no git", scene.verb);
    // The last one is not reached: the verb comes to its end.
    let mut fatal: Vec<usize> = (0..COUNTED).map(|part| 1 + part * (count - 1) / (COUNTED - 1)).collect();
    fatal.dedup();
    for instant in fatal {
        scene.restore();
        scene.kill_at(instant);
        let at = format!("{:?}, killed at instant {instant} of {count}", scene.verb);
        scene.assert_kept(&at);
        scene.assert_readable(&at);
        check(scene, &at, false);
        scene.assert_kept(&at);
    }
    scene.restore();
    let begun = Instant::now();
    scene.command().status().unwrap();
    let whole = begun.elapsed();
    for share in 0..TIMED {
        scene.restore();
        let delay = whole.mul_f64((f64::from(share) + 0.5) / f64::from(TIMED));
        scene.kill_after(delay);
        let at = format!("{:?}, killed after {delay:?} of {whole:?}", scene.verb);
        scene.assert_kept(&at);
        scene.assert_readable(&at);
        check(scene, &at, scene.with_git);
        scene.assert_kept(&at);
    }
    scene.restore();
}

/// A run with files, main having gone on since: a merge is no fast-forward.
fn diverged() -> (Repo, String) {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    repo.write("other", "x");
    repo.git(&["add", "other"]);
    repo.git(&["commit", "-qm", "main goes on"]);
    (repo, run)
}

/// A merge is there whole or not at all, or as git's own verb leaves it between two of its steps, which is in `half`. Doing
/// it again makes it, or names the command that takes back what is half done.
fn sweep_merge(scene: &Scene, half: &[Checkout]) {
    let whole = scene.run_verb();
    let after = checkout(&scene.repo);
    assert_ne!(after, scene.before.checkout, "{whole:?}");
    scene.restore();
    sweep(scene, |scene, at, git_was_killed| {
        let now = checkout(&scene.repo);
        let is_whole = [&scene.before.checkout, &after].contains(&&now) || half.contains(&now);
        assert!(
            is_whole || git_was_killed,
            "{at}: {now:#?}\nis neither\n{:#?}\nnor\n{after:#?}",
            scene.before.checkout
        );
        let again = scene.run_verb();
        let is_done = |ran: &Ran| (ran.code, &checkout(&scene.repo)) == (whole.code, &after);
        if is_done(&again) {
            return;
        }
        assert!(now != scene.before.checkout || git_was_killed, "{at}: nothing was in the way: {again:?}");
        if half.contains(&now) {
            let (_, back) = again.stderr.rsplit_once("to take it back: ").unwrap_or_else(|| panic!("{at}: {again:?}"));
            scene.repo.git(&back.split_whitespace().skip(1).collect::<Vec<_>>());
        } else {
            // git's own words, which name what is in the way.
            scene.repo.try_git(&["cherry-pick", "--quit"]);
            assert!(["hint: ", "error: ", "fatal: "].iter().any(|word| again.stderr.contains(word)), "{at}: {again:?}");
            scene.repo.git(&["reset", "-q", "--hard", &scene.before.refs["refs/heads/main"]]);
            scene.repo.git(&["clean", "-fdq"]);
        }
        let last = scene.run_verb();
        assert!(is_done(&last), "{at}: {last:?}");
    });
}

#[test]
fn a_killed_merge_is_whole_or_not_there() {
    let (repo, run) = diverged();
    sweep_merge(&Scene::new(repo, &run, &["merge", "RUN", "--no-ff"]), &[]);
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    sweep_merge(&Scene::new(repo, &run, &["merge", "RUN", "--ff"]), &[]);
}

#[test]
fn a_killed_squash_is_whole_or_staged_or_not_there() {
    let (repo, run) = diverged();
    let scene = Scene::new(repo, &run, &["merge", "RUN", "--squash"]);
    scene.repo.git(&["merge", "-q", "--squash", &format!("agentloop/{run}")]);
    let staged = checkout(&scene.repo);
    scene.restore();
    sweep_merge(&scene, &[staged]);
}

#[test]
fn a_killed_rebase_is_whole_or_not_there() {
    let (repo, run) = diverged();
    sweep_merge(&Scene::new(repo, &run, &["merge", "RUN", "--rebase"]), &[]);
}

#[test]
fn a_merge_that_is_killed_over_a_conflict_leaves_what_git_leaves() {
    for way in ["--no-ff", "--squash", "--rebase"] {
        let (repo, run) = diverged();
        repo.write("made-build.txt", "mine\n");
        repo.git(&["add", "."]);
        repo.git(&["commit", "-qm", "the same file"]);
        sweep_merge(&Scene::new(repo, &run, &["merge", "RUN", way]), &[]);
    }
}

#[test]
fn a_merge_by_an_agent_that_is_killed_is_whole_or_not_there() {
    for way in ["--no-ff", "--squash"] {
        let (repo, run) = crate::merging::conflicting("echo both > README", &[]);
        sweep_merge(&Scene::new(repo, &run, &["merge", "RUN", "--with-agent", way]), &[]);
    }
}

/// Runs the command that the verb printed, or that whoever comes too late is told, as a user would.
#[track_caller]
fn undo(scene: &Scene, command: &str, at: &str) {
    crate::taking::undo(&scene.repo, command);
    let now = refs(&scene.repo);
    for (name, id) in &scene.before.refs {
        assert_eq!(now.get(name), Some(id), "{at}: {name} is not back");
    }
    let listed = listed(&scene.repo, &scene.run);
    assert_eq!(listed, scene.before.listed, "{at}");
}

#[test]
fn a_killed_discard_loses_nothing_and_is_undone() {
    let repo = Repo::new();
    remote(&repo);
    let run = run_with_files(&repo, "write files");
    // Its record is here a second time, as it was fetched.
    repo.agentloop(&["sync"]).expect(0);
    let scene = Scene::unsaved(repo, &run, &["discard", "RUN", "--yes", "--json"]);
    sweep(&scene, |scene, at, _| {
        assert_eq!(scene.repo.fingerprint(), scene.before.files, "{at}: the checkout was touched");
        let again = scene.run_verb();
        let command = if again.code == 0 {
            again.json()["undo"].as_str().unwrap().to_owned()
        } else {
            let told = again.stderr.split_once("was discarded\nhint: to have it back: ");
            told.unwrap_or_else(|| panic!("{at}: {again:?}")).1.trim_end().to_owned()
        };
        scene.repo.agentloop(&["prune", "--older-than", "0s", "--yes"]).expect(0);
        assert_cleared(scene, at);
        undo(scene, &command, at);
    });
}

#[test]
fn a_killed_prune_loses_nothing_and_is_undone() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    repo.git(&["merge", "-q", "--no-edit", &format!("agentloop/{run}")]);
    let scene = Scene::unsaved(repo, &run, &["prune", "--older-than", "0s", "--yes", "--json"]);
    sweep(&scene, |scene, at, _| {
        assert_eq!(scene.repo.fingerprint(), scene.before.files, "{at}: the checkout was touched");
        let again = scene.run_verb().expect(0).json();
        let branch = format!("refs/heads/agentloop/{}", scene.run);
        assert!(!refs(&scene.repo).contains_key(&branch), "{at}: {again}");
        // The one that was killed may have been done, and could not say how to undo it.
        let shown = scene.repo.agentloop(&["show", &scene.run, "--json"]).expect(0).json()["undo"].clone();
        let told = again[0]["removal"]["undo"].as_str().or(shown.as_str()).unwrap_or_else(|| panic!("{at}: {again}"));
        assert_cleared(scene, at);
        undo(scene, told, at);
    });
}

/// Neither a worktree of the run nor anything that it kept while it lived is left.
#[track_caller]
fn assert_cleared(scene: &Scene, at: &str) {
    assert_eq!(scene.repo.git(&["worktree", "list"]).lines().count(), 1, "{at}");
    let beside = std::fs::read_dir(scene.repo.home().join("repo.agentloop")).into_iter().flatten().flatten();
    assert_eq!(beside.count(), 0, "{at}");
    let left = std::fs::read_dir(scene.repo.path().join(".git/agentloop").join(&scene.run)).into_iter().flatten();
    let left: Vec<_> = left.flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name == "lock"), "{at}: {left:?}");
}

/// A run whose driver died while its second worker was at work.
fn dead() -> (Repo, String) {
    let repo = Repo::new();
    let work = "echo $AGENTLOOP_SUBGOAL > $AGENTLOOP_SUBGOAL.txt\n\
                if [ $AGENTLOOP_SUBGOAL = b ] && [ ! -e \"$HOME/died\" ]; then touch \"$HOME/died\"; kill -9 $PPID; fi";
    scripted(&repo, &plan(&["a", "b"]), work, "true");
    repo.agentloop(&crate::fanout::RUN);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    wait_for("its workers to end", || processes_with(&run).is_empty().then_some(()));
    assert_eq!(repo.status(&run)["state"], "interrupted");
    (repo, run)
}

/// The run comes to the state `end`, whenever `verb` was killed, and its log has no gaps.
fn sweep_driver(verb: &str, end: &str) {
    let (repo, run) = dead();
    let scene = Scene::new(repo, &run, &[verb, "RUN"]);
    sweep(&scene, |scene, at, _| {
        assert_eq!(scene.repo.fingerprint(), scene.before.files, "{at}: the checkout was touched");
        let state = scene.repo.status(&scene.run)["state"].as_str().unwrap().to_owned();
        assert!(state == end || state == "interrupted", "{at}: {state}");
        let again = scene.run_verb();
        let had_ended =
            state == end && (again.stderr.contains("has ended") || again.stderr.contains("has reached its goal"));
        assert!(had_ended || again.code == 0, "{at}: {again:?}");
        assert_eq!(scene.repo.status(&scene.run)["state"], end, "{at}");
        let seqs: Vec<u64> = scene.repo.events(&scene.run).iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{at}: the log has gaps");
        crate::fanout::assert_cleared(&scene.repo, &scene.run);
    });
}

#[test]
fn a_killed_cancel_of_a_dead_run_ends_it_the_next_time() {
    sweep_driver("cancel", "cancelled");
}

#[test]
fn a_killed_resume_goes_on_the_next_time() {
    sweep_driver("resume", "completed");
}

#[test]
fn a_killed_fork_leaves_the_run_that_it_came_from() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let scene = Scene::new(repo, &run, &["fork", "RUN@1", "another goal", "--max-iterations", "1"]);
    sweep(&scene, |scene, at, _| {
        assert_eq!(scene.repo.fingerprint(), scene.before.files, "{at}: the checkout was touched");
        let now = refs(&scene.repo);
        assert!(scene.before.refs.iter().all(|(name, id)| now.get(name) == Some(id)), "{at}: {now:#?}");
        assert_eq!(listed(&scene.repo, &scene.run), scene.before.listed, "{at}");
        let all = scene.repo.agentloop(&["list", "--json"]).expect(0).json();
        for fork in all.as_array().unwrap().iter().filter(|one| one["run_id"] != scene.run.as_str()) {
            let fork = fork["run_id"].as_str().unwrap();
            if scene.repo.status(fork)["state"] == "interrupted" {
                let resumed = scene.repo.agentloop(&["resume", fork]);
                assert!(resumed.code <= 1, "{at}: {resumed:?}");
            }
            assert_eq!(scene.repo.status(fork)["state"], "stopped", "{at}");
        }
        assert!(scene.run_verb().code <= 1, "{at}");
    });
}

/// A bare repository, with main pushed to it as `origin`.
fn remote(repo: &Repo) -> PathBuf {
    let bare = repo.home().join("bare.git");
    repo.git(&["init", "-q", "--bare", "-b", "main", bare.to_str().unwrap()]);
    repo.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
    repo.git(&["push", "-q", "-u", "origin", "main"]);
    bare
}

/// After one more `sync` both sides are where they would be without a kill.
fn sweep_sync(scene: &Scene) {
    let refs_of_run = |scene: &Scene| -> (String, String) {
        let names = [format!("refs/notes/agentloop/{}", scene.run), format!("refs/heads/agentloop/{}", scene.run)];
        let here = names.each_ref().map(|name| format!("{}\t{name}", scene.repo.git(&["rev-parse", name]))).join("\n");
        let there = scene.repo.git(&[&["ls-remote", "origin"], &names.each_ref().map(String::as_str)[..]].concat());
        let sorted = |text: String| {
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            lines.join("\n")
        };
        (sorted(here), sorted(there))
    };
    scene.run_verb().expect(0);
    let after = refs_of_run(scene);
    assert_eq!(after.0, after.1);
    scene.restore();
    sweep(scene, |scene, at, _| {
        assert_eq!(scene.repo.fingerprint(), scene.before.files, "{at}: the checkout was touched");
        let again = scene.run_verb();
        assert_eq!(again.code, 0, "{at}: {again:?}");
        assert_eq!(refs_of_run(scene), after, "{at}");
        scene.repo.git(&["--git-dir", scene.repo.home().join("bare.git").to_str().unwrap(), "fsck", "--no-dangling"]);
    });
}

#[test]
fn a_killed_sync_sends_the_rest_the_next_time() {
    let repo = Repo::new();
    remote(&repo);
    let run = run_with_files(&repo, "write files");
    sweep_sync(&Scene { with_git: false, ..Scene::new(repo, &run, &["sync"]) });
}

#[test]
fn a_killed_sync_follows_a_run_that_went_on_elsewhere_the_next_time() {
    let repo = Repo::new();
    let bare = remote(&repo);
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}.txt={iteration}\n"]);
    repo.agentloop(&["run", "write files", "--backend", "mock", "--max-iterations", "1"]).expect(1);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    repo.agentloop(&["sync"]).expect(0);
    let clone = crate::sharing::clone_of(bare.to_str().unwrap());
    clone.git(&["config", "agentloop.mock.edit", "elsewhere-{subgoal}.txt={iteration}\n"]);
    clone.agentloop(&["sync"]).expect(0);
    let trusted = ["resume", &run, "--max-iterations", "2", "--permissions", "edit", "--backend", "mock"];
    clone.agentloop(&trusted).expect(0);
    clone.agentloop(&["sync"]).expect(0);
    sweep_sync(&Scene { with_git: false, ..Scene::unsaved(repo, &run, &["sync"]) });
}
