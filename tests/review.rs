//! `log`, `show`, `diff` and what a list says of merged runs, on real repositories and by git's own means.

use git_agentloop::app::{self, Site};
use serde_json::Value;

use crate::support::{Ran, Repo};

/// A run of two iterations that leaves three files; its id.
pub fn run_with_files(repo: &Repo, goal: &str) -> String {
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}.txt={iteration}\n"]);
    repo.mock_run(goal, &["--verify", "true"])["run_id"].as_str().unwrap().to_owned()
}

fn listed(repo: &Repo, run: &str) -> Value {
    let all = repo.agentloop(&["list", "--json"]).expect(0).json();
    all.as_array().unwrap().iter().find(|one| one["run_id"] == run).unwrap().clone()
}

#[test]
fn log_is_git_s_own_with_the_events_beside_the_commits() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let range = format!("main..agentloop/{run}");
    let notes = format!("--notes=agentloop/{run}");
    let same = |ours: &[&str], theirs: &[&str]| {
        let theirs = [&["log", notes.as_str()], theirs].concat();
        assert_eq!(repo.agentloop(ours).expect(0).stdout.trim_end(), repo.git(&theirs), "{ours:?}");
    };
    same(&["log"], &[&range]);
    same(&["log", &run, "--graph", "--stat"], &["--graph", "--stat", &range]);
    same(&["log", "--oneline", "-2"], &["--oneline", "-2", &range]);
    same(&["log", "--", "made-build.txt"], &[&range, "--", "made-build.txt"]);
    same(
        &["log", "--oneline", "-2", &run, "--", "made-build.txt"],
        &["--oneline", "-2", &range, "--", "made-build.txt"],
    );
    same(
        &["log", &run[..5], "--format=%s %an", "--", "made-build.txt"],
        &["--format=%s %an", &range, "--", "made-build.txt"],
    );
    let Ran { code, stderr, .. } = repo.agentloop(&["log", "none-of-ours"]);
    assert_eq!(
        (code, stderr.as_str()),
        (2, "error: no run matches 'none-of-ours'\nhint: 'git agentloop list' shows this repository's runs\n")
    );
}

#[test]
fn diff_shows_the_run_or_one_iteration() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let branch = format!("agentloop/{run}");
    let git = |arguments: &[&str]| repo.git(&[&["diff"], arguments].concat());
    let ours =
        |arguments: &[&str]| repo.agentloop(&[&["diff"], arguments].concat()).expect(0).stdout.trim_end().to_owned();
    assert_eq!(ours(&[]), git(&["main", &branch]));
    assert_eq!(ours(&[&run, "--iteration", "2", "--stat"]), git(&["--stat", &format!("{branch}^"), &branch]));
    assert_eq!(ours(&["--iteration=1", "--name-only"]), git(&["--name-only", "main", &format!("{branch}^")]));
    assert_eq!(ours(&[&run, "--", "made-build.txt"]), git(&["main", &branch, "--", "made-build.txt"]));
    assert_eq!(ours(&["--", "made-build.txt"]), git(&["main", &branch, "--", "made-build.txt"]));
    assert_eq!(
        ours(&["--iteration", "2", "--", "made-build.txt", "--"]),
        git(&[&format!("{branch}^"), &branch, "--", "made-build.txt", "--"])
    );
    let refused = repo.agentloop(&["diff", &run, "--iteration", "7"]).expect(2).stderr;
    assert!(refused.contains("nothing of an iteration 7") && refused.contains("hint: it has had 2"), "{refused}");
    assert!(repo.agentloop(&["diff", &run, "--iteration", "x"]).expect(2).stderr.contains("'x' is no iteration"));
}

#[test]
fn show_says_what_a_reviewer_asks_first() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let text = repo.agentloop(&["show"]).expect(0).stdout;
    assert_eq!(
        repo.agentloop(&["show", &format!("agentloop/{run}")]).expect(0).stdout,
        text,
        "its branch names it too"
    );
    for line in [
        format!("run       {run}: completed"),
        "goal      write files".into(),
        "verdict   goal complete after 2 iterations: 3/3 subgoals, checks pass, goal complete".into(),
        "check passed: true".into(),
        format!("branch    agentloop/{run}"),
        format!("next      git agentloop merge {run}"),
        " 3 files changed, 3 insertions(+)".into(),
    ] {
        assert!(text.lines().any(|have| have.starts_with(&line)), "{line}\n{text}");
    }
    assert!(repo.agentloop(&["show", &run, "--patch"]).expect(0).stdout.contains("\n+2\n"));
    let json = repo.agentloop(&["show", &run, "--json"]).expect(0).json();
    assert_eq!(json["files"][0], serde_json::json!({"path": "made-build.txt", "added": 1, "removed": 0}));
    assert_eq!((&json["merged"], json["iterations"].as_array().unwrap().len()), (&Value::Bool(false), 2));

    // Its branch may be gone: the record knows where it stood.
    repo.git(&["branch", "-qD", &format!("agentloop/{run}")]);
    assert_eq!(repo.agentloop(&["show", &run, "--json"]).expect(0).json()["tip"], json["tip"]);
    repo.agentloop(&["log", &run, "--oneline"]).expect(0);
}

