//! What agents have no business with: the user's checkout, branches and configuration. Nothing keeps an agent from
//! leaving its worktree, so what changed while agents were at it is said, and settings that could harm before anybody
//! reads that are put back.
//!
//! One look a checkpoint is enough: it is held against the one before, and the next one against it. What was seen is kept
//! in the run's folder for as long as a driver is at work, so that what an agent of a killed one changed is not taken for
//! the user's by its successor.

mod settings;
mod sight;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use gix::bstr::{BString, ByteSlice as _};

use self::settings::{changed, in_words, is_dangerous};
use self::sight::{CONFIG, Harmful, Held, OF_A_WORKTREE, Sight, read};
use super::command::Git;
use super::mend::take_away;
use super::repository::Repository;
use crate::error::{Context as _, Result};
use crate::run::goal::Isolation;
use crate::run::text::a_few;

/// Paths and names that a remark repeats.
const NAMED: usize = 10;

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
    isolation: Isolation,
    /// Where the first three are kept.
    file: PathBuf,
}

/// A setting that is to be what it was.
struct Change {
    /// The file that holds it.
    file: String,
    name: String,
    is_set: bool,
    values: Vec<BString>,
}

impl Guard {
    /// Begins to watch. What a driver that was killed left in `file` stands: what it saw change, and what could harm, is put
    /// back at once. What nobody saw may be what the user did since, and is only said.
    pub(super) fn begin(repo: &Repository, isolation: Isolation, file: PathBuf) -> Result<Self> {
        let left = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some((stood, seen, unsaid)) = left {
            let mut guard = Self { stood, seen, unsaid, mends: 0, isolation, file };
            let seen = guard.seen.clone();
            guard.undo(repo, Some(&seen))?;
            guard.accept(repo, |_| true)?;
            return Ok(guard);
        }
        let stood = Sight::take(repo, isolation)?;
        let guard = Self { seen: stood.harmful.clone(), stood, unsaid: Vec::new(), mends: 0, isolation, file };
        guard.save()?;
        Ok(guard)
    }

    /// Nobody was at work since something was put back last: what could harm is as the user wants it.
    pub(super) fn rest(&mut self, repo: &Repository) -> Result<()> {
        self.accept(repo, |name| !is_dangerous(name))
    }

    /// Has it known that what could harm has changed, to the next driver too.
    pub(super) fn notice(&mut self, repo: &Repository) -> Result<()> {
        let now = Harmful::take(repo);
        if now == self.seen {
            return Ok(());
        }
        self.seen = now;
        self.save()
    }

