//! An agent's version and login, found out without a call of a model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::explain;
use super::known::{API_CAN, APIS, Can, KNOWN, Known, Login};
use super::registry::{BackendView, Registry};
use crate::error::{Error, Result};
use crate::process::{self, Finished, Spec, Status};
use crate::run::goal::Permissions;

/// Timeout of one question to an agent's program.
const PATIENCE: Duration = Duration::from_millis(2500);
/// Bytes of an answer that are kept.
const KEEP: usize = 8 << 10;
/// How far above a program the package is looked for that it came in: `node_modules/@openai/codex/bin/codex.js`.
const FAR: usize = 4;

/// Note about agents that speak the Agent Client Protocol: only a call shows more.
const ACP_NOTE: &str = "a permission answers what it asks, and what it does unasked it does; sessions, usage and cost are recorded where it tells them";

/// A backend, examined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Facts that are known without asking it.
    #[serde(flatten)]
    pub backend: BackendView,
    /// Its version, if it is known.
    pub version: Option<String>,
    /// State of its login.
    pub login: LoggedIn,
    /// Its abilities.
    pub can: Can,
    /// How it departs from a permission.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Advice on how to make it usable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// State of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoggedIn {
    /// Yes, or it needs no login.
    Yes,
    /// No.
    No,
    /// Unknown without a call.
    Unknown,
}

/// Examines every backend, side by side.
pub async fn examine(registry: &Registry) -> Vec<Examined> {
    let asked: Vec<_> = registry.list().into_iter().map(|view| tokio::spawn(one(view))).collect();
    let mut examined = Vec::with_capacity(asked.len());
    for answer in asked {
        examined.extend(answer.await);
    }
    examined
}

/// Refuses an agent that cannot work for a run with `permissions`, where its program can tell so without a call to a model:
/// it is not logged in, or its sandbox cannot start. Whatever remains unknown is left to the first call.
///
/// # Errors
/// Fails with what is missing, and how to get it.
pub async fn check(registry: &Registry, name: &str, permissions: Permissions) -> Result<()> {
    let Some((known, program)) = registry.known_program(name) else { return Ok(()) };
    let may_be_logged_out = matches!(known.login, Login::Asked(_)) && !works_without_login(known);
    let logged_in = async { if may_be_logged_out { login(&program, known).await } else { LoggedIn::Unknown } };
    let sandbox = async {
        let words = known.sandbox.filter(|_| permissions == Permissions::Edit)?;
        ask(&program, words).await.filter(|finished| finished.status == Status::Exited(1) && is_answer(finished))
    };
    let (logged_in, sandbox) = tokio::join!(logged_in, sandbox);
    if logged_in == LoggedIn::No {
        return Err(Error::usage(format!("{name} is not logged in")).hint(known.log_in));
    }
    let Some(failed) = sandbox else { return Ok(()) };
    Err(Error::usage(format!("{name} cannot start its sandbox here: each of its commands would fail"))
        .because(failed.stderr.text().trim().to_owned())
        .hint("'--permissions all' runs its commands without one; or choose another agent with '--backend'"))
}

/// Reports whether a key in the environment, or a provider of the user's own, replaces a login.
fn works_without_login(known: &Known) -> bool {
    let is_set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    known.keys.iter().any(is_set) || (known.name == "codex" && codex_has_own_provider())
}

/// Reports whether codex's configuration names a provider of the user's own, which `codex login status` ignores.
fn codex_has_own_provider() -> bool {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".codex"));
    let folder = std::env::var_os("CODEX_HOME").map(PathBuf::from).or_else(home);
    let text = folder.and_then(|folder| std::fs::read_to_string(folder.join("config.toml")).ok()).unwrap_or_default();
    text.lines().any(|line| line.trim_start().starts_with("model_provider"))
}

async fn one(backend: BackendView) -> Examined {
    let known = KNOWN.iter().find(|known| backend.kind == "agent" && known.name == backend.name);
    let path = backend.path.as_ref().map(PathBuf::from);
    if backend.kind == "api" {
        return api(backend);
    }
    let (Some(known), Some(path)) = (known, path) else { return unasked(backend, known) };
    let (version, login) = tokio::join!(version(&path), login(&path, known));
    let hint = (login != LoggedIn::Yes).then(|| known.log_in.to_owned());
    let note = Some(known.note).filter(|note| !note.is_empty()).map(ToOwned::to_owned);
    Examined { backend, version, login, can: known.can, note, hint }
}

