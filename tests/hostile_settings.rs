//! Workers that change what git is set to do: what could harm is put back byte for byte, whatever stands in its place.

use std::os::unix::fs::PermissionsExt as _;

use crate::fanout::{RUN, plan, scripted};
use crate::hostile_workers::{after, after_with};
use crate::support::Repo;

/// Settings that have git run something, go elsewhere or hide something, one of each kind.
const HARMFUL: [&str; 42] = [
    "agentloop.backend.e.command evil",
    "agentloop.copy '*'",
    "agentloop.permissions all",
    "agentloop.setup 'touch ran'",
    "agentloop.verify true",
    "alias.st '!evil'",
    "branch.main.pushRemote evil",
    "browser.e.cmd evil",
    "core.alternateRefsCommand evil",
    "core.gitProxy evil",
    "core.pager evil",
    "core.sparseCheckout true",
    "credential.https://x.y.helper evil",
    "diff.external evil",
    "difftool.vimdiff.cmd evil",
    "fetch.bundleURI https://evil.invalid",
    "gc.pruneExpire now",
    "gc.recentObjectsHook evil",
    "gpg.ssh.program evil",
    "http.proxy http://127.0.0.1:9",
    "http.sslVerify false",
    "interactive.diffFilter evil",
    "lfs.customtransfer.x.path evil",
    "man.e.cmd evil",
    "merge.x.driver evil",
    "mergetool.vimdiff.cmd evil",
    "pager.log evil",
    "protocol.ext.allow always",
    "remote.new.proxy http://127.0.0.1:9",
    "remote.new.receivepack evil",
    "remote.new.uploadpack evil",
    "remote.new.vcs evil",
    "remote.origin.pushurl https://evil.invalid",
    "remote.origin.url https://evil.invalid",
    "sendemail.smtpServer /evil",
    "sequence.editor evil",
    "status.showUntrackedFiles no",
    "submodule.x.update '!evil'",
    "tar.tgz.command evil",
    "trailer.x.command evil",
    "url.https://evil.invalid/.insteadOf https://github.com/",
    "url.https://evil.invalid/.pushInsteadOf https://github.com/",
];

/// A repository with a remote, and a comment in its configuration.
fn repo() -> Repo {
    let repo = Repo::new();
    repo.git(&["remote", "add", "origin", "https://example.invalid/x.git"]);
    let config = repo.path().join(".git/config");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, format!("# mine\n{text}")).unwrap();
    repo
}

#[test]
fn every_kind_of_setting_that_could_harm_is_put_back_and_named_with_what_sets_it_again() {
    // All at once, so that each is named in one remark.
    let sets = HARMFUL.iter().map(|setting| format!("git config --file \"$HOME/all\" {setting}"));
    let begin = "config=$(git rev-parse --git-common-dir)/config; cp \"$config\" \"$HOME/all\"".to_owned();
    let end = "mv \"$HOME/all\" \"$config\"".to_owned();
    let sets: Vec<String> = std::iter::once(begin).chain(sets).chain([end]).collect();
    // The user's checkout is held to what it was, its configuration among it.
    let outcome = after_with(repo(), &sets.join("\n"));
    let remarks = outcome.remarks();
    for setting in HARMFUL {
        let name = setting.split(' ').next().unwrap();
        let (section, key) = (name.split('.').next().unwrap(), name.rsplit('.').next().unwrap().to_lowercase());
        assert!(remarks.contains(&format!("git config {section}.")), "{name}: {remarks}");
        assert!(remarks.contains(&format!(".{key}")), "{name}: {remarks}");
    }
    assert!(remarks.contains("set again by: git config agentloop.backend.e.command evil && "), "{remarks}");
}

#[test]
fn what_a_user_adds_meanwhile_stays_beside_what_is_put_back() {
    let repo = repo();
    let deed = "git remote add new https://new.invalid; git config user.signingKey x; git config core.hooksPath evil; \
                git config remote.new.vcs evil";
    scripted(&repo, &plan(&["bad"]), &format!("{deed}; echo x > bad.txt"), "true");
    let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(repo.git(&["config", "remote.new.url"]), "https://new.invalid");
    assert_eq!(repo.git(&["config", "user.signingKey"]), "x");
    assert_eq!(repo.try_git(&["config", "--get-regexp", "hookspath|vcs"]).stdout, "");
    let config = std::fs::read_to_string(repo.path().join(".git/config")).unwrap();
    assert!(config.starts_with("# mine\n"), "{config}");
    let said = format!("{:?}", repo.events(&run));
    assert!(said.contains("left its worktree): remote.new.fetch, remote.new.url, user.signingkey"), "{said}");
    assert!(said.contains("set again by: git config core.hookspath evil && git config remote.new.vcs evil"), "{said}");
}