#[test]
fn merged_is_seen_however_the_work_was_taken() {
    // Each way on a repository of its own, after which main went on with a file of the run's.
    let ways: [(&str, &[&[&str]]); 5] = [
        ("a merge", &[&["merge", "-q", "--no-edit", "BRANCH"]]),
        ("a fast-forward", &[&["merge", "-q", "--ff-only", "BRANCH"]]),
        (
            "a squash that names the run",
            &[&["merge", "-q", "--squash", "BRANCH"], &["commit", "-qm", "take it\n\nAgentloop-Run: RUN"]],
        ),
        ("a rebase", &[&["cherry-pick", "-m", "1", "BRANCH~1", "BRANCH"]]),
        ("a merge whose branch is deleted", &[&["merge", "-q", "--no-edit", "BRANCH"], &["branch", "-qD", "BRANCH"]]),
    ];
    for (what, commands) in ways {
        let repo = Repo::new();
        let run = run_with_files(&repo, "write files");
        assert_eq!(listed(&repo, &run)["merged"], false, "{what}");
        if !what.contains("fast-forward") {
            repo.write("other", "x");
            repo.git(&["add", "other"]);
            repo.git(&["commit", "-qm", "main goes on"]);
        }
        for command in commands {
            let words: Vec<String> = command
                .iter()
                .map(|word| word.replace("BRANCH", &format!("agentloop/{run}")).replace("RUN", &run))
                .collect();
            repo.git(&words.iter().map(String::as_str).collect::<Vec<_>>());
        }
        repo.write("made-build.txt", "changed later\n");
        repo.git(&["commit", "-qam", "main goes on"]);
        assert_eq!(listed(&repo, &run)["merged"], true, "{what}");
        assert!(repo.agentloop(&["list"]).expect(0).stdout.contains(&format!("{run}  merged ")), "{what}");
    }
}

#[test]
fn a_checkpoint_says_what_failed_and_why() {
    let repo = Repo::new();
    let agent = repo.script(
        "agent",
        "read -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '[{\"id\": \"good\", \"description\": \"Write it\"}, \
         {\"id\": \"bad\", \"description\": \"Break it\"}]' ;;\n*reviewer*) echo '{\"gates_passed\": true, \"goal_complete\": true}' ;;\n\
         *) [ \"$AGENTLOOP_SUBGOAL\" = bad ] && { echo 'no way' >&2; exit 3; }; echo 1 > made; echo written ;;\nesac",
    );
    repo.git(&["config", "agentloop.backend.s.command", &agent]);
    let words =
        ["run", "a goal", "--criteria", "x", "--backend", "s", "--max-iterations", "1", "--max-task-retries", "0"];
    let run = repo.agentloop(&[&words[..], &["--verify", "test -f other", "--json"]].concat()).expect(1).json();
    let run = run["run_id"].as_str().unwrap();
    let message = repo.git(&["log", "-1", "--format=%B", &format!("agentloop/{run}")]);
    let expected = format!(
        "agentloop: iteration 1/1: 1/2 subgoals, checks fail, goal incomplete\n\n    ✓ good: Write it\n    ✗ bad: Break it\n\
         \u{20}     '{agent}' exited with status 3: no way\n    - check failed: test -f other: exit code 1\n\n"
    );
    assert!(message.starts_with(&expected), "{message}");
    // What no agent told is not on record as nothing.
    assert!(!message.contains("Agentloop-Tokens"), "{message}");
    assert!(!repo.agentloop(&["show", run]).expect(0).stdout.contains("tokens"));
    let told = run_with_files(&repo, "write files");
    assert!(repo.git(&["log", "-1", "--format=%B", &format!("agentloop/{told}")]).contains("\nAgentloop-Tokens: "));
}

#[test]
fn a_part_of_the_work_is_not_the_work() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    repo.git(&["cherry-pick", "-m", "1", &format!("agentloop/{run}~1")]);
    assert_eq!(listed(&repo, &run)["merged"], false);
    // Nor is standing on the run's own branch a merge.
    repo.git(&["switch", "-q", &format!("agentloop/{run}")]);
    assert_eq!(listed(&repo, &run)["merged"], false);
}

#[test]
fn a_merge_is_previewed_without_being_begun() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let preview = || app::merge_preview(&Site::open(Some(repo.path())).unwrap(), Some(&run)).unwrap();
    let before = (repo.fingerprint(), repo.git(&["for-each-ref"]));
    let clean = preview();
    assert_eq!((clean.into.as_deref(), clean.up_to_date, clean.conflicts.len()), (Some("main"), false, 0));
    let names: Vec<&str> = clean.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(
        names.join(" "),
        repo.git(&["diff", "--name-only", &format!("main...agentloop/{run}")]).replace('\n', " ")
    );
    assert_eq!((repo.fingerprint(), repo.git(&["for-each-ref"])), before);
    repo.write("made-build.txt", "mine\n");
    repo.commit("the same file");
    assert_eq!(preview().conflicts, ["made-build.txt"]);
    repo.git(&["merge", "-q", "-X", "ours", "--no-edit", &format!("agentloop/{run}")]);
    assert!(preview().up_to_date);
    let patch = app::diff(&Site::open(Some(repo.path())).unwrap(), Some(&run), Some(2), 100_000).unwrap();
    assert!(patch.text.contains("+2\n") && patch.files.len() == 3, "{}", patch.text);
}

