//! Compares trees and edits them by path, for files that workers may not change.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use gix::bstr::{BStr, ByteSlice as _};
use gix::object::tree::diff::ChangeDetached;

use super::repository::Repository;
use super::tree;
use crate::error::{Context as _, Result};

/// Lists the files that match `pathspecs` and differ between two trees or commits, sorted.
pub fn changed(repo: &Repository, from: &str, to: &str, pathspecs: &[String]) -> Result<Vec<String>> {
    if pathspecs.is_empty() || from == to {
        return Ok(Vec::new());
    }
    let git = repo.git("diff-tree").args(["-r", "--name-only", "--no-renames", "--ignore-submodules=none"]);
    let names = git.revision(from).revision(to).paths(pathspecs).records()?;
    Ok(names.iter().map(|name| name.to_str_lossy().into_owned()).collect())
}

/// Returns those of `paths` that exist in `tree`.
pub fn among(repo: &Repository, tree: &str, paths: &[String]) -> Result<Vec<String>> {
    let gix = repo.gix();
    let tree = gix.find_tree(Repository::id(tree)?).context("a tree cannot be read")?;
    let mut found = Vec::new();
    for path in paths {
        if tree.lookup_entry_by_path(path).context("a tree cannot be read")?.is_some() {
            found.push(path.clone());
        }
    }
    Ok(found)
}

/// Returns the content of the file at `path` in a tree.
pub fn content(repo: &Repository, tree: &str, path: &str) -> Result<Option<Vec<u8>>> {
    let gix = repo.gix();
    let tree = gix.find_tree(Repository::id(tree)?).context("a tree cannot be read")?;
    let entry = tree.lookup_entry_by_path(path).context("a tree cannot be read")?;
    let Some(entry) = entry.filter(|entry| entry.mode().is_blob()) else { return Ok(None) };
    Ok(Some(entry.object().context("a file cannot be read from the repository")?.detach().data))
}

/// Writes the tree `tree` with `paths` as they are in `from`.
pub fn without(repo: &Repository, from: &str, tree: &str, paths: &[String]) -> Result<String> {
    let gix = repo.gix();
    // Paths are given as text, but may be other bytes: the changes have them as bytes.
    let changes = tree::changes(&gix, Repository::id(from)?, Repository::id(tree)?)?;
    let is_named = |location: &&BStr| paths.iter().any(|path| *path == location.to_str_lossy());
    let named: Vec<&BStr> = changes.iter().map(ChangeDetached::location).filter(is_named).collect();
    let from = gix
        .find_object(Repository::id(from)?)
        .and_then(gix::Object::peel_to_tree)
        .context("the run's newest commit cannot be read")?;
    let mut editor = gix.edit_tree(Repository::id(tree)?).context("the tree cannot be edited")?;
    for path in &named {
        editor.remove(*path).context("the tree cannot be edited")?;
    }
    for path in &named {
        let file = OsStr::from_bytes(path.as_bytes());
        if let Some(entry) = from.lookup_entry_by_path(file).context("a tree cannot be read")? {
            editor.upsert(*path, entry.mode().kind(), entry.object_id()).context("the tree cannot be edited")?;
        }
    }
    Ok(editor.write().context("the tree cannot be written")?.to_string())
}
