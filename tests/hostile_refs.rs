//! Workers that move or remove refs, files and hooks of the user's: what would be lost is kept, and all of it is named.

use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Signal, kill_process};

use crate::fanout::{RUN, plan, scripted};
use crate::hostile_workers::after_with;
use crate::support::{Repo, wait_for};

/// A run whose one worker does `deed`; its id and all that is on record of it.
fn run_with(repo: &Repo, deed: &str) -> (String, String) {
    scripted(repo, &plan(&["bad"]), &format!("{deed}\necho x > bad.txt"), "true");
    let run = repo.agentloop(&[&RUN[..], &["--max-iterations", "1"]].concat()).expect(0).json()["run_id"].clone();
    let run = run.as_str().unwrap().to_owned();
    let said = format!("{:?}", repo.events(&run));
    (run, said)
}

/// Where the run keeps what would be lost.
fn rescued(repo: &Repo, run: &str) -> Vec<String> {
    let kept = repo.git(&["for-each-ref", "--format=%(objectname)", &format!("refs/agentloop/rescue/{run}/")]);
    kept.lines().map(ToOwned::to_owned).collect()
}

/// A commit beside HEAD.
fn aside(repo: &Repo, message: &str) -> String {
    repo.git(&["commit-tree", "-p", "HEAD", "-m", message, "HEAD^{tree}"])
}

#[test]
fn what_refs_had_alone_is_kept_and_named() {
    let repo = Repo::new();
    for text in ["older", "newest"] {
        repo.write("README", text);
        repo.git(&["stash", "-q"]);
    }
    for name in ["refs/heads/gone", "refs/heads/reset", "refs/remotes/origin/main", "refs/notes/commits"] {
        repo.git(&["update-ref", name, &aside(&repo, name)]);
    }
    repo.git(&["tag", "-a", "-m", "a tag", "v1", &aside(&repo, "tagged")]);
    let rows = [
        ("refs/stash", "refs/stash@{0}", "git stash pop -q; git checkout -q -- README"),
        ("refs/stash", "refs/stash@{1}", "git stash drop -q"),
        ("refs/heads/gone", "refs/heads/gone", "git branch -qD gone"),
        ("refs/heads/reset", "refs/heads/reset", "git update-ref refs/heads/reset HEAD"),
        ("refs/tags/v1", "refs/tags/v1", "git tag -d v1"),
        ("refs/remotes/origin/main", "refs/remotes/origin/main", "git update-ref -d refs/remotes/origin/main"),
        ("refs/notes/commits", "refs/notes/commits", "git update-ref refs/notes/commits HEAD"),
    ];
    let olds: Vec<String> = rows.iter().map(|(_, old, _)| repo.git(&["rev-parse", old])).collect();
    let deeds: Vec<&str> = rows.iter().map(|(_, _, deed)| *deed).collect();
    let (run, said) = run_with(&repo, &deeds.join("\n"));
    let kept = rescued(&repo, &run);
    for ((name, ..), old) in rows.iter().zip(&olds) {
        assert!(kept.contains(old), "{name}: {kept:?}");
        let words = format!("{name} (was {}, kept as refs/agentloop/rescue/{run}/", &old[..12]);
        assert!(said.contains(&words), "{words}: {said}");
    }
    let shown = repo.agentloop(&["show", &run]).expect(0).stdout;
    for old in &olds {
        assert!(shown.contains(&format!("rescued   {} refs/agentloop/rescue/{run}/", &old[..12])), "{shown}");
    }
}

#[test]
fn what_the_last_checkpoint_did_not_see_is_kept_too() {
    let repo = Repo::new();
    repo.git(&["update-ref", "refs/heads/gone", &aside(&repo, "gone")]);
    let old = repo.git(&["rev-parse", "refs/heads/gone"]);
    scripted(&repo, &plan(&["bad"]), "true", "true");
    // The one that only asks is followed by no checkpoint: the run waits for an answer.
    let agent = repo.home().join("agent");
    let script = std::fs::read_to_string(&agent).unwrap();
    let asks =
        "case \"$role\" in *clarifier*) git branch -qD gone; echo '[\"which?\"]'; exit ;; esac\ncase \"$role\" in";
    std::fs::write(&agent, script.replacen("case \"$role\" in", asks, 1)).unwrap();
    let run = repo.agentloop(&[&RUN[..], &["--ask"]].concat()).expect(3).json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(rescued(&repo, &run), [old]);
}

