//! Nested repositories that a worker made in its workspace, as scaffolding tools do. Their files are work like any other and
//! are added by git's own rules. Linked worktrees of the run's own repository are not work: their content is put on a rescue
//! ref.
//!
//! git walks into a repository if the index has a file in it. So an entry of a file that does not exist is added to the
//! index below each. The next `add --all` then adds what neither our ignore files nor theirs hide, with attributes and
//! filters, and removes the entry.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice as _};
use gix::object::tree::diff::ChangeDetached;

use super::{Tracked, added, is_submodule};
use crate::error::{Context as _, Result};
use crate::ledger::git::branch;
use crate::ledger::git::command::{Git, nul_separated, nul_terminated};
use crate::ledger::git::folder::is_folder;
use crate::ledger::git::link::link_of;
use crate::ledger::git::refs::RefMover;
use crate::ledger::git::repository::Repository;
use crate::run::text::count;

/// Name of the file that does not exist.
const SEED: &str = ".agentloop-seed";

/// The nested repositories that were found so far.
#[derive(Default)]
pub(super) struct Nested {
    /// Repositories whose files are added.
    inlined: BTreeSet<BString>,
    /// Linked worktrees of the run's own repository.
    linked: BTreeSet<BString>,
    /// Repositories from which git adds nothing.
    empty: BTreeSet<BString>,
    /// Entries that were added to the tree that the work is based on.
    added: Vec<ChangeDetached>,
    /// The tree of our index, if the index is unchanged since the search for nested repositories.
    tree: Option<ObjectId>,
}

impl Nested {
    /// Returns pathspecs of what `git add` must skip.
    pub(super) fn excluded(&self) -> impl Iterator<Item = OsString> {
        self.linked.iter().chain(&self.empty).map(|path| {
            let mut pathspec = OsString::from(":(top,exclude,literal)");
            pathspec.push(OsString::from_vec(path.to_vec()));
            pathspec
        })
    }

    /// Searches for further repositories after an attempt to add all files, which `succeeded` or not, and makes git walk
    /// into them next time. Reports whether there were any.
    pub(super) fn find(&mut self, tracked: &Tracked<'_>, before: ObjectId, succeeded: bool) -> Result<bool> {
        let gix = tracked.repo.gix();
        let mut found = Vec::new();
        // Nothing is staged if a repository has no commit yet.
        if !succeeded {
            found.extend(tracked.nested()?);
        }
        let tree = Repository::id(&tracked.git("write-tree").word()?)?;
        self.added = if tree == before { Vec::new() } else { added(&gix, before, tree)? };
        let commits = self.added.iter().filter(|change| change.entry_mode().is_commit());
        let paths = commits.map(|change| change.location().to_owned());
        found.extend(paths.filter(|path| !is_submodule(&gix, tree, path)));
        let mut lines = Vec::new();
        let mut is_new = false;
        let null = ObjectId::null(gix.object_hash());
        for path in found {
            if self.linked.contains(&path) || self.empty.contains(&path) {
                continue;
            }
            is_new = true;
            lines.extend(format!("0 {null}\t").into_bytes());
            lines.extend_from_slice(&path);
            lines.push(0);
            if admin_of_linked(tracked, &path).is_some() {
                self.linked.insert(path);
            } else if self.inlined.contains(&path) {
                self.inlined.remove(&path);
                self.empty.insert(path);
            } else {
                let seed = gix.write_blob(b"").context("a file cannot be written to the repository")?;
                lines.extend(format!("100644 {seed}\t").into_bytes());
                lines.extend_from_slice(&seed_of(&path));
                lines.push(0);
                self.inlined.insert(path);
            }
        }
        self.tree = (!is_new).then_some(tree);
        if is_new {
            tracked.git("update-index").args(["-z", "--index-info"]).input(lines).run()?;
        }
        Ok(is_new)
    }

    /// Records that our index was changed since the search.
    pub(super) fn index_changed(&mut self) {
        self.tree = None;
    }

