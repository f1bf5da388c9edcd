//! Events as readers get them: with an iteration and with data of other events, so that each can be read by itself.
//!
//! The log holds each fact once. The data that is added here is not recorded.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::event::{Event, Fact};
use super::state::{Iteration, Run};
use super::step::Phase;
use super::text::one_line;
use super::word::Word;

/// Length of a preview, in characters.
const PREVIEW: usize = 200;

/// Adds data to a run's events, from the first on.
#[derive(Debug)]
pub struct Enricher {
    run: Run,
    phase: Word<Phase>,
}

impl Default for Enricher {
    fn default() -> Self {
        Self { run: Run::default(), phase: Word::Known(Phase::Idle) }
    }
}

/// An event with the data that is added for readers.
#[derive(Clone, Debug, PartialEq)]
pub struct EnrichedEvent {
    /// Event as it is recorded.
    pub event: Event,
    iteration: u32,
    added: Map<String, Value>,
}

impl Enricher {
    /// Folds `event`, the next one.
    pub fn skip(&mut self, event: &Event) {
        self.run.apply(event);
        if let Fact::PhaseChanged(data) = &event.fact {
            self.phase.clone_from(&data.phase);
        }
    }

    /// Folds `event`, the next one, and returns it with the added data.
    pub fn enrich(&mut self, event: &Event) -> EnrichedEvent {
        let before = self.phase.clone();
        self.skip(event);
        let iteration = event.iteration.or_else(|| self.run.iteration().map(|iteration| iteration.number));
        let added = match self.added(event, &before) {
            Value::Object(fields) => fields,
            _ => Map::new(),
        };
        EnrichedEvent { event: event.clone(), iteration: iteration.unwrap_or(0), added }
    }

    /// Returns the data that is added to that of `event`.
    fn added(&self, event: &Event, phase: &Word<Phase>) -> Value {
        let run = &self.run;
        let last = run.iterations.last();
        match &event.fact {
            Fact::RunStarted(data) => json!({
                "goal": data.goal.text,
                "success_criteria": data.goal.criteria,
                "backend": data.options.agent.backend,
                "cwd": if data.options.cwd.is_top() { "." } else { data.options.cwd.as_str() },
                "max_iterations": data.options.budget.max_iterations.get(),
            }),
            Fact::IntakeFinished(data) => json!({
                "goal": data.goal.text,
                "success_criteria": data.goal.criteria,
            }),
            Fact::PhaseChanged(data) => json!({ "from": phase, "to": data.phase }),
            Fact::Decomposed(data) => json!({ "subgoals": data.plan.subgoals }),
            Fact::SubagentStarted(data) => {
                let plan = run.iteration().and_then(|iteration| iteration.plan.as_ref());
                let subgoal = plan.and_then(|plan| plan.subgoals.iter().find(|subgoal| subgoal.id == data.id));
                json!({ "description": subgoal.map(|subgoal| subgoal.description.as_str()).unwrap_or_default() })
            }
            Fact::Aggregated(_) => {
                let text = last.map(Iteration::aggregate).unwrap_or_default();
                json!({ "preview": one_line(&text, PREVIEW) })
            }
            Fact::IterationFinished(_) => {
                let results = last.map(Iteration::results).unwrap_or_default();
                let checked = last.and_then(|last| last.verification.as_ref());
                let review = last.and_then(|last| last.review.as_ref());
                json!({
                    "subgoals_ok": results.iter().filter(|result| result.ok).count(),
                    "subgoals_total": results.len(),
                    "verification_ok":
                        checked.map_or(run.options.checks.is_empty(), |checked| checked.failing().is_empty()),
                    "gates_passed": review.is_some_and(|review| review.gates_passed),
                    "goal_complete": review.is_some_and(|review| review.goal_complete),
                })
            }
            Fact::RunFinished(_) => {
                json!({ "iterations": run.iterations.iter().filter(|one| one.checkpoint.is_some()).count() })
            }
            _ => Value::Null,
        }
    }
}

impl EnrichedEvent {
    /// Returns the event as a line of JSON, without the newline.
    #[must_use]
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Serialize for EnrichedEvent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("seq", &self.event.seq)?;
        map.serialize_entry("ts", &self.event.ts)?;
        map.serialize_entry("session", &self.event.session)?;
        map.serialize_entry("kind", self.event.fact.kind())?;
        map.serialize_entry("iteration", &self.iteration)?;
        if self.added.is_empty() {
            map.serialize_entry("data", &self.event.fact.data())?;
        } else {
            let mut data = serde_json::to_value(self.event.fact.data()).map_err(serde::ser::Error::custom)?;
            if let Value::Object(fields) = &mut data {
                fields.extend(self.added.clone());
            }
            map.serialize_entry("data", &data)?;
        }
        map.end()
    }
}
