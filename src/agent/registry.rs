//! The backends by name: the built-in ones, and the commands that the user has configured.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Agent;
use super::acp::Acp;
use super::api::{self, Api};
use super::command::Command;
use super::known::{APIS, KNOWN, Known};
use super::mock::Mock;
use crate::error::{Error, Result, alike};
use crate::run::goal::{ACP, AgentChoice};

/// The name of the backend that needs no model.
const MOCK: &str = "mock";
/// Name of the automatic choice.
const AUTO: &str = "auto";
/// Names of agents and services, and their backends.
const MEANT: [(&str, &str); 5] = [
    ("claude", "claude_code"),
    ("claude-code", "claude_code"),
    ("anthropic", "claude_api"),
    ("openai", "openai_api"),
    ("gpt", "openai_api"),
];
/// The keys of [`Mock::new`].
const MOCK_KEYS: [&str; 6] = ["questions", "plan", "edit", "acceptIteration", "delay", "fail"];

/// A backend as `git agentloop backends` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendView {
    /// Value of `--backend`.
    pub name: String,
    /// `built-in`, `agent`, `api`, `command` or `acp`.
    pub kind: String,
    /// True if its program was found.
    pub installed: bool,
    /// Path of the program; of an API, the configured address.
    pub path: Option<String>,
    /// How to get it where it is missing; for a command of the user's, the command.
    pub detail: String,
}

/// The backends that can be driven.
#[derive(Clone, Debug)]
pub struct Registry {
    own: BTreeMap<String, Own>,
    mock: BTreeMap<String, Vec<String>>,
    /// Configured base URLs of the model APIs, by backend.
    urls: BTreeMap<&'static str, String>,
    environment: Environment,
}

/// A backend of the user's own.
#[derive(Clone, Debug)]
enum Own {
    /// A command that gets its text and prints its answer.
    Command(String),
    /// The command of an agent that speaks the Agent Client Protocol.
    Acp(String),
}

impl Own {
    /// The one that `config` knows by this name. Who has set both keys has found that the agent speaks the protocol.
    fn configured(config: &dyn Fn(&str) -> Vec<String>, name: &str) -> Option<Self> {
        let set = |key: &str| config(&format!("agentloop.backend.{name}.{key}")).pop();
        set("acp").map(Self::Acp).or_else(|| set("command").map(Self::Command))
    }

    fn view(&self, name: &str, environment: &Environment) -> BackendView {
        let (kind, text, program) = match self {
            Self::Command(text) => {
                ("command", text, Command::new(name, text).map(|command| environment.find(command.program())))
            }
            Self::Acp(text) => ("acp", text, acp(name, text).map(|agent| environment.find(agent.program()))),
        };
        match program {
            Ok(path) => view(name, kind, path, text),
            Err(error) => view(name, kind, None, &error.chain()),
        }
    }
}

/// The agent that `command` starts, by the name that git's configuration gives it or by the command itself.
fn acp(name: &str, command: &str) -> Result<Acp> {
    if name.starts_with(ACP) {
        return Acp::named(name);
    }
    let key = format!("agentloop.backend.{name}.acp");
    Acp::new(&key, command, &format!("git config {key} 'my-agent --acp'"))
}

/// The part of the process's environment that backends depend on.
#[derive(Clone, Debug, Default)]
struct Environment {
    path: OsString,
    markers: Vec<String>,
}

impl Environment {
    fn of_process() -> Self {
        let set = |name: &&&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let markers = KNOWN.iter().flat_map(|known| known.markers).filter(set).map(ToString::to_string).collect();
        Self { path: std::env::var_os("PATH").unwrap_or_default(), markers }
    }

    /// Finds the path of `program` without running anything.
    fn find(&self, program: &str) -> Option<PathBuf> {
        let executable =
            |path: &Path| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if program.contains('/') {
            return Some(PathBuf::from(program)).filter(|path| executable(path));
        }
        std::env::split_paths(&self.path).map(|folder| folder.join(program)).find(|path| executable(path))
    }
}

impl Registry {
    /// The built-in backends and those named in `own`: `acp:COMMAND`, or a name whose command `config` knows as
    /// `agentloop.backend.<name>.command` or, for an agent that speaks the Agent Client Protocol, `.acp`. One of the
    /// user's own hides a built-in one of its name.
    pub fn new(config: &dyn Fn(&str) -> Vec<String>, own: &[String]) -> Self {
        Self::within(config, own, Environment::of_process())
    }

