//! Observes refs, and keeps commits that would be lost when refs are moved or removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gix::ObjectId;
use gix::bstr::ByteSlice as _;
use serde::{Deserialize, Serialize};

use super::files::Found;
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::branch::{self, contains, stamp};
use crate::ledger::git::held::HELD;
use crate::ledger::git::objects::parse_id;
use crate::ledger::git::refs::{Change, Expect, RefMover, Swap};
use crate::ledger::git::repository::Repository;
use crate::run::goal::RunId;

const HEAD: &str = "HEAD";
const STASH: &str = "refs/stash";
/// Refs of a single worktree (gitrepository-layout(5)), which belong to its user.
const OF_A_WORKTREE: [&str; 3] = ["refs/bisect/", "refs/worktree/", "refs/rewritten/"];
/// Prefixes of the refs of runs. Those of other runs move while they are driven.
const OF_RUNS: [&str; 3] = ["refs/agentloop/", "refs/heads/agentloop/", "refs/notes/agentloop"];
const OF_WORKERS: &str = "refs/agentloop/run/";
/// Number of lost commits above which none is tested for containing another.
const FEW: usize = 100;

/// The refs of a repository, except those of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Refs {
    at: BTreeMap<String, String>,
    /// All commits in the stash: all but the newest are only in its reflog.
    stashed: BTreeSet<String>,
}

/// Access to put lost commits on rescue refs.
pub(in crate::ledger::git) struct Keeper<'a> {
    pub repo: &'a Repository,
    pub mover: &'a Arc<RefMover>,
    pub run: &'a RunId,
}

impl Refs {
    pub(super) fn take(repo: &Repository, run: &RunId) -> Result<Self> {
        let gix = repo.gix();
        let platform = gix.references().context("refs cannot be read")?;
        let own = [branch::name(run), format!("refs/notes/agentloop/{run}")];
        let below = [format!("refs/agentloop/run/{run}/"), format!("refs/agentloop/rescue/{run}/")];
        let mut at = BTreeMap::new();
        // A ref that cannot be read has no value.
        for reference in platform.all().context("refs cannot be read")?.filter_map(std::result::Result::ok) {
            let name = reference.name().as_bstr().to_str_lossy().into_owned();
            let is_own = own.contains(&name) || below.iter().any(|prefix| name.starts_with(prefix));
            // A driver removes the ones of its own run as needed.
            let is_held = name.starts_with(OF_WORKERS) && name.contains(&format!("/{HELD}/"));
            if !is_own && !is_held && !OF_A_WORKTREE.iter().any(|prefix| name.starts_with(prefix)) {
                at.insert(name, reference.target().into_owned().to_string());
            }
        }
        let head = Found::at(&repo.git_dir().join(HEAD));
        at.insert(HEAD.to_owned(), head.content().unwrap_or_default().to_str_lossy().trim_end().to_owned());
        let log = Found::at(&repo.common_dir().join("logs").join(STASH));
        let lines = log.content().unwrap_or_default().lines();
        let mut stashed: BTreeSet<String> = lines
            .filter_map(|line| Some(line.split(|byte| *byte == b' ').nth(1)?.to_str_lossy().into_owned()))
            .collect();
        stashed.extend(at.get(STASH).cloned());
        Ok(Self { at, stashed })
    }

    /// Restores removed refs of other runs whose commits nothing else keeps, and returns remarks. A ref that its own driver
    /// has made again is not changed.
    pub(super) fn put_back_runs(&mut self, before: &Self, keeper: &Keeper<'_>) -> Result<Vec<String>> {
        let gix = keeper.repo.gix();
        let current_objects = self.current_objects(&gix);
        let mut words = Vec::new();
        for (name, target) in before.at.iter().filter(|(name, _)| is_of_a_run(name)) {
            let Some(old) =
                id(&gix, Some(target)).filter(|old| !self.at.contains_key(name) && !current_objects.contains(old))
            else {
                continue;
            };
            let change = Change { name: name.clone(), new: Some(old), old: Expect::Absent };
            if gix.has_object(old) && keeper.mover.swap(&[change])? == Swap::Done {
                words.push(format!("{name} (was {}, put back)", &old.to_string()[..12]));
                self.at.insert(name.clone(), target.clone());
            }
        }
        Ok(words)
    }

