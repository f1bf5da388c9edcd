//! Checks that a repository and machine have what a run needs.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Site, now};
use crate::agent::probe::{self, Examined, LoggedIn};
use crate::agent::registry::Registry;
use crate::error::{Context as _, Error, Result};
use crate::ledger::git::{Git, GitLedger};
use crate::run::amount::Seconds;

/// Limit of open files (`ulimit -n`) below which a few agents may run out of them.
const FEW_FILES: u64 = 1024;
/// Free space on the disk of the worktrees below which it is reported as nearly full, in bytes.
const SOON_FULL: u64 = 1 << 30;
/// Start of 2024: a clock before that has not been set.
const CLOCK_NOT_SET: f64 = 1_704_067_200.0;
/// Largest difference by which HEAD may be ahead of the clock, in seconds.
const CLOCK_BEHIND: f64 = 300.0;

/// Report of `git agentloop doctor`. Its JSON is stable: fields may be added, but none is removed or changes its meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doctor {
    /// True if a run can begin here: nothing failed, and an agent is installed that may be logged in.
    pub ok: bool,
    /// This program's version.
    pub version: String,
    /// Findings about the machine and the repository.
    pub checks: Vec<Finding>,
    /// The backends, and which of them are installed and logged in.
    pub backends: Vec<Examined>,
    /// The folder that was asked about.
    pub cwd: Cwd,
    /// Time limits of a run that begins there.
    pub timeouts: Timeouts,
    /// Remedies for the findings that failed, then for the warnings.
    pub recommendations: Vec<String>,
}

/// A folder that a run could begin in.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cwd {
    /// Its path.
    pub path: String,
    /// True if it is outside of the repository that may be inspected: the other fields are then absent.
    pub outside: bool,
    /// True if the folder exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exists: Option<bool>,
    /// True if it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readable: Option<bool>,
    /// True if files can be created in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writable: Option<bool>,
    /// The repository that contains it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
}

impl Cwd {
    /// Makes the report for a folder outside of the repository, which has only the path.
    #[must_use]
    pub fn outside(path: &str) -> Self {
        Self { path: path.to_owned(), outside: true, ..Self::default() }
    }

    /// Examines `dir`, which is in the repository of `site` if there is one.
    #[must_use]
    pub fn of(dir: &Path, site: Option<&Site>) -> Self {
        use rustix::fs::Access;
        let exists = dir.is_dir();
        let may = |how: Access| exists && rustix::fs::access(dir, how | Access::EXEC_OK).is_ok();
        Self {
            path: dir.display().to_string(),
            outside: false,
            exists: Some(exists),
            readable: Some(may(Access::READ_OK)),
            writable: Some(may(Access::WRITE_OK)),
            repository: site.map(|site| site.home().display().to_string()),
        }
    }
}

/// Time limits in the user's settings, in seconds; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Of one call of an agent.
    pub call: Option<f64>,
    /// Of one check.
    pub check: Option<f64>,
    /// Of one setup command.
    pub setup: Option<f64>,
    /// Of a whole run.
    pub run: Option<f64>,
}

/// Result of one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `git`, `repository`, `worktrees`, `provisioning`, `clock`, `files`, `disk`, `agent` or `mcp`.
    pub name: String,
    /// Its state.
    pub state: Health,
    /// Description.
    pub detail: String,
    /// Remedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// State of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// No problem.
    Ok,
    /// A run can begin, but may have problems.
    Warning,
    /// No run can begin.
    Failed,
}

impl Finding {
    fn new(name: &str, state: Health, detail: impl Into<String>, hint: Option<&str>) -> Self {
        let hint = hint.map(ToOwned::to_owned);
        Self { name: name.to_owned(), state, detail: detail.into(), hint }
    }

    fn failed(name: &str, error: &Error) -> Self {
        Self::new(name, Health::Failed, error.chain(), error.hint_text())
    }
}

