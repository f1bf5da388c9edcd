//! Repositories of every kind: worked in, or refused with what, why and what next.

use crate::support::{PROGRAM, Ran, Repo, gits};

/// A mock run that edits files completes, is sound, and leaves the user's things alone.
#[track_caller]
fn assert_works(repo: &Repo) {
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
    let before = repo.fingerprint();
    let result = repo.mock_run("a goal", &["--verify", "test -f README"]);
    assert_eq!(result["completed"], true);
    assert_eq!(result["worktree"]["changed_files"].as_array().unwrap().len(), 3);
    assert_eq!(repo.fingerprint(), before);
    repo.assert_sound();
}

#[track_caller]
fn assert_refused(ran: Ran, why: &str) {
    let ran = ran.expect(2);
    assert!(ran.stderr.starts_with("error: ") && ran.stderr.contains(why), "{}", ran.stderr);
    assert!(ran.stderr.contains("\nhint: "), "{}", ran.stderr);
}

#[test]
fn a_sha_256_repository() {
    assert_works(&Repo::init("repo", &["--object-format=sha256"]));
}

#[test]
fn packed_refs() {
    let repo = Repo::new();
    repo.git(&["pack-refs", "--all"]);
    assert_works(&repo);
}

#[test]
fn a_path_with_spaces_and_letters_of_the_world() {
    assert_works(&Repo::init("mein Ordner ünïcode 日本", &[]));
}

#[test]
fn a_detached_head() {
    let repo = Repo::new();
    repo.git(&["checkout", "-q", "--detach"]);
    assert_works(&repo);
}

#[test]
fn line_endings_are_git_s_business() {
    let repo = Repo::new();
    repo.git(&["config", "core.autocrlf", "true"]);
    assert_works(&repo);
}

#[test]
fn a_linked_worktree() {
    let repo = Repo::new();
    let linked = repo.home().join("linked");
    repo.git(&["worktree", "add", "-q", "-b", "side", linked.to_str().unwrap()]);
    let ran = repo
        .command(PROGRAM)
        .current_dir(&linked)
        .args(["run", "a goal", "--backend", "mock", "--json"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(repo.status("a-goal")["state"], "completed");
    repo.assert_sound();
}

#[test]
fn a_worktree_stays_where_it_was_made_whatever_is_set_later() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}={iteration}\n"]);
    let elsewhere = repo.home().canonicalize().unwrap().join("elsewhere");
    let run = ["run", "a goal", "--backend", "mock", "--max-iterations", "1", "--json"];
    let set = [("AGENTLOOP_WORKTREE_DIR", elsewhere.to_str().unwrap())];
    let stopped = repo.agentloop_with(&run, &set).expect(1).json();
    let id = stopped["run_id"].as_str().unwrap();
    let place = elsewhere.join(id);
    assert_eq!(stopped["worktree"]["path"], place.to_str().unwrap());
    let resume = ["resume", id, "--max-iterations", "2", "--json"];
    let done = repo.agentloop_with(&resume, &[("AGENTLOOP_CLEANUP", "never")]).expect(0).json();
    assert_eq!(done["worktree"]["path"], place.to_str().unwrap());
    let resumed = repo.events(id).into_iter().find(|event| event["kind"] == "run_resumed").unwrap();
    assert_eq!(resumed["data"]["worktree"], "kept");
    assert_eq!(repo.git(&["worktree", "list"]).lines().count(), 2);
    repo.assert_sound();
}

#[test]
fn worktrees_that_are_linked_by_relative_paths() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        repo.git(&["config", "worktree.useRelativePaths", "true"]); // since git 2.48
        repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}={iteration}\n"]);
        let ended = repo.mock_run("a goal", &["--criteria", "x"]);
        let run = ended["run_id"].as_str().unwrap();
        let place = repo.home().canonicalize().unwrap().join("repo.agentloop").join(run);
        assert_eq!(ended["worktree"]["path"], place.to_str().unwrap());
        std::fs::write(place.join("late.txt"), "not committed").unwrap();
        let gone = repo.agentloop(&["discard", run, "--yes", "--json"]).expect(0).json();
        assert_eq!(gone["worktrees"][0], place.to_str().unwrap());
        assert!(!gone["kept"].as_array().unwrap().is_empty(), "what stood uncommitted: {gone:#}");
        assert_eq!(repo.git(&["worktree", "list"]).lines().count(), 1);
        repo.assert_sound();
    }
}

