//! From flags and settings to what a run is started or resumed with.

use std::collections::BTreeMap;

use super::args::{Common, RunArgs};
use super::goal;
use crate::app::{Changes, NewRun};
use crate::error::{Error, Result};
use crate::run::goal::{AgentChoice, Asking, Budget, Check, Isolation, Options, Permissions, Role};
use crate::settings::Settings;

/// The run that `arguments` ask for: a flag, or else what the user has set. `person` says whether somebody is there
/// to be asked.
///
/// # Errors
/// Where there is no goal, or a setting is none.
pub fn new_run(arguments: &RunArgs, settings: &Settings, person: bool) -> Result<NewRun> {
    let is_stdin = |file: &Option<std::path::PathBuf>| file.as_deref() == Some("-".as_ref());
    let goal_is_stdin = is_stdin(&arguments.goal_file) || arguments.goal.as_deref() == Some("-");
    if goal_is_stdin && is_stdin(&arguments.criteria_file) {
        return Err(Error::usage("goal and criteria cannot both come from standard input")
            .hint("put one of them into a file: --criteria-file FILE"));
    }
    let options = options(arguments, settings, person)?;
    Ok(NewRun {
        // The goal comes last: nobody types one to hear that a setting is wrong.
        criteria: goal::criteria(arguments.criteria.as_deref(), arguments.criteria_file.as_deref())?,
        goal: goal::goal(arguments.goal.as_deref(), arguments.goal_file.as_deref(), person)?,
        options,
        base: arguments.base.clone(),
        name: arguments.name.clone(),
        force: arguments.force,
        id: None,
        forked_from: None,
    })
}

fn options(arguments: &RunArgs, settings: &Settings, person: bool) -> Result<Options> {
    let common = &arguments.common;
    let asking = match (arguments.ask, person && !arguments.driving.detach) {
        (true, _) => Asking::Suspend,
        (false, true) => Asking::Console,
        (false, false) => Asking::Never,
    };
    let mut checks = if common.verify.is_empty() { settings.verify()? } else { common.verify.clone() };
    if arguments.playwright {
        Check::add_playwright(&mut checks);
    }
    Ok(Options {
        budget: Budget {
            max_iterations: flag_or(common.max_iterations, || settings.max_iterations())?,
            max_task_retries: flag_or(common.max_task_retries, || settings.max_task_retries())?,
            max_seconds: flag_or(common.max_seconds.map(Some), || settings.max_seconds())?,
            max_agent_calls: flag_or(common.max_agent_calls.map(Some), || settings.max_agent_calls())?,
            max_tokens: flag_or(common.max_tokens.map(Some), || settings.max_tokens())?,
            max_cost: flag_or(common.max_cost.map(Some), || settings.max_cost())?,
            patience: flag_or(common.patience, || settings.patience())?,
        },
        agent: agent(common, settings)?,
        roles: roles(common, settings)?,
        no_wait: common.no_wait || settings.no_wait()?,
        checks,
        check_timeout: flag_or(arguments.verify_timeout.map(Some), || settings.verify_timeout())?,
        agent_timeout: flag_or(common.timeout.map(Some), || settings.timeout())?,
        permissions: flag_or(given_permissions(common), || settings.permissions())?,
        isolation: flag_or(if arguments.no_isolate { Some(Isolation::None) } else { arguments.isolation }, || {
            settings.isolation()
        })?,
        jobs: flag_or(given_jobs(common), || settings.jobs())?,
        max_subgoals: flag_or(arguments.max_subgoals, || settings.max_subgoals())?,
        playwright: arguments.playwright,
        asking,
        recheck: common.recheck || settings.recheck()?,
        protect: if common.protect.is_empty() { settings.protect() } else { common.protect.clone() },
        allow_protected: common.allow_protected || settings.allow_protected()?,
    })
}

/// What the flags change in a run; what none of them names stays as the run has it.
#[must_use]
pub fn changes(common: &Common, take_over: bool) -> Changes {
    Changes {
        max_iterations: common.max_iterations,
        max_task_retries: common.max_task_retries,
        max_seconds: common.max_seconds,
        max_agent_calls: common.max_agent_calls,
        max_tokens: common.max_tokens,
        max_cost: common.max_cost,
        patience: common.patience,
        timeout: common.timeout,
        jobs: given_jobs(common),
        checks: (!common.verify.is_empty()).then(|| common.verify.clone()),
        recheck: common.recheck.then_some(true),
        protect: (!common.protect.is_empty()).then(|| common.protect.clone()),
        allow_protected: common.allow_protected.then_some(true),
        permissions: given_permissions(common),
        take_over,
        agent: common.backend.clone().map(|choice| {
            let model = common.model.clone().or(choice.model);
            AgentChoice { model, ..choice }
        }),
        roles: given_roles(common),
        no_wait: common.no_wait.then_some(true),
        isolation: None,
    }
}

