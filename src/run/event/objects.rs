//! The object ids in events: a repository has one hash, and an id of another names nothing there.

use super::codec::{Aside, Log};
use super::fact::{Event, Fact};
use crate::run::id::Oid;

impl Event {
    /// Reports whether all object ids in it have this many hexadecimal digits.
    #[must_use]
    pub fn has_ids_of(&self, digits: usize) -> bool {
        self.fact.object_ids().into_iter().flatten().all(|id| id.as_str().len() == digits)
    }
}

impl Log {
    /// Sets aside the events with object ids of another length than this many hexadecimal digits.
    #[must_use]
    pub fn with_ids_of(mut self, digits: usize) -> Self {
        let (fitting, others): (Vec<Event>, Vec<Event>) =
            std::mem::take(&mut self.events).into_iter().partition(|event| event.has_ids_of(digits));
        self.events = fitting;
        for event in others {
            self.set_aside(Aside::new(
                &event.seq,
                event.fact.kind(),
                "an object id of another hash than the repository's",
            ));
        }
        self
    }
}

impl Fact {
    fn object_ids(&self) -> [Option<&Oid>; 4] {
        match self {
            Self::RunStarted(fact) => [Some(&fact.base), Some(&fact.start), Some(&fact.tree), None],
            Self::WorktreeReady(fact) => [Some(&fact.base), None, None, None],
            Self::BaselineTaken(fact) => [Some(&fact.verification.tree), None, None, None],
            Self::Verified(fact) => [Some(&fact.verification.tree), None, None, None],
            Self::AgentFinished(fact) => [fact.commit.as_ref(), None, None, None],
            Self::Checkpointed(fact) => [Some(&fact.commit), Some(&fact.tree), None, None],
            Self::Integrated(fact) => {
                [Some(&fact.commit), Some(&fact.tree), fact.onto.as_ref(), fact.resolution.as_ref()]
            }
            Self::Conflicted(fact) => [Some(&fact.commit), Some(&fact.onto), None, None],
            _ => [None; 4],
        }
    }
}
