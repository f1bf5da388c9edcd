//! The hooks, in place and at work, on every git that can be had here.

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::review::run_with_files;
use crate::support::{Repo, gits};

const EVENTS: [&str; 3] = ["prepare-commit-msg", "pre-push", "post-rewrite"];

/// Whether this git takes hooks from its configuration.
fn configured(repo: &Repo) -> bool {
    let version = repo.git(&["version"]);
    let mut numbers =
        version.trim_start_matches("git version ").split('.').map(|number| number.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (2, 54)
}

/// The configuration and everything in the hooks folder: permissions, length and content.
fn places(repo: &Repo) -> BTreeMap<PathBuf, (u32, usize, u64)> {
    let git = repo.path().join(".git");
    let mut found = BTreeMap::new();
    let mut note = |path: PathBuf| {
        if let Ok(about) = path.symlink_metadata() {
            let content = std::fs::read(&path).unwrap_or_default();
            let mut hash = std::hash::DefaultHasher::new();
            content.hash(&mut hash);
            found.insert(path, (about.permissions().mode(), content.len(), hash.finish()));
        }
    };
    note(git.join("config"));
    note(git.join("hooks"));
    note(git.join("agentloop"));
    note(repo.home().join("gitconfig"));
    for entry in std::fs::read_dir(git.join("hooks")).into_iter().flatten().flatten() {
        note(entry.path());
    }
    found
}

fn executable(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn uninstall_leaves_no_trace() {
    for git in gits() {
        for case in ["plain", "samples gone", "no hooks folder", "a hook of yours", "husky", "a cut config"] {
            let repo = Repo::with_git(&git);
            let hooks = repo.path().join(".git/hooks");
            match case {
                "samples gone" => {
                    std::fs::remove_dir_all(&hooks).unwrap();
                    std::fs::create_dir(&hooks).unwrap();
                }
                "no hooks folder" => std::fs::remove_dir_all(&hooks).unwrap(),
                "a hook of yours" => executable(&hooks.join("pre-push"), "#!/bin/sh\nexit 0\n"),
                "husky" => {
                    executable(&repo.path().join(".husky/_/pre-push"), "#!/bin/sh\n. husky.sh\n");
                    repo.git(&["config", "core.hooksPath", ".husky/_"]);
                }
                "a cut config" => {
                    let path = repo.path().join(".git/config");
                    let text = std::fs::read_to_string(&path).unwrap();
                    std::fs::write(&path, text.trim_end()).unwrap();
                }
                _ => {}
            }
            let before = places(&repo);
            let installed = repo.agentloop(&["hooks", "install"]);
            let blocked = !configured(&repo) && matches!(case, "a hook of yours" | "husky");
            assert_eq!(installed.code, i32::from(blocked), "{case}: {installed:?}");
            if blocked {
                assert!(
                    installed.stdout.contains("git-agentloop hook pre-push \"$@\" <&3 || [ $? -ne 113 ] || exit 1\n"),
                    "{installed:?}"
                );
                let place = if case == "husky" {
                    ".husky/pre-push belongs to husky; make it"
                } else {
                    "hooks/pre-push belongs to you; begin it"
                };
                assert!(installed.stdout.contains(place), "{}", installed.stdout);
            }
            let nothing_is_free = blocked && case == "husky";
            assert_eq!(places(&repo) == before, nothing_is_free, "{case} on {}", git.display());
            // Twice is once.
            let once = places(&repo);
            repo.agentloop(&["hooks", "install"]);
            assert_eq!(places(&repo), once, "{case}");
            // What an installation leaves that is killed as it puts a file in place.
            if !configured(&repo) && case != "husky" {
                executable(&hooks.join("post-rewrite.agentloop-new"), "#!/bin/sh\n");
            }
            repo.agentloop(&["hooks", "uninstall"]).expect(0);
            assert_eq!(places(&repo), before, "{case} on {}", git.display());
            assert!(repo.agentloop(&["hooks", "uninstall"]).expect(0).stdout.contains("no hooks of ours"));
        }
    }
}

/// What `hooks install` says is to be added at `event`.
fn advice(said: &str, event: &str) -> String {
    let (_, rest) = said.split_once(&format!("{event:<19} not installed: ")).unwrap_or_else(|| panic!("{said}"));
    let lines = rest.lines().skip(1).map_while(|line| line.strip_prefix("    "));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

#[test]
fn the_line_for_a_hook_of_somebody_s_works_as_it_is_printed() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        if configured(&repo) {
            continue;
        }
        let bare = repo.home().join("bare.git");
        repo.git(&["init", "-q", "--bare", bare.to_str().unwrap()]);
        repo.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
        let run = run_with_files(&repo, "write files");
        let (branch, heard) = (format!("agentloop/{run}"), repo.home().join("heard"));
        // Hooks that want their input, as git-lfs does, in the ways that shells are called.
        let rest = format!("cat >{}\n", heard.display());
        for shell in ["#!/bin/sh", "#!/bin/sh -eu"] {
            for event in EVENTS {
                executable(&repo.path().join(".git/hooks").join(event), &format!("{shell}\n{rest}"));
            }
            let said = repo.agentloop(&["hooks", "install"]).expect(1).stdout;
            for event in EVENTS {
                let hook = format!("{shell}\n{}{rest}", advice(&said, event));
                executable(&repo.path().join(".git/hooks").join(event), &hook);
            }
            assert!(!repo.agentloop(&["hooks", "status"]).expect(0).stdout.contains("not installed"));
            repo.git(&["push", "-q", "origin", &branch]);
            assert!(std::fs::read_to_string(&heard).unwrap().contains(&format!("refs/heads/{branch}")));
            assert!(repo.git(&["ls-remote", "origin"]).contains(&format!("refs/notes/agentloop/{run}")));
            let mut worker = repo.command("git");
            let refused = worker.env("AGENTLOOP_RUN", &run).args(["push", "origin", "main:other"]).output().unwrap();
            assert!(!refused.status.success(), "{shell}: {refused:?}");

            repo.git(&["worktree", "add", "-q", "../linked", &branch]);
            let noted = notes(&repo, &run, &["main..", &branch]);
            repo.git(&["-C", "../linked", "commit", "-q", "--amend", "--no-edit", "--reset-author"]);
            assert_eq!(notes(&repo, &run, &["main..", &branch]), noted, "{shell}");
            assert!(std::fs::read_to_string(&heard).unwrap().contains(&repo.git(&["rev-parse", &branch])));
            repo.git(&["worktree", "remove", "--force", "../linked"]);
            repo.git(&[
                "push",
                "-q",
                "--delete",
                "--no-verify",
                "origin",
                &branch,
                &format!("refs/notes/agentloop/{run}"),
            ]);
        }
    }
}

#[test]
fn pre_commit_and_lefthook_keep_their_files() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        if configured(&repo) {
            continue;
        }
        let hooks = repo.path().join(".git/hooks");
        let standing = |event: &str| {
            let status = repo.agentloop(&["hooks", "status", "--json"]).expect(0).json();
            status.as_array().unwrap().iter().find(|hook| hook["event"] == event).unwrap().clone()
        };
        // pre-commit runs what stands beside its own file as `<event>.legacy`, as it does with hooks that were there first.
        let pre_commit = "#!/usr/bin/env bash\n# File generated by pre-commit: https://pre-commit.com\n";
        executable(&hooks.join("pre-push"), pre_commit);
        // Whoever runs pre-commit in a hook of their own does not.
        executable(&hooks.join("prepare-commit-msg"), "#!/bin/sh\npre-commit run\n");
        let before = places(&repo);
        let said = repo.agentloop(&["hooks", "install"]).expect(1).stdout;
        assert!(said.contains("hooks/prepare-commit-msg belongs to you"), "{said}");
        assert_eq!(standing("pre-push")["path"], hooks.join("pre-push.legacy").to_str().unwrap());
        assert_eq!(standing("pre-push")["state"], "installed");
        repo.agentloop(&["hooks", "uninstall"]).expect(0);
        assert_eq!(places(&repo), before);

        // What lefthook was installed over.
        std::fs::remove_file(hooks.join("pre-push")).unwrap();
        let before = places(&repo);
        repo.agentloop(&["hooks", "install"]);
        std::fs::rename(hooks.join("pre-push"), hooks.join("pre-push.old")).unwrap();
        executable(&hooks.join("pre-push"), "#!/bin/sh\ncall_lefthook run \"pre-push\" \"$@\"\n");
        let blocked = standing("pre-push");
        assert_eq!((&blocked["state"], &blocked["by"]), (&"blocked".into(), &"lefthook".into()), "{blocked:#}");
        assert_eq!(blocked["path"], repo.path().join("lefthook-local.yml").to_str().unwrap());
        repo.write("lefthook-local.yml", blocked["add"].as_str().unwrap());
        assert_eq!(standing("pre-push")["state"], "installed");
        repo.agentloop(&["hooks", "uninstall"]).expect(0);
        std::fs::remove_file(hooks.join("pre-push")).unwrap();
        assert_eq!(places(&repo), before);
    }
}

