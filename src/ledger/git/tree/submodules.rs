//! Submodules of a worktree: filled from the clones in the user's checkout, where their commits are kept.
//!
//! The clones in a worktree borrow the objects of the user's clones, so nothing is fetched, and a commit kept there is in
//! all worktrees at once. In the user's clones only objects and refs below `refs/agentloop/` change.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::Tracked;
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::command::{self, Git, nul_separated};
use crate::ledger::git::folder::is_folder;
use crate::ledger::git::provision::PROVISIONED;
use crate::ledger::git::repository::Repository;
use crate::ledger::git::worktree::Worktree;
use crate::run::goal::RunId;
use crate::run::message::RUN_TRAILER;

/// A checkout of the repository or of a submodule in it, ours or the user's.
struct Checkout {
    path: PathBuf,
    git_dir: PathBuf,
}

/// Content of a submodule's path in our worktree.
enum Content {
    /// The submodule, with a clone of its own.
    Own(Checkout),
    /// A link to files or a clone elsewhere, such as the user's: not ours to commit to or to clear.
    Elsewhere,
    /// No repository.
    Nothing,
}

/// A submodule's entry in the index of a checkout.
struct Link {
    path: PathBuf,
    commit: String,
}

/// The repository and the run that a command works for.
type Work<'a> = (&'a Repository, &'a RunId);

/// Fills those submodules of `worktree` that the user's checkout has. Returns remarks on failures.
pub(in crate::ledger::git) fn fill(repo: &Repository, run: &RunId, worktree: &Worktree) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    if let Some(users) = Checkout::of_user(repo) {
        let own = Checkout { path: worktree.path.clone(), git_dir: worktree.admin.clone() };
        fill_in(&own, &users, (repo, run), &mut remarks, Path::new(""))?;
    }
    Ok(remarks)
}

fn fill_in(own: &Checkout, users: &Checkout, work: Work<'_>, remarks: &mut Vec<String>, at: &Path) -> Result<()> {
    if !own.has_modules() {
        return Ok(());
    }
    let names = own.names()?;
    for link in own.links()? {
        let Some(name) = names.iter().find_map(|(path, name)| (*path == link.path).then_some(name)) else { continue };
        // Without a clone there, the user has not initialised it either.
        let Some(source) = users.submodule(&link.path, Some(name)) else { continue };
        let filled = match own.own(&link.path) {
            Content::Own(sub) if head(&sub.git_dir).as_deref() == Some(&link.commit) => Ok(()),
            Content::Own(sub) => sub.switch(&link.commit),
            Content::Elsewhere => Err(Error::failed("its place leads elsewhere")),
            Content::Nothing => clone(own, &link, name, &source.git_dir, work),
        };
        let shown = at.join(&link.path);
        match (filled, own.own(&link.path)) {
            (Ok(()), Content::Own(sub)) => fill_in(&sub, &source, work, remarks, &shown)?,
            (filled, found) => {
                // A half-filled submodule would count as a worker's change.
                if let Content::Own(sub) = found {
                    clear(&sub.path)?;
                }
                let why = filled.err().map_or_else(String::new, |error| format!(": {}", error.chain()));
                let (commit, shown) = (&link.commit[..12], shown.display());
                remarks.push(format!("the submodule '{shown}' cannot be had at {commit} without the network{why}"));
            }
        }
    }
    Ok(())
}

/// Makes git clone the submodule from the user's clone instead of its remote.
fn clone(own: &Checkout, link: &Link, name: &str, source: &Path, (repo, run): Work<'_>) -> Result<()> {
    let git = local(own.git("submodule")).setting(format!("submodule.{name}.url"), source);
    let git = git.args(["--quiet", "update", "--no-fetch", "--checkout", "--reference"]).arg(source);
    git.path(&link.path).works_for(repo.common_dir(), run).run()?;
    let Some(git_dir) = git_dir_of(&own.path.join(&link.path)) else { return Ok(()) };
    let url = Git::in_git_dir(source, "config").arg("remote.origin.url").word();
    match url {
        Ok(url) => Git::in_git_dir(&git_dir, "config").args(["remote.origin.url", &url]).run().map(|_| ()),
        Err(_) => Ok(()), // a clone without a remote
    }
}

