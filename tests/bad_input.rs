//! Bad input gets a clear error or a recorded failure, and nothing is lost or left behind.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::{PROGRAM, Ran, Repo};

/// No run was opened: no ref, no worktree, no folder beside the repository.
#[track_caller]
fn assert_untouched(repo: &Repo) {
    assert_eq!(repo.git(&["for-each-ref", "--format=%(refname)"]), "refs/heads/main");
    assert_eq!(repo.git(&["worktree", "list"]).lines().count(), 1);
    assert!(!repo.home().join("repo.agentloop").exists());
}

pub fn with_stdin(repo: &Repo, arguments: &[&str], input: &[u8]) -> Ran {
    let mut command = repo.command(PROGRAM);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input); // a program that refuses early does not read it all
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[test]
fn goals_that_are_none_are_refused() {
    let repo = Repo::new();
    for goal in ["", "  ", "\n\t"] {
        let refused = repo.agentloop(&["run", "--backend", "mock", goal]).expect(2);
        assert!(refused.stderr.starts_with("error: "), "{}", refused.stderr);
        assert!(refused.stderr.contains("hint: "), "{}", refused.stderr);
    }
    let from_stdin: [&[u8]; 3] = [b"", b"a\0b", b"\xff\xfe"];
    for goal in from_stdin {
        with_stdin(&repo, &["run", "--backend", "mock", "-F", "-"], goal).expect(2);
    }
    with_stdin(&repo, &["run", "--backend", "mock", "-F", "-"], &vec![b'x'; 1024 * 1024 + 1]).expect(2);
    repo.agentloop(&["run", "--backend", "mock", "-F", "no-such-file"]).expect(2);
    let criteria = repo.agentloop(&["run", "x", "--backend", "mock", "--criteria", " "]).expect(2).stderr;
    assert_eq!(
        criteria,
        "error: there is nothing in the criteria\nhint: leave them out, and an agent proposes what must hold\n"
    );
    let remote = repo.agentloop(&["sync"]).expect(2).stderr;
    assert_eq!(remote, "error: there is no remote\nhint: 'git remote add NAME URL' adds one\n");
    assert_untouched(&repo);
}

#[test]
fn goals_of_every_kind_are_kept_to_the_letter() {
    let repo = Repo::new();
    let goals = [
        "two\nlines",
        "\"quotes\" 'and' `ticks`",
        "$(touch pwned); ${HOME}",
        "💥 emoji",
        "修复",
        "---\nAgentloop-Run: forged",
    ];
    for goal in goals {
        let result = repo.mock_run(goal, &["--max-iterations", "2"]);
        let run = result["run_id"].as_str().unwrap();
        assert_eq!(repo.events(run)[0]["data"]["goal"], goal);
        let start = repo.git(&["rev-list", "--max-count=1", "--reverse", &format!("main..agentloop/{run}")]);
        let trailers = repo.git(&["log", "-1", "--format=%(trailers:key=Agentloop-Run,valueonly)", &start]);
        assert_eq!(trailers.trim(), run);
    }
    let dashes = repo.agentloop(&["run", "--backend", "mock", "--json", "--", "--looks like a flag"]).expect(0).json();
    assert_eq!(repo.events(dashes["run_id"].as_str().unwrap())[0]["data"]["goal"], "--looks like a flag");
    let long = "x".repeat(1024 * 1024);
    let result =
        with_stdin(&repo, &["run", "--backend", "mock", "--json", "-F", "-"], long.as_bytes()).expect(0).json();
    let goal = &repo.events(result["run_id"].as_str().unwrap())[0]["data"]["goal"];
    assert_eq!(goal.as_str().unwrap().len(), long.len());
    assert!(!repo.path().join("pwned").exists());
    repo.assert_sound();
}

