//! Workers' directories beside the run's own, and a merge by whole files.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Files, Kept, Memory, changes, collect, hash, rewrite};
use crate::error::{Context as _, Error, Result};
use crate::ledger::{
    Leaving, Ledger as _, Left, Merged, Merging, Opening, Place, Reader, Reading, Resolution, Resolving, Task, Tree,
    Workers,
};

/// Prefixes of the lines that mark a conflict in a file.
const MARKS: [&str; 2] = ["<<<<<<< ", ">>>>>>> "];

#[derive(Clone, Debug)]
pub(super) struct OpenPlace {
    number: u32,
    path: PathBuf,
    /// The tree that it began at.
    base: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WorkersCommit {
    pub(super) tree: String,
    base: String,
}

impl Workers for Memory {
    fn open_place(&self, opening: &Opening<'_>) -> Result<Place> {
        let mut kept = self.kept();
        let name = opening.task.to_string();
        if let Some(place) = kept.open_place(&name) {
            return Ok(place);
        }
        let base = kept.tree_of(opening.tip);
        // The start commit's tree was not written by this ledger.
        let files = kept.trees.get(&base).cloned().unwrap_or_default();
        let base = kept.keep_tree(files);
        let start = match (kept.refs.get(&name), opening.earlier) {
            (Some(begun), _) => kept.tree_of(begun),
            (None, Some(earlier)) => match kept.merge(&base, earlier) {
                (tree, conflicts) if conflicts.is_empty() => kept.keep_tree(tree),
                _ => base.clone(),
            },
            (None, None) => base.clone(),
        };
        let files = kept.trees.get(&start).cloned().unwrap_or_default();
        self.make_place(&mut kept, name, base, &files)
    }

    fn close_place(&self, leaving: &Leaving<'_>) -> Result<Left> {
        let name = leaving.task.to_string();
        let mut kept = self.kept();
        let Some(open) = kept.places.get(&name).cloned() else {
            return Err(Error::failed(format!("nobody works at {name}")));
        };
        if !open.path.is_dir() {
            kept.places.remove(&name);
            let lost = Some("the worker removed its worktree".to_owned());
            return Ok(Left { commit: kept.refs.get(&name).cloned(), lost, ..Left::default() });
        }
        let tree = kept.read(&open.path)?;
        let commit = (tree != open.base).then(|| kept.commit_work(&name, tree, open.base, leaving.message));
        Ok(Left { commit, ..Left::default() })
    }

    fn left_behind(&self, task: &Task, _tip: &str) -> Result<Option<String>> {
        Ok(self.kept().refs.get(&task.to_string()).cloned())
    }

    fn merge(&self, merging: &Merging<'_>) -> Result<Merged> {
        let mut kept = self.kept();
        let (files, conflicts) = kept.merge(merging.tree, merging.commit);
        if conflicts.is_empty() {
            return Ok(Merged::Clean(kept.keep_tree(files)));
        }
        Ok(Merged::Conflict(conflicts.iter().map(|path| path.to_string_lossy().into_owned()).collect()))
    }

    fn open_conflict(&self, task: &Task, merging: &Merging<'_>) -> Result<Place> {
        let mut kept = self.kept();
        let name = format!("{task}.merge");
        if let Some(open) = kept.places.get(&name).filter(|open| open.base == merging.tree).cloned() {
            let committed = kept.refs.get(&name).map(|commit| kept.tree_of(commit));
            let tree = kept.read(&open.path)?;
            if committed.as_ref() == Some(&tree) {
                return kept.open_place(&name).ok_or_else(|| Error::failed("the place of a conflict is gone"));
            }
            kept.commit_work(&name, tree, open.base, "left uncommitted");
        }
        let (files, _) = kept.merge(merging.tree, merging.commit);
        self.make_place(&mut kept, name, merging.tree.to_owned(), &files)
    }

    fn close_conflict(&self, resolving: &Resolving<'_>) -> Result<Resolution> {
        let Resolving { task, paths, message, ended, .. } = *resolving;
        let name = format!("{task}.merge");
        let mut kept = self.kept();
        let Some(open) = kept.places.get(&name).cloned() else {
            return Err(Error::failed(format!("nobody works at {name}")));
        };
        let tree = kept.read(&open.path)?;
        let files = kept.trees.get(&tree).cloned().unwrap_or_default();
        let is_marked = |path: &&String| {
            let text = files.get(Path::new(path)).map(|content| String::from_utf8_lossy(content).into_owned());
            text.is_some_and(|text| text.lines().any(|line| MARKS.iter().any(|mark| line.starts_with(mark))))
        };
        let marked: Vec<&str> = paths.iter().filter(is_marked).map(String::as_str).collect();
        let goes_on = ended && tree != open.base && !marked.is_empty();
        if let Some(open) = kept.places.get_mut(&name).filter(|_| !goes_on) {
            open.base.clear(); // so that no merge starts from it
        }
        let problem = if tree == open.base {
            Some("nothing of the work that was to be merged is in what the integrator left".to_owned())
        } else {
            (!marked.is_empty()).then(|| format!("conflict markers are left in {}", marked.join(", ")))
        };
        let commit = kept.commit_work(&name, tree.clone(), open.base, message);
        Ok(Resolution { commit, tree, open: problem, remarks: Vec::new() })
    }

