//! `doctor` and `backends` on a machine with no agent, some and all of them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agents::real::left_out;
use crate::support::agent_home;
use crate::support::{PROGRAM, Ran, Repo, hermetic};

/// A PATH with git and what `programs` are as shell scripts, and nothing else.
fn path(repo: &Repo, programs: &[(&str, &str)]) -> String {
    let bin = repo.home().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for (name, body) in programs {
        let path = bin.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for name in ["git", "sh", "sleep"] {
        let dirs = std::env::var_os("PATH").unwrap();
        let real = std::env::split_paths(&dirs).map(|dir| dir.join(name)).find(|path| path.exists()).unwrap();
        let _ = std::os::unix::fs::symlink(real, bin.join(name));
    }
    bin.to_str().unwrap().to_owned()
}

fn run(repo: &Repo, dir: &Path, path: &str, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = std::process::Command::new(PROGRAM);
    command.env_clear();
    hermetic(&mut command, repo.home());
    command.env("PATH", path).envs(env.iter().copied()).current_dir(dir).args(arguments);
    Ran::of(&command.output().unwrap())
}

fn found<'a>(views: &'a Value, name: &str) -> &'a Value {
    views.as_array().unwrap().iter().find(|view| view["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn a_machine_without_agents_is_told_how_to_get_one() {
    let repo = Repo::new();
    let bare = path(&repo, &[]);
    let said = run(&repo, repo.path(), &bare, &["doctor", "--json"], &[]).expect(2).json();
    assert_eq!(said["ok"], false);
    let checks = &said["checks"];
    for name in ["git", "repository", "worktrees", "clock"] {
        assert_eq!(found(checks, name)["state"], "ok", "{checks:#}");
    }
    let agent = found(checks, "agent");
    assert_eq!(agent["state"], "failed");
    assert!(agent["hint"].as_str().unwrap().contains("npm install"), "{agent}");
    let codex = found(&said["backends"], "codex");
    assert_eq!(
        (&codex["installed"], &codex["version"], &codex["login"]),
        (&json!(false), &Value::Null, &json!("unknown"))
    );
    assert!(codex["hint"].as_str().unwrap().contains("@openai/codex"), "{codex}");
    assert!(!repo.home().join("repo.agentloop").exists(), "it leaves nothing behind");

    let text = run(&repo, repo.path(), &bare, &["doctor"], &[]).expect(2).stdout;
    assert!(text.contains("FAILED   agent"), "{text}");
    // Outside of any repository that there is none is one of the answers.
    let outside = tempfile::tempdir().unwrap();
    let said = run(&repo, outside.path(), &bare, &["doctor", "--json"], &[]).expect(2).json();
    assert_eq!(found(&said["checks"], "repository")["state"], "failed", "{said:#}");
}

#[test]
fn a_machine_with_some_is_told_what_is_ready() {
    let repo = Repo::new();
    let hang = "sleep 60";
    let path = path(
        &repo,
        &[
            (
                "claude",
                "case \"$*\" in --version) echo '9.8.7 (Claude Code)' ;; 'auth status') exit 1 ;; *) touch asked ;; esac",
            ),
            (
                "codex",
                "case \"$*\" in --version) echo 'codex-cli 0.1.2' ;; 'login status') exit 0 ;; *) touch asked ;; esac",
            ),
            ("gemini", hang),
            ("opencode", hang),
            ("mine", "touch asked"),
        ],
    );
    repo.git(&["config", "agentloop.backend.mine.command", "mine --ask {prompt}"]);
    let begun = Instant::now();
    let said = run(&repo, repo.path(), &path, &["doctor", "--json"], &[("GOOGLE_API_KEY", "k")]).expect(0).json();
    // Three seconds, and what starting processes takes on a machine that runs other tests.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let backends = &said["backends"];
    let seen = |name: &str| {
        let one = found(backends, name);
        (one["version"].clone(), one["login"].clone())
    };
    assert_eq!(seen("claude_code"), (json!("9.8.7"), json!("no")));
    assert_eq!(seen("codex"), (json!("0.1.2"), json!("yes")));
    assert_eq!(seen("gemini"), (Value::Null, json!("yes")), "one that hangs is not waited for");
    assert_eq!(seen("opencode"), (Value::Null, json!("unknown")));
    assert_eq!(seen("mock").1, "yes");
    assert!(found(backends, "claude_code")["hint"].as_str().unwrap().contains("/login"));
    assert_eq!(found(backends, "codex")["can"]["edit_files"], true);
    assert!(!repo.path().join("asked").exists(), "an agent was run");
    let mcp: Vec<&Value> = said["checks"].as_array().unwrap().iter().filter(|check| check["name"] == "mcp").collect();
    assert_eq!(mcp.len(), 2, "a note for each host: {mcp:?}");

    let same = run(&repo, repo.path(), &path, &["backends", "--json"], &[("GOOGLE_API_KEY", "k")]).expect(0).json();
    assert_eq!(&same, backends);
    let text = run(&repo, repo.path(), &path, &["backends"], &[]).expect(0).stdout;
    assert!(text.lines().any(|line| line.starts_with("codex") && line.contains("0.1.2")), "{text}");
}

/// All six as they are: nothing of their users' HOME is here, and no key.
#[test]
fn a_machine_with_all_of_them_is_told_what_each_is() {
    const ALL: [(&str, &str); 6] = [
        ("claude_code", "claude"),
        ("codex", "codex"),
        ("opencode", "opencode"),
        ("gemini", "gemini"),
        ("copilot", "copilot"),
        ("aider", "aider"),
    ];
    let there = ALL.map(|(_, program)| left_out(program, agent_home::installed(program)));
    let Some(bin) = there.into_iter().collect::<Option<Vec<_>>>() else { return };
    let repo = Repo::new();
    let dirs = std::env::var_os("PATH").unwrap();
    let path =
        std::env::join_paths(bin[0].parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&dirs)));
    let path = path.unwrap().into_string().unwrap();
    let begun = Instant::now();
    let said = run(&repo, repo.path(), &path, &["doctor", "--json"], &[]).expect(0).json();
    // Three seconds, and what starting processes takes on a machine that runs other tests.
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    let pinned = include_str!("agents/install.sh");
    for (name, program) in ALL {
        let one = found(&said["backends"], name);
        for field in ["name", "kind", "installed", "path", "detail", "version", "login", "can"] {
            assert!(one.get(field).is_some(), "{name} without {field}: {one:#}");
        }
        for able in ["edit_files", "run_commands", "resume", "usage", "cost"] {
            assert!(one["can"][able].is_boolean(), "{name} without {able}: {one:#}");
        }
        let version = one["version"].as_str().unwrap_or_default();
        assert!(one["installed"] == true && pinned.contains(&format!("{program} {version} ")), "{one:#}");
        assert!(one["login"] != "yes" && one["hint"].is_string(), "nobody has logged in: {one:#}");
    }
    let asked =
        said["checks"].as_array().unwrap().iter().all(|one| one["state"].is_string() && one["detail"].is_string());
    assert!(asked, "{said:#}");
    let same = run(&repo, repo.path(), &path, &["backends", "--json"], &[]).expect(0).json();
    assert_eq!(same, said["backends"]);
}