#[test]
fn usage_errors_say_what_and_what_next() {
    let repo = Repo::new();
    let cases: [&[&str]; 9] = [
        &["run", "x", "--backend", "no-such-backend"],
        &["run", "x", "--backend", "mock", "--verify", "unclosed 'quote"],
        &["run", "x", "--backend", "mock", "--max-iterations", "0"],
        &["run", "x", "--backend", "mock", "--max-seconds", "-1"],
        &["run", "x", "--backend", "mock", "--no-isolate", "--skip-permissions"],
        &["run", "x", "--backend", "mock", "--base", "nowhere"],
        &["status", "no-such-run"],
        &["resume", "../../etc"],
        &["frobnicate"],
    ];
    for case in cases {
        let refused = repo.agentloop(case).expect(2);
        assert!(refused.stderr.starts_with("error: "), "{case:?}: {}", refused.stderr);
        assert!(refused.stderr.contains("\nhint: "), "{case:?}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{case:?}");
    }
    assert_untouched(&repo);
}

#[test]
fn a_setting_that_cannot_be_used_is_refused_before_a_run_begins() {
    let repo = Repo::new();
    for (variable, bad) in [
        ("AGENTLOOP_SIGN", "maybe"),
        ("AGENTLOOP_CLEANUP", "sometimes"),
        ("AGENTLOOP_DURABLE", "surely"),
        ("AGENTLOOP_REVIEW_BYTES", "few"),
        ("AGENTLOOP_SETUP", "open 'quote"),
    ] {
        let refused = repo.agentloop_with(&["run", "x", "--backend", "mock"], &[(variable, bad)]).expect(2);
        let said = &refused.stderr;
        assert!(
            said.starts_with("error: invalid value '")
                && said.contains(&format!("for the variable {variable} (expected ")),
            "{said}"
        );
        assert!(said.contains(bad) && said.contains(&format!("\nhint: 'unset {variable}'")), "{said}");
    }
    assert_untouched(&repo);
}

#[test]
fn a_program_that_asked_for_json_reads_what_is_wrong_as_json() {
    let repo = Repo::new();
    let cases: [&[&str]; 4] = [
        &["status", "no-such-run", "--json"],
        &["run", "x", "--backend", "mock", "--max-iterations", "0", "--json"],
        &["run", "x", "--backend", "no-such-backend", "--json", "-d"],
        &["lst", "--json"],
    ];
    for case in cases {
        let refused = repo.agentloop(case).expect(2);
        let answer = refused.json();
        let (error, hint) = (answer["error"].as_str().unwrap(), answer["hint"].as_str().unwrap());
        assert_eq!(refused.stderr, format!("error: {error}\nhint: {hint}\n"), "{case:?}");
    }
}

#[test]
fn what_is_set_in_vain_is_said() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.maxIteration", "9"]);
    repo.git(&["config", "agentloop.backend.mine.command", "x"]);
    let unknown =
        "'agentloop.maxiteration' in git's configuration is no setting: did you mean 'agentloop.maxIterations'?";
    assert_eq!(repo.agentloop(&["config"]).expect(0).stderr, format!("{unknown}\n"));
    assert!(repo.agentloop(&["doctor"]).stdout.contains(unknown));
    let arguments = ["run", "a goal", "--backend", "mock", "--max-iterations", "1"];
    let checks = ["--verify", "./made-later", "--verify", "true | cat", "--verify", "true"];
    let ran = repo.agentloop(&[&arguments[..], &checks].concat()).expect(1).stderr;
    let pipeline = "the check 'true | cat' is a pipeline: only its last command decides; \
                    bash -o pipefail -c '…' has all of them count";
    assert!(ran.starts_with(&format!("{unknown}\n{pipeline}\nrun ")), "{ran}");
}

#[test]
fn an_agent_that_cannot_be_called_is_named_before_there_is_a_run() {
    let repo = Repo::new();
    let cases: [(&[&str], &str, &str); 4] = [
        (&["--backend", "acp:no-such-agent --acp"], "program 'no-such-agent' was not found", "install it"),
        (&["--backend", "mock", "--integrator", "acp:no-such-agent"], "'no-such-agent'", "'git agentloop backends'"),
        (&["--backend", "openai_api"], "which model to ask", "--backend openai_api/MODEL"),
        (&["--backend", "claude_api/a-model"], "'claude_api' has no key", "set ANTHROPIC_API_KEY"),
    ];
    let unset = ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"].map(|name| (name, ""));
    for (words, why, next) in cases {
        for further in [&["--json"][..], &["--detach"]] {
            let all = [&["run", "a goal"], words, further].concat();
            let refused = repo.agentloop_with(&all, &unset).expect(2).stderr;
            let (error, hint) = refused.split_once("\nhint: ").unwrap_or_else(|| panic!("{refused}"));
            assert!(error.contains(why) && hint.contains(next), "{words:?}: {refused}");
        }
    }
    assert_untouched(&repo);
    assert!(!repo.path().join(".git/agentloop").exists());
    // A run that goes on with another agent is as it was when that one is missing.
    let run =
        repo.agentloop(&["run", "a goal", "--backend", "mock", "--max-iterations", "1", "--json"]).expect(1).json();
    let run = run["run_id"].as_str().unwrap();
    let before = repo.kinds(run);
    repo.agentloop(&["resume", run, "--max-iterations", "2", "--reviewer", "acp:no-such-agent"]).expect(2);
    assert_eq!(repo.kinds(run), before);
}

