//! Runs in several clones: over every transport, with remotes that refuse, and when two machines went on.

use serde_json::Value;

use crate::review::run_with_files;
use crate::support::{PROGRAM, Repo, http_remote};

/// A bare repository below `home`, with main pushed to it as `origin`.
pub fn bare(repo: &Repo) -> String {
    let bare = repo.home().join("remote/bare.git");
    repo.git(&["init", "-q", "--bare", "-b", "main", bare.to_str().unwrap()]);
    repo.git(&["--git-dir", bare.to_str().unwrap(), "config", "http.receivepack", "true"]);
    repo.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
    repo.git(&["push", "-q", "-u", "origin", "main"]);
    bare.to_str().unwrap().to_owned()
}

pub fn clone_of(url: &str) -> Repo {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("clone");
    let clone = Repo::at(home, path.clone());
    let home = clone.home().to_owned();
    let mut git = std::process::Command::new("git");
    crate::support::hermetic(&mut git, &home);
    assert!(git.args(["clone", "-q", url]).arg(&path).status().unwrap().success());
    clone.git(&["config", "user.name", "Another"]);
    clone.git(&["config", "user.email", "another@example.com"]);
    clone
}

/// What the reading verbs print of `run`, but for where its worktree is.
fn answers(repo: &Repo, run: &str) -> Vec<String> {
    let verbs: [&[&str]; 6] = [
        &["list", "--json"],
        &["status", run, "--json"],
        &["tail", run, "--json", "--limit", "100000"],
        &["result", run, "--json"],
        &["log", run, "--format=%H %B%N"],
        &["log", run, "--stat"],
    ];
    // Who can verify it differs from clone to clone.
    let alike = |mut json: Value| {
        json["verified"] = Value::Null;
        json
    };
    let print = |verb: &&[&str]| {
        let text = repo.agentloop(verb).expect(0).stdout;
        match verb[0] {
            // git names the notes ref.
            "log" => text.replace("agentloop-remote/origin/", "agentloop/"),
            "list" => {
                let all: Vec<Value> = serde_json::from_str(&text).unwrap();
                alike(all.into_iter().find(|one| one["run_id"] == run).unwrap()).to_string()
            }
            "status" => alike(serde_json::from_str(&text).unwrap()).to_string(),
            "result" => {
                let mut json: Value = serde_json::from_str(&text).unwrap();
                json["worktree"]["path"] = Value::Null;
                alike(json).to_string()
            }
            _ => text,
        }
    };
    verbs.iter().map(print).collect()
}

fn sync(repo: &Repo, code: i32) -> Value {
    repo.agentloop(&["sync", "--json"]).expect(code).json()
}

/// A run that has its first iteration behind it and wants another, in the clone that began it, with `setting`, and in one
/// that fetched it.
fn in_two_clones(setting: &[&str]) -> (Repo, Repo, String) {
    let repo = Repo::new();
    let bare = bare(&repo);
    if !setting.is_empty() {
        repo.git(&[&["config"], setting].concat());
    }
    repo.agentloop(&["run", "a goal", "--backend", "mock", "--max-iterations", "1"]).expect(1);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    sync(&repo, 0);
    let clone = clone_of(&bare);
    sync(&clone, 0);
    (repo, clone, run)
}

#[test]
fn a_second_clone_reads_the_same_over_every_transport() {
    let repo = Repo::new();
    let bare = bare(&repo);
    let run = run_with_files(&repo, "write files");
    let sent = sync(&repo, 0);
    assert_eq!((&sent["pushed"], &sent["remote"]), (&serde_json::json!([run]), &"origin".into()));
    assert_eq!(repo.agentloop(&["sync"]).expect(0).stdout, "nothing to exchange with origin\n");
    let expected = answers(&repo, &run);

    let http = http_remote::serve(&repo.home().join("remote"));
    let ssh = repo.script("ssh", "while [ \"$1\" != here ]; do shift; done; shift; exec sh -c \"$*\"");
    for url in [bare.clone(), format!("file://{bare}"), format!("{http}/bare.git"), format!("ssh://here{bare}")] {
        let clone = clone_of(&bare);
        clone.git(&["config", "core.sshCommand", &ssh]);
        clone.git(&["remote", "set-url", "origin", &url]);
        let got = sync(&clone, 0);
        assert!(got["fetched"].as_array().unwrap().contains(&run.as_str().into()), "{url}: {got}");
        assert_eq!(answers(&clone, &run), expected, "{url}");
        assert!(clone.agentloop(&["show", &run]).expect(0).stdout.contains(&format!("origin/agentloop/{run}")));
        // And the other way.
        let own = run_with_files(&clone, "made elsewhere");
        assert_eq!(sync(&clone, 0)["pushed"], serde_json::json!([own]), "{url}");
        assert!(repo.git(&["ls-remote", "origin"]).contains(&format!("refs/notes/agentloop/{own}")));
        clone.assert_sound();
    }
}

