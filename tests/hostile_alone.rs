//! What agents have no business with is watched wherever they work: for a worker that is alone in its iteration, for
//! workers that share the run's worktree or the user's checkout, and for whoever plans, checks and reviews.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;

use git_agentloop::ledger::git::{GitLedger, NewRecord, Repository};
use git_agentloop::ledger::{Ledger as _, Preferences};
use git_agentloop::run::goal::{Isolation, RunId};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::fanout::{RUN, plan, prompt, scripted};
use crate::support::{Repo, wait_for};

/// The ways in which workers work that have no places of their own: the plan's subgoals, and the isolation.
const WAYS: [(&[&str], &str); 2] = [(&["bad"], "worktree"), (&["good", "bad"], "shared")];

/// A run that has ended.
struct Outcome {
    repo: Repo,
    run: String,
    /// What of the user's is not as it was.
    touched: Vec<String>,
}

impl Outcome {
    fn of(repo: Repo, subgoals: &[&str], work: &str, options: &[&str]) -> Self {
        scripted(&repo, &plan(subgoals), work, "true");
        let before = repo.fingerprint();
        // One after the other: whoever ends first is named with what both did.
        let ran = repo.agentloop(&[&RUN[..], &["--max-iterations", "1", "--jobs", "1"], options].concat());
        let run = ran.expect(0).json()["run_id"].as_str().unwrap().to_owned();
        let touched = differing(&before, &repo.fingerprint());
        Self { repo, run, touched }
    }

    fn files(&self) -> String {
        self.repo.git(&["ls-tree", "-r", "--name-only", &format!("agentloop/{}", self.run)]).replace('\n', " ")
    }

    /// What was noticed, by the kind of the event that says it.
    fn remarks(&self, kind: &str) -> String {
        remarks(&self.repo, &self.run, kind)
    }
}

fn differing(before: &BTreeMap<String, Vec<u8>>, now: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != now.get(*name)).cloned().collect()
}

