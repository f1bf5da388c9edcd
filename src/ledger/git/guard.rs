//! Observes what agents must not change: the user's checkout, branches and configuration. Nothing prevents an agent from
//! leaving its worktree, so changes made while agents run are reported, and harmful settings are reverted before another
//! program reads them.
//! One observation at each checkpoint is enough: it is compared with the previous one. Observations are kept in the private
//! store while a driver is running, so that its successor does not mistake changes by a killed driver's agent for the
//! user's.

mod checkout;
mod files;
#[cfg(test)]
mod hammered_tests;
mod kept;
mod kinds;
mod refs;
mod reopen;
mod settings;
mod sight;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gix::bstr::BString;

pub(super) use self::kept::GuardStore;
pub(super) use self::refs::Keeper;
use self::refs::Refs;
pub(super) use self::reopen::{in_the_way, put_back_configuration};

use self::files::{Found, Replaced, aside, exchange, replace};
use self::settings::{OF_A_WORKTREE, SettingChange, Settings, changed, describe_setting, is_restored, list, without};
use self::sight::{FoundFiles, Harmful, Observation, read_files};
use super::branch::stamp;
use super::exclusion::Exclusion;
use super::link::{FILES, names_own_files};
use super::repository::Repository;
use crate::error::{Context as _, Error, Result};
use crate::run::goal::{Isolation, RunId};
use crate::run::text::{a_few, sorted_few};

/// Number of paths and names that a remark repeats.
const NAMED: usize = 10;
/// Number of reverted settings, and of commands to set them again, that a remark repeats.
const RESTORED: usize = 50;
/// Attempts to revert files that change meanwhile.
const TRIES: usize = 20;
/// Number of attempts after which git is kept from writing to the files while they are read.
const HASTY: usize = 3;
/// Prefix of the files of single worktrees (gitrepository-layout(5)).
const WORKTREES: &str = "worktrees/";

const SET_ASIDE: &str = "what an earlier driver saw of the repository's settings lay where workers can write, and is not \
                         used: see whether '.git/config' is as you want it";
const SETTINGS: &str = "settings of the repository were changed";

/// Observes a repository while agents work for a run in it.
#[derive(Debug)]
pub(super) struct Guard {
    /// The state when changes were last reported.
    accepted: Observation,
    /// The harmful files when they were last read.
    seen: Harmful,
    /// Remarks on changes and reverts that are not recorded yet.
    remarks: Vec<String>,
    /// The number of reverts.
    reverts: u32,
    run: RunId,
    isolation: Isolation,
    /// The store of the first three.
    shelf: GuardStore,
}

/// State stored for the next driver: the accepted state, the last harmful files, and unrecorded remarks.
type StoredState = (Observation, Harmful, Vec<String>);

/// A file that is to be restored.
struct Repair {
    /// Its name below the git directory.
    name: String,
    now: Found,
    new: Found,
    /// The path to which the present file is moved.
    aside: Option<PathBuf>,
    why: Why,
}

/// The reason why a file is restored.
enum Why {
    /// It has harmful settings.
    Settings(Vec<SettingChange>),
    /// git cannot read it, with a description.
    Broken(String),
    /// It has rules that hide files from git.
    Rules,
}

/// Which changes of settings are reported.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reported {
    All,
    Harmless,
}

impl Guard {
    /// Starts to observe. If a killed driver left observations on `shelf`, its state counts, and the harmful changes that it
    /// saw are reverted at once. Changes that it did not see may be the user's and are only reported.
    pub(super) fn begin(
        repo: &Repository,
        run: RunId,
        isolation: Isolation,
        shelf: GuardStore,
        folder: &Path,
    ) -> Result<Self> {
        let was_aside = shelf.remove_stray(folder)?;
        if let Some((accepted, seen, remarks)) = shelf.load() {
            let mut guard = Self { accepted, seen, remarks, reverts: 0, run, isolation, shelf };
            let seen = guard.seen.clone();
            guard.revert(repo, Some(&seen))?;
            guard.accept(repo, Reported::All)?;
            return Ok(guard);
        }
        let accepted = Observation::take(repo, &run, isolation, None)?;
        let remarks = was_aside.then(|| SET_ASIDE.to_owned()).into_iter().collect();
        let guard = Self { seen: accepted.harmful.clone(), accepted, remarks, reverts: 0, run, isolation, shelf };
        guard.save()?;
        Ok(guard)
    }

    /// Accepts harmful files as they are: no worker was running since the last revert, so they are the user's.
    pub(super) fn accept_user_changes(&mut self, repo: &Repository) -> Result<()> {
        self.accept(repo, Reported::Harmless)
    }

