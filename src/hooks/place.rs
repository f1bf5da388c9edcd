//! Installation of hooks: in git's configuration if git reads them there, else in a free file of the repository's hooks
//! folder.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::beside::{self, Owner};
use super::config;
use super::shim::{SHIMS, is_own_shim};
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::Repository;

/// First git that reads hooks from its configuration (git-hook(1)), beside those of any hooks folder.
const CONFIGURED_SINCE: (u32, u32) = (2, 54);
/// File that marks that this program created the hooks folder.
const MADE_FOLDER: &str = "hooks-folder-made";

/// Extension of a hook's file that is not complete yet.
const STAGED: &str = "agentloop-new";

/// The repositories that hooks are installed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// This repository.
    Repository,
    /// Every repository of the user.
    Global,
}

/// A hook and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// The event: `pre-push`.
    pub event: &'static str,
    /// State of the hook.
    #[serde(flatten)]
    pub standing: Standing,
}

/// The state of a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Standing {
    /// It is installed.
    Installed {
        /// File that contains it.
        path: PathBuf,
    },
    /// It is not installed.
    Missing {
        /// File that it would be installed in.
        path: PathBuf,
    },
    /// Another hook is in its place.
    Blocked {
        /// File in which its owner has to add the call.
        path: PathBuf,
        /// Owner of the file, as far as is known.
        by: String,
        /// Line to start that file with; for a file that is not a shell script, lines to add.
        add: String,
    },
}

/// Returns the state of each hook in `repo`.
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
                // Other hooks do not conflict with the configuration.
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
        |path: PathBuf, by: &str| Standing::Blocked { path, by: by.to_owned(), add: beside::shell_snippet(event) };
    if let Some((folder, by)) = &folder.foreign {
        let path = folder.join(event);
        return if beside::calls_this_program(&path, event) { Standing::Installed { path } } else { blocked(path, by) };
    }
    let path = folder.path.join(event);
    if beside::calls_this_program(&path, event) {
        return Standing::Installed { path };
    }
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(_) if path.symlink_metadata().is_ok() => return blocked(path, "something that cannot be read"),
        Err(_) => return Standing::Missing { path },
    };
    let owner = Owner::of(&String::from_utf8_lossy(&text));
    match (owner, beside::pre_commit_legacy_file(&path, event)) {
        (Owner::PreCommit, Some(path)) if beside::calls_this_program(&path, event) => Standing::Installed { path },
        (Owner::PreCommit, Some(path)) if path.symlink_metadata().is_err() => Standing::Missing { path },
        (Owner::PreCommit, Some(path)) => blocked(path, "you"),
        (Owner::Lefthook, _) => match beside::lefthook(repo.home(), event) {
            (path, true) => Standing::Installed { path },
            (path, false) => {
                Standing::Blocked { path, by: owner.name().to_owned(), add: beside::lefthook_snippet(event) }
            }
        },
        _ => blocked(path, owner.name()),
    }
}

/// Installs the hooks that no other hook blocks.
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
        // Hooks that were installed for an older git are removed: each hook must run once.
        remove_files(repo)?;
        config::add_hooks(&config_file(repo, scope)?)?;
        return status(repo);
    }
    for (hook, (_, shim)) in before.iter().zip(SHIMS) {
        if let Standing::Missing { path } = &hook.standing {
            install_file(repo, path, shim)?;
        }
    }
    status(repo)
}

/// Removes the hooks wherever they were installed, and returns the changed or removed files.
pub fn uninstall(repo: &Repository, scope: Scope) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    let file = config_file(repo, scope)?;
    if config::remove_hooks(&file)? {
        removed.push(file);
    }
    if scope == Scope::Repository {
        removed.extend(remove_files(repo)?);
    }
    Ok(removed)
}

fn install_file(repo: &Repository, path: &Path, shim: &str) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let failed = format!("'{}' cannot be written", path.display());
    if !folder.exists() {
        let mark = repo.common_dir().join("agentloop").join(MADE_FOLDER);
        let made = std::fs::create_dir_all(repo.common_dir().join("agentloop"));
        made.and_then(|()| std::fs::write(mark, ""))
            .and_then(|()| std::fs::create_dir_all(folder))
            .context(failed.as_str())?;
    }
    // The file is complete and executable before it gets its name, and never replaces one that was created meanwhile.
    let staged = path.with_extension(STAGED);
    let written = std::fs::write(&staged, shim)
        .and_then(|()| std::fs::set_permissions(&staged, std::fs::Permissions::from_mode(0o755)))
        .and_then(|()| std::fs::hard_link(&staged, path));
    let _ = std::fs::remove_file(&staged);
    written.context(failed)
}

fn remove_files(repo: &Repository) -> Result<Vec<PathBuf>> {
    let folder = repo.common_dir().join("hooks");
    let mut removed = Vec::new();
    for (event, _) in SHIMS {
        // A killed installation may have left this file.
        let _ = std::fs::remove_file(folder.join(event).with_extension(STAGED));
        for path in beside::candidate_files(&folder.join(event)) {
            if std::fs::read_to_string(&path).is_ok_and(|text| is_own_shim(&text)) {
                std::fs::remove_file(&path).context(format!("'{}' cannot be removed", path.display()))?;
                removed.push(path);
            }
        }
    }
    let ours = repo.common_dir().join("agentloop");
    if ours.join(MADE_FOLDER).exists() {
        // Another hook may have been added to the folder by now, and files of runs beside the mark: only empty folders are
        // removed. The mark is removed after the hooks folder, so that the folder is also removed if this process is killed
        // in between.
        let _ = std::fs::remove_dir(&folder);
        let _ = std::fs::remove_file(ours.join(MADE_FOLDER));
        let _ = std::fs::remove_dir(&ours);
    }
    Ok(removed)
}

/// The folder in which git looks for hooks.
struct Folder {
    path: PathBuf,
    /// Folder for hooks and its owner, if core.hooksPath is set: this program does not add files to it.
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
    // husky points git to a folder that it generates, whose hooks call those in the parent folder.
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

/// Returns the file that `git config` writes to.
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
