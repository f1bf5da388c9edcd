//! What there is to see of a repository that is none of an agent's business: by its files and refs as they are, since a
//! process of git's costs more than all of that; git is asked of the user's checkout alone.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use gix::bstr::ByteSlice as _;
use serde::{Deserialize, Serialize};

use super::files::Found;
use super::settings::list;
use crate::error::{Context as _, Result};
use crate::ledger::git::command::Git;
use crate::ledger::git::repository::Repository;
use crate::run::goal::Isolation;

/// The repository's settings, and those of one worktree alone (git-worktree(1), "CONFIGURATION FILE"), below its git directory.
pub(super) const CONFIG: &str = "config";
pub(super) const OF_A_WORKTREE: &str = "config.worktree";

/// Files that include files that include files.
const INCLUDES: usize = 5;

/// What says for every worktree which files are work, and as what git takes them in: a line too many in one of them, and
/// no worker's work is seen any more (gitignore(5), gitattributes(5)).
const RULES: [&str; 2] = ["info/exclude", "info/attributes"];

/// What has git see another history, or other objects, than the repository's own (gitrepository-layout(5)). Replacements
/// are refs, and named as such.
const HISTORY: [&str; 4] = ["shallow", "info/grafts", "info/sparse-checkout", "objects/info/alternates"];

/// Where refs of the user's are, and those that have git see other objects.
const REFS: [&str; 3] = ["refs/heads/", "refs/tags/", "refs/replace/"];
const STASH: &str = "refs/stash";
const OURS: &str = "refs/heads/agentloop/";

/// Names, each with what tells one state of it from the next: when it was changed, and its size.
pub(super) type Stamped = BTreeSet<(String, Option<(i64, u64)>)>;
/// Files of the repository by their names below its git directory, each as it was found.
pub(super) type Held = BTreeMap<String, Found>;

/// What could harm before anybody reads of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Harmful {
    /// The files that hold settings.
    pub(super) settings: Held,
    pub(super) rules: Held,
}

impl Harmful {
    pub(super) fn take(repo: &Repository) -> Result<Self> {
        Ok(Self { settings: settings(repo)?, rules: held(repo, RULES) })
    }
}

/// What stands at one moment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sight {
    pub(super) harmful: Harmful,
    pub(super) history: Held,
    pub(super) hooks: Stamped,
    /// Where HEAD, the branches and the like stand, ours left out.
    pub(super) refs: BTreeMap<String, String>,
    /// What differs from HEAD in the user's checkout. None of it where that is the place of work.
    pub(super) files: Stamped,
}

impl Sight {
    pub(super) fn take(repo: &Repository, isolation: Isolation) -> Result<Self> {
        Ok(Self {
            harmful: Harmful::take(repo)?,
            history: held(repo, HISTORY),
            hooks: hooks(repo),
            refs: refs(repo)?,
            files: if isolation == Isolation::None { Stamped::new() } else { files(repo)? },
        })
    }
}

/// The files that hold the repository's settings, and those of single worktrees: of the main one, and of those beside it
/// that have any; and the files in the git directory that they include.
fn settings(repo: &Repository) -> Result<Held> {
    let entries = std::fs::read_dir(repo.common_dir().join("worktrees")).into_iter().flatten().flatten();
    let of_places = entries
        .filter(|entry| entry.path().join(OF_A_WORKTREE).symlink_metadata().is_ok())
        .filter_map(|entry| Some(format!("worktrees/{}/{OF_A_WORKTREE}", entry.file_name().to_str()?)));
    let mut found = held(repo, [CONFIG, OF_A_WORKTREE].map(ToOwned::to_owned).into_iter().chain(of_places));
    let mut read: Vec<String> = found.keys().cloned().collect();
    for _ in 0..INCLUDES {
        let mut more = Vec::new();
        for name in read {
            more.extend(included(repo, &name, found.get(&name).and_then(Found::content))?);
        }
        more.retain(|name| !found.contains_key(name));
        found.extend(held(repo, more.clone()));
        read = more;
    }
    Ok(found)
}

/// The files in the git directory that the settings file `name` includes.
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
    // One that leads out of it and back is another name of a file that git takes it for.
    Ok(below.filter(|name| !name.is_empty() && !name.split('/').any(|part| part == "..")).collect())
}

pub(super) fn held(repo: &Repository, names: impl IntoIterator<Item = impl Into<String>>) -> Held {
    let names = names.into_iter().map(Into::into);
    names.map(|name: String| (name.clone(), Found::at(&repo.common_dir().join(name)))).collect()
}

fn refs(repo: &Repository) -> Result<BTreeMap<String, String>> {
    let gix = repo.gix();
    let platform = gix.references().context("refs cannot be read")?;
    let mut refs = BTreeMap::new();
    let mut see = |reference: gix::Reference<'_>| {
        let name = reference.name().as_bstr().to_str_lossy().into_owned();
        if !name.starts_with(OURS) {
            refs.insert(name, reference.target().into_owned().to_string());
        }
    };
    for prefix in REFS {
        // One that cannot be read names nothing.
        let below = platform.prefixed(prefix).context("refs cannot be read")?;
        below.filter_map(std::result::Result::ok).for_each(&mut see);
    }
    if let Ok(Some(stash)) = gix.try_find_reference(STASH) {
        see(stash);
    }
    let head = Found::at(&repo.git_dir().join("HEAD"));
    refs.insert("HEAD".to_owned(), head.content().unwrap_or_default().to_str_lossy().into_owned());
    Ok(refs)
}

fn files(repo: &Repository) -> Result<Stamped> {
    let Some(work_dir) = repo.work_dir() else { return Ok(Stamped::new()) };
    let paths = Git::of(repo, "status").changed_paths("normal", "all")?;
    Ok(paths
        .iter()
        .map(|path| path.to_str_lossy().into_owned())
        .map(|path| (stamp(&work_dir.join(&path)), path))
        .map(|(stamp, path)| (path, stamp))
        .collect())
}

fn hooks(repo: &Repository) -> Stamped {
    let entries = std::fs::read_dir(repo.common_dir().join("hooks")).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), stamp(&entry.path()))).collect()
}

fn stamp(path: &Path) -> Option<(i64, u64)> {
    let about = path.symlink_metadata().ok()?;
    Some((about.mtime().wrapping_mul(1_000_000_000).wrapping_add(about.mtime_nsec()), about.size()))
}
