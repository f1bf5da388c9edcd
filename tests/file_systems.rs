//! Disks that are full, file systems that cannot be written, and repositories that are somebody else's.

use std::process::Stdio;

use serde_json::json;

use crate::mcp::client::Client;
use crate::support::{PROGRAM, Ran, Repo};

/// Runs `script` where it may mount what nobody else sees; `$1` is the program under test, `$2` the repository's home.
/// Nothing where this machine lets nobody do so.
fn apart(repo: &Repo, script: &str) -> Option<Ran> {
    let namespace = |script: &str| {
        let mut unshare = repo.command("unshare");
        unshare.args(["--map-root-user", "--mount", "sh", "-euc", script, "sh", PROGRAM]).arg(repo.home());
        unshare.stdin(Stdio::null()).output()
    };
    if !namespace("mount -t tmpfs none \"$2\"").is_ok_and(|probe| probe.status.success()) {
        eprintln!("left out: nothing can be mounted here");
        return None;
    }
    Some(Ran::of(&namespace(script).unwrap()))
}

/// What a script printed, in the parts that lines of `--` divide.
fn parts(ran: &Ran) -> Vec<&str> {
    ran.stdout.split("--\n").collect()
}

/// A planner, two workers and a reviewer; a worker fills the disk unless `$FULL` stands in the way.
const FILLER: &str = r#"
read -r role
cat > /dev/null
case "$role" in
*decomposer*) echo '["a", "b"]' ;;
*reviewer*) echo '{"gates_passed": true, "goal_complete": true}' ;;
*) echo work > "work-$AGENTLOOP_SUBGOAL"
   [ -e "$HOME/room" ] || cat /dev/zero > "$HOME/small/fill" 2> /dev/null
   echo done ;;
esac
"#;

