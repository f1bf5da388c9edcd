//! Every tool, in every revision; what waiting does and does not do.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Client, OLDEST, REVISIONS};
use crate::support::{Repo, wait_for};

/// A repository whose mock runs edit a file and take a while.
fn repo(delay: u32) -> Repo {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "out/{subgoal}.txt={iteration}\n"]);
    repo.git(&["config", "agentloop.mock.delay", &delay.to_string()]);
    repo
}

fn start(client: &mut Client, goal: &str) -> String {
    let started = client.call("orchestrate", json!({ "goal": goal, "backend": "mock" }));
    started["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn every_tool_answers_in_every_revision() {
    let repo = repo(5);
    for revision in REVISIONS {
        let mut client = Client::with(&repo, revision, json!({}));
        let started = client.call(
            "orchestrate",
            json!({ "goal": "say hello", "backend": "mock", "verify_commands": ["test -f out/build.txt"] }),
        );
        let run = started["run_id"].as_str().unwrap().to_owned();
        assert_eq!(started["branch"], format!("agentloop/{run}"));
        assert_eq!(started["tail_command"], format!("git agentloop tail -f {run}"));
        assert_eq!(client.call("orchestrate_status", json!({ "run_id": run }))["run_id"], run);

        let done = client.call("orchestrate_result", json!({ "run_id": run, "wait": true, "timeout": 60 }));
        assert_eq!(
            (&done["status"], &done["completed"], &done["iterations"]),
            (&json!("completed"), &json!(true), &json!(2))
        );
        assert_eq!(done["history"][1]["verification"][0]["ok"], true);
        assert_eq!(done, repo.agentloop(&["result", &run, "--json"]).expect(0).json());
        let status = client.call("orchestrate_status", json!({ "run_id": run }));
        assert_eq!(status, repo.status(&run));

        let mut events = Vec::new();
        let mut cursor = 0;
        loop {
            let page = client.call("orchestrate_tail", json!({ "run_id": run, "cursor": cursor, "limit": 7 }));
            cursor = page["cursor"].as_u64().unwrap();
            events.extend(page["events"].as_array().unwrap().clone());
            if page["more"] == false {
                break;
            }
            assert_eq!(page["events"].as_array().unwrap().len(), 7);
        }
        assert_eq!(events, repo.events(&run));

        let first =
            client.call("orchestrate_output", json!({ "run_id": run, "iteration": 1, "subgoal": "build", "limit": 9 }));
        let rest = client.call(
            "orchestrate_output",
            json!({ "run_id": run, "iteration": 1, "subgoal": "build", "cursor": first["cursor"] }),
        );
        let text = format!("{}{}", first["text"].as_str().unwrap(), rest["text"].as_str().unwrap());
        assert_eq!(text, repo.agentloop(&["output", &run, "iter1/build"]).expect(0).stdout);
        assert_eq!((&first["more"], &rest["more"]), (&json!(true), &json!(false)));

        let preview = client.call("orchestrate_merge_preview", json!({ "run_id": run }));
        assert_eq!(preview["command"], format!("git agentloop merge {run}"));
        assert_eq!((&preview["conflicts"], &preview["into"]), (&json!([]), &json!("main")));
        assert_eq!(preview["diffstat"], "3 files changed, +3 -0");

        let listed = client.call("orchestrate_list", json!({}));
        assert_eq!(listed["runs"], repo.agentloop(&["list", "--json"]).expect(0).json());
        let backends = client.call("list_backends", json!({}));
        assert!(backends["backends"].as_array().unwrap().iter().any(|backend| backend["name"] == "mock"));
        repo.git(&["config", "agentloop.timeout", "90s"]);
        let asked = |cwd: &str| json!({ "cwd": cwd });
        let mut of = |cwd: &str| client.call("doctor", asked(cwd))["cwd"].clone();
        let home = repo.path().canonicalize().unwrap();
        let inside = json!({ "path": home.join("folder"), "outside": false, "exists": true, "readable": true,
                             "writable": true, "repository": home });
        std::fs::create_dir_all(repo.path().join("folder")).unwrap();
        assert_eq!(of("folder"), inside);
        let gone = of("no/such/dir");
        assert_eq!((&gone["exists"], &gone["writable"]), (&json!(false), &json!(false)), "{gone}");
        // Of what is elsewhere it tells nothing, not even whether it is there.
        for outside in ["/", "/no/such/dir", "..", "../nowhere", repo.home().to_str().unwrap()] {
            assert_eq!(of(outside), json!({ "path": outside, "outside": true }));
        }
        let doctor = client.call("doctor", asked("."));
        assert_eq!(doctor["timeouts"], json!({ "call": 90.0, "check": null, "setup": null, "run": null }));
        assert!(doctor["recommendations"].is_array(), "{doctor}");
        assert!(
            doctor["checks"].as_array().unwrap().iter().any(|check| check["name"] == "git" && check["state"] == "ok")
        );
        let ended = client.refused("orchestrate_cancel", json!({ "run_id": run }));
        assert!(ended.contains("has ended: completed"), "{ended}");
    }
    repo.assert_sound();
}

#[test]
fn what_the_user_should_know_is_told_with_the_start() {
    let repo = repo(1);
    let mut client = Client::start(&repo);
    let checked = json!({ "goal": "a goal", "backend": "mock", "verify_commands": ["true"] });
    let plain = client.call("orchestrate", checked.clone());
    assert_eq!(plain["notices"], Value::Null, "{plain}");
    repo.write("README", "changed\n");
    let told = client.call("orchestrate", checked);
    assert_eq!(told["notices"], json!(["uncommitted changes in your checkout are not part of the run"]), "{told}");
    for run in [plain, told] {
        repo.await_status(run["run_id"].as_str().unwrap(), |status| status["running"] == false);
    }
}

#[test]
fn what_is_listed_says_how_it_is_called_and_what_it_gives() {
    let mut client = Client::start(&Repo::new());
    let tools = client.ask("tools/list", json!({}))["result"]["tools"].clone();
    let names: Vec<&str> = tools.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    for name in ["orchestrate", "orchestrate_resume", "orchestrate_status", "orchestrate_tail", "orchestrate_result"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let orchestrate = tools.as_array().unwrap().iter().find(|tool| tool["name"] == "orchestrate").unwrap();
    let arguments = &orchestrate["inputSchema"]["properties"];
    for (name, default) in [
        ("success_criteria", json!("")),
        ("backend", json!("auto")),
        ("max_iterations", json!(4)),
        ("skip_permissions", json!(false)),
        ("isolate", json!(true)),
        ("playwright", json!(false)),
        ("detach", json!(true)),
    ] {
        assert_eq!(arguments[name]["default"], default, "{name}");
    }
    let read_only = |tool: &Value| tool["annotations"]["readOnlyHint"] == true;
    for tool in tools.as_array().unwrap() {
        let writes =
            ["orchestrate", "orchestrate_resume", "orchestrate_continue", "orchestrate_steer", "orchestrate_cancel"]
                .contains(&tool["name"].as_str().unwrap());
        assert_eq!(read_only(tool), !writes, "{tool}");
        assert_eq!(tool["annotations"]["destructiveHint"], tool["name"] == "orchestrate_cancel");
    }
}

#[test]
fn a_call_that_waits_tells_how_far_it_is_and_holds_no_other_up() {
    let repo = repo(40);
    let mut client = Client::start(&repo);
    let id = client.request(
        "tools/call",
        json!({
            "name": "orchestrate",
            "arguments": { "goal": "a goal", "backend": "mock", "detach": false },
            "_meta": { "progressToken": "p" },
        }),
    );
    let first = client.receive(|message| message["method"] == "notifications/progress");
    let run = client.call("orchestrate_list", json!({}))["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let asked = Instant::now();
    assert_eq!(client.call("orchestrate_status", json!({ "run_id": run }))["running"], true);
    assert!(asked.elapsed() < Duration::from_secs(1));

    let done = client.answer(id)["result"]["structuredContent"].clone();
    assert_eq!((&done["run_id"], &done["status"]), (&json!(run), &json!("completed")));
    let mut told = vec![first];
    told.extend(client.kept().into_iter().filter(|message| message["method"] == "notifications/progress"));
    let params = |name: &str| told.iter().map(|note| note["params"][name].clone()).collect::<Vec<_>>();
    let progress: Vec<f64> = params("progress").iter().map(|it| it.as_f64().unwrap()).collect();
    assert!(progress.windows(2).all(|two| two[0] < two[1]), "{progress:?}");
    let totals = params("total");
    assert!(totals.iter().all(|total| *total == totals[0]), "{totals:?}");
    assert_eq!(progress.last().copied(), totals[0].as_f64());
    let messages = params("message").iter().map(|it| it.as_str().unwrap().to_owned()).collect::<Vec<_>>().join("\n");
    for wanted in ["iteration 1/4, execute", "iteration 2/4, review", "completed: goal_complete"] {
        assert!(messages.contains(wanted), "{messages}");
    }
}

#[test]
fn a_wait_that_is_cancelled_ends_and_the_run_does_not() {
    let repo = repo(100);
    let mut client = Client::start(&repo);
    let id = client.request(
        "tools/call",
        json!({ "name": "orchestrate", "arguments": { "goal": "a goal", "backend": "mock", "detach": false } }),
    );
    let run = wait_for("the run", || {
        let listed = client.call("orchestrate_list", json!({}));
        Some(listed["runs"][0]["run_id"].as_str()?.to_owned())
    });
    client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } }));
    assert_eq!(client.call("orchestrate_status", json!({ "run_id": run }))["running"], true);
    let timed_out = client.call("orchestrate_result", json!({ "run_id": run, "wait": true, "timeout": 0.05 }));
    assert_eq!(timed_out["status"], "running");
    let done = client.call("orchestrate_result", json!({ "run_id": run, "wait": true }));
    assert_eq!(done["status"], "completed");
    assert!(client.kept().iter().all(|message| message["id"] != id), "a cancelled call is not answered");
}

