//! Parses the command line and words clap's errors as this program's other errors.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _};

use super::args::{Cli, MARK};
use super::overview;
use crate::error::{Error, alike};
use crate::options::Wrong;

/// Verbs of other programs, and the verbs here that do the same.
const MEANT: [(&str, &str); 10] = [
    ("stop", "cancel"),
    ("kill", "cancel"),
    ("abort", "cancel"),
    ("watch", "tail -f"),
    ("follow", "tail -f"),
    ("logs", "tail"),
    ("continue", "resume"),
    ("start", "run"),
    ("ls", "list"),
    ("rm", "discard"),
];

/// A command line without a verb to run.
#[derive(Debug)]
pub enum Refusal {
    /// `-h` or `--version`: the text goes to standard output.
    Answer(String),
    /// No verb at all: the help goes to standard error.
    Help(String),
    /// An invalid command line.
    Wrong(Error),
}

/// Parses `arguments`, of which the first is the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Refusal> {
    let arguments = with_help(marked(arguments));
    let command = Cli::command();
    let screen = overview::screen(&command);
    let read = command.override_help(screen).try_get_matches_from(&arguments);
    read.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Refusal::Answer(error.render().to_string()),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let verb = arguments.iter().skip(1).any(|word| Cli::command().find_subcommand(word).is_some());
            Refusal::Help(if verb { error.render().to_string() } else { overview::screen(&Cli::command()) })
        }
        _ => Refusal::Wrong(reworded(&error, &arguments)),
    })
}

/// Rewrites `help VERB` as `VERB -h`.
fn with_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    if arguments.get(1).is_some_and(|word| word == "help") {
        arguments.remove(1);
        arguments.push("-h".into());
    }
    arguments
}

/// Marks arguments that begin with a dash but cannot be flags: a goal, a list in Markdown, a negative number, and a `--`
/// that is passed on to git.
fn marked(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let verb = arguments.iter().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"));
    let is_passed_on = verb.is_some_and(|verb| verb == "log" || verb == "diff");
    let mut flags_are_over = false;
    let mark = |argument: OsString| {
        if flags_are_over {
            return argument;
        }
        flags_are_over = argument == "--";
        let can_be_flag = argument.to_str().is_none_or(|text| match text.strip_prefix('-') {
            None | Some("") => true,
            Some("-") => !is_passed_on,
            Some(rest) => match rest.strip_prefix('-') {
                Some(name) => !name.split('=').next().unwrap_or_default().contains(char::is_whitespace),
                None => rest.starts_with(|first: char| first.is_ascii_alphabetic()),
            },
        });
        if can_be_flag {
            return argument;
        }
        let mut with_mark = OsString::from(MARK.to_string());
        with_mark.push(argument);
        with_mark
    };
    arguments.into_iter().map(mark).collect()
}

fn reworded(error: &clap::Error, arguments: &[OsString]) -> Error {
    let rendered = error.render().to_string().replace(MARK, "");
    let mut paragraphs = rendered.split("\n\n");
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(first);
    let message = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    let command = Cli::command();
    let verb = arguments
        .iter()
        .skip(1)
        .filter_map(|argument| argument.to_str())
        .find(|argument| command.find_subcommand(argument).is_some());
    let help = verb.map_or_else(|| "git agentloop -h".to_owned(), |verb| format!("git agentloop {verb} -h"));
    let shows = format!("'{help}' shows {}", if verb.is_some() { "what it takes" } else { "every verb" });
    let (message, suggested) = match (error.kind(), error.get(ContextKind::InvalidSubcommand)) {
        (ErrorKind::InvalidSubcommand, Some(ContextValue::String(wrong))) => {
            let above = verb.and_then(|verb| command.find_subcommand(verb)).unwrap_or(&command);
            let verbs = above.get_subcommands().filter(|verb| !verb.is_hide_set()).map(clap::Command::get_name);
            let before = verb.map_or_else(String::new, |verb| format!("{verb} "));
            let known = MEANT.iter().find(|(word, _)| before.is_empty() && word == wrong).map(|(_, verb)| *verb);
            let meant = known.or_else(|| alike(wrong, verbs));
            let meant = meant.map(|verb| format!("did you mean 'git agentloop {before}{verb}'?"));
            (format!("there is no verb '{before}{wrong}'"), meant)
        }
        (ErrorKind::UnknownArgument, _) => {
            (message, suggestion(error, ContextKind::SuggestedArg).map(|flag| format!("did you mean '{flag}'?")))
        }
        (ErrorKind::ValueValidation, _) => (invalid_value(error).unwrap_or(message), None),
        _ => (message, None),
    };
    Error::usage(message).hint(suggested.map_or_else(|| shows.clone(), |suggested| format!("{suggested} {shows}")))
}

/// Words the error about an invalid value: the value, its flag, and what was expected.
fn invalid_value(error: &clap::Error) -> Option<String> {
    let wrong = std::error::Error::source(error)?.downcast_ref::<Wrong>()?;
    let ContextValue::String(flag) = error.get(ContextKind::InvalidArg)? else { return None };
    Some(wrong.of(flag.split(' ').next()?))
}

