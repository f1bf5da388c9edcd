//! Runs as resources: listed, read, completed, and watched.

use serde_json::{Value, json};

use super::client::{Client, REVISIONS, Revision};
use crate::support::Repo;

fn repo() -> Repo {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "out/{subgoal}.txt={iteration}\n"]);
    repo
}

fn read(client: &mut Client, uri: &str) -> String {
    let answer = client.ask("resources/read", json!({ "uri": uri }));
    let contents = &answer["result"]["contents"][0];
    assert_eq!(contents["uri"], uri, "{answer}");
    contents["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_run_s_result_events_diff_and_transcripts_can_be_read() {
    let repo = repo();
    let run = repo.mock_run("say hello", &[])["run_id"].as_str().unwrap().to_owned();
    for revision in REVISIONS {
        let mut client = Client::with(&repo, revision, json!({}));
        let listed = client.ask("resources/list", json!({}))["result"]["resources"].clone();
        let uri = format!("agentloop://run/{run}");
        assert_eq!((&listed[0]["uri"], &listed[0]["title"]), (&json!(uri), &json!("say hello")));
        assert_eq!(listed[0]["description"], "completed: goal_complete");
        let result: Value = serde_json::from_str(&read(&mut client, &uri)).unwrap();
        assert_eq!(result, repo.agentloop(&["result", &run, "--json"]).expect(0).json());
        let events = read(&mut client, &format!("{uri}/events"));
        let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(events, repo.events(&run));
        assert!(read(&mut client, &format!("{uri}/diff")).contains("+++ b/out/build.txt"));
        let output = repo.agentloop(&["output", &run, "iter2/build"]).expect(0).stdout;
        assert_eq!(read(&mut client, &format!("{uri}/output/2/build")), output);
        let missing = if revision == Revision::Stateless { -32602 } else { -32002 };
        for uri in ["agentloop://run/no-such-run", "agentloop://run/../x", "file:///etc/passwd", ""] {
            let none = client.ask("resources/read", json!({ "uri": uri }));
            assert_eq!(none["error"]["code"], missing, "{none}");
        }
    }
    // It has worked on each subgoal in two iterations.
    let reference = json!({ "type": "ref/resource", "uri": "agentloop://run/{run_id}/output/{iteration}/{subgoal}" });
    let argument = json!({ "name": "subgoal", "value": "" });
    let params = json!({ "ref": reference, "argument": argument, "context": { "arguments": { "run_id": run } } });
    let completed = Client::start(&repo).ask("completion/complete", params)["result"]["completion"].clone();
    let mut names: Vec<&str> = completed["values"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!((&names[..], &completed["total"]), (&["build", "explore", "verify"][..], &json!(3)), "{completed}");
}

#[test]
fn a_long_list_comes_in_pages_and_ids_are_completed() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.acceptIteration", "1"]);
    let first = repo.mock_run("first of all", &[])["run_id"].as_str().unwrap().to_owned();
    // Runs that differ in nothing but their ids: what is listed is the ref.
    let tip = repo.git(&["rev-parse", &format!("refs/notes/agentloop/{first}")]);
    let copies: Vec<String> =
        (0..250).map(|number| format!("create refs/notes/agentloop/copy-{number:06} {tip}\n")).collect();
    let mut git =
        repo.command("git").args(["update-ref", "--stdin"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut git.stdin.take().unwrap(), copies.concat().as_bytes()).unwrap();
    assert!(git.wait().unwrap().success());

    let mut client = Client::start(&repo);
    let (mut names, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let page = client.ask("resources/list", params)["result"].clone();
        names.extend(page["resources"].as_array().unwrap().iter().map(|run| run["name"].as_str().unwrap().to_owned()));
        cursor = page["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(names.len(), 251);
    names.dedup();
    assert_eq!(names.len(), 251);
    let wrong = client.ask("resources/list", json!({ "cursor": "nowhere" }));
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");

    let template =
        client.ask("resources/templates/list", json!({}))["result"]["resourceTemplates"][3]["uriTemplate"].clone();
    let complete = |client: &mut Client, name: &str, value: &str, context: Value| {
        let reference = json!({ "type": "ref/resource", "uri": template });
        let argument = json!({ "name": name, "value": value });
        let params = json!({ "ref": reference, "argument": argument, "context": { "arguments": context } });
        client.ask("completion/complete", params)["result"]["completion"].clone()
    };
    let many = complete(&mut client, "run_id", "copy-", json!({}));
    assert_eq!(
        (many["values"].as_array().unwrap().len(), &many["total"], &many["hasMore"]),
        (100, &json!(250), &json!(true))
    );
    assert_eq!(complete(&mut client, "run_id", "fir", json!({}))["values"], json!([first]));
    assert_eq!(complete(&mut client, "iteration", "", json!({ "run_id": first }))["values"], json!(["1"]));
    let subgoals = complete(&mut client, "subgoal", "b", json!({ "run_id": first, "iteration": "1" }));
    assert_eq!(subgoals["values"], json!(["build"]));
}

#[test]
fn a_look_that_takes_its_time_holds_no_call_up() {
    use std::os::unix::fs::OpenOptionsExt as _;
    let repo = repo();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let mut client = Client::start(&repo);
    let uri = format!("agentloop://run/{run}");
    client.ask("resources/subscribe", json!({ "uri": uri }));
    client.receive(|message| message["method"] == "notifications/resources/updated");
    // Whoever reads a pipe waits for who writes.
    let tip = repo.path().join(format!(".git/refs/notes/agentloop/{run}"));
    repo.git(&["pack-refs", "--all"]);
    assert!(!tip.exists());
    std::fs::create_dir_all(tip.parent().unwrap()).unwrap();
    assert!(repo.command("mkfifo").arg(&tip).status().unwrap().success());
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let open = || std::fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&tip).ok();
    let _written = crate::support::wait_for("a look", open);
    assert!(client.ask("tools/list", json!({}))["result"]["tools"].is_array());
}

#[test]
fn who_subscribed_hears_of_changes() {
    for revision in REVISIONS {
        let repo = repo();
        repo.git(&["config", "agentloop.mock.delay", "100"]);
        let mut client = Client::with(&repo, revision, json!({}));
        let start = |client: &mut Client| {
            let started = client.call("orchestrate", json!({ "goal": "a goal", "backend": "mock" }));
            format!("agentloop://run/{}", started["run_id"].as_str().unwrap())
        };
        let uri = start(&mut client);
        let events = format!("{uri}/events");
        if revision == Revision::Stateless {
            let filter = json!({ "resourcesListChanged": true, "resourceSubscriptions": [uri, events, "file:///x"] });
            client.request("subscriptions/listen", json!({ "notifications": filter }));
            let agreed = client.receive(|message| message["method"] == "notifications/subscriptions/acknowledged");
            let agreed = &agreed["params"]["notifications"];
            assert_eq!(agreed["resourceSubscriptions"], json!([uri, events]), "{agreed}");
        } else {
            client.ask("resources/list", json!({}));
            for uri in [&uri, &events] {
                assert!(client.ask("resources/subscribe", json!({ "uri": uri }))["result"].is_object());
            }
            let unknown = client.ask("resources/subscribe", json!({ "uri": "agentloop://run/no-such-000000" }));
            assert_eq!(unknown["error"]["code"], -32002);
        }
        for uri in [&uri, &events, &uri, &events] {
            client.receive(|message| {
                message["method"] == "notifications/resources/updated" && message["params"]["uri"] == **uri
            });
        }
        start(&mut client);
        client.receive(|message| message["method"] == "notifications/resources/list_changed");
        if revision != Revision::Stateless {
            assert!(client.ask("resources/unsubscribe", json!({ "uri": events }))["result"].is_object());
        }
        assert!(client.close().1 < std::time::Duration::from_secs(2));
    }
}