#[test]
fn an_ambiguous_prefix_names_the_candidates() {
    let repo = Repo::new();
    let one = repo.mock_run("same words", &[])["run_id"].as_str().unwrap().to_owned();
    let two = repo.mock_run("same words", &[])["run_id"].as_str().unwrap().to_owned();
    let refused = repo.agentloop(&["status", "same"]).expect(2);
    assert!(refused.stderr.contains(&one) && refused.stderr.contains(&two), "{}", refused.stderr);
    repo.agentloop(&["status", &one[..one.len() - 1]]).expect(0);
}

/// The only iteration's record of a run whose worker is `body`.
fn worked_by(body: &str, arguments: &[&str]) -> (Repo, serde_json::Value) {
    let repo = Repo::new();
    let script = format!(
        "read -r role\ncase \"$role\" in\n*criteria*) cat > /dev/null; echo 'it works' ;;\n\
         *decomposer*) cat > /dev/null; echo '[\"work\"]' ;;\n\
         *reviewer*) cat > /dev/null; echo '{{\"gates_passed\":true,\"goal_complete\":true}}' ;;\n*)\n{body}\n;;\nesac"
    );
    let agent = repo.script("agent", &script);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let all = [&["run", "a goal", "--backend", "scripted", "--max-iterations", "1", "--json"], arguments].concat();
    let result = repo.agentloop(&all).json();
    (repo, result)
}

#[test]
fn an_agent_that_exits_0_with_nothing_has_failed() {
    let (_, result) = worked_by("cat > /dev/null; exit 0", &[]);
    let task = &result["history"][0]["results"][0];
    assert_eq!((task["ok"].as_bool(), task["attempts"].as_u64()), (Some(false), Some(2)));
    assert_eq!(task["error"], "the agent answered nothing");
}

#[test]
fn output_that_is_not_utf_8_is_read_as_far_as_it_goes() {
    let (_, result) = worked_by(r"cat > /dev/null; printf 'caf\351 done'", &[]);
    assert_eq!(result["history"][0]["results"][0]["ok"], true);
    assert!(result["final_output"].as_str().unwrap().contains("caf\u{fffd} done"));
}

#[test]
fn an_agent_that_ignores_sigterm_is_out_of_time_all_the_same() {
    let (repo, result) = worked_by(
        "cat > /dev/null; trap '' TERM; while :; do sleep 1; done",
        &["--timeout", "1", "--max-task-retries", "0"],
    );
    let task = &result["history"][0]["results"][0];
    assert_eq!(task["ok"], false);
    let run = result["run_id"].as_str().unwrap();
    let failed = repo.events(run).into_iter().find(|event| event["data"]["error"]["kind"] == "timeout");
    assert!(failed.is_some(), "{task}");
}

#[test]
fn a_background_child_that_holds_stdout_holds_nobody_up() {
    let (repo, result) = worked_by("cat > /dev/null; sleep 1002 & echo done", &[]);
    assert_eq!(result["completed"], true);
    assert!(crate::support::processes_with(result["run_id"].as_str().unwrap()).is_empty());
    repo.assert_sound();
}

