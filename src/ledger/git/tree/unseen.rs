//! Handles files by which a worker hides work from git or blocks git: hidden work is reported, and FIFOs in place of files
//! that git reads are removed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use gix::bstr::ByteSlice as _;

use super::Tracked;
use crate::error::{Context as _, Result};
use crate::ledger::git::command::nul_separated;
use crate::ledger::git::repository::Repository;
use crate::run::text::sorted_few;

/// The file that hides files from git (gitignore(5)).
const IGNORES: &str = ".gitignore";
/// Number of names that a remark repeats.
const NAMED: usize = 10;
/// Names that git reads in every folder that it walks.
const READ: [&str; 2] = [IGNORES, ".gitattributes"];
/// Time that git may take before FIFOs are searched; doubled after each search.
const FIRST_SEARCH: Duration = Duration::from_secs(2);

/// Reports files of the workspace that git ignores by a rule which is not in `before`: they are not part of the work.
pub(super) fn hidden(tracked: &Tracked<'_>, before: &str) -> Result<Option<String>> {
    let list = ["--others", "--ignored", "--exclude-standard", "--directory", "-z"];
    let ignored = tracked.git("ls-files").args(list).run()?;
    if ignored.is_empty() {
        return Ok(None);
    }
    let mut names = Vec::new();
    let matched = tracked.git("check-ignore").args(["--verbose", "-z", "--stdin"]).input(ignored).output()?.stdout;
    let fields: Vec<&[u8]> = nul_separated(&matched).collect();
    let gix = tracked.repo.gix();
    let before = gix.find_tree(Repository::id(before)?).context("a tree cannot be read")?;
    // The content of each ignore file in `before`; `None` if its rules are not reported.
    let mut known: HashMap<&[u8], Option<Vec<u8>>> = HashMap::new();
    for rule in fields.chunks_exact(4) {
        let &[source, _, pattern, path] = rule else { continue };
        let file = Path::new(OsStr::from_bytes(source));
        let folder = file.parent().unwrap_or(file);
        let rules = match known.entry(source) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(rules_before(&before, tracked.path, file)?),
        };
        let is_new = rules.as_ref().is_some_and(|rules| rules.lines().all(|line| line.trim_end() != pattern));
        if !is_new || pattern.starts_with(b"!") {
            continue;
        }
        let is_all_of_it = pattern == b"*" && folder != Path::new("");
        names.push(if is_all_of_it { format!("{}/", folder.display()) } else { path.to_str_lossy().into_owned() });
    }
    Ok(sorted_few(names, NAMED).map(|names| {
        format!("not part of the work, since a '{IGNORES}' that is new or changed hides it from git: {names}")
    }))
}

/// Returns the content of the ignore file `file` of `workspace` in `before`; `None` if its rules are not reported.
fn rules_before(before: &gix::Tree<'_>, workspace: &Path, file: &Path) -> Result<Option<Vec<u8>>> {
    let folder = file.parent().unwrap_or(file);
    let is_of_workspace = !file.is_absolute() && file.file_name() == Some(OsStr::new(IGNORES));
    if !is_of_workspace || is_cache(&workspace.join(folder), folder) {
        return Ok(None);
    }
    let entry = before.lookup_entry_by_path(file).context("a tree cannot be read")?;
    let rules = entry.and_then(|entry| entry.object().ok());
    Ok(Some(rules.map(|rules| rules.detach().data).unwrap_or_default()))
}

/// Reports whether the folder is a tool's cache, which the tool hides as a whole and can make again.
fn is_cache(folder: &Path, name: &Path) -> bool {
    let is_dotted = |part: &OsStr| part.as_bytes().starts_with(b".");
    name.iter().any(is_dotted) || ["CACHEDIR.TAG", "pyvenv.cfg"].iter().any(|mark| folder.join(mark).exists())
}

/// Prevents git from blocking in a folder: it opens certain files there, and opening a FIFO blocks until it has a writer.
pub(super) struct FifoRemover {
    done: Sender<()>,
    looking: JoinHandle<Vec<PathBuf>>,
}

impl FifoRemover {
    /// Observes a folder in which git works until [`stop`](Self::stop).
    pub(super) fn watch(folder: &Path) -> Self {
        let (done, waiting) = channel::<()>();
        let folder = folder.to_owned();
        let looking = std::thread::spawn(move || {
            let (mut found, mut patience) = (Vec::new(), FIRST_SEARCH);
            while waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                remove_fifos(&folder, &mut found);
                patience *= 2;
            }
            found
        });
        Self { done, looking }
    }

    /// Ends the observation, and returns a remark on the FIFOs that were removed.
    pub(super) fn stop(self, folder: &Path) -> Option<String> {
        drop(self.done);
        let found = self.looking.join().unwrap_or_default();
        let name = |path: PathBuf| path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        sorted_few(found.into_iter().map(name).collect(), NAMED).map(|names| {
            format!("a pipe in the place of a file that git reads kept it waiting, and was removed: {names}")
        })
    }
}

/// Removes the FIFOs below `folder` that git reads, and unblocks their readers.
fn remove_fifos(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            remove_fifos(&entry.path(), found);
        } else if kind.is_fifo() && READ.iter().any(|name| entry.file_name() == *name) {
            let path = entry.path();
            // A blocked reader has a writer for as long as this takes, and reads nothing (fifo(7)).
            let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
            let writer = std::fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&path);
            if std::fs::remove_file(&path).is_ok() {
                found.push(path);
            }
            drop(writer);
        }
    }
}
