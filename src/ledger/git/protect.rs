//! Files that workers may not change.

use gix::bstr::ByteSlice as _;

use super::command::Git;
use super::repository::Repository;
use crate::error::{Context as _, Result};

/// Files that `pathspecs` name and that differ between two trees or commits, sorted.
pub fn changed(repo: &Repository, from: &str, to: &str, pathspecs: &[String]) -> Result<Vec<String>> {
    if pathspecs.is_empty() || from == to {
        return Ok(Vec::new());
    }
    let git = Git::of(repo, "diff-tree").args(["-r", "--name-only", "--no-renames", "--ignore-submodules=none"]);
    let names = git.revision(from).revision(to).paths(pathspecs).records()?;
    Ok(names.iter().map(|name| name.to_str_lossy().into_owned()).collect())
}

/// The tree `tree` with `paths` as they are in `from`.
pub fn without(repo: &Repository, from: &str, tree: &str, paths: &[String]) -> Result<String> {
    let gix = repo.gix();
    let from = gix
        .find_object(Repository::id(from)?)
        .and_then(gix::Object::peel_to_tree)
        .context("the run's newest commit cannot be read")?;
    let mut editor = gix.edit_tree(Repository::id(tree)?).context("the tree cannot be edited")?;
    for path in paths {
        editor.remove(path.as_str()).context("the tree cannot be edited")?;
    }
    for path in paths {
        if let Some(entry) = from.lookup_entry_by_path(path).context("a tree cannot be read")? {
            editor
                .upsert(path.as_str(), entry.mode().kind(), entry.object_id())
                .context("the tree cannot be edited")?;
        }
    }
    Ok(editor.write().context("the tree cannot be written")?.to_string())
}