    /// Completes our index, once all is added, by the repositories' own lists of tracked and excluded files. Returns its
    /// tree.
    pub(super) fn settle(&self, tracked: &Tracked<'_>, before: ObjectId) -> Result<ObjectId> {
        let roots = self.roots(tracked);
        if let Some(tree) = self.tree.filter(|_| self.inlined.is_empty() && roots.is_empty()) {
            return Ok(tree);
        }
        let seeds: Vec<BString> = self.inlined.iter().map(seed_of).collect();
        if !seeds.is_empty() {
            tracked.git("update-index").args(["--force-remove", "-z", "--stdin"]).input(nul_terminated(seeds)).run()?;
        }
        for root in roots {
            add_tracked(tracked, &root)?;
            remove_excluded(tracked, before, &root)?;
        }
        Repository::id(&tracked.git("write-tree").word()?)
    }

    /// Lists the repositories from which files were added, now or before.
    fn roots(&self, tracked: &Tracked<'_>) -> BTreeSet<BString> {
        let mut folders = BTreeSet::new();
        for change in &self.added {
            let mut path = change.location();
            while let Some(slash) = path.rfind_byte(b'/') {
                path = path[..slash].as_bstr();
                if !folders.insert(path.to_owned()) {
                    break;
                }
            }
        }
        folders.retain(|folder| on_disk(tracked, folder.as_bstr()).join(".git").symlink_metadata().is_ok());
        folders
    }

    /// Returns remarks on the repositories.
    pub(super) fn remarks(&self, tracked: &Tracked<'_>) -> Result<Vec<String>> {
        let mut remarks = Vec::new();
        for path in &self.inlined {
            let files = below_root(tracked, path, "--cached")?.len();
            let rest = match below_root(tracked, path, "--others")?.len() {
                0 => String::new(),
                left => format!("; {left} more are left out"),
            };
            remarks.push(format!("'{path}' is a repository of its own: captured as {}{rest}", count(files, "file")));
        }
        for path in &self.linked {
            remarks.push(format!("'{path}' is a worktree of this repository, and not part of the work"));
            let kept = keep_linked(tracked, path);
            remarks.extend(kept.unwrap_or_else(|error| vec![format!("'{path}' could not be kept: {}", error.chain())]));
        }
        Ok(remarks)
    }
}

/// Reports whether the repository at `path`, of which nothing was captured, has files that are neither ignored nor kept
/// elsewhere.
pub(super) fn holds_more(tracked: &Tracked<'_>, path: &BStr) -> Result<bool> {
    if admin_of_linked(tracked, &path.to_owned()).is_some() {
        return Ok(keep_linked(tracked, &path.to_owned()).is_err());
    }
    let entries = std::fs::read_dir(on_disk(tracked, path)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_vec()).filter(|name| name != b".git");
    let names: Vec<BString> = names.map(|name| below(&path.to_owned(), name.as_bstr())).collect();
    if names.is_empty() {
        return Ok(false);
    }
    let git = tracked.git("check-ignore").args(["-z", "--stdin"]).input(nul_terminated(&names));
    Ok(nul_separated(&git.output()?.stdout).count() < names.len())
}

fn seed_of(path: &BString) -> BString {
    let mut seed = path.clone();
    seed.extend_from_slice(b"/");
    seed.extend_from_slice(SEED.as_bytes());
    seed
}

fn on_disk(tracked: &Tracked<'_>, path: &BStr) -> PathBuf {
    tracked.path.join(OsStr::from_bytes(path))
}

/// Returns the git directory of the repository at `root`, following its `.git`.
fn git_dir(root: &Path) -> Option<PathBuf> {
    let git = root.join(".git");
    if is_folder(&git) { Some(git) } else { link_of(root)?.canonicalize().ok() }
}

/// Returns the git directory of `path` if it is a linked worktree of the run's own repository.
fn admin_of_linked(tracked: &Tracked<'_>, path: &BString) -> Option<PathBuf> {
    let admin = git_dir(&on_disk(tracked, path.as_bstr()))?;
    let worktrees = tracked.repo.common_dir().join("worktrees").canonicalize().ok()?;
    (admin.parent() == Some(worktrees.as_path())).then_some(admin)
}

