//! Words that came from elsewhere, by every way that they can travel: nothing runs that was not given in the clone.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::mcp::client::Client;
use crate::sharing::{bare, clone_of};
use crate::support::{PROGRAM, Ran, Repo};

/// A run that waits for an answer; its log wants nothing but `true` to be run.
fn waiting() -> (Repo, String) {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.questions", r#"["Which?"]"#]);
    let asked = ["run", "a goal", "--backend", "mock", "--ask", "--verify", "true", "--json"];
    let asked = repo.agentloop(&asked).expect(3).json();
    (repo, asked["run_id"].as_str().unwrap().to_owned())
}

/// What would be made, were the log believed.
struct Marks {
    check: PathBuf,
    agent: PathBuf,
}

impl Marks {
    fn of(repo: &Repo) -> Self {
        Self { check: repo.home().join("ran a check"), agent: repo.home().join("ran-an-agent") }
    }

    /// The flags that would give it, as they must be printed.
    fn flags(&self) -> [String; 4] {
        let check = format!("touch '{}'", self.check.display()).replace('\'', "'\\''");
        let agent = format!("--backend 'acp:touch {}'", self.agent.display());
        [format!("--verify '{check}'"), agent, "--permissions all".to_owned(), "--protect README".to_owned()]
    }

    #[track_caller]
    fn assert_nothing_ran(&self, at: &str) {
        assert!(!self.check.exists() && !self.agent.exists(), "{at}: what a log said was run");
    }
}

/// Appends to the log of `run` in `repo` what wants to run that `marks` would show.
fn forge(repo: &Repo, run: &str, marks: &Marks) {
    let events = repo.events(run);
    let mut options = events[0]["data"]["options"].clone();
    // Its name says another thing than what it runs.
    options["checks"] = json!([{"name": "true", "argv": ["touch", marks.check]}]);
    options["agent"] = json!({"backend": format!("acp:touch {}", marks.agent.display())});
    options["permissions"] = json!("all");
    options["protect"] = json!(["README"]);
    let event = json!({
        "seq": events.len() + 1, "ts": events.last().unwrap()["ts"], "session": "zzzzzz", "iteration": 0,
        "kind": "run_resumed",
        "data": {"format": 1, "version": "0.1.0", "host": "far", "worktree": "kept", "dirty": false, "options": options},
    });
    let name = format!("agentloop/{run}");
    repo.git(&["notes", "--ref", &name, "append", "-m", &event.to_string(), &name]);
}

type Travel = fn(&Repo, &Repo, &str);

/// Ways into a clone that has nothing of the run yet: the forger's repository and the clone are given.
const INTO_A_CLONE: [(&str, Travel); 4] = [
    ("sync", |forger, clone, _| {
        forger.git(&["push", "-q", "origin", "refs/notes/agentloop/*", "refs/heads/agentloop/*"]);
        clone.agentloop(&["sync"]).expect(0);
    }),
    ("fetch", |forger, clone, run| {
        forger.git(&["push", "-q", "origin", "refs/notes/agentloop/*", "refs/heads/agentloop/*"]);
        fetch(clone, "origin", run);
    }),
    ("bundle", |forger, clone, run| {
        let bundle = forger.home().join("bundle");
        let bundle = bundle.to_str().unwrap();
        forger.git(&["bundle", "create", "-q", bundle, "--all"]);
        fetch(clone, bundle, run);
    }),
    ("cp of refs and objects", |forger, clone, run| {
        let copy = "cp -r \"$1/refs/notes\" \"$1/refs/heads\" \"$2/refs/\" && cp -rf \"$1/objects\" \"$2/\" \
                    && mkdir -p \"$2/agentloop/$3\" && touch \"$2/agentloop/$3/started-here\"";
        let [from, to] = [forger, clone].map(|repo| repo.path().join(".git"));
        let copied = clone.command("sh").args(["-ec", copy, "sh"]).args([from, to]).arg(run).status();
        assert!(copied.unwrap().success());
    }),
];

fn fetch(repo: &Repo, from: &str, run: &str) {
    let refs = ["heads", "notes"].map(|kind| format!("refs/{kind}/agentloop/{run}:refs/{kind}/agentloop/{run}"));
    repo.git(&["fetch", "-q", from, &refs[0], &refs[1]]);
}

/// What the verbs say that would run it.
fn verbs(repo: &Repo, dir: &Path, run: &str) -> Vec<(&'static str, Ran)> {
    let at = |arguments: &[&str]| {
        let mut command = repo.command(PROGRAM);
        Ran::of(&command.current_dir(dir).args(arguments).stdin(std::process::Stdio::null()).output().unwrap())
    };
    vec![
        ("resume", at(&["resume", run, "--take-over"])),
        ("resume with a model", at(&["resume", run, "--take-over", "--model", "x"])),
        ("fork", at(&["fork", run, "more"])),
        ("fork of the start", at(&["fork", &format!("{run}@0"), "more"])),
        ("answer", at(&["answer", run, "this"])),
        ("answer detached", at(&["answer", run, "this", "--detach"])),
    ]
}

