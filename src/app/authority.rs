//! Decides what may run for a run: only what its user approved in this clone, and never what its log asks for.
//!
//! A log can come from anyone. Commands, permissions and limits that it names but that were not approved in this clone have
//! to be given as flags, and the hint shows each one exactly as it would run.

use std::fmt::Write as _;

use super::{Changes, Site};
use crate::error::{Error, Result};
use crate::host::authority::Authority;
use crate::ledger::git::GitLedger;
use crate::options::pathspec;
use crate::run::Run;
use crate::run::amount::Patience;
use crate::run::folder::Folder;
use crate::run::goal::{AgentChoice, Isolation, Options, Permissions, Role, RunId};

/// Options that a run would continue with, and what is still to be approved.
pub(super) struct Approval {
    /// Options of the run with the changes applied.
    pub(super) options: Options,
    /// Flags that the user still has to give.
    missing: Vec<String>,
    /// True if agents would get all permissions in the user's checkout, which was not approved in this clone.
    needs_force: bool,
}

/// Returns the options that were approved for the run in this clone; `None` if its log has other options or none were
/// approved.
pub(super) fn given(site: &Site, run: &Run, id: &RunId) -> Option<Options> {
    let store = GitLedger::kept(&site.repo, id)?;
    Authority::read(&store)?.confirms(&run.options).cloned()
}

/// Stores `options` in this clone's private store as those that the user approved for the run.
///
/// # Errors
/// Fails if this clone has no private store and none can be created.
pub(super) fn give(site: &Site, id: &RunId, options: &Options) -> Result<()> {
    Authority::give(&GitLedger::ensure_kept(&site.repo, id)?, options, site.settings().allow_nested()?)
}

/// Works out the options that `run` would continue with if `changes` were applied, and which of them lack approval.
pub(super) fn approval(site: &Site, run: &Run, id: &RunId, changes: &Changes) -> Result<Approval> {
    let permits_all = |options: &Options| {
        options.isolation == Isolation::None && options.permissions == Permissions::All && !changes.force
    };
    if let Some(given) = given(site, run, id) {
        let options = changes.apply(&given).unwrap_or_else(|| given.clone());
        let needs_force = permits_all(&options) && !permits_all(&given);
        return Ok(Approval { options, missing: Vec::new(), needs_force });
    }
    let mut options = changes.apply(&run.options).unwrap_or_else(|| run.options.clone());
    bind(site, &mut options, changes)?;
    let needs_force = permits_all(&options);
    let missing = missing(&run.options, changes, site.settings().isolation()?, &site.folder(None)?);
    Ok(Approval { options, missing, needs_force })
}

impl Approval {
    /// Returns the options if all of them are approved; the error's hint adds the missing flags to `command`.
    pub(super) fn granted(self, id: &RunId, changes: &Changes, command: &str) -> Result<Options> {
        let mut missing = self.missing;
        if self.needs_force {
            if missing.is_empty() {
                return Err(Error::usage("everything would be permitted in your own checkout")
                    .hint("--permissions edit permits less; --force permits it"));
            }
            missing.push("--force".to_owned());
        }
        if missing.is_empty() {
            return Ok(self.options);
        }
        let missing = missing.join(" ");
        Err(Error::usage(format!(
            "{id} was started in another clone, or its log says what was not given here: its commands need your approval"
        ))
        .hint(if *changes == Changes::default() {
            format!("look at it, then give it again: {command} {missing}")
        } else {
            format!("look at it, then add this to the command: {missing}")
        }))
    }
}

/// Lists, as flags, what the log asks for and `changes` do not give: the flags hold exactly what would run. The isolation
/// may also be the one in the user's settings, `own`; paths are relative to `folder`.
fn missing(recorded: &Options, changes: &Changes, own: Isolation, folder: &Folder) -> Vec<String> {
    let mut missing = Vec::new();
    let mut want = |flag: &str, value: &str| missing.push(format!("--{flag} {}", quoted(value)));
    if changes.checks.is_none() {
        // The argument vector is shown, since the name of a recorded check may be any text.
        recorded.checks.iter().for_each(|check| want("verify", &shell_words::join(&check.argv)));
    }
    if changes.permissions.is_none() {
        want("permissions", recorded.permissions.name());
    }
    if changes.agent.is_none() {
        want("backend", &recorded.agent.backend);
        if let Some(model) = recorded.agent.model.as_ref().filter(|_| changes.model.is_none()) {
            want("model", model);
        }
    }
    let given = changes.roles();
    for (name, roles) in Role::CHOICES {
        let chosen: Vec<&AgentChoice> = roles.iter().filter_map(|role| recorded.roles.get(role)).collect();
        if let Some(choice) = chosen.first()
            && roles.iter().any(|role| !given.contains_key(role))
        {
            want(name, &choice.to_string());
        }
    }
    if changes.isolation.is_none() && recorded.isolation != own {
        let word = Isolation::WORDS.iter().find(|(_, isolation)| *isolation == recorded.isolation);
        want("isolation", word.map_or("worktree", |(word, _)| word));
    }
    if changes.protect.is_none() {
        recorded.protect.iter().for_each(|paths| want("protect", &pathspec::seen_from(folder, paths)));
    }
    if changes.allow_protected.is_none() && recorded.allow_protected {
        missing.push("--allow-protected".to_owned());
    }
    missing
}