/// Commits uncommitted changes in the submodules of a worktree, as is done for the worktree itself, and keeps all their
/// current commits in the user's clones. Returns remarks.
pub(super) fn keep(tracked: &Tracked<'_>) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    if !is_provisioned(tracked) {
        return Ok(remarks);
    }
    if let Some(users) = Checkout::of_user(tracked.repo) {
        let found = links(tracked.git("ls-files"))?;
        keep_in(&Checkout::of_ours(tracked), &users, found, tracked, &mut remarks, Path::new(""));
    }
    Ok(remarks)
}

fn keep_in(
    own: &Checkout,
    users: &Checkout,
    links_in: Vec<Link>,
    tracked: &Tracked<'_>,
    remarks: &mut Vec<String>,
    at: &Path,
) {
    for link in links_in {
        let shown = at.join(&link.path);
        let sub = match own.own(&link.path) {
            Content::Own(sub) => sub,
            Content::Elsewhere => {
                let shown = shown.display();
                remarks.push(format!("the submodule '{shown}' leads elsewhere: what is changed there is not taken in"));
                continue;
            }
            Content::Nothing => continue,
        };
        let name = own.names().unwrap_or_default().into_iter().find(|(path, _)| *path == link.path);
        let source = users.submodule(&link.path, name.as_ref().map(|(_, name)| name.as_str()));
        // A submodule that a worker added exists only here.
        let Some(source) = source else { continue };
        if sub.has_modules() {
            let below = sub.links().unwrap_or_default();
            keep_in(&sub, &source, below, tracked, remarks, &shown);
        }
        let kept = sub.commit_all(tracked, &shown).and_then(|committed| {
            let Some(commit) = head(&sub.git_dir) else { return Ok(committed) };
            if commit != link.commit {
                source.fetch_from(&sub, &commit, tracked.run)?;
            }
            Ok(committed)
        });
        match kept {
            Ok(Some(commit)) => {
                remarks.push(format!("what was changed in the submodule '{}' is {}", shown.display(), &commit[..12]));
            }
            Ok(None) => {}
            Err(error) => {
                let shown = shown.display();
                remarks.push(format!("the submodule '{shown}' cannot be committed as it stands: {}", error.chain()));
            }
        }
    }
}

/// Submodules that are at the commits of the index, without changes, and are to stay so.
pub(super) struct CleanSubmodules(Vec<Link>);

impl CleanSubmodules {
    pub(super) fn of(tracked: &Tracked<'_>) -> Result<Self> {
        if !is_provisioned(tracked) {
            return Ok(Self(Vec::new()));
        }
        let own = Checkout::of_ours(tracked);
        let is_there = |link: &Link| match own.own(&link.path) {
            Content::Own(sub) => head(&sub.git_dir).as_ref() == Some(&link.commit) && sub.is_clean().unwrap_or(false),
            Content::Elsewhere | Content::Nothing => false,
        };
        Ok(Self(links(tracked.git("ls-files"))?.into_iter().filter(is_there).collect()))
    }

    /// Updates the submodules to the commits that the index has now. One that cannot be updated or is no longer a submodule
    /// is removed: at its old commit it would count as a worker's change.
    pub(super) fn follow(self, tracked: &Tracked<'_>) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Checkout::of_ours(tracked).update(self.0, &links(tracked.git("ls-files"))?)
    }
}

impl Checkout {
    fn of_user(repo: &Repository) -> Option<Self> {
        Some(Self { path: repo.work_dir()?.to_owned(), git_dir: repo.git_dir().to_owned() })
    }

    fn of_ours(tracked: &Tracked<'_>) -> Self {
        Self { path: tracked.path.to_owned(), git_dir: tracked.git_dir.clone() }
    }

