//! Real repositories, made in the test and gone with it, and the program as its users run it.
//!
//! Nothing here reads the developer's git configuration or HOME, and no test shares anything with another.

pub mod agent_home;
pub mod http_remote;
pub mod model_server;
pub mod raw_http;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing in a test takes this long; what does has hung.
const PATIENCE: Duration = Duration::from_mins(2);

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_git-agentloop");

/// A repository with one commit, in a folder of its own with a HOME of its own.
pub struct Repo {
    home: TempDir,
    path: PathBuf,
    /// What is looked through for programs; none is the tests' own PATH.
    programs: Option<OsString>,
}

/// What a process printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Its answer, which must have come with exit code `code`.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }
}

impl Repo {
    pub fn new() -> Self {
        Self::init("repo", &[])
    }

    /// A repository in a folder called `name`, made with further options of `git init`.
    pub fn init(name: &str, options: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join(name);
        std::fs::create_dir(&path).unwrap();
        Self { home, path, programs: None }.initialized(options)
    }

    /// A repository that `git` made and that its user has it and the program under test on PATH.
    pub fn with_git(git: &Path) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("repo");
        std::fs::create_dir(&path).unwrap();
        Self { home, path, programs: None }.using(git).initialized(&[])
    }

    /// The same repository, whose user has `git` and the program under test on PATH before anything else.
    pub fn using(mut self, git: &Path) -> Self {
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let first = [git.to_owned(), Path::new(PROGRAM).parent().unwrap().to_owned()];
        self.programs = Some(std::env::join_paths(first.into_iter().chain(std::env::split_paths(&rest))).unwrap());
        self
    }

    /// The same repository, whose user has `git`, the program under test and the system's programs on PATH, and no more.
    pub fn with_only(mut self, git: &Path) -> Self {
        let program = Path::new(PROGRAM).parent().unwrap();
        self.programs = Some(std::env::join_paths([git, program, "/usr/bin".as_ref(), "/bin".as_ref()]).unwrap());
        self
    }

    /// The same repository, without the program under test on PATH.
    pub fn without_program(mut self, git: &Path) -> Self {
        let rest = std::env::var_os("PATH").unwrap_or_default();
        // Whoever runs the tests may have it installed.
        let lacks_it = |folder: &PathBuf| !folder.join("git-agentloop").exists();
        let folders = std::iter::once(git.to_owned()).chain(std::env::split_paths(&rest)).filter(lacks_it);
        self.programs = Some(std::env::join_paths(folders).unwrap());
        self
    }

    fn initialized(self, options: &[&str]) -> Self {
        let repo = self;
        repo.git(&[&["init", "-q", "-b", "main"], options].concat());
        repo.git(&["config", "user.name", "A User"]);
        repo.git(&["config", "user.email", "user@example.com"]);
        repo.write("README", "hello\n");
        repo.commit("first");
        repo
    }

    /// A repository that is already there, with this one's HOME.
    pub fn at(home: TempDir, path: PathBuf) -> Self {
        Self { home, path, programs: None }
    }

    /// The folder that holds everything, and goes with it.
    pub fn into_home(self) -> TempDir {
        self.home
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder that holds the repository, its worktrees and HOME.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn write(&self, name: &str, content: &str) {
        let path = self.path.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// Commits everything that stands uncommitted.
    #[track_caller]
    pub fn commit(&self, message: &str) {
        self.git(&["add", "."]);
        self.git(&["commit", "-qm", message]);
    }

    /// A shell script in HOME, made to be run; its path.
    pub fn script(&self, name: &str, body: &str) -> String {
        let path = self.home().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// `program` in the repository, in an environment of the test's own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.path);
        hermetic(&mut command, self.home());
        command.envs(self.programs.iter().map(|programs| ("PATH", programs)));
        command
    }

    /// git, which must succeed; what it printed, without the last newline.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        let ran = Ran::of(&self.command("git").args(arguments).output().unwrap());
        assert_eq!(ran.code, 0, "git {arguments:?}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout.trim_end_matches('\n').to_owned()
    }

    /// git, whatever comes of it.
    pub fn try_git(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.command("git").args(arguments).output().unwrap())
    }

    /// The program under test, to its end.
    pub fn agentloop(&self, arguments: &[&str]) -> Ran {
        self.agentloop_with(arguments, &[])
    }

    /// The same with more in its environment.
    pub fn agentloop_with(&self, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
        let mut command = self.command(PROGRAM);
        command.args(arguments).envs(env.iter().copied()).stdin(Stdio::null());
        Ran::of(&command.output().unwrap())
    }

    /// The program under test, left running.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(PROGRAM);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// A mock run to its end; its result.
    #[track_caller]
    pub fn mock_run(&self, goal: &str, arguments: &[&str]) -> Value {
        let all = [&["run", "--backend", "mock", "--json", goal], arguments].concat();
        self.agentloop(&all).expect(0).json()
    }

    pub fn status(&self, run: &str) -> Value {
        self.agentloop(&["status", run, "--json"]).expect(0).json()
    }

    /// Waits until `run`'s status is as `wanted` says.
    #[track_caller]
    pub fn await_status(&self, run: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait_for(&format!("status of {run}"), || {
            last = self.status(run);
            wanted(&last).then(|| last.clone())
        })
    }

    /// What this clone keeps of `run` outside of the repository.
    pub fn kept(&self, run: &str) -> PathBuf {
        let clone = std::fs::read_to_string(self.path.join(".git/agentloop/clone")).unwrap();
        self.home().join("state/git-agentloop/clones").join(clone.trim()).join("runs").join(run)
    }

    /// Every event of `run`.
    pub fn events(&self, run: &str) -> Vec<Value> {
        let tail = self.agentloop(&["tail", run, "--json", "--limit", "1000000"]).expect(0).json();
        tail["events"].as_array().unwrap().clone()
    }

    /// The kinds of `run`'s events, in order.
    pub fn kinds(&self, run: &str) -> Vec<String> {
        self.events(run).iter().map(|event| event["kind"].as_str().unwrap().to_owned()).collect()
    }

    /// Everything of the user's that no run may touch: HEAD, index, configuration, stash and files.
    pub fn fingerprint(&self) -> BTreeMap<String, Vec<u8>> {
        let git = PathBuf::from(self.git(&["rev-parse", "--absolute-git-dir"]));
        let mut print = BTreeMap::new();
        for name in ["HEAD", "index", "config"] {
            print.insert(format!(".git/{name}"), std::fs::read(git.join(name)).unwrap_or_default());
        }
        // Where they stand, in a file of their own or packed.
        for name in ["refs/stash", "refs/heads/main"] {
            print.insert(name.to_owned(), self.try_git(&["rev-parse", "-q", "--verify", name]).stdout.into_bytes());
        }
        files_below(&self.path, &self.path, &mut print);
        print
    }

    /// Nothing is wrong with the repository, and nothing of ours stands in the way of the user's git.
    #[track_caller]
    pub fn assert_sound(&self) {
        self.git(&["fsck", "--strict", "--no-dangling"]);
        assert_eq!(self.locks(), Vec::<PathBuf>::new(), "stale locks");
    }

    /// The locks that somebody has taken, or left.
    pub fn locks(&self) -> Vec<PathBuf> {
        let git = PathBuf::from(self.git(&["rev-parse", "--path-format=absolute", "--git-common-dir"]));
        let mut locks = Vec::new();
        locks_below(&git, &mut locks);
        locks
    }
}

