//! From the arguments of `orchestrate` to a run.

use std::collections::BTreeMap;

use super::arguments::Given;
use crate::app::{self, NewRun, Site};
use crate::error::{Error, Result};
use crate::run::goal::{AgentChoice, Asking, Budget, Check, Isolation, Options, Permissions, Role};
use crate::settings;

/// The name that stands for whichever backend fits.
const AUTO: &str = "auto";
/// Words in the names of hosts, as they introduce themselves, and the backends that they are. Some hosts hand a server
/// none of the variables by which a process knows who started it.
const HOSTS: [(&str, &str); 5] = [
    ("claude", "claude_code"),
    ("codex", "codex"),
    ("opencode", "opencode"),
    ("gemini", "gemini"),
    ("copilot", "copilot"),
];

/// The run that a call asks for: an argument, or else what the user has set. `client` is the host's name.
///
/// # Errors
/// Where an argument cannot be carried out, or a setting is none.
pub fn new_run(given: &Given, site: &Site, client: Option<&str>) -> Result<NewRun> {
    let settings = site.settings();
    let isolation = isolation(given, site)?;
    let permissions = permissions(given)?.map_or_else(|| settings.permissions(), Ok)?;
    if isolation == Isolation::None && permissions == Permissions::All {
        return Err(Error::usage(
            "argument 'skip_permissions': everything would be permitted in the user's own checkout",
        )
        .hint("leave isolate true: the agents then work in a worktree"));
    }
    let options = Options {
        budget: Budget {
            max_iterations: given.small("max_iterations").map_or_else(|| settings.max_iterations(), Ok)?,
            max_task_retries: given.small("max_task_retries").map_or_else(|| settings.max_task_retries(), Ok)?,
            max_seconds: given.number("max_seconds").map_or_else(|| settings.max_seconds(), |it| Ok(Some(it)))?,
            max_agent_calls: given
                .whole("max_agent_calls")
                .map_or_else(|| settings.max_agent_calls(), |it| Ok(Some(it)))?,
            max_tokens: given.whole("max_tokens").map_or_else(|| settings.max_tokens(), |it| Ok(Some(it)))?,
            max_cost: given.number("max_cost").map_or_else(|| settings.max_cost(), |it| Ok(Some(it)))?,
            patience: given.small("patience").map_or_else(|| settings.patience(), Ok)?,
        },
        agent: agent(given, site, client)?,
        roles: roles(given, site)?,
        no_wait: given.flag("no_wait") || settings.no_wait()?,
        checks: checks(given, site)?,
        check_timeout: given.number("verify_timeout").map_or_else(|| settings.verify_timeout(), |it| Ok(Some(it)))?,
        agent_timeout: given.number("timeout").map_or_else(|| settings.timeout(), |it| Ok(Some(it)))?,
        permissions,
        isolation,
        jobs: given.small("jobs").map_or_else(|| settings.jobs(), Ok)?,
        max_subgoals: given.small("max_subgoals").map_or_else(|| settings.max_subgoals(), Ok)?,
        playwright: given.flag("playwright"),
        asking: if given.flag("ask") { Asking::Suspend } else { Asking::Never },
        recheck: given.flag("recheck") || settings.recheck()?,
        protect: given.texts("protect").unwrap_or_else(|| settings.protect()),
        allow_protected: given.flag("allow_protected") || settings.allow_protected()?,
    };
    Ok(NewRun {
        goal: given.text("goal").unwrap_or_default().to_owned(),
        criteria: given.text("success_criteria").unwrap_or_default().to_owned(),
        options,
        base: given.text("base").map(ToOwned::to_owned),
        name: given.text("name").map(ToOwned::to_owned),
        ..NewRun::default()
    })
}

/// Where workers work. Whoever is promised a worktree gets one, whatever the user has set for runs of their own.
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

fn checks(given: &Given, site: &Site) -> Result<Vec<Check>> {
    let mut checks = match given.texts("verify_commands") {
        Some(commands) => {
            commands.iter().map(|command| settings::check(command)).collect::<Result<Vec<_>, _>>().map_err(|why| {
                Error::usage(format!("argument 'verify_commands': {why}"))
                    .hint("a command is a program and its arguments, quoted as for a shell; no shell runs it")
            })?
        }
        None => site.settings().verify()?,
    };
    if given.flag("playwright") {
        Check::add_playwright(&mut checks);
    }
    Ok(checks)
}

/// Who answers. `auto` is what the user has set, else the host that calls where it is an agent that is installed.
fn agent(given: &Given, site: &Site, client: Option<&str>) -> Result<AgentChoice> {
    let settings = site.settings();
    let named = choice(given, site, "backend")?.filter(|choice| choice.backend != AUTO);
    let mut choice = named.map_or_else(|| settings.agent(), Ok)?;
    if choice.backend == AUTO
        && let Some(backend) = given.text("caller_agent").or(client).and_then(backend_of)
        && app::backends(site)?.iter().any(|known| known.name == backend && known.installed)
    {
        backend.clone_into(&mut choice.backend);
    }
    choice.model = given.text("model").map(ToOwned::to_owned).or(choice.model).or_else(|| settings.model());
    Ok(choice)
}

/// Who answers a role instead: the argument, or else what the user has set.
fn roles(given: &Given, site: &Site) -> Result<BTreeMap<Role, AgentChoice>> {
    let mut chosen = site.settings().roles()?;
    for (name, roles) in Role::CHOICES {
        if let Some(choice) = choice(given, site, name)? {
            chosen.extend(roles.iter().map(|role| (*role, choice.clone())));
        }
    }
    Ok(chosen)
}

/// The backend, perhaps with its model, that an argument names. A command is none, unless it is what the user has set: who
/// may name one runs anything.
fn choice(given: &Given, site: &Site, name: &str) -> Result<Option<AgentChoice>> {
    let refused = |why: String| {
        Error::usage(format!("argument '{name}': {why}"))
            .hint("list_backends names them; the user makes one with 'git config agentloop.backend.NAME.command'")
    };
    let chosen = given.text(name).map(str::parse::<AgentChoice>).transpose().map_err(refused)?;
    match chosen {
        Some(choice) if !site.may_be_chosen(&choice.backend) => {
            Err(refused("a command is the user's to name, and not the caller's".to_owned()))
        }
        chosen => Ok(chosen),
    }
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