    fn within(config: &dyn Fn(&str) -> Vec<String>, own: &[String], environment: Environment) -> Self {
        let named = |name: &String| {
            let own = match name.strip_prefix(ACP) {
                Some(command) => Own::Acp(command.to_owned()),
                None => Own::configured(config, name)?,
            };
            (name != AUTO).then(|| (name.clone(), own))
        };
        let mock = MOCK_KEYS.map(|key| format!("agentloop.mock.{key}"));
        Self {
            own: own.iter().filter_map(named).collect(),
            urls: APIS
                .iter()
                .filter_map(|(name, _)| Some((*name, config(&format!("agentloop.backend.{name}.url")).pop()?)))
                .collect(),
            mock: mock.into_iter().map(|key| (key.clone(), config(&key))).collect(),
            environment,
        }
    }

    /// Fails if no call of `choice` can succeed from here: its program is not installed, or its service wants a model or
    /// a missing key. Nothing is run for it, so the state of the login is left to the first call.
    pub fn check(&self, choice: &AgentChoice) -> Result<()> {
        let name = choice.backend.as_str();
        let program = match self.own.get(name) {
            Some(Own::Command(template)) => Command::new(name, template)?.program().to_owned(),
            Some(Own::Acp(command)) => acp(name, command)?.program().to_owned(),
            None if name.starts_with(ACP) => Acp::named(name)?.program().to_owned(),
            None => match KNOWN.iter().find(|known| known.name == name) {
                Some(known) => known.program.to_owned(),
                None => return self.check_api(choice),
            },
        };
        if self.finds(&program) {
            return Ok(());
        }
        let known = KNOWN.iter().find(|known| known.name == name && !self.own.contains_key(name));
        let install = known.map_or_else(|| "install it".to_owned(), |known| format!("install it ({})", known.install));
        Err(Error::usage(format!("'{name}' is not installed: program '{program}' was not found"))
            .hint(format!("{install}, or choose another with '--backend'; 'git agentloop backends' lists them")))
    }

    /// Reports whether `program` is on `PATH`. A program that is named by a path is looked up from the worktree, which may
    /// not exist yet.
    #[must_use]
    pub fn finds(&self, program: &str) -> bool {
        program.contains('/') || self.environment.find(program).is_some()
    }

    /// The built-in agent of this name and where its program is; nothing for any other backend.
    pub(super) fn known_program(&self, name: &str) -> Option<(&'static Known, PathBuf)> {
        let known = KNOWN.iter().find(|known| known.name == name && !self.own.contains_key(name))?;
        Some((known, self.environment.find(known.program)?))
    }

    fn check_api(&self, choice: &AgentChoice) -> Result<()> {
        let Some((name, dialect)) = APIS.iter().find(|(known, _)| *known == choice.backend) else { return Ok(()) };
        let url_key = format!("agentloop.backend.{name}.url");
        api::check(*dialect, self.urls.get(name).map(|url| (url_key.as_str(), url.as_str())))?;
        if choice.model.is_none() {
            return Err(Error::usage(format!("'{name}' does not know which model to ask"))
                .hint(format!("name one with '--model', or as '--backend {name}/MODEL'")));
        }
        let is_set = |variable: &str| std::env::var_os(variable).is_some_and(|value| !value.is_empty());
        let elsewhere = self.urls.contains_key(name) || is_set(dialect.url_variable());
        if elsewhere || is_set(dialect.key_variable()) {
            return Ok(());
        }
        Err(Error::usage(format!("'{name}' has no key")).hint(format!(
            "set {} in the environment, or {} where the server is one of your own",
            dialect.key_variable(),
            dialect.url_variable()
        )))
    }

