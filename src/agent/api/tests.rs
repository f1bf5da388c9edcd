use super::tools::Done;
use super::turn::{Call, Outcome};
use super::*;
use crate::agent::tests::request;
use crate::run::goal::{Permissions, Role};
use serde_json::json;
use std::os::unix::fs::symlink;

fn worker(dir: &std::path::Path, permissions: Permissions) -> Request {
    Request { permissions, ..request(Role::Subagent, dir) }
}

async fn used(request: &Request, name: &str, arguments: impl ToString) -> Outcome {
    let toolbox = Toolbox::new(request, "OPENAI_API_KEY").await.unwrap();
    let call = Call { id: "1".into(), name: name.into(), arguments: arguments.to_string() };
    match toolbox.call(&call, request.timeout).await {
        Done::Went(outcome) => outcome,
        Done::Finished(report) => Outcome { ok: true, text: format!("finished: {report}") },
    }
}

#[tokio::test]
async fn files_are_read_written_and_edited() {
    let dir = tempfile::tempdir().unwrap();
    let worker = worker(dir.path(), Permissions::Edit);
    assert!(used(&worker, "write_file", json!({"path": "a/b.txt", "content": "one\ntwo\n"})).await.ok);
    assert_eq!(used(&worker, "list_files", "").await.text, "a/b.txt");
    assert_eq!(used(&worker, "read_file", json!({"path": "a/b.txt", "line": 2})).await.text, "two\n");
    assert!(used(&worker, "edit_file", json!({"path": "./a/b.txt", "old": "two", "new": "2"})).await.ok);
    assert_eq!(std::fs::read_to_string(dir.path().join("a/b.txt")).unwrap(), "one\n2\n");
    for (old, why) in [("three", "does not occur"), ("n", "occurs"), ("", "empty")] {
        let edit = used(&worker, "edit_file", json!({"path": "a/b.txt", "old": old, "new": "n\nn"})).await;
        assert!(!edit.ok || old == "n", "{}", edit.text);
        assert!(old == "n" || edit.text.contains(why), "{}", edit.text);
    }
    assert_eq!(used(&worker, "finish", json!({"report": "done"})).await.text, "finished: done");
}

#[tokio::test]
async fn nothing_outside_of_the_worktree_is_reached() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("worktree");
    std::fs::create_dir_all(dir.join(".git")).unwrap();
    std::fs::write(outer.path().join("secret"), "hidden").unwrap();
    symlink(outer.path().join("secret"), dir.join("link")).unwrap();
    symlink(outer.path(), dir.join("folder")).unwrap();
    symlink(outer.path().join("nowhere"), dir.join("dangling")).unwrap();
    symlink(dir.join(".git"), dir.join("git")).unwrap();
    let worker = worker(&dir, Permissions::Edit);
    let absolute = outer.path().join("secret").display().to_string();
    for path in [
        "../secret",
        "a/../../secret",
        &absolute,
        "/etc/passwd",
        "link",
        "folder/secret",
        "folder/new",
        "dangling",
        ".git/config",
        ".GIT/config",
        ".g\u{200c}it/config",
        "git/config",
    ] {
        for (tool, more) in [("read_file", json!({})), ("write_file", json!({"content": "x"}))] {
            let mut arguments = more;
            arguments["path"] = json!(path);
            let outcome = used(&worker, tool, arguments).await;
            assert!(!outcome.ok && !outcome.text.contains("hidden"), "{tool} {path}: {}", outcome.text);
        }
    }
    assert_eq!(std::fs::read_to_string(outer.path().join("secret")).unwrap(), "hidden");
    assert!(!outer.path().join("nowhere").exists() && !outer.path().join("new").exists());
    let inside = dir.canonicalize().unwrap().join("x").display().to_string();
    assert!(used(&worker, "write_file", json!({"path": inside, "content": "x"})).await.ok);
}

#[tokio::test]
async fn bad_arguments_and_odd_files_are_told_back() {
    let dir = tempfile::tempdir().unwrap();
    let worker = worker(dir.path(), Permissions::All);
    for (tool, arguments, why) in [
        ("read_file", "{\"path\": \"a", "not JSON"),
        ("read_file", "[]", "no JSON object"),
        ("read_file", "{}", "'path' must be a string"),
        ("write_file", "{\"path\": 3, \"content\": \"\"}", "'path' must be a string"),
        ("fly", "{}", "there are list_files, read_file"),
    ] {
        let outcome = used(&worker, tool, arguments).await;
        assert!(!outcome.ok && outcome.text.contains(why), "{}", outcome.text);
    }
    std::fs::write(dir.path().join("huge"), "line\n".repeat(1 << 20)).unwrap();
    let read = used(&worker, "read_file", json!({"path": "huge"})).await.text;
    assert!(read.len() < 70_000 && read.contains("more: read on from line"), "{}", read.len());
    std::fs::write(dir.path().join("wide"), "x".repeat(10 << 20)).unwrap();
    assert!(used(&worker, "read_file", json!({"path": "wide"})).await.text.len() < 140_000);
    std::fs::write(dir.path().join("binary"), "a\0b").unwrap();
    assert!(!used(&worker, "read_file", json!({"path": "binary"})).await.ok);
    assert!(used(&worker, "run_command", json!({"command": "mkfifo pipe"})).await.ok);
    assert!(!used(&worker, "read_file", json!({"path": "pipe"})).await.ok);
    assert!(!used(&worker, "write_file", json!({"path": "pipe", "content": ""})).await.ok);
}

#[tokio::test]
async fn commands_run_where_everything_is_permitted_and_come_to_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let worker = worker(dir.path(), Permissions::All);
    let run = async |command: &str, seconds: u64| {
        used(&worker, "run_command", json!({"command": command, "seconds": seconds})).await
    };
    assert_eq!(run("echo out; echo err >&2", 9).await.text, "exit status 0\nout\n\nerr");
    let failed = run("exit 3", 9).await;
    assert!(!failed.ok && failed.text.contains("exit status 3"), "{}", failed.text);
    assert!(run("sleep 60", 1).await.text.contains("stopped after 1 s"));
    assert!(run("yes | head -c 100000000", 60).await.text.len() < 40_000);
    for (permissions, role) in [(Permissions::Edit, Role::Subagent), (Permissions::All, Role::Reviewer)] {
        let other = Request { role, permissions, ..worker.clone() };
        assert!(used(&other, "run_command", json!({"command": "true"})).await.text.contains("there is no tool"));
    }
    for (permissions, role) in [(Permissions::Ask, Role::Subagent), (Permissions::All, Role::Decomposer)] {
        let other = Request { role, permissions, ..worker.clone() };
        let wrote = used(&other, "write_file", json!({"path": "x", "content": ""})).await;
        assert!(wrote.text.contains("there is no tool") && !dir.path().join("x").exists(), "{}", wrote.text);
    }
}
