//! `steer` and `fork`: guidance for a live run, and new runs from where others were.

use crate::review::run_with_files;
use crate::support::Repo;

#[test]
fn guidance_is_on_record_at_once_and_in_the_next_plan() {
    let repo = Repo::new();
    // The first worker works until it is told to go on; the second iteration's is done at once.
    let gate = repo.home().join("go");
    let agent = format!(
        "read -r role; prompt=$(cat); case \"$role\" in \
         *reviewer*) if [ \"$AGENTLOOP_ITERATION\" -ge 2 ]; then v=true; else v=false; fi; echo \"{{\\\"gates_passed\\\": $v, \\\"goal_complete\\\": $v, \\\"issues\\\": []}}\" ;; \
         *subagent*) while [ ! -e '{}' ]; do sleep 0.05; done; echo done ;; \
         *) echo '[{{\"id\": \"one\", \"description\": \"work\"}}]' ;; esac",
        gate.display()
    );
    let agent = repo.script("agent", &agent);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    repo.agentloop(&["run", "-d", "a goal", "--criteria", "x", "--backend", "scripted"]).expect(0);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    repo.await_status(&run, |status| status["phase"] == "execute");
    let text = "leave the API as it is; the key is sk-ant-api03-abcdefghijklmnopqrstuvwxyz0123456789";
    repo.agentloop(&["steer", &run, text]).expect(0);
    crate::support::wait_for("the guidance", || repo.kinds(&run).contains(&"steered".to_owned()).then_some(()));
    assert_eq!(repo.status(&run)["iteration"], 1, "it did not wait for the step to end");
    std::fs::write(&gate, "").unwrap();
    repo.await_status(&run, |status| status["running"] == false);
    let events = repo.events(&run);
    let second = events.iter().filter(|event| event["kind"] == "iteration_started").nth(1).unwrap();
    let feedback = second["data"]["feedback"].as_str().unwrap();
    assert!(feedback.contains("The user says: leave the API as it is"), "{feedback}");
    assert!(!feedback.contains("abcdefghijklmnop"), "a secret is no guidance: {feedback}");
    assert_eq!(std::fs::read_dir(repo.path().join(format!(".git/agentloop/{run}/inbox"))).unwrap().count(), 0);

    let refused = repo.agentloop(&["steer", &run, "too late"]).expect(2).stderr;
    assert!(refused.contains("is not running") && refused.contains("git agentloop fork"), "{refused}");
    assert!(repo.agentloop(&["steer", &run, "  "]).expect(2).stderr.contains("the guidance is empty"));
}

#[test]
fn a_fork_goes_on_from_an_iteration_and_says_so() {
    let repo = Repo::new();
    let run = run_with_files(&repo, "write files");
    let print = repo.fingerprint();
    let from = format!("{run}@1");
    let arguments = ["fork", &from, "--goal", "write others", "--max-iterations", "3", "--json"];
    let forked = repo.agentloop(&arguments).expect(0).json();
    let new = forked["run_id"].as_str().unwrap();
    assert!(new.starts_with("write-others-"), "{new}");
    let first = repo.git(&["rev-parse", &format!("agentloop/{run}~1")]);
    assert_eq!(forked["worktree"]["base"], first.as_str());
    assert_eq!(repo.git(&["merge-base", &format!("agentloop/{run}"), &format!("agentloop/{new}")]), first);
    let started = &repo.events(new)[0]["data"];
    assert_eq!((&started["forked_from"], &started["goal"]["criteria"]), (&from.as_str().into(), &"".into()));
    assert_eq!(started["options"]["budget"]["max_iterations"], 3);
    assert_eq!(started["options"]["checks"][0]["name"], "true", "the rest is as it was");
    let trailers = repo.git(&[
        "log",
        "--format=%(trailers:key=Agentloop-Forked-From,valueonly,separator=%x2C)",
        &format!("{first}..agentloop/{new}"),
    ]);
    assert_eq!(trailers.trim(), from);
    assert_eq!(repo.fingerprint(), print);

    // The same goal, from its end.
    let same = repo.agentloop(&["fork", &run, "--json"]).expect(0).json();
    assert_eq!(same["worktree"]["base"], repo.git(&["rev-parse", &format!("agentloop/{run}")]).as_str());
    assert!(same["run_id"].as_str().unwrap().starts_with("write-files-"));
    for wrong in ["@9", "@x"] {
        let refused = repo.agentloop(&["fork", &format!("{run}{wrong}")]).expect(2).stderr;
        assert!(refused.contains("has committed no iteration"), "{refused}");
    }
    // What a log from elsewhere wants to run is wanted again.
    std::fs::remove_file(repo.path().join(format!(".git/agentloop/{run}/started-here"))).unwrap();
    let refused = repo.agentloop(&["fork", &run]).expect(2).stderr;
    assert!(refused.contains(&format!("git agentloop fork {run} --verify true --permissions edit")), "{refused}");
}
