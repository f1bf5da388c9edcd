//! One function a verb: the only place that picks implementations. Surfaces (`cli`, `mcp`) call these and print.

mod authority;
mod before;
mod bisect;
mod detach;
mod doctor;
mod drive;
mod fork;
mod hooked;
mod live;
mod merge;
mod nested;
mod read;
mod removal;
mod restore;
mod review;
mod share;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use self::bisect::{Bisected, Tried, bisect};
pub use self::detach::{answer_detached, cancel_detached, drive, resume_detached, run_detached};
pub use self::doctor::{Cwd, Doctor, Finding, Health, doctor, examined_backends};
pub use self::drive::{answer, cancel, resume, run};
pub use self::fork::{Fork, fork};
pub use self::hooked::{carry_events, name_merged, name_squashed, push_records};
pub use self::live::{change_live, steer};
pub use self::merge::{Merge, Way, merge, merge_with_agent, unfit};
pub use self::nested::{refuse_nested, worker_of};
pub use self::read::{Listed, Transcript, branch_here, list, listed, output, resolve, result, set_aside, status, tail};
pub use self::removal::{Prunable, Removal, discard, prune};
pub use self::restore::{Restored, restore};
pub use self::review::{
    Diff, History, MergePreview, Shown, ShownIteration, Span, diff, history, merge_preview, show, span,
};
pub use self::share::{Diverged, Refused, SyncReport, sync};
pub use self::watch::{LOOK, ListWatcher, Watcher};
use crate::agent::Agent;
use crate::agent::probe;
use crate::agent::prompts::Prompts;
use crate::agent::registry::{BackendView, Registry};
pub use crate::engine::{Unwatched, Watch};
use crate::error::{Error, Result, alike};
use crate::host::store::{Bases, Store};
use crate::interaction::{Interaction, Suspend};
pub(crate) use crate::ledger::git::Git;
pub use crate::ledger::git::preview::FileStat;
use crate::ledger::git::{GitLedger, Repository};
pub use crate::options::Changes;
use crate::options::{Settings, TABLE};
use crate::redact::Redactor;
use crate::run::event::Timestamp;
use crate::run::folder::Folder;
use crate::run::goal::{ACP, AgentChoice, Isolation, Options, Permissions, Role, RunId};

/// The longest a verb waits for a driver that was told to stop.
const STOP_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// A repository and what its user has set.
pub struct Site {
    repo: Repository,
    /// The directory that it was opened from; `None` = the current one.
    dir: Option<PathBuf>,
    /// Read once somebody asks: what git's hooks do needs none.
    settings: OnceLock<Settings>,
    /// The same.
    registry: OnceLock<Registry>,
    own: BTreeMap<String, Arc<dyn Agent>>,
}

impl Site {
    /// Opens the repository that `dir`, or the current directory, is in.
    ///
    /// # Errors
    /// Where there is none, or git would not trust it.
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

