//! A run's record in memory: for tests, and for programs that drive a run without a repository.

mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use self::workers::{OpenPlace, WorkersCommit};
use super::{Adopted, Batch, Committed, Draft, Found, Ledger, Outfit, Provision, Tree, Wanted, Workspace};
use crate::error::{Context as _, Error, Result};
use crate::run::Snapshot;
use crate::run::event::{Event, parse_log};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A [`Ledger`] that is gone with the process. Agents work in the directory that it gets.
#[derive(Debug)]
pub struct Memory {
    directory: PathBuf,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    log: String,
    snapshot: Option<Snapshot>,
    trees: BTreeMap<String, Files>,
    commits: Vec<Commit>,
    outputs: BTreeMap<String, Vec<u8>>,
    /// Workers' worktrees, their commits, and the newest commit of each, by task.
    places: BTreeMap<String, OpenPlace>,
    works: BTreeMap<String, WorkersCommit>,
    refs: BTreeMap<String, String>,
    /// The tree that was written last.
    written: Files,
    found: bool,
    closed: bool,
    /// Worktrees that were set up, with the tree that they held then.
    set_up: BTreeMap<PathBuf, String>,
}

/// A commit that a [`Memory`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its id.
    pub id: String,
    /// The commit that it is on top of.
    pub parent: String,
    /// Its tree.
    pub tree: String,
    /// Its message.
    pub message: String,
    /// Workers' commits that it merges.
    pub merged: Vec<String>,
}

impl Memory {
    /// Makes an empty record with `directory` as its workspace.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), kept: Mutex::default() }
    }

    /// Returns the log, one event a line.
    #[must_use]
    pub fn log(&self) -> String {
        self.kept().log.clone()
    }

    /// Returns the state after the newest event, as the driver passed it in.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.kept().snapshot.clone()
    }

    /// Returns the commits, oldest first.
    #[must_use]
    pub fn commits(&self) -> Vec<Commit> {
        self.kept().commits.clone()
    }

    /// Returns the transcript under `path`.
    #[must_use]
    pub fn output(&self, path: &str) -> Option<Vec<u8>> {
        self.kept().outputs.get(path).cloned()
    }

    /// Reports whether the workspace was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.kept().closed
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep_tree(&mut self, files: Files) -> String {
        let id = hash(files.iter().flat_map(|(path, content)| [path.as_os_str().as_encoded_bytes(), content]));
        self.trees.insert(id.clone(), files);
        id
    }

    /// Returns the tree of a commit, and the id of a tree unchanged.
    fn tree_of(&self, id: &str) -> String {
        let commit = self.commits.iter().find(|commit| commit.id == id).map(|commit| &commit.tree);
        commit.or_else(|| self.works.get(id).map(|work| &work.tree)).map_or_else(|| id.to_owned(), Clone::clone)
    }
}

impl Provision for Memory {
    /// There is no checkout to copy from.
    fn provision(&self, place: &Path, _: &Wanted<'_>) -> Result<Outfit> {
        Ok(Outfit { set_up: self.kept().set_up.contains_key(place), ..Outfit::default() })
    }

    fn uncommitted(&self, _: &Path) -> Result<BTreeSet<String>> {
        Ok(BTreeSet::new())
    }

    fn set_up(&self, place: &Path, tree: Option<&str>) -> Result<()> {
        let mut kept = self.kept();
        match tree {
            Some(tree) => kept.set_up.insert(place.to_owned(), tree.to_owned()),
            None => kept.set_up.remove(place),
        };
        Ok(())
    }

    fn set_up_on(&self, place: &Path) -> Result<Option<String>> {
        Ok(self.kept().set_up.get(place).cloned())
    }

    /// Nothing is ignored in memory.
    fn strip(&self, place: &Path) -> Result<()> {
        self.set_up(place, None)
    }
}

impl Ledger for Memory {
    fn append(&self, batch: &Batch<'_>) -> Result<()> {
        let mut kept = self.kept();
        for event in batch.events {
            kept.log.push_str(&event.to_line());
            kept.log.push('\n');
        }
        kept.snapshot = Some(batch.snapshot.clone());
        Ok(())
    }

