//! An opened repository: its paths, its configuration, and the checks whether a run can work in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gix::bstr::ByteSlice as _;
use gix::{ObjectId, ThreadSafeRepository};

use super::command::Git;
use super::identity::Identity;
use crate::error::{Context as _, Error, Result};
use crate::host::store::{Bases, Store};
use crate::run::goal::RunId;

/// The oldest supported git (Debian 12's).
const OLDEST_GIT: (u32, u32) = (2, 39);

/// A repository on this machine.
#[derive(Clone)]
pub struct Repository {
    shared: ThreadSafeRepository,
    git_dir: PathBuf,
    common_dir: PathBuf,
    work_dir: Option<PathBuf>,
    /// Set once the repository has passed [`Repository::check_for_runs`].
    checked: Arc<OnceLock<()>>,
    /// The clone's private store, once it was found.
    store: Arc<Mutex<Option<Arc<Store>>>>,
}

impl Repository {
    pub(super) fn new(
        shared: ThreadSafeRepository,
        git_dir: PathBuf,
        common_dir: PathBuf,
        work_dir: Option<PathBuf>,
    ) -> Self {
        Self { shared, git_dir, common_dir, work_dir, checked: Arc::default(), store: Arc::default() }
    }

    /// Returns a handle for the calling thread.
    #[must_use]
    pub fn gix(&self) -> gix::Repository {
        self.shared.to_thread_local()
    }

    /// Returns the git directory of the user's checkout, whatever `GIT_DIR` says: git resolves that relative to where it
    /// runs.
    #[must_use]
    pub fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// Returns the directory that all worktrees share.
    #[must_use]
    pub fn common_dir(&self) -> &Path {
        &self.common_dir
    }

    /// Returns the user's checkout, if there is one.
    #[must_use]
    pub fn work_dir(&self) -> Option<&Path> {
        self.work_dir.as_deref()
    }

    /// Builds a git command in this repository, on the user's checkout if there is one.
    pub(super) fn git(&self, verb: &'static str) -> Git {
        Git::of(self.git_dir(), self.home(), self.work_dir(), verb)
    }

    /// Builds a git command that reaches a remote with the user's credentials and prompts.
    pub(super) fn git_to_remote(&self, verb: &'static str) -> Git {
        Git::with_credentials(self.git_dir(), self.home(), verb)
    }

