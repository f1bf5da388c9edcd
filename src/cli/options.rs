//! Makes the options of a run from flags and settings.

use super::args::{Flags, RunArgs};
use super::goal;
use crate::app::{Changes, NewRun, Site};
use crate::error::{Error, Result};
use crate::options::Settings;
use crate::run::folder::Folder;
use crate::run::goal::{Asking, Options};

/// Makes the run that `arguments` ask for, with the user's settings where a flag is not given. If `person` is set, the user
/// can be asked for the goal; paths are relative to `folder`.
pub fn new_run(arguments: &RunArgs, settings: &Settings, folder: Folder, person: bool) -> Result<NewRun> {
    let is_stdin = |file: &Option<std::path::PathBuf>| file.as_deref() == Some("-".as_ref());
    let goal_is_stdin = is_stdin(&arguments.goal_file) || arguments.goal.as_deref() == Some("-");
    if goal_is_stdin && is_stdin(&arguments.criteria_file) {
        return Err(Error::usage("goal and criteria cannot both come from standard input")
            .hint("put one of them into a file: --criteria-file FILE"));
    }
    let options = options(arguments, settings, folder, person)?;
    Ok(NewRun {
        // The goal is read last, so that the user does not type one before an invalid setting is reported.
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

fn options(arguments: &RunArgs, settings: &Settings, cwd: Folder, person: bool) -> Result<Options> {
    let asking = match (arguments.ask, person && !arguments.driving.detach) {
        (true, _) => Asking::Suspend,
        (false, true) => Asking::Console,
        (false, false) => Asking::Never,
    };
    let given =
        arguments.options.changes.clone().seen_from(&cwd).map_err(|wrong| Error::usage(wrong.of("--protect")))?;
    Ok(Options { asking, cwd, ..settings.options(&given)? })
}

/// Returns the options that were given, with paths relative to the user's current folder.
pub fn changes<const START: bool>(flags: &Flags<START>, site: &Site) -> Result<Changes> {
    let changes = flags.changes.clone().seen_from(&site.folder(None)?);
    changes.map_err(|wrong| Error::usage(wrong.of("--protect")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Verb;
    use crate::cli::usage;
    use crate::run::goal::{AgentChoice, Check, Permissions, Role};

    fn run_of(arguments: &[&str], env: &[(&str, &str)], person: bool) -> Result<NewRun> {
        let words = ["git-agentloop", "run"].iter().chain(arguments).map(std::ffi::OsString::from);
        let Verb::Run(run) = usage::parse(words).unwrap().verb else { panic!("not a run") };
        let variable = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        new_run(&run, &Settings::new(|_| Vec::new(), variable), Folder::default(), person)
    }

    #[test]
    fn a_flag_outdoes_a_setting() {
        let env = [("AGENTLOOP_MAX_ITERATIONS", "7"), ("AGENTLOOP_VERIFY", "make"), ("AGENTLOOP_JOBS", "2")];
        let set = run_of(&["x"], &env, false).unwrap().options;
        assert_eq!((set.budget.max_iterations.get(), set.jobs.get(), set.checks[0].name.as_str()), (7, 2, "make"));
        let arguments = ["x", "--max-iterations", "9", "--sequential", "--verify", "a b", "--skip-permissions"];
        let given = run_of(&arguments, &env, false).unwrap().options;
        assert_eq!((given.budget.max_iterations.get(), given.jobs.get(), given.checks.len()), (9, 1, 1));
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
