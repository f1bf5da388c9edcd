//! Repositories and worktrees that workers make inside their workspace: what git would track there is work, and nothing else.

use crate::fanout::{RUN, plan, scripted};
use crate::hostile_workers::{after, after_with};
use crate::support::Repo;

const COMMIT: &str = "git -c user.name=x -c user.email=x@x commit -q";

/// A repository that ignores `*.log`, its generated files and what its line endings are.
fn ignoring() -> Repo {
    let repo = Repo::new();
    repo.write(".gitignore", "*.log\n");
    repo.write(".gitattributes", "*.txt text eol=lf\n");
    repo.commit("ignore");
    repo
}

#[test]
fn sources_are_captured_and_what_git_ignores_there_is_not() {
    let cases = [
        ("with a commit", format!("git add -A; {COMMIT} -m scaffold")),
        ("with files staged", "git add -A".to_owned()),
        ("without a commit", String::new()),
        (
            "with a git directory elsewhere",
            format!("git add -A; {COMMIT} -m x; mv .git ../.web.git.log; echo 'gitdir: ../.web.git.log' > .git"),
        ),
    ];
    for (case, last) in cases {
        let outcome = after_with(
            ignoring(),
            &format!(
                "mkdir -p web/node_modules/dep web/src web/a; cd web; git init -q; printf 'node_modules/\\n.env*\\n' > .gitignore\n\
                 echo x > src/page.ts; printf 'x\\r\\n' > a/b.txt; echo S=1 > .env.local; echo l > debug.log\n\
                 echo private > notes.md; echo notes.md >> .git/info/exclude; ln -s src link; chmod +x src/page.ts\n\
                 echo 1 > \"$(printf 'new\\nline')\"; for i in 1 2 3; do echo $i > node_modules/dep/$i.js; done; {last}"
            ),
        );
        let files =
            outcome.repo.git(&["ls-tree", "-r", "-z", "--name-only", &format!("agentloop/{}", outcome.run), "web"]);
        let expected = ["web/.gitignore", "web/a/b.txt", "web/link", "web/new\nline", "web/src/page.ts"];
        assert_eq!(files.trim_end_matches('\0').split('\0').collect::<Vec<_>>(), expected, "{case}");
        assert_eq!(outcome.show("web/a/b.txt"), "x", "{case}: attributes count, ours outside too");
        let tree = outcome.repo.git(&["ls-tree", "-r", &format!("agentloop/{}", outcome.run)]);
        assert!(
            tree.contains("100755 blob") && tree.contains("120000 blob") && !tree.contains("160000"),
            "{case}: {tree}"
        );
        assert!(
            outcome.remarks().contains("'web' is a repository of its own: captured as 5 files"),
            "{}",
            outcome.remarks()
        );
    }
}

#[test]
fn what_a_repository_tracks_although_it_ignores_it_is_work() {
    let outcome = after(&format!(
        "git init -q lib; cd lib; echo '*.lock' > .gitignore; echo l > a.lock; echo o > other.lock; git add -f a.lock .gitignore; {COMMIT} -m x"
    ));
    assert_eq!(outcome.files(), "README good.txt lib/.gitignore lib/a.lock");
}

#[test]
fn repositories_inside_of_repositories_are_captured() {
    let outcome = after(&format!(
        "mkdir -p a/b/c; for at in a a/b a/b/c; do git init -q $at; echo x > $at/file; done\n\
         cd a/b; git add file; {COMMIT} -m inner; cd ..; git add . 2>/dev/null; {COMMIT} -m outer"
    ));
    assert_eq!(outcome.files(), "README a/b/c/file a/b/file a/file good.txt");
}

#[test]
fn what_a_repository_is_set_to_run_is_not_run() {
    let outcome = after(
        "git init -q lib; cd lib; echo x > file; mkdir hook; printf '#!/bin/sh\\ntouch \"$0.ran\"\\n' > hook/run; chmod +x hook/run\n\
         git config core.fsmonitor \"$PWD/hook/run\"; git config filter.f.clean \"$PWD/hook/run\"; git config core.hooksPath \"$PWD/hook\"\n\
         git config core.worktree /; git config core.bare false; echo '*.txt filter=f' > .gitattributes; echo y > a.txt; cp hook/run .git/hooks/post-index-change",
    );
    assert_eq!(outcome.files(), "README good.txt lib/.gitattributes lib/a.txt lib/file lib/hook/run");
    assert_eq!(outcome.show("lib/a.txt"), "y");
}

#[test]
fn a_repository_of_many_ignored_files_keeps_its_sources() {
    let outcome = after(
        "mkdir -p web/node_modules web/src; cd web; git init -q; echo node_modules/ > .gitignore; echo x > src/page.ts\n\
         seq 11000 | (cd node_modules; xargs touch)",
    );
    assert_eq!(outcome.files(), "README good.txt web/.gitignore web/src/page.ts");
}

#[test]
fn an_agents_own_worktree_is_kept_apart_from_the_work() {
    let repo = Repo::new();
    let work = format!(
        "echo mine > own.txt; git worktree add -q --detach .claude/worktrees/one; cd .claude/worktrees/one; echo s > sub.txt; git add -A\n\
         {COMMIT} -m 'of the sub-agent'; echo dirty > left.txt"
    );
    scripted(&repo, &plan(&["only"]), &work, "true");
    let result = repo.agentloop(&[&RUN[..], &["--max-iterations", "1"]].concat()).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    assert_eq!(repo.git(&["ls-tree", "-r", "--name-only", &format!("agentloop/{run}")]), "README\nown.txt");
    let told = repo.events(run).iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("'.claude/worktrees/one' is a worktree of this repository"), "{told}");
    assert!(told.contains("is kept as refs/agentloop/rescue/"), "{told}");
    assert!(repo.git(&["log", "--all", "--format=%s"]).lines().any(|subject| subject == "of the sub-agent"));
    let kept = repo.git(&["for-each-ref", "--format=%(refname)", &format!("refs/agentloop/rescue/{run}/")]);
    assert_eq!(kept.lines().count(), 1, "{kept}");
    assert_eq!(repo.git(&["show", &format!("{kept}:left.txt")]), "dirty");
}
