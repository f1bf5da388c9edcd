//! Makes a run from the arguments of `orchestrate`.

use super::arguments::Given;
use crate::app::{self, NewRun, Site};
use crate::error::{Error, Result};
use crate::options::{Changes, TABLE};
use crate::run::goal::{AgentChoice, Asking, Isolation, Options, Permissions};

/// Name that selects a backend automatically.
const AUTO: &str = "auto";
/// Words in the names of hosts, as their clients introduce themselves, and the matching backends. Some hosts pass a server
/// none of the variables that identify them.
const HOSTS: [(&str, &str); 5] = [
    ("claude", "claude_code"),
    ("codex", "codex"),
    ("opencode", "opencode"),
    ("gemini", "gemini"),
    ("copilot", "copilot"),
];

/// Makes the run that a call asks for, with the user's settings where an argument is not given. `client` is the host's name.
pub fn new_run(given: &Given, site: &Site, client: Option<&str>) -> Result<NewRun> {
    let cwd = site.folder(None)?;
    let mut changes = changes(given)?.seen_from(&cwd).map_err(|wrong| Error::usage(wrong.of("argument 'protect'")))?;
    changes.isolation = Some(isolation(given, site)?);
    changes.permissions = permissions(given)?;
    changes.agent = agent(given, site, client, changes.agent)?;
    let asking = if given.flag("ask") { Asking::Suspend } else { Asking::Never };
    let options = Options { asking, cwd, ..site.settings().options(&changes)? };
    if options.isolation == Isolation::None && options.permissions == Permissions::All {
        return Err(Error::usage(
            "argument 'skip_permissions': everything would be permitted in the user's own checkout",
        )
        .hint("leave isolate true: the agents then work in a worktree"));
    }
    for (name, choice) in [
        ("backend", &changes.agent),
        ("planner", &changes.planner),
        ("worker", &changes.worker),
        ("reviewer", &changes.reviewer),
        ("integrator", &changes.integrator),
    ] {
        // A command is accepted only if the user has set it: a caller that may name one can run any program.
        if choice.as_ref().is_some_and(|choice| !site.may_be_chosen(&choice.backend)) {
            return Err(Error::usage(format!(
                "argument '{name}': a command is the user's to name, and not the caller's"
            ))
            .hint(
                "list_backends names the agents; the user makes one with 'git config agentloop.backend.NAME.command'",
            ));
        }
    }
    Ok(NewRun {
        goal: given.text("goal").unwrap_or_default().to_owned(),
        criteria: given.text("success_criteria").unwrap_or_default().to_owned(),
        options,
        base: given.text("base").map(ToOwned::to_owned),
        name: given.text("name").map(ToOwned::to_owned),
        ..NewRun::default()
    })
}

/// Chooses the isolation. A caller that is promised a worktree gets one, even if the user has set none for their own runs.
fn isolation(given: &Given, site: &Site) -> Result<Isolation> {
    let named = given.text("isolation").and_then(|word| word.parse().ok());
    match (given.flag("isolate"), named) {
        (true, Some(isolation)) => Ok(isolation),
        (false, None) => Ok(Isolation::None),
        (false, Some(_)) => Err(Error::usage("argument 'isolation': isolate=false says the opposite")
            .hint("give one of the two: isolate=false lets agents edit the user's checkout")),
        (true, None) => match site.settings().isolation()? {
            Isolation::None => Ok(Isolation::default()),
            isolation => Ok(isolation),
        },
    }
}

fn permissions(given: &Given) -> Result<Option<Permissions>> {
    let named = given.text("permissions").and_then(|word| word.parse().ok());
    match (given.flag("skip_permissions"), named) {
        (true, Some(Permissions::Ask | Permissions::Edit)) => {
            Err(Error::usage("argument 'permissions': skip_permissions says the opposite")
                .hint("give one of the two: skip_permissions=true is permissions=\"all\""))
        }
        (true, _) => Ok(Some(Permissions::All)),
        (false, named) => Ok(named),
    }
}

/// Returns the options among the arguments.
pub fn changes(given: &Given) -> Result<Changes> {
    let mut changes = Changes::default();
    for entry in TABLE {
        let Some(argument) = entry.argument else { continue };
        if let Some(texts) = given.option(argument.name) {
            changes.set(entry.id, &texts).map_err(|wrong| {
                Error::usage(format!("argument '{}': {wrong}", argument.name)).hint(argument.meaning)
            })?;
        }
    }
    Ok(changes)
}

/// Chooses the agent. `auto` is the one that the user has set, or else the calling host if that is an installed agent;
/// `None` leaves it to the settings.
fn agent(given: &Given, site: &Site, client: Option<&str>, named: Option<AgentChoice>) -> Result<Option<AgentChoice>> {
    let named = named.filter(|choice| choice.backend != AUTO);
    if named.is_some() || site.settings().agent()?.backend != AUTO {
        return Ok(named);
    }
    let host = given.text("caller_agent").or(client).and_then(backend_of);
    let model = site.settings().agent()?.model;
    let host = host.map(|host| AgentChoice { backend: host.to_owned(), model });
    let Some(host) = host else { return Ok(None) };
    let is_installed = app::backends(site)?.iter().any(|known| known.name == host.backend && known.installed);
    Ok(is_installed.then_some(host))
}

fn backend_of(host: &str) -> Option<&'static str> {
    let host = host.to_ascii_lowercase();
    HOSTS.iter().find(|(word, _)| host.contains(word)).map(|(_, backend)| *backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_known_by_their_names() {
        for (host, backend) in [
            ("claude-code", Some("claude_code")),
            ("codex-mcp-client", Some("codex")),
            ("OpenCode", Some("opencode")),
            ("gemini-cli-mcp-client-agentloop", Some("gemini")),
            ("github-copilot-developer", Some("copilot")),
            ("cursor-vscode", None),
        ] {
            assert_eq!(backend_of(host), backend, "{host}");
        }
    }
}
