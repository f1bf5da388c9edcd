//! Questions of a run: by token, by elicitation, by `input_required`, by task.

use serde_json::{Value, json};

use super::client::{Client, OLDEST, Revision};
use crate::support::Repo;

const QUESTIONS: &str = r#"["Which framework?", "Which database?"]"#;

fn repo() -> Repo {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.questions", QUESTIONS]);
    repo
}

fn ask_for(goal: &str) -> Value {
    json!({ "goal": goal, "backend": "mock", "detach": false })
}

fn given_answers(repo: &Repo, run: &str) -> Value {
    let events = repo.events(run);
    events.iter().find(|event| event["kind"] == "answers_given").unwrap()["data"]["answers"].clone()
}

#[test]
fn a_token_is_a_handle_that_holds_once_and_here_alone() {
    let (repo, other) = (repo(), repo());
    let mut client = Client::start(&repo);
    let waiting = client.call("orchestrate", ask_for("build an API"));
    assert_eq!(waiting["status"], "needs_input");
    assert_eq!(waiting["questions"], json!(["Which framework?", "Which database?"]));
    let (run, token) = (waiting["run_id"].as_str().unwrap(), waiting["token"].as_str().unwrap());
    let answers = json!(["FastAPI", "Postgres"]);
    for (forged, why) in [
        (format!("{run}.forged"), "is not the one"),
        (format!("{token}x"), "is not the one"),
        (run.to_owned(), "is no token"),
        ("../x.y".to_owned(), "is no token"),
        ("x".repeat(4000), "is no token"),
        ("fix-login-3k9vqp.abc".to_owned(), "no run matches"),
    ] {
        let refused = client.refused("orchestrate_resume", json!({ "token": forged, "answers": answers }));
        assert!(refused.contains("argument 'token'") && refused.contains(why), "{refused}");
    }
    let few = client.refused("orchestrate_resume", json!({ "token": token, "answers": ["FastAPI"] }));
    assert!(few.contains("argument 'answers': 2 questions, and 1 answer"), "{few}");
    let elsewhere = Client::start(&other).refused("orchestrate_resume", json!({ "token": token, "answers": answers }));
    assert!(elsewhere.contains("no run matches"), "{elsewhere}");

    let done = client.call("orchestrate_resume", json!({ "token": token, "answers": answers, "detach": false }));
    assert_eq!((&done["status"], &done["run_id"]), (&json!("completed"), &json!(run)));
    assert_eq!(given_answers(&repo, run), answers);
    let replayed = client.refused("orchestrate_resume", json!({ "token": token, "answers": answers }));
    assert!(replayed.contains("waits with no questions; it is completed"), "{replayed}");
}

#[test]
fn a_run_that_is_answered_is_running_and_its_caller_is_told_to_poll() {
    let repo = repo();
    let mut client = Client::start(&repo);
    let waiting = client.call("orchestrate", ask_for("build an API"));
    repo.git(&["config", "agentloop.mock.delay", "30000"]);
    let answers = json!({ "token": waiting["token"], "answers": ["axum", "SQLite"] });
    let resumed = client.call("orchestrate_resume", answers);
    assert_eq!(resumed["status"], "running", "{resumed}");
    for tool in ["orchestrate_status", "orchestrate_tail"] {
        assert!(resumed["message"].as_str().unwrap().contains(tool), "{resumed}");
    }
    client.call("orchestrate_cancel", json!({ "run_id": resumed["run_id"] }));
}

#[test]
fn the_client_is_asked_where_it_can_be() {
    let repo = repo();
    for revision in [OLDEST, Revision::Session("2025-11-25")] {
        let mut client = Client::with(&repo, revision, json!({ "elicitation": {} }));
        let id = client.request("tools/call", json!({ "name": "orchestrate", "arguments": ask_for("an API") }));
        let asked = client.receive(|message| message["method"] == "elicitation/create");
        let fields = &asked["params"]["requestedSchema"]["properties"];
        assert_eq!(fields["answer_2"]["title"], "Which database?");
        assert!(asked["params"]["message"].as_str().unwrap().contains("1. Which framework?"));
        client.send(&json!({
            "jsonrpc": "2.0", "id": asked["id"],
            "result": { "action": "accept", "content": { "answer_1": "axum", "answer_2": "SQLite" } },
        }));
        let done = client.answer(id)["result"]["structuredContent"].clone();
        assert_eq!(done["status"], "completed");
        assert_eq!(given_answers(&repo, done["run_id"].as_str().unwrap()), json!(["axum", "SQLite"]));

        let id = client.request("tools/call", json!({ "name": "orchestrate", "arguments": ask_for("declined") }));
        let asked = client.receive(|message| message["method"] == "elicitation/create");
        client.send(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "decline" } }));
        assert_eq!(client.answer(id)["result"]["structuredContent"]["status"], "needs_input");

        // Somebody else is quicker: the wait goes on to the end.
        let id = client.request("tools/call", json!({ "name": "orchestrate", "arguments": ask_for("answered") }));
        client.receive(|message| message["method"] == "elicitation/create");
        let newest = client.call("orchestrate_list", json!({}))["runs"][0]["run_id"].as_str().unwrap().to_owned();
        repo.agentloop(&["answer", &newest, "a", "b"]).expect(0);
        assert_eq!(client.answer(id)["result"]["structuredContent"]["status"], "completed");
    }
}

