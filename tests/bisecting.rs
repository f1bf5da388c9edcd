//! `bisect`: the iteration that broke a check is found, without a touch of the user's checkout.

use serde_json::Value;

use crate::support::Repo;

/// A run of six iterations whose worker breaks something in the fourth.
fn broken_in_the_fourth() -> (Repo, String) {
    let repo = Repo::new();
    let agent = "read -r role; prompt=$(cat); case \"$role\" in \
         *reviewer*) if [ \"$AGENTLOOP_ITERATION\" -ge 6 ]; then v=true; else v=false; fi; echo \"{\\\"gates_passed\\\": $v, \\\"goal_complete\\\": $v, \\\"issues\\\": []}\" ;; \
         *subagent*) echo \"$AGENTLOOP_ITERATION\" > count; if [ \"$AGENTLOOP_ITERATION\" -ge 4 ]; then echo x > broken; fi; echo done ;; \
         *) echo '[{\"id\": \"one\", \"description\": \"work\"}]' ;; esac";
    let agent = repo.script("agent", agent);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let arguments = ["run", "break it", "--criteria", "x", "--backend", "scripted", "--max-iterations", "6", "--json"];
    let result = repo.agentloop(&arguments).expect(0).json();
    assert_eq!(result["iterations"], 6, "{result:#}");
    let run = result["run_id"].as_str().unwrap().to_owned();
    (repo, run)
}

#[test]
fn the_iteration_that_broke_it_is_found() {
    let (repo, run) = broken_in_the_fourth();
    let (print, refs) = (repo.fingerprint(), repo.git(&["for-each-ref"]));
    let commit = |number: u32| {
        repo.git(&[
            "log",
            "--first-parent",
            "--format=%H",
            &format!("--grep=^Agentloop-Iteration: {number}$"),
            &format!("agentloop/{run}"),
        ])
    };
    let found = repo.agentloop(&["bisect", &run, "--verify", "test ! -e broken", "--json"]).expect(0).json();
    assert_eq!((&found["broken_by"]["iteration"], &found["broken_by"]["commit"]), (&4.into(), &commit(4).into()));
    assert_eq!(found["last_good"]["iteration"], 3);
    assert!(found["tried"].as_array().unwrap().len() <= 5, "{found:#}");
    let said = repo.agentloop(&["bisect", &run, "--verify", "test ! -e broken"]).expect(0);
    assert!(said.stdout.starts_with(&format!("iteration 4 broke it: {}\n", commit(4))), "{}", said.stdout);
    assert!(
        said.stdout.contains(&format!("git agentloop fork {run}@3")) && said.stderr.contains("the start"),
        "{said:?}"
    );

    // One that the check cannot judge is passed over.
    let judge = repo.script("judge", "case $(cat count 2>/dev/null) in 3) exit 125 ;; esac; test ! -e broken");
    let skipped = repo.agentloop(&["bisect", &run, "--verify", &judge, "--json"]).expect(0).json();
    assert_eq!(
        (&skipped["broken_by"]["iteration"], &skipped["last_good"]["iteration"]),
        (&4.into(), &2.into()),
        "{skipped:#}"
    );

    for (check, says) in [("true", "the newest commit passes"), ("false", "it fails where the run started")] {
        assert!(repo.agentloop(&["bisect", &run, "--verify", check]).expect(1).stdout.contains(says));
    }
    let missing = repo.agentloop(&["bisect", &run, "--verify", "no-such-program"]).expect(2).stderr;
    assert!(missing.contains("program 'no-such-program' not found"), "{missing}");
    assert!(repo.agentloop(&["bisect", &run]).expect(2).stderr.contains("no check to search with"));

    assert_eq!((repo.fingerprint(), repo.git(&["for-each-ref"])), (print, refs));
    assert!(!repo.git(&["worktree", "list"]).contains("bisect"), "its worktree is gone");
    let json: Value = repo.status(&run);
    assert_eq!(json["state"], "completed");
    repo.assert_sound();
}

#[test]
fn the_check_finds_what_any_worktree_gets() {
    let (repo, run) = broken_in_the_fourth();
    repo.write(".git/info/exclude", "*.local\n");
    repo.write("a.local", "x\n");
    repo.git(&["config", "agentloop.copy", "*.local"]);
    let setup = repo.script(
        "setup",
        "echo run >> \"$HOME/setup.log\"; echo no luck >&2; cp a.local b.local; test ! -e \"$HOME/bad\"",
    );
    repo.git(&["config", "agentloop.setup", &setup]);
    let check = repo.script(
        "check",
        "test -e a.local && test -e b.local && test -e \"$(git rev-parse --git-dir)/locked\" && test ! -e broken",
    );
    let found = repo.agentloop(&["bisect", &run, "--verify", &check, "--json"]).expect(0).json();
    assert_eq!(found["broken_by"]["iteration"], 4, "{found:#}");
    assert_eq!(std::fs::read_to_string(repo.home().join("setup.log")).unwrap(), "run\n", "once, not for each commit");
    std::fs::write(repo.home().join("bad"), "").unwrap();
    let failed = repo.agentloop(&["bisect", &run, "--verify", &check]).expect(2).stderr;
    assert!(failed.contains(&setup) && failed.contains("no luck") && failed.contains("hint: "), "{failed}");
    assert!(!repo.git(&["worktree", "list"]).contains("bisect"), "its worktree is gone");
}