#[test]
fn a_setting_without_a_value_is_true_as_git_has_it() {
    let repo = Repo::new();
    let file = repo.path().join(".git/config");
    let held = std::fs::read_to_string(&file).unwrap();
    let value = |key: &str| {
        let all = repo.agentloop(&["config", "--json"]).expect(0).json();
        all.as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap()["values"][0].clone()
    };
    for (set, is) in [("noWait", "true"), ("noWait\n\tnoWait = false", "false"), ("noWait = false\n\tnoWait", "true")] {
        std::fs::write(&file, format!("{held}[agentloop]\n\t{set}\n")).unwrap();
        assert_eq!(value("agentloop.noWait"), is, "{set}");
        assert_eq!(repo.git(&["config", "--type=bool", "agentloop.noWait"]), is, "{set}");
    }
}

#[test]
fn commits_are_signed_where_that_is_set() {
    let repo = Repo::new();
    // What git asks of a signing program: a line on its status descriptor, and the signature.
    let program = repo.script("signer", "cat > /dev/null; echo '[GNUPG:] SIG_CREATED ' >&2; echo '-----SIGNED-----'");
    repo.git(&["config", "gpg.program", &program]);
    let are_signed = |run: &str| -> Vec<bool> {
        let commits = repo.git(&["rev-list", &format!("agentloop/{run}"), "^main"]);
        commits.lines().map(|commit| repo.git(&["cat-file", "commit", commit]).contains("\ngpgsig ")).collect()
    };
    // A review so long that no argument could hold its commit's message.
    let issues = vec![format!("\"{}\"", "an issue ".repeat(12)); 1500].join(",");
    let review = format!("{{\"gates_passed\":true,\"goal_complete\":false,\"issues\":[{issues}]}}");
    std::fs::write(repo.home().join("review"), review).unwrap();
    let review = repo.home().join("review").display().to_string();
    let agent = repo.script(
        "agent",
        &format!(
            "read -r role; cat > /dev/null; case \"$role\" in *decomposer*) echo '[\"work\"]' ;; \
             *reviewer*) cat {review} ;; *) date > made; echo done ;; esac"
        ),
    );
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let run = ["run", "a goal", "--backend", "scripted", "--criteria", "x", "--max-iterations", "1", "--json"];
    for set in ["false", "true"] {
        let ended = repo.agentloop_with(&run, &[("AGENTLOOP_SIGN", set)]).expect(1).json();
        let signed = are_signed(ended["run_id"].as_str().unwrap());
        // Where the run started, what its worker left, and the checkpoint.
        assert!(signed.len() == 3 && signed.iter().all(|signed| signed.to_string() == set), "{signed:?}");
    }
    // One that cannot sign says so before anybody works, and leaves nothing.
    repo.git(&["config", "gpg.program", "false"]);
    let left = || (repo.git(&["for-each-ref"]), std::fs::read_dir(repo.path().join(".git/agentloop")).unwrap().count());
    let before = left();
    let refused = repo.agentloop_with(&run, &[("AGENTLOOP_SIGN", "true")]).expect(2).stderr;
    assert!(refused.contains("error: a commit cannot be signed") && refused.contains("agentloop.sign"), "{refused}");
    assert_eq!(left(), before);
    repo.assert_sound();
}

/// What a run needs is found from a folder of the checkout too, and when that folder goes while it runs: a branch
/// without it is checked out, say.
#[test]
fn a_folder_of_the_repository_even_one_that_goes() {
    let repo = Repo::new();
    repo.write(".gitignore", ".env\n");
    repo.write(".env", "KEY=x\n");
    repo.write("below/here/file", "x\n");
    repo.git(&["add", "."]);
    repo.git(&["commit", "-qm", "a folder"]);
    repo.git(&["config", "agentloop.copy", ".env"]);
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
    let folder = repo.path().join("below/here");
    let removes = format!("rm -rf '{}'", folder.display());
    let mut command = repo.command(PROGRAM);
    command.args([
        "run",
        "a goal",
        "--backend",
        "mock",
        "--verify",
        "test -f ../../.env",
        "--verify",
        &removes,
        "--json",
    ]);
    let ran = Ran::of(&command.current_dir(&folder).stdin(std::process::Stdio::null()).output().unwrap()).expect(0);
    assert_eq!(ran.json()["worktree"]["changed_files"].as_array().unwrap().len(), 3);
    assert!(!folder.exists());
    repo.assert_sound();
}