    /// What the user has set.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        self.settings.get_or_init(|| Settings::new(|key| self.repo.config(key), |name| std::env::var(name).ok()))
    }

    /// Where one stands in it: the user's checkout, or the git directory of a bare repository.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.repo.home()
    }

    /// The folder of the checkout that `dir`, or where it was opened from, is; the top level where that is outside of it.
    ///
    /// # Errors
    /// Where `dir` is no folder of the checkout.
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

    /// Whether `other` is the same repository, seen from this or another of its worktrees.
    #[must_use]
    pub fn is_same_repository(&self, other: &Self) -> bool {
        self.repo.common_dir() == other.repo.common_dir()
    }

    /// Has a backend of the caller's own answer to `name`, before any other of that name.
    #[must_use]
    pub fn with_agent(mut self, name: impl Into<String>, agent: Arc<dyn Agent>) -> Self {
        self.own.insert(name.into(), agent);
        self
    }

    /// The backends that can be driven from here.
    fn registry(&self) -> &Registry {
        self.registry.get_or_init(|| {
            let mut own = self.repo.config_names("agentloop.backend.");
            own.extend(self.commands_set());
            Registry::new(&|key| self.repo.config(key), &own)
        })
    }

    /// The backends that the user's settings name by their commands.
    fn commands_set(&self) -> impl Iterator<Item = String> {
        let agent = self.settings().agent().ok();
        let choices = agent.into_iter().chain(self.settings().roles().unwrap_or_default().into_values());
        choices.map(|choice| choice.backend).filter(|backend| backend.starts_with(ACP))
    }

    /// Whether somebody other than the user may choose this backend: a command is the user's to name.
    #[must_use]
    pub fn may_be_chosen(&self, backend: &str) -> bool {
        !backend.starts_with(ACP) || self.commands_set().any(|set| set == backend)
    }

    /// The agents that `options` name.
    fn agents(&self, options: &Options) -> Result<BTreeMap<String, Arc<dyn Agent>>> {
        let choices = std::iter::once(&options.agent).chain(options.roles.values());
        let names = choices.map(|choice| choice.backend.as_str());
        names.map(|name| Ok((name.to_owned(), self.agent(name)?))).collect()
    }

    /// The agent that answers to `name`, which will be on record.
    fn agent(&self, name: &str) -> Result<Arc<dyn Agent>> {
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

/// A run to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NewRun {
    /// The goal.
    pub goal: String,
    /// What must hold for it to be reached; empty lets an agent propose it.
    pub criteria: String,
    /// Everything else.
    pub options: Options,
    /// The revision to start from; `None` = HEAD.
    pub base: Option<String>,
    /// What to call it; `None` = words of the goal.
    pub name: Option<String>,
    /// Its id; `None` = one of its own, as everybody but a driver's starter leaves it.
    pub id: Option<RunId>,
    /// Whether everything may be permitted in the user's checkout.
    pub force: bool,
    /// The run and iteration that it goes on from, as `<run>@<iteration>`.
    #[serde(default)]
    pub forked_from: Option<String>,
}

impl NewRun {
    /// A run for `goal` by `backend`, with every option at its default.
    #[must_use]
    pub fn new(goal: impl Into<String>, backend: impl Into<String>) -> Self {
        let agent = AgentChoice { backend: backend.into(), model: None };
        Self { goal: goal.into(), options: Options { agent, ..Options::default() }, ..Self::default() }
    }
}

/// What the caller of a driver brings along; by default nobody answers, looks on or stops it.
pub struct Drive {
    /// Where the user answers.
    pub interaction: Arc<dyn Interaction>,
    /// Who looks on.
    pub watch: Arc<dyn Watch>,
    /// Cancelled when the run must stop.
    pub cancel: CancellationToken,
}

impl Default for Drive {
    fn default() -> Self {
        Self { interaction: Arc::new(Suspend), watch: Arc::new(Unwatched), cancel: CancellationToken::new() }
    }
}

/// The backends: built in, and the user's own.
///
/// # Errors
/// Where the user's own are not usable as configured.
pub fn backends(site: &Site) -> Result<Vec<BackendView>> {
    Ok(site.registry().list())
}

/// Who answers by default: as the user has set it, and what that comes to here.
#[must_use]
pub fn default_backend(site: &Site) -> (String, Option<String>) {
    let set = site.settings().agent().map(|choice| choice.to_string()).unwrap_or_default();
    if set.is_empty() || set == "auto" {
        return ("auto".to_owned(), site.registry().auto().ok());
    }
    (set.clone(), Some(set))
}

/// What `role` is told: the user's text where there is one, else ours.
///
/// # Errors
/// Where there is no such role, or the user's texts cannot be read.
pub fn prompt(site: &Site, role: &str) -> Result<String> {
    let known = Role::ALL.into_iter().find(|known| known.name() == role).ok_or_else(|| {
        let names = Role::ALL.map(Role::name).join(", ");
        Error::usage(format!("there is no role '{role}'")).hint(format!("the roles are {names}"))
    })?;
    Ok(Prompts::load(site.settings().prompts()?.as_deref())?.system(known).to_owned())
}

