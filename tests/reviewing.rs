//! A reviewer only looks: what it changes all the same is taken back, said, and not lost.

use serde_json::{Value, json};

use crate::support::Repo;

/// Workers write; the reviewer tampers with their work, adds a file and removes one, and accepts.
const AGENT: &str = r#"
read -r role
cat > /dev/null
case "$role" in
*decomposer*) echo '["write"]' ;;
*subagent*) echo work > work.txt; echo 'worked' ;;
*reviewer*)
    echo tampered > work.txt
    echo new > planted.txt
    rm README
    echo "$VERDICT" ;;
esac
"#;

fn reviewed(verdict: &str, arguments: &[&str]) -> (Repo, Value) {
    let repo = Repo::new();
    let agent = repo.script("agent", &AGENT.replace("$VERDICT", verdict));
    repo.git(&["config", "agentloop.backend.meddler.command", &agent]);
    let all = ["run", "x", "--criteria", "y", "--backend", "meddler", "--json", "--max-iterations", "1"];
    let ran = repo.agentloop(&[&all[..], arguments].concat());
    let result = ran.json();
    (repo, result)
}

const ACCEPTS: &str = r#"{\"gates_passed\": true, \"goal_complete\": true, \"issues\": []}"#;

#[test]
fn a_review_that_accepts_does_not_complete_what_nobody_did() {
    let repo = Repo::new();
    let agent = repo.script(
        "agent",
        "read -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '[\"work\"]' ;;\n\
         *reviewer*) echo '{\"gates_passed\": true, \"goal_complete\": true}' ;;\n\
         *) [ $AGENTLOOP_ITERATION = 1 ] && { echo 'no network' >&2; exit 3; }; echo done ;;\nesac",
    );
    repo.git(&["config", "agentloop.backend.s.command", &agent]);
    let run =
        ["run", "a goal", "--criteria", "x", "--backend", "s", "--max-task-retries", "0", "--verify", "true", "--json"];
    let result = repo.agentloop(&run).expect(0).json();
    assert_eq!(result["iterations"], 2, "{result:#}");
    let events = repo.events(result["run_id"].as_str().unwrap());
    let ended: Vec<_> = events.iter().filter(|event| event["kind"] == "iteration_finished").collect();
    assert_eq!(ended[0]["data"]["summary"], "0/1 subgoals, checks pass, goal incomplete");
    let feedback = &events.iter().rfind(|event| event["kind"] == "iteration_started").unwrap()["data"]["feedback"];
    assert!(feedback.as_str().unwrap().contains("no network"), "{feedback}");
    // Where nobody ever does anything, no iteration completes it.
    let all = [&run[..], &["--worker", "never", "--max-iterations", "2"]].concat();
    repo.git(&["config", "agentloop.backend.never.command", "false"]);
    assert_eq!(repo.agentloop(&all).expect(1).json()["stop_reason"], "max_iterations");
}

#[test]
fn what_a_reviewer_changes_is_taken_back_and_said() {
    // A check that leaves a file of its own: that one is not the reviewer's.
    let (repo, result) = reviewed(ACCEPTS, &["--verify", "touch checked"]);
    assert_eq!(result["completed"], true, "{result:#}");
    let remarks = result["history"][0]["review"]["remarks"].to_string();
    for name in ["README", "planted.txt", "work.txt", "taken back"] {
        assert!(remarks.contains(name), "{remarks}");
    }
    let worktree = std::path::Path::new(result["worktree"]["path"].as_str().unwrap());
    let read = |name: &str| std::fs::read_to_string(worktree.join(name)).ok();
    assert_eq!(read("work.txt").as_deref(), Some("work\n"), "a worker's work is not lost");
    assert_eq!((read("README").as_deref(), read("planted.txt")), (Some("hello\n"), None));
    assert_eq!(read("checked"), None, "what a check leaves is not work");
    let run = result["run_id"].as_str().unwrap();
    let verification = repo.events(run).into_iter().find(|event| event["kind"] == "verification").unwrap();
    let restored = "[\"the checks changed files that are not ignored, and they were restored: checked\"]";
    assert_eq!(verification["data"]["remarks"].to_string(), restored);
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:work.txt")]), "work");
    let checkpoint = repo.events(run).into_iter().find(|event| event["kind"] == "checkpoint").unwrap();
    assert!(checkpoint["data"]["remarks"].to_string().contains("the reviewer changed files"), "{checkpoint:#}");
    // What it did stays reachable.
    let rescued = repo.git(&["for-each-ref", "--format=%(refname)", &format!("refs/agentloop/rescue/{run}/")]);
    assert_eq!(repo.git(&["show", &format!("{}:work.txt", rescued.lines().next().unwrap())]), "tampered");
    repo.assert_sound();
}

#[test]
fn in_the_users_own_checkout_it_is_only_said() {
    let (repo, result) = reviewed(ACCEPTS, &["--no-isolate"]);
    let remarks = result["history"][0]["review"]["remarks"].to_string();
    assert!(remarks.contains("changed while the reviewer looked: README, planted.txt, work.txt"), "{remarks}");
    assert_eq!(std::fs::read_to_string(repo.path().join("work.txt")).unwrap(), "tampered\n");
}

#[test]
fn a_reviewer_that_fails_has_changed_nothing_either() {
    let (repo, result) = reviewed("", &[]);
    assert_eq!(result["stop_reason"], "loop_agent_error", "{result:#}");
    let run = result["run_id"].as_str().unwrap();
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:work.txt")]), "work");
    let told = repo.events(run).into_iter().rfind(|event| event["kind"] == "agent_finished").unwrap();
    assert!(told["data"]["error"]["message"].to_string().contains("taken back"), "{told:#}");
    assert_eq!(told["data"]["error"]["kind"], json!("empty"));
}
