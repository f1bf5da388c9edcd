//! The `git agentloop` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    git_agentloop::cli::main(git_agentloop::mcp::serve)
}