    /// Returns the private store of this clone; `None` if it has none, or none that can be trusted.
    #[must_use]
    pub fn store(&self) -> Option<Arc<Store>> {
        let mut known = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            *known = Store::find(&self.common_dir, &Bases::of_process()).map(Arc::new);
        }
        known.clone()
    }

    /// Returns the private store of this clone, and makes it if there is none.
    pub fn ensure_store(&self) -> Result<Arc<Store>> {
        if let Some(store) = self.store() {
            return Ok(store);
        }
        let made = Arc::new(Store::ensure(&self.common_dir, &Bases::of_process())?);
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Removes the private store's data on `run`: its log then counts as one from elsewhere.
    pub(super) fn forget(&self, run: &RunId) -> Result<()> {
        self.store().map_or(Ok(()), |store| store.run(run).remove())
    }

    /// Returns a directory of this repository to start programs in.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.work_dir().unwrap_or(&self.common_dir)
    }

    /// Returns all values of `key` in git's configuration, the one that counts last.
    #[must_use]
    pub fn config(&self, key: &str) -> Vec<String> {
        let gix = self.gix();
        let snapshot = gix.config_snapshot();
        let file = snapshot.plumbing();
        let values = file.strings(key).unwrap_or_default();
        let mut values: Vec<String> = values.iter().map(|value| value.to_str_lossy().into_owned()).collect();
        let (section, rest) = key.split_once('.').unwrap_or((key, ""));
        let (below, name) = rest.rsplit_once('.').map_or((None, rest), |(below, name)| (Some(below), name));
        let sections = file.sections_by_name(section).into_iter().flatten();
        let own = sections.filter(|section| section.header().subsection_name() == below.map(Into::into));
        // A name without a value is true (git-config(1), "Syntax").
        if own.filter_map(|section| section.value_implicit(name)).last() == Some(None) {
            values.push("true".to_owned());
        }
        values
    }

    /// Lists the names between `prefix` and the last dot of configured keys: `agentloop.backend.` gives the backends.
    #[must_use]
    pub fn config_names(&self, prefix: &str) -> Vec<String> {
        let Some((section, rest)) = prefix.split_once('.') else { return Vec::new() };
        let gix = self.gix();
        let snapshot = gix.config_snapshot();
        let sections = snapshot.plumbing().sections_by_name(section).into_iter().flatten();
        let mut names: Vec<String> = sections
            .filter_map(|section| {
                section.header().subsection_name()?.to_str().ok()?.strip_prefix(rest).map(ToOwned::to_owned)
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Lists the keys in `[section]` itself, in lower case since git ignores the case of keys.
    #[must_use]
    pub fn config_keys(&self, section: &str) -> BTreeSet<String> {
        let gix = self.gix();
        let snapshot = gix.config_snapshot();
        let sections = snapshot.plumbing().sections_by_name(section).into_iter().flatten();
        let own = sections.filter(|section| section.header().subsection_name().is_none());
        own.flat_map(|section| section.value_names().collect::<Vec<_>>())
            .map(|name| name.to_ascii_lowercase())
            .collect()
    }

    /// Returns the user's name and mail address as git knows them.
    #[must_use]
    pub fn identity(&self) -> Identity {
        Identity::of(&self.gix())
    }

    /// Checks that the repository has all that a run needs.
    ///
    /// # Errors
    /// Fails with a hint if a run cannot work here.
    pub fn check_for_runs(&self) -> Result<()> {
        if self.checked.get().is_some() {
            return Ok(());
        }
        let version = Self::git_says_version()?;
        if git_version(&version).is_none_or(|found| found < OLDEST_GIT) {
            let (major, minor) = OLDEST_GIT;
            return Err(Error::usage(format!("'{version}' is too old: {major}.{minor} or newer is needed"))
                .hint(format!("install git {major}.{minor} or newer, and see that it comes first on PATH")));
        }
        if let Some(work_dir) = self.work_dir().filter(|dir| dir.join(".git").symlink_metadata().is_err()) {
            let link = [format!("gitdir: {}", self.git_dir.display()), work_dir.join(".git").display().to_string()];
            let [text, file] = link.each_ref().map(|word| shell_words::quote(word));
            return Err(Error::usage(format!("the checkout '{}' does not lead to its repository", work_dir.display()))
                .because("git finds that by --git-dir, --work-tree and their like alone, and a run needs more of it")
                .hint(format!("let it: echo {text} > {file}")));
        }
        let gix = self.gix();
        for (name, wanted) in
            [("refs/notes/agentloop", "refs/notes/agentloop/<run>"), ("refs/heads/agentloop", "agentloop/<run>")]
        {
            if gix.try_find_reference(name).context("a ref cannot be read")?.is_some() {
                // git itself renames a branch: HEAD and its settings follow.
                let rename = match name.strip_prefix("refs/heads/") {
                    Some(branch) => format!("git branch -m {branch} {branch}-old"),
                    None => format!("git update-ref {name}-old {name} && git update-ref -d {name}"),
                };
                return Err(Error::usage(format!("'{name}' stands in the way of '{wanted}'"))
                    .hint(format!("rename it: {rename}")));
            }
        }
        let _ = self.checked.set(()); // another thread may have set it
        Ok(())
    }

    fn git_says_version() -> Result<String> {
        Git::anywhere("--version").word()
    }

    /// Returns the version of the git on PATH; `None` if it cannot be parsed.
    ///
    /// # Errors
    /// Fails if git is not installed.
    pub fn git_version() -> Result<Option<(u32, u32)>> {
        Self::git_says_version().map(|text| git_version(&text))
    }

    /// Returns the commit that `revision`, or HEAD, names.
    ///
    /// # Errors
    /// Fails if it names no commit.
    pub fn resolve_base(&self, revision: Option<&str>) -> Result<String> {
        let gix = self.gix();
        if revision.is_none() && gix.head().context("HEAD cannot be read")?.is_unborn() {
            return Err(
                Error::usage("this repository has no commit yet").hint("make one: git commit --allow-empty -m 'first'")
            );
        }
        let revision = revision.unwrap_or("HEAD");
        let unknown = || {
            Error::usage(format!("'{revision}' is no commit of this repository"))
                .hint("'git log --all --oneline' shows what there is; --base takes any of git's names for a commit")
        };
        // The error's own causes repeat it in words of gix.
        let words = |error: &dyn std::error::Error| error.to_string();
        let id = gix.rev_parse_single(revision).map_err(|error| unknown().because(words(&error)))?;
        let object = id.object().map_err(|error| unknown().because(words(&error)))?;
        let commit =
            object.peel_to_kind(gix::object::Kind::Commit).map_err(|error| unknown().because(words(&error)))?;
        Ok(commit.id.to_string())
    }

    /// Reports whether the user's checkout has uncommitted changes.
    pub fn has_uncommitted_changes(&self) -> Result<bool> {
        if self.work_dir().is_none() {
            return Ok(false);
        }
        Ok(!self.git("status").changed_paths("normal", "all")?.is_empty())
    }

    /// Checks that git accepts these pathspecs.
    ///
    /// # Errors
    /// Fails with git's message on the first one that git refuses, which is named as `shown` writes it.
    pub fn check_paths(&self, pathspecs: &[String], shown: impl Fn(&str) -> String) -> Result<()> {
        for pathspec in pathspecs {
            let git = self.git("diff-tree").args(["--quiet", "HEAD", "HEAD"]).path(pathspec);
            git.run().map_err(|error| {
                Error::usage(format!("'{}' is no pathspec", shown(pathspec)))
                    .because(error)
                    .hint("name files as for 'git add': tests, '*.lock', ':(glob)ci/**/*.yml'")
            })?;
        }
        Ok(())
    }

    /// Parses `hex` as an object id.
    pub(super) fn id(hex: &str) -> Result<ObjectId> {
        ObjectId::from_hex(hex.as_bytes()).context(format!("'{hex}' is no object id"))
    }
}

/// Parses `git version 2.47.3` as (2, 47).
fn git_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