#[test]
fn checks_that_are_missing_or_hang_are_red_with_the_reason() {
    let repo = Repo::new();
    let arguments = [
        "run",
        "a goal",
        "--backend",
        "mock",
        "--max-iterations",
        "1",
        "--json",
        "--verify",
        "./no-such-program-x",
        "--verify",
        "sleep 1003",
        "--verify-timeout",
        "1",
    ];
    let result = repo.agentloop(&arguments).expect(1).json();
    let checks = &result["history"][0]["verification"];
    assert!(checks[0]["error"].as_str().unwrap().contains("no-such-program-x"), "{checks}");
    assert!(checks[1]["error"].as_str().unwrap().contains("timed out"), "{checks}");
    assert_eq!((checks[0]["ok"].as_bool(), checks[1]["ok"].as_bool()), (Some(false), Some(false)));
}

#[test]
fn plans_of_every_kind_are_settled() {
    let nested = r#"{"plan": [{"task": "a"}, {"goal": "b"}]}"#;
    let hostile =
        r#"[{"id": "../x", "description": "a"}, {"id": "a b", "description": "b"}, {"id": "", "description": "c"}]"#;
    let long = serde_json::to_string(&(0..10_000).map(|n| format!("task {n}")).collect::<Vec<_>>()).unwrap();
    let cases = [
        ("no plan at all", 1),
        ("[]", 1),
        (nested, 2),
        (hostile, 3),
        ("```json\n[\"x\", \"y\"]\n```\nHope this helps!", 2),
        (&long, 32),
    ];
    for (answer, subgoals) in cases {
        let repo = Repo::new();
        let plan = repo.home().join("plan");
        std::fs::write(&plan, answer).unwrap();
        let body = format!(
            "read -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) cat {} ;;\n\
             *reviewer*) echo '{{\"gates_passed\":true,\"goal_complete\":true}}, I think' ;;\n*) echo fine ;;\nesac",
            plan.display()
        );
        let agent = repo.script("agent", &body);
        repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
        let result = repo.agentloop(&["run", "g", "--backend", "scripted", "--json"]).expect(0).json();
        assert_eq!(
            result["history"][0]["subgoals"].as_array().unwrap().len(),
            subgoals,
            "{}",
            &answer[..answer.len().min(80)]
        );
    }
}

