//! A client that sends and does not read.

use std::io::{BufRead as _, BufReader, ErrorKind, PipeWriter, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{PROGRAM, Repo, wait_for};

/// Requests that a client sends without reading an answer.
const REQUESTS: usize = 25_000;
/// Most memory that they may cost the server, in KiB.
const MEMORY: u64 = 96 * 1024;
/// A client that could not write for so long is held up.
const HELD_UP: Duration = Duration::from_secs(1);

/// A server, and the end of a pipe that gives up rather than wait.
fn start(repo: &Repo) -> (Child, PipeWriter) {
    let (input, sender) = std::io::pipe().unwrap();
    let flags = rustix::fs::fcntl_getfl(&sender).unwrap();
    rustix::fs::fcntl_setfl(&sender, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut command = repo.command(PROGRAM);
    let child = command.arg("mcp").stdin(input).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    (child, sender)
}

/// Sends `message`; `false` where the server does not read it.
fn send(sender: &mut PipeWriter, message: &Value) -> bool {
    let line = format!("{message}\n");
    let (mut rest, mut since) = (line.as_bytes(), Instant::now());
    while !rest.is_empty() {
        match sender.write(rest) {
            Ok(written) => (rest, since) = (&rest[written..], Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if since.elapsed() > HELD_UP {
                    return false;
                }
                std::thread::yield_now();
            }
            Err(error) => panic!("{error}"),
        }
    }
    true
}

fn greeting() -> [Value; 2] {
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client });
    [
        json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params }),
        json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }),
    ]
}

fn call(id: usize, tool: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "arguments": arguments } })
}

/// KiB that the process holds; `VmRSS` of proc(5).
fn held(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    line.unwrap().trim().parse().unwrap()
}

#[test]
fn a_client_that_never_reads_costs_bounded_memory_and_its_end_is_heard() {
    let repo = Repo::new();
    let of = json!({ "run_id": repo.mock_run("a goal", &[])["run_id"] });
    let (mut child, mut sender) = start(&repo);
    assert!(greeting().iter().all(|message| send(&mut sender, message)));
    let sent = (1..=REQUESTS).take_while(|id| send(&mut sender, &call(*id, "orchestrate_tail", &of)));
    let sent = sent.count();
    assert!(sent < REQUESTS, "the server reads on although nobody reads its answers");
    let held = held(&child);
    assert!(held < MEMORY, "{sent} requests cost {held} KiB");
    drop(sender);
    wait_for("the end of the server", || child.try_wait().unwrap());
}

#[test]
fn a_server_outside_of_a_repository_greets_and_says_how_to_name_one() {
    let repo = Repo::new();
    let mut command = repo.command(PROGRAM);
    let mut child = command.current_dir("/").arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for message in
        greeting().iter().chain([&call(1, "orchestrate_list", &json!({})), &call(2, "list_backends", &json!({}))])
    {
        writeln!(input, "{message}").unwrap();
    }
    let mut answers: Vec<Value> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .take(3)
        .collect();
    answers.sort_by_key(|answer| answer["id"].as_u64());
    assert_eq!(answers[0]["result"]["protocolVersion"], "2025-06-18", "{answers:?}");
    for answer in &answers[1..] {
        let text = answer["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("started in '/'") && text.contains("mcp --repo DIR"), "{text}");
    }
    drop(input);
    wait_for("the end of the server", || child.try_wait().unwrap());
}

#[test]
fn a_client_that_reads_late_gets_every_answer_but_those_that_it_cancelled() {
    let repo = Repo::new();
    let of = json!({ "run_id": repo.mock_run("a goal", &[])["run_id"] });
    let (mut child, mut sender) = start(&repo);
    assert!(greeting().iter().all(|message| send(&mut sender, message)));
    let requests = 200;
    for id in 1..=requests {
        assert!(send(&mut sender, &call(id, "orchestrate_tail", &of)));
    }
    // The last is not taken yet: nothing of it may be done.
    let params = json!({ "requestId": requests });
    assert!(send(&mut sender, &json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params })));
    assert!(send(&mut sender, &json!({ "jsonrpc": "2.0", "id": "last", "method": "ping" })));
    let mut answered: Vec<Value> = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = |answered: &mut Vec<Value>| -> bool {
        let Some(line) = lines.next() else { return false };
        let message: Value = serde_json::from_str(&line.unwrap()).unwrap();
        answered.extend(Some(message["id"].clone()).filter(|id| !id.is_null()));
        true
    };
    // The greeting's answer, those of all but one request, and the last.
    while answered.len() < requests + 1 {
        assert!(read(&mut answered), "the server ended early: {answered:?}");
    }
    drop(sender);
    while read(&mut answered) {}
    for id in 1..requests {
        assert_eq!(answered.iter().filter(|it| **it == json!(id)).count(), 1, "{id} in {answered:?}");
    }
    assert!(!answered.contains(&json!(requests)), "a request that was cancelled has an answer");
    wait_for("the end of the server", || child.try_wait().unwrap());
}
