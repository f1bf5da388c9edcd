//! Workers that do what nobody asked for: the run goes on or says why not, and the user's checkout stays as it was.

use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;

use crate::fanout::{RUN, assert_cleared, plan, scripted, work_of};
use crate::support::{Ran, Repo};

/// What a run is after one of its two workers did `deed`.
pub struct Outcome {
    pub repo: Repo,
    pub result: Value,
    pub run: String,
    /// The most memory that the driver held, in KiB; 0 where the system does not tell.
    peak: u64,
}

/// A run of two workers: `good` writes a file, `bad` does `deed` once, in its first attempt.
pub fn after(deed: &str) -> Outcome {
    after_with(Repo::new(), deed)
}

pub fn after_with(repo: Repo, deed: &str) -> Outcome {
    let marker = repo.home().join("done");
    let work = format!(
        "if [ $AGENTLOOP_SUBGOAL = good ]; then echo good > good.txt; elif [ ! -e {m} ]; then touch {m}\n{deed}\nelse true; fi",
        m = marker.display()
    );
    scripted(&repo, &plan(&["good", "bad"]), &work, "true");
    let before = repo.fingerprint();
    let child = repo.spawn(&[&RUN[..], &["--max-iterations", "1"]].concat());
    let watched = watch_memory(child.id());
    let ran = Ran::of(&child.wait_with_output().unwrap());
    let peak = watched.join().unwrap();
    assert!(ran.code == 0 || ran.code == 1, "{}\n{}", ran.stdout, ran.stderr);
    let result = ran.json();
    let run = result["run_id"].as_str().unwrap().to_owned();
    assert_eq!(repo.fingerprint(), before, "the user's checkout was touched");
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:good.txt")]), "good", "the other worker's work is lost");
    assert_cleared(&repo, &run);
    repo.assert_sound();
    Outcome { repo, result, run, peak }
}

/// Looks at how much memory a process holds at most, until it is gone: in KiB.
fn watch_memory(pid: u32) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut peak = 0;
        while let Some(now) = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse().ok()
        }) {
            peak = now;
            std::thread::sleep(Duration::from_millis(20)); // between two looks
        }
        peak
    })
}

impl Outcome {
    /// The files in the checkpoint.
    pub fn files(&self) -> String {
        self.repo.git(&["ls-tree", "-r", "--name-only", &format!("agentloop/{}", self.run)]).replace('\n', " ")
    }

    pub fn show(&self, path: &str) -> String {
        self.repo.git(&["show", &format!("agentloop/{}:{path}", self.run)])
    }

    /// What was noticed about the worker.
    pub fn remarks(&self) -> String {
        let events = self.repo.events(&self.run);
        let noted = events.iter().filter_map(|event| event["data"]["remarks"].as_array());
        noted.flatten().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
    }

    /// Whether a commit with this subject is reachable from a ref.
    pub fn keeps(&self, subject: &str) -> bool {
        self.repo.git(&["log", "--all", "--format=%s"]).lines().any(|line| line == subject)
    }
}

#[test]
fn nested_repositories_with_and_without_commits() {
    let outcome = after(
        "git init -q empty; echo x > empty/file\n\
         git init -q full; cd full; echo y > file; git add .; git -c user.name=x -c user.email=x@x commit -qm nested; cd ..",
    );
    assert_eq!(outcome.files(), "README empty/file full/file good.txt");
    assert!(outcome.remarks().contains("repository of its own"), "{}", outcome.remarks());
}

#[test]
fn names_that_git_takes_for_its_own_are_left_out_and_counted() {
    let outcome = after(
        "git init -q nested; mkdir -p nested/.GIT nested/sub other; ln -s elsewhere nested/.gitmodules\n\
         for file in nested/file nested/.GIT/config nested/sub/git~1 other/git~1; do echo x > $file; done",
    );
    assert_eq!(outcome.files(), "README good.txt nested/file");
    let remarks = outcome.remarks();
    assert!(remarks.contains("captured as 1 file; 3 more are left out"), "{remarks}");
    assert!(remarks.contains("git could not capture everything") && !remarks.contains("byte for byte"), "{remarks}");
}

