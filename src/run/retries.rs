//! Transient failures of calls, reported without repetition.

use std::collections::BTreeMap;

use super::Run;
use super::event::{Event, Fact};
use super::timestamp::Timestamp;

/// Time after which a continuing failure is reported again, in seconds.
const REMINDER: f64 = 60.0;

/// Backends whose calls fail at the moment and are retried.
#[derive(Clone, Debug, Default)]
pub struct Retries {
    troubled: BTreeMap<String, Trouble>,
}

/// Consecutive failures of one backend's calls.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Time of the first wait.
    pub since: Timestamp,
    /// Last reason.
    pub why: String,
    /// Number of calls made.
    pub attempts: u32,
    reminder: Reminder,
}

/// The meaning of an event for the calls of one backend.
#[derive(Clone, Debug)]
pub enum Turn {
    /// The call is retried after a wait.
    Waits {
        /// Name of the backend.
        backend: String,
        /// Failures so far.
        trouble: Trouble,
        /// True if it is to be reported, as it was not lately.
        is_news: bool,
    },
    /// The call is being retried.
    Tries {
        /// Name of the backend.
        backend: String,
        /// Failures so far.
        trouble: Trouble,
    },
    /// The service answered, or there is no further retry.
    Over {
        /// Name of the backend.
        backend: String,
        /// Failures until then.
        trouble: Trouble,
        /// True if the service answered.
        answered: bool,
    },
}

impl Retries {
    /// Updates the failures with `event` and returns what it means for them.
    pub fn turn(&mut self, event: &Event) -> Option<Turn> {
        match &event.fact {
            Fact::Waiting(data) => {
                let trouble = self.troubled.entry(data.backend.clone()).or_insert_with(|| Trouble {
                    since: event.ts,
                    why: String::new(),
                    attempts: 0,
                    reminder: Reminder::default(),
                });
                // A limit that another run met did not fail a call of this one.
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

/// Tells new reasons to wait from repetitions.
#[derive(Clone, Debug, Default)]
pub struct Reminder {
    reported: Option<(String, Timestamp)>,
}

impl Reminder {
    /// Returns whether a wait from `now` until `until` for the reason `why` is to be reported: the reason is new, the wait
    /// is long, or the last report is a while ago. Words with digits, such as a request's number, do not make a reason new.
    pub fn is_news(&mut self, why: &str, now: Timestamp, until: Timestamp) -> bool {
        let words = why.split_whitespace().filter(|word| !word.contains(|letter: char| letter.is_ascii_digit()));
        let words = words.collect::<Vec<_>>().join(" ");
        let is_known =
            self.reported.as_ref().is_some_and(|(known, reported)| *known == words && now.since(*reported) < REMINDER);
        let is_news = !is_known || until.since(now) >= REMINDER;
        if is_news {
            self.reported = Some((words, now));
        }
        is_news
    }
}

impl Run {
    /// Returns whether `event` records a failed call that is retried.
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
    fn the_same_failure_is_reported_once_a_minute() {
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