fn remarks(repo: &Repo, run: &str, kind: &str) -> String {
    let events = repo.events(run).into_iter().filter(|event| event["kind"] == kind);
    let of_event = |event: Value| {
        let data = event["data"].clone();
        let all = [&data, &data["verification"]].map(|holder| holder["remarks"].clone());
        all.into_iter().filter_map(|remarks| remarks.as_array().cloned()).flatten().collect::<Vec<_>>()
    };
    let all: Vec<Value> = events.flat_map(of_event).collect();
    all.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

/// Runs in each of [`WAYS`] whose worker `bad` does `deed`; the user's settings, checkout and branch stay as they were.
fn after(deed: &str, holds: impl Fn(&Outcome)) {
    after_in(Repo::new, deed, holds);
}

fn after_in(repo: impl Fn() -> Repo, deed: &str, holds: impl Fn(&Outcome)) {
    for (subgoals, isolation) in WAYS {
        let repo = repo();
        let work = format!(
            "if [ $AGENTLOOP_SUBGOAL = good ]; then echo good > good.txt; else {deed}\necho work > bad.txt; fi"
        );
        let outcome = Outcome::of(repo, subgoals, &work, &["--isolation", isolation]);
        assert_eq!(outcome.touched, Vec::<String>::new(), "{isolation}");
        outcome.repo.assert_sound();
        for id in subgoals {
            assert!(outcome.files().contains(&format!("{id}.txt")), "{isolation}: {}", outcome.files());
        }
        holds(&outcome);
    }
}

const PUT_BACK: &str = "settings of the repository that have git run commands, work elsewhere or hide files were changed while \
                        workers worked, and put back (set them again if it was you): ";
const BY: &str = "were changed while workers worked (by you, or by a worker that left its worktree): ";

#[test]
fn settings_are_put_back_and_named_to_the_reviewer() {
    let deed = "git config core.worktree /tmp; git config core.hooksPath /tmp/hooks; git config core.fsmonitor evil";
    after(deed, |outcome| {
        let said = format!("{PUT_BACK}core.fsmonitor, core.hookspath, core.worktree");
        assert!(outcome.remarks("agent_finished").contains(&said), "{}", outcome.remarks("agent_finished"));
        let told = prompt(&outcome.repo, "reviewer", "", 1);
        assert!(told.contains(&format!("bad: {said}")), "{told}");
    });
}

#[test]
fn what_a_setting_has_git_run_is_not_run_when_the_work_is_captured() {
    let deed = "git config filter.evil.clean 'touch $HOME/ran; cat'; echo '*.txt filter=evil' > .gitattributes";
    after(deed, |outcome| {
        assert!(!outcome.repo.home().join("ran").exists(), "a command of the worker's was run by the driver's git");
        assert!(outcome.remarks("agent_finished").contains("filter.evil.clean"));
    });
    // A check runs what workers wrote.
    for (subgoals, isolation) in WAYS {
        let repo = Repo::new();
        repo.git(&["config", "agentloop.verify", "sh check"]);
        let check = "git config filter.evil.clean 'touch $HOME/ran; cat'; git config core.hooksPath /tmp/evil";
        let work = format!(
            "echo \"{check}\" > check; echo '*.txt filter=evil' > .gitattributes; echo x > $AGENTLOOP_SUBGOAL.txt"
        );
        let outcome = Outcome::of(repo, subgoals, &work, &["--isolation", isolation]);
        assert!(!outcome.repo.home().join("ran").exists(), "{isolation}");
        assert_eq!(outcome.repo.try_git(&["config", "--get-regexp", "^(filter|core.hookspath)"]).stdout, "");
        let told = prompt(&outcome.repo, "reviewer", "", 1);
        assert!(told.contains(&format!("{PUT_BACK}core.hookspath, filter.evil.clean")), "{told}");
    }
}

#[test]
fn agents_that_only_answer_are_watched_too() {
    for role in ["criteria", "decomposer", "reviewer"] {
        let repo = Repo::new();
        scripted(&repo, &plan(&["one"]), "echo x > one.txt", "true");
        let agent = repo.home().join("agent");
        let script = std::fs::read_to_string(&agent).unwrap();
        let deed =
            format!("case \"$role\" in *{role}*) git config core.hooksPath /tmp/evil ;; esac\ncase \"$role\" in");
        std::fs::write(&agent, script.replacen("case \"$role\" in", &deed, 1)).unwrap();
        let before = repo.fingerprint();
        let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
        assert_eq!(differing(&before, &repo.fingerprint()), Vec::<String>::new(), "{role}");
        let events = repo.events(&run).into_iter();
        let said = events.filter(|event| event["data"]["remarks"].to_string().contains("core.hookspath"));
        let said: Vec<Value> = said.map(|event| event["data"]["role"].clone()).collect();
        assert_eq!(said, [role], "whoever did it is named with it");
    }
}

#[test]
fn what_hides_files_from_git_hides_no_work() {
    let hide = "echo '*' >> \"$(git rev-parse --git-path info/exclude)\"; \
                echo '* -text' > \"$(git rev-parse --git-path info/attributes)\"; git config core.excludesFile ~/all; echo '*' > ~/all";
    let repo = || {
        let repo = Repo::new();
        std::fs::create_dir_all(repo.path().join(".git/info")).unwrap();
        std::fs::write(repo.path().join(".git/info/exclude"), "*.mine\n").unwrap();
        repo
    };
    after_in(repo, hide, |outcome| {
        let info = outcome.repo.path().join(".git/info");
        assert_eq!(std::fs::read_to_string(info.join("exclude")).unwrap(), "*.mine\n");
        assert!(!info.join("attributes").exists());
        let said = outcome.remarks("agent_finished");
        assert!(said.contains("info/attributes, info/exclude") && said.contains("core.excludesfile"), "{said}");
    });
}

#[test]
fn settings_of_single_worktrees_are_put_back_too() {
    let repo = || {
        let repo = Repo::new();
        repo.git(&["config", "extensions.worktreeConfig", "true"]);
        repo.git(&["config", "--worktree", "core.fsmonitor", "false"]);
        repo
    };
    let main = "git -C \"$HOME/repo\" config --worktree";
    let deed =
        format!("git config --worktree core.editor evil; {main} core.hooksPath /tmp/evil; {main} column.ui never");
    after_in(repo, &deed, |outcome| {
        let said = outcome.remarks("agent_finished");
        assert!(said.contains("core.editor (in config.worktree), core.hookspath (in config.worktree)"), "{said}");
        let said = outcome.remarks("checkpoint");
        assert!(said.contains(&format!("settings of the repository {BY}column.ui (in config.worktree)")), "{said}");
        let stands = outcome.repo.git(&["config", "--worktree", "--list"]);
        assert_eq!(stands, "core.fsmonitor=false\ncolumn.ui=never");
    });
}

#[test]
fn what_cannot_be_put_back_is_named() {
    let deed = "cd \"$HOME/repo\"; echo stray > ../stray; git config column.ui never; git tag mine; git update-ref refs/heads/own HEAD; \
                echo true > .git/hooks/pre-push; git rev-parse HEAD > .git/shallow; git replace $(echo a | git hash-object -w --stdin) \
                $(echo b | git hash-object -w --stdin); cd - > /dev/null";
    for (subgoals, isolation) in WAYS {
        let work = format!("{deed}; echo stray > \"$HOME/repo/stray.txt\"; echo x > $AGENTLOOP_SUBGOAL.txt");
        let outcome = Outcome::of(Repo::new(), subgoals, &work, &["--isolation", isolation]);
        let said = outcome.remarks("checkpoint");
        for (what, names) in [
            ("files in your checkout", "stray.txt"),
            ("hooks of the repository", "pre-push"),
            ("settings of the repository", "column.ui"),
        ] {
            assert!(said.contains(&format!("{what} {BY}{names}")), "{isolation}, {names}:\n{said}");
        }
        assert!(
            said.contains("refs were moved while workers worked") && said.contains("refs/heads/own, refs/replace/")
        );
        assert!(said.contains("refs/tags/mine") && said.contains("left its worktree): shallow"), "{said}");
        assert!(outcome.repo.path().join("stray.txt").exists(), "it may have been the user");
        assert_eq!(outcome.repo.git(&["config", "column.ui"]), "never");
    }
}

#[test]
fn what_was_named_once_is_not_named_again() {
    let repo = Repo::new();
    scripted(
        &repo,
        &plan(&["one"]),
        "[ -e $HOME/repo/stray.txt ] || echo x > $HOME/repo/stray.txt; echo x >> one.txt",
        "true",
    );
    let check = repo.script("second", "grep -q . one.txt && [ $(wc -l < one.txt) = 2 ]");
    let ran = repo.agentloop(&[&RUN[..], &["--verify", &check]].concat()).expect(0).json();
    let said = remarks(&repo, ran["run_id"].as_str().unwrap(), "checkpoint");
    assert_eq!((ran["iterations"].as_u64(), said.matches("stray.txt").count()), (Some(2), 1), "{said}");
}

#[test]
fn a_configuration_that_is_taken_away_is_put_back() {
    for deed in ["rm \"$HOME/repo/.git/config\"", "rm \"$HOME/repo/.git/config\"; mkfifo \"$HOME/repo/.git/config\""] {
        after(deed, |outcome| {
            let said = outcome.remarks("agent_finished");
            assert!(
                said.contains("were changed while workers worked, and put back") && said.contains("config"),
                "{said}"
            );
        });
    }
}

#[test]
fn settings_that_a_killed_driver_s_worker_changed_are_put_back_by_the_next() {
    for isolated in [(&["bad"][..], "worktree"), (&["good", "bad"], "shared"), (&["good", "bad"], "worktree")] {
        let (subgoals, isolation) = isolated;
        let repo = Repo::new();
        let (go, done) = (repo.home().join("go"), repo.home().join("done"));
        let work = format!(
            "echo work > $AGENTLOOP_SUBGOAL.txt; [ $AGENTLOOP_SUBGOAL = bad ] && [ ! -e {done} ] || exit 0\n\
             while [ ! -e {go} ]; do sleep 0.01; done\n\
             git config core.hooksPath /tmp/evil; git config filter.evil.clean 'touch $HOME/ran; cat'\n\
             echo '*.txt filter=evil' > .gitattributes; echo true > \"$HOME/repo/.git/hooks/pre-push\"\n\
             touch {done}; sleep 1000",
            done = done.display(),
            go = go.display(),
        )
        .replace("|| exit 0", "|| { echo did it; exit 0; }");
        scripted(&repo, &plan(subgoals), &work, "true");
        let before = repo.fingerprint();
        let mut child = repo.spawn(&[&RUN[..], &["--max-iterations", "1", "--isolation", isolation]].concat());
        // What is changed while another worker comes to its end is put back with that.
        let run = wait_for("the other worker", || {
            let run = repo.agentloop(&["list", "--json"]).expect(0).json()[0]["run_id"].as_str()?.to_owned();
            let ended = repo.kinds(&run).iter().filter(|kind| *kind == "subagent_finished").count();
            (ended + 1 == subgoals.len()).then_some(run)
        });
        std::fs::write(&go, "").unwrap();
        wait_for("the worker's deed", || done.exists().then_some(()));
        // What nobody sees before the driver dies may be the user's.
        let kept = repo.kept(&run).join("guard");
        wait_for("the driver's look", || {
            let kept: Value = serde_json::from_slice(&std::fs::read(&kept).ok()?).ok()?;
            let config: Vec<u8> =
                serde_json::from_value(kept[1]["settings"]["config"]["File"]["content"].clone()).ok()?;
            String::from_utf8_lossy(&config).contains("filter \"evil\"").then_some(())
        });
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::KILL).unwrap();
        child.wait().unwrap();
        assert_eq!(repo.git(&["config", "core.hooksPath"]), "/tmp/evil");
        repo.git(&["config", "core.editor", "the user's"]);
        repo.agentloop(&["resume", &run]).expect(0);
        assert_eq!(repo.git(&["config", "core.editor"]), "the user's", "it was set while no driver was at work");
        repo.git(&["config", "--unset", "core.editor"]);
        assert_eq!(differing(&before, &repo.fingerprint()), Vec::<String>::new(), "{isolation}");
        assert!(
            !repo.home().join("ran").exists(),
            "{isolation}: a command of the worker's was run by the next driver's git"
        );
        let said = remarks(&repo, &run, "agent_finished");
        assert!(said.contains(&format!("{PUT_BACK}core.hookspath, filter.evil.clean")), "{isolation}: {said}");
        assert!(said.contains(&format!("settings of the repository {BY}core.editor")), "{isolation}: {said}");
        let said = remarks(&repo, &run, "checkpoint");
        assert!(said.contains(&format!("hooks of the repository {BY}pre-push")), "{isolation}: {said}");
    }
}

