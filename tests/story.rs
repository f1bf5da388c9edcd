//! A goal reached on a real project by an agent that really edits files: first red, then green, then merged.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::Repo;

/// An agent as a shell script: it knows its role by the first line of its instructions. Its first attempt at the goal
/// leaves the bug where it is; its second mends it.
const AGENT: &str = r#"
read -r role
prompt=$(cat)
case "$role" in
*criteria*) echo 'cargo test passes' ;;
*decomposer*) echo 'Here is the plan: [{"id": "mend", "description": "mend quote()"}, {"id": "note", "description": "write a note"}]' ;;
*reviewer*) echo '{"gates_passed": true, "goal_complete": true, "issues": []}' ;;
*subagent*)
    case "$AGENTLOOP_SUBGOAL" in
    note) echo "iteration $AGENTLOOP_ITERATION" >> NOTES ;;
    mend) if [ "$AGENTLOOP_ITERATION" -ge 2 ]; then sed -i.bak 's/SABOTAGED/'"'"'/' src/lib.rs && rm src/lib.rs.bak; fi ;;
    esac
    echo "worked on $AGENTLOOP_SUBGOAL" ;;
esac
"#;

/// The source of a small crate with tests that this project depends on, as cargo unpacked it.
fn small_crate() -> PathBuf {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap().stdout;
    let rustc = String::from_utf8(rustc).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // Only this platform's packages are sure to be on this machine.
    let cargo = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--locked",
            "--filter-platform",
            host,
            "--manifest-path",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "shell-words").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().to_owned()
}

/// The crate in a repository, one of its characters broken, so that its own tests are red.
fn broken_project() -> Repo {
    let repo = Repo::new();
    let source = small_crate();
    let read = |name: &str| std::fs::read_to_string(source.join(name)).unwrap();
    let library = read("src/lib.rs");
    assert!(library.contains("quoted.push('\\'')"), "the crate is not the one this test knows");
    repo.write("src/lib.rs", &library.replacen("quoted.push('\\'')", "quoted.push_str(\"SABOTAGED\")", 1));
    // A workspace of its own: cargo looks for one in the folders above, whatever may lie there.
    repo.write("Cargo.toml", &format!("{}\n[workspace]\n", read("Cargo.toml.orig")));
    repo.write(".gitignore", "target\nCargo.lock\n");
    repo.commit("a crate with a bug");
    let agent = repo.script("agent", AGENT);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    repo
}

#[test]
fn a_goal_is_reached_red_then_green_and_git_tells_the_story() {
    let repo = broken_project();
    let before = repo.fingerprint();
    let verify = format!("{} test --offline --quiet", env!("CARGO"));
    let cargo_home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    let rustup_home =
        std::env::var("RUSTUP_HOME").unwrap_or_else(|_| format!("{}/.rustup", std::env::var("HOME").unwrap()));
    let env = [("CARGO_HOME", cargo_home.as_str()), ("RUSTUP_HOME", &rustup_home)];
    let arguments = ["run", "mend the crate", "--backend", "scripted", "--verify", &verify, "--json"];
    let result = repo.agentloop_with(&arguments, &env).expect(0).json();

    assert_eq!(result["completed"], true);
    assert_eq!(result["stop_reason"], "goal_complete");
    assert_eq!(result["iterations"], 2);
    let red = &result["history"][0]["verification"][0];
    assert_eq!((&red["ok"], &red["exit_code"]), (&Value::Bool(false), &Value::from(101)), "{red:#}");
    assert_eq!(result["history"][1]["verification"][0]["ok"], true);
    assert_eq!(result["worktree"]["changed_files"], serde_json::json!(["NOTES", "src/lib.rs"]));

    let run = result["run_id"].as_str().unwrap();
    let branch = format!("agentloop/{run}");
    let subjects = repo.git(&["log", "--first-parent", "--format=%s", "--reverse", &format!("main..{branch}")]);
    assert_eq!(
        subjects.lines().collect::<Vec<_>>(),
        [
            "agentloop: mend the crate",
            "agentloop: iteration 1/4: 2/2 subgoals, checks fail, goal incomplete",
            "agentloop: iteration 2/4: 2/2 subgoals, checks pass, goal complete",
        ]
    );
    let trailers = repo.git(&["log", "-1", "--format=%(trailers)", &branch]);
    for trailer in [
        format!("Agentloop-Run: {run}"),
        "Agentloop-Iteration: 2".into(),
        "Agentloop-Subgoals: 2/2".into(),
        "Agentloop-Checks: pass".into(),
        "Agentloop-Verdict: complete".into(),
        "Agentloop-Agent: subagent=scripted".into(),
    ] {
        assert!(trailers.lines().any(|line| line == trailer), "{trailer} is missing in\n{trailers}");
    }
    assert_eq!(repo.git(&["log", "-1", "--format=%an <%ae>", &branch]), "A User <user@example.com>");
    let noted = repo.git(&["log", "--notes=agentloop/*", &branch]);
    assert!(noted.contains("\"kind\":\"verification\""), "{noted}");

    assert_eq!(repo.fingerprint(), before, "the user's checkout was touched");
    repo.git(&["merge", "-q", &branch]);
    assert_eq!(std::fs::read_to_string(repo.path().join("NOTES")).unwrap(), "iteration 1\niteration 2\n");
    repo.assert_sound();
}

#[test]
fn a_green_review_does_not_talk_a_red_check_away() {
    let repo = Repo::new();
    let result = repo
        .agentloop(&["run", "a goal", "--backend", "mock", "--verify", "false", "--max-iterations", "3", "--json"])
        .expect(1)
        .json();
    assert_eq!(result["stop_reason"], "max_iterations");
    assert_eq!(result["history"][2]["review"]["goal_complete"], true);
    assert_eq!(result["completed"], false);
}

#[test]
fn the_log_is_few_commits_and_is_left_out_of_git_log_all() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let log = format!("refs/notes/agentloop/{run}");
    let holding = |kind: &str| {
        let commits = repo.git(&["log", "--format=", "-p", "--full-diff", "-G", &format!("\"kind\":\"{kind}\""), &log]);
        commits.matches("diff --git").count()
    };
    // Its workers begin in groups, as its plans name them.
    assert_eq!(repo.kinds(&run).iter().filter(|kind| *kind == "subagent_started").count(), 6);
    assert!(holding("subagent_started") <= 3, "{}", repo.git(&["log", "-p", &log]));

    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let command = text.lines().find(|line| line.starts_with("    git log --exclude")).unwrap();
    let shown = repo.command("sh").args(["-ec", &format!("{command} --format=%H")]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.trim(), repo.git(&["log", "--format=%H", "--branches"]));
    assert_ne!(shown.trim(), repo.git(&["log", "--format=%H", "--all"]));
}
