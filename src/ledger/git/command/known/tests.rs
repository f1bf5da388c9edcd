//! Classifies all that the installed git knows: set or removed by us, or harmless with a reason.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use super::{ENVIRONMENT, KEPT, KEPT_FOR_REMOTES, SETTINGS, is_kept, matches};

/// Variables that no git process of ours sees, and their effect if it did.
const REMOVED: [(&str, &[&str]); 8] = [
    (
        "have git work elsewhere",
        &[
            "GIT_ALTERNATE_OBJECT_DIRECTORIES",
            "GIT_COMMON_DIR",
            "GIT_COMMONDIR",
            "GIT_DIR",
            "GIT_GRAFT_FILE",
            "GIT_IMPLICIT_WORK_TREE",
            "GIT_INDEX_FILE",
            "GIT_INTERNAL_SUPER_PREFIX",
            "GIT_INTERNAL_TOPLEVEL",
            "GIT_NAMESPACE",
            "GIT_NO_REPLACE_OBJECTS",
            "GIT_OBJECT_DIRECTORY",
            "GIT_PREFIX",
            "GIT_QUARANTINE_PATH",
            "GIT_REPLACE_REF_BASE",
            "GIT_SHALLOW_FILE",
            "GIT_WORK_TREE",
        ],
    ),
    (
        "change what git is set to do",
        &[
            "GIT_ATTR_*",
            "GIT_CONFIG",
            "GIT_CONFIG_COUNT",
            "GIT_CONFIG_KEY_*",
            "GIT_CONFIG_PARAMETERS",
            "GIT_CONFIG_VALUE_*",
        ],
    ),
    (
        "change what paths, revisions and notes mean",
        &[
            "GIT_GLOB_PATHSPECS",
            "GIT_ICASE_PATHSPECS",
            "GIT_LITERAL_PATHSPECS",
            "GIT_NOGLOB_PATHSPECS",
            "GIT_NOTES_*",
            "GIT_REF_PARANOIA",
            "GIT_COMMIT_GRAPH_PARANOIA",
            "GIT_ALLOW_NULL_SHA1",
        ],
    ),
    (
        "change what git writes",
        &[
            "GIT_BASENAME_FACTOR",
            "GIT_CHERRY_PICK_HELP",
            "GIT_DEFAULT_*",
            "GIT_DISABLE_UNTRACKED_CACHE",
            "GIT_FORCE_UNTRACKED_CACHE",
            "GIT_INDEX_VERSION",
            "GIT_MERGE_*",
            "GIT_REFLOG_ACTION",
            "GIT_TEMPLATE_DIR",
        ],
    ),
    (
        "change what git prints",
        &[
            "GIT_ADVICE",
            "GIT_DIFF_*",
            "GIT_EXTERNAL_DIFF*",
            "GIT_FLUSH",
            "GIT_MAX_HEXSZ",
            "GIT_PAGER_IN_USE",
            "GIT_PRINT_SHA1_ELLIPSIS",
            "GIT_PROGRESS_DELAY",
        ],
    ),
    (
        "ask or show",
        &[
            "GIT_ASKPASS",
            "GIT_DIFFTOOL_*",
            "GIT_EDITOR",
            "GIT_MAN_VIEWER",
            "GIT_MERGETOOL_*",
            "GIT_PAGER",
            "GIT_SEQUENCE_EDITOR",
            "GIT_TERMINAL_PROMPT",
        ],
    ),
    (
        "belong to a server, or to git's own children",
        &[
            "GIT_AUTHOR_IDENT",
            "GIT_EXT_SERVICE*",
            "GIT_OPTIONAL_LOCKS",
            "GIT_OVERRIDE_VIRTUAL_HOST",
            "GIT_PROTOCOL*",
            "GIT_PUSH_*",
            "GIT_SHELL_PATH",
        ],
    ),
    (
        "are for git's developers",
        &["GIT_ALLOC_LIMIT", "GIT_FORCE_THREADS", "GIT_MMAP_LIMIT", "GIT_TEST_*", "GIT_TRANSLOOP_DEBUG"],
    ),
];

