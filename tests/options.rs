//! What a user asks for is what a run does: its checks, what it protects, where it starts, and when it may be merged.

use std::process::Stdio;

use serde_json::Value;

use crate::fanout::{plan, scripted};
use crate::mcp::client::Client;
use crate::review::run_with_files;
use crate::support::{PROGRAM, Ran, Repo};

/// The program in a folder of the repository, or elsewhere.
fn in_folder(repo: &Repo, folder: &std::path::Path, arguments: &[&str]) -> Ran {
    Ran::of(&repo.command(PROGRAM).current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap())
}

fn options_of(repo: &Repo, run: &str) -> Value {
    repo.events(run)[0]["data"]["options"].clone()
}

#[test]
fn a_check_is_what_the_user_meant() {
    let repo = Repo::new();
    repo.write("a", "");
    repo.commit("a file");
    repo.git(&["config", "agentloop.maxIterations", "2"]);
    for (check, is_green) in [
        ("true && false", false),
        ("false || true", true),
        ("test -f a && test -f b", false),
        ("test -f a; test -f b", false),
        ("X=1 sh -c 'test \"$X\" = 1'", true),
        ("test $(cat a | wc -c) = 0", true),
        ("ls *.nothing", false),
        ("test 'a && b' = 'a && b'", true),
        ("false\ntrue", true),
        ("true; exit 3", false),
    ] {
        let ran = repo.agentloop(&["run", "x", "--backend", "mock", "--criteria", "x", "--json", "--verify", check]);
        let ran = ran.expect(i32::from(!is_green)).json();
        let found = options_of(&repo, ran["run_id"].as_str().unwrap())["checks"][0].clone();
        assert_eq!((&found["name"], ran["completed"] == true), (&check.into(), is_green), "{check}");
    }
    let of = |arguments: &[&str]| {
        let all = [&["run", "x", "--backend", "mock", "--json"], arguments].concat();
        options_of(&repo, repo.agentloop(&all).json()["run_id"].as_str().unwrap())["checks"][0]["argv"].clone()
    };
    assert_eq!(of(&["--verify", "true && false"]), serde_json::json!(["sh", "-c", "true && false"]));
    assert_eq!(of(&["--verify", "test -f 'a'"]), serde_json::json!(["test", "-f", "a"]));
    // Set, and given by a host, it means the same.
    repo.git(&["config", "agentloop.verify", "true && false"]);
    assert_eq!(of(&[]), serde_json::json!(["sh", "-c", "true && false"]));
    let mut client = Client::start(&repo);
    let given =
        serde_json::json!({ "goal": "x", "backend": "mock", "verify_commands": ["false || true"], "detach": false });
    let result = client.call("orchestrate", given);
    assert_eq!(result["completed"], true, "{result:#}");
}

#[test]
fn a_setup_command_is_what_the_user_meant() {
    let repo = Repo::new();
    repo.write(".gitignore", "made\n");
    repo.commit("what the set-up makes");
    repo.git(&["config", "agentloop.setup", "echo one > made && echo two >> made"]);
    repo.git(&["config", "agentloop.verify", "test \"$(cat made)\" = 'one\ntwo'"]);
    let ran = repo.mock_run("x", &[]);
    assert_eq!(ran["completed"], true, "{ran:#}");
}

#[test]
fn a_command_whose_program_is_not_there_costs_no_agent() {
    let repo = Repo::new();
    let run = repo.mock_run("x", &["--max-iterations", "2"])["run_id"].as_str().unwrap().to_owned();
    let refs = repo.git(&["for-each-ref"]);
    for check in
        ["no-such-program-x --all", "no-such-program-x && true", "A=1 no-such-program-x", "no-such-program-x|cat"]
    {
        for verb in
            [&["run", "y", "--backend", "mock"][..], &["run", "y", "--backend", "mock", "-d"], &["bisect", &run]]
        {
            let refused = repo.agentloop(&[verb, &["--verify", check]].concat()).expect(2).stderr;
            assert!(refused.contains(&format!("check '{check}': program 'no-such-program-x' not found")), "{refused}");
            assert!(refused.contains("\nhint: "), "{refused}");
        }
    }
    let set = [("AGENTLOOP_SETUP", "no-such-program-x")];
    let refused = repo.agentloop_with(&["run", "y", "--backend", "mock"], &set).expect(2).stderr;
    assert!(refused.contains("set-up command 'no-such-program-x': program 'no-such-program-x' not found"), "{refused}");
    assert_eq!(repo.git(&["for-each-ref"]), refs);
}