    /// Stores harmful changes for the next driver.
    pub(super) fn notice(&mut self, repo: &Repository) -> Result<()> {
        let now = Harmful::take(repo)?;
        if now == self.seen {
            return Ok(());
        }
        self.seen = now;
        self.save()
    }

    /// Ends the observation: no worker is running, and later changes are the user's. Commits that refs lost since the last
    /// comparison, which no checkpoint reports, are kept.
    pub(super) fn end(self, keeper: &Keeper<'_>) {
        let lost = Refs::take(keeper.repo, &self.run).and_then(|now| now.since(&self.accepted.refs, keeper));
        match lost {
            Ok(words) => {
                for word in words {
                    tracing::warn!("a ref was moved since the last checkpoint: {word}");
                }
            }
            Err(error) => tracing::warn!("refs that were moved since the last checkpoint are not kept: {error}"),
        }
        self.shelf.forget();
    }

    /// Takes the remarks that are not recorded yet.
    pub(super) fn take_remarks(&mut self) -> Vec<String> {
        std::mem::take(&mut self.remarks)
    }

    /// Returns the number of reverts.
    pub(super) fn reverts(&self) -> u32 {
        self.reverts
    }

    /// Reverts harmful settings, and rules that hide files from git. The author of a change is unknown here: a user learns
    /// from the remark what was reverted, and other changes are only reported.
    pub(super) fn revert_harmful(&mut self, repo: &Repository) -> Result<()> {
        self.revert(repo, None)
    }

    /// Reverts files that are as they were `seen`, if that is given, and starts again while another program changes them.
    fn revert(&mut self, repo: &Repository, seen: Option<&Harmful>) -> Result<()> {
        let mut contended = BTreeSet::new();
        for tried in 0..TRIES {
            let path = |name: &str| repo.common_dir().join(name);
            let held = contended.iter().filter(|_| tried >= HASTY).map(|name: &String| Exclusion::of(&path(name)));
            let held = held.collect::<std::io::Result<Vec<_>>>().context("a file of settings cannot be locked")?;
            let stamp = stamp();
            let (now, repairs) = self.repairs(repo, seen, &stamp)?;
            self.seen = now;
            let known = self.remarks.len();
            self.note(describe_repairs(repo, &repairs, &stamp))?;
            let (mut done, mut kept, all) = (Vec::new(), Vec::new(), repairs.len());
            for repair in repairs {
                let Repair { name, now, new, aside, .. } = &repair;
                let path = path(name);
                let is_held = held.iter().flatten().any(|held| held.is_of(&path)) && !path.is_symlink();
                let replaced = if is_held { exchange } else { replace }(&path, now, new, aside.as_deref());
                match replaced.context(format!("'{}' cannot be put back", path.display()))? {
                    Replaced::Done => done.push(repair),
                    Replaced::Changed(aside) => {
                        contended.insert(name.clone());
                        kept.extend(aside.map(|aside| format!("{name} (as {})", aside.display())));
                    }
                }
            }
            if done.len() == all {
                return Ok(());
            }
            // Files that changed meanwhile are read again, and reported as they are then.
            self.remarks.truncate(known);
            self.remarks.extend(describe_repairs(repo, &done, &stamp));
            self.remarks.extend(sorted_few(kept, NAMED).map(|names| {
                format!("what was written to settings of the repository while others were put back is kept beside them: {names}")
            }));
            self.save()?;
        }
        Err(Error::failed("the repository's settings are changed again and again while they are put back")
            .hint("see which program writes to '.git/config', then resume the run"))
    }

