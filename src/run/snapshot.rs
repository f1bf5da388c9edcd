//! Snapshots: the state of a run, short enough for the trailers of every commit on its notes ref.
//!
//! `list`, `status` and plain git read one commit a run instead of its whole log. A snapshot is never a source: folding the
//! events up to `seq` gives the same state.

use std::fmt;
use std::fmt::Write as _;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::event::Timestamp;
use super::goal::StopReason;
use super::id::SessionId;
use super::range::LAST_SEQ;
use super::word::Word;
use super::work::one_line;
use super::{Phase, Run, Step};

/// Longest goal in a snapshot, in characters.
const GOAL_LENGTH: usize = 200;
/// Longest name of a phase or of a stop reason, in characters.
const WORD_LENGTH: usize = 32;

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A driver works on it, or did when it recorded this.
    Running,
    /// Questions wait for the user.
    NeedsInput,
    /// The run waits for a limit.
    Waiting,
    /// The goal is reached.
    Completed,
    /// A limit of the budget ended it.
    Stopped,
    /// An agent or the driver failed permanently.
    Failed,
    /// The user cancelled it.
    Cancelled,
    /// No driver works on the run, and it has not ended. Views hold this state, records never do.
    Interrupted,
}

impl State {
    /// States that a record can hold.
    const RECORDED: [Self; 7] =
        [Self::Running, Self::NeedsInput, Self::Waiting, Self::Completed, Self::Stopped, Self::Failed, Self::Cancelled];

    /// Returns the word in trailers and `--json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::NeedsInput => "needs_input",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Interrupted => "interrupted",
        }
    }

    /// Returns whether a run in this state has ended.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Stopped | Self::Failed | Self::Cancelled)
    }

    /// Returns the state of a run that ended for `reason`.
    #[must_use]
    pub fn after(reason: StopReason) -> Self {
        match reason {
            StopReason::GoalComplete => Self::Completed,
            StopReason::Cancelled => Self::Cancelled,
            StopReason::NeedsInput => Self::NeedsInput,
            StopReason::IntakeAgentError | StopReason::LoopAgentError | StopReason::RunError => Self::Failed,
            StopReason::MaxIterations
            | StopReason::MaxSeconds
            | StopReason::MaxAgentCalls
            | StopReason::MaxTokens
            | StopReason::MaxCost
            | StopReason::UsageLimit
            | StopReason::NoProgress => Self::Stopped,
        }
    }
}

impl FromStr for State {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::RECORDED.into_iter().find(|state| state.name() == text).ok_or(())
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The state of a run after event `seq`.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// State.
    pub state: State,
    /// Phase.
    pub phase: Word<Phase>,
    /// Current or last iteration; 0 before the first.
    pub iteration: u32,
    /// Limit of iterations.
    pub max_iterations: u32,
    /// Number of the newest event.
    pub seq: u64,
    /// Session of the driver that recorded it.
    pub session: SessionId,
    /// Time at which the run was started.
    pub started: Timestamp,
    /// Reason why it ended or waits for the user.
    pub stop_reason: Option<Word<StopReason>>,
    /// Tokens that its agents used, in and out together.
    pub tokens: u64,
    /// Cost in US dollars, if known.
    pub cost_usd: Option<f64>,
    /// Goal in one line.
    pub goal: String,
    /// Backend that it waits for, if any.
    pub waiting: Option<Awaited>,
}

/// A backend that a run waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// End of the wait, in seconds since the Unix epoch.
    pub until: Timestamp,
    /// Backend and its message, in one line.
    pub why: String,
}

impl Run {
    /// Returns the state after the newest event.
    #[must_use]
    pub fn state(&self) -> State {
        match &self.ended {
            Some(ended) => State::after(ended.reason),
            None if self.is_waiting_for_answers() => State::NeedsInput,
            None if matches!(self.next_step(self.now), Some(Step::Wait { .. })) => State::Waiting,
            None => State::Running,
        }
    }

