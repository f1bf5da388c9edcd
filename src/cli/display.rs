//! Shows a live run: lines, and on a terminal also what is in progress, with running times.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;

use super::live::Live;
use super::print::Stream;
use super::{paint, print, story};
use crate::app;
use crate::engine::Watch;
use crate::run::event::{Event, Fact, Timestamp};
use crate::run::goal::Role;
use crate::run::retries::{Retries, Trouble, Turn};
use crate::run::sanitize;
use crate::run::sanitize::short;
use crate::run::{Phase, Run, Word};

/// Longest description beside a running time, in characters; the terminal may cut it further.
const WIDTH: usize = 100;

/// Ways to show a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No output.
    Quiet,
    /// A line of JSON on standard error for every iteration.
    Progress,
    /// Lines.
    Plain(Stream),
    /// Lines, and below them what is in progress.
    Live(Stream),
}

impl Mode {
    /// Chooses the mode for a run that is driven in this process.
    #[must_use]
    pub fn for_run(quiet: bool, progress: bool) -> Self {
        match (progress, quiet) {
            (true, _) => Self::Progress,
            (false, true) => Self::Quiet,
            (false, false) if can_draw(std::io::stderr().is_terminal()) => Self::Live(Stream::Err),
            (false, false) => Self::Plain(Stream::Err),
        }
    }

    /// Chooses the mode for `tail`.
    #[must_use]
    pub fn for_tail() -> Self {
        if can_draw(std::io::stdout().is_terminal()) { Self::Live(Stream::Out) } else { Self::Plain(Stream::Out) }
    }
}

fn can_draw(terminal: bool) -> bool {
    terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Display of a run.
pub struct Display {
    mode: Mode,
    /// True if the end is shown here, because no result on the same terminal shows it.
    closing: bool,
    /// Lines in progress, on a terminal.
    live: Option<Live>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: Option<Lines>,
    /// True once the pipe is closed.
    deaf: bool,
}

impl Display {
    /// Makes a display; `closing` shows the run's end, for callers that print no result.
    #[must_use]
    pub fn new(mode: Mode, closing: bool) -> Self {
        let live = if let Mode::Live(stream) = mode { Some(Live::new(stream)) } else { None };
        Self { mode, closing, live, state: Mutex::default() }
    }

    /// Reports whether the output can still be written.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        !self.state().deaf
    }

    /// Prints a line that is not an event.
    pub fn note(&self, line: &str) {
        self.above(|| print::note(line));
    }

    /// Erases the lines in progress.
    pub fn close(&self) {
        self.live.iter().for_each(Live::clear);
    }

    /// Prints above the lines in progress.
    fn above<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.live {
            Some(live) => live.above(print),
            None => print(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self, state: &mut State, text: &str) {
        let print = || match self.mode {
            Mode::Plain(Stream::Out) | Mode::Live(Stream::Out) => {
                print::out(paint::out(format!("{text}\n"))).unwrap_or(false)
            }
            _ => {
                // The run goes on even if standard error is closed.
                print::note(&paint::err(text.to_owned()));
                true
            }
        };
        state.deaf |= !self.above(print);
    }

    /// Draws a line for work that `event` begins, and removes it when the work ends.
    fn draw(live: &Live, run: &Run, event: &Event, turn: Option<&Turn>) {
        let elapsed = |since: Timestamp| Duration::from_secs_f64(app::now().since(since).max(0.0));
        let begin = |key: &str, what: &str| live.begin(key, what.to_owned(), elapsed(event.ts));
        match &event.fact {
            Fact::SubagentStarted(data) => {
                let plan = run.iteration().and_then(|iteration| iteration.plan.as_ref());
                let subgoal = plan.and_then(|plan| plan.subgoals.iter().find(|subgoal| subgoal.id == data.id));
                let what = subgoal.map(|subgoal| short(&subgoal.description, WIDTH)).unwrap_or_default();
                let attempt = if data.attempt > 1 { format!(" (attempt {})", data.attempt) } else { String::new() };
                begin(&data.id, &format!("{}{attempt}: {what}", data.id));
            }
            Fact::SubagentFinished(data) => live.end(&data.id),
            Fact::SubagentFailed(data) => live.end(&data.id),
            // The line of the failed attempts shows the next attempt too.
            Fact::AgentStarted(data) if data.role != Some(Role::Subagent) && turn.is_none() => {
                begin(&format!("call {}", data.call), doing(data.role));
            }
            Fact::AgentFinished(data) => {
                live.end(&format!("call {}", data.call));
                if let Some(subgoal) = data.subgoal.as_deref().filter(|_| run.is_tried_again(event)) {
                    live.end(subgoal);
                }
            }
            Fact::PhaseChanged(data) if data.phase == Word::Known(Phase::Verify) && !run.options.checks.is_empty() => {
                begin("checks", "running the checks");
            }
            Fact::Verified(_) => live.end("checks"),
            Fact::RunFinished(_) | Fact::RunError(_) | Fact::NeedsInput(_) | Fact::RunResumed(_) => live.clear(),
            _ => {}
        }
        let Some(turn) = turn else { return };
        let (Turn::Waits { backend, trouble, .. }
        | Turn::Tries { backend, trouble }
        | Turn::Over { backend, trouble, .. }) = turn;
        let key = format!("retries of {backend}");
        match (turn, &event.fact) {
            (Turn::Over { .. }, _) => live.end(&key),
            (_, Fact::Waiting(data)) => {
                live.begin(&key, story::waiting(data, event.ts, trouble), elapsed(trouble.since));
            }
            (_, Fact::AgentStarted(data)) => live.begin(&key, trying(data.role, trouble), elapsed(trouble.since)),
            _ => {}
        }
    }
}

/// Formats the line of a call that is retried.
fn trying(role: Option<Role>, trouble: &Trouble) -> String {
    format!("{}, attempt {}; before: {}", doing(role), trouble.attempts + 1, short(&trouble.why, WIDTH))
}

fn doing(role: Option<Role>) -> &'static str {
    match role {
        Some(Role::Criteria) => "working out what must hold",
        Some(Role::Clarifier) => "looking for questions",
        Some(Role::Decomposer) => "planning",
        Some(Role::Reviewer) => "reviewing",
        Some(Role::Integrator) => "bringing work together",
        Some(Role::Subagent) | None => "working",
    }
}

