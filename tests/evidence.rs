//! Evidence belongs to a tree, and the files that define success are not the workers' to change.

use serde_json::Value;

use crate::support::Repo;

/// A check that counts its runs in HOME, and ends with `status`.
fn counting_check(repo: &Repo, status: u8) -> (String, std::path::PathBuf) {
    let count = repo.home().join("runs");
    let check = repo.script("check", &format!("echo run >> {}; exit {status}", count.display()));
    (check, count)
}

fn runs(count: &std::path::Path) -> usize {
    std::fs::read_to_string(count).unwrap_or_default().lines().count()
}

#[test]
fn a_green_check_is_not_run_again_on_the_same_tree_unless_asked() {
    let repo = Repo::new();
    let (check, count) = counting_check(&repo, 0);
    let result = repo.mock_run("a goal", &["--verify", &check]);
    assert_eq!(runs(&count), 1);
    let reused: Vec<&Value> = (0..2).map(|pass| &result["history"][pass]["verification"][0]["reused"]).collect();
    assert_eq!(reused, [&Value::Bool(true); 2], "what it said of the base counts");
    repo.mock_run("a goal", &["--verify", &check, "--recheck"]);
    assert_eq!(runs(&count), 4, "on the base too");
}

#[test]
fn a_red_check_is_always_run_again_and_so_is_one_on_another_tree() {
    let repo = Repo::new();
    let (check, count) = counting_check(&repo, 1);
    repo.agentloop(&["run", "x", "--backend", "mock", "--verify", &check, "--max-iterations", "2"]).expect(1);
    assert_eq!(runs(&count), 3, "on the base too");
    let repo = Repo::new();
    let (check, count) = counting_check(&repo, 0);
    repo.git(&["config", "agentloop.mock.edit", "out={iteration}\n"]);
    repo.mock_run("x", &["--verify", &check]);
    assert_eq!(runs(&count), 3, "on the base too");
}

/// A worker that makes the test pass by weakening it, and takes another one away.
const CHEAT: &str = r#"
read -r role; cat > "$HOME/prompt-$AGENTLOOP_ITERATION-$(echo "$role" | tr -dc a-z | cut -c1-17)"
case "$role" in
*criteria*) echo ok ;;
*decomposer*) echo '["make it pass"]' ;;
*reviewer*) echo '{"gates_passed": true, "goal_complete": true}' ;;
*) echo 'exit 0' > tests/check.sh; rm -f tests/other.sh; echo new > tests/new.sh; echo work > src.txt; echo done ;;
esac
"#;

fn guarded() -> Repo {
    let repo = Repo::new();
    repo.write("tests/check.sh", "grep -q right src.txt\n");
    repo.write("tests/other.sh", "true\n");
    repo.commit("tests");
    let agent = repo.script("agent", CHEAT);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    repo
}

const RUN: [&str; 8] =
    ["run", "make it pass", "--backend", "scripted", "--max-iterations", "1", "--json", "--verify=sh tests/check.sh"];

#[test]
fn a_worker_that_edits_a_protected_test_does_not_get_a_completed_run() {
    let repo = guarded();
    let before = repo.fingerprint();
    let result = repo.agentloop(&[&RUN[..], &["--protect", "tests"]].concat()).expect(1).json();
    assert_eq!(result["completed"], false);
    assert_eq!(result["worktree"]["changed_files"], serde_json::json!(["src.txt"]));
    let run = result["run_id"].as_str().unwrap();
    let verification = repo.events(run).into_iter().find(|event| event["kind"] == "verification").unwrap();
    let protected = serde_json::json!(["tests/check.sh", "tests/new.sh", "tests/other.sh"]);
    assert_eq!(verification["data"]["protected"], protected);
    let mut prompts = std::fs::read_dir(repo.home()).unwrap().flatten().map(|entry| entry.path());
    let review = prompts.find(|path| path.to_string_lossy().ends_with("ouarethereviewero")).unwrap();
    let review = std::fs::read_to_string(review).unwrap();
    assert!(review.contains("changes taken back: tests/check.sh, tests/new.sh, tests/other.sh"), "{review}");
    let worktree = std::path::PathBuf::from(result["worktree"]["path"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(worktree.join("tests/check.sh")).unwrap(), "grep -q right src.txt\n");
    let kept = repo.git(&["for-each-ref", "--format=%(refname)", "refs/agentloop/rescue"]);
    assert_eq!(repo.git(&["show", &format!("{kept}:tests/check.sh")]), "exit 0", "what was taken back is gone");
    assert_eq!(repo.fingerprint(), before);
    repo.assert_sound();
}

#[test]
fn with_leave_to_a_protected_test_is_changed_and_the_reviewer_is_told() {
    let repo = guarded();
    repo.git(&["config", "agentloop.protect", "tests"]);
    let result = repo.agentloop(&[&RUN[..], &["--allow-protected"]].concat()).expect(0).json();
    assert_eq!(result["completed"], true);
    let events = repo.events(result["run_id"].as_str().unwrap());
    let verification = events.iter().find(|event| event["kind"] == "verification").unwrap();
    assert_eq!(verification["data"]["protected"].as_array().unwrap().len(), 3);
    repo.agentloop(&["run", "x", "--backend", "mock", "--protect", ":(nonsense)x"]).expect(2);
}

#[test]
fn a_cancelled_run_s_partial_commit_holds_no_protected_change_either() {
    let repo = guarded();
    let slow = repo.script("slow", &CHEAT.replace("echo work > src.txt; echo done", "echo work > src.txt; sleep 30"));
    repo.git(&["config", "agentloop.backend.scripted.command", &slow]);
    let child = repo.spawn(&[&RUN[..], &["--protect", "tests"]].concat());
    let run = crate::support::wait_for("the worker", || {
        let listed = repo.agentloop(&["list", "--json"]).json();
        let run = listed[0]["run_id"].as_str()?.to_owned();
        let path = repo.home().join("repo.agentloop").join(format!("{run}.w1/src.txt"));
        path.exists().then_some(run)
    });
    repo.agentloop(&["cancel", &run]).expect(0);
    drop(child);
    let names = repo.git(&["diff", "--name-only", "main", &format!("agentloop/{run}")]);
    assert_eq!(names, "src.txt");
}