fn suggestion(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) => texts.first().cloned(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Verb;
    use super::*;

    fn read(arguments: &[&str]) -> Result<Cli, Refusal> {
        parse(std::iter::once("git-agentloop").chain(arguments.iter().copied()).map(OsString::from))
    }

    fn refusal(arguments: &[&str]) -> String {
        match read(arguments) {
            Err(Refusal::Wrong(error)) => error.report(),
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    fn help(arguments: &[&str]) -> String {
        match read(arguments) {
            Err(Refusal::Answer(text)) => text,
            other => panic!("{arguments:?}: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_a_word_for_it_too() {
        assert_eq!(help(&["help", "run"]), help(&["run", "-h"]));
        assert_eq!(help(&["help"]), help(&["-h"]));
        assert!(refusal(&["help", "frobnicate"]).contains("there is no verb 'frobnicate'"));
    }

    #[test]
    fn the_help_fits_a_screen() {
        let text = help(&["-h"]);
        assert!(text.lines().count() <= 24, "{} lines:\n{text}", text.lines().count());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(matches!(read(&[]), Err(Refusal::Help(same)) if same == text));
    }

    #[test]
    fn a_verb_that_wants_another_shows_its_own_help() {
        let Err(Refusal::Help(text)) = read(&["hooks"]) else { panic!() };
        assert!(text.contains("uninstall") && text.contains("git agentloop hooks"), "{text}");
    }

    #[test]
    fn every_verb_shows_an_example() {
        for verb in Cli::command().get_subcommands() {
            let text = help(&[verb.get_name(), "-h"]);
            assert!(text.contains("Example") && text.contains("git agentloop"), "{text}");
            assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let cases: [(&[&str], &str, &str); 22] = [
            (&["frobnicate"], "there is no verb 'frobnicate'", "'git agentloop -h'"),
            (&["rnu", "x"], "there is no verb 'rnu'", "did you mean 'git agentloop run'?"),
            (&["stat"], "there is no verb 'stat'", "did you mean 'git agentloop status'?"),
            (&["hooks", "instal"], "no verb 'hooks instal'", "did you mean 'git agentloop hooks install'?"),
            (&["stop"], "there is no verb 'stop'", "did you mean 'git agentloop cancel'?"),
            (&["watch", "x"], "there is no verb 'watch'", "did you mean 'git agentloop tail -f'?"),
            (&["statsu"], "there is no verb 'statsu'", "did you mean 'git agentloop status'?"),
            (&["run", "x", "--max-iteration", "3"], "'--max-iteration'", "did you mean '--max-iterations'?"),
            (
                &["run", "x", "--max-iterations", "0"],
                "invalid value '0' for --max-iterations (expected a whole number from 1 to 1000000)",
                "run -h",
            ),
            (
                &["run", "x", "--max-iterations", "5000000000"],
                "invalid value '5000000000' for --max-iterations (expected a whole number from 1",
                "run -h",
            ),
            (&["run", "x", "--max-cost", "1e10"], "'1e10' for --max-cost (expected an amount above 0", "run -h"),
            (&["run", "x", "--max-cost", "NaN"], "'NaN' for --max-cost", "run -h"),
            (&["run", "x", "--jobs", "1025"], "'1025' for --jobs (expected a whole number from 1 to 1024)", "run -h"),
            (&["run", "x", "--max-subgoals", "513"], "'513' for --max-subgoals", "run -h"),
            (&["run", "x", "--timeout", "0"], "'0' for --timeout (expected a duration above 0)", "run -h"),
            (&["run", "x", "--verify-timeout", "1e300"], "'1e300' for --verify-timeout", "run -h"),
            (
                &["prune", "--older-than", "-1"],
                "'-1' for --older-than (expected a duration such as 90, 30s",
                "prune -h",
            ),
            (&["result", "--wait", "--timeout", "soon"], "'soon' for --timeout", "result -h"),
            (
                &["run", "x", "--max-seconds", "-1"],
                "'-1' for --max-seconds (expected a duration such as 90, 30s",
                "run -h",
            ),
            (&["run", "x", "--verify", "open 'quote"], "a quote that is not closed", "run -h"),
            (&["run", "x", "--permissions", "none"], "'none' for --permissions (expected ask, edit or all)", "run -h"),
            (&["answer", "x"], "<TEXT>", "answer -h"),
        ];
        for (arguments, what, next) in cases {
            let report = refusal(arguments);
            let (error, hint) = report.split_once("\nhint: ").unwrap();
            assert!(error.starts_with("error: ") && error.contains(what), "{report}");
            assert!(!error.contains('\n') && hint.contains(next), "{report}");
        }
    }

    #[test]
    fn what_can_be_no_flag_is_taken_as_it_is() {
        let goals = ["---\nAgentloop-Run: forged", "- one\n- two", "-5 degrees", "--looks like a flag"];
        for goal in goals {
            let Verb::Run(run) = read(&["run", goal, "--criteria", "- a\n- b", "-q"]).unwrap().verb else { panic!() };
            assert_eq!((run.goal.as_deref(), run.criteria.as_deref()), (Some(goal), Some("- a\n- b")));
        }
        let Verb::Run(run) = read(&["run", "--", "--version"]).unwrap().verb else { panic!() };
        assert_eq!(run.goal.as_deref(), Some("--version"));
        let Verb::Run(run) = read(&["run", "x", "--verify=cargo test -- -q"]).unwrap().verb else { panic!() };
        assert_eq!(run.options.changes.checks.unwrap()[0].argv, ["cargo", "test", "--", "-q"]);
    }
}