#[test]
fn the_files_in_place_are_the_project_s_own() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        repo.agentloop(&["hooks", "install"]).expect(0);
        let status = repo.agentloop(&["hooks", "status", "--json"]).expect(0).json();
        assert!(status.as_array().unwrap().iter().all(|hook| hook["state"] == "installed"), "{status:#}");
        for event in EVENTS {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("hooks").join(event);
            let line = std::fs::read_to_string(&source).unwrap().lines().last().unwrap().to_owned();
            if configured(&repo) {
                // As git-hook(1) and git-config(1) document it: an event and a one-liner under a name that is no event's.
                let key = |key: &str| repo.git(&["config", "--get", &format!("hook.agentloop-{event}.{key}")]);
                assert_eq!((key("event").as_str(), key("command")), (event, format!("f() {{ {line}; }}; f")));
                assert_eq!(repo.git(&["hook", "list", event]), format!("agentloop-{event}"));
            } else {
                let place = repo.path().join(".git/hooks").join(event);
                assert_eq!(std::fs::read(&place).unwrap(), std::fs::read(&source).unwrap());
                assert_eq!(place.metadata().unwrap().permissions().mode() & 0o777, 0o755);
            }
        }
        let global = repo.agentloop(&["hooks", "install", "--global"]);
        if !configured(&repo) {
            assert!(global.expect(2).stderr.contains("core.hooksPath, which turns each repository's own off"));
        }
    }
}

