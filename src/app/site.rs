//! Repository that a verb works on, with the user's settings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::agent::Agent;
use crate::agent::registry::Registry;
use crate::engine::{Provisioning, SETUP_ON};
use crate::error::{Error, Result};
use crate::ledger::Home;
use crate::ledger::git::Repository;
use crate::options::Settings;
use crate::redact::Redactor;
use crate::run::event::Timestamp;
use crate::run::folder::Folder;
use crate::run::goal::{ACP, Options, RunId};

/// A repository and its user's settings.
pub struct Site {
    pub(super) repo: Repository,
    /// The directory that it was opened from; `None` is the current one.
    dir: Option<PathBuf>,
    /// Read on first use: git's hooks need no settings.
    settings: OnceLock<Settings>,
    /// Read on first use, as the settings are.
    registry: OnceLock<Registry>,
    pub(super) own: BTreeMap<String, Arc<dyn Agent>>,
}

impl Site {
    /// Opens the repository that `dir`, or the current directory, is in.
    ///
    /// # Errors
    /// Fails if there is none, or if git does not trust it (`safe.directory`).
    pub fn open(dir: Option<&Path>) -> Result<Self> {
        let repo = Repository::open(dir)?;
        Ok(Self {
            repo,
            dir: dir.map(Path::to_owned),
            settings: OnceLock::new(),
            registry: OnceLock::new(),
            own: BTreeMap::new(),
        })
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repo
    }

    /// Returns the user's settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.settings.get_or_init(|| Settings::new(|key| self.repo.config(key), |name| std::env::var(name).ok()))
    }

    /// Returns the user's checkout, or the git directory of a bare repository.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.repo.home()
    }

    /// Returns `dir`, by default the directory that the site was opened from, relative to the checkout. The default outside
    /// of the checkout is its top level.
    ///
    /// # Errors
    /// Fails if `dir` is not a folder of the checkout.
    pub fn folder(&self, dir: Option<&Path>) -> Result<Folder> {
        let from = dir.or(self.dir.as_deref()).unwrap_or(Path::new("."));
        let inside = from.canonicalize().ok().filter(|path| path.is_dir()).and_then(|path| {
            let below = path.strip_prefix(self.repo.work_dir()?).ok()?.to_str()?.to_owned();
            Folder::try_from(below).ok()
        });
        match (inside, dir) {
            (Some(folder), _) => Ok(folder),
            (None, None) => Ok(Folder::default()),
            (None, Some(dir)) => Err(Error::usage(format!("--cwd '{}' is no folder of this checkout", dir.display()))
                .hint(format!("name one in '{}'", self.home().display()))),
        }
    }

    /// Reports whether `other` is the same repository, perhaps opened from another worktree.
    #[must_use]
    pub fn is_same_repository(&self, other: &Self) -> bool {
        self.repo.common_dir() == other.repo.common_dir()
    }

    /// Adds a backend of the caller under `name`, which takes precedence over others of that name.
    #[must_use]
    pub fn with_agent(mut self, name: impl Into<String>, agent: Arc<dyn Agent>) -> Self {
        self.own.insert(name.into(), agent);
        self
    }

    /// Returns the known backends.
    pub(super) fn registry(&self) -> &Registry {
        self.registry.get_or_init(|| {
            let mut own = self.repo.config_names("agentloop.backend.");
            own.extend(self.commands_set());
            Registry::new(&|key| self.repo.config(key), &own)
        })
    }

    /// Lists the backends that the user's settings name by a command.
    fn commands_set(&self) -> impl Iterator<Item = String> {
        let agent = self.settings().agent().ok();
        let choices = agent.into_iter().chain(self.settings().roles().unwrap_or_default().into_values());
        choices.map(|choice| choice.backend).filter(|backend| backend.starts_with(ACP))
    }

    /// Reports whether a caller other than the user may choose this backend: only the user may name a command to run.
    #[must_use]
    pub fn may_be_chosen(&self, backend: &str) -> bool {
        !backend.starts_with(ACP) || self.commands_set().any(|set| set == backend)
    }

    /// Returns the agents that `options` name.
    pub(super) fn agents(&self, options: &Options) -> Result<BTreeMap<String, Arc<dyn Agent>>> {
        let choices = std::iter::once(&options.agent).chain(options.roles.values());
        let names = choices.map(|choice| choice.backend.as_str());
        names.map(|name| Ok((name.to_owned(), self.agent(name)?))).collect()
    }

    /// Returns the agent called `name`; refuses a name that holds a secret, since names are recorded.
    pub(super) fn agent(&self, name: &str) -> Result<Arc<dyn Agent>> {
        if let Some(own) = self.own.get(name) {
            return Ok(Arc::clone(own));
        }
        if name.starts_with(ACP) {
            let clean = Redactor::of_process().clean(name).into_owned();
            if clean != name {
                return Err(Error::usage(format!("'{clean}' holds a secret, and would be on record"))
                    .hint("agents read their keys from the environment"));
            }
        }
        self.registry().get(name)
    }
}

/// Reads from the settings how new worktrees are set up.
pub(super) fn provisioning(site: &Site) -> Result<Provisioning> {
    let settings = site.settings();
    let (setup, setup_timeout) = (settings.setup()?, settings.setup_timeout()?);
    let (check_clean, home) = settings.checks_alone()?;
    let private_home = home == Home::Private;
    let mut setup_on = settings.setup_on();
    if setup_on.is_empty() {
        setup_on = SETUP_ON.map(ToOwned::to_owned).to_vec();
    }
    Ok(Provisioning { copy: settings.copy(), setup, setup_timeout, setup_on, check_clean, private_home })
}

/// Returns the branch of a run.
#[must_use]
pub fn branch(run: &RunId) -> String {
    format!("agentloop/{run}")
}

/// Returns the current time.
#[must_use]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
