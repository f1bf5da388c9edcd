//! A table of git's settings by the harm that a change can do. A test compares it with every key that the installed git
//! documents.

/// Effect of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It names a program, or chooses among programs, that git runs without being asked to.
    Executes,
    /// It makes git read, write or connect elsewhere, or trust someone else.
    Redirects,
    /// It hides files, changes or history, or makes git drop what could be recovered.
    Hides,
    /// It defines the target of a branch, a remote or a submodule. Another value redirects, but users and git itself add and
    /// remove such settings all the time.
    Defines,
    /// It changes presentation or speed, or something that the user would see at once.
    Harmless,
}

/// Patterns of names as `git config --list` prints them; `*` is any sequence of characters, dots included. The first
/// matching pattern decides.
const TABLE: [(Effect, &[&str]); 6] = [
    (Effect::Harmless, &["advice.*", "color.*", "lfs.repositoryformatversion", "lfs.*.access"]),
    (
        Effect::Executes,
        &[
            // By their last word, also in sections of other programs: svn.authorsProg, sendemail.toCmd, tar.*.command.
            "*cmd",
            "*command",
            "*driver",
            "*editor",
            "*.external",
            "*helper",
            "*hook",
            "*.packobjectshook",
            "*.process",
            "*prog",
            "*program",
            "*.textconv",
            "agentloop.*",
            "alias.*",
            "branch.*.mergeoptions",
            "browser.*",
            "core.askpass",
            "core.fsmonitor",
            "core.fsmonitorhookversion",
            "core.gitproxy",
            "core.hookspath",
            "core.pager",
            "diff.guitool",
            "diff.tool",
            "difftool.*.path",
            "filter.*.clean",
            "filter.*.smudge",
            "help.autocorrect",
            "help.browser",
            "hook.*",
            "imap.tunnel",
            "include.*",
            "includeif.*",
            "init.templatedir",
            "instaweb.*",
            "interactive.difffilter",
            "lfs.*",
            "man.*",
            "merge.guitool",
            "merge.tool",
            "mergetool.*.layout",
            "mergetool.*.path",
            "pager.*",
            "protocol.*",
            "pull.octopus",
            "pull.twohead",
            "remote.*.receivepack",
            "remote.*.uploadpack",
            "remote.*.vcs",
            "sendemail.*smtpserver",
            "submodule.*.update",
            "web.browser",
        ],
    ),
    (
        Effect::Redirects,
        &[
            "attr.tree",
            "branch.*.pushremote",
            "bundle.*",
            "checkout.defaultremote",
            "core.alternaterefsprefixes",
            "core.bare",
            "core.notesref",
            "core.protecthfs",
            "core.protectntfs",
            "core.repositoryformatversion",
            "core.sharedrepository",
            "core.usereplacerefs",
            "core.worktree",
            "credential.*",
            "extensions.*",
            "fetch.bundle*",
            "format.bcc",
            "format.cc",
            "format.headers",
            "format.outputdirectory",
            "format.signaturefile",
            "format.to",
            "fsmonitor.*",
            "gc.repackfilter*",
            "gitcvs.*",
            "gpg.*",
            "help.htmlpath",
            "http.*",
            "imap.*",
            "mailmap.*",
            "merge.verifysignatures",
            "promisor.*",
            "push.default",
            "push.pushoption",
            "push.recursesubmodules",
            "receive.deny*",
            "receive.procreceiverefs",
            "remote.*.partialclonefilter",
            "remote.*.promisor",
            "remote.*.proxy*",
            "remote.*.serveroption",
            "remote.pushdefault",
            "safe.*",
            "sendemail.*",
            "ssh.variant",
            "submodule.alternatelocation",
            "trace2.*",
            "transfer.bundleuri",
            "transfer.credentialsinurl",
            "uploadarchive.*",
            "uploadpack.allow*",
            "url.*",
        ],
    ),
    (
        Effect::Hides,
        &[
            "*.hiderefs",
            "*fsckobjects",
            "blame.ignorerevsfile",
            "clean.requireforce",
            "core.attributesfile",
            "core.checkstat",
            "core.excludesfile",
            "core.filemode",
            "core.ignorecase",
            "core.ignorestat",
            "core.logallrefupdates",
            "core.precomposeunicode",
            "core.sparsecheckout*",
            "core.symlinks",
            "core.trustctime",
            "diff.*.binary",
            "diff.ignoresubmodules",
            "diff.relative",
            "fetch.fsck.*",
            "fsck.*",
            "gc.*expire*",
            "receive.fsck.*",
            "sparse.expectfilesoutsideofpatterns",
            "status.showuntrackedfiles",
            "submodule.*.ignore",
        ],
    ),
    (
        Effect::Defines,
        &[
            "branch.*.merge",
            "branch.*.remote",
            "remote.*.fetch",
            "remote.*.mirror",
            "remote.*.push",
            "remote.*.pushurl",
            "remote.*.url",
            "submodule.*.active",
            "submodule.*.branch",
            "submodule.*.url",
            "submodule.active",
        ],
    ),
    (
        Effect::Harmless,
        &[
            "add.*",
            "am.*",
            "apply.*",
            "author.*",
            "bitmappseudomerge.*",
            "blame.*",
            "branch.*",
            "checkout.*",
            "column.*",
            "commit.*",
            "commitgraph.*",
            "committer.*",
            "completion.*",
            "core.abbrev",
            "core.autocrlf",
            "core.bigfilethreshold",
            "core.checkroundtripencoding",
            "core.commentchar",
            "core.commentstring",
            "core.commitgraph",
            "core.compression",
            "core.createobject",
            "core.deltabasecachelimit",
            "core.eol",
            "core.filesreflocktimeout",
            "core.fsync*",
            "core.hidedotfiles",
            "core.loosecompression",
            "core.maxtreedepth",
            "core.multipackindex",
            "core.packed*",
            "core.prefersymlinkrefs",
            "core.preloadindex",
            "core.quotepath",
            "core.restrictinheritedhandles",
            "core.safecrlf",
            "core.splitindex",
            "core.unsetenvvars",
            "core.untrackedcache",
            "core.warnambiguousrefs",
            "core.whitespace",
            "credentialcache.*",
            "credentialstore.*",
            "diff.*",
            "difftool.*",
            "fastimport.*",
            "feature.*",
            "fetch.*",
            "filter.*.required",
            "format.*",
            "gc.*",
            "gitweb.*",
            "grep.*",
            "gui.*",
            "guitool.*",
            "help.format",
            "i18n.*",
            "index.*",
            "init.*",
            "interactive.singlekey",
            "log.*",
            "mailinfo.*",
            "lsrefs.*",
            "maintenance.*",
            "merge.*",
            "mergetool.*",
            "notes.*",
            "pack.*",
            "pretty.*",
            "pull.*",
            "push.*",
            "rebase.*",
            "receive.*",
            "reftable.*",
            "remote.*.followremotehead",
            "remote.*.prune*",
            "remote.*.skip*",
            "remote.*.tagopt",
            "remotes.*",
            "repack.*",
            "rerere.*",
            "revert.*",
            "showbranch.*",
            "splitindex.*",
            "stash.*",
            "status.*",
            "submodule.*",
            "tag.*",
            "tar.*",
            "trailer.*",
            "transfer.*",
            "uploadpack.*",
            "uploadpackfilter.*",
            "user.*",
            "versionsort.*",
            "worktree.*",
        ],
    ),
];