#[test]
fn a_disk_that_is_full_at_the_start_is_left_as_it_was() {
    let repo = Repo::new();
    // Less and less room, down to none: wherever the start gives out, nothing of it stays. The clone has its id from then on.
    let script = r#"
        mkdir "$2/small"
        mount -t tmpfs -o size=2m none "$2/small"
        cp -a "$2/repo" "$2/small/repo"
        cd "$2/small/repo"
        cat /dev/zero > ../fill 2> /dev/null || true
        for pages in 0 1 2 3 4 5 6 8 10 12 14 16; do
            truncate -s "-$((pages * 4096))" ../fill
            for detach in "" -d; do
                if "$1" run "a goal" --backend mock $detach 2> ../said > /dev/null; then
                    run=$("$1" list --json | sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p')
                    "$1" result "$run" --wait > /dev/null 2>&1 || true
                    "$1" list > /dev/null
                    continue
                fi
                [ -n "$("$1" list --json | sed -n 's/.*run_id.*/x/p')" ] && continue
                cat ../said
                echo "left: $(git for-each-ref refs/heads/agentloop refs/notes refs/agentloop) $(ls -A .git/agentloop | grep -v '^clone$')"
            done
            head -c $((pages * 4096)) /dev/zero >> ../fill 2> /dev/null || true
        done
        echo --
        rm ../fill
        "$1" run "a goal" --backend mock --json
        git fsck --strict --no-dangling
        find .git -name '*.lock'
    "#;
    let Some(ran) = apart(&repo, script) else { return };
    let ran = ran.expect(0);
    let parts = parts(&ran);
    assert!(parts[0].contains("No space left on device"), "{}", parts[0]);
    for line in parts[0].lines().filter(|line| line.starts_with("left: ")) {
        assert_eq!(line.trim(), "left:", "{}", parts[0]);
    }
    assert!(!parts[0].contains("panicked") && parts[0].contains("hint: make room"), "{}", parts[0]);
    assert!(parts[1].contains(r#""status":"completed""#), "{}", parts[1]);
}

#[test]
fn a_disk_that_fills_while_workers_work_loses_nothing() {
    let repo = Repo::new();
    let agent = repo.script("agent", FILLER);
    repo.git(&["config", "agentloop.backend.filler.command", &agent]);
    let script = r#"
        mkdir "$2/small"
        mount -t tmpfs -o size=8m none "$2/small"
        cp -a "$2/repo" "$2/small/repo"
        cd "$2/small/repo"
        "$1" run "a goal" --criteria "it works" --backend filler 2>&1 && exit 1
        echo --
        "$1" status
        git status --short
        echo --
        rm ../fill
        touch "$2/room"
        "$1" resume --json 2> ../said || { cat ../said; exit 1; }
        git fsck --strict --no-dangling
        git merge -q "agentloop/$("$1" list --json | sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p')"
        cat work-*
    "#;
    let Some(ran) = apart(&repo, script) else { return };
    let ran = ran.expect(0);
    let [stopped, status, resumed] = parts(&ran)[..] else { panic!("{ran:?}") };
    // Either meets it first: what is written, or a worktree that is being filled.
    let is_named = ["No space left on device", "its disk has 0 kB left"].iter().any(|words| stopped.contains(words));
    assert!(is_named && stopped.contains("hint: make room"), "{stopped}");
    assert!(!stopped.contains("panicked"), "{stopped}");
    assert!(status.contains("'git agentloop resume ") && !status.contains(" M "), "{status}");
    assert!(resumed.contains(r#""status":"completed""#) && resumed.ends_with("work\nwork\n"), "{resumed}");
}

#[test]
fn a_disk_that_is_full_while_worktrees_are_made_leaves_none_of_them() {
    let repo = Repo::new();
    let agent = repo.script("agent", FILLER);
    repo.git(&["config", "agentloop.backend.filler.command", &agent]);
    repo.git(&["config", "agentloop.copy", "data/"]);
    repo.write(".gitignore", "data/\n");
    repo.write("large", &"0123456789abcdef".repeat(200_000));
    repo.write("data/large", &"x".repeat(3_200_000));
    repo.commit("a large file");
    // Room for nothing; for a checkout; for that and what is copied into it, and for no worker's.
    let script = r#"
        mkdir "$2/small"
        touch "$2/room"
        cd "$2/repo"
        git config agentloop.worktreeDir "$2/small"
        for size in 2m 5m 8m; do
            mount -t tmpfs -o size=$size none "$2/small"
            "$1" run "a goal" --criteria "it works" --backend filler 2>&1 && exit 1
            "$1" result --json || true
            echo "left: $(ls -A "$2/small") $(git worktree list | wc -l)"
            git status --short
            umount "$2/small"
            mount -t tmpfs none "$2/small"
            "$1" resume --json 2> "$2/said" || { cat "$2/said"; exit 1; }
            echo "ends: $(git worktree list | wc -l) $(git worktree list --porcelain | grep -c prunable || true)"
            "$1" discard --yes "$("$1" status --json | sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p')" > /dev/null
            umount "$2/small"
            echo --
        done
        git fsck --strict --no-dangling
    "#;
    let Some(ran) = apart(&repo, script) else { return };
    let ran = ran.expect(0);
    let parts = parts(&ran);
    assert_eq!(parts.len(), 4, "{ran:?}");
    for part in &parts[..3] {
        assert!(part.contains("No space left on device") || part.contains("cannot be filled: its disk has "), "{part}");
        assert!(part.contains("hint: make room") && part.contains("git agentloop resume"), "{part}");
        assert!(part.contains("\nleft:  1\n"), "{part}");
        assert!(part.contains(r#""status":"completed""#) && part.contains("\nends: 2 0\n"), "{part}");
    }
    assert!(parts[1].contains("small/") && parts[1].contains("data/large' cannot be written"), "{}", parts[1]);
}

#[test]
fn a_repository_that_cannot_be_written_is_read_and_starts_nothing() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let script = r#"
        mount -o bind "$2/repo" "$2/repo"
        mount -o remount,bind,ro "$2/repo"
        cd "$2/repo"
        for verb in "run x --backend mock" "run x -d --backend mock" "hooks install" "cancel"; do
            code=0
            "$1" $verb 2>&1 || code=$?
            echo "exit $code"
        done
        echo --
        "$1" status
        "$1" list
        "$1" doctor || true
    "#;
    let before = repo.git(&["for-each-ref"]);
    let Some(ran) = apart(&repo, script) else { return };
    let ran = ran.expect(0);
    let [refused, read] = parts(&ran)[..] else { panic!("{ran:?}") };
    assert_eq!(refused.matches("exit 2\n").count(), 4, "{refused}");
    assert_eq!(refused.matches("Read-only file system").count(), 3, "{refused}");
    assert_eq!(refused.matches("hint: ").count(), 4, "{refused}");
    assert!(read.contains(&run) && read.contains("cannot be written"), "{read}");
    assert_eq!(repo.git(&["for-each-ref"]), before);
}

#[test]
fn somebody_elses_repository_is_not_trusted_until_its_user_says_so() {
    let repo = Repo::new();
    let path = repo.path().to_str().unwrap();
    if !repo.command("chown").args(["-R", "12345", path]).stderr(Stdio::null()).status().unwrap().success() {
        eprintln!("left out: only root can give a repository to somebody else");
        return;
    }
    for verb in [&["run", "x", "--backend", "mock"][..], &["run", "x", "-d", "--backend", "mock"], &["list"]] {
        let refused = repo.agentloop(verb).expect(2);
        assert!(refused.stderr.contains(&format!("'{path}' belongs to somebody else")), "{verb:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(&format!("safe.directory {path}")), "{verb:?}: {}", refused.stderr);
    }
    // A server greets its host anyway, and says so at each call.
    let mut server = Client::start(&repo);
    let refused = server.refused("orchestrate_list", json!({}));
    assert!(refused.contains(&format!("'{path}' belongs to somebody else")), "{refused}");
    assert!(refused.contains(&format!("safe.directory {path}")), "{refused}");
    server.close();
    repo.git(&["config", "--global", "--add", "safe.directory", path]);
    repo.agentloop(&["run", "x", "--backend", "mock"]).expect(0);
}