/// A model API is ready where its key is set; one at an address of the user's own may want none.
fn api(backend: BackendView) -> Examined {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dialect = APIS.iter().find(|(name, _)| *name == backend.name).map(|(_, dialect)| *dialect);
    let login = match dialect {
        Some(dialect) if set(dialect.key_variable()) => LoggedIn::Yes,
        Some(dialect) if backend.path.is_some() || set(dialect.url_variable()) => LoggedIn::Unknown,
        _ => LoggedIn::No,
    };
    let hint = dialect.filter(|_| login == LoggedIn::No).map(|dialect| format!("set {}", dialect.key_variable()));
    Examined { version: None, login, can: API_CAN, note: None, hint, backend }
}

/// Describes a backend that is not installed, or that is no known agent.
fn unasked(backend: BackendView, known: Option<&Known>) -> Examined {
    let login = if backend.kind == "built-in" { LoggedIn::Yes } else { LoggedIn::Unknown };
    let missing = known.map(|known| format!("install it: {}", known.install));
    let of_users = || (!backend.installed).then(|| "see that the program of its command is installed".to_owned());
    let can = known.map_or(Can { edit_files: true, run_commands: true, ..Can::default() }, |known| known.can);
    let note = (backend.kind == "acp").then(|| ACP_NOTE.to_owned());
    Examined { version: None, login, can, note, hint: missing.or_else(of_users), backend }
}

/// The version in the package that a program came in, or else the one that it tells: starting one of these programs
/// takes seconds.
async fn version(program: &Path) -> Option<String> {
    let file = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    if let Some(version) = packaged(&file) {
        return Some(version);
    }
    let finished = ask(program, &["--version"]).await.filter(|finished| finished.status == Status::Exited(0))?;
    let text = finished.stdout.text();
    let words = text.split_whitespace().map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).map(ToOwned::to_owned)
}

/// The version in npm's `package.json` above `file`, or in the name of the folder in which pip notes a package.
fn packaged(file: &Path) -> Option<String> {
    for folder in file.ancestors().skip(1).take(FAR) {
        if let Ok(text) = std::fs::read(folder.join("package.json")) {
            let package: serde_json::Value = serde_json::from_slice(&text).ok()?;
            return package["version"].as_str().map(ToOwned::to_owned);
        }
    }
    let name = file.file_name()?.to_str()?;
    let environment = file.parent()?.parent()?.join("lib");
    std::fs::read_dir(environment).ok()?.flatten().find_map(|python| {
        let packages = std::fs::read_dir(python.path().join("site-packages")).ok()?;
        packages.flatten().find_map(|entry| {
            let noted = entry.file_name().into_string().ok()?;
            let (package, version) = noted.strip_suffix(".dist-info")?.split_once('-')?;
            (package.split('_').next() == Some(name)).then(|| version.to_owned())
        })
    })
}

async fn login(program: &Path, known: &Known) -> LoggedIn {
    match &known.login {
        Login::Asked(words) => {
            match ask(program, words).await.map(|finished| (finished.status, is_answer(&finished))) {
                Some((Status::Exited(0), _)) => LoggedIn::Yes,
                Some((Status::Exited(_), true)) => LoggedIn::No,
                _ => LoggedIn::Unknown,
            }
        }
        Login::Traces { variables, files } => {
            let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
            let home = std::env::var_os("HOME").map(PathBuf::from);
            let left = |file: &&str| home.as_ref().is_some_and(|home| home.join(file).is_file());
            if variables.iter().any(set) || files.iter().any(left) { LoggedIn::Yes } else { LoggedIn::Unknown }
        }
    }
}

/// Reports whether a program that failed answered the question: a limit or a broken network tells nothing about a login.
fn is_answer(finished: &Finished) -> bool {
    let words = finished.stdout.text() + &finished.stderr.text();
    !explain::kind(None, &words).is_transient()
}

async fn ask(program: &Path, words: &[&str]) -> Option<Finished> {
    let argv = std::iter::once(program.into()).chain(words.iter().map(Into::into)).collect();
    let spec = Spec { argv, keep: KEEP, timeout: Some(PATIENCE), ..Spec::default() };
    process::run(spec, &CancellationToken::new()).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_where_the_package_is() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let codex = write("node_modules/@openai/codex/bin/codex.js", "");
        write("node_modules/@openai/codex/package.json", r#"{"version": "0.1.2"}"#);
        assert_eq!(packaged(&codex).as_deref(), Some("0.1.2"));
        let aider = write("venv/bin/aider", "");
        write("venv/lib/python3.11/site-packages/aider_chat-0.86.2.dist-info/METADATA", "");
        write("venv/lib/python3.11/site-packages/other-1.dist-info/METADATA", "");
        assert_eq!(packaged(&aider).as_deref(), Some("0.86.2"));
        assert_eq!(packaged(&write("bin/mine", "")), None);
    }
}