#[test]
fn hooks_for_every_repository_come_and_go() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        if !configured(&repo) {
            continue;
        }
        let before = places(&repo);
        repo.agentloop(&["hooks", "install", "--global"]).expect(0);
        assert_eq!(repo.git(&["hook", "list", "pre-push"]), "agentloop-pre-push");
        repo.agentloop(&["hooks", "uninstall", "--global"]).expect(0);
        assert_eq!(places(&repo), before);
    }
}

#[test]
fn a_missing_or_broken_program_never_stops_git() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        repo.agentloop(&["hooks", "install"]).expect(0);
        let bare = repo.home().join("bare");
        repo.git(&["init", "-q", "--bare", bare.to_str().unwrap()]);
        repo.git(&["branch", "side"]);
        let repo = repo.without_program(&git);
        let push = repo.try_git(&["push", "-q", bare.to_str().unwrap(), "main"]).expect(0);
        assert!(push.stderr.contains("git-agentloop") && push.stderr.lines().count() == 1, "{push:?}");
        repo.try_git(&["commit", "-q", "--amend", "-m", "reworded"]).expect(0);
        repo.try_git(&["merge", "-q", "--no-ff", "--no-edit", "--allow-unrelated-histories", "side"]).expect(0);
        // One that is there and fails.
        let broken = repo.home().join("broken");
        executable(&broken.join("git-agentloop"), "#!/bin/sh\nexit 1\n");
        let path = std::env::join_paths([git.clone(), broken, "/usr/bin".into(), "/bin".into()]).unwrap();
        let pushed = repo
            .command("git")
            .env("PATH", path)
            .args(["push", "-q", "-f", bare.to_str().unwrap(), "main"])
            .output()
            .unwrap();
        assert!(pushed.status.success(), "{pushed:?}");
    }
}

