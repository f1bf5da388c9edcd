//! Writes a workspace as a tree object, through an index of our own.
//!
//! Ours, so that it does not matter what a worker did to the worktree's: a held `index.lock`, a half-done merge, files
//! staged or not. Its stat data makes the next tree cheap: only what changed is read again.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice as _};
use gix::object::tree::diff::ChangeDetached;
use gix::objs::tree::EntryKind;

use super::command::{self, Git, nul_terminated};
use super::provision::Brought;
use super::provision::submodules::{self, Standing};
use super::repository::Repository;
use super::unseen::{self, Pipes};
use super::worktree::Worktree;
use super::{branch, stat};
use crate::error::{Context as _, Error, Result};
use crate::ledger::Tree;
use crate::run::goal::RunId;
use crate::run::text::{a_few, count};

/// Lines of git's complaints that a remark repeats.
const COMPLAINTS: usize = 5;
/// Paths that one command of git is given.
const ARGUMENTS: usize = 1000;
/// Files of a nested repository that are captured; the rest is only counted.
const MOST_NESTED: usize = 10_000;

/// The index and the place that it describes.
pub struct Tracked<'a> {
    /// The repository.
    pub repo: &'a Repository,
    /// The run that works there.
    pub run: &'a RunId,
    /// The workspace's files.
    pub path: &'a Path,
    /// The git directory that they belong to: a worker may have removed what points there.
    pub git_dir: PathBuf,
    /// Our index.
    pub index: PathBuf,
    /// The index to begin with, for its stat data.
    pub seed: PathBuf,
}