    fn events(&self) -> Result<Vec<Event>> {
        Ok(parse_log([self.kept().log.as_str()]))
    }

    /// There is nothing outside the workspace that an agent could change.
    fn guard(&self) -> Result<()> {
        Ok(())
    }

    fn keep(&self) -> Result<()> {
        Ok(())
    }

    fn notice(&self) -> Result<()> {
        Ok(())
    }

    fn mend(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn stand_down(&self) {}

    fn workspace(&self) -> Result<Workspace> {
        fs::create_dir_all(&self.directory).context("cannot make the workspace")?;
        let found = if std::mem::replace(&mut self.kept().found, true) { Found::Kept } else { Found::Made };
        Ok(Workspace { path: self.directory.clone(), found, before: None })
    }

    fn adopt(&self, _tip: &str) -> Result<Option<Adopted>> {
        Ok(None)
    }

    fn write_tree(&self) -> Result<Tree> {
        let mut files = Files::new();
        collect(&self.directory, Path::new(""), &mut files).context("cannot read the workspace")?;
        let mut kept = self.kept();
        kept.written.clone_from(&files);
        Ok(Tree { id: kept.keep_tree(files), remarks: Vec::new() })
    }

    fn restore(&self, tree: &str) -> Result<Vec<String>> {
        let now = self.write_tree()?.id;
        let mut kept = self.kept();
        let files = |id: &str| kept.trees.get(id).cloned().unwrap_or_default();
        let (now, wanted) = (files(&now), files(tree));
        rewrite(&self.directory, &now, &wanted).context("the workspace cannot be written")?;
        kept.written.clone_from(&wanted);
        Ok(changes(&now, &wanted).into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
    }

    fn changed_since_tree(&self) -> Result<Vec<String>> {
        let mut files = Files::new();
        collect(&self.directory, Path::new(""), &mut files).context("cannot read the workspace")?;
        let kept = self.kept();
        Ok(changes(&kept.written, &files).into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
    }

    fn protected(&self, from: &str, tree: &str, pathspecs: &[String]) -> Result<Vec<String>> {
        let kept = self.kept();
        let empty = Files::new();
        let files = |id: &str| kept.trees.get(id).unwrap_or(&empty);
        let names = changes(files(from), files(tree)).into_iter().map(|path| path.to_string_lossy().into_owned());
        Ok(names.filter(|name| pathspecs.iter().any(|pathspec| is_named(name, pathspec))).collect())
    }

    fn content(&self, tree: &str, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.kept().trees.get(tree).and_then(|files| files.get(Path::new(path)).cloned()))
    }

    fn take_back(&self, from: &str, tree: &str, paths: &[String]) -> Result<Tree> {
        let (old, now) = {
            let kept = self.kept();
            let files = |id: &str| kept.trees.get(id).cloned().unwrap_or_default();
            (files(from), files(tree))
        };
        let mut wanted = now.clone();
        for path in paths.iter().map(Path::new) {
            match old.get(path) {
                Some(content) => wanted.insert(path.to_owned(), content.clone()),
                None => wanted.remove(path),
            };
        }
        rewrite(&self.directory, &now, &wanted).context("the workspace cannot be written")?;
        self.write_tree()
    }

    fn commit(&self, draft: &Draft<'_>) -> Result<Committed> {
        let mut kept = self.kept();
        let parent = match kept.commits.last() {
            Some(newest) if newest.id != draft.tip => {
                return Err(Error::failed(format!("the branch stands at {}, not at {}", newest.id, draft.tip)));
            }
            newest => newest.map(|newest| newest.tree.clone()),
        };
        let files = |tree: &str| kept.trees.get(tree).cloned().unwrap_or_default();
        let changed = changes(&files(parent.as_deref().unwrap_or_default()), &files(draft.tree)).len() as u64;
        let number = kept.commits.len().to_string();
        let id = hash([draft.tip, draft.tree, draft.message, &number].map(str::as_bytes));
        kept.commits.push(Commit {
            id: id.clone(),
            parent: draft.tip.to_owned(),
            tree: draft.tree.to_owned(),
            message: draft.message.to_owned(),
            merged: draft.merged.to_vec(),
        });
        Ok(Committed { commit: id, changed, remarks: Vec::new() })
    }

    fn store_output(&self, path: &str, content: &[u8]) -> Result<()> {
        self.kept().outputs.insert(path.to_owned(), content.to_owned());
        Ok(())
    }

    fn diff(&self, from: &str, to: &str, paths: &[String], limit: usize) -> Result<String> {
        let kept = self.kept();
        let empty = Files::new();
        let files = |id: &str| kept.trees.get(&kept.tree_of(id)).unwrap_or(&empty);
        let (from, to) = (files(from), files(to));
        let (mut patch, mut left_out) = (String::new(), String::new());
        let is_wanted = |path: &&Path| paths.is_empty() || paths.iter().any(|wanted| Path::new(wanted) == *path);
        for path in changes(from, to).into_iter().filter(is_wanted) {
            let part = file_diff(path, from.get(path), to.get(path));
            if patch.len() + part.len() <= limit {
                patch.push_str(&part);
            } else {
                let _ = writeln!(left_out, " {} | {} bytes", path.display(), part.len());
            }
        }
        Ok(patch + &left_out)
    }

    fn close(&self) -> Result<()> {
        self.close_places()?;
        self.kept().closed = true;
        Ok(())
    }

    fn scratch(&self) -> PathBuf {
        self.directory.join(".git").join("agentloop")
    }
}

/// Reports whether a pathspec of plain characters and `*` matches `path` or a folder above it.
fn is_named(path: &str, pathspec: &str) -> bool {
    let is_in_folder = path.strip_prefix(pathspec.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
    let mut parts = pathspec.split('*');
    let Some(rest) = parts.next().and_then(|first| path.strip_prefix(first)) else { return false };
    let fits = parts.try_fold((rest, true), |(rest, _), part| {
        rest.rfind(part).map(|at| (&rest[at + part.len()..], part.is_empty()))
    });
    is_in_folder || fits.is_some_and(|(rest, open)| (open && pathspec.contains('*')) || rest.is_empty())
}

/// Turns the files `from` below `directory` into `to`.
fn rewrite(directory: &Path, from: &Files, to: &Files) -> std::io::Result<()> {
    for path in changes(from, to) {
        let file = directory.join(path);
        match to.get(path) {
            Some(content) => {
                file.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::write(file, content)?;
            }
            None => fs::remove_file(file)?,
        }
    }
    Ok(())
}

/// Lists the paths at which two trees differ.
fn changes<'a>(from: &'a Files, to: &'a Files) -> BTreeSet<&'a Path> {
    from.keys().chain(to.keys()).filter(|path| from.get(*path) != to.get(*path)).map(PathBuf::as_path).collect()
}

fn file_diff(path: &Path, from: Option<&Vec<u8>>, to: Option<&Vec<u8>>) -> String {
    let path = path.display();
    let mut text = format!("diff --git a/{path} b/{path}\n");
    for (sign, content) in [('-', from), ('+', to)] {
        for line in String::from_utf8_lossy(content.map_or(&[][..], Vec::as_slice)).lines() {
            let _ = writeln!(text, "{sign}{line}");
        }
    }
    text
}

/// Reads all files below `directory` except those of git.
fn collect(directory: &Path, prefix: &Path, files: &mut Files) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let path = prefix.join(&name);
        if kind.is_dir() && name != ".git" {
            collect(&entry.path(), &path, files)?;
        } else if kind.is_file() {
            files.insert(path, fs::read(entry.path())?);
        } else if kind.is_symlink() {
            files.insert(path, fs::read_link(entry.path())?.into_os_string().into_encoded_bytes());
        }
    }
    Ok(())
}

/// Returns 40 hexadecimal digits, like an id of git; not a cryptographic hash.
fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hashers: [DefaultHasher; 3] = Default::default();
    for part in parts {
        for (number, hasher) in (0_u8..).zip(&mut hashers) {
            hasher.write_u8(number);
            hasher.write_usize(part.len());
            hasher.write(part);
        }
    }
    let [a, b, c] = hashers.map(|hasher| hasher.finish());
    let mut text = format!("{a:016x}{b:016x}{c:016x}");
    text.truncate(40);
    text
}