    /// Returns the harmful files as they are, and the repairs to make.
    fn repairs(&self, repo: &Repository, seen: Option<&Harmful>, stamp: &str) -> Result<(Harmful, Vec<Repair>)> {
        let mut now = Harmful::take(repo)?;
        let before = &self.accepted.harmful;
        let kept = |name: &String, found: &Found| {
            (*found != Found::Nothing).then(|| aside(&repo.common_dir().join(name), stamp))
        };
        let gone =
            before.settings.keys().filter(|name| !name.starts_with(WORKTREES) && !now.settings.contains_key(*name));
        now.settings.extend(read_files(repo, gone.cloned().collect::<Vec<_>>()));
        let mut repairs = Vec::new();
        for (name, found) in &now.settings {
            // git copies the main worktree's file to a worktree that it makes (git-worktree(1)).
            let known = if before.settings.contains_key(name) { name } else { OF_A_WORKTREE };
            let Some(before) = before.settings.get(known).filter(|before| *before != found) else { continue };
            let is_of_a_place = name.starts_with(WORKTREES);
            let settings = if found.is_like(before) { list(found.content())? } else { None };
            let Some(mut settings) = settings else {
                if *found == Found::Nothing && is_of_a_place {
                    continue;
                }
                let why = Why::Broken(format!("{name} ({})", found.describe()));
                let aside = kept(name, found);
                repairs.push(Repair { name: name.clone(), now: found.clone(), new: before.clone(), aside, why });
                continue;
            };
            let Some(old) = list(before.content())? else { continue };
            // A worktree that was made meanwhile may have the path of its own files as a setting.
            let place = repo.common_dir().join(name).with_file_name("");
            let is_own = |path: &BString| names_own_files(&place, path);
            if is_of_a_place
                && !old.contains_key(FILES)
                && settings.get(FILES).is_some_and(|all| all.iter().all(is_own))
            {
                settings.remove(FILES);
            }
            let seen = seen.map(|seen| list(seen.settings.get(name).and_then(Found::content))).transpose()?;
            let seen = seen.map(Option::unwrap_or_default);
            let changes = restored(name, &old, &settings, seen.as_ref());
            if changes.is_empty() {
                continue;
            }
            let new = if changes.len() == changed(&old, &settings).count() && known == name {
                before.clone() // byte for byte, with comments
            } else {
                found.holding(without(found.content().unwrap_or_default(), &changes, &self.shelf.scratch()?)?)
            };
            let why = Why::Settings(changes);
            repairs.push(Repair { name: name.clone(), now: found.clone(), new, aside: None, why });
        }
        for (name, found) in &now.rules {
            let is_seen = seen.is_none_or(|seen| seen.rules.get(name) == Some(found));
            let Some(before) = before.rules.get(name).filter(|before| is_seen && *before != found) else { continue };
            if found.is_like(before) && found.content() == before.content() {
                continue;
            }
            let aside = kept(name, found);
            repairs.push(Repair {
                name: name.clone(),
                now: found.clone(),
                new: before.clone(),
                aside,
                why: Why::Rules,
            });
        }
        Ok((now, repairs))
    }

    /// Reports other changes, accepts them as the new state, and keeps commits that no ref has any more.
    pub(super) fn compare(&mut self, keeper: &Keeper<'_>) -> Result<()> {
        self.revert_harmful(keeper.repo)?;
        let mut now = Observation::take(keeper.repo, &self.run, self.isolation, Some(&self.accepted))?;
        let restored = now.refs.put_back_runs(&self.accepted.refs, keeper)?;
        let words = self.changes(&now, keeper)?;
        self.remarks.extend(self.say(restored, "refs of other runs were removed"));
        self.remarks.extend(words);
        self.seen = now.harmful.clone();
        self.accepted = now;
        self.save()
    }

    /// Adds remarks on reverts, and stores them before the reverts are made.
    fn note(&mut self, words: impl IntoIterator<Item = String>) -> Result<()> {
        let known = self.remarks.len();
        self.remarks.extend(words);
        if self.remarks.len() == known {
            return Ok(());
        }
        self.reverts += 1;
        self.save()
    }

    fn save(&self) -> Result<()> {
        self.shelf.save((&self.accepted, &self.seen, &self.remarks))
    }

    /// Accepts harmful files as they are, and reports changed settings. A file that cannot be read counts as unchanged.
    fn accept(&mut self, repo: &Repository, reported: Reported) -> Result<()> {
        let mut now = Harmful::take(repo)?;
        for (name, found) in &mut now.settings {
            if let Some(before) = self.accepted.harmful.settings.get(name).filter(|before| *before != found)
                && (!found.is_like(before) || list(found.content())?.is_none())
            {
                *found = before.clone();
            }
        }
        let changed = settings_since(&self.accepted.harmful.settings, &now.settings)?.into_iter();
        let changed = changed.filter(|(_, _, is_restored)| reported == Reported::All || !is_restored);
        let names = changed.map(|(name, file, _)| describe_setting(&name, file)).collect();
        self.remarks.extend(self.say(names, SETTINGS));
        (self.seen, self.accepted.harmful) = (now.clone(), now);
        self.save()
    }

