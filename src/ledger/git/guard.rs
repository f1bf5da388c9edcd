//! What workers have no business with: the user's checkout, branches and configuration. Nothing keeps an agent from
//! leaving its worktree, so what changed while workers were at it is said, and settings that could harm before anybody
//! reads that are put back.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use gix::bstr::ByteSlice as _;

use super::command;
use super::mend::take_away;
use super::repository::Repository;
use crate::error::{Context as _, Result};
use crate::run::text::a_few;

/// Paths and names that a remark repeats.
const NAMED: usize = 10;
/// Settings that have git run a command that nobody typed, or work elsewhere: a section and its keys (git-config(1)). No
/// keys are all of them.
const DANGEROUS: [(&str, &[&str]); 12] = [
    ("core", &["worktree", "bare", "hookspath", "fsmonitor", "sshcommand", "gitproxy", "askpass", "editor", "pager"]),
    ("credential", &["helper"]),
    ("diff", &["external", "command", "textconv"]),
    ("extensions", &[]),
    ("filter", &["clean", "smudge", "process"]),
    ("gpg", &["program", "defaultkeycommand"]),
    ("hook", &[]),
    ("include", &[]),
    ("includeif", &[]),
    ("merge", &["driver"]),
    ("sequence", &["editor"]),
    ("trailer", &["cmd", "command"]),
];

/// The repository's settings, and those of one worktree alone (git-worktree(1), "CONFIGURATION FILE"), below its git directory.
const CONFIG: &str = "config";
const OF_A_WORKTREE: &str = "config.worktree";

/// Names, each with what tells one state of it from the next: when it was changed, and its size.
type Stamped = BTreeSet<(String, Option<(i64, u64)>)>;
type Settings = BTreeMap<String, Vec<String>>;
/// Settings by the file that holds them.
type Configured = BTreeMap<PathBuf, Settings>;
/// Files of the repository, each with what it holds; nothing where it is not there.
type Rules = BTreeMap<&'static str, Option<Vec<u8>>>;

/// What says for every worktree which files are work, and as what git takes them in: a line too many in one of them, and
/// no worker's work is seen any more (gitignore(5), gitattributes(5)).
const RULES: [&str; 2] = ["info/exclude", "info/attributes"];

/// What has git see another history, or other objects, than the repository's own (gitrepository-layout(5)). Replacements
/// are refs, and named as such.
const HISTORY: [&str; 3] = ["shallow", "info/grafts", "objects/info/alternates"];

/// What stood before workers began.
#[derive(Debug)]
pub(super) struct Guard {
    settings: Configured,
    /// Where HEAD and the branches stand, ours left out.
    refs: BTreeMap<String, String>,
    /// What differs from HEAD in the user's checkout, each with what tells one edit of it from the next.
    files: Stamped,
    hooks: Stamped,
    rules: Rules,
    history: Rules,
    mends: u32,
}

impl Guard {
    pub(super) fn look(repo: &Repository) -> Result<Self> {
        let (settings, refs, files) = (settings(repo)?, refs(repo)?, files(repo)?);
        let (rules, history) = (held(repo, RULES), held(repo, HISTORY));
        Ok(Self { settings, refs, files, hooks: hooks(repo), rules, history, mends: 0 })
    }

    /// Puts dangerous settings back where they were; what was put back, in words. Whoever changed them cannot be told from
    /// here: the person who did hears of it, and of every other setting only that.
    pub(super) fn mend_settings(&mut self, repo: &Repository) -> Result<Vec<String>> {
        let now = settings(repo)?;
        let mut mended = Vec::new();
        for file in now.keys() {
            let (known, found) = (self.known(repo, file), now.get(file));
            for name in changed(known, found).filter(|name| is_dangerous(name)) {
                let config = || {
                    let mut git = command::git(repo.home());
                    git.args(["config", "--file"]).arg(file);
                    git
                };
                if found.is_some_and(|found| found.contains_key(name)) {
                    command::run(config().args(["--unset-all", name]))?;
                }
                for value in known.and_then(|known| known.get(name)).into_iter().flatten() {
                    command::run(config().args(["--add", name, value]))?;
                }
                mended.push(in_words(name, file));
            }
        }
        let words = |names: String| {
            format!(
                "settings of the repository that have git run commands or work elsewhere were changed while workers worked, \
                 and put back (set them again if it was you): {names}"
            )
        };
        let said: Vec<String> = named(mended).map(words).into_iter().chain(self.mend_rules(repo)?).collect();
        self.mends += u32::from(!said.is_empty());
        Ok(said)
    }