/// What the user has checked out is theirs, also where it is the run's branch.
#[test]
fn the_run_s_branch_checked_out_by_the_user() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}={iteration}\n"]);
    let run = repo.agentloop(&["run", "a goal", "--backend", "mock", "--max-iterations", "1", "--json"]).expect(1);
    let branch = run.json()["worktree"]["branch"].as_str().unwrap().to_owned();
    let other = repo.home().join("an other");
    repo.git(&["worktree", "add", "-q", other.to_str().unwrap(), &branch]);
    std::fs::write(other.join("README"), "an edit of the user's\n").unwrap();
    let said = repo.agentloop(&["resume", "--max-iterations", "2"]).expect(0).stderr;
    assert!(said.contains("an other', whose files are behind: 'git reset --merge' there updates them"), "{said}");
    assert!(repo.command("git").current_dir(&other).args(["reset", "-q", "--merge"]).status().unwrap().success());
    let status = Ran::of(&repo.command("git").current_dir(&other).args(["status", "--porcelain"]).output().unwrap());
    assert_eq!(status.expect(0).stdout, " M README\n", "the user's edit, and nothing else");
    assert_eq!(std::fs::read_to_string(other.join("made-build")).unwrap(), "2\n");
}

#[test]
fn settings_of_the_command_line_hold_as_for_git_itself() {
    let repo = Repo::new();
    let bin = std::path::Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let given = |settings: &[&str], verb: &[&str]| {
        let mut git = repo.command("git");
        git.env("PATH", &path).env("A_CHECK", "test -f 'it''s not'").args(settings).arg("agentloop").args(verb);
        Ran::of(&git.stdin(std::process::Stdio::null()).output().unwrap())
    };
    let check = "test -f \"it's not!\"";
    let settings = ["-c", &format!("agentloop.verify={check}"), "-c", "agentloop.noWait", "--config-env"];
    let settings = [&settings[..], &["agentloop.setup=A_CHECK", "-c", "agentloop.maxIterations=1"]].concat();
    let all = given(&settings, &["config", "--json"]).expect(0).json();
    let value = |key: &str| {
        all.as_array().unwrap().iter().find(|entry| entry["key"] == key).unwrap()["values"][0].as_str().unwrap()
    };
    assert_eq!(value("agentloop.verify"), check);
    assert_eq!(value("agentloop.noWait"), "true");
    assert_eq!(value("agentloop.setup"), "test -f 'it''s not'");
    // A driver that goes on by itself has them too.
    for detached in [&[][..], &["--detach"]] {
        let run = [&["run", "a goal", "--backend", "mock", "--json"], detached].concat();
        let set = ["-c", "agentloop.verify=false", "-c", "agentloop.maxIterations=1", "-c", "user.name=Somebody Else"];
        let begun = given(&set, &run).json()["run_id"].as_str().unwrap().to_owned();
        let ended = repo.agentloop(&["result", &begun, "--wait", "--json"]).expect(1).json();
        assert_eq!(ended["stop_reason"], "max_iterations", "{ended:#}");
        assert_eq!(ended["history"][0]["verification"][0]["name"], "false", "{ended:#}");
        assert_eq!(repo.git(&["log", "-1", "--format=%an", &format!("agentloop/{begun}")]), "Somebody Else");
    }
}

