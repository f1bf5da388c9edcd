//! Where hooks go: git's configuration where git reads them there, else a free slot of the repository's hooks folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::beside::{self, Owner};
use super::config;
use super::shim::{SHIMS, is_ours};
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::Repository;

/// The first git that takes hooks from its configuration (git-hook(1)), beside those of any hooks folder.
const CONFIGURED_SINCE: (u32, u32) = (2, 54);
/// Written where the hooks folder was not there before.
const MADE_FOLDER: &str = "hooks-folder-made";

/// How the name ends of a hook's file that is not whole yet.
const STAGED: &str = "agentloop-new";

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This repository.
    Repository,
    /// Every repository of the user's.
    Global,
}

/// A hook, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// The event: `pre-push`.
    pub event: &'static str,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
}

/// How a hook stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// It is in place.
    Installed {
        /// The file that holds it.
        path: PathBuf,
    },
    /// It is not in place.
    Missing {
        /// The file that it goes into.
        path: PathBuf,
    },
    /// Something that is not ours stands in its place.
    Blocked {
        /// The file that calls it, once its owner has it so.
        path: PathBuf,
        /// Whose that is, as far as can be told.
        by: String,
        /// What to begin that file with; to add to it, where it is no shell's.
        add: String,
    },
}

/// How each hook stands in `repo`.
pub fn status(repo: &Repository) -> Result<Vec<Hook>> {
    let own = config_file(repo, Scope::Repository)?;
    let reads = reads_configured().unwrap_or(false);
    let files = [own.clone(), config_file(repo, Scope::Global)?];
    let configured = files.into_iter().find(|path| config::holds_hooks(path)).filter(|_| reads);
    let folder = folder(repo);
    let hooks = SHIMS.iter().map(|(event, _)| {
        let standing = match &configured {
            Some(path) => Standing::Installed { path: path.clone() },
            None => match in_folder(repo, &folder, event) {
                // Nobody's hook is in the way of the configuration.
                Standing::Missing { .. } | Standing::Blocked { .. } if reads => Standing::Missing { path: own.clone() },
                standing => standing,
            },
        };
        Hook { event, standing }
    });
    Ok(hooks.collect())
}

fn in_folder(repo: &Repository, folder: &Folder, event: &str) -> Standing {
    let blocked =
        |path: PathBuf, by: &str| Standing::Blocked { path, by: by.to_owned(), add: beside::for_shell(event) };
    if let Some((folder, by)) = &folder.foreign {
        let path = folder.join(event);
        return if beside::calls_us(&path, event) { Standing::Installed { path } } else { blocked(path, by) };
    }
    let path = folder.path.join(event);
    if beside::calls_us(&path, event) {
        return Standing::Installed { path };
    }
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(_) if path.symlink_metadata().is_ok() => return blocked(path, "something that cannot be read"),
        Err(_) => return Standing::Missing { path },
    };
    let owner = Owner::of(&String::from_utf8_lossy(&text));
    match (owner, beside::left_by_pre_commit(&path, event)) {
        (Owner::PreCommit, Some(path)) if beside::calls_us(&path, event) => Standing::Installed { path },
        (Owner::PreCommit, Some(path)) if path.symlink_metadata().is_err() => Standing::Missing { path },
        (Owner::PreCommit, Some(path)) => blocked(path, "you"),
        (Owner::Lefthook, _) => match beside::lefthook(repo.home(), event) {
            (path, true) => Standing::Installed { path },
            (path, false) => Standing::Blocked { path, by: owner.name().to_owned(), add: beside::for_lefthook(event) },
        },
        _ => blocked(path, owner.name()),
    }
}

/// Puts the hooks in place, where nothing of anybody's stands.
pub fn install(repo: &Repository, scope: Scope) -> Result<Vec<Hook>> {
    let configured = reads_configured()?;
    if scope == Scope::Global && !configured {
        let (major, minor) = CONFIGURED_SINCE;
        return Err(Error::usage(format!("before git {major}.{minor}, hooks for every repository go by core.hooksPath, which turns each repository's own off"))
            .hint("leave out --global, and do it in each repository"));
    }
    let before = status(repo)?;
    if before.iter().all(|hook| matches!(hook.standing, Standing::Installed { .. })) {
        return Ok(before);
    }
    if configured {
        // What an older git was given goes: each hook is to run once.
        take_files(repo)?;
        config::put(&config_file(repo, scope)?)?;
        return status(repo);
    }
    for (hook, (_, shim)) in before.iter().zip(SHIMS) {
        if let Standing::Missing { path } = &hook.standing {
            put_file(repo, path, shim)?;
        }
    }
    status(repo)
}

