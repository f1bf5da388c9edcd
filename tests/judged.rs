//! Checks judge what is committed, in a place where no worker has been; and what they cannot show is said.

use std::path::Path;

use serde_json::{Value, json};

use crate::fanout::{RUN, plan, prompt, scripted, work_of};
use crate::support::Repo;

/// Whether a program is there to test with.
fn has(program: &str) -> bool {
    std::process::Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

fn fact<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    &events.iter().find(|event| event["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))["data"]
}

/// A project whose test is red, and which no honest change to `notes.txt` mends.
fn red() -> Repo {
    let repo = Repo::new();
    repo.write("Makefile", "test:\n\t@sh t.sh\n");
    repo.write("t.sh", "grep -q right calc # xxxxxx\n");
    repo.write("calc", "wrong\n");
    repo.commit("a red test");
    repo
}

#[test]
fn nothing_that_a_worker_leaves_uncommitted_makes_a_red_check_green() {
    let same =
        "n=$(stat -c %s t.sh); t=$(stat -c %y t.sh); printf 'true #%*s' $((n - 6)) '' > t.sh; touch -d \"$t\" t.sh";
    let tricks = [
        "git update-index --skip-worktree t.sh; echo true > t.sh",
        "git update-index --assume-unchanged t.sh; echo true > t.sh",
        same,
        "echo GNUmakefile >> .gitignore; printf 'test:\\n\\ttrue\\n' > GNUmakefile",
        "git sparse-checkout set --no-cone '/*' '!/t.sh'; echo true > t.sh",
        "echo 't.sh filter=zz' > .gitattributes; git config filter.zz.clean 'git show HEAD:t.sh'; echo true > t.sh",
    ];
    for workers in [&["one"][..], &["one", "two"]] {
        for trick in tricks {
            let repo = red();
            let work = format!(
                "[ $AGENTLOOP_SUBGOAL = one ] && {{ {trick}; }} > /dev/null 2>&1; echo note >> notes-$AGENTLOOP_SUBGOAL.txt"
            );
            scripted(&repo, &plan(workers), &work, "true");
            let more = ["--max-iterations", "1", "--verify", "make -s test", "--protect", "t.sh"];
            let result = repo.agentloop(&[&RUN[..], &more].concat()).expect(1).json();
            assert_eq!(result["history"][0]["verification"][0]["ok"], false, "{trick}");
        }
    }
}

#[test]
fn a_single_worker_has_a_place_and_its_work_a_commit_of_its_own() {
    let repo = Repo::new();
    scripted(&repo, &plan(&["one"]), "pwd > \"$HOME/where\"; touch ignored; echo x > made", "true");
    repo.write(".gitignore", "ignored\n");
    repo.commit("ignore");
    let result = repo.agentloop(&[&RUN[..], &["--verify", "test ! -e ignored -a -e made"]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let place = std::fs::read_to_string(repo.home().join("where")).unwrap();
    assert!(place.trim_end().ends_with(&format!("{run}.w1")), "{place}");
    assert_eq!(repo.git(&["show", &format!("{}:made", work_of(&repo, run, "iter1/one"))]), "x");
}

#[test]
fn where_workers_are_not_apart_the_run_says_what_that_means() {
    for (isolation, words) in [("shared", "workers share the worktree"), ("none", "work in your checkout")] {
        let repo = Repo::new();
        let ran = repo.agentloop(&["run", "x", "--backend", "mock", "--isolation", isolation, "--json"]).expect(0);
        let run = ran.json()["run_id"].as_str().unwrap().to_owned();
        let events = repo.events(&run);
        assert!(fact(&events, "worktree_ready")["remarks"][0].as_str().unwrap().contains(words), "{isolation}");
        assert_eq!(ran.stderr.matches(words).count(), 1, "{}", ran.stderr);
    }
    let repo = Repo::new();
    let run = repo.mock_run("x", &[])["run_id"].as_str().unwrap().to_owned();
    assert_eq!(fact(&repo.events(&run), "worktree_ready")["remarks"], Value::Null);
}

#[test]
fn the_baseline_says_what_a_check_said_before_any_work() {
    let repo = red();
    scripted(&repo, &plan(&["one"]), "echo right > calc", "true");
    let checks = ["--verify", "make -s test", "--verify", "test -f README"];
    let ran = repo.agentloop(&[&RUN[..], &checks].concat()).expect(0);
    let result = ran.json();
    let run = result["run_id"].as_str().unwrap();
    let events = repo.events(run);
    let baseline = fact(&events, "baseline");
    let said: Vec<&Value> = (0..2).map(|check| &baseline["checks"][check]["ok"]).collect();
    assert_eq!(said, [&json!(false), &json!(true)]);
    assert_eq!(baseline["tree"], repo.git(&["rev-parse", "main^{tree}"]).as_str());
    let caveat = "passed before any work, so it proves little: 'test -f README'";
    assert!(result["summary"].as_str().unwrap().ends_with(caveat), "{}", result["summary"]);
    assert!(ran.stderr.contains("test -f README: passes before any work"), "{}", ran.stderr);
    assert!(prompt(&repo, "reviewer", "", 1).contains("the check 'test -f README' passed before any work"));
    let again = repo.agentloop(&[&RUN[..], &checks, &["--no-baseline"]].concat()).expect(0).json();
    let run = again["run_id"].as_str().unwrap();
    assert!(!repo.kinds(run).contains(&"baseline".to_owned()));
    repo.git(&["config", "agentloop.baseline", "false"]);
    let again = repo.agentloop(&[&RUN[..], &checks].concat()).expect(0).json();
    assert!(!repo.kinds(again["run_id"].as_str().unwrap()).contains(&"baseline".to_owned()));
}

#[test]
fn a_completion_without_a_change_or_without_a_check_says_so() {
    let repo = Repo::new();
    let summary = |arguments: &[&str]| repo.mock_run("x", arguments)["summary"].as_str().unwrap().to_owned();
    assert!(summary(&[]).ends_with("; no files changed; no checks configured"));
    assert!(summary(&["--verify", "true", "--no-baseline"]).ends_with("; no files changed"));
    repo.git(&["config", "agentloop.mock.edit", "out=x\n"]);
    assert!(summary(&["--verify", "test -f out"]).ends_with("goal complete"));
}

#[test]
fn files_that_can_change_what_a_check_says_are_told() {
    let repo = red();
    scripted(&repo, &plan(&["one"]), "printf 'test:\\n\\ttrue\\n' > GNUmakefile; echo be nice > AGENTS.md", "true");
    let result = repo.agentloop(&[&RUN[..], &["--verify", "make -s test"]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let events = repo.events(run);
    let verification = fact(&events, "verification");
    let shadow = "GNUmakefile: make reads it before makefile and Makefile";
    assert_eq!(verification["shadows"], json!([shadow]));
    let told = prompt(&repo, "reviewer", "", 1);
    let agents = "files that configure agents were changed: AGENTS.md";
    assert!(told.contains(shadow) && told.contains(agents), "{told}");
    let merged = repo.agentloop(&["merge", run]).expect(0).stderr;
    assert!(merged.contains("it changes files that configure agents: AGENTS.md"), "{merged}");
}

/// The reader leaves a list of what it sees, and files of its own.
const READS: &str = r#"
read -r role; cat > /dev/null
case "$role" in
*decomposer*) echo planned > planner.txt; echo '["write"]' ;;
*reviewer*)
    { ls -A; cat AGENTS.md work.txt; pwd; git status --porcelain; } > "$HOME/seen"
    echo '{"gates_passed": true, "goal_complete": true}' ;;
*) echo base > ignored; echo evil > AGENTS.md; mkdir .claude; echo x > .claude/settings.json; echo work > work.txt; echo done ;;
esac
"#;

#[test]
fn readers_see_the_tree_and_the_base_s_configuration_of_agents_alone() {
    let repo = Repo::new();
    repo.write("AGENTS.md", "as in the base\n");
    repo.write(".gitignore", "ignored\n");
    repo.commit("configure agents");
    let agent = repo.script("agent", READS);
    repo.git(&["config", "agentloop.backend.s.command", &agent]);
    let all = ["run", "x", "--criteria", "y", "--backend", "s", "--verify", "touch ignored", "--no-baseline", "--json"];
    let result = repo.agentloop(&all).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let seen = std::fs::read_to_string(repo.home().join("seen")).unwrap();
    let place = repo.home().canonicalize().unwrap().join(format!("repo.agentloop/{run}.r"));
    let place = place.display();
    let wanted = format!(".git\n.gitignore\nAGENTS.md\nREADME\nwork.txt\nas in the base\nwork\n{place}\n?? work.txt\n");
    assert_eq!(seen, wanted);
    let files = repo.git(&["ls-tree", "--name-only", "-r", &format!("agentloop/{run}")]);
    assert_eq!(files, ".claude/settings.json\n.gitignore\nAGENTS.md\nREADME\nwork.txt");
    let planned = repo.events(run).into_iter().find(|event| event["kind"] == "agent_finished").unwrap();
    assert!(planned["data"]["remarks"][0].as_str().unwrap().contains("taken back: planner.txt"), "{planned}");
    assert!(!Path::new(&place.to_string()).exists(), "it goes with the run's end");
    repo.assert_sound();
}

/// A run whose worker installs a dependency, which the check needs; what set-up commands were run.
fn installs(repo: &Repo, setup: &str, work: &str, check: &str) -> Vec<String> {
    repo.git(&["config", "agentloop.setup", &repo.script("setup", &format!("pwd >> \"$HOME/setups\"\n{setup}"))]);
    scripted(repo, &plan(&["one"]), work, "true");
    let result = repo.agentloop(&[&RUN[..], &["--max-iterations", "1", "--verify", check]].concat()).expect(0).json();
    assert_eq!(result["history"][0]["verification"][0]["ok"], true, "{result:#}");
    let setups = std::fs::read_to_string(repo.home().join("setups")).unwrap();
    setups.lines().map(|line| line.rsplit('/').next().unwrap().rsplit('.').next().unwrap().to_owned()).collect()
}

#[test]
fn an_honest_worker_s_dependency_is_installed_for_the_check_in_rust() {
    let repo = Repo::new();
    repo.write(".gitignore", "target/\n");
    repo.write("Cargo.toml", "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\n");
    repo.write("src/lib.rs", "");
    repo.write("dep/Cargo.toml", "[package]\nname = \"dep\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    repo.write("dep/src/lib.rs", "pub fn two() -> u8 { 2 }\n");
    repo.git(&["add", "."]);
    repo.commit("a crate");
    // The toolchain itself: what chooses one asks HOME.
    let bin = Path::new(env!("CARGO")).parent().unwrap().display();
    let cargo = format!("env -u CARGO_TARGET_DIR PATH=\"{bin}:$PATH\" cargo");
    let work = "echo 'dep = { path = \"dep\" }' >> Cargo.toml\n\
                printf '#[test]\\nfn two() { assert_eq!(dep::two(), 2); }\\n' > src/lib.rs\n\
                CARGO generate-lockfile --offline > /dev/null 2>&1"
        .replace("CARGO", &cargo);
    let check = repo.script("check", &format!("{cargo} test -q --offline two"));
    let setups = installs(&repo, &format!("{cargo} fetch --offline > /dev/null 2>&1"), &work, &check);
    assert_eq!(setups.len(), 3, "the run's worktree, the worker's place, and again: {setups:?}");
    assert_eq!(setups[0], setups[2]);
}

#[test]
fn an_honest_worker_s_dependency_is_installed_for_the_check_with_npm() {
    if !has("npm") {
        return eprintln!("npm is not here");
    }
    let repo = Repo::new();
    repo.write(".gitignore", "node_modules/\n");
    repo.write("package.json", r#"{"name": "app", "version": "1.0.0", "private": true}"#);
    repo.write(
        "package-lock.json",
        r#"{"name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
        "packages": {"": {"name": "app", "version": "1.0.0"}}}"#,
    );
    repo.write("dep/package.json", r#"{"name": "dep", "version": "1.0.0", "main": "index.js"}"#);
    repo.write("dep/index.js", "module.exports = 2;\n");
    repo.git(&["add", "."]);
    repo.commit("a package");
    let npm = "--offline --no-audit --no-fund --cache \"$HOME/npm\" > /dev/null 2>&1";
    let work = format!(
        "npm pack ./dep {npm}; npm install ./dep-1.0.0.tgz {npm}; echo \"require('assert')(require('dep') === 2)\" > test.js"
    );
    let setups = installs(&repo, &format!("npm ci {npm}"), &work, "node test.js");
    assert_eq!(setups.len(), 3, "{setups:?}");
}

#[test]
fn an_honest_worker_s_dependency_is_installed_for_the_check_with_pip() {
    if !has("python3") {
        return eprintln!("python3 is not here");
    }
    let repo = Repo::new();
    repo.write(".gitignore", ".venv/\n");
    repo.write("requirements.txt", "\n");
    repo.write("wheels/README", "local wheels\n");
    repo.git(&["add", "."]);
    repo.commit("a project");
    // A wheel is a zip of its files and of three that describe it.
    let wheel = "python3 - <<'W'\nimport zipfile\n\
        with zipfile.ZipFile('wheels/dep-1.0-py3-none-any.whl', 'w') as z:\n\
        \x20   z.writestr('dep.py', 'two = 2')\n\
        \x20   z.writestr('dep-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: dep\\nVersion: 1.0\\n')\n\
        \x20   z.writestr('dep-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n\
        \x20   z.writestr('dep-1.0.dist-info/RECORD', '')\n\
        W\n\
        echo dep==1.0 > requirements.txt; echo 'import dep; assert dep.two == 2' > test.py\n\
        .venv/bin/pip install -q --no-index --find-links wheels -r requirements.txt > /dev/null 2>&1";
    let setup = "python3 -m venv .venv && .venv/bin/pip install -q --no-index --find-links wheels -r requirements.txt";
    let setups = installs(&repo, setup, wheel, ".venv/bin/python test.py");
    assert_eq!(setups.len(), 3, "{setups:?}");
}

#[test]
fn a_setup_that_fails_on_what_a_worker_wrote_is_a_red_check() {
    let repo = Repo::new();
    repo.write("package.json", "{}\n");
    repo.git(&["add", "."]);
    repo.commit("a package");
    let setup = repo.script("setup", "grep -q broken package.json && { echo no such package >&2; exit 7; } || true");
    repo.git(&["config", "agentloop.setup", &setup]);
    scripted(&repo, &plan(&["one"]), "echo broken > package.json", "true");
    let more = ["--max-iterations", "1", "--verify", "true", "--no-baseline"];
    let result = repo.agentloop(&[&RUN[..], &more].concat()).expect(1).json();
    let check = &result["history"][0]["verification"][0];
    assert!(check["error"].as_str().unwrap().ends_with("failed: exit code 7"), "{check}");
    assert_eq!(check["stderr"], "no such package\n");
}

#[test]
fn checks_run_clean_and_with_a_home_of_their_own_where_that_is_wanted() {
    let repo = Repo::new();
    repo.write(".gitignore", "cache\n");
    repo.commit("ignore");
    let check = repo.script("check", "echo \"$HOME\" >> \"$SEEN\"; test ! -e cache && touch cache");
    scripted(&repo, &plan(&["one"]), "echo $AGENTLOOP_ITERATION > made", "true");
    let seen = repo.home().join("seen");
    let run = |expected| {
        let _ = std::fs::remove_file(&seen);
        let all = [&RUN[..], &["--max-iterations", "1", "--verify", &check]].concat();
        repo.agentloop_with(&all, &[("SEEN", seen.to_str().unwrap())]).expect(expected);
        std::fs::read_to_string(&seen).unwrap()
    };
    let home = repo.home().to_str().unwrap();
    assert_eq!(run(1), format!("{home}\n{home}\n"), "its cache stays");
    repo.git(&["config", "agentloop.checkClean", "true"]);
    repo.git(&["config", "agentloop.checkHome", "private"]);
    let homes = run(0);
    assert!(homes.lines().all(|line| line.ends_with("/check-home") && !Path::new(line).exists()), "{homes}");
}

/// Its name, the subgoals, what their workers do, further arguments, and whether no worker is then said to have changed a file.
type Case<'a> = (&'a str, &'a [&'a str], &'a str, &'a [&'a str], bool);

#[test]
fn an_iteration_in_which_no_file_changed_says_so() {
    const NOTE: &str = "no worker changed a file";
    let two = ["one", "two"];
    let cases: [Case<'_>; 8] = [
        ("nobody does anything", &two, "true", &[], true),
        ("a single worker does nothing", &["one"], "true", &["--verify", "true"], true),
        ("every worker fails", &two, "exit 1", &[], true),
        ("a commit that changes nothing", &["one"], "git commit -q --allow-empty -m nothing", &[], true),
        ("workers that share a worktree", &two, "true", &["--isolation", "shared"], true),
        ("one of two does", &two, "[ $AGENTLOOP_SUBGOAL = one ] || echo x > made", &[], false),
        ("a protected file alone", &["one"], "echo x > README", &["--protect", "README"], false),
        ("work that cannot be merged", &["one"], "echo x > made; git update-index --add made; exit 1", &[], false),
    ];
    for (name, subgoals, work, more, is_said) in cases {
        let repo = Repo::new();
        scripted(&repo, &plan(subgoals), work, "true");
        let ran = repo.agentloop(&[&RUN[..], &["--max-iterations", "1", "--max-task-retries", "0"], more].concat());
        let run = repo.git(&["for-each-ref", "--format=%(refname:lstrip=3)", "refs/notes/agentloop/"]);
        let said = [ran.stderr, prompt(&repo, "reviewer", "", 1), repo.agentloop(&["tail", &run]).expect(0).stdout];
        for text in &said {
            assert_eq!(text.contains(NOTE), is_said, "{name}:\n{text}");
        }
    }
    // One that only answers changes none anyway.
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    assert!(!repo.agentloop(&["tail", &run]).expect(0).stdout.contains(NOTE));
}

#[test]
fn what_failed_for_workers_that_changed_nothing_is_named() {
    let repo = Repo::new();
    let stream = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/streams/codex_failed_command.out");
    repo.script("codex", &format!("[ $1 = exec ] || exit 0; cat > /dev/null; cat '{}'", stream.display()));
    let path = format!("{}:{}", repo.home().display(), std::env::var("PATH").unwrap());
    let arguments = ["run", "a goal", "--backend", "mock", "--worker", "codex", "--json"];
    let ran = repo.agentloop_with(&arguments, &[("PATH", path.as_str())]).expect(0);
    let run = ran.json()["run_id"].as_str().unwrap().to_owned();
    let noted = "no worker changed a file; this failed: explore: `/bin/bash -lc 'echo fatal: out of luck >&2; exit 3'` \
                 (exit code 3: fatal: out of luck), build: ";
    assert!(ran.stderr.contains(&format!("note: {noted}")), "{}", ran.stderr);
    let events = repo.events(&run);
    let second = events.iter().filter(|event| event["kind"] == "iteration_started").nth(1).unwrap();
    let feedback = second["data"]["feedback"].as_str().unwrap();
    assert!(feedback.contains(&format!("Note: {noted}")), "{feedback}");
}