#[test]
fn merges_and_squashes_name_the_run() {
    for git in gits() {
        for squash in [false, true] {
            let repo = Repo::with_git(&git);
            repo.agentloop(&["hooks", "install"]).expect(0);
            let run = run_with_files(&repo, "write files");
            let branch = format!("agentloop/{run}");
            let tip = repo.git(&["rev-parse", &branch]);
            repo.write("other", "x");
            repo.git(&["add", "other"]);
            repo.git(&["commit", "-qm", "main goes on"]);
            if squash {
                repo.git(&["merge", "-q", "--squash", &branch]);
                repo.git(&["commit", "-q", "--no-edit"]);
            } else {
                repo.git(&["merge", "-q", "--no-edit", &branch]);
            }
            let trailer = |key: &str| {
                repo.git(&["log", "-1", &format!("--format=%(trailers:key={key},valueonly,separator=%x2C)")])
            };
            assert_eq!(trailer("Agentloop-Run"), run, "{squash} {}", repo.git(&["log", "-1", "--format=%B"]));
            assert_eq!(trailer("Agentloop-Merged"), if squash { tip.as_str() } else { "" });
            assert_eq!(repo.agentloop(&["show", &run, "--json"]).expect(0).json()["merged"], true);
            // Nobody else's merge is touched.
            repo.git(&["switch", "-qc", "side", "HEAD~1"]);
            repo.git(&["commit", "-q", "--allow-empty", "-m", "aside"]);
            repo.git(&["switch", "-q", "main"]);
            repo.git(&["merge", "-q", "--no-edit", "side"]);
            assert_eq!(trailer("Agentloop-Run"), "");
        }
    }
}

/// What git shows of a run's notes on the commits of a range, without blank lines.
fn notes(repo: &Repo, run: &str, range: &[&str]) -> Vec<String> {
    let shown = repo.git(&[&["log", "--format=%N", &format!("--notes=agentloop/{run}")], range].concat());
    let mut lines: Vec<String> = shown.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn events_follow_commits_that_are_rewritten() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        repo.agentloop(&["hooks", "install"]).expect(0);
        // Workers that share a worktree leave a line of commits, which is what a plain rebase is for.
        repo.git(&["config", "agentloop.isolation", "shared"]);
        let run = run_with_files(&repo, "write files");
        let branch = format!("agentloop/{run}");
        let tail = repo.agentloop(&["tail", &run, "--json"]).expect(0).stdout;
        let status = repo.agentloop(&["status", &run, "--json"]).expect(0).stdout;
        let before = notes(&repo, &run, &["main..", &branch]);
        assert!(before.len() > 10, "{before:?}");

        // In a checkout of the branch: reword one, fix the other up, then amend.
        repo.git(&["switch", "-q", &branch]);
        repo.write("made-build.txt", "mended\n");
        repo.git(&["commit", "-qam", &format!("fixup! {}", repo.git(&["log", "-1", "--format=%s"]))]);
        let editor = repo.script("editor", "case \"$1\" in *todo) sed -i.bak -e '2s/^pick/reword/' \"$1\" ;; *) sed -i.bak -e '1s/^/Reworded: /' \"$1\" ;; esac");
        let rebase = repo
            .command("git")
            .env("GIT_EDITOR", &editor)
            .env("GIT_SEQUENCE_EDITOR", &editor)
            .args(["rebase", "-q", "-i", "--autosquash", "--no-ff", "main"])
            .output()
            .unwrap();
        assert!(rebase.status.success(), "{rebase:?}");
        let subjects = repo.git(&["log", "--format=%s", "main.."]);
        assert!(subjects.contains("Reworded: ") && !subjects.contains("fixup!"), "{subjects}");
        assert_eq!(notes(&repo, &run, &["main.."]), before);
        repo.git(&["commit", "-q", "--amend", "-m", &format!("amended\n\nAgentloop-Run: {run}")]);
        assert_eq!(notes(&repo, &run, &["main.."]), before);
        assert_eq!(
            repo.git(&["log", "-2", "--format=%(trailers:key=Agentloop-Run,valueonly,separator=%x2C)"]),
            format!("{run}\n{run}")
        );

        // A commit that is packed by now, and one of a linked worktree.
        repo.git(&["gc", "-q"]);
        repo.git(&["commit", "-q", "--amend", "--no-edit", "--reset-author"]);
        assert_eq!(notes(&repo, &run, &["main.."]), before);
        repo.git(&["switch", "-q", "main"]);
        let linked = repo.home().join("linked").to_str().unwrap().to_owned();
        repo.git(&["worktree", "add", "-q", &linked, &branch]);
        repo.git(&["-C", &linked, "commit", "-q", "--amend", "-m", "named no more"]);
        assert_eq!(notes(&repo, &run, &["main..", &branch]), before);
        repo.git(&["worktree", "remove", &linked]);

        // Our own readers see each event once, and the snapshot still stands.
        assert_eq!(repo.agentloop(&["tail", &run, "--json"]).expect(0).stdout, tail);
        assert_eq!(repo.agentloop(&["status", &run, "--json"]).expect(0).stdout, status);
        repo.git(&["config", "--get-regexp", "^user"]);
        assert_eq!(repo.try_git(&["config", "--get-regexp", "^notes"]).stdout, "");
    }
}