#[test]
fn a_worker_does_not_choose_what_is_put_back() {
    let repo = Repo::new();
    scripted(
        &repo,
        &plan(&["bad"]),
        "[ -e $HOME/once ] || { touch $HOME/once; sleep 1000; }; echo work > bad.txt",
        "true",
    );
    let mut child = repo.spawn(&[&RUN[..], &["--max-iterations", "1"]].concat());
    wait_for("the worker", || repo.home().join("once").exists().then_some(()));
    let run = repo.status("a-goal")["run_id"].as_str().unwrap().to_owned();
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::KILL).unwrap();
    child.wait().unwrap();
    let folder = repo.path().join(".git/agentloop").join(&run);
    let kept = std::fs::read(repo.kept(&run).join("guard")).or_else(|_| std::fs::read(folder.join("guard"))).unwrap();
    let mut kept: Value = serde_json::from_slice(&kept).unwrap();
    let config = &mut kept[0]["harmful"]["settings"]["config"]["File"]["content"];
    config.as_array_mut().unwrap().extend("[core]\n\tpager = evil\n".bytes().map(Value::from));
    std::fs::write(folder.join("guard"), kept.to_string()).unwrap();
    repo.agentloop(&["resume", &run]).expect(0);
    assert_eq!(repo.try_git(&["config", "core.pager"]).stdout, "");
    assert!(!folder.join("guard").exists());
    assert!(!repo.kept(&run).join("guard").exists(), "it is kept for as long as a driver is at work");
}