/// Settings that remain the user's, and the reason.
const HARMLESS: [(&str, &[&str]); 10] = [
    (
        "for verbs, servers and tools that are not run by us",
        &[
            "am.*",
            "apply.*",
            "bitmappseudomerge.*",
            "blame.*",
            "browser.*",
            "bundle.*",
            "completion.*",
            "difftool.*",
            "fastimport.*",
            "format.*",
            "fsck.*",
            "gitcvs.*",
            "gitweb.*",
            "gui.*",
            "guitool.*",
            "help.*",
            "imap.*",
            "instaweb.*",
            "interactive.*",
            "mailinfo.*",
            "man.*",
            "mergetool.*",
            "notes.*",
            "pull.*",
            "rebase.*",
            "receive.*",
            "repack.*",
            "revert.*",
            "sendemail.*",
            "showbranch.*",
            "stash.*",
            "tag.*",
            "tar.*",
            "uploadarchive.*",
            "versionsort.*",
            "web.*",
            "merge.tool",
            "merge.guitool",
            "diff.tool",
            "diff.guitool",
            "push.default",
            "push.autosetupremote",
            "clean.requireforce",
            "branch.*",
            "worktree.guessremote",
            "checkout.defaultremote",
            "checkout.guess",
            "core.editor",
            "sequence.editor",
            "core.notesref",
            "core.checkroundtripencoding",
            "rerere.autoupdate",
            "fetch.all",
            "fetch.prune",
            "fetch.prunetags",
        ],
    ),
    ("an alias never replaces a verb of git's", &["alias.*"]),
    (
        "of porcelain for people: we ask plumbing, or give the format",
        &[
            "advice.*",
            "color.*",
            "column.*",
            "commit.status",
            "commit.template",
            "commit.verbose",
            "core.abbrev",
            "core.pager",
            "core.warnambiguousrefs",
            "core.whitespace",
            "diff.algorithm",
            "diff.autorefreshindex",
            "diff.colormoved*",
            "diff.context",
            "diff.dirstat",
            "diff.dstprefix",
            "diff.external",
            "diff.indentheuristic",
            "diff.interhunkcontext",
            "diff.mnemonicprefix",
            "diff.noprefix",
            "diff.relative",
            "diff.srcprefix",
            "diff.stat*",
            "diff.submodule",
            "diff.suppressblankempty",
            "diff.trustexitcode",
            "diff.wordregex",
            "diff.wserrorhighlight",
            "grep.*",
            "log.*",
            "mailmap.*",
            "merge.branchdesc",
            "merge.log",
            "merge.stat",
            "merge.suppressdest",
            "merge.verbosity",
            "pager.*",
            "pretty.*",
            "status.*",
            "fetch.output",
            "fetch.showforcedupdates",
        ],
    ),
    (
        "quicker, smaller or safer on a disk, with the same result",
        &[
            "checkout.thresholdforparallelism",
            "checkout.workers",
            "commitgraph.*",
            "core.bigfilethreshold",
            "core.commitgraph",
            "core.compression",
            "core.createobject",
            "core.deltabasecachelimit",
            "core.filesreflocktimeout",
            "core.fsync*",
            "core.loosecompression",
            "core.maxtreedepth",
            "core.multipackindex",
            "core.packedgit*",
            "core.packedrefstimeout",
            "core.preloadindex",
            "feature.*",
            "fetch.negotiationalgorithm",
            "fetch.parallel",
            "fetch.unpacklimit",
            "fsmonitor.*",
            "core.fsmonitorhookversion",
            "gc.*",
            "index.*",
            "lsrefs.*",
            "maintenance.*",
            "pack.*",
            "push.negotiate",
            "push.usebitmaps",
            "reftable.*",
            "splitindex.*",
            "submodule.fetchjobs",
            "trace2.*",
            "diff.<driver>.cachetextconv",
        ],
    ),
    (
        "how the user reaches remotes",
        &[
            "core.alternaterefs*",
            "core.askpass",
            "core.gitproxy",
            "core.sshcommand",
            "credential*",
            "fetch.bundle*",
            "fetch.fsck*",
            "http.*",
            "promisor.*",
            "protocol.*",
            "push.pushoption",
            "push.useforceifincludes",
            "remote.*",
            "remotes.*",
            "ssh.*",
            "transfer.*",
            "uploadpack*",
            "url.*",
        ],
    ),
    ("who the user is", &["author.*", "committer.*", "gpg.*", "user.*"]),
    (
        "what the user's disk can do",
        &[
            "core.checkstat",
            "core.filemode",
            "core.hidedotfiles",
            "core.ignorecase",
            "core.precomposeunicode",
            "core.protecthfs",
            "core.protectntfs",
            "core.restrictinheritedhandles",
            "core.sharedrepository",
            "core.symlinks",
            "core.trustctime",
            "core.unsetenvvars",
        ],
    ),
    (
        "what the user's repository holds: rules for its content",
        &[
            "attr.tree",
            "core.attributesfile",
            "core.autocrlf",
            "core.eol",
            "core.excludesfile",
            "core.sparsecheckout*",
            "core.usereplacerefs",
            "diff.<driver>.*",
            "diff.renamelimit",
            "diff.renames",
            "filter.*",
            "merge.<driver>.*",
            "merge.defaulttoupstream",
            "merge.directoryrenames",
            "merge.ff",
            "merge.renamelimit",
            "merge.renames",
            "merge.renormalize",
            "sparse.*",
        ],
    ),
    (
        "given to git in each call: the directories, or the flag that decides",
        &["core.bare", "core.worktree", "diff.ignoresubmodules", "submodule.*"],
    ),
    (
        "what git reads and trusts",
        &["core.repositoryformatversion", "extensions.*", "include.*", "includeif.*", "safe.*"],
    ),
];