/// Lists the files below `root` that our index has, or those that it lacks and git does not ignore.
fn below_root(tracked: &Tracked<'_>, root: &BString, which: &str) -> Result<Vec<BString>> {
    let mut pathspec = OsString::from(":(top,literal)");
    pathspec.push(OsString::from_vec(root.to_vec()));
    tracked.git("ls-files").args([which, "--exclude-standard"]).path(pathspec).records()
}

/// Builds a git command that reads `index` for the files at `root`. Nothing else of the nested repository is read, since a
/// worker may have written its settings.
fn reading(tracked: &Tracked<'_>, root: &BString, index: &Path, verb: &'static str) -> Git {
    let git = Git::on(&on_disk(tracked, root.as_bstr()), &tracked.git_dir, verb).only_reads();
    git.env("GIT_INDEX_FILE", index).works_for(tracked.repo.common_dir(), tracked.run)
}

/// Lists the files that the repository at `root` tracks, relative to the workspace.
fn tracked_there(tracked: &Tracked<'_>, root: &BString) -> BTreeSet<BString> {
    let index = git_dir(&on_disk(tracked, root.as_bstr())).map(|dir| dir.join("index"));
    let Some(index) = index.filter(|index| index.is_file()) else { return BTreeSet::new() };
    // A damaged index, or one with another hash, is ignored.
    let names = reading(tracked, root, &index, "ls-files").arg("--cached").records().unwrap_or_default();
    names.into_iter().map(|name| below(root, name.as_bstr())).collect()
}

fn below(root: &BString, name: &BStr) -> BString {
    [root.as_slice(), b"/", name].concat().into()
}

