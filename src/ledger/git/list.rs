//! Lists runs by their snapshots, and finds the one that a name means.

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::read::{self, Noted};
use super::repository::Repository;
use crate::error::{Context as _, Error, Result};
use crate::run::Snapshot;
use crate::run::event::Timestamp;
use crate::run::goal::RunId;

const NAMESPACE: &str = "refs/notes/agentloop/";
/// Runs below which a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 256;
/// Candidates that an ambiguous name is answered with.
const NAMED: usize = 5;

/// Every run of the repository, newest first.
///
/// # Errors
/// Where refs or commits cannot be read.
pub fn list(repo: &Repository) -> Result<Vec<Noted>> {
    let refs = refs(&repo.gix(), "")?;
    let threads =
        if refs.len() < WORTH_A_THREAD { 1 } else { std::thread::available_parallelism().map_or(1, Into::into) };
    let share = refs.len().div_ceil(threads).max(1);
    let read = |part: &[(RunId, ObjectId)]| -> Result<Vec<Noted>> {
        let gix = repo.shared().to_thread_local();
        let mut buffer = Vec::new();
        part.iter().filter_map(|(run, tip)| one(&gix, run, *tip, &mut buffer).transpose()).collect()
    };
    let (own, others) = refs.split_at(share.min(refs.len()));
    let mut noted = std::thread::scope(|scope| -> Result<Vec<Noted>> {
        let others: Vec<_> = others.chunks(share).map(|part| scope.spawn(move || read(part))).collect();
        let mut all = read(own)?;
        for other in others {
            all.extend(other.join().map_err(|_| Error::failed("a thread that lists runs died"))??);
        }
        Ok(all)
    })?;
    noted.sort_by(|a, b| b.snapshot.started.cmp(&a.snapshot.started).then_with(|| a.run.cmp(&b.run)));
    Ok(noted)
}

/// The snapshot on one notes ref, straight from the commit's bytes.
fn one(gix: &gix::Repository, run: &RunId, tip: ObjectId, buffer: &mut Vec<u8>) -> Result<Option<Noted>> {
    use gix::prelude::FindExt as _;
    let Ok(commit) = gix.objects.find(&tip, buffer) else { return read::snapshot(gix, run) };
    let Some(snapshot) = commit.data.to_str().ok().and_then(Snapshot::from_message) else {
        return read::snapshot(gix, run);
    };
    let committed = commit.data.lines().find_map(|line| line.strip_prefix(b"committer "));
    let seconds = committed.and_then(|line| line.to_str().ok()?.rsplit(' ').nth(1)?.parse::<i64>().ok()).unwrap_or(0);
    Ok(Some(Noted { run: run.clone(), snapshot, updated: Timestamp(seconds.saturating_mul(1000)) }))
}

/// Notes refs of runs whose id begins with `prefix`. Names that are no run's are somebody else's.
fn refs(gix: &gix::Repository, prefix: &str) -> Result<Vec<(RunId, ObjectId)>> {
    let platform = gix.references().context("refs cannot be read")?;
    let wanted = format!("{NAMESPACE}{prefix}");
    let found = platform.prefixed(wanted.as_str()).context("refs cannot be read")?;
    let run = |reference: gix::Reference<'_>| {
        let name = reference.name().as_bstr().to_str().ok()?.strip_prefix(NAMESPACE)?.parse().ok()?;
        Some((name, reference.try_id()?.detach()))
    };
    Ok(found.filter_map(std::result::Result::ok).filter_map(run).collect())
}

/// The run that `name` means: a full id, a prefix that fits one run only, or the newest run for `None`.
///
/// # Errors
/// Where it means none, or more than one.
pub fn resolve(repo: &Repository, name: Option<&str>) -> Result<RunId> {
    let gix = repo.gix();
    let Some(name) = name else {
        let newest = list(repo)?.into_iter().next();
        return newest.map(|noted| noted.run).ok_or_else(|| {
            Error::usage("this repository has no runs").hint("'git agentloop run \"goal\"' starts one")
        });
    };
    if let Ok(run) = name.parse::<RunId>()
        && read::tip(&gix, &run)?.is_some()
    {
        return Ok(run);
    }
    let sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let mut found = if sound { refs(&gix, name)? } else { Vec::new() };
    match found.len() {
        0 => Err(Error::usage(format!("no run matches '{}'", crate::run::work::one_line(name, 80)))
            .hint("'git agentloop list' shows this repository's runs")),
        1 => Ok(found.remove(0).0),
        count => {
            let named: Vec<&str> = found.iter().take(NAMED).map(|(run, _)| run.as_str()).collect();
            let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
            Err(Error::usage(format!("'{name}' matches {count} runs"))
                .hint(format!("say more of one: {}{more}", named.join(", "))))
        }
    }
}