/// The commands that an answer tells a person to type.
fn told(text: &str) -> Vec<String> {
    let starts = ["review: ", "merge:  ", "        ", "next      "];
    let command = |line: &str| {
        // Lines of a tail begin below their times.
        let found = starts.iter().find_map(|start| line.strip_prefix(start).or(line.trim_start().strip_prefix(start)));
        found.map(ToOwned::to_owned)
    };
    text.lines().filter_map(command).filter(|command| command.starts_with("git ")).collect()
}

/// Every command that is printed about a run works, in the order of printing.
fn assert_told_commands_work(repo: &Repo, run: &str) {
    for verb in [&["result"][..], &["show"], &["tail", "-f"]] {
        let text = repo.agentloop(&[verb, &[run]].concat()).expect(0).stdout;
        assert!(verb[0] == "show" || told(&text).len() >= 2, "{text}");
        for command in told(&text) {
            match command.strip_prefix("git agentloop ") {
                Some(words) => _ = repo.agentloop(&words.split(' ').collect::<Vec<_>>()).expect(0),
                None => _ = repo.git(&command.split(' ').skip(1).collect::<Vec<_>>()),
            }
        }
    }
}

#[test]
fn what_is_printed_to_be_typed_works_wherever_the_branch_is() {
    for deed in ["none", "deleted", "renamed", "only fetched"] {
        let repo = Repo::new();
        let run = run_with_files(&repo, "write files");
        let branch = format!("agentloop/{run}");
        match deed {
            "deleted" => _ = repo.git(&["branch", "-qD", &branch]),
            "renamed" => _ = repo.git(&["branch", "-m", &branch, "topic"]),
            "only fetched" => {
                let bare = repo.home().join("bare.git");
                repo.git(&["init", "-q", "--bare", bare.to_str().unwrap()]);
                repo.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
                repo.agentloop(&["sync"]).expect(0);
                repo.git(&["branch", "-qD", &branch]);
                repo.git(&["update-ref", "-d", &format!("refs/notes/agentloop/{run}")]);
            }
            _ => {}
        }
        let refused = repo.agentloop(&["resume", &run, "--backend", "mock"]);
        assert!(refused.stderr.contains(&format!("'git agentloop merge {run}' takes its work")), "{refused:?}");
        assert_told_commands_work(&repo, &run);
        assert_eq!(repo.agentloop(&["show", &run, "--json"]).expect(0).json()["merged"], true, "{deed}");
        let said = repo.agentloop(&["result", &run]).expect(0).stdout;
        let is_gone = matches!(deed, "deleted" | "renamed");
        let tip = &repo.agentloop(&["show", &run, "--json"]).expect(0).json()["tip"].as_str().unwrap()[..12].to_owned();
        let gone = format!("{branch} (gone; its newest commit is {tip})");
        assert_eq!(said.contains(&format!("branch: {gone}, 3 files changed\n")), is_gone, "{said}");
        let shown = repo.agentloop(&["show", &run]).expect(0).stdout;
        assert_eq!(shown.contains(&format!("branch    {gone}, merged\n")), is_gone, "{shown}");
        // To read where it stood would take the whole record.
        let status = repo.agentloop(&["status", &run]).expect(0).stdout;
        let name = if deed == "only fetched" { format!("origin/{branch}") } else { branch };
        let gone = if is_gone { " (not in this clone)" } else { "" };
        assert!(status.contains(&format!("branch:  {name}{gone}\n")), "{status}");
    }
}

#[test]
fn a_record_that_is_gone_is_not_a_run_that_never_was() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let log = format!("refs/notes/agentloop/{run}");
    let (tip, tail) = (repo.git(&["rev-parse", &log]), repo.agentloop(&["tail", &run]).expect(0).stdout);
    repo.git(&["update-ref", "-d", &log]);
    for name in [&run[..], "write-f"] {
        let told = repo.agentloop(&["show", name]).expect(2).stderr;
        let error = format!("error: there is no record of {run} here; its work is on the branch 'agentloop/{run}'\n");
        assert!(told.starts_with(&error), "{told}");
        assert!(told.contains(&format!("'git log --first-parent agentloop/{run}' shows it")), "{told}");
        assert!(told.contains(&format!("git update-ref {log} COMMIT")), "{told}");
    }
    assert!(repo.agentloop(&["show", "none-of-ours"]).expect(2).stderr.contains("no run matches"));
    // The way back is the one that is told.
    let found = repo.git(&["fsck"]);
    assert!(found.contains(&format!("dangling commit {tip}")), "{found}");
    repo.git(&["update-ref", &log, &tip]);
    assert_eq!(repo.agentloop(&["tail", &run]).expect(0).stdout, tail);
}
