//! `hooks`, and the entry point that git's hooks call.

use std::ffi::OsString;
use std::fmt::Write as _;

use super::args::{HooksArgs, HooksVerb};
use super::print;
use super::say::say;
use crate::app::{self, Site};
use crate::error::Result;
use crate::hooks::{self, Hook, Scope, Standing};
use crate::run::sanitize;

/// Installs or removes hooks, or prints their state. Exits with 1 if a hook could not be installed.
pub fn hooks(site: &Site, arguments: &HooksArgs) -> Result<u8> {
    let repo = site.repository();
    if !matches!(arguments.verb, HooksVerb::Status { .. }) {
        app::refuse_nested(site)?;
    }
    match arguments.verb {
        HooksVerb::Install { global } => {
            let hooks = hooks::install(repo, scope(global))?;
            print::out(text(&hooks))?;
            Ok(u8::from(!hooks.iter().all(|hook| matches!(hook.standing, Standing::Installed { .. }))))
        }
        HooksVerb::Uninstall { global } => {
            let gone = hooks::uninstall(repo, scope(global))?;
            let lines = gone.iter().map(|path| format!("removed from {}\n", path.display()));
            let text = if gone.is_empty() { "no hooks of ours were there\n".to_owned() } else { lines.collect() };
            print::out(text)?;
            Ok(0)
        }
        HooksVerb::Status { json } => {
            let hooks = hooks::status(repo)?;
            say(json, &hooks, || Ok(text(&hooks)))
        }
    }
}

/// Returns the event and arguments if a hook called this program: then `arguments`, with the program's name first, begin
/// with `hook EVENT`.
pub fn called(arguments: impl IntoIterator<Item = OsString>) -> Option<Vec<String>> {
    let mut arguments = arguments.into_iter().skip(1);
    arguments.next().filter(|verb| verb == "hook")?;
    let words: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    words.first().is_some_and(|event| !event.starts_with('-')).then_some(words)
}

/// Runs a hook. An error is only a warning, so git goes on.
pub fn hook(words: &[String]) -> u8 {
    let (event, rest) = words.split_first().map_or(("", &[][..]), |(event, rest)| (event.as_str(), rest));
    hooks::act(event, rest).unwrap_or_else(|error| {
        print::note(&format!("warning: git-agentloop: {}", sanitize::line(&error.chain())));
        0
    })
}

fn scope(global: bool) -> Scope {
    if global { Scope::Global } else { Scope::Repository }
}

fn text(hooks: &[Hook]) -> String {
    let mut text = String::new();
    for hook in hooks {
        let event = hook.event;
        let _ = match &hook.standing {
            Standing::Installed { path } => writeln!(text, "{event:<19} installed in {}", path.display()),
            Standing::Missing { path } => writeln!(text, "{event:<19} not installed; it goes into {}", path.display()),
            Standing::Blocked { path, by, add } => {
                let is_shell = path.extension().is_none_or(|extension| extension != "yml");
                let how = match (is_shell, path.exists()) {
                    (false, _) => "add to it",
                    (true, true) => "begin it, below '#!', with",
                    (true, false) => "make it, executable, with",
                };
                let add = add.replace('\n', "\n    ");
                writeln!(text, "{event:<19} not installed: {} belongs to {by}; {how}:\n    {add}", path.display())
            }
        };
    }
    text
}
