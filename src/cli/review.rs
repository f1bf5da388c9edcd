//! Verbs that show a run's work, by git's own commands where possible.

use super::args::{DiffArgs, LogArgs, ShowArgs};
use super::pager::Pager;
use super::say::warn_of_set_aside;
use super::{paint, print, render};
use crate::app::{self, Git, Site};
use crate::error::{Error, Result};
use crate::process;
use crate::run::goal::RunId;

/// Shows git's log of the run's branch, with its events.
pub fn log(site: &Site, arguments: &LogArgs) -> Result<u8> {
    let words = Words::of(site, &arguments.words);
    let history = app::history(site, words.run.as_deref())?;
    let git = Git::as_user("log").arg(format!("--notes={}", history.notes)).args(words.options);
    let git = git.revision(format!("{}..{}", history.base, history.branch)).args(words.paths);
    Err(process::become_program(&mut git.into_command()))
}

/// Shows git's diff of a run or an iteration.
pub fn diff(site: &Site, arguments: &DiffArgs) -> Result<u8> {
    let mut words = Words::of(site, &arguments.words);
    let iteration = match words.take_value("--iteration")? {
        Some(number) => Some(number),
        None => arguments.iteration,
    };
    let span = app::span(site, words.run.as_deref(), iteration)?;
    let git = Git::as_user("diff").args(words.options).revision(span.from).revision(span.to).args(words.paths);
    Err(process::become_program(&mut git.into_command()))
}

/// Shows a run with its iterations, checks and files.
pub fn show(site: &Site, arguments: &ShowArgs) -> Result<u8> {
    let shown = app::show(site, arguments.run.as_deref())?;
    if arguments.json {
        print::out(render::json(&shown, print::person_reads())?)?;
        return Ok(0);
    }
    warn_of_set_aside(shown.set_aside.as_deref());
    let mut pager = Pager::start();
    if pager.show(&paint::out(super::shown::text(&shown)))? && !shown.files.is_empty() {
        // The pager is already running.
        let mut git = Git::as_user("diff").env("GIT_PAGER", "cat").arg("--stat");
        if arguments.patch {
            git = git.arg("--patch");
        }
        if !paint::is_seen_out() {
            git = git.arg("--no-color");
        }
        pager.run(git.revision(&shown.base).revision(&shown.tip).into_command())?;
    }
    pager.close();
    Ok(0)
}

/// Arguments of a verb, split into the run and git's arguments.
struct Words {
    run: Option<String>,
    options: Vec<String>,
    paths: Vec<String>,
}

impl Words {
    /// Splits the arguments. The run is the first; a whole id, which cannot be an option's value, may also be where git
    /// takes revisions.
    fn of(site: &Site, words: &[String]) -> Self {
        let mut options = words.to_vec();
        let end = options.iter().position(|word| word == "--").unwrap_or(options.len());
        let paths = options.split_off(end);
        // Only a word that can be an id needs a look at the refs.
        let is_run = |word: &String| {
            word.parse::<RunId>().is_ok() && app::resolve(site, word).is_ok_and(|run| run.as_str() == word)
        };
        let at = match options.first() {
            Some(first) if !first.starts_with('-') => Some(0),
            _ => options.iter().position(is_run),
        };
        let run = at.map(|at| options.remove(at));
        Self { run, options, paths }
    }

    /// Removes `flag N` or `flag=N` from the options and returns the number.
    fn take_value(&mut self, flag: &str) -> Result<Option<u32>> {
        let is_flag =
            |word: &String| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        let Some(at) = self.options.iter().position(is_flag) else { return Ok(None) };
        let word = self.options.remove(at);
        let value = match word.split_once('=') {
            Some((_, value)) => value.to_owned(),
            None if at < self.options.len() => self.options.remove(at),
            None => String::new(),
        };
        value
            .parse()
            .ok()
            .filter(|number| *number > 0)
            .map(Some)
            .ok_or_else(|| Error::usage(format!("'{value}' is no iteration")).hint("iterations are numbered from 1"))
    }
}
