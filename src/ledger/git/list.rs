//! Lists the runs of a repository, and finds the run that a name means.

use std::cmp::Reverse;
use std::collections::HashSet;

use gix::bstr::ByteSlice as _;
use gix::{Repository, ThreadSafeRepository};

use super::places::{self, LOCAL, Noted, Place, REMOTE};
use super::read;
use super::restore;
use crate::error::{Error, Result};
use crate::host::store::Store;
use crate::run::goal::RunId;
use crate::run::text::a_few;

/// Number of runs that one thread reads as quickly as several.
const FEW_RUNS: usize = 500;
/// The name of the newest run.
pub const NEWEST: &str = "@";
/// Number of runs that an error names.
const NAMED: usize = 5;

/// Lists all runs, newest first: this repository's own, and those that were only fetched. Runs that were driven in the clone
/// of `store` are verified. A run whose log cannot be read is left out.
pub fn list(repo: &Repository, store: Option<&Store>) -> Result<Vec<Noted>> {
    let mut runs = noted(repo, store, places(repo)?)?;
    runs.sort_unstable_by(|a, b| order(b).cmp(&order(a)));
    Ok(runs)
}

/// Returns the key that orders runs by age. Commit times are whole seconds, and several runs can start in the same one.
fn order(noted: &Noted) -> (i64, i64, Reverse<&RunId>) {
    (noted.updated.0, noted.snapshot.started.0, Reverse(&noted.run))
}

impl super::Repository {
    /// Finds the run that `name` means: a full id, a prefix of exactly one run's id, or the newest run for `None`.
    ///
    /// # Errors
    /// Fails unless exactly one run matches.
    pub fn resolve(&self, name: Option<&str>) -> Result<RunId> {
        let repo = self.gix();
        match self.run_here().filter(|_| name.is_none()) {
            Some(run) if read::find(&repo, &run)?.is_some() => Ok(run),
            _ => resolve(&repo, name),
        }
    }

    /// Returns the run whose worktree, or worker's worktree, this is: both are named after it.
    fn run_here(&self) -> Option<RunId> {
        let work_dir = self.work_dir().filter(|_| self.git_dir() != self.common_dir())?;
        work_dir.file_name()?.to_str()?.split('.').next()?.parse().ok()
    }
}

/// Finds the run that a person means by `name`: its id, a prefix of only its id, or the newest run for `None` or [`NEWEST`].
///
/// # Errors
/// Fails with a hint unless exactly one run matches.
pub fn resolve(repo: &Repository, name: Option<&str>) -> Result<RunId> {
    let Some(name) = name.filter(|name| *name != NEWEST) else {
        let newest = list(repo, None)?.into_iter().next().map(|noted| noted.run);
        return newest.ok_or_else(|| {
            Error::usage("this repository has no runs").hint("'git agentloop run \"<goal>\"' starts one")
        });
    };
    // git shows a run as its branch.
    let name = name.strip_prefix("agentloop/").unwrap_or(name);
    // A full id needs no list of all runs.
    if let Ok(run) = name.parse::<RunId>() {
        if read::find(repo, &run)?.is_some() {
            return Ok(run);
        }
        // Another run's id may begin with this one.
        if was_discarded(repo, &run)? {
            return Err(discarded(&run));
        }
    }
    let is_start_of_an_id =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let mut matching = Vec::new();
    if is_start_of_an_id {
        matching = places::places(repo, &format!("{LOCAL}{name}"))?;
        if matching.is_empty() {
            matching = places::places(repo, REMOTE)?;
            matching.retain(|(run, _)| run.as_str().starts_with(name));
            matching.sort_by(|(a, _), (b, _)| a.cmp(b));
            matching.dedup_by(|(a, _), (b, _)| a == b);
        }
    }
    match matching.len() {
        0 => Err(is_start_of_an_id.then(|| describe_unrecorded(repo, name)).flatten().unwrap_or_else(|| {
            Error::usage(format!("no run matches '{name}'")).hint("'git agentloop list' shows this repository's runs")
        })),
        1 => Ok(matching.swap_remove(0).0),
        count => Err(Error::ambiguous(format!("'{name}' matches {count} runs")).hint(candidates(&matching))),
    }
}