#[test]
fn prompts_are_files_that_a_user_can_replace() {
    let repo = Repo::new();
    let made = repo.agentloop(&["prompts", "--dump", "mine"]).expect(0).stdout;
    assert_eq!(made.lines().count(), 6, "{made}");
    repo.git(&["config", "agentloop.prompts", "mine"]);
    repo.write("mine/reviewer.md", "You are the reviewer, and strict.\n");
    assert_eq!(repo.agentloop(&["prompts", "--dump", "mine"]).expect(0).stdout, "", "what is there stays");
    assert_eq!(repo.agentloop(&["prompts", "reviewer"]).expect(0).stdout, "You are the reviewer, and strict.\n");
    let told = repo.agentloop(&["prompts", "nobody"]).expect(2).stderr;
    assert!(told.contains("there is no role 'nobody'") && told.contains("hint: "), "{told}");

    let said = repo.home().join("said");
    let agent = repo.script("agent", &format!("head -1 >> {}; echo '[\"x\"]'", said.display()));
    repo.git(&["config", "agentloop.backend.mine.command", &agent]);
    repo.agentloop(&["run", "x", "--criteria", "y", "--backend", "mine", "--max-iterations", "1"]).expect(1);
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.contains("You are the reviewer, and strict."), "{said}");
}

