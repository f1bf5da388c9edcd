//! Calls that fail in passing and are made again, told without repetition.

use std::collections::BTreeMap;

use super::Run;
use super::event::{Event, Fact};
use super::timestamp::Timestamp;

/// Seconds after which a failure that goes on is news again.
const REMINDER: f64 = 60.0;

/// The backends whose calls fail in passing at the moment.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    troubled: BTreeMap<String, Trouble>,
}

/// Calls of one backend that failed one after the other.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// When it was first waited for.
    pub since: Timestamp,
    /// The last reason.
    pub why: String,
    /// How often the call was made.
    pub attempts: u32,
    reminder: Reminder,
}

/// What an event means for the calls of one backend.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The call is made again once a wait is over; `is_news` unless the reader was told so lately.
    Waits {
        /// The backend.
        backend: String,
        /// The failures so far.
        trouble: Trouble,
        /// Whether it is worth a line of its own.
        is_news: bool,
    },
    /// The call is being made again.
    Tries {
        /// The backend.
        backend: String,
        /// The failures so far.
        trouble: Trouble,
    },
    /// The service answered, or the call is given up.
    Over {
        /// The backend.
        backend: String,
        /// The failures until then.
        trouble: Trouble,
        /// Whether it answered.
        answered: bool,
    },
}

impl Retries {
    /// Takes in `event`, which `run` holds already.
    pub fn turn(&mut self, event: &Event) -> Option<Turn> {
        match &event.fact {
            Fact::Waiting(data) => {
                let trouble = self.troubled.entry(data.backend.clone()).or_insert_with(|| Trouble {
                    since: event.ts,
                    why: String::new(),
                    attempts: 0,
                    reminder: Reminder::default(),
                });
                // A limit that another run met has failed no call of this one.
                trouble.attempts += u32::from(!data.shared);
                trouble.why.clone_from(&data.reason);
                let is_news = trouble.reminder.is_news(&data.reason, event.ts, data.until);
                Some(Turn::Waits { backend: data.backend.clone(), trouble: trouble.clone(), is_news })
            }
            Fact::AgentStarted(data) => {
                let trouble = self.troubled.get(&data.agent.backend)?.clone();
                Some(Turn::Tries { backend: data.agent.backend.clone(), trouble })
            }
            Fact::AgentFinished(data) if data.error.as_ref().is_none_or(|error| error.retry_at.is_none()) => {
                let backend = data.agent.backend.clone();
                let trouble = self.troubled.remove(&backend)?;
                Some(Turn::Over { backend, trouble, answered: data.error.is_none() })
            }
            Fact::RunFinished(_) | Fact::RunResumed(_) => {
                self.troubled.clear();
                None
            }
            _ => None,
        }
    }
}

/// Tells apart what a reader has to be told and what is a repetition.
#[derive(Clone, Debug, Default)]
pub struct Reminder {
    told: Option<(String, Timestamp)>,
}

impl Reminder {
    /// Whether a wait from `now` until `until` for the reason `why` is news: another reason than before, a longer wait, or the
    /// last news was a while ago. Words with digits, such as a request's number, make no other reason.
    pub fn is_news(&mut self, why: &str, now: Timestamp, until: Timestamp) -> bool {
        let words = why.split_whitespace().filter(|word| !word.contains(|letter: char| letter.is_ascii_digit()));
        let words = words.collect::<Vec<_>>().join(" ");
        let is_known = self.told.as_ref().is_some_and(|(known, told)| *known == words && now.since(*told) < REMINDER);
        let is_news = !is_known || until.since(now) >= REMINDER;
        if is_news {
            self.told = Some((words, now));
        }
        is_news
    }
}

impl Run {
    /// Whether `event` says that a call failed which is made again.
    #[must_use]
    pub fn is_tried_again(&self, event: &Event) -> bool {
        let Fact::AgentFinished(data) = &event.fact else { return false };
        let limited = self.pauses.get(&data.agent.backend).is_some_and(|pause| pause.limit) && self.options.no_wait;
        !limited && data.error.as_ref().is_some_and(|error| error.retry_at.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_failure_is_told_once_a_minute() {
        let mut reminder = Reminder::default();
        let mut news = |why: &str, now: i64, wait: i64| reminder.is_news(why, Timestamp(now), Timestamp(now + wait));
        assert!(news("answered 500: request 1a", 0, 1000));
        assert!(!news("answered 500: request 2b", 1000, 2000));
        assert!(news("answered 500: overloaded", 3000, 4000));
        assert!(!news("answered 500: overloaded", 50_000, 8000));
        assert!(news("answered 500: overloaded", 63_000, 8000));
        assert!(news("answered 500: overloaded", 64_000, 60_000), "how long it waits is news");
    }
}