/// Who answers: `--model` outdoes the model in `--backend NAME/MODEL`, and that one the setting.
fn agent(common: &Common, settings: &Settings) -> Result<AgentChoice> {
    let choice = flag_or(common.backend.clone(), || settings.agent())?;
    let model = common.model.clone().or(choice.model).or_else(|| settings.model());
    Ok(AgentChoice { backend: choice.backend, model })
}

fn roles(common: &Common, settings: &Settings) -> Result<BTreeMap<Role, AgentChoice>> {
    let mut roles = settings.roles()?;
    roles.extend(given_roles(common));
    Ok(roles)
}

fn given_roles(common: &Common) -> BTreeMap<Role, AgentChoice> {
    let given = [&common.planner, &common.worker, &common.reviewer, &common.integrator];
    let chosen = Role::CHOICES.iter().zip(given).filter_map(|((_, roles), choice)| Some((roles, choice.as_ref()?)));
    chosen.flat_map(|(roles, choice)| roles.iter().map(|role| (*role, choice.clone()))).collect()
}

fn flag_or<T>(flag: Option<T>, setting: impl FnOnce() -> Result<T>) -> Result<T> {
    flag.map_or_else(setting, Ok)
}

fn given_permissions(common: &Common) -> Option<Permissions> {
    if common.skip_permissions { Some(Permissions::All) } else { common.permissions }
}

fn given_jobs(common: &Common) -> Option<u32> {
    if common.sequential { Some(1) } else { common.jobs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Verb;
    use crate::cli::usage;

    fn run_of(arguments: &[&str], env: &[(&str, &str)], person: bool) -> Result<NewRun> {
        let words = ["git-agentloop", "run"].iter().chain(arguments).map(std::ffi::OsString::from);
        let Verb::Run(run) = usage::parse(words).unwrap().verb else { panic!("not a run") };
        let variable = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        new_run(&run, &Settings::new(|_| Vec::new(), variable), person)
    }

    #[test]
    fn a_flag_outdoes_a_setting() {
        let env = [("AGENTLOOP_MAX_ITERATIONS", "7"), ("AGENTLOOP_VERIFY", "make"), ("AGENTLOOP_JOBS", "2")];
        let set = run_of(&["x"], &env, false).unwrap().options;
        assert_eq!((set.budget.max_iterations, set.jobs, set.checks[0].name.as_str()), (7, 2, "make"));
        let arguments = ["x", "--max-iterations", "9", "--sequential", "--verify", "a b", "--skip-permissions"];
        let given = run_of(&arguments, &env, false).unwrap().options;
        assert_eq!((given.budget.max_iterations, given.jobs, given.checks.len()), (9, 1, 1));
        assert_eq!(
            (given.checks[0].argv.as_slice(), given.permissions),
            (["a", "b"].map(String::from).as_slice(), Permissions::All)
        );
        assert!(run_of(&["x"], &[("AGENTLOOP_JOBS", "many")], false).is_err());
        assert_eq!(
            run_of(&["x"], &[], false).unwrap().options,
            Options { agent: AgentChoice { backend: "auto".into(), model: None }, ..Options::default() }
        );
    }

    #[test]
    fn a_role_may_have_an_agent_of_its_own() {
        let arguments = ["x", "--backend", "codex/a", "--worker", "aider", "--planner", "claude_api/b/c"];
        let env = [("AGENTLOOP_REVIEWER", "gemini"), ("AGENTLOOP_WORKER", "copilot"), ("AGENTLOOP_MODEL", "z")];
        let options = run_of(&arguments, &env, false).unwrap().options;
        let chosen = |role| options.agent_for(role).to_string();
        assert_eq!(
            Role::ALL.map(chosen),
            ["claude_api/b/c", "claude_api/b/c", "claude_api/b/c", "aider", "gemini", "codex/a"]
        );
        assert!(run_of(&["x"], &[("AGENTLOOP_WORKER", "/m")], false).is_err());
    }

    #[test]
    fn playwright_is_a_check_and_words_in_the_prompts() {
        let options = run_of(&["x", "--playwright", "--verify", "make"], &[], false).unwrap().options;
        assert!(options.playwright);
        assert_eq!(options.checks[1], Check::playwright());
        let twice = run_of(&["x", "--playwright", "--verify", "npx playwright test"], &[], false).unwrap().options;
        assert_eq!(twice.checks.len(), 1);
    }

    #[test]
    fn who_is_asked() {
        let asking = |arguments: &[&str], person| run_of(arguments, &[], person).unwrap().options.asking;
        assert_eq!(asking(&["x"], true), Asking::Console);
        assert_eq!(asking(&["x"], false), Asking::Never);
        assert_eq!(asking(&["x", "--ask"], true), Asking::Suspend);
        assert_eq!(asking(&["x", "-d"], true), Asking::Never);
    }
}