    fn has_modules(&self) -> bool {
        self.path.join(".gitmodules").symlink_metadata().is_ok_and(|about| about.is_file())
    }

    fn git(&self, verb: &'static str) -> Git {
        Git::on(&self.path, &self.git_dir, verb)
    }

    fn links(&self) -> Result<Vec<Link>> {
        links(self.git("ls-files"))
    }

    /// Lists path and name of all submodules, without those whose name is an unsafe path.
    fn names(&self) -> Result<Vec<(PathBuf, String)>> {
        let git = Git::anywhere("config").args(["-z", "--file"]).arg(self.path.join(".gitmodules"));
        let output = git.args(["--get-regexp", r"^submodule\..*\.path$"]).output()?;
        let entries = nul_separated(&output.stdout);
        let named = entries.filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'\n')?;
            let name = std::str::from_utf8(&entry[..at]).ok()?.strip_prefix("submodule.")?.strip_suffix(".path")?;
            let is_plain = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
            is_plain.then(|| (PathBuf::from(OsStr::from_bytes(&entry[at + 1..])), name.to_owned()))
        });
        Ok(named.collect())
    }

    /// Inspects the path of a submodule in a worktree of ours.
    fn own(&self, link: &Path) -> Content {
        let mut path = self.path.clone();
        for part in link.components() {
            path.push(part);
            if path.symlink_metadata().is_ok() && !is_folder(&path) {
                return if path.is_dir() { Content::Elsewhere } else { Content::Nothing };
            }
        }
        let Some(git_dir) = git_dir_of(&path) else { return Content::Nothing };
        let clones = self.git_dir.join("modules").canonicalize();
        let is_own = git_dir == path.join(".git") || clones.is_ok_and(|clones| git_dir.starts_with(clones));
        if is_own { Content::Own(Self { path, git_dir }) } else { Content::Elsewhere }
    }

    /// Finds the user's submodule at `path` or, if it was moved since, the clone of that name.
    fn submodule(&self, path: &Path, name: Option<&str>) -> Option<Self> {
        let path = self.path.join(path);
        let by_name = || Some(self.git_dir.join("modules").join(name?)).filter(|dir| dir.join("HEAD").exists());
        let git_dir = git_dir_of(&path).or_else(by_name)?;
        Some(Self { path, git_dir })
    }

    /// Updates submodules that were at the commits of the index to those of `now`.
    fn update(&self, clean: Vec<Link>, now: &[Link]) -> Result<()> {
        for Link { path: link, commit } in clean {
            let wanted = now.iter().find(|other| other.path == link).map(|other| other.commit.as_str());
            let Content::Own(sub) = self.own(&link) else { continue };
            if wanted == Some(&commit) {
                continue;
            }
            let below = sub.links()?;
            if wanted.is_some_and(|wanted| sub.switch(wanted).is_ok()) {
                sub.update(below, &sub.links()?)?;
                continue;
            }
            clear(&sub.path)?;
            if wanted.is_none() {
                let _ = std::fs::remove_dir(&sub.path); // an empty folder does no harm
            }
        }
        Ok(())
    }

    fn switch(&self, commit: &str) -> Result<()> {
        let git = self.git("checkout").only_reads().args(["-q", "-f", "--detach"]);
        git.id(Repository::id(commit)?).run().map(|_| ())
    }

    fn is_clean(&self) -> Result<bool> {
        self.git("status").changed_paths("normal", "none").map(|paths| paths.is_empty())
    }

    /// Commits all changes. Returns the commit if there were any.
    fn commit_all(&self, tracked: &Tracked<'_>, shown: &Path) -> Result<Option<String>> {
        if self.is_clean()? {
            return Ok(None);
        }
        self.git("add").args(["-A", "--sparse"]).run()?;
        let message = format!("agentloop: work in {}\n\n{RUN_TRAILER}: {}", shown.display(), tracked.run);
        // Only untracked files in a nested submodule make it differ with nothing to commit.
        let git = self.git("commit").args(["-q", "--no-verify", "-m", &message]);
        let output = git.identity(&tracked.repo.identity()).output()?;
        let staged = || self.git("diff-index").args(["--cached", "--quiet", "--ignore-submodules=none", "HEAD"]);
        if !output.status.success() && !staged().succeeds()? {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(command::failure("git commit", output.status, &stderr));
        }
        Ok(head(&self.git_dir).filter(|_| output.status.success()))
    }

    /// Fetches the HEAD commit of `from`.
    fn fetch_from(&self, from: &Self, commit: &str, run: &RunId) -> Result<()> {
        if Git::in_git_dir(&self.git_dir, "cat-file").arg("-e").id(Repository::id(commit)?).succeeds()? {
            return Ok(());
        }
        let git = local(Git::in_git_dir(&self.git_dir, "fetch")).args(["-q", "--no-tags", "--no-write-fetch-head"]);
        let git = git.args(["--no-auto-maintenance", "--no-recurse-submodules"]).path(&from.git_dir);
        git.arg(format!("HEAD:refs/agentloop/run/{run}/{commit}")).run().map(|_| ())
    }
}

