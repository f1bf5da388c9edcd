//! The MCP server: how soon it is there, what a call takes, and what it holds while many runs are watched.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::{Aim, Row, Times, pairs, times};
use crate::record::repository_of;
use crate::scratch::{PROGRAM, Scratch};

/// Runs that are watched at once, and how often a second one of them is asked about, for how long.
const RUNS: usize = 16;
const CALLS: u32 = 200;
const SECONDS: u32 = 10;

/// A server, and a client that asks one thing at a time.
struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u64,
}

impl Server {
    /// A server that has answered `initialize`.
    fn start(scratch: &Scratch) -> Self {
        let mut child =
            scratch.command(PROGRAM).arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, input, output, asked: 0 };
        let client = json!({ "name": "bench", "version": "1" });
        server.ask("initialize", &json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client }));
        server
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let message = json!({ "jsonrpc": "2.0", "id": self.asked, "method": method, "params": params });
        self.input.write_all(format!("{message}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], self.asked, "{line}");
        answer["result"].clone()
    }

    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        let result = self.ask("tools/call", &json!({ "name": tool, "arguments": arguments }));
        assert_eq!(result["isError"], false, "{result}");
        result["structuredContent"].clone()
    }

    /// Bytes that the process holds; `VmRSS` of proc(5).
    fn held(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn calls() -> Vec<Row> {
    let (scratch, newest) = repository_of(1_000);
    scratch.git(&[
        "config",
        "agentloop.mock.plan",
        &json!((0..32).map(|n| n.to_string()).collect::<Vec<_>>()).to_string(),
    ]);
    let long = scratch.agentloop(&["run", "many events", "--backend", "mock"])["run_id"].clone();
    let begin = pairs(60, || drop(Server::start(&scratch)), || scratch.run("true", &[]));
    let mut server = Server::start(&scratch);
    let of = json!({ "run_id": newest.as_str() });
    let status = times(2_000, || drop(server.call("orchestrate_status", &of)));
    let page = json!({ "run_id": long, "cursor": 20, "limit": 200 });
    let tail = times(300, || {
        assert_eq!(server.call("orchestrate_tail", &page)["events"].as_array().unwrap().len(), 200);
    });
    let started = times(20, || drop(server.call("orchestrate", &json!({ "goal": "a goal", "backend": "mock" }))));
    vec![
        Row::pairs("mcp: initialize is answered after spawn / true", &begin, Aim::Median(Duration::from_millis(10))),
        Row::times("mcp: orchestrate_status beside 1,000 runs", &status, Aim::Median(Duration::from_micros(300))),
        Row::times("mcp: orchestrate_tail of 200 events", &tail, Aim::Median(Duration::from_millis(2))),
        Row::times("mcp: orchestrate returns", &started, Aim::Median(Duration::from_millis(200))),
        Row::bytes("mcp: memory of the server after these", server.held(), Aim::Mebibytes(15.0)),
    ]
}

pub fn load() -> Vec<Row> {
    let scratch = Scratch::new();
    // Six roles and workers a run, so that each lasts longer than the measurement.
    scratch.git(&["config", "agentloop.mock.delay", "1500"]);
    let mut server = Server::start(&scratch);
    let start = |server: &mut Server| {
        server.call("orchestrate", &json!({ "goal": "a goal", "backend": "mock" }))["run_id"].clone()
    };
    let runs: Vec<Value> = (0..RUNS).map(|_| start(&mut server)).collect();
    let before = server.held();
    let begun = Instant::now();
    let mut taken = Vec::new();
    for number in 0..CALLS * SECONDS {
        std::thread::sleep((begun + Duration::from_secs(1) / CALLS * number).saturating_duration_since(Instant::now()));
        let asked = Instant::now();
        let status = server.call("orchestrate_status", &json!({ "run_id": runs[number as usize % RUNS] }));
        taken.push(asked.elapsed());
        assert_ne!(status["state"], "interrupted");
    }
    let after = server.held();
    for run in &runs {
        let done = server.call("orchestrate_result", &json!({ "run_id": run, "wait": true }));
        assert_eq!(done["status"], "completed", "{run} was lost");
    }
    vec![
        Row::times(
            "mcp: a call of 200 a second for 10 s, beside 16 runs",
            &Times::of(taken),
            Aim::Tail(Duration::from_millis(50)),
        ),
        Row::bytes("mcp: memory of the server with 16 runs started", before, Aim::Mebibytes(15.0)),
        Row::bytes("mcp: memory after 2,000 calls more", after, Aim::Mebibytes(15.0)),
    ]
}
