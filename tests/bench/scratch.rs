//! Repositories made for a measurement and gone with it, and processes in an environment of their own.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use git_agentloop::ledger::{Durability, Preferences};
use serde_json::Value;
use tempfile::TempDir;

/// The program that is measured.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_git-agentloop");

/// How a ledger is opened in one: as its configuration says, which is that nothing is synced.
pub fn undurable() -> Preferences {
    Preferences { durability: Durability::Never, ..Preferences::default() }
}

/// A repository with one commit, in a folder of its own with a HOME of its own.
pub struct Scratch {
    home: TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        Self::with_files(1)
    }

    /// A repository of `count` small files, a hundred to a folder.
    pub fn with_files(count: usize) -> Self {
        let scratch = Self { home: tempfile::tempdir().unwrap() };
        std::fs::create_dir(scratch.path()).unwrap();
        scratch.git(&["init", "-q", "-b", "main"]);
        // Nothing tidies up in the background of a measurement.
        let quiet = [("gc.auto", "0"), ("maintenance.auto", "false"), ("agentloop.durable", "never")];
        let user = [("user.name", "A User"), ("user.email", "user@example.com")];
        for (key, value) in user.into_iter().chain(quiet) {
            scratch.git(&["config", key, value]);
        }
        for number in 0..count {
            let file = scratch.path().join(format!("folder-{}/file-{number}.txt", number / 100));
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("file {number}\n").repeat(20)).unwrap();
        }
        scratch.git(&["add", "-A"]);
        scratch.git(&["commit", "-q", "-m", "first"]);
        scratch.git(&["gc", "-q"]);
        scratch
    }

    /// The folder that holds everything, and goes with it.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn path(&self) -> PathBuf {
        self.home().join("repo")
    }

    /// Makes `bench` a backend that plans `steps` subgoals and accepts; a worker of its does `work`, in sh. Its program.
    pub fn agent(&self, steps: usize, work: &str) -> PathBuf {
        let agent = self.home().join("agent");
        let plan: Vec<String> = (1..=steps).map(|number| format!("step {number}")).collect();
        let script = format!(
            "#!/bin/sh\nread -r role\ncat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '{}' ;;\n\
             *reviewer*) echo '{{\"gates_passed\": true, \"goal_complete\": true, \"issues\": []}}' ;;\n\
             *) {work}; echo done ;;\nesac\n",
            serde_json::json!(plan)
        );
        std::fs::write(&agent, script).unwrap();
        std::fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        self.git(&["config", "agentloop.backend.bench.command", agent.to_str().unwrap()]);
        agent
    }

    /// `program` in the repository, in an environment of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("HOME", self.home())
            .env("GIT_CONFIG_GLOBAL", self.home().join("gitconfig"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// `program` to its end; what it printed, without the last newline.
    pub fn output(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end_matches('\n').to_owned()
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        self.output("git", arguments)
    }

    /// The program under measurement, to its end; what it printed.
    pub fn agentloop(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.output(PROGRAM, &[arguments, &["--json"]].concat())).unwrap()
    }

    /// Runs a process that must succeed, for its time alone.
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(program).args(arguments).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}: {status}");
    }

    /// Has `git fast-import` take in `stream`.
    pub fn import(&self, stream: &[u8]) {
        let mut git = self.command("git");
        let mut child = git.args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(stream).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