#[test]
fn a_push_takes_the_records_along_and_never_fails_for_it() {
    for git in gits() {
        let repo = Repo::with_git(&git);
        repo.agentloop(&["hooks", "install"]).expect(0);
        let bare = repo.home().join("bare.git");
        repo.git(&["init", "-q", "--bare", bare.to_str().unwrap()]);
        repo.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
        repo.git(&["push", "-q", "origin", "main"]);
        let there = || repo.git(&["ls-remote", "origin", "refs/notes/*"]);
        let run = run_with_files(&repo, "write files");
        let own =
            format!("{}\trefs/notes/agentloop/{run}", repo.git(&["rev-parse", &format!("refs/notes/agentloop/{run}")]));
        repo.git(&["config", "agentloop.pushNotes", "false"]);
        repo.git(&["push", "-q", "origin", &format!("agentloop/{run}")]);
        assert_eq!(there(), "");
        repo.git(&["config", "--unset", "agentloop.pushNotes"]);
        repo.git(&["push", "-q", "-f", "origin", &format!("+agentloop/{run}~1:refs/heads/agentloop/{run}")]);
        assert_eq!(there(), own);

        // A merged run's record goes with the branch that took it, whatever the user's own searches are like.
        repo.git(&["config", "grep.patternType", "fixed"]);
        let merged = run_with_files(&repo, "merge me");
        repo.agentloop(&["merge", &merged, "--no-ff"]).expect(0);
        repo.git(&["push", "-q", "origin", "main"]);
        assert!(there().contains(&format!("refs/notes/agentloop/{merged}")), "{}", there());

        // A remote that refuses notes costs a line, not the push.
        executable(&bare.join("hooks/update"), "#!/bin/sh\ncase \"$1\" in refs/notes/*) exit 1 ;; esac\n");
        let late = run_with_files(&repo, "too late");
        let pushed = repo.try_git(&["push", "-q", "origin", &format!("agentloop/{late}")]).expect(0);
        assert!(
            pushed.stderr.contains("warning: git-agentloop: the records of 1 run could not be pushed"),
            "{}",
            pushed.stderr
        );
        assert!(repo.git(&["ls-remote", "origin"]).contains(&format!("refs/heads/agentloop/{late}")));

        // Whoever works for a run does not push.
        let mut worker = repo.command("git");
        let refused = worker.env("AGENTLOOP_RUN", &run).args(["push", "origin", "main:other"]).output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && said.contains(&format!("a worker of the run {run} does not push")),
            "{said}"
        );
        assert!(!repo.git(&["ls-remote", "origin"]).contains("refs/heads/other"));
    }
}