/// Returns the effect of the setting `name`; `None` for a key that git does not document.
pub(super) fn effect(name: &str) -> Option<Effect> {
    // Only a subsection keeps its case, and no pattern names one.
    let matching = |patterns: &&[&str]| patterns.iter().any(|pattern| matches(pattern.as_bytes(), name.as_bytes()));
    TABLE.iter().find(|(_, patterns)| matching(patterns)).map(|(effect, _)| *effect)
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        Some((first, rest)) => name.split_first().is_some_and(|(found, left)| found == first && matches(rest, left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_that_the_installed_git_documents_is_in_the_table() {
        let listed = std::process::Command::new("git").args(["help", "--config"]).env("GIT_PAGER", "cat").output();
        let printed = String::from_utf8(listed.unwrap().stdout).unwrap();
        let keys: Vec<&str> = printed.lines().filter(|line| line.contains('.') && !line.contains(' ')).collect();
        assert!(keys.len() > 500, "git lists {} keys", keys.len());
        let unknown: Vec<&&str> = keys.iter().filter(|key| effect(&as_listed(key)).is_none()).collect();
        assert!(unknown.is_empty(), "not classified: {unknown:?}");
    }

    /// Converts a documented key to the form of `git config --list`, with names for its placeholders.
    fn as_listed(key: &str) -> String {
        let mut name = String::new();
        let mut is_placeholder = false;
        for character in key.chars() {
            match character {
                '<' => is_placeholder = true,
                '>' => {
                    is_placeholder = false;
                    name.push('x');
                }
                '*' => name.push('x'),
                _ if is_placeholder => {}
                _ => name.push(character.to_ascii_lowercase()),
            }
        }
        name
    }

    #[test]
    fn keys_are_told_apart_by_what_they_can_do() {
        for (effect_of, names) in [
            (
                Effect::Executes,
                &[
                    "alias.st",
                    "agentloop.backend.e.command",
                    "core.alternaterefscommand",
                    "core.editor",
                    "core.sshcommand",
                    "credential.https://x.y/.helper",
                    "diff.x.command",
                    "diff.x.textconv",
                    "gc.recentobjectshook",
                    "gpg.ssh.defaultkeycommand",
                    "gpg.x509.program",
                    "hook.a.command",
                    "includeif.gitdir:~/x.y/.path",
                    "lfs.customtransfer.x.path",
                    "merge.x.driver",
                    "protocol.ext.allow",
                    "sendemail.x.smtpserver",
                    "sendemail.tocmd",
                    "sequence.editor",
                    "tar.tgz.command",
                    "trailer.x.cmd",
                    "uploadpack.packobjectshook",
                ][..],
            ),
            (Effect::Redirects, &["http.https://x.y/.proxy", "http.sslverify", "url.https://A.b/.insteadof"]),
            (Effect::Hides, &["core.excludesfile", "status.showuntrackedfiles", "gc.reflogexpireunreachable"]),
            (Effect::Defines, &["remote.a.b.url", "branch.x/y.remote", "submodule.s.url"]),
            (
                Effect::Harmless,
                &["core.autocrlf", "user.name", "filter.lfs.required", "diff.renames", "advice.ignoredhook"],
            ),
        ] {
            for name in names {
                assert_eq!(effect(name), Some(effect_of), "{name}");
            }
        }
        assert_eq!(effect("my-tool.colour"), None);
    }
}