#[test]
fn what_worktrees_get_is_told() {
    let repo = Repo::new();
    let provisioning = || {
        let said = repo.agentloop(&["doctor", "--json"]).json();
        said["checks"].as_array().unwrap().iter().find(|check| check["name"] == "provisioning").cloned()
    };
    assert_eq!(provisioning(), None);
    repo.write(".gitignore", "*.local\n");
    repo.git(&["config", "agentloop.copy", "*.local"]);
    assert_eq!(provisioning().unwrap()["state"], "warning");
    repo.write("a.local", "x");
    repo.git(&["config", "agentloop.setup", "npm ci"]);
    let found = provisioning().unwrap();
    assert_eq!(found["detail"], "new worktrees get 1 ignored files of your checkout, then 'npm ci'");
    repo.git(&["config", "agentloop.setup", "npm 'ci"]);
    assert_eq!(provisioning().unwrap()["state"], "failed");
}

#[test]
fn an_agent_that_cannot_work_is_refused_before_there_is_a_run() {
    const LOGGED_OUT: &str = "case \"$*\" in *status) exit 1 ;; *) touch asked ;; esac";
    const NO_SANDBOX: &str =
        "case \"$*\" in *status) ;; 'sandbox true') echo 'bwrap: no permission' >&2; exit 1 ;; *) touch asked ;; esac";
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 7] = [
        ("claude_code", &[("claude", LOGGED_OUT)], &[], &[], "claude_code is not logged in"),
        ("mock", &[("claude", LOGGED_OUT)], &["--reviewer", "claude_code"], &[], "claude_code is not logged in"),
        ("codex", &[("codex", LOGGED_OUT)], &[], &[], "codex is not logged in"),
        ("codex", &[("codex", NO_SANDBOX)], &[], &[], "codex cannot start its sandbox here"),
        (
            "openai_api/m",
            &[],
            &[],
            &[("OPENAI_BASE_URL", "localhost:11434")],
            "OPENAI_BASE_URL must start with http:// or https:// (got 'localhost:11434')",
        ),
        (
            "openai_api/m",
            &[],
            &[],
            &[("OPENAI_BASE_URL", "http://[::1"), ("OPENAI_API_KEY", "k")],
            "OPENAI_BASE_URL is not a valid URL",
        ),
        ("claude_api/m", &[], &[], &[("ANTHROPIC_API_KEY", "one\ntwo")], "ANTHROPIC_API_KEY contains a newline"),
    ];
    for (backend, programs, arguments, env, words) in cases {
        let repo = Repo::new();
        let path = path(&repo, programs);
        let arguments = [&["run", "x", "--backend", backend], arguments].concat();
        let ran = run(&repo, repo.path(), &path, &arguments, env).expect(2);
        assert!(ran.stderr.contains(words) && ran.stderr.contains("hint: "), "{backend}: {}", ran.stderr);
        assert_eq!(repo.git(&["for-each-ref", "--format=%(refname)", "refs/notes", "refs/heads/agentloop"]), "");
        assert!(!repo.path().join("asked").exists(), "{backend} was called");
    }

    // A provider of one's own needs no login, and a permission that uses no sandbox none that starts.
    let repo = Repo::new();
    let path = path(&repo, &[("codex", NO_SANDBOX.replace("*status) ;;", "*status) exit 1 ;;").as_str())]);
    std::fs::create_dir_all(repo.home().join(".codex")).unwrap();
    std::fs::write(repo.home().join(".codex/config.toml"), "model_provider = \"mine\"\n").unwrap();
    let arguments = ["run", "x", "--backend", "codex", "--permissions", "all", "--max-agent-calls", "1"];
    let ran = run(&repo, repo.path(), &path, &arguments, &[]);
    assert!(!ran.stderr.contains("logged in") && !ran.stderr.contains("sandbox"), "{}", ran.stderr);
    assert_ne!(repo.git(&["for-each-ref", "refs/notes/agentloop"]), "", "{}", ran.stderr);
}