#[test]
fn a_run_without_checks_names_the_one_that_its_project_suggests() {
    for (file, content, command) in [
        ("Cargo.toml", "[package]\n", Some("cargo test")),
        ("package.json", "{\"scripts\": {\"test\": \"x\"}}", Some("npm test")),
        ("package.json", "{}", None),
        ("go.mod", "module x\n", Some("go test ./...")),
        ("pyproject.toml", "", Some("python3 -m pytest")),
        ("Makefile", "test:\n\ttrue\n", Some("make test")),
        ("Makefile", "all:\n\ncheck: all\n", Some("make check")),
        ("Makefile", "all:\n", None),
        ("README", "hello\n", None),
    ] {
        let repo = Repo::new();
        repo.write(file, content);
        repo.try_git(&["add", "."]);
        repo.try_git(&["commit", "-qm", "a project"]);
        let ran = repo.agentloop(&["run", "x", "--backend", "mock"]).expect(0);
        let wanted = format!(
            "no checks: nothing but the reviewer will judge the work; add --verify \"{}\"\n",
            command.unwrap_or("COMMAND")
        );
        assert_eq!(ran.stderr.matches("no checks: ").count(), 1, "{file}: {}", ran.stderr);
        assert!(ran.stderr.contains(&wanted), "{file}: {}", ran.stderr);
        let summary = repo.agentloop(&["result", "--json"]).expect(0).json()["summary"].as_str().unwrap().to_owned();
        assert!(summary.contains("no checks"), "{summary}");
    }
    let repo = Repo::new();
    assert!(
        !repo.agentloop(&["run", "x", "--backend", "mock", "--verify", "true"]).expect(0).stderr.contains("no checks")
    );
}

#[test]
fn what_protects_nothing_is_refused_with_what_is_near() {
    let repo = Repo::new();
    repo.write("tests/api_test.rs", "strict\n");
    repo.write("src/lib.rs", "\n");
    repo.commit("code");
    let print = repo.git(&["for-each-ref"]);
    for (pathspec, near) in [
        ("test", "tests"),
        ("tests/api_tests.rs", "tests/api_test.rs"),
        ("api_test.rs", "tests/api_test.rs"),
        ("*.lock", "git ls-files"),
        (":(glob)test/**", "tests"),
    ] {
        let refused = repo.agentloop(&["run", "x", "--backend", "mock", "--protect", pathspec]).expect(2).stderr;
        let (error, hint) = refused.split_once("\nhint: ").unwrap();
        assert!(error.contains(&format!("--protect '{pathspec}' matches no file")), "{refused}");
        assert!(hint.contains(near), "{refused}");
    }
    assert_eq!(repo.git(&["for-each-ref"]), print);
    for pathspec in ["tests", "tests/*.rs", ":(glob)**/*_test.rs", "*.rs"] {
        repo.mock_run("x", &["--protect", pathspec]);
    }
    // What is set for every project is not asked of each.
    repo.git(&["config", "agentloop.protect", "*.lock"]);
    repo.mock_run("x", &[]);
}

