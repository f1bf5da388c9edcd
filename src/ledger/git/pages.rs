//! The pages of a log: its notes, with one event in each line.

use gix::{Repository, ThreadSafeRepository};

use super::notes::{self, Note};
use super::objects::{blob, hex_length};
use super::union::Log;
use crate::error::{Error, Result};
use crate::run::event::{self, Aside};

/// Longest page that is read, in bytes. A driver closes a page above 64 KiB, but a single line can be longer.
const PAGE_LIMIT: u64 = 24 * 1024 * 1024;
/// Number of pages that one thread reads as quickly as several.
const FEW_PAGES: usize = 8;

/// Parses the events of a log, with missing lines filled in.
pub(super) fn parse(repo: &Repository, log: &Log) -> Result<event::Log> {
    let mut pages = notes::all(repo, &log.root)?;
    pages.retain(|page| !log.completed.contains_key(&page.on));
    let mut parts = in_parallel(repo, &pages, &read_page)?;
    parts.extend(log.completed.values().map(|text| parse_page(repo, text)));
    Ok(event::Log::join(parts))
}

fn parse_page(repo: &Repository, text: &[u8]) -> event::Log {
    event::Log::read_page(&String::from_utf8_lossy(text)).with_ids_of(hex_length(repo))
}

fn read_page(repo: &Repository, page: &Note) -> Result<event::Log> {
    match too_long(repo, page) {
        Some(aside) => Ok(event::Log { aside: vec![aside], ..event::Log::default() }),
        None => blob(repo, page.blob).map(|text| parse_page(repo, &text)),
    }
}

/// Returns the diagnostic of a page that is too long to be read.
pub(super) fn too_long(repo: &Repository, page: &Note) -> Option<Aside> {
    let length = repo.find_header(page.blob).ok()?.size();
    (length > PAGE_LIMIT).then(|| Aside::page(length))
}

/// Applies `read` to each page. All the work is inflating and parsing, so it is spread over all cores.
pub(super) fn in_parallel<T: Send>(
    repo: &Repository,
    pages: &[Note],
    read: &(dyn Fn(&Repository, &Note) -> Result<T> + Sync),
) -> Result<Vec<T>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(pages.len().div_ceil(FEW_PAGES));
    if threads < 2 {
        return pages.iter().map(|page| read(repo, page)).collect();
    }
    let shared: ThreadSafeRepository = repo.clone().into_sync();
    std::thread::scope(|scope| {
        let parts: Vec<_> = pages
            .chunks(pages.len().div_ceil(threads))
            .map(|pages| {
                let (shared, as_written) = (&shared, repo.objects.ignore_replacements);
                scope.spawn(move || {
                    let mut repo = shared.to_thread_local();
                    repo.objects.ignore_replacements = as_written;
                    pages.iter().map(|page| read(&repo, page)).collect::<Result<Vec<T>>>()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(pages.len());
        for part in parts {
            all.extend(part.join().map_err(|_| Error::failed("a thread that read the log died"))??);
        }
        Ok(all)
    })
}