/// Describes the only run whose id begins with `name` and that has no record here but a branch, or was discarded.
fn describe_unrecorded(repo: &Repository, name: &str) -> Option<Error> {
    let only = |prefix: &str| -> Option<(RunId, Vec<String>)> {
        let named = |reference: &gix::refs::Reference| {
            let full = reference.name.as_bstr().to_str().ok()?.to_owned();
            Some((full.strip_prefix(prefix)?.split('/').next()?.parse::<RunId>().ok()?, full))
        };
        let (runs, refs): (Vec<RunId>, Vec<String>) =
            places::prefixed(repo, &format!("{prefix}{name}"), named).ok()?.into_iter().unzip();
        let run = runs.first()?.clone();
        runs.iter().all(|other| *other == run).then_some((run, refs))
    };
    if let Some((run, _)) = only("refs/heads/agentloop/") {
        let log = format!("{LOCAL}{run}");
        let fetched =
            if repo.remote_names().is_empty() { "" } else { "'git agentloop sync' gets a record that a remote has; " };
        return Some(
            Error::usage(format!("there is no record of {run} here; its work is on the branch 'agentloop/{run}'"))
                .hint(format!(
                    "'git log --first-parent agentloop/{run}' shows it; {fetched}of a record that was deleted, \
                 'git fsck' names the commit for 'git update-ref {log} COMMIT'"
                )),
        );
    }
    if let Some((run, refs)) = only("refs/agentloop/rescue/") {
        // The run's own record, or the fetched one.
        if refs.iter().any(|name| name.contains("/notes/agentloop")) {
            return Some(discarded(&run));
        }
    }
    for remote in repo.remote_names() {
        let remote = remote.to_str_lossy();
        if let Some((run, refs)) = only(&format!("refs/remotes/{remote}/agentloop/")) {
            let branch = refs[0].trim_start_matches("refs/remotes/");
            return Some(Error::usage(format!("there is no record of {run} here; its work is on '{branch}'")).hint(
                format!(
                    "'git agentloop sync {remote}' gets its record; 'git log --first-parent {branch}' shows its work"
                ),
            ));
        }
    }
    None
}

/// Reports whether a discard kept the record of `run`, its own or the fetched one.
fn was_discarded(repo: &Repository, run: &RunId) -> Result<bool> {
    let is_record =
        |reference: &gix::refs::Reference| reference.name.as_bstr().contains_str("/notes/agentloop").then_some(());
    Ok(!places::prefixed(repo, &format!("refs/agentloop/rescue/{run}/"), is_record)?.is_empty())
}

fn discarded(run: &RunId) -> Error {
    Error::usage(format!("{run} was discarded")).hint(format!("to have it back: {}", restore::command(run)))
}

fn candidates(matching: &[(RunId, Place)]) -> String {
    let names: Vec<&str> = matching.iter().map(|(run, _)| run.as_str()).collect();
    format!("it could be {}", a_few(&names, NAMED))
}

/// Lists each run with its log: the local one, or else fetched ones.
fn places(repo: &Repository) -> Result<Vec<(RunId, Place)>> {
    let mut all = places::places(repo, LOCAL)?;
    let mut fetched = places::places(repo, REMOTE)?;
    if !fetched.is_empty() {
        let own: HashSet<&RunId> = all.iter().map(|(run, _)| run).collect();
        fetched.retain(|(run, _)| !own.contains(run));
        all.extend(fetched);
    }
    Ok(all)
}

fn noted(repo: &Repository, store: Option<&Store>, places: Vec<(RunId, Place)>) -> Result<Vec<Noted>> {
    let read = |repo: &Repository, places: Vec<(RunId, Place)>| -> Vec<Noted> {
        let repo = read::as_written(repo);
        let noted = |(run, place): (RunId, Place)| read::noted(&repo, store, run, &place);
        places.into_iter().filter_map(noted).collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(places.len().div_ceil(FEW_RUNS));
    let mut runs = if threads < 2 { read(repo, places) } else { in_parallel(repo, places, threads, &read)? };
    dedup_fetched(&mut runs);
    Ok(runs)
}

fn in_parallel(
    repo: &Repository,
    mut places: Vec<(RunId, Place)>,
    threads: usize,
    read: &(impl Fn(&Repository, Vec<(RunId, Place)>) -> Vec<Noted> + Sync),
) -> Result<Vec<Noted>> {
    let shared: ThreadSafeRepository = repo.clone().into_sync();
    let share = places.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let mut parts = Vec::new();
        while !places.is_empty() {
            let part = places.split_off(places.len().saturating_sub(share));
            let shared = &shared;
            parts.push(scope.spawn(move || read(&shared.to_thread_local(), part)));
        }
        let mut runs = Vec::new();
        for part in parts {
            runs.extend(part.join().map_err(|_| Error::failed("a thread that read the runs died"))?);
        }
        Ok(runs)
    })
}

