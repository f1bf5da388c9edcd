//! Makes configuration for hosts that start the MCP server.

use std::path::Path;

use serde_json::{Value, json};

use super::args::{Host, McpArgs};
use super::print;
use crate::error::{Context as _, Result};

/// Name of the server in a host's configuration.
const SERVER: &str = "agentloop";
const PROGRAM: &str = "git-agentloop";
/// Placeholder that these hosts replace by the project's directory; they start servers in any directory.
const WORKSPACE: &str = "${workspaceFolder}";

/// Prints the configuration, and on standard error the file that it belongs in.
pub fn print_config(host: Host, arguments: &McpArgs) -> Result<()> {
    let repo = arguments
        .repo
        .as_deref()
        .map(|dir| dir.canonicalize().context(format!("'{}' cannot be reached", dir.display())));
    let repo = repo.transpose()?.map(|dir| dir.to_string_lossy().into_owned());
    print::out(snippet(host, &program(), repo.as_deref()))?;
    print::note(&format!("note: {}", place(host)));
    Ok(())
}

/// Returns the program's name if it is on PATH, else its path.
fn program() -> String {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&folders).any(|folder| folder.join(PROGRAM).is_file()) {
        return PROGRAM.to_owned();
    }
    std::env::current_exe().map_or_else(|_| PROGRAM.to_owned(), |path| shown(&path))
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn snippet(host: Host, program: &str, repo: Option<&str>) -> String {
    let repo = match host {
        Host::Cursor | Host::Vscode => repo.or(Some(WORKSPACE)),
        Host::Claude | Host::Codex | Host::Opencode => repo,
    };
    let mut args = vec!["mcp"];
    args.extend(repo.into_iter().flat_map(|repo| ["--repo", repo]));
    let config = match host {
        Host::Claude | Host::Cursor => json!({ "mcpServers": { SERVER: { "command": program, "args": args } } }),
        Host::Vscode => json!({ "servers": { SERVER: { "type": "stdio", "command": program, "args": args } } }),
        Host::Opencode => {
            let command: Vec<&str> = std::iter::once(program).chain(args).collect();
            json!({
                "$schema": "https://opencode.ai/config.json",
                "mcp": { SERVER: { "type": "local", "command": command, "enabled": true } },
            })
        }
        // JSON's strings and lists are valid in TOML too.
        Host::Codex => {
            return format!(
                "[mcp_servers.{SERVER}]\ncommand = {}\nargs = {}\n\
                 # Codex hands a server little of its environment: name what your agents need.\n\
                 # env_vars = [\"OPENAI_API_KEY\"]\n",
                json!(program),
                json!(args)
            );
        }
    };
    pretty(&config)
}

fn pretty(config: &Value) -> String {
    format!("{config:#}\n")
}

fn place(host: Host) -> &'static str {
    match host {
        Host::Claude => "this goes into .mcp.json, or: claude mcp add agentloop -- git-agentloop mcp",
        Host::Codex => "this goes into ~/.codex/config.toml, or: codex mcp add agentloop -- git-agentloop mcp",
        Host::Cursor => "this goes into .cursor/mcp.json",
        Host::Vscode => "this goes into .vscode/mcp.json",
        Host::Opencode => "this goes into opencode.json",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_gets_its_own_form() {
        let read = |host, repo| serde_json::from_str::<Value>(&snippet(host, PROGRAM, repo)).unwrap();
        let claude = read(Host::Claude, None);
        assert_eq!(claude["mcpServers"]["agentloop"], json!({ "command": PROGRAM, "args": ["mcp"] }));
        let args = json!(["mcp", "--repo", WORKSPACE]);
        assert_eq!(read(Host::Cursor, None)["mcpServers"]["agentloop"]["args"], args);
        assert_eq!(read(Host::Vscode, None)["servers"]["agentloop"]["args"], args);
        let command = json!([PROGRAM, "mcp", "--repo", "/a \"b\""]);
        assert_eq!(read(Host::Opencode, Some("/a \"b\""))["mcp"]["agentloop"]["command"], command);
        let codex = snippet(Host::Codex, PROGRAM, Some("/a"));
        let wanted = "[mcp_servers.agentloop]\ncommand = \"git-agentloop\"\nargs = [\"mcp\",\"--repo\",\"/a\"]\n";
        assert!(codex.starts_with(wanted), "{codex}");
    }
}