/// Takes the hooks away, wherever they were put; those that went.
pub fn uninstall(repo: &Repository, scope: Scope) -> Result<Vec<PathBuf>> {
    let mut gone = Vec::new();
    let file = config_file(repo, scope)?;
    if config::take(&file)? {
        gone.push(file);
    }
    if scope == Scope::Repository {
        gone.extend(take_files(repo)?);
    }
    Ok(gone)
}

fn put_file(repo: &Repository, path: &Path, shim: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let failed = format!("'{}' cannot be written", path.display());
    if !folder.exists() {
        let mark = repo.common_dir().join("agentloop").join(MADE_FOLDER);
        let made = std::fs::create_dir_all(repo.common_dir().join("agentloop"));
        made.and_then(|()| std::fs::write(mark, ""))
            .and_then(|()| std::fs::create_dir_all(folder))
            .context(failed.as_str())?;
    }
    // Whole and executable before it has its name, and never over a file that came meanwhile.
    let staged = path.with_extension(STAGED);
    let written = std::fs::write(&staged, shim)
        .and_then(|()| std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::hard_link(&staged, path));
    let _ = std::fs::remove_file(&staged);
    written.context(failed)
}

fn take_files(repo: &Repository) -> Result<Vec<PathBuf>> {
    let folder = repo.common_dir().join("hooks");
    let mut gone = Vec::new();
    for (event, _) in SHIMS {
        // What an installation leaves that is killed.
        let _ = std::fs::remove_file(folder.join(event).with_extension(STAGED));
        for path in beside::places(&folder.join(event)) {
            if std::fs::read_to_string(&path).is_ok_and(|text| is_ours(&text)) {
                std::fs::remove_file(&path).context(format!("'{}' cannot be removed", path.display()))?;
                gone.push(path);
            }
        }
    }
    let ours = repo.common_dir().join("agentloop");
    if ours.join(MADE_FOLDER).exists() {
        // Somebody's hook may have come to ours by now; and runs may have come to the mark. The mark is the last to go: it
        // has the folder go also where this is killed in between.
        let _ = std::fs::remove_dir(&folder);
        let _ = std::fs::remove_file(ours.join(MADE_FOLDER));
        let _ = std::fs::remove_dir(&ours);
    }
    Ok(gone)
}

/// Where git looks for hooks.
struct Folder {
    path: PathBuf,
    /// Where a hook belongs, where somebody chose the folder, and who: what is in it is then not ours to add to.
    foreign: Option<(PathBuf, &'static str)>,
}

fn folder(repo: &Repository) -> Folder {
    let usual = repo.common_dir().join("hooks");
    let Some(path) = repo.config("core.hooksPath").pop().filter(|path| !path.is_empty()) else {
        return Folder { path: usual, foreign: None };
    };
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let below_home = path.strip_prefix("~/").and_then(|rest| Some(home?.join(rest)));
    let path = below_home.unwrap_or_else(|| repo.home().join(&path));
    // husky points git to a folder of its own making, whose hooks call those in the folder above.
    let foreign = match path.parent().filter(|_| path.ends_with(".husky/_")) {
        Some(parent) => Some((parent.to_owned(), "husky")),
        None if path == usual => None,
        None => Some((path.clone(), "whoever set core.hooksPath")),
    };
    Folder { path, foreign }
}

fn reads_configured() -> Result<bool> {
    Ok(Repository::git_version()?.is_some_and(|version| version >= CONFIGURED_SINCE))
}

/// The file that `git config` writes to.
fn config_file(repo: &Repository, scope: Scope) -> Result<PathBuf> {
    if scope == Scope::Repository {
        return Ok(repo.common_dir().join("config"));
    }
    if let Some(path) = std::env::var_os("GIT_CONFIG_GLOBAL") {
        return Ok(PathBuf::from(path));
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).ok_or_else(|| {
        Error::usage("there is no HOME, so there is no configuration of yours").hint("set HOME, or leave out --global")
    })?;
    let own = home.join(".gitconfig");
    let xdg = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty());
    let xdg = xdg.map_or_else(|| home.join(".config"), PathBuf::from).join("git/config");
    Ok(if !own.exists() && xdg.exists() { xdg } else { own })
}
