//! The backends by name: built in, and the user's own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Agent;
use super::claude::Claude;
use super::command::Template;
use super::mock::Mock;
use crate::error::{Error, Result};

/// Programs that are agents, each with the environment that it gives to what it starts.
const PROGRAMS: [Program; 1] = [Program {
    backend: "claude_code",
    command: "claude",
    markers: &["CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT"],
    install: "npm install -g @anthropic-ai/claude-code",
}];

struct Program {
    backend: &'static str,
    command: &'static str,
    markers: &'static [&'static str],
    install: &'static str,
}

/// Every value of a key in git's configuration.
type Config<'a> = dyn Fn(&str) -> Vec<String> + 'a;

/// Finds backends.
pub struct Registry<'a> {
    config: Box<Config<'a>>,
    custom: Vec<String>,
}

/// A backend as `backends` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Its name for `--backend`.
    pub name: String,
    /// `built_in`, `program` or `custom`.
    pub kind: String,
    /// Whether it can be run here.
    pub installed: bool,
    /// The program, where it is one.
    pub path: Option<String>,
    /// What it is, or how to get it.
    pub detail: String,
}

impl<'a> Registry<'a> {
    /// A registry over git's configuration; `custom` are the names under `agentloop.backend.`.
    #[must_use]
    pub fn new(config: impl Fn(&str) -> Vec<String> + 'a, custom: Vec<String>) -> Self {
        Self { config: Box::new(config), custom }
    }

    /// The backend called `name`.
    ///
    /// # Errors
    /// Where there is none, or its configuration is wrong.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Agent>> {
        if let Some(command) = self.command(name) {
            return Ok(Arc::new(Template::new(name, &command)?));
        }
        match name {
            "mock" => Ok(Arc::new(Mock::new(&*self.config)?)),
            "claude_code" => Ok(Arc::new(Claude)),
            _ => {
                let known: Vec<String> = self.list().into_iter().map(|backend| backend.name).collect();
                Err(Error::usage(format!("there is no backend '{}'", crate::run::work::one_line(name, 80))).hint(format!(
                    "there are {}; a program of your own becomes one with 'git config agentloop.backend.NAME.command …'",
                    known.join(", ")
                )))
            }
        }
    }

    /// The agent that is calling, else the first that is installed.
    ///
    /// # Errors
    /// Where there is none, and how to get one.
    pub fn auto(&self) -> Result<String> {
        let calling = |program: &&Program| program.markers.iter().any(|marker| std::env::var_os(marker).is_some());
        let installed = |program: &&Program| on_path(Path::new(program.command)).is_some();
        let found = PROGRAMS.iter().find(calling).or_else(|| PROGRAMS.iter().find(installed));
        if let Some(program) = found {
            return Ok(program.backend.to_owned());
        }
        if let [only] = self.custom.as_slice() {
            return Ok(only.clone());
        }
        let ways: Vec<&str> = PROGRAMS.iter().map(|program| program.install).collect();
        Err(Error::usage("no coding agent is installed").hint(format!(
            "get one ('{}'), name one of your own with --backend, or see the loop at work with '--backend mock'",
            ways.join("' or '")
        )))
    }

    /// Every backend, built-in ones first.
    #[must_use]
    pub fn list(&self) -> Vec<BackendView> {
        let mock = BackendView {
            name: "mock".into(),
            kind: "built_in".into(),
            installed: true,
            path: None,
            detail: "plays every role without a model; shows the loop at work".into(),
        };
        let programs = PROGRAMS.iter().map(|program| {
            let path = on_path(Path::new(program.command));
            BackendView {
                name: program.backend.into(),
                kind: "program".into(),
                installed: path.is_some(),
                detail: if path.is_some() { String::new() } else { format!("to get it: {}", program.install) },
                path: path.map(|path| path.to_string_lossy().into_owned()),
            }
        });
        let custom = self.custom.iter().map(|name| {
            let template = self.command(name).map(|command| (Template::new(name, &command), command));
            let (path, detail) = match template {
                Some((Ok(template), command)) => (on_path(&template.program()), command),
                Some((Err(error), _)) => (None, error.to_string()),
                None => (None, format!("agentloop.backend.{name}.command is not set")),
            };
            let path = path.map(|path| path.to_string_lossy().into_owned());
            BackendView { name: name.clone(), kind: "custom".into(), installed: path.is_some(), path, detail }
        });
        std::iter::once(mock).chain(programs).chain(custom).collect()
    }

    fn command(&self, name: &str) -> Option<String> {
        self.custom
            .iter()
            .any(|known| known == name)
            .then(|| (self.config)(&format!("agentloop.backend.{name}.command")).pop())?
    }
}

/// Where a program is found, as a shell would find it.
fn on_path(program: &Path) -> Option<PathBuf> {
    let runs = |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if program.components().count() > 1 {
        return Some(program.to_owned()).filter(runs);
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(runs)
}
