//! Workers in worktrees of their own, and what they leave joined by git.

use std::path::PathBuf;

use serde_json::Value;

use crate::support::{Repo, wait_for};

/// A scripted agent: `plan` is the decomposer's answer, `work` what a worker does, `integrate` what the integrator does.
/// Every prompt is kept in HOME as `prompt-<role>-<subgoal>-<iteration>`.
pub fn scripted(repo: &Repo, plan: &str, work: &str, integrate: &str) {
    let planned = repo.home().join("plan");
    std::fs::write(&planned, plan).unwrap();
    let body = format!(
        "read -r role\nname=$(echo \"$role\" | cut -d' ' -f4)\n\
         cat > \"$HOME/prompt-$name-$AGENTLOOP_SUBGOAL-$AGENTLOOP_ITERATION\"\n\
         case \"$role\" in\n*criteria*) echo ok ;;\n*decomposer*) cat '{}' ;;\n\
         *reviewer*) echo '{{\"gates_passed\": true, \"goal_complete\": true}}' ;;\n\
         *integrator*) {integrate}\necho resolved ;;\n*) {work}\necho \"did $AGENTLOOP_SUBGOAL\" ;;\nesac",
        planned.display()
    );
    let agent = repo.script("agent", &body);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
}

/// A plan of subgoals with these ids.
pub fn plan(ids: &[&str]) -> String {
    let items: Vec<Value> =
        ids.iter().map(|id| serde_json::json!({"id": id, "description": format!("work on {id}")})).collect();
    Value::Array(items).to_string()
}

pub const RUN: [&str; 5] = ["run", "a goal", "--backend", "scripted", "--json"];

pub fn prompt(repo: &Repo, role: &str, subgoal: &str, iteration: u32) -> String {
    std::fs::read_to_string(repo.home().join(format!("prompt-{role}-{subgoal}-{iteration}"))).unwrap()
}

/// The commit on a worker's ref.
pub fn work_of(repo: &Repo, run: &str, task: &str) -> String {
    repo.git(&["rev-parse", &format!("refs/agentloop/run/{run}/{task}")])
}

/// Nothing of a run's workers is left but commits: no worktree, no index, no claim.
#[track_caller]
pub fn assert_cleared(repo: &Repo, run: &str) {
    let listed = repo.git(&["worktree", "list", "--porcelain"]);
    assert!(!listed.contains(&format!("{run}.w")) && !listed.contains("prunable"), "{listed}");
    let beside = std::fs::read_dir(repo.home().join("repo.agentloop")).into_iter().flatten().flatten();
    let beside: Vec<PathBuf> = beside.map(|entry| entry.path()).collect();
    assert!(beside.iter().all(|path| !path.to_string_lossy().contains(".w")), "{beside:?}");
    let folder = repo.path().join(".git/agentloop").join(run);
    let left: Vec<String> =
        std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.starts_with('w') && !name.starts_with("index.")), "{left:?}");
}

/// Keeps both sides of every conflict.
const KEEP_BOTH: &str = "for f in $(git diff --name-only --diff-filter=U); do \
    sed -i '/^||||||| /,/^=======$/d;/^<<<<<<< /d;/^>>>>>>> /d' $f; done";

