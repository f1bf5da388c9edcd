//! What agents have no business with: the user's checkout, branches and configuration. Nothing keeps an agent from
//! leaving its worktree, so what changed while agents were at it is said, and settings that could harm before anybody
//! reads that are put back.
//!
//! One look a checkpoint is enough: it is held against the one before, and the next one against it. What was seen is kept
//! in the private store for as long as a driver is at work, so that what an agent of a killed one changed is not taken for
//! the user's by its successor.

mod checkout;
mod files;
#[cfg(test)]
mod hammered;
mod kept;
mod kinds;
mod refs;
mod reopen;
mod settings;
mod sight;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use gix::bstr::BString;

pub(super) use self::kept::Shelf;
pub(super) use self::refs::Keeper;
use self::refs::Refs;
pub(super) use self::reopen::{in_the_way, put_back_configuration};

use self::files::{Found, Replaced, aside, exchange, replace};
use self::settings::{Change, OF_A_WORKTREE, Settings, changed, in_words, is_restored, list, without};
use self::sight::{Harmful, Held, Sight, held};
use super::branch::stamp;
use super::exclusion::Exclusion;
use super::link::{FILES, names_own_files};
use super::repository::Repository;
use crate::error::{Context as _, Error, Result};
use crate::run::goal::{Isolation, RunId};
use crate::run::text::{a_few, sorted_few};

/// Paths and names that a remark repeats.
const NAMED: usize = 10;
/// Settings, and commands that undo their restoration, that a remark repeats.
const RESTORED: usize = 50;
/// How often files that change while they are put back are looked at again.
const TRIES: usize = 20;
/// After how many of these git is kept from writing to them already while they are looked at.
const HASTY: usize = 3;
/// Where git keeps what belongs to single worktrees (gitrepository-layout(5)).
const WORKTREES: &str = "worktrees/";

const SET_ASIDE: &str = "what an earlier driver saw of the repository's settings lay where workers can write, and is not \
                         used: see whether '.git/config' is as you want it";
const SETTINGS: &str = "settings of the repository were changed";

/// Watches over a repository while agents work for a run in it.
#[derive(Debug)]
pub(super) struct Guard {
    /// What stood when it was last said what had changed.
    stood: Sight,
    /// What could harm as it was seen last.
    seen: Harmful,
    /// What has changed since or was put back, in words, until somebody puts it on record.
    unsaid: Vec<String>,
    /// How often something was put back.
    mends: u32,
    run: RunId,
    isolation: Isolation,
    /// Where the first three are kept.
    shelf: Shelf,
}

/// What is kept for the next driver: what was taken as it is, what could harm as it was seen last, and what is to be said.
type Kept = (Sight, Harmful, Vec<String>);

/// A file that is to be put back.
struct Repair {
    /// Its name below the git directory.
    name: String,
    now: Found,
    new: Found,
    /// Where what is there now goes.
    aside: Option<PathBuf>,
    why: Why,
}

/// Why a file is put back.
enum Why {
    /// Settings that could harm.
    Settings(Vec<Change>),
    /// It is no file that git can read, in words.
    Broken(String),
    /// It says which files git sees.
    Rules,
}

/// Whether changes that could harm are told of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tell {
    All,
    Harmless,
}

impl Guard {
    /// Begins to watch. What a driver that was killed left on `shelf` stands: what it saw change, and what could harm, is put
    /// back at once. What nobody saw may be what the user did since, and is only said.
    pub(super) fn begin(
        repo: &Repository,
        run: RunId,
        isolation: Isolation,
        shelf: Shelf,
        folder: &Path,
    ) -> Result<Self> {
        let was_aside = shelf.set_aside(folder)?;
        if let Some((stood, seen, unsaid)) = shelf.load() {
            let mut guard = Self { stood, seen, unsaid, mends: 0, run, isolation, shelf };
            let seen = guard.seen.clone();
            guard.undo(repo, Some(&seen))?;
            guard.accept(repo, Tell::All)?;
            return Ok(guard);
        }
        let stood = Sight::take(repo, &run, isolation, None)?;
        let unsaid = was_aside.then(|| SET_ASIDE.to_owned()).into_iter().collect();
        let guard = Self { seen: stood.harmful.clone(), stood, unsaid, mends: 0, run, isolation, shelf };
        guard.save()?;
        Ok(guard)
    }