/// The folder of every git that can be had here, one of each version: on PATH, and in `AGENTLOOP_TEST_GITS`.
pub fn gits() -> Vec<PathBuf> {
    let (path, more) = (std::env::var_os("PATH"), std::env::var_os("AGENTLOOP_TEST_GITS"));
    let folders = [path, more].into_iter().flatten().flat_map(|list| std::env::split_paths(&list).collect::<Vec<_>>());
    let mut found = BTreeMap::new();
    for folder in folders {
        if let Ok(said) = Command::new(folder.join("git")).arg("--version").output() {
            found.entry(said.stdout).or_insert(folder);
        }
    }
    found.into_values().collect()
}

/// Gives `command` an environment of its own: no configuration, no agent, no run of whoever runs the tests.
pub fn hermetic(command: &mut Command, home: &Path) {
    for name in std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()) {
        let inherited = ["GIT_", "AGENTLOOP_", "CLAUDE", "CODEX", "OPENCODE", "ANTHROPIC_", "OPENAI_"];
        let is_proxy = name.to_ascii_uppercase().ends_with("_PROXY");
        let is_ours = inherited.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with("AGENTLOOP_TEST_");
        if is_proxy || is_ours {
            command.env_remove(name);
        }
    }
    command
        .env("HOME", home)
        .env("XDG_STATE_HOME", home.join("state"))
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("GIT_CONFIG_GLOBAL", home.join("gitconfig"))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("LC_ALL", "C.UTF-8")
        .env("NO_COLOR", "1");
}

/// Asks again and again, a short while apart, until there is an answer.
#[track_caller]
pub fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processes whose environment or command line holds `word`; zombies are none.
pub fn processes_with(word: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32, file: &str| {
        let content = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        content.windows(word.len()).any(|window| window == word.as_bytes())
    };
    pids.filter(|pid| *pid != std::process::id() && (holds(pid, "environ") || holds(pid, "cmdline"))).collect()
}

fn files_below(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if entry.file_name() == ".git" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            files_below(root, &path, found);
        } else {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            found.insert(name, std::fs::read(&path).unwrap_or_default());
        }
    }
}

fn locks_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            locks_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "lock") && !path.ends_with("worktrees.lock") {
            found.push(path);
        }
    }
}
