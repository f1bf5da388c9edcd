//! Writes a workspace as a tree object, through an index of our own.
//!
//! Ours, so that it does not matter what a worker did to the worktree's: a held `index.lock`, a half-done merge, files
//! staged or not. Its stat data makes the next tree cheap: only what changed is read again.

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
use self::submodules::Standing;
use self::unseen::Pipes;
use super::command::{self, Git, nul_terminated};
use super::provision::Brought;
use super::repository::Repository;
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
/// Files that are added one by one where git refuses one of them.
const MOST_SINGLY: usize = 10_000;

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
        let old = Repository::id(before)?;
        let mut nested = Nested::default();
        // One unreadable file and nothing is staged; the second time git passes over what it cannot take.
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
            let said = String::from_utf8_lossy(&again.stderr).into_owned();
            if said.contains("No space left on device") || said.contains("unable to write") {
                return Err(command::failure("git add", again.status, &said));
            }
            let lines: Vec<&str> = said.lines().filter(|line| !line.is_empty()).take(COMPLAINTS).collect();
            nested.index_changed();
            let as_they_are = match self.add_as_they_are()? {
                0 => String::new(),
                files => format!(" (captured byte for byte instead: {})", count(files, "file")),
            };
            remarks.push(format!("git could not capture everything: {}{as_they_are}", lines.join("; ")));
        }
        let tree = nested.settle(self, old)?;
        let id = self.withhold(tree.to_string(), before, &mut remarks)?;
        remarks.extend(nested.remarks(self)?);
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
        let brought = Brought::read(&self.git_dir);
        let mut names = Vec::new();
        for name in self.others()? {
            // By a trailing slash git names repositories from which nothing was captured.
            let is_uncaptured = match name.strip_suffix(b"/") {
                Some(root) => nested::holds_more(self, root.into())?,
                None => !brought.holds(Path::new(OsStr::from_bytes(&name))),
            };
            if is_uncaptured {
                names.push(name.to_str_lossy().into_owned());
            }
        }
        Ok(names)
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
        branch::check_out(worktree, commit)?;
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
        Git::on(self.path, &self.git_dir, verb)
            .env("GIT_INDEX_FILE", &self.index)
            .works_for(self.repo.common_dir(), self.run)
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
            for line in lines.iter().take(MOST_SINGLY) {
                add(std::slice::from_ref(line))?;
            }
        }
        // Names that it takes for its own git passes over.
        let listed = self.git("ls-files").records()?;
        let held: HashSet<&BString> = listed.iter().collect();
        Ok(paths.iter().filter(|path| held.contains(*path)).count())
    }

    /// Repositories that somebody made inside the workspace: git lists them by a trailing slash.
    pub(super) fn nested(&self) -> Result<Vec<BString>> {
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
}

/// What `new` has and `old` has not.
pub(super) fn added(gix: &gix::Repository, old: ObjectId, new: ObjectId) -> Result<Vec<ChangeDetached>> {
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