/// Writes the built-in prompts to `dir`, to be edited there; the files that were made.
///
/// # Errors
/// Where they cannot be written.
pub fn dump_prompts(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    Prompts::dump(dir)
}

/// What looks like a setting and is none: nobody else would ever say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSetting {
    /// What is wrong with it.
    pub said: String,
    /// The command that takes it away.
    pub undo: String,
}

/// Keys in `[agentloop]` of git's configuration that are no setting, and variables whose names are slips of a setting's.
#[must_use]
pub fn unknown_settings(site: &Site) -> Vec<NoSetting> {
    let known: Vec<(String, &str)> =
        TABLE.iter().map(|entry| (entry.key["agentloop.".len()..].to_ascii_lowercase(), entry.key)).collect();
    let is_known = |name: &String| known.iter().any(|(lower, _)| lower == name);
    let keys = site.repo.config_keys("agentloop").into_iter().filter(|name| !is_known(name)).map(|name| {
        let alike = alike(&name, known.iter().map(|(lower, _)| lower.as_str()));
        let meant = alike.and_then(|alike| known.iter().find(|(lower, _)| lower == alike));
        let meant = meant.map_or_else(String::new, |(_, key)| format!(": did you mean '{key}'?"));
        NoSetting {
            said: format!("'agentloop.{name}' in git's configuration is no setting{meant}"),
            undo: format!("git config --unset-all agentloop.{name}"),
        }
    });
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let unknown = set.filter(|name| name.starts_with("AGENTLOOP_") && TABLE.iter().all(|entry| entry.env != *name));
    // Others of that beginning may be anybody's: what works for a run has some.
    let variables = unknown.filter_map(|name| {
        let meant = alike(&name, TABLE.iter().map(|entry| entry.env))?;
        let said = format!("the environment variable {name} is no setting: did you mean {meant}?");
        Some(NoSetting { said, undo: format!("unset {name}") })
    });
    keys.chain(variables).collect()
}

/// What the user should know before a run begins, a line each.
///
/// # Errors
/// Where a run cannot begin here.
pub fn notices(site: &Site, new: &NewRun) -> Result<Vec<String>> {
    site.repo.check_for_runs()?;
    let base = site.repo.resolve_base(new.base.as_deref())?;
    // What is refused is refused first.
    settle(site, &mut new.clone())?;
    let mut notices = Vec::new();
    if site.repo.identity().is_fallback {
        notices.push("git does not know your name: commits are by git-agentloop <agentloop@localhost>".to_owned());
    }
    if new.options.isolation != Isolation::None && site.repo.has_uncommitted_changes()? {
        notices.push("uncommitted changes in your checkout are not part of the run".to_owned());
    }
    let bases = Bases::of_process();
    if Store::find(site.repo.common_dir(), &bases).is_none() && !bases.are_writable() {
        let lacks = "'resume' will ask again what may run, and 'steer' has no way to the run";
        notices.push(format!("no private store can be made in the state directory: {lacks}"));
    }
    notices.extend(unknown_settings(site).into_iter().map(|unknown| unknown.said));
    notices.extend(before::notices(site, &new.options.checks, &base)?);
    Ok(notices)
}