    /// Nobody was at work since something was put back last: what could harm is as the user wants it.
    pub(super) fn rest(&mut self, repo: &Repository) -> Result<()> {
        self.accept(repo, Tell::Harmless)
    }

    /// Has it known that what could harm has changed, to the next driver too.
    pub(super) fn notice(&mut self, repo: &Repository) -> Result<()> {
        let now = Harmful::take(repo)?;
        if now == self.seen {
            return Ok(());
        }
        self.seen = now;
        self.save()
    }

    /// Nobody is at work any more: what changes from here on is the user's. What refs lost since the last comparison, which
    /// no checkpoint tells of, is kept.
    pub(super) fn end(self, keeper: &Keeper<'_>) {
        let lost = Refs::take(keeper.repo, &self.run).and_then(|now| now.since(&self.stood.refs, keeper));
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

    /// What there is to say, once.
    pub(super) fn said(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unsaid)
    }

    /// How often something was put back.
    pub(super) fn mends(&self) -> u32 {
        self.mends
    }

    /// Puts dangerous settings back where they were, and what hides files from git. Whoever changed them cannot be told
    /// from here: the person who did hears of it, and of every other setting only that.
    pub(super) fn mend(&mut self, repo: &Repository) -> Result<()> {
        self.undo(repo, None)
    }

    /// Puts back what is as it was `seen`, where that is given. What was seen is looked at again for as long as somebody
    /// changes it meanwhile.
    fn undo(&mut self, repo: &Repository, seen: Option<&Harmful>) -> Result<()> {
        let mut contended = BTreeSet::new();
        for tried in 0..TRIES {
            let path = |name: &str| repo.common_dir().join(name);
            let held = contended.iter().filter(|_| tried >= HASTY).map(|name: &String| Exclusion::of(&path(name)));
            let held = held.collect::<std::io::Result<Vec<_>>>().context("a file of settings cannot be locked")?;
            let stamp = stamp();
            let (now, repairs) = self.repairs(repo, seen, &stamp)?;
            self.seen = now;
            let known = self.unsaid.len();
            self.note(put_back_in_words(repo, &repairs, &stamp))?;
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
            // What was changed meanwhile is looked at again, and said as it is then.
            self.unsaid.truncate(known);
            self.unsaid.extend(put_back_in_words(repo, &done, &stamp));
            self.unsaid.extend(sorted_few(kept, NAMED).map(|names| {
                format!("what was written to settings of the repository while others were put back is kept beside them: {names}")
            }));
            self.save()?;
        }
        Err(Error::failed("the repository's settings are changed again and again while they are put back")
            .hint("see which program writes to '.git/config', then resume the run"))
    }