/// Checks everything that a run from `dir`, or the current directory, needs. No agent is called.
pub async fn doctor(dir: Option<&Path>) -> Doctor {
    let site = Site::open(dir);
    let backends = match &site {
        Ok(site) => examined_backends(site).await,
        Err(_) => probe::examine(&Registry::new(&|_| Vec::new(), &[])).await,
    };
    let mut checks = vec![git()];
    match &site {
        Ok(site) => {
            checks.extend([repository(site), worktrees(site), clock(site)]);
            checks.extend(provisioning(site));
            checks.extend(super::unknown_settings(site).into_iter().map(|unknown| {
                let hint = format!("'{}' takes it away; 'git agentloop config' lists them", unknown.undo);
                Finding::new("settings", Health::Warning, unknown.said, Some(&hint))
            }));
        }
        Err(error) => checks.push(Finding::failed("repository", error)),
    }
    checks.push(files());
    if let Ok(site) = &site {
        checks.extend(disk(site));
    }
    checks.push(agent(&backends));
    checks.extend(hosts(&backends));
    let ok = checks.iter().all(|finding| finding.state != Health::Failed);
    let hints = |state: Health| checks.iter().filter(move |finding| finding.state == state).flat_map(|it| &it.hint);
    let recommendations = hints(Health::Failed).chain(hints(Health::Warning)).cloned().collect();
    let here = dir.map_or_else(std::env::current_dir, |dir| Ok(dir.to_owned())).unwrap_or_default();
    let cwd = Cwd::of(&here, site.as_ref().ok());
    let timeouts = site.as_ref().map(timeouts).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Doctor { ok, version, checks, backends, cwd, timeouts, recommendations }
}

/// Reads the time limits; a value out of range is ignored here, since it is a finding of its own.
fn timeouts(site: &Site) -> Timeouts {
    let settings = site.settings();
    let seconds = |set: Result<Option<Seconds>>| set.ok().flatten().map(Seconds::get);
    Timeouts {
        call: seconds(settings.timeout()),
        check: seconds(settings.verify_timeout()),
        setup: seconds(settings.setup_timeout()),
        run: seconds(settings.max_seconds()),
    }
}

/// Examines the backends: whether each is installed and logged in, and what it supports.
pub async fn examined_backends(site: &Site) -> Vec<Examined> {
    probe::examine(site.registry()).await
}

fn git() -> Finding {
    match Git::anywhere("--version").output() {
        Ok(output) if output.status.success() => {
            Finding::new("git", Health::Ok, String::from_utf8_lossy(&output.stdout).trim(), None)
        }
        Ok(output) => Finding::new("git", Health::Failed, format!("'git --version': {}", output.status), None),
        Err(error) => {
            let hint = "install git 2.39 or newer, and see that it is on PATH";
            Finding::new("git", Health::Failed, format!("git cannot be started: {error}"), Some(hint))
        }
    }
}

fn repository(site: &Site) -> Finding {
    let fit = || -> Result<String> {
        site.repo.check_for_runs()?;
        let git = site.repo.common_dir();
        rustix::fs::access(git, rustix::fs::Access::WRITE_OK)
            .map_err(std::io::Error::from)
            .context(format!("'{}' cannot be written", git.display()))?;
        site.repo.resolve_base(None)
    };
    match fit() {
        Ok(base) => {
            let detail = format!("{}, HEAD at {}", site.repo.home().display(), &base[..base.len().min(12)]);
            Finding::new("repository", Health::Ok, detail, None)
        }
        Err(error) => Finding::failed("repository", &error),
    }
}

fn worktrees(site: &Site) -> Finding {
    let place = || GitLedger::worktrees_go(&site.repo, &site.settings().preferences()?);
    match place() {
        Ok(place) => Finding::new("worktrees", Health::Ok, format!("in {}", place.display()), None),
        Err(error) => Finding::failed("worktrees", &error),
    }
}

/// Reports which files are copied to new worktrees and which commands set them up; `None` if there are none.
fn provisioning(site: &Site) -> Option<Finding> {
    let name = "provisioning";
    let wanted = match super::site::provisioning(site) {
        Ok(wanted) => wanted,
        Err(error) => return Some(Finding::failed(name, &error)),
    };
    let files = match GitLedger::would_copy(&site.repo, &wanted.copy) {
        Ok(files) => files,
        Err(error) => return Some(Finding::failed(name, &error)),
    };
    let setup: Vec<&str> = wanted.setup.iter().map(|command| command.name.as_str()).collect();
    if files == 0 && wanted.copy.is_empty() && setup.is_empty() {
        return None;
    }
    let setup = if setup.is_empty() { String::new() } else { format!(", then '{}'", setup.join("', '")) };
    let detail = format!("new worktrees get {files} ignored files of your checkout{setup}");
    if files == 0 && !wanted.copy.is_empty() {
        let hint = "'git ls-files -o -i --exclude-standard --directory' lists what git ignores; agentloop.copy names none of it";
        return Some(Finding::new(name, Health::Warning, detail, Some(hint)));
    }
    Some(Finding::new(name, Health::Ok, detail, None))
}