#[test]
fn a_ref_that_goes_on_is_named_and_nothing_is_kept() {
    let repo = Repo::new();
    let main = repo.git(&["rev-parse", "main"]);
    repo.git(&["branch", "merged"]);
    let deed = "git update-ref refs/heads/main $(git commit-tree -p main -m on main^{tree}); git branch -qD merged; \
                git update-ref refs/heads/new HEAD; echo 'ref: refs/heads/new' > \"$HOME/repo/.git/HEAD\"";
    let (run, said) = run_with(&repo, deed);
    assert!(said.contains(&format!("refs/heads/main (was {})", &main[..12])), "{said}");
    assert!(said.contains("HEAD (was refs/heads/main)") && said.contains("refs/heads/new"), "{said}");
    // The branch that was at the same commit is within the one that went on.
    let kept = rescued(&repo, &run);
    assert!(kept.iter().all(|kept| *kept == main), "{kept:?}");
}

#[test]
fn another_run_s_log_and_branch_are_put_back() {
    let repo = Repo::new();
    let other = repo.mock_run("another goal", &[])["run_id"].as_str().unwrap().to_owned();
    let [log, branch] = ["notes", "heads"].map(|kind| format!("refs/{kind}/agentloop/{other}"));
    let olds = [&log, &branch].map(|name| repo.git(&["rev-parse", name]));
    let (run, said) = run_with(&repo, &format!("git update-ref -d {log}; git update-ref -d {branch}"));
    for (name, old) in [log, branch].iter().zip(olds) {
        assert_eq!(repo.git(&["rev-parse", name]), old);
        assert!(said.contains(&format!("{name} (was {}, put back)", &old[..12])), "{said}");
    }
    assert_eq!(rescued(&repo, &run), Vec::<String>::new());
}

#[test]
fn a_run_that_the_user_discards_meanwhile_is_not_kept_twice() {
    let repo = Repo::new();
    let other = repo.mock_run("another goal", &[])["run_id"].as_str().unwrap().to_owned();
    // As a discard leaves it.
    let deed = format!(
        "for r in notes/agentloop/{other} heads/agentloop/{other}; do git update-ref refs/agentloop/rescue/{other}/now/$r refs/$r; \
         git update-ref -d refs/$r; done"
    );
    let (run, said) = run_with(&repo, &deed);
    assert!(!said.contains("refs were moved"), "{said}");
    assert_eq!(rescued(&repo, &run), Vec::<String>::new(), "{said}");
}

