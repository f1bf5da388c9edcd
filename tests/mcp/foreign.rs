//! The server through clients that this project did not write: the Python SDK and the inspector's command line.
//!
//! They run where `AGENTLOOP_TEST_MCP` names a directory that `tests/mcp/install.sh` filled; without it each test says
//! that it was left out.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::{PROGRAM, Ran, Repo};

/// The directory with the clients.
pub fn clients() -> Option<PathBuf> {
    let dir = std::env::var_os("AGENTLOOP_TEST_MCP").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("left out: AGENTLOOP_TEST_MCP is not set; 'tests/mcp/install.sh DIR' fills a directory for it");
    }
    dir
}

pub fn run(repo: &Repo, program: &Path, arguments: &[&str]) -> Ran {
    let output = repo.command(program).args(arguments).stdin(std::process::Stdio::null()).output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn sdk(mode: &str) {
    let Some(dir) = clients() else { return };
    let repo = Repo::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/drive.py");
    let ran = run(&repo, &dir.join("sdk/bin/python"), &[script, PROGRAM, mode]).expect(0);
    assert_eq!(ran.stdout, "every_tool ok\nwaiting ok\nquestions ok\ntasks ok\nresources ok\n", "{}", ran.stderr);
    repo.assert_sound();
}

#[test]
fn the_python_sdk_drives_everything_in_a_session() {
    sdk("legacy");
}

#[test]
fn the_python_sdk_drives_everything_in_the_newest_revision() {
    sdk("2026-07-28");
}

/// The inspector's command line: what it printed, as JSON.
fn inspect(repo: &Repo, dir: &Path, arguments: &[&str]) -> (Value, String) {
    let inspector = dir.join("inspector").canonicalize().unwrap();
    let all = [&[inspector.to_str().unwrap(), "--cli", PROGRAM, "mcp"], arguments].concat();
    let ran = run(repo, &dir.join("node").canonicalize().unwrap(), &all).expect(0);
    (ran.json(), ran.stderr)
}

#[test]
fn the_inspector_has_nothing_to_say() {
    let Some(dir) = clients() else { return };
    let repo = Repo::new();
    let (listed, said) = inspect(&repo, &dir, &["--method", "tools/list", "--strict"]);
    assert_eq!(listed["tools"].as_array().unwrap().len(), 13);
    assert!(!said.contains("arning") && !said.contains("rror"), "{said}");
    let call = ["--method", "tools/call", "--tool-name", "orchestrate", "--tool-arg"];
    let (done, _) = inspect(&repo, &dir, &[&call[..], &["goal=a goal", "backend=mock", "detach=false"]].concat());
    assert_eq!(done["structuredContent"]["status"], "completed");
    let uri = format!("agentloop://run/{}", done["structuredContent"]["run_id"].as_str().unwrap());
    let (read, _) = inspect(&repo, &dir, &["--method", "resources/read", "--uri", &uri]);
    assert!(read["contents"][0]["text"].as_str().unwrap().contains("goal_complete"));
}