/// Checks the clock: events are ordered by it, and git's own dates come from it.
fn clock(site: &Site) -> Finding {
    let seconds = now().seconds();
    if seconds < CLOCK_NOT_SET {
        return Finding::new("clock", Health::Warning, "the clock of this machine is not set", Some("set it"));
    }
    let newest = site.repo.gix().head_commit().ok().and_then(|commit| commit.time().ok());
    #[allow(clippy::cast_precision_loss)] // seconds of this age are exact
    let ahead = newest.map_or(0.0, |time| time.seconds as f64 - seconds);
    if ahead > CLOCK_BEHIND {
        let detail = format!("HEAD was committed {ahead:.0} s after now by this machine's clock");
        return Finding::new("clock", Health::Warning, detail, Some("set the clock, or see who committed HEAD"));
    }
    Finding::new("clock", Health::Ok, "not behind HEAD", None)
}

fn files() -> Finding {
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < FEW_FILES => Finding::new(
            "files",
            Health::Warning,
            format!("{limit} open files at a time"),
            Some("'ulimit -n 4096' allows more, or fewer workers at a time: --jobs 1"),
        ),
        Some(limit) => Finding::new("files", Health::Ok, format!("{limit} open files at a time"), None),
        None => Finding::new("files", Health::Ok, "any number of open files", None),
    }
}

fn disk(site: &Site) -> Option<Finding> {
    let room = rustix::fs::statvfs(site.repo.common_dir()).ok()?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let detail = format!("{} MiB free", free >> 20);
    Some(if free < SOON_FULL {
        let hint = "every worktree holds the whole project: 'git agentloop prune' removes those of merged runs";
        Finding::new("disk", Health::Warning, detail, Some(hint))
    } else {
        Finding::new("disk", Health::Ok, detail, None)
    })
}

fn agent(backends: &[Examined]) -> Finding {
    let is_api = |one: &&Examined| one.backend.kind == "api";
    let agents =
        || backends.iter().filter(|one| one.backend.installed && one.backend.kind != "built-in" && !is_api(one));
    let key = backends.iter().filter(is_api).find(|one| one.login == LoggedIn::Yes);
    if let Some(ready) = agents().find(|one| one.login != LoggedIn::No).or(key) {
        return Finding::new("agent", Health::Ok, format!("{} is ready", ready.backend.name), None);
    }
    if let Some(one) = agents().next() {
        let detail = format!("{} is installed, and nobody has logged in", one.backend.name);
        return Finding::new("agent", Health::Failed, detail, one.hint.as_deref());
    }
    let hint = "install one: npm install -g @anthropic-ai/claude-code; '--backend mock' shows the loop without";
    Finding::new("agent", Health::Failed, "no coding agent is installed", Some(hint))
}

/// Lists for each installed agent that can be an MCP host the command that adds the server to it.
fn hosts(backends: &[Examined]) -> Vec<Finding> {
    let notes = [
        (
            "claude_code",
            "claude mcp add agentloop -- git-agentloop mcp",
            "it hands the server its environment, keys included",
        ),
        ("codex", "codex mcp add agentloop -- git-agentloop mcp", "it hands the server PATH and HOME, and no keys"),
    ];
    let installed = |name: &str| backends.iter().any(|one| one.backend.name == name && one.backend.installed);
    let finding = |(name, command, note): (&str, &str, &str)| {
        let hint = format!("'{command}' lets it start and follow runs");
        installed(name).then(|| Finding::new("mcp", Health::Ok, format!("{name}: {note}"), Some(&hint)))
    };
    notes.into_iter().filter_map(finding).collect()
}