/// Adds files that the repository at `root` has committed or staged although its own ignore files match them. Files that our
/// ignore files match are not added.
fn add_tracked(tracked: &Tracked<'_>, root: &BString) -> Result<()> {
    let held: BTreeSet<BString> = below_root(tracked, root, "--cached")?.into_iter().collect();
    let is_file = |path: &BString| on_disk(tracked, path.as_bstr()).symlink_metadata().is_ok_and(|file| !file.is_dir());
    let missing: Vec<BString> =
        tracked_there(tracked, root).into_iter().filter(|path| !held.contains(path) && is_file(path)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let git = tracked.git("check-ignore").args(["--verbose", "--no-index", "-z", "--stdin"]);
    let matched = git.input(nul_terminated(&missing)).output()?.stdout;
    let fields: Vec<&[u8]> = matched.split(|byte| *byte == 0).collect();
    let inside = [root.as_slice(), b"/"].concat();
    let ours = |rule: &&[&[u8]]| !rule[0].starts_with(&inside) && !rule[2].starts_with(b"!");
    let hidden: BTreeSet<&[u8]> = fields.chunks_exact(4).filter(ours).map(|rule| rule[3]).collect();
    let names: Vec<&BString> = missing.iter().filter(|path| !hidden.contains(path.as_slice())).collect();
    let add = |names: &[&BString]| {
        tracked.git("update-index").args(["--add", "-z", "--stdin"]).input(nul_terminated(names)).succeeds()
    };
    // A path that git refuses, such as `.GIT/config`, must not prevent the others.
    if !add(&names)? {
        for name in names {
            add(&[name])?;
        }
    }
    Ok(())
}

/// Removes files that the repository at `root` excludes in its own git directory, except those that it tracks or the work
/// had before.
fn remove_excluded(tracked: &Tracked<'_>, before: ObjectId, root: &BString) -> Result<()> {
    let Some(rules) = git_dir(&on_disk(tracked, root.as_bstr())).map(|dir| dir.join("info/exclude")) else {
        return Ok(());
    };
    let has_rules = |text: Vec<u8>| text.lines().any(|line| !line.trim().is_empty() && !line.starts_with(b"#"));
    // Reading a FIFO would block until it has a writer.
    if !rules.is_file() || !std::fs::read(&rules).is_ok_and(has_rules) {
        return Ok(());
    }
    let index = tracked.index.with_added_extension("nested");
    let _ = std::fs::remove_file(&index);
    let tree = tracked.git("write-tree").arg(prefix(root)).word()?;
    reading(tracked, root, &index, "read-tree").id(Repository::id(&tree)?).run()?;
    let mut exclude = OsString::from("--exclude-from=");
    exclude.push(rules);
    let names = reading(tracked, root, &index, "ls-files").args(["--cached", "--ignored"]).arg(exclude).records();
    let _ = std::fs::remove_file(&index);
    let own = tracked_there(tracked, root);
    let gix = tracked.repo.gix();
    let old = gix.find_tree(before).context("a tree cannot be read")?;
    let was_there = |path: &BString| {
        old.lookup_entry_by_path(Path::new(OsStr::from_bytes(path))).is_ok_and(|entry| entry.is_some())
    };
    let excluded = names?.into_iter().map(|name| below(root, name.as_bstr()));
    let excluded: Vec<BString> = excluded.filter(|path| !own.contains(path) && !was_there(path)).collect();
    if excluded.is_empty() {
        return Ok(());
    }
    tracked
        .git("update-index")
        .args(["--force-remove", "-z", "--stdin"])
        .input(nul_terminated(excluded))
        .run()
        .map(|_| ())
}

fn prefix(root: &BString) -> OsString {
    let mut prefix = OsString::from("--prefix=");
    prefix.push(OsStr::from_bytes(root));
    prefix.push("/");
    prefix
}

/// Puts commits and files of a linked worktree on a rescue ref. Returns remarks.
fn keep_linked(tracked: &Tracked<'_>, path: &BString) -> Result<Vec<String>> {
    let Some(admin) = admin_of_linked(tracked, path) else { return Ok(Vec::new()) };
    let (gix, root) = (tracked.repo.gix(), on_disk(tracked, path.as_bstr()));
    let head = Git::on(&root, &admin, "rev-parse").args(["--verify", "--quiet"]).revision("HEAD^{commit}").output()?;
    let head = Repository::id(String::from_utf8_lossy(&head.stdout).trim()).ok();
    let parent_tree = match head {
        Some(head) => gix.find_commit(head).and_then(|commit| commit.tree_id().map(gix::Id::detach)).ok(),
        None => None,
    };
    let parent_tree = parent_tree.unwrap_or_else(|| ObjectId::empty_tree(gix.object_hash()));
    let index = tracked.index.with_added_extension("linked");
    let _ = std::fs::remove_file(&index);
    let seed = admin.join("index");
    let there =
        Tracked { repo: tracked.repo, run: tracked.run, path: &root, git_dir: admin, index: index.clone(), seed };
    let written = there.write(&parent_tree.to_string());
    let _ = std::fs::remove_file(index);
    let written = written?;
    let tree = Repository::id(&written.id)?;
    let mover = Arc::new(RefMover::new(tracked.repo.common_dir().to_owned()).synced(true));
    let mut kept = Vec::new();
    let commit = if tree == parent_tree {
        head
    } else if is_kept(tracked, tree, head)? {
        None
    } else {
        let message = format!("agentloop: uncommitted in '{path}', a worktree that a worker of {} made\n", tracked.run);
        Some(branch::commit(&gix, &tracked.repo.identity(), &message, tree, head.into_iter().collect())?)
    };
    if let Some(commit) = commit {
        kept.extend(branch::rescue(tracked.repo, &mover, tracked.run, commit)?);
    }
    kept.extend(written.remarks);
    Ok(kept)
}

/// Reports whether a rescue ref of the run has `tree` on top of `parent` already.
fn is_kept(tracked: &Tracked<'_>, tree: ObjectId, parent: Option<ObjectId>) -> Result<bool> {
    let gix = tracked.repo.gix();
    let prefix = format!("refs/agentloop/rescue/{}/", tracked.run);
    let kept = gix.references().context("refs cannot be read")?;
    let kept = kept.prefixed(prefix.as_str()).context("refs cannot be read")?;
    let same = |id: gix::Id<'_>| {
        let commit = id.object().ok()?.try_into_commit().ok()?;
        let is_same_tree = commit.tree_id().ok()?.detach() == tree;
        Some(is_same_tree && commit.parent_ids().next().map(gix::Id::detach) == parent)
    };
    Ok(kept.filter_map(std::result::Result::ok).any(|one| one.try_id().and_then(same).unwrap_or_default()))
}