impl Tracked<'_> {
    /// Writes the workspace as a tree; `before` is the tree that it grew from.
    pub fn write(&self, before: &str) -> Result<Tree> {
        self.prepare()?;
        let ((written, hidden), in_the_way) = self.unhindered(|| {
            // Beside each other: either walks the whole workspace.
            std::thread::scope(|scope| {
                let hidden = scope.spawn(|| unseen::hidden(self, before));
                let written = self.write_what_git_sees(before)?;
                let hidden = hidden.join().map_err(|_| Error::failed("the search for hidden files died"))??;
                Ok((written, hidden))
            })
        })?;
        let Tree { id, mut remarks } = written;
        remarks.extend(in_the_way);
        remarks.extend(hidden);
        Ok(Tree { id, remarks })
    }

    /// Has git `work` in the workspace, whatever is in its way there; what was, in words.
    fn unhindered<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Option<String>)> {
        let pipes = Pipes::watch(self.path);
        let done = work();
        let taken = pipes.taken_away(self.path);
        Ok((done?, taken))
    }

    fn write_what_git_sees(&self, before: &str) -> Result<Tree> {
        self.fill_in()?;
        let mut remarks = submodules::keep(self)?;
        let mut nested = Vec::new();
        let added = self.git("add").args(["-A", "--sparse"]).output()?;
        if !added.status.success() {
            // One nested repository without commits and nothing is staged; one unreadable file likewise.
            nested = self.nested()?;
            let excluded = nested.iter().map(|path| {
                let mut pathspec = OsString::from(":(top,exclude,literal)");
                pathspec.push(OsString::from_vec(path.to_vec()));
                pathspec
            });
            let again =
                self.git("add").args(["-A", "--sparse", "--ignore-errors"]).path(".").paths(excluded).output()?;
            if !again.status.success() {
                let said = String::from_utf8_lossy(&again.stderr).into_owned();
                if said.contains("No space left on device") || said.contains("unable to write") {
                    return Err(command::failure("git add", again.status, &said));
                }
                let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).take(COMPLAINTS).collect();
                let as_they_are = match self.add_as_they_are()? {
                    0 => String::new(),
                    files => format!(" (captured byte for byte instead: {})", count(files, "file")),
                };
                remarks.push(format!("git could not capture everything: {}{as_they_are}", lines.join("; ")));
            }
        }
        let tree = self.git("write-tree").word()?;
        let tree = self.withhold(tree, before, &mut remarks)?;
        let (id, more) = self.unnest(&tree, before, nested)?;
        remarks.extend(more);
        Ok(Tree { id, remarks })
    }

    /// The tree that was written last, where nothing but what git ignores has come or changed since; none where that
    /// is not certain.
    pub fn untouched(&self) -> Result<Option<ObjectId>> {
        let Some(tree) = stat::untouched_tree(&self.index, self.path, self.repo.gix().object_hash()) else {
            return Ok(None);
        };
        // An empty directory is named as well: the next worker is not to find it.
        let list = ["--others", "--directory", "--exclude-standard"];
        let (others, _) = self.unhindered(|| self.git("ls-files").args(list).run())?;
        Ok(others.is_empty().then_some(tree))
    }

    /// Files that differ from the tree that was written last.
    pub fn changed(&self) -> Result<Vec<String>> {
        if stat::is_untouched(&self.index, self.path, self.repo.gix().object_hash()) {
            return Ok(Vec::new());
        }
        let git = self.git("diff-files").only_reads().args(["--name-only", "--ignore-submodules=all"]);
        Ok(git.records()?.iter().map(|name| name.to_str_lossy().into_owned()).collect())
    }

    /// Files that git could not take into the tree that was written last, work though they are.
    pub fn uncaptured(&self) -> Result<Vec<String>> {
        let others = self.others()?;
        let brought = Brought::read(&self.git_dir);
        // By a trailing slash git names repositories, whose files are captured.
        let names = others.iter().filter(|name| !name.ends_with(b"/"));
        let own = names.filter(|name| !brought.holds(Path::new(OsStr::from_bytes(name))));
        Ok(own.map(|name| name.to_str_lossy().into_owned()).collect())
    }

    /// Brings the files from `from`, the tree that was written last, to `to`: only what differs is touched.
    pub fn advance(&self, from: &str, to: &str) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let submodules = Standing::of(self)?;
        let git = self.git("read-tree").setting("checkout.workers", "0").args(["-m", "-u"]);
        git.id(Repository::id(from)?).id(Repository::id(to)?).run()?;
        submodules.follow(self)
    }

    /// Has our index know what `commit` holds; what it knows of files that are the same stays. What was noticed, in words.
    pub fn follow(&self, commit: &str) -> Result<Vec<String>> {
        self.prepare()?;
        let remarks = submodules::keep(self)?;
        let submodules = Standing::of(self)?;
        self.git("read-tree").arg("--reset").id(Repository::id(commit)?).run()?;
        submodules.follow(self).map(|()| remarks)
    }

    /// Brings a worktree to `commit`; edits in it that the commit does not touch stay.
    pub fn take_in(&self, worktree: &Worktree, commit: &str) -> Result<()> {
        self.prepare()?;
        let submodules = Standing::of(self)?;
        branch::take_in(worktree, commit)?;
        let _ = std::fs::remove_file(&self.index); // the worktree's own knows the new files
        self.prepare()?;
        submodules.follow(self)
    }

    /// Makes the files those of `commit`; what git ignores stays.
    pub fn reset(&self, commit: &str) -> Result<()> {
        let reset = || {
            self.prepare()?;
            let submodules = Standing::of(self)?;
            let git = self.git("read-tree").setting("checkout.workers", "0").args(["-u", "--reset"]);
            git.id(Repository::id(commit)?).run()?;
            submodules.follow(self)?;
            // Twice forced: repositories that a worker made go too, once their files are on record.
            self.git("clean").arg("-ffdq").run().map(|_| ())
        };
        self.unhindered(reset).map(|_| ())
    }

    /// Restores the files to `tree`, those that git ignores left out; the paths that differed.
    pub fn restore(&self, tree: &str) -> Result<Vec<String>> {
        let expected = Repository::id(tree)?;
        self.prepare()?;
        if self.untouched()? == Some(expected) {
            return Ok(Vec::new());
        }
        let ((changed, others), _) = self.unhindered(|| {
            // Git knows by content what differs once the stat data was refreshed; it says so by its status too.
            self.git("update-index").args(["-q", "--really-refresh"]).output()?;
            let differing = self.git("diff-index").args(["--name-only", "--ignore-submodules=none"]);
            let list = ["--others", "--directory", "--exclude-standard"];
            Ok((differing.id(expected).records()?, self.git("ls-files").args(list).records()?))
        })?;
        let brought = Brought::read(&self.git_dir);
        let is_ours = |name: &&BString| {
            let name = name.strip_suffix(b"/").unwrap_or(name.as_slice());
            !brought.holds(Path::new(OsStr::from_bytes(name)))
        };
        let new: Vec<&BString> = others.iter().filter(is_ours).collect();
        if !changed.is_empty() {
            let submodules = Standing::of(self)?;
            let git = self.git("read-tree").setting("checkout.workers", "0").args(["-u", "--reset"]);
            git.id(expected).run()?;
            submodules.follow(self)?;
        }
        for some in new.chunks(ARGUMENTS) {
            // Twice forced: also repositories that somebody made.
            let git = self.git("clean").env("GIT_LITERAL_PATHSPECS", "1").arg("-ffdq");
            git.paths(some.iter().map(|name| OsStr::from_bytes(name))).run()?;
        }
        let named = changed.iter().chain(new).map(|name| name.to_str_lossy().into_owned());
        let mut named: Vec<String> = named.collect();
        named.sort();
        Ok(named)
    }

    /// git in the workspace, with our index.
    pub(super) fn git(&self, verb: &'static str) -> Git {
        // Git goes on when its driver is killed, and must not write or clean beside the next driver's workers.
        Git::on(self.path, &self.git_dir, verb).env("GIT_INDEX_FILE", &self.index).works_for(self.repo, self.run)
    }

    /// Makes our index stand, from the workspace's own where there is none yet.
    pub fn prepare(&self) -> Result<()> {
        // We alone write here, under the run's lock: a lock file is what a killed git left.
        let _ = std::fs::remove_file(self.index.with_added_extension("lock"));
        if self.index.exists() || !self.seed.exists() {
            return Ok(());
        }
        let staged = self.index.with_added_extension("new");
        let copied = std::fs::copy(&self.seed, &staged).and_then(|_| std::fs::rename(&staged, &self.index));
        copied.context("the run's index cannot be written")
    }

    /// Puts back the files that somebody's sparse-checkout took out of the workspace: nobody deleted them. What it was without
    /// from the beginning stays out.
    fn fill_in(&self) -> Result<()> {
        if !self.git_dir.join("info/sparse-checkout").exists() {
            return Ok(());
        }
        let left_out = |index: &Path| stat::left_out(index, self.repo.gix().object_hash());
        let ours = left_out(&self.index);
        let is_gone = |path: &BString| self.path.join(OsStr::from_bytes(path)).symlink_metadata().is_err();
        let gone: Vec<BString> =
            left_out(&self.seed).into_iter().filter(|path| !ours.contains(path) && is_gone(path)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        // One that our index does not know is the worker's own, and shows as what it is: deleted.
        let git = self.git("checkout-index").args(["-q", "-z", "--stdin"]);
        git.input(nul_terminated(gone)).output().map(|_| ())
    }

    /// Adds what git could not, as it is: git gives up at the first file that an attribute of a worker's has it convert in
    /// vain. How many files that were.
    fn add_as_they_are(&self) -> Result<usize> {
        let gix = self.repo.gix();
        let listed = self.git("ls-files").args(["--others", "--modified", "--exclude-standard"]).records()?;
        let (mut paths, mut lines) = (Vec::new(), Vec::new());
        for path in listed.iter().filter(|path| !path.ends_with(b"/")) {
            let Some((kind, content)) = content(&self.path.join(OsStr::from_bytes(path))) else { continue };
            let blob = gix.write_blob(content).context("a file cannot be written to the repository")?;
            let mut line = format!("{:o} {blob}\t", gix::objs::tree::EntryMode::from(kind).value()).into_bytes();
            line.extend_from_slice(path.as_slice());
            line.push(0);
            lines.push(line);
            paths.push(path);
        }
        let add =
            |lines: &[Vec<u8>]| self.git("update-index").args(["-z", "--index-info"]).input(lines.concat()).succeeds();
        if !add(&lines)? {
            for line in lines.iter().take(MOST_NESTED) {
                add(std::slice::from_ref(line))?;
            }
        }
        // Names that it takes for its own git passes over.
        let listed = self.git("ls-files").records()?;
        let held: HashSet<&BString> = listed.iter().collect();
        Ok(paths.iter().filter(|path| held.contains(*path)).count())
    }

    /// Repositories that somebody made inside the workspace: git lists them by a trailing slash.
    fn nested(&self) -> Result<Vec<BString>> {
        Ok(self.others()?.iter().filter_map(|name| name.strip_suffix(b"/")).map(BString::from).collect())
    }

    /// Files that our index does not know and git does not ignore; a repository by its folder.
    fn others(&self) -> Result<Vec<BString>> {
        self.git("ls-files").args(["--others", "--exclude-standard"]).records()
    }

    /// Takes what was copied from the user's checkout out of the tree, where git does not ignore it any more.
    fn withhold(&self, tree: String, before: &str, remarks: &mut Vec<String>) -> Result<String> {
        if tree == before {
            return Ok(tree);
        }
        let brought = Brought::read(&self.git_dir);
        let added = added(&self.repo.gix(), Repository::id(before)?, Repository::id(&tree)?)?;
        let files = added.iter().filter(|change| !change.entry_mode().is_tree()).map(ChangeDetached::location);
        let held: Vec<&BStr> = files.filter(|file| brought.holds(Path::new(OsStr::from_bytes(file)))).collect();
        if held.is_empty() {
            return Ok(tree);
        }
        let names: Vec<String> = held.iter().map(|file| format!("'{file}'")).collect();
        remarks.push(format!(
            "git does not ignore {} any more: copied from your checkout, and not part of the work",
            a_few(&names, 1)
        ));
        let git = self.git("update-index").args(["--force-remove", "-z", "--stdin"]);
        git.input(nul_terminated(held.iter().map(|file| file.as_bytes()))).run()?;
        self.git("write-tree").word()
    }

    /// Puts the files of nested repositories into the tree, in the place of links to commits that nobody else has.
    fn unnest(&self, tree: &str, before: &str, unborn: Vec<BString>) -> Result<(String, Vec<String>)> {
        let gix = self.repo.gix();
        let (new, old) = (Repository::id(tree)?, Repository::id(before)?);
        let mut nested = unborn;
        if new != old {
            nested.extend(new_links(&gix, old, new)?);
        }
        nested.retain(|path| !is_submodule(&gix, new, path));
        if nested.is_empty() {
            return Ok((tree.to_owned(), Vec::new()));
        }
        let mut editor = gix.edit_tree(new).context("the tree cannot be edited")?;
        let mut remarks = Vec::new();
        for path in nested {
            let root = self.path.join(OsStr::from_bytes(&path));
            let files = files_below(&root);
            editor.remove(path.as_bstr()).context("the tree cannot be edited")?;
            let mut captured = 0;
            for file in files.iter().take(MOST_NESTED) {
                let Some((kind, content)) = content(file) else { continue };
                let Ok(relative) = file.strip_prefix(self.path) else { continue };
                if !is_nameable(relative, kind) {
                    continue;
                }
                captured += 1;
                let blob = gix.write_blob(content).context("a file cannot be written to the repository")?;
                let name: &gix::bstr::BStr = relative.as_os_str().as_bytes().as_bstr();
                editor.upsert(name, kind, blob).context("the tree cannot be edited")?;
            }
            let left = files.len() - captured;
            let rest = if left > 0 { format!("; {left} more are left out") } else { String::new() };
            remarks.push(format!("'{path}' is a repository of its own: captured as {}{rest}", count(captured, "file")));
        }
        let written = editor.write().context("the tree cannot be written")?;
        Ok((written.to_string(), remarks))
    }
}