    /// Returns remarks on the differences from the last state.
    fn changes(&self, now: &Observation, keeper: &Keeper<'_>) -> Result<Vec<String>> {
        let before = &self.accepted;
        let settings = settings_since(&before.harmful.settings, &now.harmful.settings)?;
        let settings = settings.into_iter().map(|(name, file, _)| describe_setting(&name, file));
        let global = settings_since(&before.global, &now.global)?;
        let global = global.into_iter().map(|(name, file, _)| format!("{name} (in '{file}')"));
        let history = now.history.keys().filter(|name| before.history.get(*name) != now.history.get(*name));
        let found = [
            (checkout::changed(&before.files, &now.files), "files in your checkout were changed"),
            (checkout::changed(&before.hooks, &now.hooks), "hooks of the repository were changed"),
            (now.refs.since(&before.refs, keeper)?, "refs were moved"),
            (settings.collect(), SETTINGS),
            (global.collect(), "settings in your own configuration were changed"),
            (history.cloned().collect(), "what git takes for the repository's history and objects was changed"),
        ];
        let words = found.into_iter().filter_map(|(names, what)| self.say(names, what));
        let locks = sorted_few(now.locks.difference(&before.locks).cloned().collect(), NAMED).map(|names| {
            format!("left in the repository, where it keeps git from work until it is removed once no git is running: {names}")
        });
        Ok(words.chain(locks).collect())
    }

    fn say(&self, names: Vec<String>, what: &str) -> Option<String> {
        let by = match self.isolation {
            Isolation::None => "by you, or by a worker",
            Isolation::Shared | Isolation::Worktree => "by you, or by a worker that left its worktree",
        };
        sorted_few(names, NAMED).map(|names| format!("{what} while workers worked ({by}): {names}"))
    }
}

/// Lists the settings that differ from `before`, each with its file and whether it is reverted. Those of a worker's own
/// worktree are ignored and removed with it.
fn settings_since<'a>(before: &FoundFiles, now: &'a FoundFiles) -> Result<Vec<(String, &'a str, bool)>> {
    let mut found = Vec::new();
    for (file, now) in now.iter().filter(|(file, _)| !file.starts_with(WORKTREES)) {
        let before = before.get(file);
        if before == Some(now) {
            continue;
        }
        let before = list(before.and_then(Found::content))?.unwrap_or_default();
        let now = list(now.content())?.unwrap_or_default();
        let described = |name: &String| (name.clone(), file.as_str(), is_restored(name, &before, &now));
        found.extend(changed(&before, &now).map(described));
    }
    Ok(found)
}

/// Lists the changes of settings in `file` that are reverted: those that are as they were `seen`, if that is given.
fn restored(file: &str, before: &Settings, now: &Settings, seen: Option<&Settings>) -> Vec<SettingChange> {
    let names = changed(before, now)
        .filter(|name| is_restored(name, before, now))
        .filter(|name| seen.is_none_or(|seen| seen.get(*name) == now.get(*name)));
    let values = |settings: &Settings, name: &String| settings.get(name).cloned().unwrap_or_default();
    let change = |name: &String| SettingChange {
        file: file.to_owned(),
        name: name.clone(),
        now: values(now, name),
        before: values(before, name),
    };
    names.map(change).collect()
}

fn describe_repairs(repo: &Repository, repairs: &[Repair], stamp: &str) -> Vec<String> {
    let (mut undone, mut broken, mut hiding) = (Vec::new(), Vec::new(), Vec::new());
    for repair in repairs {
        match &repair.why {
            Why::Settings(changes) => undone.extend(changes),
            Why::Broken(words) => broken.push(words.clone()),
            Why::Rules => hiding.push(repair.name.clone()),
        }
    }
    let words = [settings_put_back(repo, &undone), files_put_back(broken, stamp), rules_put_back(hiding, stamp)];
    words.into_iter().flatten().collect()
}

fn settings_put_back(repo: &Repository, changes: &[&SettingChange]) -> Option<String> {
    if changes.is_empty() {
        return None;
    }
    let mut names: Vec<String> = changes.iter().map(|change| describe_setting(&change.name, &change.file)).collect();
    names.sort();
    names.dedup();
    let undoing: Vec<String> = changes.iter().flat_map(|change| change.undoing(repo.common_dir())).collect();
    let more = if undoing.len() > RESTORED { " …" } else { "" };
    Some(format!(
        "settings of the repository that have git run commands, work elsewhere or hide files were changed while workers \
         worked, and put back (set them again if it was you): {}; set again by: {}{more}",
        a_few(&names, RESTORED),
        undoing[..undoing.len().min(RESTORED)].join(" && ")
    ))
}

fn files_put_back(names: Vec<String>, stamp: &str) -> Option<String> {
    let names = sorted_few(names, NAMED)?;
    Some(format!(
        "files that hold settings of the repository were changed while workers worked, and put back: {names}; what was in \
         their place is kept beside them as *.replaced-{stamp}"
    ))
}

fn rules_put_back(names: Vec<String>, stamp: &str) -> Option<String> {
    let names = sorted_few(names, NAMED)?;
    Some(format!(
        "what says which files git sees was changed in the repository while workers worked, and put back (change it again \
         if it was you): {names}; what was in their place is kept beside them as *.replaced-{stamp}"
    ))
}
