//! A notes tree: one blob for each noted object, named by its id, flat or fanned out at any depth (git-notes(1)).
//!
//! git fans a tree out as it grows, and reads any mix of depths. We write flat and keep existing paths.

use gix::bstr::BString;
use gix::objs::tree::{Entry, EntryKind};
use gix::objs::{Tree, TreeRef};
use gix::{ObjectId, Repository};

use super::objects::fetch;
use super::objects::parse_id;
use crate::error::{Context as _, Result};

/// A note: the object that it is on, and its blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Note {
    pub on: ObjectId,
    pub blob: ObjectId,
}

/// Reads the tree `id`.
pub(super) fn read(repo: &Repository, id: ObjectId) -> Result<Tree> {
    let found = match repo.find_tree(id) {
        Err(_) if fetch(repo, id) => repo.find_tree(id),
        found => found,
    };
    let tree = found.context(format!("cannot read the notes tree {id}"))?;
    let decoded = TreeRef::from_bytes(&tree.data, repo.object_hash()).context(format!("the tree {id} is damaged"))?;
    Ok(decoded.into_owned())
}

/// Lists all notes under `root`. One object can have two, if programs with different fan-outs wrote them.
pub(super) fn all(repo: &Repository, root: &Tree) -> Result<Vec<Note>> {
    let mut found = Vec::with_capacity(root.entries.len());
    collect(repo, root, &mut String::new(), &mut found)?;
    Ok(found)
}

fn collect(repo: &Repository, tree: &Tree, prefix: &mut String, found: &mut Vec<Note>) -> Result<()> {
    for entry in &tree.entries {
        let Ok(name) = std::str::from_utf8(&entry.filename) else { continue };
        let length = prefix.len();
        prefix.push_str(name);
        if entry.mode.is_blob() {
            found.extend(parse_id(repo, prefix.as_bytes()).map(|on| Note { on, blob: entry.oid }));
        } else if entry.mode.is_tree() && is_fan(name, prefix, repo) {
            collect(repo, &read(repo, entry.oid)?, prefix, found)?;
        }
        prefix.truncate(length);
    }
    Ok(())
}

fn is_fan(name: &str, prefix: &str, repo: &Repository) -> bool {
    name.len() == 2
        && name.bytes().all(|byte| byte.is_ascii_hexdigit())
        && prefix.len() < repo.object_hash().len_in_hex()
}

/// Finds the blob of the note on `on`.
pub(super) fn find(repo: &Repository, root: &Tree, on: ObjectId) -> Result<Option<ObjectId>> {
    find_below(repo, root, on.to_string().as_bytes())
}

fn find_below(repo: &Repository, tree: &Tree, rest: &[u8]) -> Result<Option<ObjectId>> {
    if let Ok(at) = position(tree, rest, EntryKind::Blob) {
        return Ok(Some(tree.entries[at].oid));
    }
    match fan(tree, rest) {
        Some(at) => find_below(repo, &read(repo, tree.entries[at].oid)?, &rest[2..]),
        None => Ok(None),
    }
}

/// Puts `note` into the tree, at the path that its object has there. Writes the trees below the root, but not the root.
pub(super) fn put(repo: &Repository, root: &mut Tree, note: Note) -> Result<Vec<ObjectId>> {
    let name = note.on.to_string();
    let mut written = Vec::new();
    if !replace(repo, root, name.as_bytes(), note.blob, &mut written)? {
        let at = position(root, name.as_bytes(), EntryKind::Blob).unwrap_or_else(|at| at);
        let entry = Entry { mode: EntryKind::Blob.into(), filename: BString::from(name), oid: note.blob };
        root.entries.insert(at, entry);
    }
    Ok(written)
}

fn replace(
    repo: &Repository,
    tree: &mut Tree,
    rest: &[u8],
    blob: ObjectId,
    written: &mut Vec<ObjectId>,
) -> Result<bool> {
    if let Ok(at) = position(tree, rest, EntryKind::Blob) {
        tree.entries[at].oid = blob;
        return Ok(true);
    }
    let Some(at) = fan(tree, rest) else { return Ok(false) };
    let mut below = read(repo, tree.entries[at].oid)?;
    if !replace(repo, &mut below, &rest[2..], blob, written)? {
        return Ok(false);
    }
    tree.entries[at].oid = repo.write_object(&below).context("cannot write a notes tree")?.detach();
    written.push(tree.entries[at].oid);
    Ok(true)
}

fn fan(tree: &Tree, rest: &[u8]) -> Option<usize> {
    (rest.len() > 2).then(|| position(tree, &rest[..2], EntryKind::Tree).ok()).flatten()
}

fn position(tree: &Tree, name: &[u8], kind: EntryKind) -> Result<usize, usize> {
    let is_tree = kind == EntryKind::Tree;
    tree.entries
        .binary_search_by(|entry| gix::objs::tree::name_order(&entry.filename, entry.mode.is_tree(), name, is_tree))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::ledger::git::fixture::{self, Fixture};

    #[test]
    fn a_tree_that_git_fanned_out_is_read_and_changed_in_place() {
        let fixture = Fixture::new();
        let head = fixture.head();
        // Git fans a tree out once it holds a few hundred notes.
        let mut import = String::from("commit refs/x/noted\ncommitter A <a@example.com> 1 +0000\ndata 0\n");
        for number in 1..=400 {
            let _ = write!(
                import,
                "commit refs/x/noted\nmark :{number}\ncommitter A <a@example.com> {number} +0000\ndata 0\n"
            );
        }
        import.push_str("commit refs/notes/big\ncommitter A <a@example.com> 1 +0000\ndata 0\n");
        for number in 1..=400 {
            let _ = write!(import, "N inline :{number}\ndata 2\nx\n");
        }
        let _ = write!(import, "N inline {head}\ndata 5\nhead\n");
        let mut child = fixture
            .command(&fixture.path(), ["fast-import", "--quiet"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), import.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        let repo = fixture::open(&fixture.path());
        let id: ObjectId = fixture.git(["rev-parse", "refs/notes/big^{tree}"]).trim().parse().unwrap();
        let mut root = read(&repo, id).unwrap();
        assert!(root.entries.iter().any(|entry| entry.mode.is_tree()), "it is not fanned out");
        assert_eq!(all(&repo, &root).unwrap().len(), 401);
        let blob = repo.write_blob(b"changed\n").unwrap().detach();
        put(&repo, &mut root, Note { on: head, blob }).unwrap();
        let fresh = fixture.commit("fresh");
        put(&repo, &mut root, Note { on: fresh, blob }).unwrap();
        assert_eq!(find(&repo, &root, head).unwrap(), Some(blob));
        assert_eq!(all(&repo, &root).unwrap().len(), 402);
        let tree = repo.write_object(&root).unwrap().to_string();
        let commit = fixture.git(["commit-tree", "-m", "x", &tree]);
        fixture.git(["update-ref", "refs/notes/big", commit.trim()]);
        for object in [head, fresh] {
            assert_eq!(fixture.git(["notes", "--ref=big", "show", &object.to_string()]), "changed\n");
        }
        assert_eq!(fixture.git(["notes", "--ref=big", "list"]).lines().count(), 402);
        fixture.git(["fsck", "--strict"]);
    }
}