/// Keeps, of a run that was fetched from several remotes, the copy with the most events.
fn dedup_fetched(runs: &mut Vec<Noted>) {
    if runs.iter().all(|noted| noted.remote.is_none()) {
        return;
    }
    runs.sort_by(|a, b| a.run.cmp(&b.run).then_with(|| b.snapshot.seq.cmp(&a.snapshot.seq)));
    runs.dedup_by(|a, b| a.run == b.run);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::git::fixture::{Fixture, append, run_id};

    fn error(repo: &Repository, name: Option<&str>) -> String {
        resolve(repo, name).unwrap_err().report()
    }

    #[test]
    fn runs_are_listed_newest_first_wherever_they_are() {
        let fixture = Fixture::new();
        let repo = fixture.repo();
        assert_eq!(list(&repo, None).unwrap(), []);
        let none = "error: this repository has no runs\nhint: 'git agentloop run \"<goal>\"' starts one";
        assert_eq!(error(&repo, None), none);
        let (old, new, far) = (run_id("old"), run_id("new"), run_id("far"));
        append(&fixture.record(&new), 5..=5);
        append(&fixture.record(&old), 1..=2);
        fixture.git(["pack-refs", "--all"]);
        append(&fixture.record(&far), 9..=9);
        let (at, to) = (format!("{LOCAL}{far}"), format!("{REMOTE}up/stream/{far}"));
        fixture.git(["update-ref", &to, &at]);
        fixture.git(["update-ref", &format!("{REMOTE}other/{far}"), &at]);
        let listed = |repo: &Repository| -> Vec<(RunId, Option<String>)> {
            list(repo, None).unwrap().into_iter().map(|noted| (noted.run, noted.remote)).collect()
        };
        let home = [(far.clone(), None), (new.clone(), None), (old.clone(), None)];
        assert_eq!(listed(&repo), home);
        fixture.git(["update-ref", "-d", &at]);
        let found = listed(&repo);
        assert!(found[0].0 == far && found[0].1.is_some() && found.len() == 3, "{found:?}");
        // Other refs there are ignored.
        for name in ["UPPER", "no-id", "a/b-0123ab", "x-0123a"] {
            fixture.git(["update-ref", &format!("{LOCAL}{name}"), "HEAD"]);
        }
        std::fs::write(fixture.git_dir().join(LOCAL).join("torn-0123ab"), "rubbish").unwrap();
        fixture.git(["notes", &format!("--ref=agentloop/{old}"), "append", "-m", "words", "HEAD"]);
        assert_eq!(listed(&repo), found);
        assert_eq!(resolve(&repo, None).unwrap(), far);
    }

    #[test]
    fn a_name_means_one_run_or_says_which() {
        let fixture = Fixture::new();
        let repo = fixture.repo();
        let runs: Vec<RunId> = (0..7).map(|random| RunId::new("fix it", random)).collect();
        for run in &runs {
            append(&fixture.record(run), 1..=1);
        }
        let longer = RunId::new(runs[0].as_str(), 99);
        append(&fixture.record(&longer), 1..=1);
        let far = run_id("far");
        append(&fixture.record(&far), 1..=1);
        fixture.git(["update-ref", &format!("{REMOTE}o/{far}"), &format!("{LOCAL}{far}")]);
        fixture.git(["update-ref", "-d", &format!("{LOCAL}{far}")]);
        fixture.git(["pack-refs", "--all"]);
        assert_eq!(resolve(&repo, Some("fix-it-000000")).unwrap(), runs[0]);
        assert_eq!(resolve(&repo, Some("fix-it-000000-")).unwrap(), longer);
        assert_eq!(resolve(&repo, Some("fix-it-3")).unwrap(), runs[3]);
        assert_eq!(resolve(&repo, Some("fa")).unwrap(), far);
        assert_eq!(resolve(&repo, Some(far.as_str())).unwrap(), far);
        let ambiguous = "error: 'fix' matches 8 runs\n\
            hint: it could be fix-it-000000, fix-it-000000-330000, fix-it-100000, fix-it-200000, fix-it-300000 and 3 more";
        assert_eq!(error(&repo, Some("fix")), ambiguous);
        for name in ["3fa", "", "../x", "fix/", "FIX", "fix-it-zzzzzz", "-", "\0", "é"] {
            let none =
                format!("error: no run matches '{name}'\nhint: 'git agentloop list' shows this repository's runs");
            assert_eq!(error(&repo, Some(name)), none);
        }
    }
}