#[test]
fn a_run_is_stopped_with_its_work_kept() {
    let repo = repo(200);
    let mut client = Client::start(&repo);
    let run = start(&mut client, "a long goal");
    repo.await_status(&run, |status| status["phase"] == "execute");
    let status = client.call("orchestrate_cancel", json!({ "run_id": run }));
    assert_eq!((&status["state"], &status["running"]), (&json!("cancelled"), &json!(false)));
    assert_eq!(client.call("orchestrate_result", json!({ "run_id": run }))["status"], "cancelled");
}

#[test]
fn a_run_that_stopped_goes_on_and_one_that_runs_is_guided() {
    let repo = repo(100);
    let mut client = Client::start(&repo);
    let given = json!({ "goal": "a goal", "backend": "mock", "max_iterations": 1, "detach": false });
    let spent = client.call("orchestrate", given);
    assert_eq!(spent["stop_reason"], "max_iterations");
    let run = spent["run_id"].clone();

    let refused = client.refused("orchestrate_continue", json!({ "run_id": run }));
    assert!(refused.contains("has spent its budget: max_iterations"), "{refused}");
    let unheard = client.refused("orchestrate_steer", json!({ "run_id": run, "guidance": "keep the API" }));
    assert!(unheard.contains("is not running"), "{unheard}");
    let going = client.call("orchestrate_continue", json!({ "run_id": run, "max_iterations": 3 }));
    assert_eq!((&going["run_id"], &going["status"]), (&run, &json!("running")));
    let steered = client.call("orchestrate_steer", json!({ "run_id": run, "guidance": "keep the API" }));
    assert_eq!((&steered["run_id"], &steered["running"]), (&run, &json!(true)));
    assert_eq!(client.call("orchestrate_cancel", json!({ "run_id": run }))["state"], "cancelled");
    let done = client.call("orchestrate_continue", json!({ "run_id": run, "detach": false }));
    assert_eq!(done["status"], "completed");
    // By the second iteration's plan, or by that of one more.
    let events = repo.events(run.as_str().unwrap());
    let heard = events.iter().rfind(|event| event["kind"] == "iteration_started").unwrap();
    assert!(heard["data"]["feedback"].as_str().unwrap().contains("The user says: keep the API"), "{heard}");
    let over = client.refused("orchestrate_continue", json!({ "run_id": run }));
    assert!(over.contains("has reached its goal"), "{over}");
    repo.assert_sound();
}