/// A repository whose configuration includes a file in its git directory.
fn including() -> Repo {
    let repo = Repo::new();
    repo.git(&["config", "include.path", "more/own"]);
    std::fs::create_dir(repo.path().join(".git/more")).unwrap();
    std::fs::write(repo.path().join(".git/more/own"), "[core]\n\tpager = mine\n").unwrap();
    repo
}

#[test]
fn a_file_that_the_configuration_includes_is_watched_with_it() {
    for (deed, said) in [
        ("git config --file $own core.pager evil", "core.pager (in more/own)"),
        ("rm $own; mkfifo $own", "more/own (what was in its place could not be read)"),
    ] {
        let outcome = after_with(including(), &format!("own=$HOME/repo/.git/more/own; {deed}; echo x > bad.txt"));
        assert_eq!(outcome.repo.git(&["config", "core.pager"]), "mine", "{deed}");
        assert!(outcome.remarks().contains(said), "{deed}: {}", outcome.remarks());
    }
}

#[test]
fn no_verb_waits_for_a_pipe_in_the_place_of_what_git_reads_first() {
    let repo = including();
    for name in ["config", "HEAD", "packed-refs", "more/own"] {
        let (path, away) = (repo.path().join(".git").join(name), repo.home().join("away"));
        let is_there = std::fs::rename(&path, &away).is_ok();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let refused = repo.agentloop(&["list"]).expect(2).stderr;
        let expected = format!("error: '{}' is no file, and git would wait for it without end\n", path.display());
        assert!(refused.starts_with(&expected) && refused.contains("\nhint: remove it, "), "{name}: {refused}");
        std::fs::remove_file(&path).unwrap();
        if is_there {
            std::fs::rename(&away, &path).unwrap();
        }
        repo.agentloop(&["list"]).expect(0);
    }
}

#[test]
fn whatever_stands_in_its_place_the_configuration_is_put_back() {
    // Made beside it and moved there at once: the guard may look between two steps, and put back the first of them.
    let danger = "cp $c $HOME/new; git config -f $HOME/new core.hooksPath /tmp/evil";
    for (deed, kept) in [
        ("printf '[core\\n' >> $c".to_owned(), Some("[core\n")),
        (format!("{danger}; printf '[core\\n' >> $HOME/new; mv $HOME/new $c"), Some("hooksPath = /tmp/evil")),
        (format!("{danger}; ln -s $HOME/new $HOME/link; mv $HOME/link $c"), Some("hooksPath = /tmp/evil")),
        (format!("{danger}; chmod 0 $HOME/new; mv $HOME/new $c"), Some("hooksPath = /tmp/evil")),
        ("rm $c; mkdir $c; touch $c/file".to_owned(), None),
        ("rm $c; mkfifo $c".to_owned(), None),
        ("rm $c".to_owned(), None),
    ] {
        let outcome = after(&format!("c=$HOME/repo/.git/config\n{deed}\necho work > bad.txt"));
        let config = outcome.repo.path().join(".git/config");
        let about = config.symlink_metadata().unwrap();
        assert!(about.is_file() && about.permissions().mode() & 0o600 == 0o600, "{deed}");
        assert_eq!(outcome.files(), "README bad.txt good.txt", "{deed}");
        let remarks = outcome.remarks();
        assert!(remarks.contains("were changed while workers worked, and put back: config ("), "{deed}: {remarks}");
        let beside = std::fs::read_dir(config.with_file_name("")).unwrap().flatten().map(|entry| entry.path());
        let replaced = beside.filter(|path| path.to_string_lossy().contains("config.replaced-") && path.is_file());
        let held: String = replaced.filter_map(|path| std::fs::read_to_string(path).ok()).collect();
        assert!(kept.is_none_or(|kept| held.contains(kept)), "{deed}: {held}");
    }
}

#[test]
fn a_lock_that_somebody_left_is_no_reason_to_leave_settings_as_they_are() {
    let repo = Repo::new();
    let deed = "git config core.hooksPath /tmp/evil; touch $HOME/repo/.git/config.lock; echo x > bad.txt";
    scripted(&repo, &plan(&["bad"]), deed, "true");
    let run = repo.agentloop(&RUN).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(repo.try_git(&["config", "core.hooksPath"]).stdout, "");
    assert!(repo.path().join(".git/config.lock").exists(), "it may be another program's");
    assert!(format!("{:?}", repo.events(&run)).contains("git config core.hookspath /tmp/evil"));
}