    /// Returns the snapshot after the newest event.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let state = self.state();
        let stop_reason = match (&self.ended, state) {
            (Some(ended), _) => Some(Word::Known(ended.reason)),
            (None, State::NeedsInput) => Some(Word::Known(StopReason::NeedsInput)),
            (None, _) => None,
        };
        Snapshot {
            state,
            phase: Word::Known(self.phase()),
            iteration: self.iteration().map_or(0, |iteration| iteration.number),
            max_iterations: self.budget().max_iterations.get(),
            seq: self.seq,
            session: self.sessions.last().map(|session| session.id.clone()).unwrap_or_default(),
            started: self.sessions.first().map(|session| session.started).unwrap_or_default(),
            stop_reason,
            tokens: self.usage.tokens(),
            cost_usd: self.usage.cost_usd,
            goal: one_line(&self.goal.text, GOAL_LENGTH),
            waiting: if state == State::Waiting { self.awaited() } else { None },
        }
    }

    fn awaited(&self) -> Option<Awaited> {
        let Some(Step::Wait { until, backend }) = self.next_step(self.now) else { return None };
        let reason = self.pauses.get(&backend).map(|pause| pause.reason.as_str()).unwrap_or_default();
        Some(Awaited { until, why: one_line(&format!("{backend}: {reason}"), GOAL_LENGTH) })
    }
}

impl Snapshot {
    /// Writes the trailers, a line each, as `git interpret-trailers` reads them.
    #[must_use]
    pub fn to_trailers(&self) -> String {
        let mut text = String::with_capacity(400);
        let mut line = |key: &str, value: &dyn fmt::Display| {
            let _ = writeln!(text, "Agentloop-{key}: {value}");
        };
        line("State", &self.state);
        line("Phase", &self.phase);
        line("Iteration", &self.iteration);
        line("Max-Iterations", &self.max_iterations);
        line("Seq", &self.seq);
        line("Session", &self.session);
        line("Started", &self.started.seconds());
        if let Some(reason) = &self.stop_reason {
            line("Stop-Reason", reason);
        }
        line("Tokens", &self.tokens);
        if let Some(cost) = &self.cost_usd {
            line("Cost-USD", cost);
        }
        line("Goal", &self.goal);
        if let Some(Awaited { until, why }) = &self.waiting {
            line("Waiting", &format_args!("{} {why}", until.seconds()));
        }
        text
    }

    /// Parses the snapshot in a commit's message. Returns `None` if the message has none, as that of a person's notes
    /// commit, or if a value is one that no driver writes.
    #[must_use]
    pub fn from_message(message: &str) -> Option<Self> {
        let mut snapshot = Self {
            state: State::Running,
            phase: Word::Known(Phase::Idle),
            iteration: 0,
            max_iterations: 0,
            seq: 0,
            session: SessionId::default(),
            started: Timestamp::default(),
            stop_reason: None,
            tokens: 0,
            cost_usd: None,
            goal: String::new(),
            waiting: None,
        };
        let mut found = false;
        for line in message.lines() {
            let Some((key, value)) = line.strip_prefix("Agentloop-").and_then(|line| line.split_once(": ")) else {
                continue;
            };
            match key {
                "State" => {
                    snapshot.state = value.parse().ok()?;
                    found = true;
                }
                "Phase" => snapshot.phase = word(value)?.into(),
                "Iteration" => snapshot.iteration = value.parse().ok()?,
                "Max-Iterations" => snapshot.max_iterations = value.parse().ok()?,
                "Seq" => snapshot.seq = value.parse().ok().filter(|seq| *seq <= LAST_SEQ)?,
                "Session" if value.is_empty() => {}
                "Session" => snapshot.session = value.parse().ok()?,
                "Started" => snapshot.started = Timestamp::from_seconds(value.parse().ok()?)?,
                "Stop-Reason" => snapshot.stop_reason = Some(word(value)?.into()),
                "Tokens" => snapshot.tokens = value.parse().ok()?,
                "Cost-USD" => snapshot.cost_usd = Some(value.parse::<f64>().ok().filter(|cost| cost.is_finite())?),
                "Goal" => snapshot.goal = one_line(value, GOAL_LENGTH),
                "Waiting" => {
                    let (until, why) = value.split_once(' ')?;
                    let until = Timestamp::from_seconds(until.parse().ok()?)?;
                    snapshot.waiting = Some(Awaited { until, why: one_line(why, GOAL_LENGTH) });
                }
                _ => {}
            }
        }
        found.then_some(snapshot)
    }
}

/// Returns `text` if it may be a word of this or a newer version: `needs_input`.
fn word(text: &str) -> Option<String> {
    let is_word = (1..=WORD_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'));
    is_word.then(|| text.to_owned())
}