    /// What stood in `file`. git gives a worktree that it makes what the main one has (git-worktree(1)).
    fn known(&self, repo: &Repository, file: &Path) -> Option<&Settings> {
        self.settings.get(file).or_else(|| self.settings.get(&repo.common_dir().join(OF_A_WORKTREE)))
    }

    /// How often something was put back.
    pub(super) fn mends(&self) -> u32 {
        self.mends
    }

    /// The same for what hides files from git.
    fn mend_rules(&self, repo: &Repository) -> Result<Option<String>> {
        let now = held(repo, RULES);
        let mut mended = Vec::new();
        for (name, held) in self.rules.iter().filter(|(name, held)| now.get(*name) != Some(held)) {
            let path = repo.common_dir().join(name);
            let put_back = || match held {
                Some(held) => {
                    take_away(&path)?;
                    std::fs::create_dir_all(path.with_file_name(""))?;
                    std::fs::write(&path, held)
                }
                None => take_away(&path),
            };
            put_back().context(format!("'{}' cannot be put back", path.display()))?;
            mended.push((*name).to_owned());
        }
        Ok(named(mended).map(|names| {
            format!(
                "what says which files git sees was changed in the repository while workers worked, and put back (change it \
                 again if it was you): {names}"
            )
        }))
    }

    /// What else has changed since, in words.
    pub(super) fn compare(&self, repo: &Repository) -> Result<Vec<String>> {
        let now = Self::look(repo)?;
        let files = self.files.symmetric_difference(&now.files).map(|(path, _)| path.clone()).collect();
        let hooks = self.hooks.symmetric_difference(&now.hooks).map(|(name, _)| name.clone()).collect();
        let refs = self.refs.keys().chain(now.refs.keys()).filter(|name| self.refs.get(*name) != now.refs.get(*name));
        // Those of a worker's own place are its own business, and go with that.
        let of_user = [CONFIG, OF_A_WORKTREE].map(|name| repo.common_dir().join(name));
        let settings = of_user
            .iter()
            .flat_map(|file| changed(self.settings.get(file), now.settings.get(file)).map(|name| in_words(name, file)));
        let history = HISTORY.into_iter().filter(|name| self.history.get(name) != now.history.get(name));
        let by = "by you, or by a worker that left its worktree";
        let found = [
            (files, "files in your checkout were changed while workers worked"),
            (hooks, "hooks of the repository were changed while workers worked"),
            (refs.cloned().collect(), "refs were moved while workers worked"),
            (settings.collect(), "settings of the repository were changed while workers worked"),
            (
                history.map(ToOwned::to_owned).collect(),
                "what git takes for the repository's history and objects was changed while workers worked",
            ),
        ];
        Ok(found
            .into_iter()
            .filter_map(|(names, what)| named(names).map(|names| format!("{what} ({by}): {names}")))
            .collect())
    }
}

/// Whether the setting `name`, as git lists it, is one of [`DANGEROUS`].
fn is_dangerous(name: &str) -> bool {
    let section = name.split('.').next().unwrap_or_default();
    let key = name.rsplit('.').next().unwrap_or_default();
    DANGEROUS.iter().any(|(known, keys)| *known == section && (keys.is_empty() || keys.contains(&key)))
}

/// The first of `names`, each once, and how many more there are; nothing where there are none.
pub(super) fn named(mut names: Vec<String>) -> Option<String> {
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| a_few(&names, NAMED))
}

/// The names whose values differ.
fn changed<'a>(before: Option<&'a Settings>, now: Option<&'a Settings>) -> impl Iterator<Item = &'a String> {
    let value = |settings: Option<&'a Settings>, name: &String| settings.and_then(|settings| settings.get(name));
    let names: BTreeSet<&String> = before.into_iter().chain(now).flat_map(BTreeMap::keys).collect();
    names.into_iter().filter(move |name| value(before, name) != value(now, name))
}

