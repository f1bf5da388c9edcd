//! Writes a workspace as a tree object, through an index of our own.
//!
//! Our own index is independent of the worktree's, which a worker may have left with a held `index.lock`, an unfinished
//! merge or staged files. Its stat data makes the next tree cheap: only changed files are read again.

mod nested;
pub(super) mod submodules;
mod unseen;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::bstr::{BStr, BString, ByteSlice as _};
use gix::object::tree::diff::ChangeDetached;
use gix::objs::tree::EntryKind;

use self::nested::Nested;
use self::submodules::CleanSubmodules;
use self::unseen::FifoRemover;
use super::command::{self, Git, nul_terminated};
use super::provision::CopiedFiles;
use super::repository::Repository;
use super::worktree::Worktree;
use super::{branch, stat};
use crate::error::{Context as _, Error, Result};
use crate::ledger::Tree;
use crate::run::goal::RunId;
use crate::run::text::{a_few, count};

/// Number of git's error lines that a remark repeats.
const COMPLAINTS: usize = 5;
/// Number of paths that one git command gets.
const ARGUMENTS: usize = 1000;
/// Number of files that are added one by one after git refused one of them.
const MOST_SINGLY: usize = 10_000;

/// A workspace and our index of it.
pub struct Tracked<'a> {
    /// The repository.
    pub repo: &'a Repository,
    /// The run that works in it.
    pub run: &'a RunId,
    /// The directory of its files.
    pub path: &'a Path,
    /// The git directory of the files, even if a worker removed the link to it.
    pub git_dir: PathBuf,
    /// Our index.
    pub index: PathBuf,
    /// The index to start from, for its stat data.
    pub seed: PathBuf,
}

