//! Finds runs by the notes refs that hold their logs.

use gix::{ObjectId, Repository};

use crate::error::{Context as _, Result};
use crate::run::Snapshot;
use crate::run::event::Timestamp;
use crate::run::goal::RunId;

/// Prefix of our logs.
pub(super) const LOCAL: &str = "refs/notes/agentloop/";
/// Prefix of fetched logs, followed by `<remote>/<run>`.
pub(super) const REMOTE: &str = "refs/notes/agentloop-remote/";

/// A run as the newest commit of ours on its notes ref describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct Noted {
    /// The run.
    pub run: RunId,
    /// Its state.
    pub snapshot: Snapshot,
    /// Time of its newest event, to the second: the commit's time.
    pub updated: Timestamp,
    /// The remote that it was fetched from; `None` if it is this repository's own.
    pub remote: Option<String>,
    /// True if drivers of this clone wrote all of it.
    pub verified: bool,
}

/// The ref of a run's log.
pub(super) struct Place {
    pub name: String,
    pub tip: ObjectId,
    pub remote: Option<String>,
}

/// Lists the runs whose refs start with `prefix`. Other refs there are ignored.
pub(super) fn places(repo: &Repository, prefix: &str) -> Result<Vec<(RunId, Place)>> {
    prefixed(repo, prefix, place)
}

/// Applies `of` to each ref whose name starts with `prefix`, as it is stored, which is several times faster than resolving
/// it.
pub(super) fn prefixed<T>(
    repo: &Repository,
    prefix: &str,
    of: impl Fn(&gix::refs::Reference) -> Option<T>,
) -> Result<Vec<T>> {
    let unreadable = "cannot list the refs of runs";
    let packed = repo.refs.cached_packed_buffer().context(unreadable)?;
    let relative: &gix::path::RelativePath = prefix.try_into().context(unreadable)?;
    let refs = repo.refs.iter_prefixed_packed(relative, packed.as_ref().map(|buffer| &***buffer));
    Ok(refs.context(unreadable)?.filter_map(|reference| of(&reference.ok()?)).collect())
}

fn place(reference: &gix::refs::Reference) -> Option<(RunId, Place)> {
    let name = std::str::from_utf8(reference.name.as_bstr()).ok()?;
    let tip = reference.target.try_id()?.to_owned();
    let (remote, run) = match name.strip_prefix(LOCAL) {
        Some(run) => (None, run),
        None => name.strip_prefix(REMOTE)?.rsplit_once('/').map(|(remote, run)| (Some(remote.to_owned()), run))?,
    };
    Some((run.parse().ok()?, Place { name: name.to_owned(), tip, remote }))
}