#[test]
fn protected_paths_are_shown_as_they_are_typed_in_a_folder() {
    let repo = Repo::new();
    repo.write("services/api/test.txt", "strict\n");
    repo.write("services/web/test.ts", "strict\n");
    repo.commit("services");
    let folder = repo.path().join("services/api");
    let api = |arguments: &[&str]| in_folder(&repo, &folder, arguments);
    for (given, near) in [("tst.txt", "test.txt"), ("../web/tests.ts", "../web/test.ts")] {
        let refused = api(&["run", "x", "--backend", "mock", "--protect", given]).expect(2).stderr;
        assert!(refused.contains(&format!("--protect '{given}' matches")), "{refused}");
        let hint = refused.split_once("near it: ").unwrap().1;
        assert!(hint.trim_end().split(", ").any(|path| path == near), "{refused}");
        api(&["run", "x", "--backend", "mock", "--protect", near]).expect(0);
    }
    let refused = api(&["run", "x", "--backend", "mock", "--protect", ":(nosuch)x"]).expect(2).stderr;
    assert!(refused.contains("':(nosuch)x' is no pathspec"), "{refused}");

    // What the private store does not know any more is asked for as it is typed there.
    let limited = ["run", "y", "--name", "y", "--backend", "mock", "--max-iterations", "1"];
    api(&[&limited[..], &["--protect", "test.txt", "--protect", "../web"]].concat()).expect(1);
    std::fs::remove_dir_all(repo.home().join("state")).unwrap();
    let refused = api(&["resume", "y", "--max-iterations", "4"]).expect(2).stderr;
    let flags = refused.split_once("add this to the command: ").unwrap().1.trim_end();
    assert!(flags.contains("--protect test.txt") && flags.contains("--protect ../web"), "{refused}");
    let words: Vec<&str> = flags.split(' ').collect();
    api(&[&["resume", "y", "--max-iterations", "4"][..], &words].concat()).expect(0);
    let protected =
        repo.events("y").into_iter().rev().find_map(|event| event["data"]["options"]["protect"].as_array().cloned());
    assert_eq!(protected.unwrap(), ["services/api/test.txt", "services/web"]);
}

#[test]
fn a_run_is_at_home_in_the_folder_that_it_was_started_in() {
    let repo = Repo::new();
    repo.write("services/api/test.txt", "strict\n");
    repo.write("services/api/check.sh", "test -f test.txt\n");
    repo.write("services/web/x", "");
    repo.commit("services");
    let api = repo.path().join("services/api");
    let work = "echo weakened > test.txt; pwd > where.txt";
    scripted(&repo, &plan(&["one"]), work, "");
    let run = ["run", "a goal", "--backend", "scripted", "--json", "--criteria", "x"];
    let more = ["--protect", "test.txt", "--verify", "sh ./check.sh", "--verify", "test -f ../web/x"];
    let started = |folder: &std::path::Path, further: &[&str]| {
        let ran = in_folder(&repo, folder, &[&run[..], &more, further].concat()).expect(0).json();
        let (id, branch) =
            (ran["run_id"].as_str().unwrap().to_owned(), ran["worktree"]["branch"].as_str().unwrap().to_owned());
        assert_eq!(repo.git(&["show", &format!("{branch}:services/api/test.txt")]), "strict");
        let stood = repo.git(&["show", &format!("{branch}:services/api/where.txt")]);
        assert!(stood.ends_with("/services/api"), "{stood}");
        let options = options_of(&repo, &id);
        assert_eq!(
            (&options["cwd"], &options["protect"][0]),
            (&"services/api".into(), &"services/api/test.txt".into())
        );
        id
    };
    let id = started(&api, &[]);
    started(repo.path(), &["--cwd", "services/api"]);
    started(&repo.path().join("services/web"), &["--cwd", "../api"]);
    // A search for what broke it stands there too.
    let found = repo.agentloop(&["bisect", &id, "--verify", "sh ./check.sh", "--json"]).expect(1).json();
    assert_eq!(found["broken_by"], Value::Null);
    let top = repo.mock_run("x", &[]);
    assert_eq!(options_of(&repo, top["run_id"].as_str().unwrap())["cwd"], Value::Null);
    let outside = repo.home().to_str().unwrap().to_owned();
    for wrong in [&["--cwd", &outside][..], &["--cwd", "no-such"], &["--cwd", ".git"], &["--protect", "../../../x"]] {
        let refused = in_folder(&repo, &api, &[&run[..], wrong].concat()).expect(2).stderr;
        assert!(refused.contains(wrong[0]), "{refused}");
    }
}