#[test]
fn reviews_of_every_kind_are_settled_and_silence_is_no_consent() {
    let cases = [
        (r#"{"gates_passed": "true", "goal_complete": "Yes", "issues": []} and that is all"#, true, 0),
        (r#"{"gates_passed": true, "goal_complete": "no", "issues": "one thing"}"#, false, 1),
        (r#"{"goal_complete": true}"#, false, 1),
        (r#"{"gates_passed": 7, "goal_complete": null, "issues": [3, {"x": 1}, null]}"#, false, 4),
        (r#"{"gates_passed": true, "goal_complete": true"#, false, 1),
        ("I am happy with it.", false, 1),
    ];
    for (answer, complete, least) in cases {
        let repo = Repo::new();
        let verdict = repo.home().join("verdict");
        std::fs::write(&verdict, answer).unwrap();
        let body = format!(
            "read -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '[\"a\"]' ;;\n*reviewer*) cat {} ;;\n*) echo fine ;;\nesac",
            verdict.display()
        );
        let agent = repo.script("agent", &body);
        repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
        let result = repo.agentloop(&["run", "g", "--backend", "scripted", "--max-iterations", "1", "--json"]).json();
        let issues = result["history"][0]["review"]["issues"].as_array().unwrap();
        assert_eq!(result["completed"], complete, "{answer}: {result:#}");
        assert!(issues.len() >= least, "{answer}: {issues:?}");
    }
}

#[test]
fn foreign_torn_and_future_lines_in_the_notes_harm_nobody() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let before = repo.kinds(&run);
    let future = r#"{"seq":1000,"ts":2000000000,"session":"zzzzzz","kind":"from_the_future","data":{"x":1}}"#;
    for line in ["a remark", r#"{"seq":12,"ts"#, r#"{"seq":"x"}"#, future] {
        repo.git(&["notes", &format!("--ref=agentloop/{run}"), "append", "-m", line, &format!("agentloop/{run}")]);
    }
    // An event that no driver of this clone recorded is a remark.
    assert_eq!(repo.kinds(&run), before);
    assert_eq!(repo.status(&run)["state"], "completed");
    let shown = repo.agentloop(&["show", &run]).expect(0).stdout;
    assert!(shown.contains("1 event, unverified and not counted"), "{shown}");
}

#[test]
fn a_key_in_the_environment_is_nowhere_in_the_repository() {
    let repo = Repo::new();
    let key = "very-secret-value-0123456789";
    let body = "read -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '[\"x\"]' ;;\n\
                *reviewer*) echo \"$SOME_API_KEY\"; echo '{\"gates_passed\":true,\"goal_complete\":true}' ;;\n*) echo \"key: $SOME_API_KEY\"; echo \"$SOME_API_KEY\" >&2 ;;\nesac";
    let agent = repo.script("agent", body);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let arguments = [
        "run",
        "a goal",
        "--backend",
        "scripted",
        "--verify",
        "sh -c 'echo $SOME_API_KEY; false'",
        "--max-iterations",
        "1",
        "--json",
    ];
    let ran = repo.agentloop_with(&arguments, &[("SOME_API_KEY", key)]).expect(1);
    assert!(!ran.stdout.contains(key) && !ran.stderr.contains(key), "{}\n{}", ran.stdout, ran.stderr);
    let objects = repo.git(&["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"]);
    for line in objects.lines() {
        let (object, kind) = line.split_once(' ').unwrap();
        let content = repo.command("git").args(["cat-file", kind, object]).output().unwrap().stdout;
        assert!(!content.windows(key.len()).any(|window| window == key.as_bytes()), "{line}");
    }
    let grep = repo.command("grep").args(["-rlF", key, ".git"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
}

#[test]
fn a_directory_for_temporary_files_that_is_gone_is_named() {
    let repo = Repo::new();
    let agent = repo.script("agent", "cat > /dev/null; echo '[]'");
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let gone = repo.home().join("gone").to_str().unwrap().to_owned();
    let ran = repo.agentloop_with(&["run", "x", "--backend", "scripted"], &[("TMPDIR", &gone)]);
    assert_ne!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains(&format!("no temporary file can be made in '{gone}': set TMPDIR")), "{}", ran.stderr);
}

#[test]
fn an_environment_that_is_not_utf_8_is_no_reason_to_fail() {
    use std::os::unix::ffi::OsStrExt as _;
    let repo = Repo::new();
    for arguments in [&["run", "x", "--backend", "mock"][..], &["run", "y", "--backend", "mock", "--detach"]] {
        let mut command = repo.command(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).env("OLDPWD", std::ffi::OsStr::from_bytes(b"/home/caf\xe9"));
        Ran::of(&command.output().unwrap()).expect(0);
    }
}

#[test]
fn the_largest_numbers_are_taken_for_what_they_are() {
    let repo = Repo::new();
    let help = repo.agentloop(&["run", "-h"]).expect(0).stdout;
    assert!(help.contains("Iterations the run may take, at most 1000000\n"), "{help}");
    let result = repo.mock_run("x", &["--max-task-retries", "1000", "--max-iterations", "1000000"]);
    assert_eq!(result["history"][0]["results"][0]["ok"], true, "{result}");
}

#[test]
fn a_hook_reads_whatever_refs_are_called() {
    let repo = Repo::new();
    let (name, head) = (&b"refs/heads/caf\xe9 "[..], repo.git(&["rev-parse", "HEAD"]));
    let told = [name, head.as_bytes(), b" ", name, "0".repeat(40).as_bytes(), b"\n"].concat();
    let said = with_stdin(&repo, &["hook", "pre-push", "origin", "elsewhere"], &told).expect(0);
    assert_eq!(said.stderr, "");
}

#[test]
fn a_misspelt_variable_is_named_and_one_of_a_run_s_own_is_not() {
    let repo = Repo::new();
    let said = repo.agentloop_with(&["config"], &[("AGENTLOOP_MAX_ITERATION", "9")]).expect(0).stderr;
    let wanted =
        "the environment variable AGENTLOOP_MAX_ITERATION is no setting: did you mean AGENTLOOP_MAX_ITERATIONS?\n";
    assert_eq!(said, wanted);
    let own = ["RUN", "CALL", "ITERATION", "SUBGOAL", "PORT"].map(|name| format!("AGENTLOOP_{name}"));
    let own: Vec<(&str, &str)> = own.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(repo.agentloop_with(&["config"], &own).expect(0).stderr, "");
}