#[test]
fn a_worktree_that_is_removed() {
    let outcome = after("cd ..; rm -rf \"$OLDPWD\"");
    let bad = &outcome.result["history"][0]["results"][1];
    assert_eq!((&bad["ok"], &bad["attempts"]), (&Value::Bool(true), &Value::from(2)), "the second attempt had a place");
    let failed =
        outcome.repo.events(&outcome.run).into_iter().find(|event| event["kind"] == "subagent_failed").unwrap();
    assert!(failed["data"]["error"].as_str().unwrap().contains("removed its worktree"));
}

#[test]
fn a_git_file_that_is_removed_or_replaced() {
    let outcome = after("rm .git; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    assert!(outcome.remarks().contains(".git file"), "{}", outcome.remarks());
    let outcome = after(
        "rm .git; git init -q .; echo work > bad.txt; git add .; git -c user.name=x -c user.email=x@x commit -qm own",
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let outcome = after("rm -rf \"$(git rev-parse --absolute-git-dir)\"; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    assert!(outcome.remarks().contains("removed what git keeps"), "{}", outcome.remarks());
}

#[test]
fn a_head_that_is_moved_switched_or_rewritten() {
    let outcome = after("echo work > bad.txt; git switch -qc mine; git add .; git commit -qm 'on a branch'");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    assert!(outcome.keeps("on a branch") && outcome.remarks().contains("'mine'"), "{}", outcome.remarks());

    let outcome = after("echo work > bad.txt; git add .; git commit -qm 'on a detached HEAD'; echo more >> bad.txt");
    assert_eq!(outcome.show("bad.txt"), "work\nmore");
    let own = outcome.repo.git(&["log", "-2", "--format=%s", &work_of(&outcome.repo, &outcome.run, "iter1/bad")]);
    assert_eq!(own, "agentloop: bad: work on bad\non a detached HEAD", "its own commits are below ours");

    let outcome = after(
        "echo one > bad.txt; git add .; git commit -qm first; git commit -q --amend -m 'rewritten'; \
         git reset -q --hard HEAD~1; echo last > other.txt",
    );
    assert_eq!(outcome.files(), "README good.txt other.txt");
    assert!(outcome.keeps("first") && outcome.keeps("rewritten"), "commits that it made are unreachable");

    let outcome =
        after("git checkout -q --orphan lonely; git rm -qrf .; echo work > bad.txt; git add .; git commit -qm orphan");
    assert_eq!(outcome.files(), "bad.txt good.txt", "what it deleted is deleted, and no history is lost");
    assert!(outcome.keeps("orphan"));
}

#[test]
fn object_ids_of_another_hash_name_nothing() {
    let outcome = after(
        "echo work > bad.txt; dir=$(git rev-parse --absolute-git-dir); other=$(printf '%064d' 7); \
         printf '%s %s w <w@x> 1700000000 +0000\\tcommit: x\\n' \"$other\" \"$other\" >> \"$dir/logs/HEAD\"; \
         echo \"$other\" > \"$dir/HEAD\"",
    );
    assert_eq!(outcome.files(), "README bad.txt good.txt");
}

#[test]
fn a_merge_or_a_rebase_that_is_left_in_progress() {
    let outcome = after(
        "git switch -qc side; echo side > README; git commit -qam side; git switch -q --detach HEAD~1; \
         echo mine > README; git commit -qam mine; git merge -q side; echo work > bad.txt",
    );
    assert!(outcome.remarks().contains("merge under way"), "{}", outcome.remarks());
    assert!(outcome.files().contains("bad.txt") && outcome.keeps("mine") && outcome.keeps("side"));
    let outcome = after(
        "git switch -qc side; echo side > README; git commit -qam side; git switch -qc other HEAD~1; \
         echo mine > README; git commit -qam mine; git rebase -q side; echo work > bad.txt",
    );
    assert!(outcome.remarks().contains("rebase under way"), "{}", outcome.remarks());
    assert!(outcome.files().contains("bad.txt") && outcome.keeps("mine"));
}

#[test]
fn settings_of_the_repository_that_are_changed_are_put_back_and_named() {
    let outcome = after("git config core.worktree /tmp; git config core.hooksPath /tmp/hooks; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt good.txt");
    let remarks = outcome.remarks();
    assert!(remarks.contains("core.worktree") && remarks.contains("core.hookspath"), "{remarks}");
}

#[test]
fn settings_that_can_wait_for_the_user_are_only_named() {
    let repo = Repo::new();
    let work = "[ $AGENTLOOP_SUBGOAL = good ] || git config column.ui never; echo x > $AGENTLOOP_SUBGOAL.txt";
    scripted(&repo, &plan(&["good", "bad"]), work, "true");
    let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(repo.git(&["config", "column.ui"]), "never", "it may have been the user");
    let remarks = Outcome { result: Value::Null, run, repo, peak: 0 }.remarks();
    let said = "settings of the repository were changed while workers worked (by you, or by a worker that left its worktree): column.ui";
    assert!(remarks.contains(said), "{remarks}");
}

#[test]
fn what_is_written_into_the_user_s_checkout_is_said() {
    let repo = Repo::new();
    let target = repo.path().join("stray.txt");
    scripted(
        &repo,
        &plan(&["good", "bad"]),
        &format!("echo x > $AGENTLOOP_SUBGOAL.txt; [ $AGENTLOOP_SUBGOAL = good ] || echo stray > {}", target.display()),
        "true",
    );
    let result = repo.agentloop(&RUN).expect(0).json();
    let remarks =
        repo.events(result["run_id"].as_str().unwrap()).into_iter().find(|event| event["kind"] == "checkpoint");
    let remarks = remarks.unwrap()["data"]["remarks"].to_string();
    assert!(remarks.contains("your checkout") && remarks.contains("stray.txt"), "{remarks}");
    std::fs::remove_file(target).unwrap(); // it is the user's to judge; the run leaves it
}

#[test]
fn renames_modes_binaries_deletions_and_submodules_are_merged() {
    let repo = Repo::new();
    let inner = repo.home().join("inner");
    repo.git(&["init", "-q", "-b", "main", inner.to_str().unwrap()]);
    let inside = |arguments: &[&str]| {
        let all = [&["-C", inner.to_str().unwrap(), "-c", "user.name=x", "-c", "user.email=x@x"], arguments].concat();
        repo.git(&all)
    };
    inside(&["commit", "-q", "--allow-empty", "-m", "one"]);
    let one = inside(&["rev-parse", "HEAD"]);
    inside(&["commit", "-q", "--allow-empty", "-m", "two"]);
    let two = inside(&["rev-parse", "HEAD"]);
    repo.write("old name", "line 1\nline 2\nline 3\nline 4\nline 5\n");
    repo.write("script", "#!/bin/sh\n");
    repo.write("doomed", "x\n");
    std::fs::write(repo.path().join("binary"), [0, 1, 2, 255]).unwrap();
    repo.write(".gitmodules", "[submodule \"sub\"]\n\tpath = sub\n\turl = ../inner\n");
    repo.git(&["add", "."]);
    std::fs::create_dir(repo.path().join("sub")).unwrap();
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{one},sub")]);
    repo.git(&["commit", "-qm", "all kinds"]);
    let work = format!(
        "case $AGENTLOOP_SUBGOAL in\n\
         rename) git mv 'old name' 'new name' ;;\n\
         edit) sed -i 's/line 5/line five/' 'old name' ;;\n\
         mode) chmod +x script ;;\n\
         binary) printf '\\000\\377new' > binary ;;\n\
         delete) rm doomed ;;\n\
         link) ln -s README link; git update-index --cacheinfo 160000,{two},sub; git commit -qm 'move sub' ;;\n\
         esac"
    );
    scripted(&repo, &plan(&["rename", "edit", "mode", "binary", "delete", "link"]), &work, "true");
    let before = repo.fingerprint();
    let result = repo.agentloop(&RUN).expect(0).json();
    let tip = format!("agentloop/{}", result["run_id"].as_str().unwrap());
    let tree = repo.git(&["ls-tree", "-r", &tip]);
    assert!(
        repo.git(&["show", &format!("{tip}:new name")]).contains("line five"),
        "the edit did not follow the rename"
    );
    for line in ["100755 blob", "120000 blob"] {
        assert!(tree.contains(line), "{tree}");
    }
    assert!(!tree.contains("doomed") && !tree.contains("old name"), "{tree}");
    let of_worker = repo.git(&["ls-tree", "-r", &work_of(&repo, result["run_id"].as_str().unwrap(), "iter1/link")]);
    assert!(tree.contains(&format!("160000 commit {two}")), "{tree}\n--\n{of_worker}");
    assert_eq!(repo.fingerprint(), before);
    repo.assert_sound();
}

#[test]
fn what_one_deletes_and_another_edits_is_a_conflict() {
    let repo = Repo::new();
    let work = "if [ $AGENTLOOP_SUBGOAL = one ]; then rm README; else echo edited > README; fi";
    scripted(&repo, &plan(&["one", "two"]), work, "echo edited > README");
    let result = repo.agentloop(&RUN).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    assert_eq!(repo.git(&["show", &format!("agentloop/{run}:README")]), "edited");
    assert!(repo.kinds(run).contains(&"conflicted".to_owned()));
}

#[test]
fn the_same_file_made_twice_and_ten_that_all_conflict() {
    let repo = Repo::new();
    let ids: Vec<String> = (0..10).map(|number| format!("w{number}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    // The integrator puts all sides under each other.
    let resolve = "grep -v -e '^<<<<<<< ' -e '^=======$' -e '^>>>>>>> ' -e '^||||||| ' same > all; mv all same";
    scripted(&repo, &plan(&ids), "echo $AGENTLOOP_SUBGOAL > same", resolve);
    let before = repo.fingerprint();
    let result = repo.agentloop(&[&RUN[..], &["--jobs", "5"]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let mut lines: Vec<String> =
        repo.git(&["show", &format!("agentloop/{run}:same")]).lines().map(ToOwned::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ids);
    assert_eq!(repo.kinds(run).iter().filter(|kind| *kind == "conflicted").count(), 9);
    assert_eq!(repo.fingerprint(), before);
    assert_cleared(&repo, run);
    repo.assert_sound();
}

/// More than this, in KiB, a driver never holds, whatever a worker leaves.
const MUCH: u64 = 200 * 1024;

#[test]
fn a_hundred_thousand_untracked_files_are_committed_and_counted() {
    let outcome = after(
        "i=0; while [ $i -lt 100 ]; do mkdir d$i; seq 1000 | split -l 1 -a 3 - d$i/f; i=$((i + 1)); done; echo work > bad.txt",
    );
    assert_eq!(outcome.files().split(' ').count(), 100_003);
    assert_eq!(outcome.show("d99/faaa"), "1");
    assert!(outcome.peak < MUCH, "the driver held {} KiB", outcome.peak);
}

#[test]
fn a_file_of_two_gibibytes_is_committed_and_named() {
    // Sparse where it is written; what git makes of it is what counts.
    let outcome = after("truncate -s 2G large; echo work > bad.txt");
    assert_eq!(outcome.files(), "README bad.txt good.txt large");
    let size = outcome.repo.git(&["cat-file", "-s", &format!("agentloop/{}:large", outcome.run)]);
    assert_eq!(size, (2_u64 << 30).to_string());
    let prompt = crate::fanout::prompt(&outcome.repo, "reviewer", "", 1);
    assert!(prompt.contains("Bin 0 -> 2147483648 bytes"), "{prompt}");
    assert!(!prompt.contains("diff --git a/large"), "git would hold it whole to say that it is binary");
    assert!(outcome.peak < MUCH, "the driver held {} KiB", outcome.peak);
}
