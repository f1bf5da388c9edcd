//! Plans, and how they are read from a planner's answer.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::id::{SubgoalId, is_subgoal_id};
use super::range::{self, MOST_SUBGOALS};
use super::text::one_line;

/// Number of subgoals beyond the limit that the feedback names, one line each.
const DROPPED_NAMED: usize = 20;
/// Longest line that names such a subgoal, in characters.
const DROPPED_LENGTH: usize = 160;

/// A unit of planned work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subgoal {
    /// `[a-z0-9_-]{1,32}`, unique in its iteration.
    pub id: SubgoalId,
    /// Task of the worker.
    pub description: String,
}

/// The plan of an iteration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Subgoals, in plan order, each with an id of its own.
    #[serde(deserialize_with = "subgoals")]
    pub subgoals: Vec<Subgoal>,
    /// Subgoals that the limit cut off: a line each, and a last line that counts the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<String>,
    /// Reason why the answer was not used as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

fn subgoals<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Subgoal>, D::Error> {
    let fits = |subgoals: &Vec<Subgoal>| {
        let ids: BTreeSet<_> = subgoals.iter().map(|subgoal| &subgoal.id).collect();
        subgoals.len() <= MOST_SUBGOALS && ids.len() == subgoals.len()
    };
    range::within(deserializer, fits, "at most 4096 subgoals, each with an id of its own")
}

impl Plan {
    /// Reads a planner's JSON. Subgoals may be objects (`description`, `task` or `goal`) or strings; missing, invalid and
    /// duplicate ids become `s<n>`. Any answer but a non-empty array of subgoals becomes one subgoal: the whole goal.
    #[must_use]
    pub fn settle(answer: Option<&Value>, goal: &str, max_subgoals: usize) -> Self {
        let items = answer.and_then(plan_items).unwrap_or_default();
        let described: Vec<(Option<&str>, &str)> = items.iter().filter_map(subgoal_parts).collect();
        if described.is_empty() {
            let whole = Subgoal { id: numbered(1), description: goal.to_owned() };
            let remark = "the plan was not a list of subgoals: the whole goal is one".to_owned();
            return Self { subgoals: vec![whole], dropped: Vec::new(), remark: Some(remark) };
        }
        let limit = max_subgoals.clamp(1, MOST_SUBGOALS);
        let wished: BTreeSet<&str> =
            described.iter().take(limit).filter_map(|(id, _)| *id).filter(|id| is_subgoal_id(id)).collect();
        let mut taken = BTreeSet::new();
        let mut subgoals = Vec::new();
        for (position, (id, description)) in described.iter().take(limit).enumerate() {
            let id = id
                .and_then(|id| id.parse().ok())
                .filter(|id| !taken.contains(id))
                .unwrap_or_else(|| numbered_id(position + 1, &wished, &taken));
            taken.insert(id.clone());
            subgoals.push(Subgoal { id, description: (*description).to_owned() });
        }
        let rest = described.get(limit..).unwrap_or_default();
        let mut dropped: Vec<String> =
            rest.iter().take(DROPPED_NAMED).map(|(_, description)| one_line(description, DROPPED_LENGTH)).collect();
        if rest.len() > DROPPED_NAMED {
            dropped.push(format!("and {} more", rest.len() - DROPPED_NAMED));
        }
        Self { subgoals, dropped, remark: None }
    }
}

/// Returns the list in a planner's answer: the array itself, or the one that an object holds under a usual name.
fn plan_items(answer: &Value) -> Option<&[Value]> {
    match answer {
        Value::Array(items) => Some(items),
        Value::Object(fields) => ["subgoals", "tasks", "plan", "goals", "steps"]
            .iter()
            .find_map(|key| fields.get(*key)?.as_array())
            .map(Vec::as_slice),
        _ => None,
    }
}

fn subgoal_parts(item: &Value) -> Option<(Option<&str>, &str)> {
    let (id, description) = match item {
        Value::String(text) => (None, text.as_str()),
        Value::Object(fields) => (
            fields.get("id").and_then(Value::as_str),
            ["description", "task", "goal"].iter().find_map(|key| fields.get(*key)?.as_str())?,
        ),
        _ => return None,
    };
    let description = description.trim();
    (!description.is_empty()).then_some((id, description))
}

fn numbered_id(mut position: usize, wished: &BTreeSet<&str>, taken: &BTreeSet<SubgoalId>) -> SubgoalId {
    loop {
        let id = numbered(position);
        if !wished.contains(id.as_str()) && !taken.contains(&id) {
            return id;
        }
        position += 1;
    }
}

fn numbered(position: usize) -> SubgoalId {
    format!("s{position}").try_into().unwrap_or_default() // it is always valid
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ids(plan: &Plan) -> Vec<&str> {
        plan.subgoals.iter().map(|subgoal| subgoal.id.as_str()).collect()
    }

    #[test]
    fn a_plan_that_is_not_a_list_is_the_whole_goal() {
        for answer in [None, Some(json!([])), Some(json!({})), Some(json!("x")), Some(json!([1, null, {}, " "]))] {
            let plan = Plan::settle(answer.as_ref(), "the goal", 32);
            assert_eq!(plan.subgoals, [Subgoal { id: numbered(1), description: "the goal".into() }]);
            assert!(plan.remark.is_some());
        }
    }

    #[test]
    fn hostile_ids_are_replaced_and_valid_ones_kept() {
        let answer = json!([
            {"id": "../x", "description": "a"}, {"id": "a b", "task": "b"}, {"id": "", "goal": "c"},
            {"id": "s1", "description": "d"}, {"id": "s1", "description": "e"}, "f"
        ]);
        assert_eq!(ids(&Plan::settle(Some(&answer), "g", 32)), ["s2", "s3", "s4", "s1", "s5", "s6"]);
    }

    #[test]
    fn a_long_plan_is_cut_and_the_rest_is_named() {
        let items: Vec<_> = (0..10_000).map(|n| json!(format!("task {n}"))).collect();
        let plan = Plan::settle(Some(&Value::Array(items)), "g", 32);
        assert_eq!(plan.subgoals.len(), 32);
        assert_eq!(plan.dropped.len(), DROPPED_NAMED + 1);
        assert_eq!(plan.dropped[DROPPED_NAMED], "and 9948 more");
    }
}