    /// A reader reads in the run's own directory.
    fn open_reader(&self, reading: &Reading<'_>) -> Result<Reader> {
        Ok(Reader { path: self.directory.clone(), tree: reading.tree.to_owned() })
    }

    fn close_reader(&self, _reader: &Reader, _tip: &str) -> Result<(Vec<String>, Vec<String>)> {
        Ok((Vec::new(), Vec::new()))
    }

    /// No older version had this ledger.
    fn hand_over(&self, _task: &Task, _tip: &str) -> Result<()> {
        Ok(())
    }

    fn advance(&self, from: &str, to: &str) -> Result<Tree> {
        let current = self.write_tree()?;
        let mut kept = self.kept();
        let files = |kept: &Kept, tree: &str| kept.trees.get(tree).cloned().unwrap_or_default();
        let (now, base, wanted) = (files(&kept, &current.id), files(&kept, from), files(&kept, to));
        let (target, conflicts) = three_way(&base, &wanted, &now);
        let mut target = target;
        for path in &conflicts {
            match wanted.get(path) {
                Some(content) => target.insert(path.clone(), content.clone()),
                None => target.remove(path),
            };
        }
        rewrite(&self.directory, &now, &target).context("the workspace cannot be written")?;
        let remarks =
            conflicts.iter().map(|path| format!("what '{}' held is in the tree {}", path.display(), current.id));
        let remarks = remarks.collect();
        kept.written.clone_from(&target);
        Ok(Tree { id: kept.keep_tree(target), remarks })
    }
}

impl Memory {
    fn make_place(&self, kept: &mut Kept, name: String, base: String, files: &Files) -> Result<Place> {
        let is_taken = |number: &u32| kept.places.values().any(|place| place.number == *number);
        let number = (1..=u32::MAX).find(|number| !is_taken(number)).unwrap_or(u32::MAX);
        let path = self.directory.with_added_extension(format!("w{number}"));
        let _ = fs::remove_dir_all(&path); // left by an earlier run
        fs::create_dir_all(&path)
            .and_then(|()| rewrite(&path, &Files::new(), files))
            .context("no place can be made")?;
        kept.places.insert(name, OpenPlace { number, path: path.clone(), base });
        Ok(Place { path, number })
    }

    pub(super) fn close_places(&self) -> Result<()> {
        let mut kept = self.kept();
        for (name, open) in std::mem::take(&mut kept.places) {
            if open.path.is_dir() {
                let tree = kept.read(&open.path)?;
                if tree != open.base && kept.refs.get(&name).is_none_or(|commit| kept.tree_of(commit) != tree) {
                    kept.commit_work(&name, tree, open.base, "left uncommitted");
                }
                fs::remove_dir_all(&open.path).context("a place cannot be removed")?;
            }
        }
        Ok(())
    }

    /// Returns the commit that holds the work of a task.
    #[must_use]
    pub fn work(&self, task: &str) -> Option<String> {
        self.kept().refs.get(task).cloned()
    }
}

impl Kept {
    fn open_place(&self, name: &str) -> Option<Place> {
        let open = self.places.get(name).filter(|open| open.path.is_dir())?;
        Some(Place { path: open.path.clone(), number: open.number })
    }

    fn commit_work(&mut self, name: &str, tree: String, base: String, message: &str) -> String {
        let commit = hash([name, &tree, &base, message].map(str::as_bytes));
        self.works.insert(commit.clone(), WorkersCommit { tree, base });
        self.refs.insert(name.to_owned(), commit.clone());
        commit
    }

    fn read(&mut self, path: &Path) -> Result<String> {
        let mut files = Files::new();
        collect(path, Path::new(""), &mut files).context("a place cannot be read")?;
        Ok(self.keep_tree(files))
    }

    /// Merges a worker's commit into a tree. Returns the files, with conflict markers, and the paths that conflict.
    fn merge(&self, ours: &str, commit: &str) -> (Files, Vec<PathBuf>) {
        let empty = Files::new();
        let files = |tree: &str| self.trees.get(tree).unwrap_or(&empty);
        let Some(work) = self.works.get(commit) else { return (files(ours).clone(), Vec::new()) };
        three_way(files(&work.base), files(ours), files(&work.tree))
    }
}

fn three_way(base: &Files, ours: &Files, theirs: &Files) -> (Files, Vec<PathBuf>) {
    let (mut merged, mut conflicts) = (ours.clone(), Vec::new());
    for path in changes(base, theirs) {
        let (old, mine, other) = (base.get(path), ours.get(path), theirs.get(path));
        if mine == old || mine == other {
            match other {
                Some(content) => merged.insert(path.to_owned(), content.clone()),
                None => merged.remove(path),
            };
            continue;
        }
        let text = |side: Option<&Vec<u8>>| String::from_utf8_lossy(side.map_or(&[][..], Vec::as_slice)).into_owned();
        let marked = format!("{}HEAD\n{}=======\n{}{}work\n", MARKS[0], text(mine), text(other), MARKS[1]);
        merged.insert(path.to_owned(), marked.into_bytes());
        conflicts.push(path.to_owned());
    }
    (merged, conflicts)
}