#[test]
fn transcripts_go_only_where_they_are_asked_to_go() {
    let repo = Repo::new();
    bare(&repo);
    let run = run_with_files(&repo, "write files");
    sync(&repo, 0);
    let there = |remote: &str| repo.git(&["ls-remote", remote, "refs/agentloop/*"]);
    assert_eq!(there("origin"), "");
    let vault = repo.home().join("vault.git");
    repo.git(&["init", "-q", "--bare", vault.to_str().unwrap()]);
    repo.git(&["remote", "add", "vault", vault.to_str().unwrap()]);
    repo.git(&["config", "agentloop.outputRemote", "vault"]);
    assert_eq!(repo.agentloop(&["sync", "origin", "--output", "--json"]).expect(0).json()["output"], "vault");
    assert_eq!(there("origin"), "");
    assert!(there("vault").contains(&format!("refs/agentloop/run/{run}/output")));
    let path = repo.agentloop(&["output", &run]).expect(0).stdout.lines().next().unwrap().to_owned();
    let wanted = repo.agentloop(&["output", &run, &path]).expect(0).stdout;

    let clone = clone_of(vault.to_str().unwrap());
    clone.git(&["remote", "add", "runs", repo.home().join("remote/bare.git").to_str().unwrap()]);
    clone.git(&["config", "agentloop.outputRemote", "origin"]);
    clone.agentloop(&["sync", "runs", "--output"]).expect(0);
    assert_eq!(clone.agentloop(&["output", &run, &path]).expect(0).stdout, wanted);
}

#[test]
fn a_remote_that_refuses_is_named_and_nothing_is_lost() {
    let repo = Repo::new();
    let bare = bare(&repo);
    let run = run_with_files(&repo, "write files");
    for hook in ["update", "pre-receive"] {
        let refuse = match hook {
            "update" => "case \"$1\" in refs/notes/*) exit 1 ;; esac",
            _ => "while read -r a b name; do case \"$name\" in refs/notes/*) exit 1 ;; esac; done",
        };
        let script = repo.script(hook, refuse);
        std::fs::create_dir_all(format!("{bare}/hooks")).unwrap();
        std::fs::copy(&script, format!("{bare}/hooks/{hook}")).unwrap();
        let report = sync(&repo, 1);
        assert_eq!(report["refused"][0]["ref"], format!("refs/notes/agentloop/{run}"), "{hook}: {report:#}");
        assert_eq!(report["refused"].as_array().unwrap().len(), 1, "{hook}: {report:#}");
        assert!(repo.git(&["ls-remote", "origin"]).contains(&format!("refs/heads/agentloop/{run}")), "{hook}");
        std::fs::remove_file(format!("{bare}/hooks/{hook}")).unwrap();
        repo.git(&["push", "-q", "origin", "--delete", &format!("agentloop/{run}")]);
        repo.git(&["update-ref", "-d", &format!("refs/remotes/origin/agentloop/{run}")]);
    }
    let refs = repo.git(&["for-each-ref"]);
    repo.git(&["remote", "add", "gone", "/nowhere/at/all"]);
    let unreachable = repo.agentloop(&["sync", "gone"]).expect(2).stderr;
    assert!(
        unreachable.contains("git could not work with the remote 'gone'") && unreachable.contains("/nowhere/at/all"),
        "{unreachable}"
    );
    assert!(repo.agentloop(&["sync", "nobody"]).expect(2).stderr.contains("there is no remote 'nobody'"));
    assert_eq!(repo.git(&["for-each-ref"]), refs);
    let lone = Repo::new();
    assert!(lone.agentloop(&["sync"]).expect(2).stderr.contains("git remote add NAME URL"));
}