    /// Nobody is at work any more: what changes from here on is the user's.
    pub(super) fn end(self) {
        let _ = std::fs::remove_file(self.file);
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

    /// The same for what is as it was `seen`, where that is given.
    fn undo(&mut self, repo: &Repository, seen: Option<&Harmful>) -> Result<()> {
        // First: without it git has no settings to list, and waits for a pipe in its place.
        if let Some(config) = content(&self.stood.harmful.settings, CONFIG).map(<[u8]>::to_vec)
            && read(&repo.common_dir().join(CONFIG)).is_none()
        {
            self.note([settings_put_back(CONFIG)])?;
            put_back(repo, CONFIG, Some(&config))?;
        }
        let now = Harmful::take(repo);
        let changes = self.dangerous(repo, &now.settings, seen)?;
        let names = changes.iter().map(|change| in_words(&change.name, &change.file)).collect();
        let mut rules = self.stood.harmful.rules.clone();
        rules.retain(|name, held| {
            let is_seen = seen.is_none_or(|seen| seen.rules.get(name) == now.rules.get(name));
            is_seen && now.rules.get(name) != Some(held)
        });
        let said = [
            named(names).map(|names| settings_put_back(&names)),
            named(rules.keys().cloned().collect()).map(|names| rules_put_back(&names)),
        ];
        self.seen = now;
        self.note(said.into_iter().flatten())?;
        changes.into_iter().try_for_each(|change| change.undo(repo))?;
        rules.iter().try_for_each(|(name, held)| put_back(repo, name, held.as_deref()))
    }

    /// Has it said what else has changed, which stands from here on.
    pub(super) fn compare(&mut self, repo: &Repository) -> Result<()> {
        self.mend(repo)?;
        let now = Sight::take(repo, self.isolation)?;
        let words = self.changes(repo, &now)?;
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
        let failed = || format!("'{}' cannot be written", self.file.display());
        let text = serde_json::to_vec(&(&self.stood, &self.seen, &self.unsaid)).context(failed())?;
        let staged = self.file.with_added_extension("new");
        // Settings may hold what nobody else is to read.
        let opened = File::options().write(true).create(true).truncate(true).mode(0o600).open(&staged);
        let written = opened.and_then(|mut file| file.write_all(&text));
        written.and_then(|()| std::fs::rename(&staged, &self.file)).context(failed())
    }

    /// Takes what could harm as it is, and has it said of settings that are `told` of.
    fn accept(&mut self, repo: &Repository, told: fn(&str) -> bool) -> Result<()> {
        let now = Harmful::take(repo);
        let changed = self.settings_since(repo, &now.settings)?.into_iter().filter(|(name, _)| told(name));
        let names = changed.map(|(name, file)| in_words(&name, file)).collect();
        self.unsaid.extend(self.say(names, SETTINGS));
        (self.seen, self.stood.harmful) = (now.clone(), now);
        self.save()
    }

    /// The dangerous settings that are not what they were, but what they were when they were `seen` last.
    fn dangerous(&self, repo: &Repository, now: &Held, seen: Option<&Harmful>) -> Result<Vec<Change>> {
        let mut found = Vec::new();
        for (file, now) in now {
            // git gives a worktree that it makes what the main one has (git-worktree(1)).
            let known = if self.stood.harmful.settings.contains_key(file) { file } else { OF_A_WORKTREE };
            let before = content(&self.stood.harmful.settings, known);
            if before == now.as_deref() {
                continue;
            }
            let (before, now) = (settings::list(repo, before)?, settings::list(repo, now.as_deref())?);
            let seen = seen.map(|seen| settings::list(repo, content(&seen.settings, file))).transpose()?;
            let is_seen = |name: &&String| seen.as_ref().is_none_or(|seen| seen.get(*name) == now.get(*name));
            let names = changed(&before, &now).filter(|name| is_dangerous(name)).filter(is_seen);
            found.extend(names.map(|name| Change {
                file: file.clone(),
                name: name.clone(),
                is_set: now.contains_key(name),
                values: before.get(name).cloned().unwrap_or_default(),
            }));
        }
        Ok(found)
    }

    /// What differs from what stood, in words.
    fn changes(&self, repo: &Repository, now: &Sight) -> Result<Vec<String>> {
        let before = &self.stood;
        let differing = |before: &sight::Stamped, now: &sight::Stamped| {
            before.symmetric_difference(now).map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let refs =
            before.refs.keys().chain(now.refs.keys()).filter(|name| before.refs.get(*name) != now.refs.get(*name));
        let settings = self.settings_since(repo, &now.harmful.settings)?;
        let settings = settings.into_iter().map(|(name, file)| in_words(&name, file));
        let history = now.history.keys().filter(|name| before.history.get(*name) != now.history.get(*name));
        let found = [
            (differing(&before.files, &now.files), "files in your checkout were changed"),
            (differing(&before.hooks, &now.hooks), "hooks of the repository were changed"),
            (refs.cloned().collect(), "refs were moved"),
            (settings.collect(), SETTINGS),
            (history.cloned().collect(), "what git takes for the repository's history and objects was changed"),
        ];
        Ok(found.into_iter().filter_map(|(names, what)| self.say(names, what)).collect())
    }

    /// The settings that are not what they were, each with its file. Those of a worker's own place are its own business,
    /// and go with that.
    fn settings_since(&self, repo: &Repository, now: &Held) -> Result<Vec<(String, &'static str)>> {
        let mut found = Vec::new();
        for file in [CONFIG, OF_A_WORKTREE] {
            let (before, now) = (content(&self.stood.harmful.settings, file), content(now, file));
            if before != now {
                let (before, now) = (settings::list(repo, before)?, settings::list(repo, now)?);
                found.extend(changed(&before, &now).map(|name| (name.clone(), file)));
            }
        }
        Ok(found)
    }

    fn say(&self, names: Vec<String>, what: &str) -> Option<String> {
        let by = match self.isolation {
            Isolation::None => "by you, or by a worker",
            Isolation::Shared | Isolation::Worktree => "by you, or by a worker that left its worktree",
        };
        named(names).map(|names| format!("{what} while workers worked ({by}): {names}"))
    }
}

impl Change {
    fn undo(self, repo: &Repository) -> Result<()> {
        let config = || Git::anywhere("config").arg("--file").arg(repo.common_dir().join(&self.file));
        if self.is_set {
            config().args(["--unset-all", &self.name]).run()?;
        }
        for value in &self.values {
            config().args(["--add", &self.name]).arg(value.to_os_str_lossy().into_owned()).run()?;
        }
        Ok(())
    }
}

/// What the file `name` held.
fn content<'a>(held: &'a Held, name: &str) -> Option<&'a [u8]> {
    held.get(name).and_then(Option::as_deref)
}

/// Has the file `name` of the repository hold what it held, or not be there.
fn put_back(repo: &Repository, name: &str, held: Option<&[u8]>) -> Result<()> {
    let path = repo.common_dir().join(name);
    let put_back = || {
        take_away(&path)?;
        let Some(held) = held else { return Ok(()) };
        std::fs::create_dir_all(path.with_file_name(""))?;
        std::fs::write(&path, held)
    };
    put_back().context(format!("'{}' cannot be put back", path.display()))
}

fn settings_put_back(names: &str) -> String {
    format!(
        "settings of the repository that have git run commands or work elsewhere were changed while workers worked, and put \
         back (set them again if it was you): {names}"
    )
}

fn rules_put_back(names: &str) -> String {
    format!(
        "what says which files git sees was changed in the repository while workers worked, and put back (change it again \
         if it was you): {names}"
    )
}

/// The first of `names`, each once, and how many more there are; nothing where there are none.
pub(super) fn named(mut names: Vec<String>) -> Option<String> {
    names.sort();
    names.dedup();
    (!names.is_empty()).then(|| a_few(&names, NAMED))
}