/// Holds a run that is to be started against what is allowed, and settles who answers.
fn settle(site: &Site, new: &mut NewRun) -> Result<()> {
    if new.goal.trim().is_empty() {
        return Err(Error::usage("the goal is empty")
            .hint("say what is to be done: git agentloop run \"add a /health endpoint\""));
    }
    refuse_nested(site)?;
    let options = &mut new.options;
    if options.isolation == Isolation::None && options.permissions == Permissions::All && !new.force {
        return Err(Error::usage("everything would be permitted in your own checkout")
            .hint("leave out --no-isolate to work in a worktree, or say --force as well"));
    }
    if options.isolation == Isolation::None && site.repo.work_dir().is_none() {
        return Err(Error::usage("--no-isolate needs a checkout, and this repository is bare")
            .hint("leave it out: the run then works in a worktree of its own"));
    }
    site.repo.check_paths(&options.protect)?;
    // What the user protects everywhere need not be in every project.
    if options.protect != site.settings().protect() {
        before::protects(site, &options.protect, &site.repo.resolve_base(new.base.as_deref())?)?;
    }
    before::runnable(site, "check", &options.checks)?;
    before::runnable(site, "set-up command", &site.settings().setup()?)?;
    for choice in std::iter::once(&mut options.agent).chain(options.roles.values_mut()) {
        if choice.backend == "auto" || choice.backend.is_empty() {
            choice.backend = site.registry().auto()?;
        }
    }
    affordable(site, options)?;
    // What its driver will ask the settings for, before there is anything to leave behind.
    drive::provisioning(site)?;
    site.settings().review_bytes()?;
    site.settings().preferences()?;
    Prompts::load(site.settings().prompts()?.as_deref())?;
    site.agents(options)?;
    callable(site, options)
}

/// Every agent that may be called must be one that can be: none is found missing after hours of work.
fn callable(site: &Site, options: &Options) -> Result<()> {
    let registry = site.registry();
    let choices = Role::ALL.into_iter().map(|role| options.agent_for(role));
    choices.filter(|choice| !site.own.contains_key(&choice.backend)).try_for_each(|choice| registry.check(choice))
}

/// Refuses a run whose agents' programs can tell already that they cannot work: each is asked once.
async fn check_agents(site: &Site, options: &Options) -> Result<()> {
    let registry = site.registry();
    let names = Role::ALL.into_iter().map(|role| options.agent_for(role).backend.as_str());
    let names: BTreeSet<&str> = names.filter(|name| !site.own.contains_key(*name)).collect();
    for asked in names.into_iter().map(|name| probe::check(registry, name, options.permissions)) {
        asked.await?;
    }
    Ok(())
}

/// A limit on what a run may cost holds only where every agent tells what it costs.
fn affordable(site: &Site, options: &Options) -> Result<()> {
    if options.budget.max_cost.is_none() {
        return Ok(());
    }
    let registry = site.registry();
    let silent = Role::ALL
        .into_iter()
        .map(|role| options.agent_for(role))
        .find(|choice| !site.own.contains_key(&choice.backend) && !registry.tells_cost(&choice.backend));
    match silent {
        None => Ok(()),
        Some(choice) => Err(Error::usage(format!(
            "'{}' does not tell what a call costs, so a limit on the cost would never stop the run",
            choice.backend
        ))
        .hint("leave --max-cost or agentloop.maxCost out: --max-tokens bounds what it uses, --max-agent-calls how often it is called")),
    }
}

/// What marks the processes that work for `run` in this clone.
fn clone_of(site: &Site, run: &RunId) -> String {
    crate::process::clone_of(&GitLedger::scratch_of(&site.repo, run))
}

/// Stops what a driver of `run` that died has left: by the mark in its environment, by what the driver wrote down, and by
/// the run's folders that it works in.
async fn stop_leftovers(site: &Site, run: &RunId, grace: std::time::Duration) {
    let scratch = GitLedger::scratch_of(&site.repo, run);
    let mut places = GitLedger::worktrees_of(&site.repo, run);
    places.push(scratch.clone());
    let left = crate::process::Leftovers {
        run: run.as_str(),
        clone: &clone_of(site, run),
        listed: Some(&scratch.join(crate::ledger::PROCESSES)),
        places,
    };
    crate::process::stop_leftovers(&left, grace).await;
}

/// The branch of a run.
#[must_use]
pub fn branch(run: &RunId) -> String {
    format!("agentloop/{run}")
}

/// The time.
#[must_use]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