#[test]
fn a_run_goes_on_elsewhere_and_comes_back() {
    let repo = Repo::new();
    let bare = bare(&repo);
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}.txt={iteration}\n"]);
    repo.agentloop(&["run", "write files", "--backend", "mock", "--max-iterations", "1"]).expect(1);
    let status = repo.agentloop(&["status", "--json"]).expect(0).json();
    let run = status["run_id"].as_str().unwrap();
    sync(&repo, 0);
    let clone = clone_of(&bare);
    sync(&clone, 0);
    clone.git(&["config", "agentloop.mock.edit", "elsewhere-{subgoal}.txt={iteration}\n"]);
    // What its log wants to run is shown, and wanted again.
    let refused = clone.agentloop(&["resume", run, "--max-iterations", "2"]).expect(2).stderr;
    assert!(refused.contains("was started in another clone"), "{refused}");
    assert!(refused.contains("add this to the command: --permissions edit --backend mock\n"), "{refused}");
    // And that is what 'show' names, with a budget that is not spent.
    let shown = clone.agentloop(&["show", run]).expect(0).stdout;
    assert!(shown.contains(&format!("\nnext      git agentloop resume {run} --max-iterations 2\n")), "{shown}");
    let trusted = ["resume", run, "--max-iterations", "2", "--permissions", "edit", "--backend", "mock"];
    clone.agentloop(&trusted).expect(0);
    assert_eq!(sync(&clone, 0)["pushed"], serde_json::json!([run]));

    // Back where it began: what the worktree there held uncommitted is kept, and the run is at the same point.
    let worktree =
        repo.agentloop(&["result", run, "--json"]).expect(1).json()["worktree"]["path"].as_str().unwrap().to_owned();
    std::fs::write(format!("{worktree}/unsaved"), "precious\n").unwrap();
    // A branch that somebody stands on is not moved; all else is exchanged, and nothing of the run has gone by then.
    repo.git(&["switch", "-q", &format!("agentloop/{run}")]);
    let other = run_with_files(&repo, "something else");
    let refused = repo.agentloop(&["sync"]).expect(2).stderr;
    assert!(refused.contains("is checked out in"), "{refused}");
    assert!(std::path::Path::new(&worktree).exists());
    repo.git(&["--git-dir", &bare, "rev-parse", "-q", "--verify", &format!("refs/notes/agentloop/{other}")]);
    repo.git(&["switch", "-q", "main"]);
    let back = sync(&repo, 0);
    assert_eq!(back["updated"], serde_json::json!([run]), "{back:#}");
    let kept = back["kept"][0].as_str().unwrap().split(' ').find(|word| word.starts_with("refs/")).unwrap().to_owned();
    assert_eq!(repo.git(&["show", &format!("{kept}:unsaved")]), "precious");
    assert_eq!(answers(&repo, run), answers(&clone, run));
    assert_eq!(
        repo.git(&["rev-parse", &format!("agentloop/{run}")]),
        clone.git(&["rev-parse", &format!("agentloop/{run}")])
    );
    repo.assert_sound();
}

#[test]
fn what_was_put_on_record_elsewhere_is_not_run_where_the_run_began() {
    let (repo, clone, run) = in_two_clones(&["agentloop.mock.acceptIteration", "9"]);
    clone.git(&["config", "agentloop.mock.acceptIteration", "9"]);
    let proof = repo.home().join("ran");
    let check = format!("touch {}", proof.display());
    let theirs =
        ["resume", &run, "--max-iterations", "2", "--permissions", "all", "--backend", "mock", "--verify", &check];
    clone.agentloop(&theirs).expect(1);
    std::fs::remove_file(&proof).unwrap();
    sync(&clone, 0);
    assert_eq!(sync(&repo, 0)["updated"], serde_json::json!([run]));
    let refused = repo.agentloop(&["resume", &run, "--max-iterations", "3"]).expect(2).stderr;
    assert!(refused.contains(&check) && refused.contains("--permissions all"), "{refused}");
    assert!(!proof.exists(), "it was run");
    let ours = [
        "resume",
        &run,
        "--max-iterations",
        "3",
        "--permissions",
        "edit",
        "--backend",
        "mock",
        "--recheck",
        "--verify",
        &check,
    ];
    repo.agentloop(&ours).expect(1);
    assert!(proof.exists());
}

