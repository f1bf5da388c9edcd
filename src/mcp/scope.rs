//! The repository that a server works for.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::app::{self, Cwd, Site, Watcher};
use crate::error::{Context as _, Error, Kind, Result};
use crate::run::goal::RunId;

/// Longest run id, in characters.
pub const RUN_ID_LENGTH: usize = 64;

/// The open repository, so that calls need not discover it. A read that fails is repeated with the repository opened again,
/// since it may change while a server runs.
pub struct Scope {
    dir: Option<PathBuf>,
    site: Mutex<Option<Arc<Site>>>,
}

impl Scope {
    /// Opens the repository that `dir`, or the current directory, is in. Hosts start servers in any directory: if the
    /// current one is in no repository, every call returns that error.
    ///
    /// # Errors
    /// Fails if `dir` is given and is not in a repository.
    pub fn open(dir: Option<&Path>) -> Result<Self> {
        let site = match Site::open(dir) {
            Err(error) if dir.is_some() => return Err(error),
            site => site.ok().map(Arc::new),
        };
        Ok(Self { dir: dir.map(Path::to_path_buf), site: Mutex::new(site) })
    }

    /// Returns the repository as it was last opened.
    ///
    /// # Errors
    /// Fails if the server was started outside of a repository.
    pub fn site(&self) -> Result<Arc<Site>> {
        let held = self.site.lock().unwrap_or_else(PoisonError::into_inner).clone();
        held.map_or_else(|| self.fresh(), Ok)
    }

    /// Opens the repository again, with the user's current settings.
    ///
    /// # Errors
    /// Fails if it is gone or was replaced by another.
    pub fn fresh(&self) -> Result<Arc<Site>> {
        let site = Site::open(self.dir.as_deref()).map(Arc::new);
        let mut held = self.site.lock().unwrap_or_else(PoisonError::into_inner);
        let site = site.map_err(|error| if held.is_none() { outside(&error) } else { error })?;
        if let Some(held) = held.as_ref().filter(|held| !site.is_same_repository(held)) {
            return Err(Error::failed(format!("the repository of this server is gone: '{}'", held.home().display()))
                .hint("start the server anew where the work is"));
        }
        *held = Some(Arc::clone(&site));
        Ok(site)
    }

    /// Opens the repository from `cwd`.
    ///
    /// # Errors
    /// Fails if `cwd` is outside of it, where no run is ever started.
    pub fn at(&self, cwd: Option<&str>) -> Result<Arc<Site>> {
        let site = self.fresh()?;
        let Some(cwd) = cwd else { return Ok(site) };
        let dir = site.home().join(cwd);
        let hint = format!("leave cwd out, or name a directory in '{}'", site.home().display());
        if !dir.is_dir() {
            return Err(Error::usage(format!("argument 'cwd': '{cwd}' is no directory")).hint(hint));
        }
        let elsewhere = |error: Option<Error>| {
            let refused = Error::usage(format!("argument 'cwd': '{cwd}' is not in the repository of this server"));
            error.into_iter().fold(refused, Error::because).hint(hint.clone())
        };
        let there = Site::open(Some(&dir)).map_err(|error| elsewhere(Some(error)))?;
        if there.is_same_repository(&site) { Ok(Arc::new(there)) } else { Err(elsewhere(None)) }
    }

    /// Returns the directory to examine for `cwd`, and the report about `cwd` itself, which for one outside of the
    /// repository says only that.
    pub fn asked_about(&self, cwd: Option<&str>) -> Result<(PathBuf, Cwd)> {
        let site = self.fresh()?;
        let dir = site.home().join(cwd.unwrap_or_default());
        let nearest = dir.ancestors().find(|dir| dir.is_dir()).unwrap_or(site.home());
        let is_inside = Site::open(Some(nearest)).is_ok_and(|there| there.is_same_repository(&site));
        let report = if is_inside { Cwd::of(&dir, Some(&site)) } else { Cwd::outside(cwd.unwrap_or_default()) };
        let looked_at = if is_inside && dir.is_dir() { dir } else { site.home().to_owned() };
        Ok((looked_at, report))
    }

    /// Returns what `read` reads, on another thread.
    ///
    /// # Errors
    /// Fails if `read` fails twice, the second time with the repository opened again.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl Fn(&Site) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let scope = Arc::clone(self);
        blocking(move || scope.site().and_then(|site| read(&site)).or_else(|_| read(&*scope.fresh()?))).await
    }

    /// Starts to watch `run`.
    pub fn watch(&self, run: &RunId) -> Result<Watcher> {
        Ok(Watcher::new(&*self.site()?, run))
    }
}

/// Makes the error that the server was started outside of a usable repository.
fn outside(error: &Error) -> Error {
    let dir =
        std::env::current_dir().map_or_else(|_| "a removed directory".to_owned(), |dir| dir.display().to_string());
    let name = "start the server in a repository, or name one: git agentloop mcp --repo DIR";
    let hint = error.hint_text().map_or_else(|| name.to_owned(), |hint| format!("{hint}; or {name}"));
    Error::usage(format!("the server was started in '{dir}': {}", error.chain())).hint(hint)
}

/// Runs `work` on another thread, so that it blocks no other call.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("a thread of the server died")?
}

/// Resolves the argument `run_id`.
///
/// # Errors
/// Fails if no run or more than one matches.
pub fn run_of(site: &Site, run_id: &str) -> Result<RunId> {
    let hint = "orchestrate_list names this repository's runs";
    let sound = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if run_id != "@" && (run_id.len() > RUN_ID_LENGTH || !run_id.bytes().all(sound)) {
        let shown: String = run_id.chars().take(RUN_ID_LENGTH).collect();
        let more = if shown.len() < run_id.len() { format!("… ({} bytes)", run_id.len()) } else { String::new() };
        return Err(Error::usage(format!("argument 'run_id': {shown:?}{more} is no run id: those are a-z, 0-9 and -"))
            .hint(hint));
    }
    app::resolve(site, run_id).map_err(|error| {
        let named = Error::usage(format!("argument 'run_id': {}", error.chain()));
        // The runs that an ambiguous name can mean help more than the tool that lists all.
        let listed = error.hint_text().filter(|_| error.kind() == Kind::Ambiguous);
        named.hint(listed.unwrap_or(hint))
    })
}