#[test]
fn a_shallow_and_a_partial_clone() {
    let origin = Repo::new();
    origin.write("README", "second\n");
    origin.git(&["commit", "-qam", "second"]);
    origin.git(&["config", "uploadpack.allowFilter", "true"]);
    for option in ["--depth=1", "--filter=blob:none"] {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("repo");
        let url = format!("file://{}", origin.path().display());
        origin.git(&["clone", "-q", option, &url, path.to_str().unwrap()]);
        let clone = Repo::at(home, path);
        clone.git(&["config", "user.name", "A User"]);
        clone.git(&["config", "user.email", "user@example.com"]);
        clone.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
        assert_eq!(clone.mock_run("a goal", &[])["completed"], true, "{option}");
        clone.git(&["fsck", "--no-dangling"]);
    }
}

#[test]
fn submodules_stay_what_they_are() {
    let inner = Repo::new();
    let repo = Repo::new();
    repo.git(&[
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        inner.path().to_str().unwrap(),
        "inner",
    ]);
    repo.git(&["commit", "-qm", "a submodule"]);
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}=x\n"]);
    let result = repo.mock_run("a goal", &[]);
    let run = result["run_id"].as_str().unwrap();
    let link = repo.git(&["ls-tree", &format!("agentloop/{run}"), "inner"]);
    assert!(link.starts_with("160000 commit"), "{link}");
    assert_eq!(result["worktree"]["changed_files"].as_array().unwrap().len(), 3);
    repo.assert_sound();
}

#[test]
fn filters_run_and_cannot_prompt() {
    let repo = Repo::new();
    let filter = repo.script("upper", "[ -t 0 ] && read -r answer < /dev/tty\ntr a-z A-Z");
    repo.git(&["config", "filter.upper.smudge", &filter]);
    repo.git(&["config", "filter.upper.clean", "tr A-Z a-z"]);
    repo.git(&["config", "filter.upper.required", "true"]);
    repo.write(".gitattributes", "*.up filter=upper\n");
    repo.write("a.up", "words\n");
    repo.commit("filtered");
    assert_works(&repo);
}

#[test]
fn git_s_own_environment_reaches_no_worker() {
    let repo = Repo::new();
    let body = "read -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '[\"x\"]' ;;\n\
                *reviewer*) echo '{\"gates_passed\":true,\"goal_complete\":true}' ;;\n\
                *) echo x > by-worker; git add -A; git commit -qm 'by a worker'; env | grep '^GIT_DIR\\|^GIT_WORK_TREE'; echo done ;;\nesac";
    let agent = repo.script("agent", body);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let before = repo.fingerprint();
    let bin = std::path::Path::new(PROGRAM).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let outside = tempfile::tempdir().unwrap();
    let git_dir = repo.path().join(".git");
    let ran = repo
        .command("git")
        .current_dir(outside.path())
        .env("PATH", path)
        .arg(format!("--git-dir={}", git_dir.display()))
        .arg(format!("--work-tree={}", repo.path().display()))
        .args(["agentloop", "run", "a goal", "--backend", "scripted", "--json"])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(repo.fingerprint(), before);
    assert_eq!(repo.git(&["log", "--format=%s", "main"]), "first", "the worker's commit is on the user's branch");
    let run = repo.status("a-goal")["run_id"].as_str().unwrap().to_owned();
    let all = repo.git(&["log", "--format=%s", &format!("main..agentloop/{run}")]);
    assert!(all.contains("by a worker"), "{all}");
    repo.assert_sound();
}

#[test]
fn a_git_directory_may_be_named_as_seen_from_a_subfolder() {
    let repo = Repo::new();
    let bare = repo.home().join("bare.git");
    repo.git(&["init", "-q", "--bare", bare.to_str().unwrap()]);
    repo.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
    repo.write("sub/file", "x\n");
    for verb in [&["run", "a goal", "--backend", "mock"][..], &["sync"], &["merge"]] {
        let mut command = repo.command(PROGRAM);
        command.current_dir(repo.path().join("sub")).env("GIT_DIR", "../.git").env("GIT_WORK_TREE", "..");
        Ran::of(&command.args(verb).output().unwrap()).expect(0);
    }
    repo.assert_sound();
}