#[test]
fn a_run_that_went_on_in_two_places_is_kept_twice() {
    let (repo, clone, run) = in_two_clones(&[]);
    let trusted = ["resume", &run, "--max-iterations", "2", "--permissions", "edit", "--backend", "mock"];
    clone.agentloop(&trusted).expect(0);
    sync(&clone, 0);
    repo.agentloop(&["resume", &run, "--max-iterations", "3"]).expect(0);
    let own = repo.agentloop(&["tail", &run, "--json"]).expect(0).stdout;
    let report = sync(&repo, 1);
    let (here, there) = (format!("refs/notes/agentloop/{run}"), format!("refs/notes/agentloop-remote/origin/{run}"));
    assert_eq!(report["diverged"], serde_json::json!([{"run_id": run, "here": here, "there": there}]));
    assert_eq!(repo.agentloop(&["tail", &run, "--json"]).expect(0).stdout, own);
    assert_ne!(repo.git(&["rev-parse", &here]), repo.git(&["rev-parse", &there]));
    let said = repo.agentloop(&["sync"]).expect(1).stdout;
    assert!(said.contains("both are kept"), "{said}");
    let command = |which: &str| said.split_once(which).unwrap().1.lines().next().unwrap().to_owned();
    let (for_yours, for_theirs) = (command("for yours: "), command("for theirs, yours put aside: "));

    // Theirs instead: this one is put aside, and can be had back.
    let folder = std::path::Path::new(PROGRAM).parent().unwrap();
    let path = std::env::join_paths(
        [folder.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let chosen = repo.command("sh").env("PATH", path.unwrap()).args(["-ec", &for_theirs]).output().unwrap();
    assert!(chosen.status.success(), "{for_theirs}: {chosen:?}");
    let events = |repo: &Repo| repo.agentloop(&["tail", &run, "--json"]).expect(0).stdout;
    assert_eq!(events(&repo), events(&clone));
    let chosen = String::from_utf8(chosen.stdout).unwrap();
    let back = chosen.lines().find_map(|line| line.strip_prefix("undo: ")).unwrap();
    repo.git(&["update-ref", "-d", &there]);
    crate::taking::undo(&repo, back);
    assert_eq!(events(&repo), own);
    // Ours everywhere.
    crate::taking::undo(&repo, &for_yours);
    assert_eq!(sync(&repo, 0)["diverged"], serde_json::json!([]));
}

#[test]
fn a_discarded_run_stays_so_until_it_goes_on_elsewhere() {
    let (repo, clone, run) = in_two_clones(&["agentloop.mock.acceptIteration", "9"]);
    // One that was made here, and one that was only fetched.
    for repo in [&repo, &clone] {
        let removal = repo.agentloop(&["discard", &run, "--yes", "--json"]).expect(0).json();
        let before = repo.git(&["for-each-ref"]);
        assert_eq!(sync(repo, 0)["discarded"], serde_json::json!([run]));
        assert_eq!(repo.git(&["for-each-ref"]), before);
        assert_eq!(repo.agentloop(&["list", "--json"]).expect(0).json(), serde_json::json!([]));
        let said = repo.agentloop(&["sync"]).expect(0).stdout;
        assert!(said.contains(&format!("discarded {run}: it stays so, and origin still has it\n")), "{said}");
        let told = repo.agentloop(&["show", &run]).expect(2).stderr;
        let undo = removal["undo"].as_str().unwrap();
        assert!(told.contains("was discarded") && told.contains(undo), "{told}");
        crate::taking::undo(repo, undo);
        let report = sync(repo, 0);
        assert_eq!((&report["discarded"], &report["fetched"]), (&serde_json::json!([]), &serde_json::json!([])));
        repo.agentloop(&["show", &run]).expect(0);
    }
    repo.agentloop(&["discard", &run, "--yes"]).expect(0);
    let trusted = ["resume", &run, "--max-iterations", "2", "--permissions", "edit", "--backend", "mock"];
    clone.git(&["config", "agentloop.mock.acceptIteration", "9"]);
    clone.agentloop(&trusted).expect(1);
    sync(&clone, 0);
    assert_eq!(sync(&repo, 0)["fetched"], serde_json::json!([run]));
    assert_eq!(repo.status(&run)["iteration"], 2);
    // And it is gone where the command that was named takes it away.
    repo.agentloop(&["discard", &run, "--yes"]).expect(0);
    let said = repo.agentloop(&["sync"]).expect(0).stdout;
    let command = said.split_once("to remove it there: ").unwrap().1.lines().next().unwrap();
    crate::taking::undo(&repo, command);
    assert_eq!(repo.agentloop(&["sync"]).expect(0).stdout, "nothing to exchange with origin\n");
    repo.assert_sound();
}

#[test]
fn another_machine_s_run_is_taken_over_only_when_told() {
    let repo = Repo::new();
    let bare = bare(&repo);
    repo.git(&["config", "agentloop.mock.delay", "30000"]);
    let mut driver = repo.spawn(&["run", "a goal", "--backend", "mock"]);
    let run = crate::support::wait_for("the run", || {
        let listed = repo.agentloop(&["list", "--json"]).expect(0).json();
        Some(listed.as_array()?.first()?["run_id"].as_str()?.to_owned())
    });
    driver.kill().unwrap();
    driver.wait().unwrap();
    // Another clone on this machine knows no more of the driver than another machine does.
    sync(&repo, 0);
    let near = clone_of(&bare);
    sync(&near, 0);
    let given = ["resume", run.as_str(), "--permissions", "edit", "--backend", "mock"];
    let refused = near.agentloop(&given).expect(2).stderr;
    assert!(refused.contains("last driven in another clone, ") && refused.contains("--take-over"), "{refused}");
    // The same log, as another machine would have written it.
    let name = format!("refs/notes/agentloop/{run}");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let edit = format!(
        "set -e; message=$(git log -1 --format=%B {name}); start=$(git rev-parse agentloop/{run}); \
         git notes --ref={name} show $start | sed 's/\"host\":\"{host}\"/\"host\":\"far-away\"/' > ../note; \
         blob=$(git hash-object -w ../note); tree=$(printf '100644 blob %s\\t%s\\n' $blob $start | git mktree); \
         git push -q -f origin agentloop/{run} $(git commit-tree $tree -m \"$message\"):{name}"
    );
    assert!(repo.command("sh").args(["-c", &edit]).status().unwrap().success());
    let clone = clone_of(&bare);
    sync(&clone, 0);
    assert_eq!(clone.status(&run)["state"], "interrupted");
    let refused = clone.agentloop(&given).expect(2).stderr;
    assert!(refused.contains("last driven on 'far-away'") && refused.contains("seconds ago"), "{refused}");
    assert!(refused.contains("add this to the command: --take-over"), "{refused}");
    clone.agentloop(&[&given[..], &["--take-over"]].concat()).expect(0);
    assert_eq!(sync(&clone, 0)["pushed"], serde_json::json!([run]));
}

#[test]
fn a_run_s_branch_that_was_rebased_is_its_own_work_still() {
    let repo = Repo::new();
    let bare = bare(&repo);
    let run = run_with_files(&repo, "write files");
    let branch = format!("agentloop/{run}");
    sync(&repo, 0);
    let shown = |verb: &[&str]| repo.agentloop(&[verb, &[&run]].concat()).expect(0);
    let (before, files) = (shown(&["diff"]).stdout, shown(&["show", "--json"]).json()["files"].clone());
    repo.write("mine", "goes on\n");
    repo.git(&["add", "mine"]);
    repo.git(&["commit", "-qm", "main goes on"]);
    let worktree = shown(&["result", "--json"]).json()["worktree"]["path"].as_str().unwrap().to_owned();
    repo.git(&["worktree", "remove", "--force", &worktree]);
    repo.git(&["rebase", "-q", "--rebase-merges", "main", &branch]);
    repo.git(&["switch", "-q", "main"]);
    assert_eq!(shown(&["diff"]).stdout, before);
    assert_eq!(shown(&["show", "--json"]).json()["files"], files);
    let log = repo.agentloop(&["log", &run, "--format=%s", "--no-notes"]).expect(0).stdout;
    assert!(!log.contains("main goes on"), "{log}");

    // The remote's is not written over: the way to do it is named, and works.
    let refused = repo.agentloop(&["sync"]).expect(1).stdout;
    let command = format!("git push --force-with-lease origin {branch}");
    assert!(refused.contains(&format!("'{command}' puts yours in its place")), "{refused}");
    repo.git(&command.split(' ').skip(1).collect::<Vec<_>>());
    sync(&repo, 0);
    let clone = clone_of(&bare);
    sync(&clone, 0);
    assert_eq!(clone.agentloop(&["diff", &run]).expect(0).stdout, before);
    repo.agentloop(&["merge", &run]).expect(0);
    assert_eq!(shown(&["show", "--json"]).json()["merged"], true);
}
