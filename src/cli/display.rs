//! Shows a run while it goes on: lines, and on a terminal what is under way with its running time.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;

use super::sanitize::short;
use super::{paint, print, sanitize, story};
use crate::app;
use crate::engine::Watch;
use crate::run::Run;
use crate::run::event::{Event, Fact, Timestamp};
use crate::run::goal::Role;

/// How often running times are drawn anew.
const TICK: Duration = Duration::from_millis(200);
/// Longest description beside a running time, in characters; the terminal may cut it further.
const WIDTH: usize = 100;

/// How a run is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Not at all.
    Quiet,
    /// A line of JSON on standard error for every iteration.
    Progress,
    /// Lines.
    Plain(Stream),
    /// Lines, and below them what is under way.
    Live(Stream),
}

/// Where it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, where following is what was asked for.
    Out,
    /// Standard error, beside an answer.
    Err,
}

impl Mode {
    /// How a run that is driven here is shown.
    #[must_use]
    pub fn for_run(quiet: bool, progress: bool) -> Self {
        match (progress, quiet) {
            (true, _) => Self::Progress,
            (false, true) => Self::Quiet,
            (false, false) if can_draw(std::io::stderr().is_terminal()) => Self::Live(Stream::Err),
            (false, false) => Self::Plain(Stream::Err),
        }
    }

    /// How `tail` shows a run.
    #[must_use]
    pub fn for_tail() -> Self {
        if can_draw(std::io::stdout().is_terminal()) { Self::Live(Stream::Out) } else { Self::Plain(Stream::Out) }
    }
}

fn can_draw(terminal: bool) -> bool {
    terminal && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Shows a run.
pub struct Display {
    mode: Mode,
    /// Whether the end is told here, because no result on the same terminal tells it.
    closing: bool,
    bars: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lines: Option<Lines>,
    /// What is under way, as drawn.
    under_way: BTreeMap<String, ProgressBar>,
    /// Whether whoever listened has gone.
    deaf: bool,
}

impl Display {
    /// Shows in `mode`; `closing` where nothing else tells the end.
    #[must_use]
    pub fn new(mode: Mode, closing: bool) -> Self {
        let target = match mode {
            Mode::Live(Stream::Err) => ProgressDrawTarget::stderr_with_hz(10),
            Mode::Live(Stream::Out) => ProgressDrawTarget::stdout_with_hz(10),
            _ => ProgressDrawTarget::hidden(),
        };
        let bars = MultiProgress::with_draw_target(target);
        Self { mode, closing, bars, state: Mutex::default() }
    }

    /// Whether anybody still reads what is shown.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        !self.state().deaf
    }

    /// Says a line beside the run's own.
    pub fn note(&self, line: &str) {
        self.bars.suspend(|| print::note(line));
    }

    /// Takes away what is drawn.
    pub fn close(&self) {
        self.state().under_way.clear();
        let _ = self.bars.clear();
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
                // The run goes on whether or not anybody listens.
                print::note(&paint::err(text.to_owned()));
                true
            }
        };
        state.deaf |= !self.bars.suspend(print);
    }

    /// Draws what `event` begins, and takes away what it ends.
    fn draw(&self, state: &mut State, run: &Run, event: &Event) {
        match &event.fact {
            Fact::SubagentStarted(data) => {
                let plan = run.iteration().and_then(|iteration| iteration.plan.as_ref());
                let subgoal = plan.and_then(|plan| plan.subgoals.iter().find(|subgoal| subgoal.id == data.id));
                let what = subgoal.map(|subgoal| short(&subgoal.description, WIDTH)).unwrap_or_default();
                let attempt = if data.attempt > 1 { format!(" (attempt {})", data.attempt) } else { String::new() };
                self.begin(state, &data.id, &format!("{}{attempt}: {what}", data.id), event.ts);
            }
            Fact::SubagentFinished(data) => end(state, &data.id),
            Fact::SubagentFailed(data) => end(state, &data.id),
            Fact::AgentStarted(data) if data.role != Some(Role::Subagent) => {
                self.begin(state, &format!("call {}", data.call), doing(data.role), event.ts);
            }
            Fact::AgentFinished(data) => end(state, &format!("call {}", data.call)),
            Fact::PhaseChanged(data) if data.phase == "verify" && !run.options.checks.is_empty() => {
                self.begin(state, "checks", "running the checks", event.ts);
            }
            Fact::Verified(_) => end(state, "checks"),
            Fact::Waiting(data) => self.begin(state, "waiting", &story::waiting(data, event.ts), event.ts),
            Fact::RunFinished(_) | Fact::RunError(_) | Fact::NeedsInput(_) | Fact::RunResumed(_) => {
                std::mem::take(&mut state.under_way).values().for_each(ProgressBar::finish_and_clear);
            }
            _ => {}
        }
        if !matches!(event.fact, Fact::Waiting(_)) {
            end(state, "waiting");
        }
    }

    fn begin(&self, state: &mut State, key: &str, what: &str, since: Timestamp) {
        end(state, key);
        let style = ProgressStyle::with_template("  {spinner} {elapsed:>4} {wide_msg}")
            .map_or_else(|_| ProgressStyle::default_spinner(), |style| style.tick_chars("|/-\\ "));
        let elapsed = Duration::from_secs_f64(app::now().since(since).max(0.0));
        let bar = self.bars.add(ProgressBar::new_spinner().with_style(style).with_elapsed(elapsed));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(TICK);
        state.under_way.insert(key.to_owned(), bar);
    }
}

fn end(state: &mut State, key: &str) {
    if let Some(bar) = state.under_way.remove(key) {
        bar.finish_and_clear();
    }
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

/// An iteration on one line of JSON.
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

/// A run's events as lines for a person, one event after the other.
pub struct Lines {
    /// When each worker's attempt under way began.
    begun: BTreeMap<String, Timestamp>,
    /// Where events are read later and by themselves: with their times, and with how to take the work at the end.
    later: bool,
    zone: TimeZone,
    /// The day of the event before; the reader's own at first.
    day: Date,
}

impl Lines {
    /// Of a run that is followed or looked at `later`, else of one that goes on here.
    #[must_use]
    pub fn new(later: bool) -> Self {
        let zone = TimeZone::system();
        let day = Zoned::now().with_time_zone(zone.clone()).date();
        Self { begun: BTreeMap::new(), later, zone, day }
    }

    /// What `event` says; nothing where it says nothing new.
    pub fn of(&mut self, run: &Run, event: &Event) -> Option<String> {
        let since = match &event.fact {
            Fact::SubagentStarted(data) => {
                self.begun.insert(data.id.to_string(), event.ts);
                None
            }
            Fact::SubagentFinished(data) => self.begun.remove(data.id.as_str()),
            Fact::SubagentFailed(data) => self.begun.remove(data.id.as_str()),
            _ => None,
        };
        let text = story::tell(run, event, since.map(|since| event.ts.since(since)), self.later)?;
        Some(if self.later { self.timed(event.ts, &text) } else { text })
    }

    /// `text` with its local time before it, and with the date where that is another than before.
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
        let text = match self.mode {
            Mode::Quiet => return,
            Mode::Progress => progress(run, event),
            Mode::Plain(_) | Mode::Live(_) => {
                state.lines.get_or_insert_with(|| Lines::new(self.closing)).of(run, event)
            }
        };
        if matches!(self.mode, Mode::Live(_)) {
            self.draw(&mut state, run, event);
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