/// Formats a finished iteration as one line of JSON.
fn progress(run: &Run, event: &Event) -> Option<String> {
    let Fact::IterationFinished(data) = &event.fact else { return None };
    let line = json!({
        "run_id": run.id,
        "iteration": event.iteration,
        "max_iterations": run.budget().max_iterations.get(),
        "complete": data.complete,
        "summary": data.summary,
    });
    Some(sanitize::json(line.to_string()))
}

/// Formats a run's events as lines for a person, one after the other.
pub struct Lines {
    /// Start of each worker's current attempt.
    begun: BTreeMap<String, Timestamp>,
    /// True for events that are read later or in another process: they get times, and the end shows how to merge.
    later: bool,
    /// True if a line in place shows calls that are retried.
    is_live: bool,
    retries: Retries,
    /// The last role that failed, and its error.
    failed: Option<(Option<Role>, String)>,
    zone: TimeZone,
    /// Day of the previous event, at first today.
    day: Date,
}

impl Lines {
    /// Makes lines for a run that is followed or read `later`, or else driven in this process.
    #[must_use]
    pub fn new(later: bool, is_live: bool) -> Self {
        let zone = TimeZone::system();
        let day = Zoned::now().with_time_zone(zone.clone()).date();
        Self { begun: BTreeMap::new(), later, is_live, retries: Retries::default(), failed: None, zone, day }
    }

    /// Formats `event`, if it has something new, and returns what it means for retried calls.
    pub fn of(&mut self, run: &Run, event: &Event) -> (Option<String>, Option<Turn>) {
        let turn = self.retries.turn(event);
        (self.text(run, event, turn.as_ref()), turn)
    }

