//! A ledger in memory, for tests and for users of the library who want a run without a repository.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Adopted, Batch, Committed, Draft, Found, Ledger, Tree, Workspace};
use crate::error::{Context as _, Error, Result};
use crate::run::Snapshot;
use crate::run::event::{Event, parse_log};

/// A run's record in memory, its workspace a directory that the caller owns.
pub struct Memory {
    workspace: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    log: String,
    snapshot: Option<Snapshot>,
    commits: Vec<(String, String)>,
    trees: BTreeMap<String, BTreeMap<PathBuf, Vec<u8>>>,
    outputs: BTreeMap<String, Vec<u8>>,
    written: Option<String>,
}

impl Memory {
    /// A record without events; agents work in `workspace`.
    #[must_use]
    pub fn new(workspace: impl Into<PathBuf>) -> Self {
        Self { workspace: workspace.into(), state: Mutex::default() }
    }

    /// The messages and trees of the commits made, oldest first.
    #[must_use]
    pub fn commits(&self) -> Vec<(String, String)> {
        self.state().commits.clone()
    }

    /// The transcript under `path`.
    #[must_use]
    pub fn output(&self, path: &str) -> Option<Vec<u8>> {
        self.state().outputs.get(path).cloned()
    }

    /// The snapshot that the newest batch came with.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.state().snapshot.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger for Memory {
    fn append(&self, batch: &Batch<'_>) -> Result<()> {
        let mut state = self.state();
        for event in batch.events {
            state.log.push_str(&event.to_line());
            state.log.push('\n');
        }
        state.snapshot = Some(batch.snapshot.clone());
        Ok(())
    }

    fn events(&self) -> Result<Vec<Event>> {
        Ok(parse_log([self.state().log.as_str()]))
    }

    fn workspace(&self) -> Result<Workspace> {
        Ok(Workspace { path: self.workspace.clone(), found: Found::Kept, before: None })
    }

    fn adopt(&self, _tip: &str) -> Result<Option<Adopted>> {
        Ok(None)
    }

    fn write_tree(&self) -> Result<Tree> {
        let mut files = BTreeMap::new();
        collect(&self.workspace, &self.workspace, &mut files)?;
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        let id = format!("{:016x}", hasher.finish());
        let mut state = self.state();
        state.trees.insert(id.clone(), files);
        state.written = Some(id.clone());
        Ok(Tree { id, remarks: Vec::new() })
    }

    fn changed_since_tree(&self) -> Result<Vec<String>> {
        let mut files = BTreeMap::new();
        collect(&self.workspace, &self.workspace, &mut files)?;
        let state = self.state();
        let written = state.written.as_ref().and_then(|id| state.trees.get(id)).cloned().unwrap_or_default();
        Ok(differing(&written, &files))
    }

    fn commit(&self, draft: &Draft<'_>) -> Result<Committed> {
        let mut state = self.state();
        let before = state.commits.last().map(|(_, tree)| tree.clone()).unwrap_or_default();
        let empty = BTreeMap::new();
        let old = state.trees.get(&before).unwrap_or(&empty);
        let new = state.trees.get(draft.tree).ok_or_else(|| Error::failed(format!("no tree {}", draft.tree)))?;
        let changed = differing(old, new).len() as u64;
        state.commits.push((draft.message.to_owned(), draft.tree.to_owned()));
        let mut hasher = DefaultHasher::new();
        (draft.tip, draft.message, draft.tree).hash(&mut hasher);
        Ok(Committed { commit: format!("{:016x}", hasher.finish()), changed, remarks: Vec::new() })
    }

    fn store_output(&self, path: &str, content: &[u8]) -> Result<()> {
        self.state().outputs.insert(path.to_owned(), content.to_vec());
        Ok(())
    }

    fn diff(&self, from: &str, to: &str, limit: usize) -> Result<String> {
        let state = self.state();
        let empty = BTreeMap::new();
        let tree = |id: &str| state.trees.get(id).unwrap_or(&empty);
        let mut text = differing(tree(from), tree(to)).join("\n");
        text.truncate(text.floor_char_boundary(limit));
        Ok(text)
    }

    fn close(&self) -> Result<()> {
        Ok(())
    }

    fn scratch(&self) -> PathBuf {
        self.workspace.join(".git/agentloop")
    }
}

fn differing(old: &BTreeMap<PathBuf, Vec<u8>>, new: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<String> {
    let mut names: Vec<&PathBuf> =
        new.iter().filter(|(name, content)| old.get(*name) != Some(content)).map(|(name, _)| name).collect();
    names.extend(old.keys().filter(|name| !new.contains_key(*name)));
    names.sort();
    names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

fn collect(root: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(dir).context(format!("'{}' cannot be read", dir.display()))? {
        let entry = entry.context("a file cannot be read")?;
        let path = entry.path();
        let kind = entry.file_type().context("a file cannot be read")?;
        if kind.is_dir() && entry.file_name() != ".git" {
            collect(root, &path, files)?;
        } else if kind.is_file() {
            let content = std::fs::read(&path).context(format!("'{}' cannot be read", path.display()))?;
            files.insert(path.strip_prefix(root).unwrap_or(&path).to_owned(), content);
        }
    }
    Ok(())
}
