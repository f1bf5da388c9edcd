//! Observes all of a repository that agents must not change, from its files and refs, since a single git process costs more
//! than that. Only the user's checkout is compared by git.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use gix::bstr::ByteSlice as _;
use serde::{Deserialize, Serialize};

use super::checkout::{self, Files};
use super::files::Found;
use super::refs::Refs;
use super::settings::{CONFIG, OF_A_WORKTREE, list};
use crate::error::Result;
use crate::ledger::git::repository::Repository;
use crate::process::global_config;
use crate::run::goal::{Isolation, RunId};

/// Depth to which included files are followed.
pub(super) const INCLUDES: usize = 5;

/// Files that decide for all worktrees which files are work and how git converts them: one more line can hide a worker's
/// work (gitignore(5), gitattributes(5)).
const RULES: [&str; 2] = ["info/exclude", "info/attributes"];

/// Files that make git see another history or other objects than the repository's own (gitrepository-layout(5)).
/// Replacements are refs, and reported as such.
const HISTORY: [&str; 4] = ["shallow", "info/grafts", "info/sparse-checkout", "objects/info/alternates"];

/// Locks of files that all worktrees share, and of those of the user's checkout.
const LOCKS: [&str; 3] = ["config.lock", "packed-refs.lock", "shallow.lock"];
const LOCKS_OF_CHECKOUT: [&str; 2] = ["HEAD.lock", "index.lock"];
/// Longer than a running git holds a lock.
const A_MOMENT: Duration = Duration::from_secs(2);

/// Files of the repository as they were found, by their names below its git directory.
pub(super) type FoundFiles = BTreeMap<String, Found>;

/// Files whose change could do harm before it is reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Harmful {
    /// Files with settings.
    pub(super) settings: FoundFiles,
    pub(super) rules: FoundFiles,
}

impl Harmful {
    pub(super) fn take(repo: &Repository) -> Result<Self> {
        Ok(Self { settings: settings(repo)?, rules: read_files(repo, RULES) })
    }
}

/// The repository and the user's checkout at one moment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Observation {
    pub(super) harmful: Harmful,
    pub(super) history: FoundFiles,
    pub(super) hooks: Files,
    pub(super) refs: Refs,
    /// Differences from HEAD in the user's checkout; empty if the run works there.
    pub(super) files: Files,
    /// The user's own configuration files, by path.
    pub(super) global: FoundFiles,
    pub(super) locks: BTreeSet<String>,
}

impl Observation {
    /// Observes the repository. Files whose stat data is as `before` are not read again.
    pub(super) fn take(repo: &Repository, run: &RunId, isolation: Isolation, before: Option<&Self>) -> Result<Self> {
        let is_watched = isolation != Isolation::None;
        Ok(Self {
            harmful: Harmful::take(repo)?,
            history: read_files(repo, HISTORY),
            hooks: checkout::hooks(repo, before.map(|before| &before.hooks)),
            refs: Refs::take(repo, run)?,
            files: if is_watched { checkout::files(repo, before.map(|before| &before.files))? } else { Files::new() },
            global: global_config().into_iter().map(|path| (path.display().to_string(), Found::at(&path))).collect(),
            locks: locks(repo),
        })
    }
}

/// Lists old locks of files that the user's git needs. The lock of a running git disappears in a moment.
fn locks(repo: &Repository) -> BTreeSet<String> {
    let is_old = |path: &Path| {
        let about = path.symlink_metadata().and_then(|about| about.modified());
        about.is_ok_and(|changed| changed.elapsed().is_ok_and(|age| age > A_MOMENT))
    };
    let of_common = LOCKS.iter().map(|name| (repo.common_dir().join(name), *name));
    let of_checkout = LOCKS_OF_CHECKOUT.iter().map(|name| (repo.git_dir().join(name), *name));
    of_common.chain(of_checkout).filter(|(path, _)| is_old(path)).map(|(_, name)| name.to_owned()).collect()
}

/// Reads the files with settings: the repository's, those of single worktrees that have any, and files in the git directory
/// that they include.
fn settings(repo: &Repository) -> Result<FoundFiles> {
    let entries = std::fs::read_dir(repo.common_dir().join("worktrees")).into_iter().flatten().flatten();
    let of_places = entries
        .filter(|entry| entry.path().join(OF_A_WORKTREE).symlink_metadata().is_ok())
        .filter_map(|entry| Some(format!("worktrees/{}/{OF_A_WORKTREE}", entry.file_name().to_str()?)));
    let mut found = read_files(repo, [CONFIG, OF_A_WORKTREE].map(ToOwned::to_owned).into_iter().chain(of_places));
    let mut read: Vec<String> = found.keys().cloned().collect();
    for _ in 0..INCLUDES {
        let mut more = Vec::new();
        for name in read {
            more.extend(included(repo, &name, found.get(&name).and_then(Found::content))?);
        }
        more.retain(|name| !found.contains_key(name));
        found.extend(read_files(repo, more.clone()));
        read = more;
    }
    Ok(found)
}

/// Lists the files in the git directory that the settings file `name` includes.
fn included(repo: &Repository, name: &str, content: Option<&[u8]>) -> Result<Vec<String>> {
    let Some(content) = content.filter(|content| content.to_ascii_lowercase().contains_str("[include")) else {
        return Ok(Vec::new());
    };
    let folder = repo.common_dir().join(name).with_file_name("");
    let settings = list(Some(content))?.unwrap_or_default();
    let is_include = |name: &str| name.starts_with("include") && name.rsplit('.').next() == Some("path");
    let paths = settings.into_iter().filter(|(name, _)| is_include(name)).flat_map(|(_, paths)| paths);
    let below = paths.filter_map(|path| {
        let path = folder.join(path.to_path().ok()?);
        Some(path.strip_prefix(repo.common_dir()).ok()?.to_str()?.to_owned())
    });
    // A path that leads out of the folder and back is another name of a file that is read already.
    Ok(below.filter(|name| !name.is_empty() && !name.split('/').any(|part| part == "..")).collect())
}

pub(super) fn read_files(repo: &Repository, names: impl IntoIterator<Item = impl Into<String>>) -> FoundFiles {
    let names = names.into_iter().map(Into::into);
    names.map(|name: String| (name.clone(), Found::at(&repo.common_dir().join(name)))).collect()
}
