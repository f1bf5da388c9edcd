//! The environment: git's local variables, which no child may inherit, and the user's state directory.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Variables that `git rev-parse --local-env-vars` prints (git 2.47; `local_repo_env` in git's environment.c), and
/// `GIT_INTERNAL_SUPER_PREFIX`, which older versions add. `git -C` and `git --git-dir` pass them to aliases and external
/// commands such as this one, and a child's `git add` would then act on the user's checkout.
const LOCAL: [&str; 16] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_OBJECT_DIRECTORY",
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_GRAFT_FILE",
    "GIT_INDEX_FILE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_REPLACE_REF_BASE",
    "GIT_PREFIX",
    "GIT_SHALLOW_FILE",
    "GIT_COMMON_DIR",
    "GIT_INTERNAL_SUPER_PREFIX",
];

/// Returns this program's folder in the user's state directory: in `XDG_STATE_HOME`, or else in `~/.local/state`. A path
/// that is not absolute is ignored (XDG Base Directory Specification).
#[must_use]
pub fn state_dir() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    state.map(|state| state.join("git-agentloop"))
}

/// Returns the paths of the user's git configuration, which may not exist (git-config(1), "FILES").
#[must_use]
pub fn global_config() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(file) = variable("GIT_CONFIG_GLOBAL") {
        return vec![file];
    }
    let home = variable("HOME");
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    [config.map(|config| config.join("git/config")), home.map(|home| home.join(".gitconfig"))]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns a mark of the clone that contains `folder`, a run's folder, for [`CLONE_VAR`](super::CLONE_VAR). The folder keeps
/// its inode when the clone is moved, and has another in a copy.
#[must_use]
pub fn clone_of(folder: &Path) -> String {
    folder.metadata().map_or_else(|_| String::new(), |about| format!("{:x}-{:x}", about.dev(), about.ino()))
}

/// Variables that hold settings and do not locate a repository.
const SETTINGS: [&str; 2] = ["GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"];

/// Returns the variables that every child starts without: git's list of repository-local ones, and the `GIT_CONFIG_KEY_<n>`
/// and `GIT_CONFIG_VALUE_<n>` that `GIT_CONFIG_COUNT` counts (git-config(1)).
#[must_use]
pub fn git_env_to_remove() -> Vec<OsString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    LOCAL.iter().map(OsString::from).chain(names.filter(|name| is_config_pair(name.as_bytes()))).collect()
}

/// Returns the variables that locate a repository. A process that continues this one's work elsewhere keeps the settings and
/// finds its own repository.
pub(super) fn git_locations() -> impl Iterator<Item = &'static str> {
    LOCAL.into_iter().filter(|name| !SETTINGS.contains(name))
}

fn is_config_pair(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"GIT_CONFIG_KEY_").or_else(|| name.strip_prefix(b"GIT_CONFIG_VALUE_"));
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_covers_what_the_installed_git_prints() {
        let output = std::process::Command::new("git").args(["rev-parse", "--local-env-vars"]).output().unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        let unknown: Vec<_> = printed.lines().filter(|name| !LOCAL.contains(name)).collect();
        assert!(!printed.is_empty() && unknown.is_empty(), "git has new local variables: {unknown:?}");
    }

    #[test]
    fn config_pairs_are_told_by_their_number() {
        assert!(is_config_pair(b"GIT_CONFIG_KEY_0") && is_config_pair(b"GIT_CONFIG_VALUE_12"));
        assert!(!is_config_pair(b"GIT_CONFIG_KEY_") && !is_config_pair(b"GIT_CONFIG_GLOBAL"));
    }
}