#[test]
fn files_of_the_checkout_and_hooks_are_compared_by_content() {
    let repo = Repo::new();
    repo.write(".gitignore", ".env\nbuilt/\n");
    repo.write("watched", "mine");
    repo.write("staged", "mine");
    repo.commit("files");
    for (name, text) in [(".env", "A=1"), ("dirty", "mine!"), ("same", "same"), ("built/old", "x"), ("new/deep", "x")] {
        repo.write(name, text);
    }
    let hook = repo.path().join(".git/hooks/pre-commit");
    std::fs::write(&hook, "#!/bin/sh\nexit 0 # mine\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(hook.with_file_name("post-merge"), "x").unwrap();
    let deed = "cd \"$HOME/repo\"\n\
        echo B=2 >> .env\n\
        for f in dirty .git/hooks/pre-commit; do touch -r $f ../stamp; s=$(stat -c %s $f); \
        head -c $s /dev/zero | tr '\\0' '#' > $f; touch -r ../stamp $f; done\n\
        touch same .git/hooks/post-merge; echo x > built/new; echo y >> new/deep\n\
        git update-index --assume-unchanged watched; echo evil > watched; git rm -q --cached staged\n\
        git config --file \"$HOME/gitconfig\" core.hooksPath /evil; touch -d '1 minute ago' .git/index.lock; cd \"$OLDPWD\"";
    let (run, said) = run_with(&repo, deed);
    let files = ".env, dirty, new/deep, staged, watched";
    assert!(said.contains(&format!("files in your checkout were changed while workers worked (by you, or by a worker that left its worktree): {files}\"")), "{said}");
    assert!(said.contains("hooks of the repository were changed while workers worked (by you, or by a worker that left its worktree): pre-commit\""), "{said}");
    assert!(
        said.contains("settings in your own configuration were changed") && said.contains("core.hookspath (in '"),
        "{said}"
    );
    assert!(said.contains("once no git is running: index.lock"), "{said}");
    assert_eq!(repo.git(&["config", "--global", "core.hooksPath"]), "/evil", "it is the user's to judge: {run}");
}

#[test]
fn what_a_killed_driver_s_worker_broke_and_left_running_is_mended_by_the_next() {
    let repo = Repo::new();
    let (go, done) = (repo.home().join("go"), repo.home().join("done"));
    // The daemon sheds every mark; the user's own is started where the work is, by a login.
    let deed = format!(
        "[ ! -e {done} ] || {{ echo did it; exit 0; }}\n\
         setsid env -i sh -c 'echo $$ > {home}/daemon; exec sleep 1012' > /dev/null 2>&1 &\n\
         pwd > {home}/place; while [ ! -e {go} ]; do sleep 0.01; done\n\
         printf '[core\\n' >> $HOME/repo/.git/config; touch {done}; sleep 1013",
        home = repo.home().display(),
        go = go.display(),
        done = done.display()
    );
    scripted(&repo, &plan(&["bad"]), &deed, "true");
    let before = std::fs::read(repo.path().join(".git/config")).unwrap();
    let mut child = repo.spawn(&[&RUN[..], &["--max-iterations", "1"]].concat());
    let read = |name: &str| {
        let text = std::fs::read_to_string(repo.home().join(name)).ok()?;
        text.ends_with('\n').then(|| text.trim_end().to_owned())
    };
    let daemon: i32 = wait_for("the daemon", || read("daemon")).parse().unwrap();
    let place = wait_for("the place", || read("place"));
    let run = repo.agentloop(&["list", "--json"]).expect(0).json()[0]["run_id"].as_str().unwrap().to_owned();
    let mut editor = repo.command("sleep");
    let mut editor = editor.arg("1014").current_dir(place).spawn().unwrap();
    std::fs::write(&go, "").unwrap();
    wait_for("the worker's deed", || done.exists().then_some(()));
    kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::KILL).unwrap();
    child.wait().unwrap();
    repo.agentloop(&["resume", &run]).expect(0);
    assert_eq!(std::fs::read(repo.path().join(".git/config")).unwrap(), before);
    let said = format!("{:?}", repo.events(&run));
    assert!(said.contains("were changed while workers worked, and put back: config (git could not read it)"), "{said}");
    let state = std::fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the daemon goes on: {state}");
    assert_eq!(editor.try_wait().unwrap(), None, "the user's own was stopped");
    editor.kill().unwrap();
    editor.wait().unwrap();
}

#[test]
fn many_refs_are_looked_at_in_no_time() {
    let repo = Repo::new();
    let head = repo.git(&["rev-parse", "HEAD"]);
    let lines: Vec<String> = (0..10_000).map(|number| format!("{head} refs/heads/many/{number:05}\n")).collect();
    let lines = lines.concat();
    std::fs::write(
        repo.path().join(".git/packed-refs"),
        format!("# pack-refs with: peeled fully-peeled sorted \n{lines}"),
    )
    .unwrap();
    let outcome =
        after_with(repo, "git for-each-ref --format='delete %(refname)' refs/heads/many | git update-ref --stdin");
    let remarks = outcome.remarks();
    assert!(remarks.contains("refs/heads/many/00000 (was") && remarks.contains("and 9990 more"), "{remarks}");
    let kept = outcome.repo.git(&["for-each-ref", "refs/agentloop/rescue/"]);
    assert_eq!(kept, "", "HEAD has them all");
}
