//! Agents that speak the Agent Client Protocol, in whole runs: named by their command, or in git's configuration.

use std::io::Read as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{PROGRAM, Ran, Repo, processes_with, wait_for};

/// Plays every role. `work` is what a worker does, `body` what is done before anything else.
fn agent(repo: &Repo, body: &str, work: &str) -> String {
    let path = repo.home().join("agent.py");
    let script = format!(
        r#"{}
{body}
prompt = begin()
task = text_of(prompt)
role = task.split()[3].strip(".,;:")
if role == "decomposer":
    say('Here it is: [{{"id": "one", "description": "do it"}}]')
elif role == "reviewer":
    say('{{"gates_passed": true, "goal_complete": true, "issues": []}}')
else:
    {work}
end(prompt, usage={{"inputTokens": 100, "outputTokens": 10, "totalTokens": 110}})
"#,
        include_str!("support/acp_agent.py")
    );
    std::fs::write(&path, script).unwrap();
    format!("python3 {}", path.display())
}

fn calls(repo: &Repo, run: &str) -> Vec<Value> {
    let events = repo.events(run).into_iter().filter(|event| event["kind"] == "agent_finished");
    events.map(|event| event["data"].clone()).collect()
}

#[test]
fn an_agent_named_by_its_command_does_the_work() {
    let repo = Repo::new();
    let work = r#"
    assert ask("execute") == "id-reject_once"
    second = os.environ["AGENTLOOP_ITERATION"] == "2"
    assert ask("edit", os.path.join(os.getcwd(), "a.txt")) == "id-allow_once"
    open("a.txt", "w").write("right\n" if second else "wrong\n")
    say("It is written.")"#;
    let command = agent(&repo, "", work);
    repo.write("check.sh", "test \"$(cat a.txt)\" = right\n");
    repo.commit("a check");
    let backend = format!("acp:{command}");
    let arguments =
        ["run", "a goal", "--criteria", "- it passes", "--backend", &backend, "--verify", "sh check.sh", "--json"];
    let result = repo.agentloop(&arguments).expect(0).json();
    let checks = result["history"].as_array().unwrap().iter().map(|pass| pass["verification"][0]["ok"].clone());
    assert_eq!(checks.collect::<Vec<_>>(), [false, true]);
    assert_eq!(result["worktree"]["changed_files"], json!(["a.txt"]));
    assert_eq!(result["usage"]["tokens_in"], 600);

    let run = result["run_id"].as_str().unwrap();
    let calls = calls(&repo, run);
    assert_eq!(calls.len(), 6);
    assert!(calls.iter().all(|call| call["session_id"] == "s1" && call["agent"]["backend"] == *backend), "{calls:#?}");
    let told = repo.agentloop(&["output", run, "iter1/one"]).expect(0).stdout;
    assert!(told.contains("[refused: do execute]\n[edit do edit]\n[permitted: do edit]\nIt is written."), "{told}");
    let trailers = repo.git(&["log", "-1", "--format=%(trailers:key=Agentloop-Agent)", &format!("agentloop/{run}")]);
    assert!(trailers.contains(&format!("subagent={backend}")), "{trailers}");
    repo.assert_sound();
}