#[test]
fn in_the_newest_revision_the_call_comes_back_with_its_answers() {
    let repo = repo();
    let mut client = Client::with(&repo, Revision::Stateless, json!({ "elicitation": { "form": {} } }));
    let asked = client.call_raw("orchestrate", ask_for("an API"));
    assert_eq!(asked["resultType"], "input_required");
    let request = &asked["inputRequests"]["answers"];
    assert_eq!(request["method"], "elicitation/create");
    let again = |state: &Value, answer: Value| {
        json!({
            "name": "orchestrate", "arguments": ask_for("an API"), "requestState": state,
            "inputResponses": { "answers": answer },
        })
    };
    let answers = json!({ "action": "accept", "content": { "answer_1": "axum", "answer_2": "SQLite" } });
    let forged = client.ask("tools/call", again(&json!("an-api-000000.x"), answers.clone()));
    assert_eq!(forged["result"]["isError"], true, "{forged}");
    let short = json!({ "action": "accept", "content": { "answer_1": "axum" } });
    let short = client.ask("tools/call", again(&asked["requestState"], short));
    assert!(short["result"]["content"][0]["text"].as_str().unwrap().contains("answer_2"), "{short}");
    let declined = client.ask("tools/call", again(&asked["requestState"], json!({ "action": "decline" })));
    assert_eq!(declined["result"]["structuredContent"]["status"], "needs_input", "{declined}");
    let done = client.ask("tools/call", again(&asked["requestState"], answers));
    assert_eq!(done["result"]["structuredContent"]["status"], "completed", "{done}");
    assert_eq!(client.call("orchestrate_list", json!({}))["runs"].as_array().unwrap().len(), 1);
}

#[test]
fn a_task_is_the_run_and_holds_after_a_restart() {
    let repo = repo();
    let tasks = json!({ "elicitation": {}, "extensions": { "io.modelcontextprotocol/tasks": {} } });
    let mut client = Client::with(&repo, Revision::Stateless, tasks.clone());
    let created = client.call_raw("orchestrate", ask_for("an API"));
    assert_eq!(created["resultType"], "task", "{created}");
    let task = created["taskId"].as_str().unwrap().to_owned();
    assert_eq!(client.call("orchestrate_status", json!({ "run_id": task }))["run_id"], task);
    drop(client);

    let mut client = Client::with(&repo, Revision::Stateless, tasks);
    let wait_for = |client: &mut Client, status: &str| {
        crate::support::wait_for(status, || {
            let got = client.ask("tasks/get", json!({ "taskId": task }))["result"].clone();
            assert!(
                got["pollIntervalMs"].as_u64().is_some() && got["createdAt"].as_str().unwrap().ends_with('Z'),
                "{got}"
            );
            (got["status"] == status).then_some(got)
        })
    };
    let waiting = wait_for(&mut client, "input_required");
    assert_eq!(waiting["inputRequests"]["answers"]["method"], "elicitation/create");
    let answers = json!({ "answers": { "action": "accept", "content": { "answer_1": "a", "answer_2": "b" } } });
    let none = client.ask("tasks/update", json!({ "taskId": task, "inputResponses": {} }));
    assert_eq!(none["error"]["code"], -32602, "{none}");
    let updated = client.ask("tasks/update", json!({ "taskId": task, "inputResponses": answers }));
    assert!(updated["result"].is_object(), "{updated}");
    let done = wait_for(&mut client, "completed");
    assert_eq!(done["result"]["structuredContent"]["status"], "completed");
    assert!(done["statusMessage"].as_str().unwrap().contains("goal_complete"), "{done}");
    let unknown = client.ask("tasks/get", json!({ "taskId": "no-such-000000" }));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
}

#[test]
fn a_task_can_be_stopped_and_is_given_to_nobody_else() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.delay", "300"]);
    let tasks = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
    let mut client = Client::with(&repo, Revision::Stateless, tasks);
    let created = client.call_raw("orchestrate", ask_for("a goal"));
    let task = created["taskId"].as_str().unwrap();
    assert_eq!(client.ask("tasks/get", json!({ "taskId": task }))["result"]["status"], "working");
    assert!(client.ask("tasks/cancel", json!({ "taskId": task }))["result"].is_object());
    repo.await_status(task, |status| status["state"] == "cancelled");
    assert_eq!(client.ask("tasks/get", json!({ "taskId": task }))["result"]["status"], "cancelled");

    let wrong = client.ask("tasks/cancel", json!({ "taskId": 7 }));
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");

    let mut other = Client::with(&repo, Revision::Stateless, json!({}));
    let refused = other.ask("tasks/get", json!({ "taskId": task }));
    assert_eq!(refused["error"]["code"], -32021, "{refused}");
}