/// A setting's name, with the file that holds it where that is not the repository's own.
fn in_words(name: &str, file: &Path) -> String {
    if file.ends_with(OF_A_WORKTREE) { format!("{name} (in {OF_A_WORKTREE})") } else { name.to_owned() }
}

/// What the repository's settings are, and those of single worktrees: of the main one, and of those beside it that have any.
fn settings(repo: &Repository) -> Result<Configured> {
    let common = repo.common_dir();
    let places = std::fs::read_dir(common.join("worktrees")).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_places = places.map(|admin| admin.join(OF_A_WORKTREE)).filter(|file| file.is_file());
    let files = [common.join(CONFIG), common.join(OF_A_WORKTREE)].into_iter().chain(of_places);
    files.map(|file| settings_in(repo, &file).map(|settings| (file, settings))).collect()
}

fn settings_in(repo: &Repository, file: &Path) -> Result<Settings> {
    let mut settings = Settings::new();
    if file.ends_with(OF_A_WORKTREE) && !file.is_file() {
        return Ok(settings);
    }
    let mut git = command::git(repo.home());
    let printed = command::run(git.args(["config", "--list", "-z", "--file"]).arg(file))?;
    for entry in printed.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
        let entry = entry.to_str_lossy();
        let (name, value) = entry.split_once('\n').unwrap_or((&entry, "true"));
        settings.entry(name.to_owned()).or_default().push(value.to_owned());
    }
    Ok(settings)
}

fn refs(repo: &Repository) -> Result<BTreeMap<String, String>> {
    let mut git = command::git(repo.home());
    git.args([
        "for-each-ref",
        "--format=%(refname) %(objectname)",
        "refs/heads",
        "refs/tags",
        "refs/stash",
        "refs/replace",
    ]);
    let printed = command::run(&mut git)?;
    let text = printed.to_str_lossy();
    let others = text.lines().filter(|line| !line.starts_with("refs/heads/agentloop/"));
    let mut refs: BTreeMap<String, String> =
        others.filter_map(|line| line.split_once(' ')).map(|(name, id)| (name.to_owned(), id.to_owned())).collect();
    let head = std::fs::read_to_string(repo.git_dir().join("HEAD")).unwrap_or_default();
    refs.insert("HEAD".to_owned(), head);
    Ok(refs)
}

fn files(repo: &Repository) -> Result<Stamped> {
    let Some(work_dir) = repo.work_dir() else { return Ok(BTreeSet::new()) };
    let mut git = command::git(work_dir);
    git.env("GIT_DIR", repo.git_dir()).env("GIT_WORK_TREE", work_dir).env("GIT_OPTIONAL_LOCKS", "0");
    git.args(["status", "--porcelain", "-z", "--no-renames", "--ignore-submodules=all"]);
    let printed = command::run(&mut git)?;
    let paths = printed.split(|byte| *byte == 0).filter_map(|entry| entry.get(3..));
    Ok(paths
        .map(|path| path.to_str_lossy().into_owned())
        .map(|path| (stamp(&work_dir.join(&path)), path))
        .map(|(stamp, path)| (path, stamp))
        .collect())
}

fn held<const COUNT: usize>(repo: &Repository, names: [&'static str; COUNT]) -> Rules {
    names.into_iter().map(|name| (name, std::fs::read(repo.common_dir().join(name)).ok())).collect()
}

fn hooks(repo: &Repository) -> Stamped {
    let entries = std::fs::read_dir(repo.common_dir().join("hooks")).into_iter().flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), stamp(&entry.path()))).collect()
}

fn stamp(path: &Path) -> Option<(i64, u64)> {
    let about = path.symlink_metadata().ok()?;
    Some((about.mtime().wrapping_mul(1_000_000_000).wrapping_add(about.mtime_nsec()), about.size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_or_redirects_is_dangerous() {
        for name in
            ["core.hookspath", "core.worktree", "filter.lfs.clean", "includeif.gitdir:~/x.y/.path", "hook.a.command"]
        {
            assert!(is_dangerous(name), "{name}");
        }
        for name in
            ["core.autocrlf", "alias.st", "user.name", "remote.origin.url", "filter.lfs.required", "diff.renames"]
        {
            assert!(!is_dangerous(name), "{name}");
        }
    }
}
