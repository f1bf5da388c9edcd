//! Bad input, a repository that is taken away, a client that is: the server goes on, and so do the runs.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::{Value, json};

use super::client::{Client, OLDEST, REVISIONS, Revision};
use crate::support::{Repo, wait_for};

#[test]
fn wrong_arguments_are_named_with_what_would_be_right() {
    let repo = Repo::new();
    let outside = tempfile::tempdir().unwrap();
    let elsewhere = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    repo.mock_run("a goal", &[]);
    let before = repo.git(&["for-each-ref"]);
    let mut client = Client::start(&repo);
    let goal = |more: Value| {
        let mut arguments = json!({ "goal": "x", "backend": "mock" });
        arguments.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("orchestrate", arguments)
    };
    let of = |tool: &'static str, run_id: Value| (tool, json!({ "run_id": run_id }));
    let cases = [
        (("orchestrate", json!({})), "argument 'goal'"),
        (("orchestrate", json!({ "goal": "" })), "argument 'goal' of orchestrate: there is nothing in it"),
        (("orchestrate", json!({ "goal": " \n" })), "nothing in it"),
        (("orchestrate", json!({ "goal": ["x"] })), "a text, and not"),
        (("orchestrate", json!({ "goal": "x".repeat((1 << 20) + 1) })), "at most 1048576 bytes"),
        (goal(json!({ "max_iterations": 0 })), "argument 'max_iterations' of orchestrate: a whole number from 1"),
        (goal(json!({ "max_iterations": "4" })), "argument 'max_iterations'"),
        (goal(json!({ "max_iterations": 1e12 })), "argument 'max_iterations'"),
        (goal(json!({ "timeout": -1 })), "argument 'timeout' of orchestrate: a number above 0"),
        (goal(json!({ "detach": "no" })), "argument 'detach' of orchestrate: true or false"),
        (goal(json!({ "verify_commands": "make" })), "argument 'verify_commands' of orchestrate: a list of texts"),
        (
            goal(json!({ "verify_commands": ["echo 'a"] })),
            "argument 'verify_commands': invalid value 'echo 'a' (expected a command; it has a quote",
        ),
        (goal(json!({ "max_iteration": 4 })), "takes no argument \"max_iteration\""),
        (goal(json!({ "backend": "claud" })), "no backend 'claud'"),
        (goal(json!({ "backend": "sh -c 'touch x'" })), "no backend 'sh -c 'touch x''"),
        (goal(json!({ "reviewer": "/bin/sh" })), "argument 'reviewer': invalid value '/bin/sh' (expected BACKEND"),
        (goal(json!({ "worker": "mock/" })), "argument 'worker'"),
        (goal(json!({ "backend": "acp:touch x" })), "argument 'backend': a command is the user's to name"),
        (goal(json!({ "planner": " acp:touch x" })), "argument 'planner': a command is the user's to name"),
        (goal(json!({ "skip_permissions": true, "isolate": false })), "argument 'skip_permissions'"),
        (goal(json!({ "permissions": "all", "isolate": false })), "own checkout"),
        (goal(json!({ "isolation": "shared", "isolate": false })), "argument 'isolation'"),
        (goal(json!({ "permissions": "root" })), "one of ask, edit, all"),
        (goal(json!({ "base": "no-such-rev" })), "'no-such-rev' is no commit"),
        (goal(json!({ "cwd": outside.path() })), "argument 'cwd'"),
        (goal(json!({ "cwd": elsewhere.path() })), "is not in the repository of this server"),
        (goal(json!({ "cwd": "/" })), "is not in the repository of this server"),
        (goal(json!({ "cwd": "no/such/dir" })), "argument 'cwd': 'no/such/dir' is no directory"),
        (goal(json!({ "cwd": "README" })), "is no directory"),
        (of("orchestrate_status", json!("no-such-run")), "argument 'run_id': no run matches"),
        (of("orchestrate_status", json!("")), "argument 'run_id'"),
        (of("orchestrate_status", json!("a-goal")), "matches 2 runs\nhint: it could be a-goal-"),
        (of("orchestrate_status", json!("../../etc/passwd")), "is no run id"),
        (of("orchestrate_status", json!("x".repeat(1 << 20))), "at most 64 bytes, and it has 1048576"),
        (of("orchestrate_status", json!(7)), "argument 'run_id' of orchestrate_status: a text"),
        (of("orchestrate_tail", json!("nope")), "no run matches"),
        (("orchestrate_tail", json!({ "run_id": run, "limit": 0 })), "argument 'limit'"),
        (("orchestrate_tail", json!({ "run_id": run, "cursor": -1 })), "argument 'cursor'"),
        (("orchestrate_tail", json!({ "run_id": run, "cursor": 1.5 })), "argument 'cursor'"),
        (("orchestrate_output", json!({ "run_id": run, "iteration": 1, "subgoal": "../x" })), "argument 'subgoal'"),
        (("orchestrate_output", json!({ "run_id": run, "iteration": 9, "subgoal": "build" })), "iter1/build/1"),
        (("orchestrate_list", json!({ "x": 1 })), "takes no argument"),
        (of("orchestrate_continue", json!("nope")), "no run matches"),
        (("orchestrate_continue", json!({ "run_id": run, "max_tokens": 0 })), "argument 'max_tokens'"),
        (("orchestrate_continue", json!({ "run_id": run, "backend": "mock" })), "takes no argument"),
        (("orchestrate_steer", json!({ "run_id": run, "guidance": " " })), "argument 'guidance'"),
        (of("orchestrate_steer", json!(run)), "argument 'guidance' of orchestrate_steer is missing"),
        (of("orchestrate_cancel", json!(run)), "\ntools: orchestrate_result does what 'git agentloop result' does"),
        (("orchestrate_resume", json!({ "token": "x" })), "argument 'answers' of orchestrate_resume is missing"),
    ];
    for ((tool, arguments), wanted) in cases {
        let refused = client.refused(tool, arguments);
        assert!(refused.starts_with("error: ") && refused.contains(wanted), "{tool}: wanted {wanted}, said {refused}");
        assert!(refused.contains("\nhint: ") && refused.len() < 1000, "{refused}");
    }
    assert_eq!(repo.git(&["for-each-ref"]), before, "nothing was started");
    assert_eq!(elsewhere.git(&["for-each-ref", "refs/notes"]), "");
}

