//! One run under every setting and variable of git's that bears on it: work, record and checkout are those of a run without.
//!
//! A sample of the rows is tried each time, all of them with `AGENTLOOP_TEST_SETTINGS=all`, and those whose name holds a
//! word with `AGENTLOOP_TEST_SETTINGS=WORD`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::{PROGRAM, Ran, Repo};

/// Rows that a normal run tries.
const SAMPLE: usize = 16;

/// What is set before the run: `key=value` in the user's configuration, `$NAME=value` in the environment, and words for git
/// in the repository.
const ROWS: &[&[&str]] = &[
    &["add.ignoreErrors=true"],
    &["advice.statusHints=false", "advice.detachedHead=false"],
    &["alias.status=!false", "alias.add=!false"],
    &["branch.autoSetupMerge=always", "branch.autoSetupRebase=always"],
    &["checkout.guess=false", "checkout.defaultRemote=none", "checkout.workers=0"],
    &["clean.requireForce=true"],
    &["clone.defaultRemoteName=elsewhere", "clone.rejectShallow=true"],
    &["color.ui=always", "color.status=always", "color.diff=always", "color.branch=always"],
    &["column.ui=always", "column.status=always"],
    &["commit.cleanup=strip", "commit.template=/nowhere", "commit.verbose=true", "commit.status=false"],
    &["commit.gpgSign=true", "tag.gpgSign=true", "gpg.program=false", "user.signingKey=none"],
    &["core.abbrev=4"],
    &["core.attributesFile=/nowhere", "core.excludesFile=/nowhere"],
    &["core.autocrlf=input", "core.safecrlf=true"],
    &["core.bigFileThreshold=1"],
    &["core.checkStat=minimal", "core.trustctime=false"],
    &["core.commentChar=A"],
    &["core.commentChar=auto"],
    &["core.compression=0", "core.looseCompression=9"],
    &["core.createObject=rename"],
    &["core.editor=false", "sequence.editor=false"],
    &["core.eol=lf"],
    &["core.fsmonitor=true"],
    &["core.fsync=all", "core.fsyncMethod=fsync"],
    &["core.hooksPath=/nowhere"],
    &["core.ignoreStat=true"],
    &["core.logAllRefUpdates=false"],
    &["core.logAllRefUpdates=always"],
    &["core.multiPackIndex=false", "core.commitGraph=false"],
    &["core.notesRef=refs/notes/mine", "notes.displayRef=refs/notes/*", "notes.rewriteRef=refs/notes/*"],
    &["core.pager=false", "pager.log=true", "pager.diff=true", "pager.status=true"],
    &["core.preferSymlinkRefs=true"],
    &["core.preloadIndex=false", "index.threads=1"],
    &["core.quotePath=true"],
    &["core.sharedRepository=group"],
    &["core.splitIndex=true"],
    &["core.untrackedCache=true"],
    &["core.warnAmbiguousRefs=false"],
    &["core.whitespace=trailing-space,cr-at-eol", "apply.whitespace=error"],
    &["diff.external=false", "diff.noPrefix=true", "diff.mnemonicPrefix=true", "diff.relative=true"],
    &["diff.ignoreSubmodules=all"],
    &["diff.renames=false", "diff.renameLimit=1", "status.renames=false", "merge.renames=false"],
    &["diff.submodule=log", "status.submoduleSummary=true"],
    &["diff.orderFile=/nowhere", "diff.context=0", "diff.algorithm=patience", "diff.colorMoved=zebra"],
    &["feature.manyFiles=true"],
    &["feature.experimental=true"],
    &["fetch.all=true", "fetch.prune=true", "fetch.pruneTags=true", "fetch.parallel=8", "fetch.writeCommitGraph=true"],
    &["format.pretty=oneline", "log.showSignature=true", "log.decorate=full", "log.date=relative", "log.follow=true"],
    &["gc.auto=1", "gc.autoPackLimit=1", "maintenance.strategy=incremental"],
    &["grep.patternType=fixed", "grep.extendedRegexp=true"],
    &["help.autoCorrect=immediate"],
    &["i18n.commitEncoding=ISO-8859-1", "i18n.logOutputEncoding=ISO-8859-1"],
    &["index.skipHash=true"],
    &["index.sparse=true"],
    &["index.version=4"],
    &["index.version=2", "index.recordEndOfIndexEntries=true", "index.recordOffsetTable=true"],
    &["init.defaultRefFormat=files", "init.defaultBranch=other", "init.templateDir=/nowhere"],
    &["merge.autoStash=true", "rebase.autoStash=true", "merge.conflictStyle=diff3", "merge.ff=only", "merge.log=true"],
    &["merge.directoryRenames=true", "merge.renormalize=true", "merge.verifySignatures=true", "merge.stat=false"],
    &["pack.compression=0", "pack.writeReverseIndex=false", "fetch.unpackLimit=1", "transfer.unpackLimit=1"],
    &["protocol.allow=never"],
    &["push.default=nothing", "push.followTags=true", "push.gpgSign=if-asked", "push.recurseSubmodules=check"],
    &["rerere.enabled=true", "rerere.autoUpdate=true"],
    &["safe.bareRepository=explicit"],
    &["safe.directory="],
    &["status.showUntrackedFiles=no"],
    &["status.short=true", "status.branch=true", "status.showStash=true", "status.relativePaths=true"],
    &["submodule.recurse=true", "submodule.propagateBranches=true", "fetch.recurseSubmodules=true"],
    &["submodule.lib.ignore=all"],
    &["submodule.lib.update=none", "submodule.fetchJobs=4"],
    &["trailer.separators==", "trailer.where=start", "trailer.ifExists=replace", "trailer.ifMissing=doNothing"],
    &["transfer.hideRefs=refs/agentloop", "uploadpack.hideRefs=refs/notes", "receive.denyNonFastForwards=true"],
    &["transfer.fsckObjects=true", "fetch.fsckObjects=true"],
    &["user.useConfigOnly=true"],
    &["worktree.guessRemote=true", "worktree.useRelativePaths=true"],
    &["$GIT_LITERAL_PATHSPECS=1"],
    &["$GIT_GLOB_PATHSPECS=1"],
    &["$GIT_NOGLOB_PATHSPECS=1"],
    &["$GIT_ICASE_PATHSPECS=1"],
    &["$GIT_EXTERNAL_DIFF=false", "$GIT_DIFF_OPTS=-u0"],
    &["$GIT_PAGER=false", "$PAGER=false", "$EDITOR=false", "$VISUAL=false", "$GIT_EDITOR=false"],
    &["$GIT_ATTR_SOURCE=HEAD~0", "$GIT_ATTR_NOSYSTEM=1"],
    &["$GIT_INDEX_VERSION=4"],
    &["$GIT_OPTIONAL_LOCKS=0"],
    &["$GIT_NOTES_REF=refs/notes/mine", "$GIT_NOTES_DISPLAY_REF=refs/notes/*"],
    &["$GIT_REFLOG_ACTION=rebase", "$GIT_MERGE_AUTOEDIT=yes", "$GIT_MERGE_VERBOSITY=5"],
    &["$GIT_REF_PARANOIA=0", "$GIT_COMMIT_GRAPH_PARANOIA=1"],
    &["$GIT_TRACE=1", "$GIT_TRACE_SETUP=1"],
    &["$GIT_ADVICE=0", "$GIT_FLUSH=0", "$GIT_PROGRESS_DELAY=0"],
    &["$GIT_DEFAULT_HASH=sha256", "$GIT_DEFAULT_REF_FORMAT=reftable", "$GIT_TEMPLATE_DIR=/nowhere"],
    &["$GIT_QUARANTINE_PATH=/nowhere"],
    &["$GIT_ALLOW_PROTOCOL=https", "$GIT_PROTOCOL_FROM_USER=0", "$GIT_NO_LAZY_FETCH=1"],
    &["$GIT_CEILING_DIRECTORIES=/", "$GIT_DISCOVERY_ACROSS_FILESYSTEM=1"],
    &["$GIT_NO_REPLACE_OBJECTS=1"],
    &["$GIT_AUTHOR_DATE=2001-01-01T00:00:00Z", "$GIT_COMMITTER_DATE=2001-01-01T00:00:00Z"],
    &["$LC_ALL=C", "$LANGUAGE=de", "$TZ=Asia/Tokyo", "$COLUMNS=20"],
    &["$POSIXLY_CORRECT=1"],
    &["git config extensions.worktreeConfig true"],
    &["git config core.worktree ..", "git config extensions.worktreeConfig true"],
    &["git sparse-checkout init --cone", "git sparse-checkout set sub"],
    &["git sparse-checkout init --cone --sparse-index", "git sparse-checkout set sub"],
    &["git tag a-goal", "git tag agentloop/a-goal", "git tag HEAD", "git tag main"],
    &["git pack-refs --all", "git repack -adq"],
    &["git update-index --untracked-cache", "git update-index --split-index"],
    &["git submodule --quiet deinit -f lib"],
];