#[test]
fn servers_see_each_others_runs_as_they_are() {
    let repo = repo(100);
    let (mut one, mut two) = (Client::start(&repo), Client::with(&repo, OLDEST, json!({})));
    let run = start(&mut one, "a goal");
    assert_eq!(two.call("orchestrate_status", json!({ "run_id": run }))["state"], "running");
    assert_eq!(two.call("orchestrate_list", json!({}))["runs"][0]["running"], true);
    let done = two.call("orchestrate_result", json!({ "run_id": run, "wait": true }));
    assert_eq!(done, one.call("orchestrate_result", json!({ "run_id": run, "wait": true })));
}

#[test]
fn the_user_s_settings_and_the_caller_decide_what_is_left_open() {
    let repo = repo(0);
    repo.git(&["config", "agentloop.maxIterations", "3"]);
    repo.git(&["config", "agentloop.backend", "mock"]);
    repo.git(&["config", "agentloop.verify", "true"]);
    let mut client = Client::start(&repo);
    let options = |client: &mut Client, arguments: Value| {
        let run = client.call("orchestrate", arguments)["run_id"].as_str().unwrap().to_owned();
        client.call("orchestrate_result", json!({ "run_id": run, "wait": true }));
        client.call("orchestrate_tail", json!({ "run_id": run, "limit": 1 }))["events"][0]["data"]["options"].clone()
    };
    let set = options(&mut client, json!({ "goal": "x" }));
    assert_eq!((&set["budget"]["max_iterations"], &set["agent"]["backend"]), (&json!(3), &json!("mock")));
    assert_eq!((&set["checks"][0]["name"], &set["asking"]), (&json!("true"), &json!("suspend")));
    let given = json!({
        "goal": "x", "max_iterations": 5.0, "verify_commands": ["echo 'a b'"], "timeout": 9, "ask": false, "jobs": 1,
        "permissions": "ask", "isolation": "shared", "playwright": false, "max_cost": 1.5, "model": null,
    });
    let given = options(&mut client, given);
    assert_eq!((&given["budget"]["max_iterations"], &given["budget"]["max_cost"]), (&json!(5), &json!(1.5)));
    assert_eq!(given["checks"][0]["argv"], json!(["echo", "a b"]));
    assert_eq!((&given["asking"], &given["permissions"], &given["jobs"]), (&json!("never"), &json!("ask"), &json!(1)));
    assert_eq!((&given["isolation"], &set["isolation"]), (&json!("shared"), &json!("worktree")));
    // A setting that changes while the server runs holds from then on.
    repo.git(&["config", "agentloop.maxIterations", "7"]);
    assert_eq!(options(&mut client, json!({ "goal": "x" }))["budget"]["max_iterations"], 7);
}