    /// What could harm as it is now, and what is to be put back of it.
    fn repairs(&self, repo: &Repository, seen: Option<&Harmful>, stamp: &str) -> Result<(Harmful, Vec<Repair>)> {
        let mut now = Harmful::take(repo)?;
        let before = &self.stood.harmful;
        let kept = |name: &String, found: &Found| {
            (*found != Found::Nothing).then(|| aside(&repo.common_dir().join(name), stamp))
        };
        let gone =
            before.settings.keys().filter(|name| !name.starts_with(WORKTREES) && !now.settings.contains_key(*name));
        now.settings.extend(held(repo, gone.cloned().collect::<Vec<_>>()));
        let mut repairs = Vec::new();
        for (name, found) in &now.settings {
            // git gives a worktree that it makes what the main one has (git-worktree(1)).
            let known = if before.settings.contains_key(name) { name } else { OF_A_WORKTREE };
            let Some(before) = before.settings.get(known).filter(|before| *before != found) else { continue };
            let is_of_a_place = name.starts_with(WORKTREES);
            let settings = if found.is_like(before) { list(found.content())? } else { None };
            let Some(mut settings) = settings else {
                if *found == Found::Nothing && is_of_a_place {
                    continue;
                }
                let why = Why::Broken(format!("{name} ({})", found.in_words()));
                let aside = kept(name, found);
                repairs.push(Repair { name: name.clone(), now: found.clone(), new: before.clone(), aside, why });
                continue;
            };
            let Some(old) = list(before.content())? else { continue };
            // A worktree that was made meanwhile may have been told where its files are.
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
                before.clone() // byte for byte, comments too
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

    /// Has it said what else has changed, which is taken as it is from here on, and keeps what no ref has any more.
    pub(super) fn compare(&mut self, keeper: &Keeper<'_>) -> Result<()> {
        self.mend(keeper.repo)?;
        let mut now = Sight::take(keeper.repo, &self.run, self.isolation, Some(&self.stood))?;
        let restored = now.refs.put_back_runs(&self.stood.refs, keeper)?;
        let words = self.changes(&now, keeper)?;
        self.unsaid.extend(self.say(restored, "refs of other runs were removed"));
        self.unsaid.extend(words);
        self.seen = now.harmful.clone();
        self.stood = now;
        self.save()
    }

    /// What is to be said once something was put back, and is known to the next driver before it is.
    fn note(&mut self, words: impl IntoIterator<Item = String>) -> Result<()> {
        let known = self.unsaid.len();
        self.unsaid.extend(words);
        if self.unsaid.len() == known {
            return Ok(());
        }
        self.mends += 1;
        self.save()
    }

    fn save(&self) -> Result<()> {
        self.shelf.save((&self.stood, &self.seen, &self.unsaid))
    }

    /// Takes what could harm as it is, and tells of settings that changed. A file that cannot be read is as it was.
    fn accept(&mut self, repo: &Repository, tell: Tell) -> Result<()> {
        let mut now = Harmful::take(repo)?;
        for (name, found) in &mut now.settings {
            if let Some(before) = self.stood.harmful.settings.get(name).filter(|before| *before != found)
                && (!found.is_like(before) || list(found.content())?.is_none())
            {
                *found = before.clone();
            }
        }
        let changed = settings_since(&self.stood.harmful.settings, &now.settings)?.into_iter();
        let changed = changed.filter(|(_, _, is_restored)| tell == Tell::All || !is_restored);
        let names = changed.map(|(name, file, _)| in_words(&name, file)).collect();
        self.unsaid.extend(self.say(names, SETTINGS));
        (self.seen, self.stood.harmful) = (now.clone(), now);
        self.save()
    }

    /// What differs from what stood, in words.
    fn changes(&self, now: &Sight, keeper: &Keeper<'_>) -> Result<Vec<String>> {
        let before = &self.stood;
        let settings = settings_since(&before.harmful.settings, &now.harmful.settings)?;
        let settings = settings.into_iter().map(|(name, file, _)| in_words(&name, file));
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

/// The settings that are not what they were `before`, each with its file and whether it is one that is put back. Those of a
/// worker's own place are its own business, and go with that.
fn settings_since<'a>(before: &Held, now: &'a Held) -> Result<Vec<(String, &'a str, bool)>> {
    let mut found = Vec::new();
    for (file, now) in now.iter().filter(|(file, _)| !file.starts_with(WORKTREES)) {
        let before = before.get(file);
        if before == Some(now) {
            continue;
        }
        let before = list(before.and_then(Found::content))?.unwrap_or_default();
        let now = list(now.content())?.unwrap_or_default();
        let told = |name: &String| (name.clone(), file.as_str(), is_restored(name, &before, &now));
        found.extend(changed(&before, &now).map(told));
    }
    Ok(found)
}

/// The changes of settings in the file `file` that are put back: those that are as they were `seen`, where that is given.
fn restored(file: &str, before: &Settings, now: &Settings, seen: Option<&Settings>) -> Vec<Change> {
    let names = changed(before, now)
        .filter(|name| is_restored(name, before, now))
        .filter(|name| seen.is_none_or(|seen| seen.get(*name) == now.get(*name)));
    let values = |settings: &Settings, name: &String| settings.get(name).cloned().unwrap_or_default();
    let change = |name: &String| Change {
        file: file.to_owned(),
        name: name.clone(),
        now: values(now, name),
        before: values(before, name),
    };
    names.map(change).collect()
}

fn put_back_in_words(repo: &Repository, repairs: &[Repair], stamp: &str) -> Vec<String> {
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

fn settings_put_back(repo: &Repository, changes: &[&Change]) -> Option<String> {
    if changes.is_empty() {
        return None;
    }
    let mut names: Vec<String> = changes.iter().map(|change| in_words(&change.name, &change.file)).collect();
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