/// What is compared.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    code: i32,
    work: Vec<String>,
    record: Vec<String>,
    refs: Vec<String>,
}

/// A repository with a submodule, a rule of each kind for its content, and files in two folders.
fn template() -> Repo {
    let repo = Repo::new();
    let lib = repo.home().join("origin");
    let lib = lib.to_str().unwrap();
    repo.git(&["init", "-q", "-b", "main", lib]);
    std::fs::write(Path::new(lib).join("file"), "lib\n").unwrap();
    let identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"];
    repo.git(&["-C", lib, "add", "."]);
    repo.git(&[&["-C", lib][..], &identity, &["commit", "-qm", "first"]].concat());
    repo.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", lib, "lib"]);
    repo.write(".gitattributes", "*.txt text=auto\n");
    repo.write(".gitignore", "ignored\n");
    repo.write("sub/kept.txt", "kept\n");
    repo.write("other/ünï \"quoted\".txt", "kept\n");
    repo.commit("second");
    repo.git(&["config", "agentloop.mock.plan", r#"[{"id": "one", "description": "all of it"}]"#]);
    repo.git(&["config", "agentloop.mock.acceptIteration", "1"]);
    for edit in
        ["+README={subgoal}\n", "sub/new-{subgoal}.txt=x\r\n", "made/ünï {subgoal}=y\n", "lib/new=z\n", "ignored=i\n"]
    {
        repo.git(&["config", "--add", "agentloop.mock.edit", edit]);
    }
    repo
}

/// A run in a copy of `template` under what `row` sets.
fn run_under(template: &Repo, row: &[&str]) -> Came {
    let home = tempfile::tempdir().unwrap();
    let copied = std::process::Command::new("cp").arg("-a").arg(template.home().join(".")).arg(home.path()).status();
    assert!(copied.unwrap().success());
    let path = home.path().join("repo");
    let repo = Repo::at(home, path);
    repo.git(&["update-index", "-q", "--refresh"]);
    let mut environment = Vec::new();
    for word in row {
        if let Some(variable) = word.strip_prefix('$') {
            environment.push(variable.split_once('=').unwrap());
        } else if let Some(words) = word.strip_prefix("git ") {
            repo.git(&words.split(' ').collect::<Vec<_>>());
        } else {
            let (key, value) = word.split_once('=').unwrap();
            repo.git(&["config", "--global", key, value]);
        }
    }
    let before = repo.fingerprint();
    let mut command = repo.command(PROGRAM);
    command.args(["run", "a goal", "--name", "a-goal", "--backend", "mock", "--json", "--criteria", "x"]);
    command.args(["--verify", "test -f README", "--protect", "other"]).envs(environment.iter().copied());
    let ran = Ran::of(&command.stdin(std::process::Stdio::null()).output().unwrap());
    assert_eq!(repo.fingerprint(), before, "{row:?}: the checkout was touched\n{}", ran.stderr);
    // From here on as the plain case sees it.
    std::fs::write(repo.home().join("gitconfig"), "").unwrap();
    let run: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{row:?}: {error}\n{}", ran.stderr));
    let run = run["run_id"].as_str().unwrap();
    let branch = format!("refs/heads/agentloop/{run}");
    let work = repo.git(&["ls-tree", "-r", &branch]);
    let work = work.lines().map(|line| match line.split_once("commit ") {
        Some((_, rest)) => content_of_submodule(&repo, rest.split('\t').next().unwrap()),
        None => line.to_owned(),
    });
    Came { code: ran.code, work: work.collect(), record: record(&repo, run), refs: refs(&repo, run) }
}

/// What a submodule's commit holds: its id differs each time.
fn content_of_submodule(repo: &Repo, commit: &str) -> String {
    repo.git(&["--git-dir", ".git/modules/lib", "ls-tree", "-r", commit])
}

/// The events, each with what was remarked; ids differ each time.
fn record(repo: &Repo, run: &str) -> Vec<String> {
    let is_id = |word: &str| word.len() >= 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let plain = |text: &str| {
        let words = text.split(' ').map(|word| if is_id(word.trim_end_matches([',', ':'])) { "ID" } else { word });
        words.collect::<Vec<_>>().join(" ")
    };
    let mut events: BTreeMap<String, usize> = BTreeMap::new();
    for event in repo.events(run) {
        let remarks = event["data"]["remarks"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let remarks: Vec<String> = remarks.map(plain).collect();
        *events.entry(format!("{} {} {remarks:?}", event["kind"], event["iteration"])).or_default() += 1;
    }
    events.into_iter().map(|(event, times)| format!("{times} × {event}")).collect()
}

/// The refs that there are now, without the run's random end.
fn refs(repo: &Repo, run: &str) -> Vec<String> {
    let all =
        repo.git(&["for-each-ref", "--format=%(refname)", "refs/heads", "refs/notes", "refs/stash", "refs/agentloop"]);
    all.lines().map(|name| name.replace(run, "RUN")).collect()
}

/// The rows of this run.
fn chosen() -> Vec<&'static [&'static str]> {
    let wanted = std::env::var("AGENTLOOP_TEST_SETTINGS").unwrap_or_default();
    if wanted == "all" {
        return ROWS.to_vec();
    }
    if !wanted.is_empty() {
        return ROWS.iter().copied().filter(|row| row.iter().any(|word| word.contains(&wanted))).collect();
    }
    // Another sample each day, the same one all day long.
    let day = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() / 86400;
    let first = usize::try_from(day).unwrap() * SAMPLE;
    (0..SAMPLE).map(|number| ROWS[(first + number) * 37 % ROWS.len()]).collect()
}

#[test]
fn a_run_is_the_same_under_every_setting_of_git() {
    let template = template();
    let plain = run_under(&template, &[]);
    assert_eq!(plain.code, 0);
    let (rows, next, wrong) = (chosen(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let came = std::panic::catch_unwind(|| run_under(&template, row));
                    match came {
                        Ok(came) if came == plain => {}
                        Ok(came) => wrong.lock().unwrap().push(format!("{row:?}\n{came:#?}")),
                        Err(_) => wrong.lock().unwrap().push(format!("{row:?} failed: see above")),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "plain: {plain:#?}\n{} rows differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn there_are_enough_rows() {
    assert!(ROWS.len() >= 60);
}
