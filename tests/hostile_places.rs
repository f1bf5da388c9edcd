//! Workers that turn git, or the file system, against the place that they were given.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::fanout::{RUN, assert_cleared, plan, scripted};
use crate::hostile_workers::{after, after_with};
use crate::support::{PROGRAM, Ran, Repo};

#[test]
fn a_link_in_the_place_of_a_worktree_leads_nowhere() {
    let repo = Repo::new();
    // Another repository of the user's, with work in it that nobody has committed.
    let other = repo.home().join("other");
    repo.git(&["init", "-q", other.to_str().unwrap()]);
    std::fs::write(other.join("notes"), "mine").unwrap();
    let outcome = after_with(repo, "d=$PWD; cd ..; mv \"$d\" \"$HOME/moved\"; ln -s \"$HOME/other\" \"$d\"");
    assert_eq!(outcome.files(), "README good.txt");
    assert_eq!(std::fs::read_to_string(other.join("notes")).unwrap(), "mine");
    assert!(other.join(".git/HEAD").exists(), "its repository was taken away");
    let failed = outcome.repo.events(&outcome.run).into_iter().find(|event| event["kind"] == "subagent_failed");
    let error = failed.unwrap()["data"]["error"].to_string();
    assert!(error.contains("something else in the place of its worktree"), "{error}");
    assert_eq!(outcome.result["history"][0]["results"][1]["attempts"], 2, "the second attempt had a place");

    let outcome = after("d=$PWD; cd ..; rm -rf \"$d\"; ln -s \"$HOME/repo\" \"$d\"");
    assert_eq!(outcome.files(), "README good.txt");
    let outcome = after("d=$PWD; cd ..; rm -rf \"$d\"; echo file > \"$d\"");
    assert_eq!(outcome.files(), "README good.txt");
}