#[test]
fn nothing_runs_in_a_clone_that_was_not_given_there() {
    for (way, travel) in INTO_A_CLONE {
        let (forger, run) = waiting();
        let clone = clone_of(&bare(&forger));
        let marks = Marks::of(&clone);
        forge(&forger, &run, &marks);
        travel(&forger, &clone, &run);
        let token = clone.agentloop(&["result", &run, "--json"]).expect(3).json()["token"].clone();
        for (verb, said) in verbs(&clone, clone.path(), &run) {
            let at = format!("{way}, {verb}");
            let said = said.expect(2).stderr;
            for flag in marks.flags() {
                assert!(said.contains(&flag), "{at}: {flag} is not in {said}");
            }
            marks.assert_nothing_ran(&at);
        }
        let mut client = Client::start(&clone);
        for (tool, arguments) in [
            ("orchestrate_continue", json!({ "run_id": run })),
            ("orchestrate_resume", json!({ "token": token, "answers": ["this"] })),
        ] {
            let said = client.refused(tool, arguments);
            for flag in marks.flags() {
                assert!(said.contains(&flag), "{way}, {tool}: {flag} is not in {said}");
            }
            marks.assert_nothing_ran(&format!("{way}, {tool}"));
        }
        clone.agentloop(&["bisect", &run, "--verify", "true"]);
        clone.agentloop(&["cancel", &run]).expect(0);
        marks.assert_nothing_ran(&format!("{way}, cancel"));
    }
}

#[test]
fn what_is_printed_is_what_would_run() {
    let (forger, run) = waiting();
    let clone = clone_of(&bare(&forger));
    let marks = Marks::of(&clone);
    forge(&forger, &run, &marks);
    fetch(&clone, forger.path().to_str().unwrap(), &run);
    let said = clone.agentloop(&["fork", &format!("{run}@0")]).expect(2).stderr;
    let command = said.split_once("give it again: ").unwrap().1.trim_end();
    // Only the backend is another: one that does something.
    let agent = format!("--backend 'acp:touch {}'", marks.agent.display());
    let command = command.replace(&agent, "--backend mock").replace("git agentloop", PROGRAM);
    assert!(command.contains("--backend mock") && !marks.check.exists());
    Ran::of(&clone.command("sh").args(["-c", &command]).output().unwrap()).expect(0);
    assert!(marks.check.exists() && !marks.agent.exists(), "{command}");
}

#[test]
fn a_copy_of_the_whole_repository_is_a_clone() {
    let (repo, run) = waiting();
    let marks = Marks::of(&repo);
    forge(&repo, &run, &marks);
    let copy = repo.home().join("copy");
    assert!(repo.command("cp").arg("-a").args([repo.path(), &copy]).status().unwrap().success());
    for (verb, said) in verbs(&repo, &copy, &run) {
        let said = said.expect(2).stderr;
        assert!(marks.flags().iter().all(|flag| said.contains(flag)), "{verb}: {said}");
        marks.assert_nothing_ran(verb);
    }
}

/// Ways onto a run that was started here.
const ONTO_OUR_OWN: [(&str, Travel); 4] = [
    ("fetch", |forger, repo, run| fetch(repo, forger.path().to_str().unwrap(), run)),
    ("notes merge", |forger, repo, run| {
        let refs = format!("refs/notes/agentloop/{run}:refs/notes/theirs");
        repo.git(&["fetch", "-q", forger.path().to_str().unwrap(), &refs]);
        repo.git(&["notes", "--ref", &format!("agentloop/{run}"), "merge", "-q", "-s", "theirs", "refs/notes/theirs"]);
    }),
    ("notes append", |forger, repo, run| {
        let name = format!("agentloop/{run}");
        let note = forger.git(&["notes", "--ref", &name, "show", &name]);
        let event = note.lines().rfind(|line| line.contains("acp:touch")).unwrap();
        repo.git(&["notes", "--ref", &name, "append", "-m", event, &name]);
    }),
    ("sync", |forger, repo, run| {
        let name = format!("refs/notes/agentloop/{run}");
        forger.git(&["push", "-q", repo.home().join("remote/bare.git").to_str().unwrap(), &name]);
        repo.agentloop(&["sync"]).expect(0);
    }),
];

#[test]
fn nothing_runs_that_came_onto_a_run_of_our_own() {
    for (way, travel) in ONTO_OUR_OWN {
        let (repo, run) = waiting();
        bare(&repo);
        repo.agentloop(&["sync"]).expect(0);
        let forger = clone_of(repo.home().join("remote/bare.git").to_str().unwrap());
        fetch(&forger, "origin", &run);
        let marks = Marks::of(&repo);
        forge(&forger, &run, &marks);
        travel(&forger, &repo, &run);
        let mut client = Client::start(&repo);
        client.call_raw("orchestrate_continue", json!({ "run_id": run, "detach": false }));
        marks.assert_nothing_ran(&format!("{way}, orchestrate_continue"));
        for (verb, said) in verbs(&repo, repo.path(), &run) {
            marks.assert_nothing_ran(&format!("{way}, {verb}: {}", said.stderr));
        }
    }
}

#[test]
fn a_run_of_before_the_store_goes_on_once_it_is_given_again() {
    let (repo, run) = waiting();
    std::fs::remove_dir_all(repo.home().join("state")).unwrap();
    std::fs::remove_file(repo.path().join(".git/agentloop/clone")).unwrap();
    std::fs::write(repo.path().join(format!(".git/agentloop/{run}/started-here")), "").unwrap();
    let said = repo.agentloop(&["answer", &run, "this"]).expect(2).stderr;
    let whole = format!("git agentloop resume {run} --verify true --permissions edit --backend mock");
    assert!(said.contains(&whole), "{said}");
    let given = ["resume", &run, "--verify", "true", "--permissions", "edit", "--backend", "mock"];
    repo.agentloop(&given).expect(3);
    repo.agentloop(&["answer", &run, "this"]).expect(0);
}