    fn text(&mut self, run: &Run, event: &Event, turn: Option<&Turn>) -> Option<String> {
        let since = match &event.fact {
            Fact::SubagentStarted(data) => {
                self.begun.insert(data.id.to_string(), event.ts);
                None
            }
            Fact::SubagentFinished(data) => self.begun.remove(data.id.as_str()),
            Fact::SubagentFailed(data) => self.begun.remove(data.id.as_str()),
            _ => None,
        };
        let news = turn.and_then(|turn| self.retried(event, turn));
        let line = match &event.fact {
            Fact::Waiting(_) => None,
            Fact::IntakeFinished(data)
                if self.failed.as_ref().is_some_and(|(_, error)| data.error.as_ref() == Some(error)) =>
            {
                None
            }
            Fact::AgentFinished(data) => {
                let failed = data.error.as_ref().map(|error| (data.role, error.message.clone()));
                let is_repeated = failed.is_some() && failed == self.failed;
                self.failed = failed;
                story::finished(data, run.is_tried_again(event), is_repeated)
            }
            _ => story::tell(run, event, since.map(|since| event.ts.since(since)), self.later),
        };
        let texts: Vec<String> = news.into_iter().chain(line).collect();
        if texts.is_empty() {
            return None;
        }
        let text = texts.join("\n");
        Some(if self.later { self.timed(event.ts, &text) } else { text })
    }

    /// Formats the line for a retried call, if one is due.
    fn retried(&self, event: &Event, turn: &Turn) -> Option<String> {
        match (turn, &event.fact) {
            (Turn::Waits { trouble, is_news: true, .. }, Fact::Waiting(data)) if !self.is_live => {
                Some(format!("  {}", story::waiting(data, event.ts, trouble)))
            }
            (Turn::Over { backend, trouble, answered: true }, _) if trouble.attempts > 0 => {
                let backend = short(backend, WIDTH);
                Some(format!("  {backend} answers again, at attempt {}", trouble.attempts + 1))
            }
            _ => None,
        }
    }

    /// Prefixes `text` with its local time, and with the date if that has changed.
    fn timed(&mut self, moment: Timestamp, text: &str) -> String {
        let Ok(moment) = jiff::Timestamp::from_millisecond(moment.0) else { return text.to_owned() };
        let moment = moment.to_zoned(self.zone.clone());
        let mut timed = String::new();
        if moment.date() != self.day {
            self.day = moment.date();
            timed += &paint::head(&format!("{}\n", moment.strftime("%a, %b %-d, %Y")));
        }
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                timed.push('\n');
            }
            let before = if index == 0 { moment.strftime("%H:%M:%S ").to_string() } else { " ".repeat(9) };
            timed += &before;
            timed += line;
        }
        timed
    }
}

impl Watch for Display {
    fn event(&self, run: &Run, event: &Event) {
        let mut state = self.state();
        let (text, turn) = match self.mode {
            Mode::Quiet => return,
            Mode::Progress => (progress(run, event), None),
            Mode::Plain(_) | Mode::Live(_) => {
                state.lines.get_or_insert_with(|| Lines::new(self.closing, self.live.is_some())).of(run, event)
            }
        };
        if let Some(live) = &self.live {
            Self::draw(live, run, event, turn.as_ref());
        }
        if let Some(text) = text {
            self.print(&mut state, &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::event::IterationFinished;

    #[test]
    fn progress_is_a_line_of_json_for_every_iteration() {
        let fact = IterationFinished { complete: true, summary: "3/3\nsubgoals".into() }.into();
        let event = Event { seq: 9, ts: Timestamp(0), session: "abcdef".parse().unwrap(), iteration: Some(2), fact };
        let line = progress(&Run::default(), &event).unwrap();
        assert!(!line.contains('\n'), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["iteration"], &value["complete"], &value["max_iterations"]),
            (&2.into(), &true.into(), &4.into())
        );
    }

    #[test]
    fn flags_pick_the_mode() {
        assert_eq!(Mode::for_run(true, false), Mode::Quiet);
        assert_eq!(Mode::for_run(true, true), Mode::Progress);
    }
}