#[test]
fn no_identity_is_no_obstacle() {
    let repo = Repo::new();
    repo.git(&["config", "--unset", "user.name"]);
    repo.git(&["config", "--unset", "user.email"]);
    repo.git(&["config", "user.useConfigOnly", "true"]);
    let ran = repo.agentloop(&["run", "a goal", "--backend", "mock"]).expect(0);
    assert_eq!(ran.stderr.matches("agentloop@localhost").count(), 1, "{}", ran.stderr);
    let run = repo.status("a-goal")["run_id"].as_str().unwrap().to_owned();
    let author = repo.git(&["log", "-1", "--format=%an <%ae>", &format!("agentloop/{run}")]);
    assert_eq!(author, "git-agentloop <agentloop@localhost>");
}

#[test]
fn nested_repositories_of_a_worker_are_no_reason_to_lose_the_rest() {
    let repo = Repo::new();
    let body = "read -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '[\"x\"]' ;;\n\
                *reviewer*) echo '{\"gates_passed\":true,\"goal_complete\":true}' ;;\n\
                *) echo kept > plain; git init -q empty; echo a > empty/a; git init -q full; echo b > full/b; \
                git -C full add b; git -C full -c user.name=x -c user.email=x commit -qm b; echo done ;;\nesac";
    let agent = repo.script("agent", body);
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    let result = repo.agentloop(&["run", "a goal", "--backend", "scripted", "--json"]).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let files = repo.git(&["ls-tree", "-r", "--name-only", &format!("agentloop/{run}")]);
    assert!(files.lines().any(|name| name == "plain"), "{files}");
    for nested in ["empty/a", "full/b"] {
        let said = repo.events(run).iter().any(|event| event.to_string().contains(nested.split('/').next().unwrap()));
        assert!(files.lines().any(|name| name == nested) || said, "{nested} is neither captured nor reported");
    }
    repo.assert_sound();
}

#[test]
fn what_cannot_be_worked_in_is_refused() {
    let repo = Repo::new();
    let run = ["run", "a goal", "--backend", "mock"];
    let outside = tempfile::tempdir().unwrap();
    let nowhere = repo.command(PROGRAM).current_dir(outside.path()).args(run).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("hint: "));

    let unborn = tempfile::tempdir().unwrap();
    let path = unborn.path().join("unborn");
    repo.git(&["init", "-q", path.to_str().unwrap()]);
    assert_refused(Repo::at(unborn, path).agentloop(&run), "no commit");

    let apart = Repo::new();
    let git_dir = apart.home().join("it's apart.git");
    std::fs::rename(apart.path().join(".git"), &git_dir).unwrap();
    let named = [("GIT_DIR", git_dir.to_str().unwrap()), ("GIT_WORK_TREE", apart.path().to_str().unwrap())];
    let refused = apart.agentloop_with(&run, &named);
    let next = refused.stderr.rsplit_once("hint: let it: ").map(|(_, command)| command.to_owned());
    assert_refused(refused, "does not lead to its repository");
    assert!(apart.command("sh").args(["-c", &next.unwrap()]).status().unwrap().success());
    apart.agentloop_with(&run, &named).expect(0);

    let taken = Repo::new();
    taken.git(&["branch", "agentloop"]);
    assert_refused(taken.agentloop(&run), "agentloop");

    let noted = Repo::new();
    noted.git(&["update-ref", "refs/notes/agentloop", "HEAD"]);
    assert_refused(noted.agentloop(&run), "refs/notes/agentloop");
}

#[test]
fn a_reftable_repository_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("repo");
    let probe = Repo::new();
    if probe.try_git(&["init", "-q", "--ref-format=reftable", path.to_str().unwrap()]).code != 0 {
        eprintln!("left out: this git makes no reftable repositories (2.45 and newer do)");
        return;
    }
    let repo = Repo::at(home, path);
    assert_refused(repo.agentloop(&["run", "a goal", "--backend", "mock"]), "reftable");
}

#[test]
fn a_git_that_is_too_old_is_refused() {
    let repo = Repo::new();
    std::fs::create_dir(repo.home().join("bin")).unwrap();
    repo.script("bin/git", "[ \"$1\" = --version ] && echo 'git version 2.30.1' && exit\nexit 1");
    let path = format!("{}/bin:{}", repo.home().display(), std::env::var("PATH").unwrap());
    assert_refused(repo.agentloop_with(&["run", "a goal", "--backend", "mock"], &[("PATH", &path)]), "2.39");
}
