//! The real agents, each driven through one subagent's call: it reads its prompt from stdin, writes a file in the
//! repository, and says in its machine output what it did and what that took.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use git_agentloop::run::goal::Role;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::support::agent_home;
use crate::support::model_server::{Brain, LoopRoles, ModelServer, Reply, Request, Usage, Work};

/// Far more than the slowest agent takes for one call on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);

const SYSTEM: &str = "You are a subagent.\nWork on one subgoal.";
const PROMPT: &str = "--- \"quoted\" $(id) ---\nSubgoal: write the greeting.\n";
const CONTENT: &str = "hello, it's \"me\"\n";
const ANSWER: &str = "The greeting is written: [1, 2].";

/// What an agent left behind.
struct Outcome {
    server: ModelServer,
    _home: TempDir,
    code: Option<i32>,
    took: Duration,
    stdout: String,
    stderr: String,
    file: Option<String>,
}

impl Outcome {
    /// Its standard output as one JSON text.
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// Its standard output as lines of JSON; other lines are left out.
    fn lines(&self) -> Vec<Value> {
        self.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The last of these lines.
    fn last_line(&self) -> Value {
        self.lines().pop().unwrap_or_else(|| panic!("{self}"))
    }

    /// Every request it made as a subagent.
    fn requests(&self) -> Vec<Request> {
        self.server.requests().into_iter().filter(|request| request.role == Some(Role::Subagent)).collect()
    }

    /// What holds for every agent: the exit, the file, the key, and our two texts as the model got them.
    fn worked(&self) {
        assert_eq!(self.code, Some(0), "{self}");
        assert_eq!(self.file.as_deref(), Some(CONTENT), "{self}");
        let requests = self.requests();
        let turn = requests.first().and_then(|request| request.turn.clone()).unwrap_or_else(|| panic!("{self}"));
        assert_eq!(turn.api_key.as_deref(), Some(agent_home::KEY), "{self}");
        assert!(turn.prompt().contains(PROMPT.trim()), "the prompt came as {:?}", turn.messages);
        let everything = format!("{}{}", turn.system, turn.prompt());
        assert!(everything.contains(SYSTEM), "the system text came as {everything:?}");
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "exit {:?} after {:?}, file {:?}", self.code, self.took, self.file)?;
        writeln!(f, "stdout: {}\nstderr: {}", self.stdout, self.stderr)?;
        for request in self.server.requests() {
            let turn = request.turn.as_ref();
            let tools = turn.map(|turn| turn.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>());
            let results = turn.map(|turn| &turn.tool_results);
            let Request { method, path, role, status, usage, .. } = &request;
            writeln!(f, "{method} {path} {role:?} {status:?} {usage:?} tools {tools:?} results {results:?}")?;
        }
        Ok(())
    }
}

/// The arguments for one unattended call with machine output and the prompt on stdin; its own retries are capped where
/// a call can do that.
fn arguments(agent: &str) -> Vec<String> {
    let instructions = format!("developer_instructions={}", json!(SYSTEM));
    let model = agent_home::model(agent);
    let arguments: &[&str] = match agent {
        "claude" => &[
            "-p",
            "--output-format",
            "stream-json",
            "--verbose",
            "--append-system-prompt",
            SYSTEM,
            "--dangerously-skip-permissions",
            "--model",
            model,
        ],
        "codex" => &[
            "exec",
            "--json",
            "--dangerously-bypass-approvals-and-sandbox",
            "-c",
            &instructions,
            "-c",
            "model_providers.test.request_max_retries=0",
            "-c",
            "model_providers.test.stream_max_retries=0",
            "-m",
            model,
            "-",
        ],
        "opencode" => &["run", "--format", "json", "--auto", "--title", "t", "--agent", "agentloop", "-m", model],
        "gemini" => &["--yolo", "--skip-trust", "-o", "json", "-m", model],
        "copilot" => &["--allow-all-tools", "--output-format", "json", "--model", model],
        "aider" => &[
            "--model",
            model,
            "--message-file",
            "/dev/stdin",
            "--yes-always",
            "--no-auto-commits",
            "--no-gitignore",
            "--chat-history-file",
            "/dev/null",
            "--input-history-file",
            "/dev/null",
            "--no-check-update",
            "--no-show-release-notes",
            "--no-show-model-warnings",
            "--no-pretty",
            "--no-stream",
            "--no-detect-urls",
            "--map-tokens",
            "0",
        ],
        other => panic!("no command line is known for the agent '{other}'"),
    };
    arguments.iter().map(|&argument| argument.to_owned()).collect()
}

/// The environment that belongs to the call rather than to the user's configuration.
fn environment(agent: &str) -> Vec<(&'static str, String)> {
    match agent {
        "claude" => vec![("CLAUDE_CODE_MAX_RETRIES", "0".to_owned())],
        "opencode" => {
            let agents = json!({ "agent": { "agentloop": { "mode": "primary", "prompt": SYSTEM } } });
            vec![("OPENCODE_CONFIG_CONTENT", agents.to_string())]
        }
        _ => Vec::new(),
    }
}