/// Paths that `new` has as links to commits and `old` has not.
fn new_links(gix: &gix::Repository, old: ObjectId, new: ObjectId) -> Result<Vec<BString>> {
    let links = added(gix, old, new)?.into_iter().filter(|change| change.entry_mode().is_commit());
    Ok(links.map(|change| change.location().to_owned()).collect())
}

/// What `new` has and `old` has not.
fn added(gix: &gix::Repository, old: ObjectId, new: ObjectId) -> Result<Vec<ChangeDetached>> {
    let mut changes = changes(gix, old, new)?;
    changes.retain(|change| matches!(change, ChangeDetached::Addition { .. }));
    Ok(changes)
}

/// What differs between two trees, renames as what they are: a file gone and a file come.
pub(super) fn changes(gix: &gix::Repository, old: ObjectId, new: ObjectId) -> Result<Vec<ChangeDetached>> {
    let tree = |id: ObjectId| gix.find_object(id).and_then(gix::Object::peel_to_tree).context("a tree cannot be read");
    let (old, new) = (tree(old)?, tree(new)?);
    let options = gix::diff::Options::default().with_rewrites(None);
    gix.diff_tree_to_tree(Some(&old), Some(&new), options).context("two trees cannot be compared")
}

/// Whether the tree's `.gitmodules` names `path`.
fn is_submodule(gix: &gix::Repository, tree: ObjectId, path: &BString) -> bool {
    let modules = || {
        let entry = gix.find_tree(tree).ok()?.lookup_entry_by_path(".gitmodules").ok()??;
        Some(entry.object().ok()?.detach().data)
    };
    let Some(modules) = modules() else { return false };
    modules.lines().any(|line| {
        let (key, value) = line.split_once_str("=").unwrap_or((line, b""));
        key.trim() == b"path" && value.trim() == path.as_slice()
    })
}

/// Every file below a nested repository, without its `.git`.
fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name() == ".git" {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() || kind.is_symlink() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// Whether git takes these names for files of its user's, on every file system: `.GIT` and `git~1` it does not, and a tree
/// with them could not be checked out.
fn is_nameable(path: &Path, kind: EntryKind) -> bool {
    use gix::validate::path::component::{Mode, Options};
    let everywhere = Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };
    let mode = (kind == EntryKind::Link).then_some(Mode::Symlink);
    let mut parts = path.components().map(|part| part.as_os_str().as_bytes().as_bstr());
    parts.all(|part| gix::validate::path::component(part, mode, everywhere).is_ok())
}

fn content(file: &Path) -> Option<(EntryKind, Vec<u8>)> {
    use std::os::unix::fs::PermissionsExt as _;
    let about = file.symlink_metadata().ok()?;
    if about.is_symlink() {
        return Some((EntryKind::Link, std::fs::read_link(file).ok()?.into_os_string().into_vec()));
    }
    if !about.is_file() {
        return None;
    }
    let kind = if about.permissions().mode() & 0o100 == 0 { EntryKind::Blob } else { EntryKind::BlobExecutable };
    Some((kind, std::fs::read(file).ok()?))
}