#[test]
fn merge_takes_only_what_is_ready() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}.txt={iteration}\n"]);
    let stopped = |goal: &str, more: &[&str]| {
        let all = [&["run", goal, "--backend", "mock", "--json"], more].concat();
        repo.agentloop(&all).expect(1).json()["run_id"].as_str().unwrap().to_owned()
    };
    let main = repo.git(&["rev-parse", "HEAD"]);
    for (goal, check, why) in [
        ("half", "true", "its goal is not reached (max_iterations)"),
        ("red", "false", "its last checks failed: false"),
    ] {
        let run = stopped(goal, &["--max-iterations", "1", "--verify", check]);
        for way in [&[][..], &["--squash"], &["--rebase"], &["--with-agent"]] {
            let refused = repo.agentloop(&[&["merge", run.as_str()], way].concat()).expect(2).stderr;
            assert!(refused.contains(&format!("{run} is not ready to merge: ")) && refused.contains(why), "{refused}");
            assert!(refused.contains("--force"), "{refused}");
        }
        assert_eq!(repo.git(&["rev-parse", "HEAD"]), main);
        for verb in ["result", "show"] {
            let shown = repo.agentloop(&[verb, &run]).stdout;
            assert!(!shown.contains("merge"), "{verb}: {shown}");
        }
    }
    repo.agentloop(&["merge", "half", "--force", "--ff"]).expect(0);
    assert_ne!(repo.git(&["rev-parse", "HEAD"]), main);
    let run = repo.mock_run("unchecked", &[])["run_id"].as_str().unwrap().to_owned();
    let told = repo.agentloop(&["merge", &run]).expect(0).stderr;
    assert!(told.contains("no checks ran on it"), "{told}");
}

#[test]
fn in_a_worktree_the_run_is_its_own_and_the_newest_is_at() {
    let repo = Repo::new();
    let first = run_with_files(&repo, "the first");
    let second = run_with_files(&repo, "the second");
    let worktree = repo.agentloop(&["result", &first, "--json"]).expect(0).json()["worktree"]["path"].clone();
    let worktree = std::path::PathBuf::from(worktree.as_str().unwrap());
    let id = |folder: &std::path::Path, arguments: &[&str]| {
        let all = [&["status"], arguments, &["--json"]].concat();
        in_folder(&repo, folder, &all).expect(0).json()["run_id"].as_str().unwrap().to_owned()
    };
    assert_eq!((id(&worktree, &[]), id(&worktree, &["@"])), (first.clone(), second.clone()));
    assert_eq!((id(repo.path(), &[]), id(repo.path(), &["@"])), (second.clone(), second.clone()));
    std::fs::create_dir(worktree.join("below")).unwrap();
    assert_eq!(id(&worktree.join("below"), &[]), first);
    for verb in [&["result", "@"][..], &["show", "@"], &["tail", "@"], &["log", "@"], &["diff", "@"], &["output", "@"]]
    {
        let ran = repo.agentloop(verb).expect(0);
        assert_ne!(ran.stdout, "", "{verb:?}");
    }
}