    /// The backend of this name; `auto` and no name are [`Registry::auto`].
    ///
    /// # Errors
    /// A name that is not known, and a backend that is not usable as it is configured. Whether its program is installed
    /// is [`Registry::check`]'s to say.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Agent>> {
        if name == AUTO || name.is_empty() {
            return self.named(&self.auto()?);
        }
        self.named(name)
    }

    fn named(&self, name: &str) -> Result<Arc<dyn Agent>> {
        match self.own.get(name) {
            Some(Own::Command(template)) => return Ok(Arc::new(Command::new(name, template)?)),
            Some(Own::Acp(command)) => return Ok(Arc::new(acp(name, command)?)),
            None if name.starts_with(ACP) => return Ok(Arc::new(Acp::named(name)?)),
            None => {}
        }
        if name == MOCK {
            return Ok(Arc::new(Mock::new(&|key| self.mock.get(key).cloned().unwrap_or_default())?));
        }
        if let Some((name, dialect)) = APIS.iter().find(|(known, _)| *known == name) {
            return Ok(Arc::new(Api::new(*dialect, self.urls.get(name).cloned())));
        }
        match KNOWN.iter().find(|known| known.name == name) {
            Some(known) => Ok((known.make)()),
            None => Err(self.unknown(name)),
        }
    }

    /// Reports whether the backend of this name reports the cost of its calls; a user's command cannot.
    #[must_use]
    pub fn tells_cost(&self, name: &str) -> bool {
        let known = KNOWN.iter().find(|known| known.name == name);
        !self.own.contains_key(name) && (name == MOCK || known.is_some_and(|known| known.can.cost))
    }

    fn unknown(&self, name: &str) -> Error {
        let names: Vec<String> = self.list().into_iter().map(|view| view.name).collect();
        let known = MEANT.iter().find(|(word, _)| *word == name).map(|(_, backend)| *backend);
        let message = match known.or_else(|| alike(name, names.iter().map(String::as_str))) {
            Some(alike) => format!("no backend '{name}': did you mean '{alike}'?"),
            None => format!("no backend '{name}': there are {}", names.join(", ")),
        };
        Error::usage(message).hint(format!(
            "'git agentloop backends' lists them; 'git config agentloop.backend.{name}.command …' makes one, and 'acp:COMMAND' is any agent that speaks ACP"
        ))
    }

    /// The name of the backend that fits best: the agent that is calling, else the first one installed.
    ///
    /// # Errors
    /// Fails if there is none.
    pub fn auto(&self) -> Result<String> {
        let calling =
            |known: &&Known| known.markers.iter().any(|name| self.environment.markers.iter().any(|set| set == name));
        let installed = |known: &&Known| self.environment.find(known.program).is_some();
        let found = KNOWN.iter().filter(calling).find(installed).or_else(|| KNOWN.iter().find(installed));
        found.map(|known| known.name.to_owned()).ok_or_else(|| {
            let mut hint = format!("install one ({}), or see the loop without any: --backend mock", KNOWN[0].install);
            if let Some(name) = self.own.keys().next() {
                hint = format!("--backend {name} is the command that you configured; {hint}");
            }
            Error::usage("no coding agent is installed").hint(hint)
        })
    }

    /// Every backend: the built-in ones, then the user's. Programs are looked for on `PATH`; none is run.
    #[must_use]
    pub fn list(&self) -> Vec<BackendView> {
        let mut views = vec![BackendView {
            name: MOCK.to_owned(),
            kind: "built-in".to_owned(),
            installed: true,
            path: None,
            detail: "shows the loop, without a model".to_owned(),
        }];
        views.extend(KNOWN.iter().map(|known| {
            let path = self.environment.find(known.program);
            let detail = if path.is_some() { "" } else { known.install };
            view(known.name, "agent", path, detail)
        }));
        views.extend(APIS.iter().map(|(name, dialect)| BackendView {
            name: (*name).to_owned(),
            kind: "api".to_owned(),
            installed: true,
            path: self.urls.get(name).cloned(),
            detail: format!("{} and --model; {} names another server", dialect.key_variable(), dialect.url_variable()),
        }));
        views.retain(|view| !self.own.contains_key(&view.name));
        views.extend(self.own.iter().map(|(name, own)| own.view(name, &self.environment)));
        views
    }
}