fn ask(git: &[&str]) -> String {
    let output = Command::new("git").args(git).output().unwrap();
    assert!(output.status.success(), "git {git:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Lists the names that begin with `GIT_` in git's programs and, if installed, its manual pages.
fn variables() -> BTreeSet<String> {
    let programs = PathBuf::from(ask(&["--exec-path"]).trim());
    let mut found = BTreeSet::new();
    for name in ["git", "git-remote-http", "git-http-fetch"] {
        let program = std::fs::read(programs.join(name)).unwrap_or_default();
        let is_of_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        for word in program.split(|byte| !is_of_name(*byte)).filter(|word| word.starts_with(b"GIT_") && word.len() > 5)
        {
            found.insert(String::from_utf8(word.to_vec()).unwrap());
        }
    }
    found.extend(ask(&["rev-parse", "--local-env-vars"]).lines().map(ToOwned::to_owned));
    assert!(found.len() > 100, "git's programs are not where this test looks");
    found
}

#[test]
fn every_variable_of_git_is_classified() {
    let mut unknown = Vec::new();
    for name in variables() {
        let is_removed = REMOVED.iter().flat_map(|(_, names)| *names).any(|pattern| matches(pattern, &name));
        // Kept: a name that `*` covers and that a longer pattern excepts.
        if !is_kept(&name) && !is_removed {
            unknown.push(name);
        }
    }
    assert_eq!(unknown, Vec::<String>::new(), "variables of git's that are neither kept nor removed with a reason");
}

#[test]
fn what_belongs_to_one_repository_is_not_kept() {
    for name in ask(&["rev-parse", "--local-env-vars"]).lines() {
        assert!(!is_kept(name), "{name}");
    }
    for (pattern, reason) in KEPT.iter().chain(&KEPT_FOR_REMOTES) {
        assert!(pattern.starts_with("GIT_") && !reason.is_empty(), "{pattern}");
    }
    for (name, _) in ENVIRONMENT {
        assert!(!is_kept(name), "{name} is set by us");
    }
}

#[test]
fn every_setting_of_git_is_classified() {
    let printed = ask(&["help", "--config-for-completion"]);
    let known: BTreeSet<String> = printed.lines().map(str::to_ascii_lowercase).collect();
    assert!(known.len() > 500, "git does not list its settings as this test expects");
    let mut unknown = Vec::new();
    for name in &known {
        // A name that ends with a star has names below it; one that ends with a dot has each of them listed too.
        let name = name.trim_end_matches('*');
        if name == "diff." || name == "merge." {
            continue;
        }
        let is_set = SETTINGS.iter().any(|(set, _, _)| set.eq_ignore_ascii_case(name));
        let is_harmless = HARMLESS.iter().flat_map(|(_, names)| *names).any(|pattern| matches(pattern, name));
        if !is_set && !is_harmless {
            unknown.push(name.to_owned());
        }
    }
    assert_eq!(
        unknown,
        Vec::<String>::new(),
        "settings of git's that are neither set by us nor harmless with a reason"
    );
}

#[test]
fn every_setting_of_ours_is_one_of_gits() {
    // Newer than the oldest supported git, or not on git's list.
    let not_listed = ["hook.", "init.", "clone.", "trailer.", "core.commentString", "commit.gpgSign"];
    let known = ask(&["help", "--config-for-completion"]).to_ascii_lowercase();
    for (name, _, reason) in SETTINGS {
        let is_known = known.lines().any(|line| line == name.to_ascii_lowercase());
        assert!(is_known || not_listed.iter().any(|start| name.starts_with(start)), "{name}");
        assert!(!reason.is_empty());
    }
}
