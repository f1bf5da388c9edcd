//! A client that speaks JSON-RPC to the server as a process, line by line, so that it can also send what no client would.
#![allow(clippy::needless_pass_by_value, reason = "arguments are written where they are sent")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{PROGRAM, Repo};

/// Nothing takes this long.
const PATIENCE: Duration = Duration::from_mins(1);

/// A revision of the protocol, and how a client speaks in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// With a handshake: 2025-06-18 or 2025-11-25.
    Session(&'static str),
    /// 2026-07-28: every request says who asks.
    Stateless,
}

pub const OLDEST: Revision = Revision::Session("2025-06-18");
pub const REVISIONS: [Revision; 3] = [OLDEST, Revision::Session("2025-11-25"), Revision::Stateless];

/// A server, and what it sent that nobody has asked for yet.
pub struct Client {
    pub child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    kept: VecDeque<Value>,
    next: i64,
    revision: Revision,
    capabilities: Value,
}

impl Client {
    /// A server of `repo`, past the handshake.
    pub fn start(repo: &Repo) -> Self {
        Self::with(repo, OLDEST, json!({}))
    }

    /// The same in a revision, with what the client can do.
    pub fn with(repo: &Repo, revision: Revision, capabilities: Value) -> Self {
        let mut client = Self::raw(repo, &["mcp"]);
        client.revision = revision;
        client.capabilities = capabilities;
        if let Revision::Session(version) = revision {
            let answer = client.ask(
                "initialize",
                json!({
                    "protocolVersion": version,
                    "capabilities": client.capabilities,
                    "clientInfo": { "name": "test", "version": "1" },
                }),
            );
            assert_eq!(answer["result"]["protocolVersion"], version, "{answer}");
            client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        }
        client
    }

    /// A server to which nothing was said yet, in a process group of its own as hosts start it.
    pub fn raw(repo: &Repo, arguments: &[&str]) -> Self {
        use std::os::unix::process::CommandExt as _;
        let mut command = repo.command(PROGRAM);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON-RPC: {line}"));
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let stdin = child.stdin.take();
        let capabilities = json!({});
        Self { child, stdin, lines, kept: VecDeque::new(), next: 0, revision: OLDEST, capabilities }
    }

    pub fn send_line(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line).and_then(|()| stdin.write_all(b"\n")).and_then(|()| stdin.flush()).unwrap();
    }

    pub fn send(&mut self, message: &Value) {
        self.send_line(message.to_string().as_bytes());
    }

    /// Sends a request without waiting for what it comes to; its id.
    pub fn request(&mut self, method: &str, mut params: Value) -> i64 {
        self.next += 1;
        if self.revision == Revision::Stateless {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": "test", "version": "1" });
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        }
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next, "method": method, "params": params }));
        self.next
    }

    /// The next message that `wanted` says yes to; others are kept.
    #[track_caller]
    pub fn receive(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at).unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message =
                self.lines.recv_timeout(left).unwrap_or_else(|error| panic!("{error}; kept: {:?}", self.kept));
            if wanted(&message) {
                return message;
            }
            self.kept.push_back(message);
        }
    }

    /// What the request `id` comes to.
    #[track_caller]
    pub fn answer(&mut self, id: i64) -> Value {
        self.receive(|message| message["id"] == id && message.get("method").is_none())
    }

    #[track_caller]
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        self.answer(id)
    }

    /// What was sent so far and is still kept.
    pub fn kept(&mut self) -> Vec<Value> {
        while let Ok(message) = self.lines.try_recv() {
            self.kept.push_back(message);
        }
        self.kept.drain(..).collect()
    }

    /// The result of a tool's call, whatever it says.
    #[track_caller]
    pub fn call_raw(&mut self, tool: &str, arguments: Value) -> Value {
        let answer = self.ask("tools/call", json!({ "name": tool, "arguments": arguments }));
        assert!(answer["result"].is_object(), "{tool}: {answer}");
        answer["result"].clone()
    }

    /// What a tool gives back, which must be no error; structured, and the same as text.
    #[track_caller]
    pub fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.call_raw(tool, arguments);
        assert_ne!(result["isError"], true, "{tool}: {result}");
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"]);
        text
    }

    /// Why a tool refuses.
    #[track_caller]
    pub fn refused(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.call_raw(tool, arguments);
        assert_eq!(result["isError"], true, "{tool}: {result}");
        result["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// Closes standard input and waits for the end; how it ended, and after how long.
    #[track_caller]
    pub fn close(&mut self) -> (ExitStatus, Duration) {
        self.stdin = None;
        let start = Instant::now();
        let status = self.wait();
        (status, start.elapsed())
    }

    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