#[test]
fn a_directory_of_the_repository_is_one_to_start_from() {
    let repo = Repo::new();
    repo.write("sub/file", "x");
    let linked = repo.home().join("linked");
    repo.git(&["worktree", "add", "-q", "-b", "other", linked.to_str().unwrap()]);
    repo.command("git").current_dir(&linked).args(["commit", "-q", "--allow-empty", "-m", "there"]).status().unwrap();
    let mut client = Client::start(&repo);
    for (cwd, base) in [(json!("sub"), "main"), (json!(repo.path()), "main"), (json!(linked), "other")] {
        let run = client.call("orchestrate", json!({ "goal": "x", "backend": "mock", "cwd": cwd }))["run_id"].clone();
        let done = client.call("orchestrate_result", json!({ "run_id": run, "wait": true }));
        assert_eq!(done["worktree"]["base"], repo.git(&["rev-parse", base]), "{cwd}");
    }
}

#[test]
fn what_is_no_message_is_answered_and_the_server_goes_on() {
    let repo = Repo::new();
    let mut client = Client::start(&repo);
    let code = |client: &mut Client, line: &[u8]| {
        client.send_line(line);
        client.receive(|message| message.get("error").is_some())["error"]["code"].clone()
    };
    assert_eq!(code(&mut client, b"{"), -32700);
    assert_eq!(code(&mut client, b"\xff\xfe"), -32700);
    assert_eq!(code(&mut client, b"[]"), -32600);
    assert_eq!(code(&mut client, br#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#), -32600);
    assert_eq!(code(&mut client, br#"{"id":1,"method":"ping"}"#), -32600);
    assert_eq!(code(&mut client, br#"{"jsonrpc":"2.0","id":"a","method":"no/such"}"#), -32601);
    assert_eq!(code(&mut client, br#"{"jsonrpc":"2.0","id":"b","method":"tools/call","params":[]}"#), -32602);
    assert_eq!(code(&mut client, br#"{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{"name":7}}"#), -32602);
    let unknown = br#"{"jsonrpc":"2.0","id":"d","method":"tools/call","params":{"name":"rm"}}"#;
    assert_eq!(code(&mut client, unknown), -32602);
    assert_eq!(code(&mut client, &[b"[".repeat(100_000), b"]".repeat(100_000)].concat()), -32700);
    // Ten mebibytes that are a call are a call; what is longer than any call is refused unread.
    let long = json!({ "goal": "x".repeat(10 << 20) });
    assert!(client.refused("orchestrate", long).contains("at most 1048576 bytes"));
    let endless = b"x".repeat(17 << 20);
    assert_eq!(code(&mut client, &endless), -32600);
    // Neither is answered: one is a notification, the other nothing at all.
    client.send_line(br#"{"jsonrpc":"2.0","method":"notifications/no_such","params":3}"#);
    client.send_line(b"");
    assert_eq!(client.call("orchestrate_list", json!({}))["runs"], json!([]));
    assert_eq!(client.kept(), Vec::<Value>::new());
}

#[test]
fn a_request_before_the_handshake_is_judged_by_its_revision() {
    let repo = Repo::new();
    let mut client = Client::raw(&repo, &["mcp"]);
    client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    client.send(&json!({ "jsonrpc": "2.0", "id": 99, "result": {} }));
    assert!(client.ask("ping", json!({}))["result"].is_object());
    let early = client.ask("tools/list", json!({}));
    assert_eq!(early["error"]["code"], -32602, "{early}");
    let hello = json!({
        "protocolVersion": "1999-01-01", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" },
    });
    let answer = client.ask("initialize", hello);
    assert!(answer["result"]["protocolVersion"].as_str().unwrap() >= "2025-06-18", "{answer}");
    assert!(client.ask("tools/list", json!({}))["result"]["tools"].is_array());

    let mut newest = Client::with(&repo, Revision::Stateless, json!({}));
    let found = newest.ask("server/discover", json!({}));
    let versions = found["result"]["supportedVersions"].to_string();
    for version in ["2025-06-18", "2025-11-25", "2026-07-28"] {
        assert!(versions.contains(version), "{found}");
    }
    assert!(newest.ask("tools/list", json!({}))["result"]["tools"].is_array());
    let unknown = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2031-01-01" } });
    newest.send(&json!({ "jsonrpc": "2.0", "id": "v", "method": "tools/list", "params": unknown }));
    let refused = newest.receive(|message| message["id"] == "v");
    assert!(refused["error"].is_object(), "{refused}");
}

#[test]
fn a_command_that_the_user_has_set_may_be_named() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.worker", "acp:false --acp"]);
    let mut client = Client::start(&repo);
    let named = client.call("list_backends", json!({}))["backends"].to_string();
    assert!(named.contains("\"acp:false --acp\""), "{named}");
    let run = json!({ "goal": "x", "success_criteria": "y", "backend": "mock", "worker": "acp:false --acp" });
    let begun = client.call("orchestrate", run.clone());
    let ended = client.call("orchestrate_result", json!({ "run_id": begun["run_id"], "wait": true }));
    assert!(ended.to_string().contains("'false'"), "{ended}");
    let mut another = run;
    another["reviewer"] = json!("acp:false --other");
    assert!(client.refused("orchestrate", another).contains("argument 'reviewer': a command is the user's to name"));
}

#[test]
fn calls_are_told_apart_however_they_are_mixed() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let mut client = Client::start(&repo);
    let ids: Vec<(i64, bool)> = (0..200)
        .map(|number| {
            let (tool, arguments) = if number % 2 == 0 {
                ("orchestrate_status", json!({ "run_id": run }))
            } else {
                ("orchestrate_tail", json!({ "run_id": run, "cursor": number, "limit": 1 }))
            };
            (client.request("tools/call", json!({ "name": tool, "arguments": arguments })), number % 2 == 0)
        })
        .collect();
    for (id, is_status) in ids.into_iter().rev() {
        let answer = client.answer(id)["result"]["structuredContent"].clone();
        assert_eq!(answer.get("phase").is_some(), is_status, "{answer}");
    }
}

#[test]
fn a_repository_that_is_taken_away_is_an_error_and_one_that_comes_back_is_served() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let mut client = Client::start(&repo);
    let of = json!({ "run_id": run });
    assert_eq!(client.call("orchestrate_status", of.clone())["state"], "completed");
    let (git, aside) = (repo.path().join(".git"), repo.path().join("aside"));
    std::fs::rename(&git, &aside).unwrap();
    for (tool, arguments) in [
        ("orchestrate_status", of.clone()),
        ("orchestrate_result", of.clone()),
        ("orchestrate", json!({ "goal": "x", "backend": "mock" })),
        ("list_backends", json!({})),
    ] {
        let refused = client.refused(tool, arguments);
        assert!(refused.contains("repository"), "{tool}: {refused}");
    }
    std::fs::rename(&aside, &git).unwrap();
    assert_eq!(client.call("orchestrate_status", of.clone())["state"], "completed");
    // A ref to an object that is gone is no loss, since its reflog tells where it was; the rest is.
    let notes = git.join("refs/notes/agentloop").join(&run);
    let good = std::fs::read(&notes).unwrap();
    std::fs::write(&notes, b"rubbish").unwrap();
    assert!(client.refused("orchestrate_status", of.clone()).contains("could not be decoded"));
    std::fs::write(&notes, b"0123456789012345678901234567890123456789\n").unwrap();
    assert_eq!(client.call("orchestrate_status", of.clone())["state"], "completed");
    std::fs::write(&notes, good).unwrap();
    std::fs::rename(git.join("objects"), repo.path().join("objects")).unwrap();
    for tool in ["orchestrate_status", "orchestrate_tail", "orchestrate_result", "orchestrate_merge_preview"] {
        assert!(client.refused(tool, of.clone()).starts_with("error: "));
    }
    std::fs::rename(repo.path().join("objects"), git.join("objects")).unwrap();
    assert_eq!(client.call("orchestrate_status", of)["state"], "completed");
}

#[test]
fn a_client_that_leaves_is_no_failure() {
    let repo = Repo::new();
    let mut client = Client::raw(&repo, &["mcp"]);
    let (status, took) = client.close();
    assert!(status.success() && took < Duration::from_secs(2), "{status} {took:?}");
    for revision in REVISIONS {
        let (status, took) = Client::with(&repo, revision, json!({})).close();
        assert!(status.success() && took < Duration::from_secs(2), "{revision:?} {status} {took:?}");
    }
    let refused = Client::raw(&repo, &["mcp", "--repo", "/"]).close().0;
    assert_eq!(refused.code(), Some(2));
}

/// How a server is ended.
#[derive(Clone, Copy, Debug)]
enum End {
    Kill,
    KillGroup,
    Close,
}

/// Ends a server in the middle of a call that waits, when the run stands at `phase`; what the run comes to all the same.
fn end_at(end: End, phase: &str) {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "150"]);
    if phase == "verify" {
        repo.git(&["config", "agentloop.verify", "sleep 0.3"]);
        repo.git(&["config", "agentloop.baseline", "false"]);
    }
    if phase == "needs_input" {
        repo.git(&["config", "agentloop.mock.questions", r#"["Which?"]"#]);
    }
    let mut client = Client::with(&repo, OLDEST, json!({ "elicitation": {} }));
    let arguments = json!({ "goal": "a goal", "backend": "mock", "detach": false });
    client.request("tools/call", json!({ "name": "orchestrate", "arguments": arguments }));
    let run = wait_for("the run", || {
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        Some(listed[0]["run_id"].as_str()?.to_owned())
    });
    repo.await_status(&run, |status| status["phase"] == phase);
    let pid = Pid::from_raw(i32::try_from(client.child.id()).unwrap()).unwrap();
    match end {
        End::Kill => kill_process(pid, Signal::KILL).unwrap(),
        End::KillGroup => kill_process_group(pid, Signal::KILL).unwrap(),
        End::Close => {
            let (status, took) = client.close();
            assert!(status.success() && took < Duration::from_secs(2), "{phase}: {status} {took:?}");
        }
    }
    client.wait();
    let mut later = Client::start(&repo);
    let status = later.call("orchestrate_status", json!({ "run_id": run }));
    if phase == "needs_input" {
        let waiting = later.call("orchestrate_result", json!({ "run_id": run, "wait": true }));
        assert_eq!(waiting["status"], "needs_input", "{end:?} at {phase}");
        let token = &waiting["token"];
        let done = later.call("orchestrate_resume", json!({ "token": token, "answers": ["this"], "detach": false }));
        assert_eq!(done["status"], "completed");
        return;
    }
    assert_eq!((&status["running"], &status["state"]), (&json!(true), &json!("running")), "{end:?} at {phase}");
    let done = later.call("orchestrate_result", json!({ "run_id": run, "wait": true }));
    assert_eq!(done["status"], "completed", "{end:?} at {phase}");
    repo.assert_sound();
}

#[test]
fn a_killed_server_takes_no_run_along() {
    for phase in ["decompose", "execute", "verify", "review", "needs_input"] {
        end_at(End::Kill, phase);
    }
}

#[test]
fn a_killed_group_takes_no_run_along() {
    for phase in ["decompose", "execute", "verify", "review", "needs_input"] {
        end_at(End::KillGroup, phase);
    }
}

#[test]
fn a_closed_input_takes_no_run_along() {
    for phase in ["decompose", "execute", "verify", "review", "needs_input"] {
        end_at(End::Close, phase);
    }
}
