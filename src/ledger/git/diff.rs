//! Differences between commits, for results and for reviewers.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use gix::object::tree::diff::ChangeDetached;

use super::command::{self};
use super::repository::Repository;
use super::tree;
use crate::error::{Context as _, Result};

/// Bytes of the list of files that a reviewer gets, approximately.
const STAT: usize = 16 * 1024;
/// Bytes of patches that are searched for those that fit.
const SEARCHED: usize = 64 * 1024 * 1024;
/// Bytes of a file above which its patch is of no use to a reader.
const LARGE: u64 = 16 * 1024 * 1024;
/// Bytes of a line that are read at a time.
const LINE: u64 = 64 * 1024;

/// Lists the files that differ between two commits, sorted. The list is empty if one of them is not in this clone.
pub fn changed_files(repo: &Repository, base: &str, tip: &str) -> Result<Vec<String>> {
    let gix = repo.gix();
    let (Ok(base), Ok(tip)) = (Repository::id(base), Repository::id(tip)) else { return Ok(Vec::new()) };
    if !gix.has_object(base) || !gix.has_object(tip) {
        return Ok(Vec::new());
    }
    let changes = tree::changes(&gix, base, tip)?;
    let files = changes.iter().filter(|change| !change.entry_mode().is_tree());
    let mut names: Vec<String> = files.map(|change| change.location().to_string()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Returns the changes from `from` to `to`: all files with the size of their change, then the whole patches that fit into
/// `limit` bytes.
pub fn patch(repo: &Repository, from: &str, to: &str, paths: &[String], limit: usize) -> Result<String> {
    let mut stat = Vec::new();
    let paths: Vec<String> = paths.iter().map(|path| format!(":(top,literal){path}")).collect();
    let cut = read(repo, "--stat=100", [from, to], &paths, |line| {
        stat.extend_from_slice(line);
        stat.len() < STAT
    })?;
    let mut text = String::from_utf8_lossy(&stat).into_owned();
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    text.push_str(if cut { "\n…\n\n" } else { "\n" });
    let large = large(repo, from, to)?;
    let mut patches = Patches { limit, left_out: !large.is_empty(), ..Patches::default() };
    let pathspecs: Vec<String> = paths.iter().cloned().chain(large).collect();
    let cut = read(repo, "-p", [from, to], &pathspecs, |line| patches.take(line))?;
    patches.close();
    text.push_str(&String::from_utf8_lossy(&patches.whole));
    if cut || patches.left_out {
        text.push_str("[the rest is too long: the files above without a patch are in the worktree]\n");
    }
    Ok(text)
}

/// Returns pathspecs that exclude large files which were added or deleted: git reads such a file whole only to print that it
/// is binary. A modified one it does not.
fn large(repo: &Repository, from: &str, to: &str) -> Result<Vec<String>> {
    let gix = repo.gix();
    let changes = tree::changes(&gix, Repository::id(from)?, Repository::id(to)?)?;
    let is_large = |change: &&ChangeDetached| {
        let id = match change {
            ChangeDetached::Addition { id, .. } | ChangeDetached::Deletion { id, .. } => *id,
            _ => return false,
        };
        change.entry_mode().is_blob() && gix.find_header(id).is_ok_and(|header| header.size() > LARGE)
    };
    Ok(changes.iter().filter(is_large).map(|change| format!(":(top,exclude,literal){}", change.location())).collect())
}

/// Collects the patches that fit, file by file, in no more memory than they take.
#[derive(Default)]
struct Patches {
    limit: usize,
    whole: Vec<u8>,
    file: Vec<u8>,
    fits: bool,
    left_out: bool,
    seen: usize,
}

impl Patches {
    /// Adds a line; `false` once enough was read.
    fn take(&mut self, line: &[u8]) -> bool {
        if line.starts_with(b"diff --git ") {
            self.close();
            self.fits = true;
        }
        self.seen += line.len();
        self.fits &= self.whole.len() + self.file.len() + line.len() <= self.limit;
        if self.fits {
            self.file.extend_from_slice(line);
        } else {
            self.left_out = true;
            self.file.clear();
        }
        self.seen < SEARCHED
    }

    fn close(&mut self) {
        self.whole.append(&mut self.file);
        self.fits = false;
    }
}

/// Passes the output of git to `take`, line by line and very long lines in pieces, until it returns false. Reports whether
/// it did. A patch can be larger than memory, so git is then stopped.
fn read(
    repo: &Repository,
    how: &str,
    trees: [&str; 2],
    pathspecs: &[String],
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<bool> {
    let git = repo.git("diff-tree").args(["-r", "--no-ext-diff", "--no-textconv", "--no-color"]);
    let git = git.args(["--ignore-submodules=none", how]).revision(trees[0]).revision(trees[1]).paths(pathspecs);
    let mut child = git.spawn(|command| {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
    })?;
    let mut enough = false;
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while !enough {
            line.clear();
            let read =
                reader.by_ref().take(LINE).read_until(b'\n', &mut line).context("git diff-tree cannot be read")?;
            if read == 0 {
                break;
            }
            enough = !take(&line);
        }
    }
    let status = child.wait().context("git diff-tree cannot be waited for")?;
    // git ended by SIGPIPE because we closed the pipe is no failure.
    if status.success() || enough { Ok(enough) } else { Err(command::failure("git diff-tree", status, "")) }
}