#[test]
fn what_was_meant_is_found() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    for (arguments, words) in [
        (&["stop"][..], "did you mean 'git agentloop cancel'?"),
        (&["watch"], "did you mean 'git agentloop tail -f'?"),
        (&["run", "x", "--backend", "claude"], "did you mean 'claude_code'?"),
        (&["fork"], "a fork needs something that differs"),
        (&["fork", &run], "a fork needs something that differs"),
    ] {
        let refused = repo.agentloop(arguments).expect(2).stderr;
        assert!(refused.contains(words) && refused.contains("\nhint: "), "{arguments:?}: {refused}");
    }
    assert_eq!(repo.agentloop(&["help", "run"]).expect(0).stdout, repo.agentloop(&["run", "-h"]).expect(0).stdout);
    repo.agentloop(&["merge", &run]).expect(0);
    let told = repo.agentloop(&["prune", "--older-than", "0d"]).expect(0).stdout;
    let command = told.lines().last().unwrap().split('\'').nth(1).unwrap();
    let words: Vec<&str> = command.split(' ').skip(2).collect();
    assert!(repo.agentloop(&words).expect(0).stdout.contains(&format!("removed {run}")), "{command}");
    repo.git(&["config", "agentloop.mock.delay", "30000"]);
    repo.agentloop(&["run", "live", "--backend", "mock", "-d"]).expect(0);
    repo.agentloop(&["result", "--wait", "--timeout", "0.2s"]).expect(124);
    repo.agentloop(&["cancel"]).expect(0);
}

#[test]
fn a_name_is_the_run_s_id_where_it_is_free() {
    let repo = Repo::new();
    let named = |name: &str, more: &[&str]| -> String {
        let all = [&["run", "a goal", "--backend", "mock", "--json", "--name", name], more].concat();
        repo.agentloop(&all).expect(0).json()["run_id"].as_str().unwrap().to_owned()
    };
    let is_suffixed = |run: &str, name: &str| run.len() == name.len() + 7 && run.starts_with(&format!("{name}-"));
    let id = |name: &str| repo.agentloop(&["status", name, "--json"]).expect(0).json()["run_id"].clone();
    assert_eq!(named("Greet", &[]), "greet");
    assert!(repo.git(&["log", "-1", "--format=%(trailers)", "agentloop/greet"]).contains("Agentloop-Run: greet\n"));
    let second = named("greet", &[]);
    assert!(is_suffixed(&second, "greet"), "{second}");
    assert_eq!((id("greet"), id("agentloop/greet")), ("greet".into(), "greet".into()));
    assert!(is_suffixed(&named("修复", &[]), "run"));
    let detached = named("alone", &["-d"]);
    assert_eq!(detached, "alone");
    repo.agentloop(&["result", "alone", "--wait"]).expect(0);
    // What could not begin leaves its name to the next.
    repo.agentloop(&["run", "a goal", "--backend", "mock", "--name", "late", "--base", "nosuch"]).expect(2);
    assert_eq!(named("late", &[]), "late");
    // Of two at once, one has it.
    let both = [0, 1].map(|_| repo.spawn(&["run", "a goal", "--backend", "mock", "--json", "--name", "both"]));
    let mut both = both.map(|child| Ran::of(&child.wait_with_output().unwrap()).expect(0).json()["run_id"].clone());
    both.sort_by_key(|id| id.to_string().len());
    assert!(both[0] == "both" && is_suffixed(both[1].as_str().unwrap(), "both"), "{both:?}");
    // One that was discarded is not another whose id begins so; its name is not free, since it can come back.
    repo.agentloop(&["discard", "greet", "--yes"]).expect(0);
    for verb in [&["status", "greet"][..], &["discard", "greet", "--yes"]] {
        assert!(repo.agentloop(verb).expect(2).stderr.contains("greet was discarded\n"));
    }
    assert_eq!(id(&second), second);
    assert!(is_suffixed(&named("greet", &[]), "greet"));
    repo.agentloop(&["restore", "greet"]).expect(0);
    assert_eq!(id("greet"), "greet");
    // Other files of ours beside the runs' folders are no runs.
    let mark = repo.path().join(".git/agentloop/hooks-folder-made");
    std::fs::write(&mark, "").unwrap();
    repo.agentloop(&["prune", "--older-than", "0s", "--yes"]).expect(0);
    assert!(mark.exists());
    repo.assert_sound();
}
