//! Completes command lines for all shells, from the definitions that `-h` prints.

use clap::{Arg, Command, CommandFactory as _};

use super::args::Cli;
use super::print;
use crate::app::{self, Site};
use crate::error::Result;
use crate::options::{Kind, TABLE};
use crate::run::sanitize::short;

/// Longest description of a word, in characters.
const WIDTH: usize = 60;

/// Prints the completions of the last of `words`, one per line: the word, a tab and a description.
pub fn complete(words: &[String]) -> Result<u8> {
    let lines: Vec<String> = candidates(words).into_iter().map(|(word, text)| word + "\t" + &text + "\n").collect();
    print::out(lines.concat()).map(|_| 0)
}

/// Lists completions, with a description, for the last of `words`, which come after the program's name. An empty list leaves
/// it to the shell, which completes files.
fn candidates(words: &[String]) -> Vec<(String, String)> {
    let Some((current, before)) = words.split_last() else { return Vec::new() };
    let mut command = Cli::command();
    let mut depth = 0;
    for word in before {
        let Some(verb) = command.find_subcommand(word).cloned() else { break };
        command = verb;
        depth += 1;
    }
    let mut found = match before[depth..].last().and_then(|word| option(&command, word)) {
        Some(option) => values(option),
        None if current.starts_with('-') => options(&command),
        None if command.has_subcommands() => verbs(&command),
        None if depth == before.len() && takes_run(&command) => runs(),
        None => Vec::new(),
    };
    found.retain(|(word, _)| word.starts_with(current.as_str()));
    found
}

/// Returns the option called `word` if it takes a value.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let long = word.strip_prefix("--");
    let short = word.strip_prefix('-').and_then(|rest| rest.chars().next().filter(|_| rest.len() == 1));
    let named = |arg: &&Arg| long.is_some() && arg.get_long() == long || short.is_some() && arg.get_short() == short;
    command.get_arguments().find(named).filter(|arg| arg.get_action().takes_values())
}

fn values(option: &Arg) -> Vec<(String, String)> {
    let entry = TABLE.iter().find(|entry| option.get_long() == Some(entry.name));
    match entry.map(|entry| entry.kind) {
        Some(Kind::Agent) => {
            let backends = Site::open(None).and_then(|site| app::backends(&site)).unwrap_or_default();
            backends.into_iter().map(|backend| (backend.name, String::new())).collect()
        }
        Some(Kind::Word(words)) => words.iter().map(|word| ((*word).to_owned(), String::new())).collect(),
        _ => Vec::new(),
    }
}

fn options(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let with_text = |arg: &Arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help())));
    shown.filter_map(with_text).chain([("--help".to_owned(), "Show the manual".to_owned())]).collect()
}

fn verbs(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    shown.map(|verb| (verb.get_name().to_owned(), about(verb.get_about()))).collect()
}

fn takes_run(command: &Command) -> bool {
    let first = command.get_positionals().next().and_then(|arg| arg.get_value_names()?.first().cloned());
    first.is_some_and(|name| name.starts_with("RUN"))
}

fn runs() -> Vec<(String, String)> {
    let listed = Site::open(None).and_then(|site| app::list(&site)).unwrap_or_default();
    let word = |listed: app::Listed| (listed.status.run_id.to_string(), short(&listed.status.goal, WIDTH));
    listed.into_iter().map(word).collect()
}

fn about(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|text| short(&text.to_string(), WIDTH)).unwrap_or_default()
}

/// Completion script for fish, which calls `git-agentloop complete`.
pub const FISH: &str = include_str!("complete/git-agentloop.fish");
/// See [`FISH`].
pub const BASH: &str = include_str!("complete/git-agentloop.bash");
/// See [`FISH`].
pub const ZSH: &str = include_str!("complete/_git-agentloop");