#[test]
fn what_it_says_and_does_is_seen_as_it_comes() {
    let repo = Repo::new();
    let seen = repo.home().join("seen");
    let work = format!(
        "say('I look around.')\n    update('tool_call', toolCallId='c', title='ls -l', kind='search', status='in_progress')\n    \
         while not os.path.exists('{}'): time.sleep(0.01)\n    say('Done.')",
        seen.display()
    );
    let backend = format!("acp:{}", agent(&repo, "", &work));
    let mut run = repo.spawn(&["run", "a goal", "--criteria", "- x", "--backend", &backend, "-q"]);
    let is_there = || {
        let listed = repo.agentloop(&["output"]);
        (listed.code == 0 && listed.stdout.contains("iter1/one")).then_some(())
    };
    wait_for("a transcript", is_there);
    let id = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    let mut follow = repo.command(PROGRAM);
    let mut child =
        follow.args(["output", &id, "iter1/one", "-f"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut told, mut bytes) = (String::new(), [0; 256]);
    while !told.contains("I look around.\n[search ls -l]\n") {
        let read = stdout.read(&mut bytes).unwrap();
        assert!(read > 0, "it ended with {told:?}");
        told.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    std::fs::write(&seen, "").unwrap();
    stdout.read_to_string(&mut told).unwrap();
    assert!(told.ends_with("\nDone."), "{told}");
    assert!(child.wait().unwrap().success() && run.wait().unwrap().success());
}

#[test]
fn a_name_in_gits_configuration_takes_a_model_and_roles() {
    let repo = Repo::new();
    let command = agent(&repo, "", "say(' '.join(sys.argv[1:]))");
    repo.git(&["config", "agentloop.backend.mine.acp", &format!("{command} --model {{model}} --acp")]);
    repo.git(&["config", "agentloop.backend.mine.command", "false"]);
    let arguments = [
        "run",
        "x",
        "--criteria",
        "y",
        "--backend",
        "mine",
        "--worker",
        "mine/fast/1",
        "--max-tokens",
        "1000",
        "--json",
    ];
    let result = repo.agentloop(&arguments).expect(0).json();
    assert!(result["final_output"].as_str().unwrap().contains("--model fast/1 --acp"), "{result:#}");
    let calls = calls(&repo, result["run_id"].as_str().unwrap());
    let agents: Vec<Value> = calls.iter().map(|call| call["agent"].clone()).collect();
    let mine = json!({"backend": "mine"});
    assert_eq!(agents, [mine.clone(), json!({"backend": "mine", "model": "fast/1"}), mine]);

    let refused =
        repo.agentloop(&["run", "x", "--criteria", "y", "--backend", &format!("acp:{command}"), "--model", "m"]);
    let Ran { stdout, stderr, .. } = refused.expect(2);
    assert!(stderr.contains("offers no choice of a model") && stdout.contains("{model}"), "{stderr}{stdout}");
}

#[test]
fn what_is_known_of_it_is_known_without_a_call() {
    let repo = Repo::new();
    let ran = repo.home().join("ran");
    let command = agent(&repo, &format!("open('{}', 'w').close()", ran.display()), "say('x')");
    repo.git(&["config", "agentloop.backend", &format!("acp:{command}")]);
    repo.git(&["config", "agentloop.backend.mine.acp", &command]);
    repo.git(&["config", "agentloop.backend.gone.acp", "no-such-program-anywhere --acp"]);
    repo.git(&["config", "agentloop.backend.torn.acp", "'x"]);
    let listed = repo.agentloop(&["backends", "--json"]).expect(0).json();
    let of = |name: &str| listed.as_array().unwrap().iter().find(|view| view["name"] == name).unwrap().clone();
    for name in ["mine", &format!("acp:{command}")] {
        let view = of(name);
        assert_eq!(
            (&view["kind"], &view["installed"], &view["login"]),
            (&json!("acp"), &json!(true), &json!("unknown"))
        );
        assert_eq!(view["can"]["edit_files"], true, "{view:#}");
        assert!(view["note"].as_str().unwrap().contains("what it does unasked it does"), "{view:#}");
    }
    assert!(of("gone")["installed"] == false && of("gone")["hint"].is_string(), "{}", of("gone"));
    assert!(of("torn")["detail"].as_str().unwrap().contains("agentloop.backend.torn.acp cannot be split"));
    let doctor = repo.agentloop(&["doctor", "--json"]).expect(0).json();
    assert_eq!(doctor["backends"], listed);
    assert!(!ran.exists(), "it was run");
}

#[test]
fn commands_that_are_none_are_refused_before_anything_is_on_record() {
    let repo = Repo::new();
    for (backend, words) in [
        ("acp:", "expected a command after 'acp:'"),
        ("acp:'x", "cannot be split into words"),
        ("acp:''", "names no program"),
        ("acp:agent\nAgentloop-Run: x", "control characters"),
        ("acp:agent --key sk-ant-0123456789abcdef", "holds a secret"),
    ] {
        for arguments in [&["--backend", backend][..], &["--backend", "mock", "--worker", backend]] {
            let told = repo.agentloop(&[&["run", "x"], arguments].concat()).expect(2).stderr;
            assert!(told.contains(words) && told.contains("hint: "), "{backend}: {told}");
            assert!(!told.contains("0123456789abcdef"), "{told}");
        }
    }
    let told = repo.agentloop(&["run", "x", "--backend", "acp:agent", "--max-cost", "1"]).expect(2).stderr;
    assert!(told.contains("does not tell what a call costs"), "{told}");
    assert_eq!(repo.git(&["for-each-ref", "refs/notes", "refs/heads/agentloop"]), "");
}

#[test]
fn a_command_in_a_log_from_elsewhere_is_not_run() {
    let repo = Repo::new();
    let ran = repo.home().join("ran");
    let backend = format!("acp:{}", agent(&repo, &format!("open('{}', 'w').close()", ran.display()), "say('x')"));
    let arguments =
        ["run", "x", "--criteria", "y", "--worker", &backend, "--max-agent-calls", "2", "--backend", "mock"];
    repo.agentloop(&arguments).expect(1);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    std::fs::remove_file(&ran).unwrap();

    let home = tempfile::tempdir().unwrap();
    let clone = home.path().join("clone");
    repo.git(&["clone", "-q", repo.path().to_str().unwrap(), clone.to_str().unwrap()]);
    let clone = Repo::at(home, clone);
    clone.git(&["fetch", "-q", "origin", "refs/heads/agentloop/*:refs/heads/agentloop/*", "refs/notes/*:refs/notes/*"]);
    let again = ["resume", &run, "--max-agent-calls", "9", "--backend", "mock", "--permissions", "edit"];
    let told = clone.agentloop(&again).expect(2).stderr;
    assert!(told.contains(&format!("--worker '{backend}'")), "{told}");
    assert!(!ran.exists(), "it was run");
    clone.agentloop(&[&again[..], &["--worker", &backend]].concat()).expect(1);
    assert!(ran.exists());
}

#[test]
fn one_that_nobody_has_logged_in_to_ends_the_run_and_says_how() {
    let repo = Repo::new();
    let body = "initialize(logins=[{'id': 'a', 'name': 'Account', 'description': \"Run 'agent login'\"}])\n\
        fail(expect('session/new'), -32000, 'Authentication required')\nsys.exit(0)";
    let backend = format!("acp:{}", agent(&repo, body, "pass"));
    let Ran { stdout, .. } = repo.agentloop(&["run", "x", "--criteria", "y", "--backend", &backend]).expect(2);
    assert!(stdout.contains("Authentication required") && stdout.contains("Run 'agent login'"), "{stdout}");
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    let calls = calls(&repo, &run);
    assert_eq!((calls.len(), &calls[0]["error"]["kind"]), (1, &json!("not_logged_in")));
}

#[test]
fn a_cancelled_run_tells_it_and_leaves_nothing_of_it() {
    let repo = Repo::new();
    let (begun, told) = (repo.home().join("begun"), repo.home().join("told"));
    let work = format!(
        "open('partial.txt', 'w').write('partial')\n    open('{}', 'w').close()\n    expect('session/cancel')\n    \
         open('{}', 'w').close()\n    import subprocess; subprocess.Popen(['sleep', '1001'], start_new_session=True); time.sleep(60)",
        begun.display(),
        told.display()
    );
    let backend = format!("acp:{}", agent(&repo, "", &work));
    let mut run = repo.spawn(&["run", "x", "--criteria", "y", "--backend", &backend]);
    wait_for("the worker", || begun.exists().then_some(()));
    let id = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    repo.agentloop(&["cancel"]).expect(0);
    assert_eq!(run.wait().unwrap().code(), Some(4));
    assert!(told.exists(), "it was not told");
    wait_for("the end of every process of the run", || processes_with(&id).is_empty().then_some(()));
    assert_eq!(repo.git(&["show", &format!("agentloop/{id}:partial.txt")]), "partial");
    repo.assert_sound();
}
