//! Real hosts, told by a model server what to do: they start the server by their own configuration, call `orchestrate`
//! and get the result of the run.

use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::model_server::{Brain, ModelServer, Reply, Turn};
use crate::support::{PROGRAM, Repo, agent_home, hermetic};

/// A model that calls `orchestrate` once, wherever its host hides the tool, and then says what came of it.
fn caller(turn: &Turn) -> Reply {
    if let Some(result) = turn.tool_results.iter().find(|result| result.contains("goal_complete")) {
        let run = result.split("agentloop/").nth(1).and_then(|rest| rest.split(['"', '\\']).next()).unwrap_or_default();
        return Reply::text(format!("The run {run} reached its goal."));
    }
    let orchestrate = turn.tools.iter().find(|tool| tool.name.ends_with("orchestrate"));
    // Claude Code keeps the tools of servers behind a search until they are asked for.
    let search = || turn.tools.iter().find(|tool| tool.name == "ToolSearch");
    match (orchestrate, search()) {
        (Some(tool), _) => Reply::Tool {
            name: tool.name.clone(),
            input: json!({ "goal": "say hello", "backend": "mock", "detach": false }),
        },
        (None, Some(search)) if turn.tool_results.is_empty() => Reply::Tool {
            name: search.name.clone(),
            input: json!({ "query": "select:mcp__agentloop__orchestrate", "max_results": 5 }),
        },
        _ => Reply::text("There is no tool orchestrate."),
    }
}

/// The host in the repository, with a HOME and a model of the test's own.
fn host(agent: &'static str, configure: impl Fn(&Repo, &mut Command)) {
    let binary = match agent_home::installed(agent) {
        Ok(binary) => binary,
        Err(why) => return eprintln!("left out: {why}"),
    };
    let (repo, server) = (Repo::new(), ModelServer::start(Brain::new(caller)));
    let mut command = Command::new(binary);
    command.current_dir(repo.path()).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    hermetic(&mut command, repo.home());
    command.env_remove("XDG_CONFIG_HOME").envs(agent_home::settle(agent, repo.home(), &server.url()));
    configure(&repo, &mut command);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
    let run = listed[0]["run_id"].as_str().unwrap_or_else(|| panic!("{said}\n{:?}\n{:#?}", output, server.requests()));
    assert_eq!(listed[0]["state"], "completed");
    assert!(said.contains(&format!("The run {run} reached its goal.")), "{said}");
}

#[test]
fn claude_code_calls_orchestrate_and_gets_the_result() {
    host("claude", |repo, command| {
        let config = config(repo, "claude");
        command.args(["-p", "say hello with the loop", "--output-format", "json", "--mcp-config", &config]);
        command.args(["--strict-mcp-config", "--allowedTools", "mcp__agentloop__orchestrate", "ToolSearch"]);
    });
}

#[test]
fn codex_calls_orchestrate_and_gets_the_result() {
    host("codex", |repo, command| {
        let file = repo.home().join(".codex/config.toml");
        let config = std::fs::read_to_string(&file).unwrap() + "\n" + &config(repo, "codex");
        std::fs::write(&file, config).unwrap();
        command.args(["exec", "--json", "--dangerously-bypass-approvals-and-sandbox", "say hello with the loop"]);
    });
}

/// What the program prints for this host, with the program under test in the place of the installed one.
fn config(repo: &Repo, host: &str) -> String {
    let printed = repo.agentloop(&["mcp", "--print-config", host]).expect(0).stdout;
    printed.replace("\"git-agentloop\"", &json!(PROGRAM).to_string())
}