/// Empties a submodule's folder, as before it was cloned.
fn clear(path: &Path) -> Result<()> {
    let emptied = std::fs::remove_dir_all(path).and_then(|()| std::fs::create_dir(path));
    emptied.context(format!("'{}' cannot be cleared", path.display()))
}

/// Reports whether the worktree is one of ours and has submodules. In the user's checkout, submodules are the user's.
fn is_provisioned(tracked: &Tracked<'_>) -> bool {
    tracked.path.join(".gitmodules").exists() && tracked.git_dir.join(PROVISIONED).exists()
}

/// Lists clones that lie in the user's checkout itself, where an older git made them and they were never moved
/// (git-submodule(1), absorbgitdirs).
pub(in crate::ledger::git) fn unabsorbed(repo: &Repository) -> Result<Vec<PathBuf>> {
    let Some(users) = Checkout::of_user(repo).filter(Checkout::has_modules) else { return Ok(Vec::new()) };
    let found = users.links()?;
    Ok(found.iter().map(|link| users.path.join(&link.path).join(".git")).filter(|dir| dir.is_dir()).collect())
}

/// Lets `git` read a clone on this machine. It is the user's own, while git's default guards against paths from strangers.
fn local(git: Git) -> Git {
    git.setting("protocol.file.allow", "always").env("GIT_ALLOW_PROTOCOL", "file")
}

/// Lists the submodule entries of an index, as `git ls-files` reads it.
fn links(git: Git) -> Result<Vec<Link>> {
    let entries = git.arg("--stage").records()?;
    let links = entries.iter().filter_map(|entry| {
        let rest = entry.strip_prefix(b"160000 ")?;
        let at = rest.iter().position(|byte| *byte == b'\t')?;
        let commit = std::str::from_utf8(&rest[..at]).ok()?.strip_suffix(" 0")?.to_owned();
        Some(Link { path: PathBuf::from(OsStr::from_bytes(&rest[at + 1..])), commit })
    });
    Ok(links.collect())
}

/// Returns the git directory of the repository whose files are at `path`; `None` if it has none of its own.
fn git_dir_of(path: &Path) -> Option<PathBuf> {
    let link = path.join(".git");
    let about = link.symlink_metadata().ok()?;
    let git_dir = if about.is_dir() {
        link
    } else {
        let text = std::fs::read_to_string(&link).ok()?;
        path.join(text.strip_prefix("gitdir: ")?.trim_end()).canonicalize().ok()?
    };
    git_dir.join("HEAD").exists().then_some(git_dir)
}

/// Returns the commit of a clone's HEAD.
fn head(git_dir: &Path) -> Option<String> {
    Git::in_git_dir(git_dir, "rev-parse").args(["--verify", "-q", "HEAD^{commit}"]).word().ok()
}