    /// Returns remarks on the refs that differ from `before`. Commits that no ref has any more are put on rescue refs of the
    /// run.
    pub(super) fn since(&self, before: &Self, keeper: &Keeper<'_>) -> Result<Vec<String>> {
        let gix = keeper.repo.gix();
        let mut moved: Vec<(&str, Option<ObjectId>)> = Vec::new();
        let mut lost: Vec<(&str, ObjectId)> = Vec::new();
        let was = |old: ObjectId| format!("was {}", &old.to_string()[..12]);
        let mut words = Vec::new();
        let current_objects = self.current_objects(&gix);
        let names: BTreeSet<&String> = before.at.keys().chain(self.at.keys()).collect();
        for name in names.into_iter().filter(|name| before.at.get(*name) != self.at.get(*name) && *name != STASH) {
            let (old, new) = (id(&gix, before.at.get(name)), id(&gix, self.at.get(name)));
            let is_kept = old.is_none_or(|old| new.is_some_and(|new| is_within(&gix, old, new)));
            if is_of_a_run(name) {
                // Its driver may be running, and a discard keeps the commits itself.
                let is_moved = name.starts_with(OF_WORKERS) && new.is_some();
                if is_kept || is_moved || old.is_some_and(|old| current_objects.contains(&old)) {
                    continue;
                }
            }
            match old.filter(|_| !is_kept) {
                Some(old) => lost.push((name, old)),
                None => moved.push((name, old)),
            }
        }
        let dropped = before.stashed.difference(&self.stashed).filter_map(|stash| id(&gix, Some(stash)));
        lost.extend(dropped.map(|stash| (STASH, stash)));
        if before.at.get(STASH) != self.at.get(STASH) && lost.iter().all(|(name, _)| *name != STASH) {
            moved.push((STASH, None));
        }
        let moved = moved.into_iter().map(|(name, old)| match (old, before.at.get(HEAD)) {
            (Some(old), _) => format!("{name} ({})", was(old)),
            (None, Some(head)) if name == HEAD => format!("{name} (was {})", head.trim_start_matches("ref: ")),
            (None, _) => name.to_owned(),
        });
        words.extend(moved);
        let kept = self.keep(&gix, &lost, keeper)?;
        words.extend(lost.into_iter().map(|(name, old)| {
            let what = match kept.get(&old) {
                Some(kept) => format!("kept as {kept}"),
                None if gix.has_object(old) => "which another ref has".to_owned(),
                None => "whose objects are gone".to_owned(),
            };
            format!("{name} ({}, {what})", was(old))
        }));
        Ok(words)
    }

    /// Returns the objects that refs are at.
    fn current_objects(&self, gix: &gix::Repository) -> BTreeSet<ObjectId> {
        self.at.values().filter_map(|target| id(gix, Some(target))).collect()
    }

    /// Puts each of `lost` that no ref is at on a rescue ref. Returns the rescue refs by object.
    fn keep(
        &self,
        gix: &gix::Repository,
        lost: &[(&str, ObjectId)],
        keeper: &Keeper<'_>,
    ) -> Result<BTreeMap<ObjectId, String>> {
        let (prefix, stamp) = (format!("refs/agentloop/rescue/{}/", keeper.run), stamp());
        let known = gix.references().context("refs cannot be read")?;
        let known = known.prefixed(prefix.as_str()).context("refs cannot be read")?;
        let mut kept: BTreeMap<ObjectId, String> = known
            .filter_map(std::result::Result::ok)
            .filter_map(|reference| {
                Some((reference.try_id()?.detach(), reference.name().as_bstr().to_str_lossy().into_owned()))
            })
            .collect();
        let current_objects = self.current_objects(gix);
        let mut changes = Vec::new();
        for (_, old) in lost {
            if kept.contains_key(old) || current_objects.contains(old) || !gix.has_object(*old) {
                continue;
            }
            if lost.len() <= FEW
                && let Some(name) = kept.iter().find(|(id, _)| is_within(gix, *old, **id)).map(|(_, name)| name.clone())
            {
                kept.insert(*old, name);
                continue;
            }
            let name = format!("{prefix}{stamp}-{}", &old.to_string()[..20]);
            changes.push(Change { name: name.clone(), new: Some(*old), old: Expect::Absent });
            kept.insert(*old, name);
        }
        match keeper.mover.swap(&changes)? {
            Swap::Done => Ok(kept),
            Swap::Lost => Err(Error::failed("refs that were moved cannot be kept")),
        }
    }
}

fn is_of_a_run(name: &str) -> bool {
    OF_RUNS.iter().any(|prefix| name.starts_with(prefix))
}

fn id(gix: &gix::Repository, target: Option<&String>) -> Option<ObjectId> {
    parse_id(gix, target?.as_bytes())
}

/// Reports whether `old` is an ancestor of `new`; false if one of them is no commit.
fn is_within(gix: &gix::Repository, old: ObjectId, new: ObjectId) -> bool {
    old == new || gix.find_commit(old).is_ok() && gix.find_commit(new).is_ok() && contains(gix, new, old)
}