#[test]
fn a_git_directory_that_is_damaged_is_mended() {
    let outcome = after("g=$(git rev-parse --absolute-git-dir); echo rubbish > $g/HEAD; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let outcome = after("g=$(git rev-parse --absolute-git-dir); touch $g/HEAD.lock $g/index.lock; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let outcome = after(
        "g=$(git rev-parse --absolute-git-dir); echo rubbish > $g/commondir; rm -r $g/index $g/logs/HEAD; \
         mkdir -p $g/index/x $g/logs/HEAD/x; echo work > bad.txt",
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let outcome = after(
        "g=$(git rev-parse --absolute-git-dir); setsid sh -c \"exec 3> $g/index.lock; sleep 1009\" > /dev/null 2>&1 &\n\
         while [ ! -e \"$(git rev-parse --absolute-git-dir)/index.lock\" ]; do :; done; echo work > bad.txt",
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt", "its holder is stopped with the worker's call");
}

#[test]
fn what_hides_files_from_git_hides_no_work() {
    let repo = Repo::new();
    std::fs::create_dir_all(repo.path().join(".git/info")).unwrap();
    std::fs::write(repo.path().join(".git/info/exclude"), "*.mine\n").unwrap();
    let hide = "echo '*' >> \"$(git rev-parse --git-path info/exclude)\"; \
                echo '* -text' > \"$(git rev-parse --git-path info/attributes)\"; echo work > bad.txt; touch x.mine";
    let outcome = after_with(repo, hide);
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let info = outcome.repo.path().join(".git/info");
    assert_eq!(std::fs::read_to_string(info.join("exclude")).unwrap(), "*.mine\n");
    assert!(!info.join("attributes").exists());
    assert!(outcome.remarks().contains("put back") && outcome.remarks().contains("info/exclude"));

    let outcome = after(
        "git update-index --assume-unchanged README; echo hidden > README; echo work > bad.txt; \
         git add bad.txt; git commit -qm own; git update-index --skip-worktree bad.txt; echo later > bad.txt",
    );
    assert_eq!((outcome.show("README"), outcome.show("bad.txt")), ("hidden".to_owned(), "later".to_owned()));
}

#[test]
fn a_sparse_checkout_deletes_nothing() {
    let repo = Repo::new();
    repo.write("folder/file", "x\n");
    repo.commit("a folder");
    let outcome =
        after_with(repo, "git sparse-checkout set --no-cone /README; [ ! -e folder ] || exit 1; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt folder/file good.txt");
}

#[test]
fn a_file_that_git_cannot_convert_is_captured_as_it_is() {
    let outcome = after(
        "printf '*.dat working-tree-encoding=UTF-16\\n' > .gitattributes; echo work > bad.dat; mkdir later; \
         echo more > later/file",
    );
    assert_eq!(outcome.files(), ".gitattributes README bad.dat good.txt later/file");
    assert_eq!(outcome.show("bad.dat"), "work");
    assert!(outcome.remarks().contains("byte for byte"), "{}", outcome.remarks());
}

#[test]
fn what_the_file_system_makes_hard_to_take_or_remove() {
    let outcome = after(
        "p=$PWD; n=$(printf 'd%.0s' $(seq 200)); i=0; \
         while [ $i -lt 30 ]; do mkdir $n && cd $n || break; i=$((i + 1)); done; cd \"$p\"; echo work > bad.txt",
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let outcome = after(
        "mkfifo fifo; mkdir d; mkfifo d/fifo; mkdir ro; echo x > ro/file; chmod 555 ro; \
         printf x > \"$(printf 'new\\nline')\"; printf x > \"$(printf 'no\\377utf')\"; printf x > ./-dash; \
         echo a > Case; echo b > case; rm README; mkfifo README",
    );
    let files = outcome.files();
    assert_eq!(files, "-dash Case README case good.txt \"new\\nline\" \"no\\377utf\" ro/file");
    assert!(outcome.remarks().contains("README: can only add regular files"), "{}", outcome.remarks());
}

#[test]
fn operations_of_git_that_are_left_half_way() {
    let two = "git switch -qc side; echo side > README; git commit -qam side; git switch -q --detach HEAD~1; \
               echo mine > README; git commit -qam mine;";
    let outcome = after(&format!("{two} git cherry-pick side; echo work > bad.txt"));
    assert!(outcome.remarks().contains("cherry-pick under way") && outcome.keeps("mine") && outcome.keeps("side"));
    let outcome = after(&format!(
        "{two} git format-patch -q -1 --stdout side > \"$HOME/patch\"; git am -q < \"$HOME/patch\"; echo work > bad.txt"
    ));
    assert!(outcome.remarks().contains("under way") && outcome.keeps("mine"), "{}", outcome.remarks());
    let outcome = after(
        "for i in 1 2 3; do echo $i > f; git add f; git commit -qm c$i; done; git bisect start HEAD HEAD~3; \
         echo work > bad.txt",
    );
    assert!(outcome.files().contains("bad.txt") && outcome.keeps("c3"), "{}", outcome.files());
}

#[test]
fn a_worker_that_tidies_the_repository_takes_nothing_along() {
    // Objects that no ref names yet are nobody's to such a gc: it comes while the driver has only events to write.
    let outcome = after(
        "until git for-each-ref refs/agentloop/run | grep -q iter1/good; do sleep 0.01; done\n\
         git reflog expire --expire=now --all; git gc -q --prune=now; echo work > bad.txt",
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let outcome =
        after("echo work > bad.txt; git for-each-ref --format='delete %(refname)' refs/notes | git update-ref --stdin");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    assert!(outcome.repo.kinds(&outcome.run).contains(&"run_started".to_owned()), "its record is back");
    let outcome = after(
        "d=$PWD; cd ..; git -C \"$HOME/repo\" worktree remove -f -f \"$d\"; git -C \"$HOME/repo\" worktree prune",
    );
    assert_eq!(outcome.files(), "README good.txt");
}

#[test]
fn work_that_a_worker_s_own_ignore_file_hides_is_named() {
    let repo = Repo::new();
    repo.write(".gitignore", "target/\n");
    repo.commit("ignore what is built");
    let outcome = after_with(
        repo,
        "echo work > bad.txt; echo late.txt >> .gitignore; echo late > late.txt; mkdir target own .cache; touch target/x; \
         for d in own .cache; do echo '*' > $d/.gitignore; echo work > $d/file; done",
    );
    assert_eq!(outcome.files(), ".gitignore README bad.txt good.txt");
    let said = "hides it from git: late.txt, own/";
    assert!(outcome.remarks().lines().any(|line| line.ends_with(said)), "{}", outcome.remarks());
    let told = crate::fanout::prompt(&outcome.repo, "reviewer", "", 1);
    assert!(told.contains("bad: not part of the work") && told.contains(said), "{told}");
    let outcome = after("echo '*' > .gitignore; echo work > bad.txt");
    assert_eq!(outcome.files(), "README good.txt");
    assert!(outcome.remarks().contains("hides it from git: .gitignore, bad.txt"), "{}", outcome.remarks());
}

#[test]
fn a_pipe_in_the_place_of_what_git_reads_keeps_nobody_waiting() {
    let outcome = after("mkdir d; mkfifo .gitignore d/.gitattributes; echo work > bad.txt; echo more > d/file");
    assert_eq!(outcome.files(), "README bad.txt d/file good.txt");
    assert!(outcome.remarks().contains("was removed: .gitignore, d/.gitattributes"), "{}", outcome.remarks());
    let outcome = after("rm .git; mkfifo .git; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
}

#[test]
fn settings_of_single_worktrees_are_put_back_too() {
    let repo = Repo::new();
    repo.git(&["config", "extensions.worktreeConfig", "true"]);
    // git gives it to every worktree that it makes: nobody changed it there.
    repo.git(&["config", "--worktree", "core.fsmonitor", "false"]);
    let main = "git -C \"$HOME/repo\" config --worktree";
    let outcome = after_with(
        repo,
        &format!(
            "git config --worktree core.editor evil; {main} core.hooksPath /tmp/evil; {main} --unset core.fsmonitor; \
             {main} column.ui never; echo work > bad.txt"
        ),
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let remarks = outcome.remarks();
    for name in ["core.editor", "core.fsmonitor", "core.hookspath"] {
        // Once a mend: a git that was writing the file meanwhile brings the change back, which is then mended again.
        let times = remarks.lines().map(|line| line.matches(&format!("{name} (in config.worktree)")).count());
        assert!(times.clone().all(|times| times <= 1) && times.sum::<usize>() >= 1, "{name}: {remarks}");
    }
    assert!(remarks.contains("left its worktree): column.ui (in config.worktree)"), "{remarks}");
    let stands = outcome.repo.git(&["config", "--worktree", "--list"]);
    let mut stands: Vec<&str> = stands.lines().collect();
    stands.sort_unstable();
    assert_eq!(stands, ["column.ui=never", "core.fsmonitor=false"]);
}

#[test]
fn another_history_or_other_objects_are_named() {
    let outcome = after(
        "cd \"$HOME/repo\"; git rev-parse HEAD > .git/shallow; git init -q --bare ../other; \
         mkdir -p .git/objects/info; echo \"$HOME/other/objects\" > .git/objects/info/alternates; \
         git replace $(echo a | git hash-object -w --stdin) $(echo b | git hash-object -w --stdin); cd - > /dev/null; \
         echo work > bad.txt",
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let remarks = outcome.remarks();
    assert!(remarks.contains("left its worktree): objects/info/alternates, shallow"), "{remarks}");
    assert!(remarks.contains("left its worktree): refs/replace/"), "{remarks}");
}

#[test]
fn a_run_whose_worktree_is_removed_says_what_next_and_goes_on() {
    let removed = ["$HOME/repo.agentloop", "$HOME/repo/.git/worktrees"];
    for (deed, said) in removed.into_iter().zip(["was removed", "what git keeps of the run's worktree"]) {
        let repo = Repo::new();
        let work = format!(
            "echo $AGENTLOOP_SUBGOAL > $AGENTLOOP_SUBGOAL.txt; [ -e $HOME/done ] || {{ touch $HOME/done; rm -rf {deed}; }}"
        );
        scripted(&repo, &plan(&["one", "two"]), &work, "true");
        let before = repo.fingerprint();
        let told = repo.agentloop(&[&RUN[..], &["--max-task-retries", "3"]].concat()).expect(2).stderr;
        let run = repo.status("a-goal")["run_id"].as_str().unwrap().to_owned();
        assert!(told.contains(said) && told.contains(&format!("'git agentloop resume {run}'")), "{told}");
        let place = repo.home().join("repo.agentloop").join(&run);
        if place.exists() {
            std::fs::rename(place, repo.home().join("moved-away")).unwrap();
        }
        repo.agentloop(&["resume", &run]).expect(0);
        let files = repo.git(&["ls-tree", "--name-only", &format!("agentloop/{run}")]);
        assert_eq!(files, "README\none.txt\ntwo.txt", "{deed}");
        assert_eq!(repo.fingerprint(), before);
        assert_cleared(&repo, &run);
    }
}

/// Two workers, each of which writes some files in each iteration.
const WORK: &str = "for i in 1 2 3 4 5 6 7 8; do mkdir -p $AGENTLOOP_SUBGOAL/$i; \
                    echo \"$AGENTLOOP_SUBGOAL $AGENTLOOP_ITERATION $i\" > $AGENTLOOP_SUBGOAL/$i/$AGENTLOOP_ITERATION; done";

#[test]
fn nothing_that_a_driver_captured_or_recorded_is_pruned() {
    // Not a 'git prune' by itself, which announces itself nowhere: a long one can still win.
    let collect = "git reflog expire --expire=now --all; git gc -q --prune=now";
    let repo = Repo::new();
    scripted(&repo, &plan(&["one", "two"]), WORK, "true");
    let agent = std::fs::read_to_string(repo.home().join("agent")).unwrap();
    let once = "{\"gates_passed\": true, \"goal_complete\": true}";
    let twice =
        "{\"gates_passed\": true, \"goal_complete\": '$([ $AGENTLOOP_ITERATION = 2 ] && echo true || echo false)'}";
    assert!(agent.contains(once));
    repo.script("agent", &agent.replace(once, twice));
    let ends = AtomicBool::new(false);
    let ran = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                // Whatever comes of it beside another git.
                repo.command("sh").args(["-c", collect]).output().unwrap();
            }
        });
        let mut run = repo.command(PROGRAM);
        let run = run.args(["run", "a goal", "--backend", "scripted", "--json", "--verify", "test -e one/8/1"]);
        let ran = Ran::of(&run.output().unwrap());
        ends.store(true, Ordering::Relaxed);
        ran
    });
    let run = ran.expect(0).json()["run_id"].as_str().unwrap().to_owned();
    for subgoal in ["one", "two"] {
        for (iteration, file) in [1, 2].into_iter().flat_map(|iteration| (1..=8).map(move |file| (iteration, file))) {
            let content = repo.git(&["show", &format!("agentloop/{run}:{subgoal}/{file}/{iteration}")]);
            assert_eq!(content, format!("{subgoal} {iteration} {file}"), "{collect}");
        }
    }
    let events = repo.events(&run);
    let seqs: Vec<u64> = events.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(seqs, (seqs[0]..seqs[0] + seqs.len() as u64).collect::<Vec<_>>(), "{collect}");
    let status = repo.status(&run);
    assert_eq!((&status["state"], &status["verified"]), (&"completed".into(), &true.into()), "{collect}");
    let held = repo.git(&["for-each-ref", "--format=%(refname)", &format!("refs/agentloop/run/{run}/held")]);
    assert_eq!(held, "", "{collect}");
    // A reflog may name what went before its ref moved on.
    repo.git(&["fsck", "--strict", "--no-dangling", "--no-reflogs"]);
    assert_eq!(repo.locks(), Vec::<std::path::PathBuf>::new(), "{collect}");
}