#[test]
fn eight_disjoint_and_four_on_one_function_are_all_in_the_checkpoint() {
    let repo = Repo::new();
    repo.write("src/lib.rs", "fn shared() {\n    start();\n}\n");
    repo.commit("code");
    let ids = ["a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "b1", "b2", "b3", "b4"];
    // Two of the four write the same line, so that git merges all but one of them.
    let work = "case $AGENTLOOP_SUBGOAL in a*) echo $AGENTLOOP_SUBGOAL > $AGENTLOOP_SUBGOAL.txt ;;\n\
                b4) sed -i 's/    start();/    b4();/' src/lib.rs ;;\n\
                *) sed -i 's/    start();/    started();/' src/lib.rs; echo $AGENTLOOP_SUBGOAL > $AGENTLOOP_SUBGOAL.md ;; esac";
    scripted(&repo, &plan(&ids), work, KEEP_BOTH);
    let before = repo.fingerprint();
    let result = repo.agentloop(&[&RUN[..], &["--jobs", "6", "--verify", "test -f a8.txt"]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let tip = format!("agentloop/{run}");

    for id in &ids[..8] {
        assert_eq!(repo.git(&["show", &format!("{tip}:{id}.txt")]), *id);
    }
    let merged = repo.git(&["show", &format!("{tip}:src/lib.rs")]);
    assert!(merged.contains("started();") && merged.contains("b4();") && !merged.contains("<<<<"), "{merged}");
    let kinds = repo.kinds(run);
    let count = |kind: &str| kinds.iter().filter(|found| *found == kind).count();
    assert_eq!((count("integrated"), count("conflicted")), (12, 1), "{kinds:?}");
    let asked = repo
        .events(run)
        .into_iter()
        .filter(|event| event["kind"] == "agent_started" && event["data"]["role"] == "integrator");
    assert_eq!(asked.count(), 1);
    let prompt = prompt(&repo, "integrator", "b4", 1);
    for words in ["work on b1", "work on b2", "work on b3", "work on b4", "+    started();", "+    b4();", "src/lib.rs"]
    {
        assert!(prompt.contains(words), "{words} is missing in\n{prompt}");
    }
    assert!(!prompt.contains("work on a1"), "a side that does not conflict is named:\n{prompt}");

    let parents = repo.git(&["log", "-1", "--format=%P", &tip]);
    let parents: Vec<&str> = parents.split(' ').collect();
    for id in ids {
        assert!(parents.contains(&work_of(&repo, run, &format!("iter1/{id}")).as_str()), "{id} is no parent");
    }
    assert!(parents.contains(&work_of(&repo, run, "iter1/b4.merge").as_str()));
    let graph = repo.git(&["log", "--graph", "--format=%s", &format!("main..{tip}")]);
    assert!(graph.contains("agentloop: b4: conflict resolved, work on b4"), "{graph}");
    assert!(graph.contains("agentloop: a3: work on a3"), "{graph}");
    let trailers = repo.git(&["log", "-1", "--format=%(trailers)", &work_of(&repo, run, "iter1/a1")]);
    for trailer in
        [&format!("Agentloop-Run: {run}"), "Agentloop-Iteration: 1", "Agentloop-Subgoal: a1", "Agentloop-Attempt: 1"]
    {
        assert!(trailers.lines().any(|line| line == trailer), "{trailer} is missing in\n{trailers}");
    }
    assert_eq!(repo.git(&["log", "--first-parent", "--format=%s", &format!("main..{tip}")]).lines().count(), 2);
    let worktree = result["worktree"]["path"].as_str().unwrap();
    assert_eq!(repo.git(&["-C", worktree, "status", "--porcelain"]), "");
    assert_eq!(repo.fingerprint(), before);
    assert_cleared(&repo, run);
    repo.assert_sound();
}

#[test]
fn a_conflict_that_stays_open_is_a_failed_subgoal_and_its_commit_stays() {
    let repo = Repo::new();
    let work = "echo $AGENTLOOP_SUBGOAL > README";
    scripted(&repo, &plan(&["one", "two"]), work, "echo I cannot");
    let arguments = ["--max-iterations", "1", "--max-task-retries", "1"];
    let result = repo.agentloop(&[&RUN[..], &arguments].concat()).json();
    let run = result["run_id"].as_str().unwrap();
    let results = &result["history"][0]["results"];
    assert_eq!((&results[0]["ok"], &results[1]["ok"]), (&Value::Bool(true), &Value::Bool(false)));
    let error = results[1]["error"].as_str().unwrap();
    assert!(error.contains("conflicts") && error.contains("README") && error.contains("markers are left"), "{error}");
    let commit = work_of(&repo, run, "iter1/two");
    assert_eq!(results[1]["unmerged"], commit);
    assert_eq!(repo.git(&["show", &format!("{commit}:README")]), "two");
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:README")]), "one");
    let tries = repo.kinds(run).iter().filter(|kind| *kind == "conflicted").count();
    assert_eq!(tries, 3, "git's own, and two attempts");
    assert_cleared(&repo, run);
    repo.assert_sound();
}

#[test]
fn a_conflict_that_one_side_wins_whole_is_said() {
    let repo = Repo::new();
    scripted(&repo, &plan(&["one", "two"]), "echo $AGENTLOOP_SUBGOAL > README", "git checkout --theirs README");
    let result = repo.agentloop(&RUN).expect(0).json();
    let events = repo.events(result["run_id"].as_str().unwrap());
    let resolved = events.iter().find(|event| event["data"]["conflict"].is_array()).unwrap();
    let remarks = resolved["data"]["remarks"].to_string();
    let said = "'README' is as it came in: nothing of what was there before was kept in it";
    assert_eq!(remarks, format!("[\"{said}\"]"));
    assert!(prompt(&repo, "reviewer", "", 1).contains(&format!("two: {said}")));
}

#[test]
fn partial_work_is_kept_unmerged_and_the_same_subgoal_starts_from_it() {
    let repo = Repo::new();
    // In the first iteration `hard` writes half and fails; in the second it finds its half.
    let work = "if [ $AGENTLOOP_SUBGOAL = hard ]; then\n\
                if [ $AGENTLOOP_ITERATION = 1 ]; then echo half >> half.txt; cat half.txt; exit 1; fi\n\
                cp half.txt whole.txt; fi; echo $AGENTLOOP_ITERATION > $AGENTLOOP_SUBGOAL.txt";
    scripted(&repo, &plan(&["easy", "hard"]), work, "true");
    let check = "test -f whole.txt";
    let result = repo.agentloop(&[&RUN[..], &["--verify", check]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    assert_eq!(result["iterations"], 2);
    let first = &result["history"][0]["results"][1];
    assert_eq!((&first["ok"], &first["attempts"]), (&Value::Bool(false), &Value::from(2)));
    let partial = work_of(&repo, run, "iter1/hard");
    assert_eq!(first["unmerged"], partial);
    assert_eq!(
        repo.git(&["show", &format!("{partial}:half.txt")]),
        "half\nhalf",
        "the retry did not go on in its place"
    );
    let begun = prompt(&repo, "subagent", "hard", 2);
    assert!(begun.contains(&partial), "{begun}");
    let plan = prompt(&repo, "decomposer", "", 2);
    assert!(plan.contains(&format!("not merged, as commit {partial}")), "{plan}");
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:whole.txt")]), "half\nhalf");
    let contains = repo.try_git(&["merge-base", "--is-ancestor", &partial, &format!("agentloop/{run}")]);
    assert_eq!(contains.code, 0, "the partial work is no ancestor of what was made of it");
    assert_cleared(&repo, run);
    repo.assert_sound();
}

#[test]
fn one_subgoal_has_a_place_of_its_own_and_one_that_edits_nothing_no_commit() {
    let repo = Repo::new();
    scripted(&repo, &plan(&["alone"]), "pwd > where; echo x > made", "true");
    let result = repo.agentloop(&RUN).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    assert!(repo.git(&["show", &format!("agentloop/{run}:where")]).ends_with(&format!("{run}.w1")));
    scripted(&repo, &plan(&["idle", "busy"]), "if [ $AGENTLOOP_SUBGOAL = busy ]; then echo x > made; fi", "true");
    let result = repo.agentloop(&RUN).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    assert_eq!(repo.git(&["log", "-1", "--format=%P", &format!("agentloop/{run}")]).split(' ').count(), 2);
    assert_eq!(result["history"][0]["results"][0]["ok"], true);
}

#[test]
fn workers_may_share_the_worktree_where_that_is_asked_for() {
    let repo = Repo::new();
    scripted(&repo, &plan(&["one", "two"]), "pwd >> where; echo x > $AGENTLOOP_SUBGOAL", "true");
    let result = repo.agentloop(&[&RUN[..], &["--isolation", "shared", "--sequential"]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let places = repo.git(&["show", &format!("agentloop/{run}:where")]);
    assert!(places.lines().count() == 2 && places.lines().all(|place| place.ends_with(run)), "{places}");
    assert!(!repo.kinds(run).contains(&"integrated".to_owned()));
    let refused = repo.agentloop(&["run", "x", "--isolation", "some"]).expect(2);
    assert!(refused.stderr.contains("(expected worktree, shared or none)"), "{}", refused.stderr);
}

#[test]
fn a_cancelled_fan_out_keeps_what_every_worker_did() {
    let repo = Repo::new();
    let work = "echo $AGENTLOOP_SUBGOAL > $AGENTLOOP_SUBGOAL.txt; [ $AGENTLOOP_SUBGOAL = quick ] || sleep 1004";
    scripted(&repo, &plan(&["quick", "slow", "slower"]), work, "true");
    let mut child = repo.spawn(&RUN);
    let run = wait_for("the workers", || {
        let listed = repo.agentloop(&["list", "--json"]).json();
        let run = listed[0]["run_id"].as_str()?.to_owned();
        let quick = repo.kinds(&run).contains(&"subagent_finished".to_owned());
        let beside = repo.home().join("repo.agentloop");
        let slow = (1..=3).filter(|n| {
            ["slow.txt", "slower.txt"].iter().any(|name| beside.join(format!("{run}.w{n}")).join(name).exists())
        });
        (quick && slow.count() == 2).then_some(run)
    });
    repo.agentloop(&["cancel", &run]).expect(0);
    child.wait().unwrap();
    let files = repo.git(&["ls-tree", "--name-only", &format!("agentloop/{run}")]);
    assert_eq!(files, "README\nquick.txt", "what was done is merged, what was not is apart");
    for id in ["slow", "slower"] {
        let commit = work_of(&repo, &run, &format!("iter1/{id}"));
        assert_eq!(repo.git(&["show", &format!("{commit}:{id}.txt")]), id);
    }
    assert_cleared(&repo, &run);
    repo.assert_sound();
    // What was kept is what a resumed run goes on from.
    scripted(&repo, &plan(&[]), "test -f $AGENTLOOP_SUBGOAL.txt && echo more >> $AGENTLOOP_SUBGOAL.txt", "true");
    repo.agentloop(&["resume", &run, "--json"]).expect(0);
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:slower.txt")]), "slower\nmore");
    assert_cleared(&repo, &run);
}

#[test]
fn an_integrator_sees_the_base_s_configuration_of_agents_and_changes_none() {
    let repo = Repo::new();
    repo.write("AGENTS.md", "of the base\n");
    repo.write("shared", "start\n");
    repo.commit("instructions");
    let work = "echo $AGENTLOOP_SUBGOAL > shared; [ $AGENTLOOP_SUBGOAL = one ] || exit 0\n\
                echo of a worker > AGENTS.md; mkdir -p .claude; echo '{}' > .claude/settings.json; echo '{}' > .mcp.json";
    let work = work.replace("|| exit 0", "|| { echo did it; exit 0; }");
    let integrate = format!("cat AGENTS.md > $HOME/seen; ls -A >> $HOME/seen; {KEEP_BOTH}");
    scripted(&repo, &plan(&["one", "two"]), &work, &integrate);
    let result = repo.agentloop(&RUN).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let seen = std::fs::read_to_string(repo.home().join("seen")).unwrap();
    assert_eq!(seen, "of the base\n.git\nAGENTS.md\nREADME\nshared\n");
    let show = |path: &str| repo.git(&["show", &format!("agentloop/{run}:{path}")]);
    assert_eq!((show("AGENTS.md").as_str(), show("shared").as_str()), ("of a worker", "one\ntwo"));
    assert_eq!((show(".claude/settings.json").as_str(), show(".mcp.json").as_str()), ("{}", "{}"));
    assert_cleared(&repo, run);
}