/// What goes to stdin: the prompt, and before it the system text where the agent has no place for one.
fn stdin(agent: &str) -> String {
    match agent {
        "gemini" | "copilot" | "aider" => format!("{SYSTEM}\n\n{PROMPT}"),
        _ => PROMPT.to_owned(),
    }
}

/// An agent's binary; where there is none, says why its test is left out.
pub fn left_out(agent: &str, installed: Result<PathBuf, String>) -> Option<PathBuf> {
    installed
        .map_err(|why| {
            // The harness hides what a passing test prints; nobody may take an agent that never ran for a green one.
            writeln!(std::io::stderr(), "left out: the real {agent}: {why}").ok();
        })
        .ok()
}

/// Runs an agent in a new repository, or says why it is left out.
async fn drive(agent: &str, brain: Brain) -> Option<Outcome> {
    let binary = left_out(agent, agent_home::installed(agent))?;
    let server = ModelServer::start(brain);
    let home = tempfile::tempdir().expect("a directory for a home");
    let repository = tempfile::tempdir().expect("a directory for a repository");
    repository_in(repository.path());

    let begun = Instant::now();
    let mut child = Command::new(&binary)
        .args(arguments(agent))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(agent_home::settle(agent, home.path(), &server.url()))
        .envs(environment(agent))
        .current_dir(repository.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    let mut input = child.stdin.take().expect("the stdin just asked for");
    let talk = async {
        // An agent that fails before it reads closes its stdin: what it says then is the better error.
        input.write_all(stdin(agent).as_bytes()).await.ok();
        drop(input);
        child.wait_with_output().await.expect("the output just asked for")
    };
    let Ok(output) = tokio::time::timeout(LIMIT, talk).await else {
        panic!("{agent} did not end in {LIMIT:?}; it asked the model {} times", server.turns().len());
    };
    Some(Outcome {
        code: output.status.code(),
        took: begun.elapsed(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        file: std::fs::read_to_string(repository.path().join("greeting.txt")).ok(),
        server,
        _home: home,
    })
}

fn repository_in(directory: &Path) {
    for arguments in [
        &["init", "-q", "."][..],
        &["-c", "user.name=Test", "-c", "user.email=test@localhost", "commit", "-q", "--allow-empty", "-m", "Start"],
    ] {
        let status = std::process::Command::new("git")
            .current_dir(directory)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .args(arguments)
            .status();
        assert!(status.expect("git on PATH").success(), "git {arguments:?}");
    }
}

fn greeting() -> Brain {
    let work = Work::about("write the greeting").writes(&[("greeting.txt", CONTENT)]).says(ANSWER);
    Brain::loop_roles(LoopRoles::new().work(work))
}

fn tokens(input: &Value, cached: &Value, output: &Value) -> Usage {
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    Usage { input: count(input), cached: count(cached), output: count(output) }
}

#[tokio::test]
async fn claude() {
    let Some(outcome) = drive("claude", greeting()).await else { return };
    outcome.worked();
    let result = outcome.last_line();
    assert_eq!((&result["result"], &result["is_error"]), (&json!(ANSWER), &json!(false)), "{outcome}");
    let usage = &result["usage"];
    let mut told = tokens(&usage["input_tokens"], &usage["cache_read_input_tokens"], &usage["output_tokens"]);
    told.input += told.cached;
    assert_eq!(told, outcome.server.usage_of(Role::Subagent), "{outcome}");
}

#[tokio::test]
async fn codex() {
    let Some(outcome) = drive("codex", greeting()).await else { return };
    outcome.worked();
    let lines = outcome.lines();
    let said = lines.iter().rfind(|line| line["item"]["type"] == "agent_message");
    assert_eq!(said.map(|line| &line["item"]["text"]), Some(&json!(ANSWER)), "{outcome}");
    let usage = lines.iter().rfind(|line| line["type"] == "turn.completed").map(|line| &line["usage"]);
    let usage = usage.unwrap_or_else(|| panic!("{outcome}"));
    let told = tokens(&usage["input_tokens"], &usage["cached_input_tokens"], &usage["output_tokens"]);
    assert_eq!(told, outcome.server.usage(), "{outcome}");
}

#[tokio::test]
async fn opencode() {
    let Some(outcome) = drive("opencode", greeting()).await else { return };
    outcome.worked();
    let lines = outcome.lines();
    let said = lines.iter().rfind(|line| line["type"] == "text");
    assert_eq!(said.map(|line| &line["part"]["text"]), Some(&json!(ANSWER)), "{outcome}");
    let steps = lines.iter().filter(|line| line["type"] == "step_finish").map(|line| &line["part"]["tokens"]);
    let mut told: Usage = steps.map(|step| tokens(&step["input"], &step["cache"]["read"], &step["output"])).sum();
    told.input += told.cached;
    assert_eq!(told, outcome.server.usage_of(Role::Subagent), "{outcome}");
}

#[tokio::test]
async fn gemini() {
    let Some(outcome) = drive("gemini", greeting()).await else { return };
    outcome.worked();
    let result = outcome.json();
    assert_eq!(result["response"], ANSWER, "{outcome}");
    let used = result["stats"]["models"]["gemini-2.5-flash"]["tokens"].clone();
    let told = tokens(&used["prompt"], &used["cached"], &used["candidates"]);
    assert_eq!(told, outcome.server.usage(), "{outcome}");
}

#[tokio::test]
async fn copilot() {
    let Some(outcome) = drive("copilot", greeting()).await else { return };
    outcome.worked();
    let lines = outcome.lines();
    let said = lines.iter().rfind(|line| line["type"] == "assistant.message");
    assert_eq!(said.map(|line| &line["data"]["content"]), Some(&json!(ANSWER)), "{outcome}");
    assert_eq!(lines.last().map(|line| &line["exitCode"]), Some(&json!(0)), "{outcome}");
}

#[tokio::test]
async fn aider() {
    let Some(outcome) = drive("aider", greeting()).await else { return };
    outcome.worked();
    assert!(outcome.stdout.contains(ANSWER), "{outcome}");
    assert!(outcome.stdout.contains("Tokens: 1.0k sent, 11 received."), "{outcome}");
}

/// Drives an agent against a provider that refuses everything with `status`, and checks its exit, that it left the
/// repository alone, and that it asked no more than `requests` times.
async fn refused(agent: &str, status: u16, code: i32, requests: usize) -> Option<Outcome> {
    let outcome = drive(agent, Brain::new(move |_| Reply::error(status))).await?;
    assert_eq!((outcome.code, outcome.file.as_deref()), (Some(code), None), "{outcome}");
    let asked = outcome.server.turns().len();
    assert!((1..=requests).contains(&asked), "asked {asked} times\n{outcome}");
    assert_eq!(outcome.server.usage(), Usage::default());
    Some(outcome)
}

#[tokio::test]
async fn claude_tells_the_status() {
    for status in [401, 429, 529] {
        let Some(outcome) = refused("claude", status, 1, 1).await else { return };
        let result = outcome.last_line();
        assert_eq!((&result["is_error"], &result["api_error_status"]), (&json!(true), &json!(status)), "{outcome}");
        assert_eq!(result["subtype"], "success", "its subtype says nothing about errors: {outcome}");
    }
}

#[tokio::test]
async fn codex_tells_the_status() {
    for status in [401, 429, 529] {
        let Some(outcome) = refused("codex", status, 1, 1).await else { return };
        let lines = outcome.lines();
        let failed = lines.iter().rfind(|line| line["type"] == "turn.failed").map(|line| &line["error"]["message"]);
        let message = failed.and_then(Value::as_str).unwrap_or_default();
        assert!(
            message.contains(&format!("status {status}")) || message.contains(&format!("status: {status}")),
            "{outcome}"
        );
    }
}

#[tokio::test]
async fn gemini_tells_the_status() {
    for status in [401, 429, 529] {
        // The exit code is the status as far as it fits.
        let Some(outcome) = refused("gemini", status, i32::from(status % 256), 1).await else { return };
        assert_eq!(outcome.stdout, "", "its JSON goes to stderr when it fails: {outcome}");
        assert!(outcome.stderr.contains(&format!("\"code\": {status}")), "{outcome}");
    }
}

#[tokio::test]
async fn opencode_tells_the_status() {
    let Some(outcome) = refused("opencode", 401, 1, 1).await else { return };
    let lines = outcome.lines();
    let error = lines.iter().find(|line| line["type"] == "error").map(|line| &line["error"]["data"]["statusCode"]);
    assert_eq!(error, Some(&json!(401)), "{outcome}");
}

#[tokio::test]
async fn copilot_tells_the_status() {
    let Some(outcome) = refused("copilot", 401, 1, 3).await else { return };
    let lines = outcome.lines();
    let error = lines.iter().find(|line| line["type"] == "session.error").map(|line| &line["data"]);
    let error = error.unwrap_or_else(|| panic!("{outcome}"));
    assert_eq!((&error["statusCode"], &error["errorType"]), (&json!(401), &json!("authentication")), "{outcome}");
    assert_eq!(lines.last().map(|line| &line["exitCode"]), Some(&json!(1)), "{outcome}");
}

#[tokio::test]
async fn aider_names_the_error_and_exits_well() {
    let Some(outcome) = refused("aider", 401, 0, 1).await else { return };
    assert!(outcome.stdout.contains("litellm.AuthenticationError"), "{outcome}");
}