fn view(name: &str, kind: &str, path: Option<PathBuf>, detail: &str) -> BackendView {
    BackendView {
        name: name.to_owned(),
        kind: kind.to_owned(),
        installed: path.is_some(),
        path: path.map(|path| path.to_string_lossy().into_owned()),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::tests::request;
    use crate::error::Kind;
    use crate::run::goal::Role;

    /// A registry that finds these programs, under these markers, with these settings.
    fn registry(programs: &[&str], markers: &[&str], settings: &[(&str, &str)]) -> (Registry, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        for program in programs {
            let path = dir.path().join(program);
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(dir.path().join("plain-file"), "").unwrap();
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let config = |key: &str| {
            settings.iter().filter(|(name, _)| *name == key).map(|(_, value)| (*value).to_owned()).collect()
        };
        let name = |key: &str| Some(key.strip_prefix("agentloop.backend.")?.strip_suffix(".command")?.to_owned());
        let custom: Vec<String> = settings.iter().filter_map(|(key, _)| name(key)).collect();
        let markers = markers.iter().map(ToString::to_string).collect();
        let environment = Environment { path: dir.path().into(), markers };
        (Registry::within(&config, &custom, environment), dir)
    }

    fn error(result: Result<Arc<dyn Agent>>) -> Error {
        result.err().unwrap()
    }

    #[test]
    fn auto_is_the_caller_or_the_first_installed() {
        assert_eq!(registry(&["claude"], &[], &[]).0.auto().unwrap(), "claude_code");
        assert_eq!(registry(&["claude"], &["CLAUDECODE"], &[]).0.auto().unwrap(), "claude_code");
        assert_eq!(registry(&["aider", "opencode", "codex"], &[], &[]).0.auto().unwrap(), "codex");
        assert_eq!(registry(&["claude", "opencode"], &["OPENCODE"], &[]).0.auto().unwrap(), "opencode");
        assert_eq!(registry(&["aider"], &["OPENCODE"], &[]).0.auto().unwrap(), "aider", "who calls is not on PATH");
        assert!(registry(&["claude"], &[], &[]).0.get("auto").is_ok());
        let (none, _dir) = registry(&[], &["CLAUDECODE"], &[("agentloop.backend.mine.command", "x")]);
        let error = none.auto().unwrap_err();
        let hint = error.hint_text().unwrap();
        for words in ["npm install", "--backend mock", "--backend mine"] {
            assert!(hint.contains(words), "{hint}");
        }
    }

    #[tokio::test]
    async fn backends_are_found_by_name() {
        let (registry, dir) = registry(
            &[],
            &[],
            &[
                ("agentloop.backend.mine.command", "old"),
                ("agentloop.backend.mine.command", "echo mine"),
                ("agentloop.backend.bad.command", "'"),
                ("agentloop.mock.plan", "[\"x\"]"),
            ],
        );
        let request = request(Role::Decomposer, dir.path());
        assert_eq!(registry.get("mock").unwrap().run(&request).await.unwrap().text, "[\"x\"]");
        assert_eq!(registry.get("mine").unwrap().run(&request).await.unwrap().text, "mine\n");
        assert!(KNOWN.iter().all(|known| registry.get(known.name).is_ok()));
        assert!(error(registry.get("bad")).to_string().contains("agentloop.backend.bad.command"));
        assert!(registry.get("auto").is_err());
    }

    #[test]
    fn an_unknown_name_is_answered_with_those_there_are() {
        let (registry, _dir) = registry(&[], &[], &[("agentloop.backend.mine.command", "x")]);
        for (name, words) in
            [("claude", "'claude_code'"), ("mok", "'mock'"), ("mein", "'mine'"), ("zzzzzzz", "mock, claude_code")]
        {
            let error = error(registry.get(name));
            assert_eq!(error.kind(), Kind::Usage);
            assert!(error.to_string().contains(words) && error.hint_text().is_some(), "{error}");
        }
    }

    #[test]
    fn the_list_says_what_is_there() {
        let settings = [
            ("agentloop.backend.a.command", "claude --x {prompt}"),
            ("agentloop.backend.b.command", "plain-file"),
            ("agentloop.backend.c.command", "'"),
            ("agentloop.backend.mock.command", "folder"),
            ("agentloop.backend.auto.command", "claude"),
        ];
        let (registry, dir) = registry(&["claude"], &[], &settings);
        let views = registry.list();
        let claude = dir.path().join("claude").display().to_string();
        let found = |name: &str| views.iter().find(|view| view.name == name).unwrap();
        assert_eq!(found("claude_code").path.as_ref(), Some(&claude));
        assert_eq!((found("a").path.as_ref(), found("a").detail.as_str()), (Some(&claude), "claude --x {prompt}"));
        assert!(!found("b").installed && !found("mock").installed && found("mock").kind == "command");
        assert!(found("c").detail.contains("cannot be split"));
        assert!(views.iter().all(|view| view.name != "auto"));
        let text = serde_json::to_string(&views).unwrap();
        assert_eq!(serde_json::from_str::<Vec<BackendView>>(&text).unwrap(), views);
    }
}
