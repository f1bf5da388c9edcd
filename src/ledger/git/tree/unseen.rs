//! What a worker does to the files that tell git what to look at: work that they hide is named, and what is no file at all
//! does not keep git waiting.

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

/// The file by which anybody hides files from git (gitignore(5)).
const IGNORES: &str = ".gitignore";
/// How many names a remark repeats.
const NAMED: usize = 10;
/// What git reads in every folder that it walks, whatever is there by that name.
const READ: [&str; 2] = [IGNORES, ".gitattributes"];
/// How long git takes before anybody asks whether it waits for a pipe; the next time twice as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// Names what git ignores in the workspace by a rule that was not there in `before`: it is no part of the work.
pub(super) fn hidden(tracked: &Tracked<'_>, before: &str) -> Result<Option<String>> {
    let list = ["--others", "--ignored", "--exclude-standard", "--directory", "-z"];
    let ignored = tracked.git("ls-files").args(list).run()?;
    if ignored.is_empty() {
        return Ok(None);
    }
    let mut names = Vec::new();
    let told = tracked.git("check-ignore").args(["--verbose", "-z", "--stdin"]).input(ignored).output()?.stdout;
    let fields: Vec<&[u8]> = nul_separated(&told).collect();
    let gix = tracked.repo.gix();
    let before = gix.find_tree(Repository::id(before)?).context("a tree cannot be read")?;
    // What each file said in `before`; nothing where it is nobody's to hear of.
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

/// What the ignore file `file` of `workspace` said in `before`; none where it is nobody's to hear of.
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

/// Whether a tool made the folder for what it can make again: it hides it whole, and nobody means it to be work.
fn is_cache(folder: &Path, name: &Path) -> bool {
    let is_dotted = |part: &OsStr| part.as_bytes().starts_with(b".");
    name.iter().any(is_dotted) || ["CACHEDIR.TAG", "pyvenv.cfg"].iter().any(|mark| folder.join(mark).exists())
}

/// Sees to it that git comes to an end in a folder: it opens what it reads there, and a pipe opens only once somebody writes.
pub(super) struct Pipes {
    done: Sender<()>,
    looking: JoinHandle<Vec<PathBuf>>,
}

impl Pipes {
    /// Looks after the git that works in `folder` until it is [`taken_away`](Self::taken_away).
    pub(super) fn watch(folder: &Path) -> Self {
        let (done, waiting) = channel::<()>();
        let folder = folder.to_owned();
        let looking = std::thread::spawn(move || {
            let (mut found, mut patience) = (Vec::new(), PATIENCE);
            while waiting.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                take_pipes(&folder, &mut found);
                patience *= 2;
            }
            found
        });
        Self { done, looking }
    }

    /// What was in git's way and was removed, in words.
    pub(super) fn taken_away(self, folder: &Path) -> Option<String> {
        drop(self.done);
        let found = self.looking.join().unwrap_or_default();
        let name = |path: PathBuf| path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
        sorted_few(found.into_iter().map(name).collect(), NAMED).map(|names| {
            format!("a pipe in the place of a file that git reads kept it waiting, and was removed: {names}")
        })
    }
}

/// Removes the pipes below `folder` that git reads, and lets go whoever waits for one.
fn take_pipes(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            take_pipes(&entry.path(), found);
        } else if kind.is_fifo() && READ.iter().any(|name| entry.file_name() == *name) {
            let path = entry.path();
            // Whoever waits for a writer has one for as long as this takes, and reads nothing (fifo(7)).
            let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
            let writer = std::fs::OpenOptions::new().write(true).custom_flags(nonblocking).open(&path);
            if std::fs::remove_file(&path).is_ok() {
                found.push(path);
            }
            drop(writer);
        }
    }
}
