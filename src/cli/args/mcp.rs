//! Arguments of `mcp`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

pub(super) const EXAMPLES: &str = "\
Examples:
  claude mcp add agentloop -- git-agentloop mcp
  codex mcp add agentloop -- git-agentloop mcp
  git agentloop mcp --print-config vscode > .vscode/mcp.json";

/// Options of `mcp`.
#[derive(Debug, Args)]
pub struct McpArgs {
    /// The repository to serve, and no other [default: the current one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub repo: Option<PathBuf>,
    /// Print what makes this host start the server, and serve nothing
    #[arg(long, value_name = "HOST")]
    pub print_config: Option<Host>,
}

/// A program that starts MCP servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)] // each is the program of that name
pub enum Host {
    Claude,
    Codex,
    Cursor,
    Vscode,
    Opencode,
}