impl Tracked<'_> {
    /// Writes the workspace as a tree; `before` is the tree that it is based on.
    pub fn write(&self, before: &str) -> Result<Tree> {
        self.prepare()?;
        let ((written, hidden), in_the_way) = self.without_fifos(|| {
            // In parallel, since each walks the whole workspace.
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

    /// Runs `work` of git in the workspace while FIFOs that would block git are removed. Returns a remark on those.
    fn without_fifos<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<(T, Option<String>)> {
        let fifos = FifoRemover::watch(self.path);
        let done = work();
        let taken = fifos.stop(self.path);
        Ok((done?, taken))
    }

    fn write_what_git_sees(&self, before: &str) -> Result<Tree> {
        self.restore_sparse()?;
        let mut remarks = submodules::keep(self)?;
        let old = Repository::id(before)?;
        let mut nested = Nested::default();
        // With one unreadable file nothing is staged; the second time git skips what it cannot add.
        let mut is_lenient = false;
        let complaint = loop {
            let mut add = self.git("add").args(["-A", "--sparse"]);
            if is_lenient {
                add = add.arg("--ignore-errors");
            }
            let added = add.path(".").paths(nested.excluded()).output()?;
            let has_more = nested.find(self, old, added.status.success())?;
            match (added.status.success(), has_more) {
                (_, true) => {}
                (true, false) => break None,
                (false, false) if is_lenient => break Some(added),
                (false, false) => is_lenient = true,
            }
        };
        if let Some(again) = complaint {
            let stderr = String::from_utf8_lossy(&again.stderr).into_owned();
            if stderr.contains("No space left on device") || stderr.contains("unable to write") {
                return Err(command::failure("git add", again.status, &stderr));
            }
            let lines: Vec<&str> = stderr.lines().filter(|line| !line.is_empty()).take(COMPLAINTS).collect();
            nested.index_changed();
            let unconverted = match self.add_unconverted()? {
                0 => String::new(),
                files => format!(" (captured byte for byte instead: {})", count(files, "file")),
            };
            remarks.push(format!("git could not capture everything: {}{unconverted}", lines.join("; ")));
        }
        let tree = nested.settle(self, old)?;
        let id = self.exclude_copied(tree.to_string(), before, &mut remarks)?;
        remarks.extend(nested.remarks(self)?);
        Ok(Tree { id, remarks })
    }

    /// Returns the tree that was written last if only ignored files were added or changed since; `None` if that is
    /// uncertain.
    pub fn untouched(&self) -> Result<Option<ObjectId>> {
        let Some(tree) = stat::untouched_tree(&self.index, self.path, self.repo.gix().object_hash()) else {
            return Ok(None);
        };
        // Empty directories are listed too, since the next worker must not find them.
        let list = ["--others", "--directory", "--exclude-standard"];
        let (others, _) = self.without_fifos(|| self.git("ls-files").args(list).run())?;
        Ok(others.is_empty().then_some(tree))
    }

    /// Lists the files that differ from the tree that was written last.
    pub fn changed(&self) -> Result<Vec<String>> {
        if stat::is_untouched(&self.index, self.path, self.repo.gix().object_hash()) {
            return Ok(Vec::new());
        }
        let git = self.git("diff-files").only_reads().args(["--name-only", "--ignore-submodules=all"]);
        Ok(git.records()?.iter().map(|name| name.to_str_lossy().into_owned()).collect())
    }

    /// Lists the files of the work that git could not add to the tree that was written last.
    pub fn uncaptured(&self) -> Result<Vec<String>> {
        let copied = CopiedFiles::read(&self.git_dir);
        let mut names = Vec::new();
        for name in self.others()? {
            // With a trailing slash git lists repositories of which nothing was captured.
            let is_uncaptured = match name.strip_suffix(b"/") {
                Some(root) => nested::holds_more(self, root.into())?,
                None => !copied.holds(Path::new(OsStr::from_bytes(&name))),
            };
            if is_uncaptured {
                names.push(name.to_str_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// Updates the files from `from`, the tree that was written last, to `to`, touching only those that differ.
    pub fn advance(&self, from: &str, to: &str) -> Result<()> {
        if from == to {
            return Ok(());
        }
        let submodules = CleanSubmodules::of(self)?;
        let git = self.git("read-tree").setting("checkout.workers", "0").args(["-m", "-u"]);
        git.id(Repository::id(from)?).id(Repository::id(to)?).run()?;
        submodules.follow(self)
    }

    /// Reads `commit` into our index, keeping the stat data of files that are the same. Returns remarks.
    pub fn follow(&self, commit: &str) -> Result<Vec<String>> {
        self.prepare()?;
        let remarks = submodules::keep(self)?;
        let submodules = CleanSubmodules::of(self)?;
        self.git("read-tree").arg("--reset").id(Repository::id(commit)?).run()?;
        submodules.follow(self).map(|()| remarks)
    }

    /// Checks `commit` out in a worktree; edits of files that do not differ in the commit stay.
    pub fn check_out(&self, worktree: &Worktree, commit: &str) -> Result<()> {
        self.prepare()?;
        let submodules = CleanSubmodules::of(self)?;
        branch::check_out(worktree, commit)?;
        let _ = std::fs::remove_file(&self.index); // the worktree's own index has the new files
        self.prepare()?;
        submodules.follow(self)
    }

    /// Resets the files to `commit`, except ignored ones.
    pub fn reset(&self, commit: &str) -> Result<()> {
        let reset = || {
            self.prepare()?;
            let submodules = CleanSubmodules::of(self)?;
            let git = self.git("read-tree").setting("checkout.workers", "0").args(["-u", "--reset"]);
            git.id(Repository::id(commit)?).run()?;
            submodules.follow(self)?;
            // Forced twice: nested repositories are removed too, once their files are recorded.
            self.git("clean").arg("-ffdq").run().map(|_| ())
        };
        self.without_fifos(reset).map(|_| ())
    }

    /// Restores the files to `tree`, except ignored ones, and returns the paths that differed.
    pub fn restore(&self, tree: &str) -> Result<Vec<String>> {
        let expected = Repository::id(tree)?;
        self.prepare()?;
        if self.untouched()? == Some(expected) {
            return Ok(Vec::new());
        }
        let ((changed, others), _) = self.without_fifos(|| {
            // git compares by content once the stat data is refreshed. It also reports differences by its exit status.
            self.git("update-index").args(["-q", "--really-refresh"]).output()?;
            let differing = self.git("diff-index").args(["--name-only", "--ignore-submodules=none"]);
            let list = ["--others", "--directory", "--exclude-standard"];
            Ok((differing.id(expected).records()?, self.git("ls-files").args(list).records()?))
        })?;
        let copied = CopiedFiles::read(&self.git_dir);
        let is_ours = |name: &&BString| {
            let name = name.strip_suffix(b"/").unwrap_or(name.as_slice());
            !copied.holds(Path::new(OsStr::from_bytes(name)))
        };
        let new: Vec<&BString> = others.iter().filter(is_ours).collect();
        if !changed.is_empty() {
            let submodules = CleanSubmodules::of(self)?;
            let git = self.git("read-tree").setting("checkout.workers", "0").args(["-u", "--reset"]);
            git.id(expected).run()?;
            submodules.follow(self)?;
        }
        for some in new.chunks(ARGUMENTS) {
            // Forced twice, to clean nested repositories too.
            let git = self.git("clean").env("GIT_LITERAL_PATHSPECS", "1").arg("-ffdq");
            git.paths(some.iter().map(|name| OsStr::from_bytes(name))).run()?;
        }
        let named = changed.iter().chain(new).map(|name| name.to_str_lossy().into_owned());
        let mut named: Vec<String> = named.collect();
        named.sort();
        Ok(named)
    }

    /// Builds a git command in the workspace, with our index.
    pub(super) fn git(&self, verb: &'static str) -> Git {
        // git survives its driver, and must not write or clean while the next driver's workers run.
        Git::on(self.path, &self.git_dir, verb)
            .env("GIT_INDEX_FILE", &self.index)
            .works_for(self.repo.common_dir(), self.run)
    }

    /// Copies the workspace's index as ours if there is none yet.
    pub fn prepare(&self) -> Result<()> {
        // Only the driver with the run's lock writes here: a lock file was left by a killed git.
        let _ = std::fs::remove_file(self.index.with_added_extension("lock"));
        if self.index.exists() || !self.seed.exists() {
            return Ok(());
        }
        let staged = self.index.with_added_extension("new");
        let copied = std::fs::copy(&self.seed, &staged).and_then(|_| std::fs::rename(&staged, &self.index));
        copied.context("the run's index cannot be written")
    }

    /// Restores files that a sparse-checkout set up by a worker removed from the workspace, since no one deleted them. Files
    /// that were left out from the beginning stay out.
    fn restore_sparse(&self) -> Result<()> {
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
        // A file that our index does not have is the worker's own and counts as deleted.
        let git = self.git("checkout-index").args(["-q", "-z", "--stdin"]);
        git.input(nul_terminated(gone)).output().map(|_| ())
    }

    /// Adds files that git could not add, byte for byte: git gives up at the first file whose conversion, set by a worker's
    /// attribute, fails. Returns their number.
    fn add_unconverted(&self) -> Result<usize> {
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
            for line in lines.iter().take(MOST_SINGLY) {
                add(std::slice::from_ref(line))?;
            }
        }
        // git skips reserved names such as `.git`.
        let listed = self.git("ls-files").records()?;
        let held: HashSet<&BString> = listed.iter().collect();
        Ok(paths.iter().filter(|path| held.contains(*path)).count())
    }

    /// Lists nested repositories, which git lists with a trailing slash.
    pub(super) fn nested(&self) -> Result<Vec<BString>> {
        Ok(self.others()?.iter().filter_map(|name| name.strip_suffix(b"/")).map(BString::from).collect())
    }

    /// Lists files that our index does not have and git does not ignore; a nested repository as its folder.
    fn others(&self) -> Result<Vec<BString>> {
        self.git("ls-files").args(["--others", "--exclude-standard"]).records()
    }

    /// Removes files copied from the user's checkout from the tree if git no longer ignores them.
    fn exclude_copied(&self, tree: String, before: &str, remarks: &mut Vec<String>) -> Result<String> {
        if tree == before {
            return Ok(tree);
        }
        let copied = CopiedFiles::read(&self.git_dir);
        let added = added(&self.repo.gix(), Repository::id(before)?, Repository::id(&tree)?)?;
        let files = added.iter().filter(|change| !change.entry_mode().is_tree()).map(ChangeDetached::location);
        let held: Vec<&BStr> = files.filter(|file| copied.holds(Path::new(OsStr::from_bytes(file)))).collect();
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
}

/// Lists the entries that `new` has and `old` has not.
pub(super) fn added(gix: &gix::Repository, old: ObjectId, new: ObjectId) -> Result<Vec<ChangeDetached>> {
    let mut changes = changes(gix, old, new)?;
    changes.retain(|change| matches!(change, ChangeDetached::Addition { .. }));
    Ok(changes)
}

/// Compares two trees, with a rename as a deletion and an addition.
pub(super) fn changes(gix: &gix::Repository, old: ObjectId, new: ObjectId) -> Result<Vec<ChangeDetached>> {
    let tree = |id: ObjectId| gix.find_object(id).and_then(gix::Object::peel_to_tree).context("a tree cannot be read");
    let (old, new) = (tree(old)?, tree(new)?);
    let options = gix::diff::Options::default().with_rewrites(None);
    gix.diff_tree_to_tree(Some(&old), Some(&new), options).context("two trees cannot be compared")
}

/// Reports whether the tree's `.gitmodules` names `path`.
pub(super) fn is_submodule(gix: &gix::Repository, tree: ObjectId, path: &BString) -> bool {
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