/// Restricts what the log asks for and `changes` do not give: recorded limits apply only as far as they are tighter than the
/// user's own, and the user's checks and protected files apply if the log has none.
fn bind(site: &Site, options: &mut Options, changes: &Changes) -> Result<()> {
    fn tighter<T: PartialOrd>(recorded: Option<T>, own: Option<T>) -> Option<T> {
        match (recorded, own) {
            (Some(recorded), Some(own)) => Some(if own < recorded { own } else { recorded }),
            (recorded, own) => recorded.or(own),
        }
    }
    let own = site.settings().options(&Changes::default())?;
    let budget = &mut options.budget;
    if changes.max_iterations.is_none() && own.budget.max_iterations < budget.max_iterations {
        budget.max_iterations = own.budget.max_iterations;
    }
    if changes.max_task_retries.is_none() && own.budget.max_task_retries < budget.max_task_retries {
        budget.max_task_retries = own.budget.max_task_retries;
    }
    if changes.patience.is_none() {
        // 0 means no limit.
        let limit = |patience: Patience| (patience.get() > 0).then_some(patience);
        budget.patience = tighter(limit(budget.patience), limit(own.budget.patience)).unwrap_or(budget.patience);
    }
    if changes.max_seconds.is_none() {
        budget.max_seconds = tighter(budget.max_seconds, own.budget.max_seconds);
    }
    if changes.max_agent_calls.is_none() {
        budget.max_agent_calls = tighter(budget.max_agent_calls, own.budget.max_agent_calls);
    }
    if changes.max_tokens.is_none() {
        budget.max_tokens = tighter(budget.max_tokens, own.budget.max_tokens);
    }
    if changes.max_cost.is_none() {
        budget.max_cost = tighter(budget.max_cost, own.budget.max_cost);
    }
    if changes.jobs.is_none() && own.jobs < options.jobs {
        options.jobs = own.jobs;
    }
    if own.max_subgoals < options.max_subgoals {
        options.max_subgoals = own.max_subgoals;
    }
    if changes.timeout.is_none() {
        options.agent_timeout = tighter(options.agent_timeout, own.agent_timeout);
    }
    if changes.check_timeout.is_none() {
        options.check_timeout = tighter(options.check_timeout, own.check_timeout);
    }
    if options.checks.is_empty() && changes.checks.is_none() {
        options.checks = own.checks;
    }
    if options.protect.is_empty() && changes.protect.is_none() {
        options.protect = own.protect;
    }
    Ok(())
}

/// Quotes `word` for a shell. Characters that a terminal does not show are escaped in the way that bash, ksh and zsh read.
fn quoted(word: &str) -> String {
    let is_shown = |character: char| {
        !character.is_control()
            && !matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
    };
    if word.chars().all(is_shown) {
        return shell_words::quote(word).into_owned();
    }
    let mut text = "$'".to_owned();
    for character in word.chars() {
        match character {
            '\\' | '\'' => text.extend(['\\', character]),
            shown if is_shown(shown) => text.push(shown),
            hidden => {
                for byte in hidden.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\x{byte:02x}"); // a String takes all
                }
            }
        }
    }
    text + "'"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::goal::Check;

    #[test]
    fn what_would_run_is_wanted_to_the_letter() {
        let agent = AgentChoice { backend: "acp:touch pwned".into(), model: Some("m".into()) };
        let check = Check { name: "cargo test".into(), argv: vec!["touch".into(), "a b\u{1b}[2K\u{202e}".into()] };
        let roles = [(Role::Decomposer, AgentChoice { backend: "evil".into(), model: None })];
        let recorded = Options {
            checks: vec![check],
            agent,
            roles: roles.into(),
            permissions: Permissions::All,
            isolation: Isolation::None,
            protect: vec![":(top)a b".into()],
            allow_protected: true,
            ..Options::default()
        };
        let wanted = [
            r"--verify $'touch \'a b\x1b[2K\xe2\x80\xae\''",
            "--permissions all",
            "--backend 'acp:touch pwned'",
            "--model m",
            "--planner evil",
            "--isolation none",
            "--protect ':(top)a b'",
            "--allow-protected",
        ];
        assert_eq!(missing(&recorded, &Changes::default(), Isolation::Worktree, &Folder::default()), wanted);
        // Another model does not approve the agent.
        let changes = Changes { model: Some("x".into()), ..Changes::default() };
        let still = missing(&recorded, &changes, Isolation::Worktree, &Folder::default());
        assert!(
            still.contains(&"--backend 'acp:touch pwned'".to_owned()) && still.contains(&"--planner evil".to_owned())
        );
        let all = Changes {
            checks: Some(Vec::new()),
            permissions: Some(Permissions::Edit),
            agent: Some(AgentChoice::default()),
            planner: Some(AgentChoice::default()),
            isolation: Some(Isolation::None),
            protect: Some(Vec::new()),
            allow_protected: Some(false),
            ..Changes::default()
        };
        assert_eq!(missing(&recorded, &all, Isolation::Worktree, &Folder::default()), Vec::<String>::new());
    }
}