#[test]
fn what_the_user_sets_while_nobody_is_at_work_stays() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.questions", r#"["which?"]"#]);
    repo.git(&["config", "core.editor", "one"]);
    repo.agentloop(&["run", "a goal", "--backend", "mock", "--ask", "--json"]).expect(3);
    repo.git(&["config", "core.editor", "another"]);
    repo.agentloop(&["answer", "a-goal", "this"]).expect(0);
    assert_eq!(repo.git(&["config", "core.editor"]), "another");
    let run = repo.status("a-goal")["run_id"].as_str().unwrap().to_owned();
    assert_eq!(remarks(&repo, &run, "checkpoint") + &remarks(&repo, &run, "agent_finished"), "");
}

#[test]
fn what_changes_between_two_agents_is_the_user_s() {
    let repo = Repo::new();
    let opened = Repository::open(Some(repo.path())).unwrap();
    let new = NewRecord {
        run: RunId::new("guarded", 7),
        base: opened.resolve_base(None).unwrap(),
        message: "agentloop: guarded\n".to_owned(),
        isolation: Isolation::Worktree,
        preferences: Preferences::default(),
    };
    let ledger = GitLedger::create(opened, new).unwrap();
    let kept = ledger.scratch().join("guard");
    ledger.guard().unwrap();
    repo.git(&["config", "core.editor", "the user's"]);
    repo.git(&["config", "column.ui", "never"]);
    ledger.guard().unwrap();
    // Who gave it that name is not known; it can wait.
    let said = ledger.mend().unwrap();
    assert_eq!(said, [format!("settings of the repository {BY}column.ui")]);
    repo.git(&["config", "core.editor", "an agent's"]);
    let undo = r"git config core.editor 'an agent'\''s'";
    assert_eq!(ledger.mend().unwrap(), [format!("{PUT_BACK}core.editor; set again by: {undo}")]);
    assert_eq!(repo.git(&["config", "core.editor"]), "the user's");
    // Settings may hold what nobody else is to read.
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    ledger.stand_down();
    assert!(!kept.exists());
    repo.git(&["config", "core.editor", "another"]);
    assert_eq!(ledger.mend().unwrap(), Vec::<String>::new());
}

#[test]
fn in_the_user_s_checkout_its_files_are_the_work_and_the_rest_is_watched() {
    let deed = "git config core.hooksPath /tmp/evil; git tag mine; echo true > .git/hooks/pre-push; echo x > made.txt";
    let repo = Repo::new();
    let outcome = Outcome::of(repo, &["bad"], deed, &["--no-isolate"]);
    assert_eq!(outcome.touched, ["made.txt"]);
    assert!(outcome.remarks("agent_finished").contains(&format!("{PUT_BACK}core.hookspath")));
    let said = outcome.remarks("checkpoint");
    assert!(
        said.contains("hooks of the repository were changed while workers worked (by you, or by a worker): pre-push")
    );
    assert!(said.contains("refs were moved while workers worked (by you, or by a worker): refs/tags/mine"), "{said}");
    assert!(!said.contains("files in your checkout"), "{said}");
}
