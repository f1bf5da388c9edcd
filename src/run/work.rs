//! Results of work: subgoals, checks, reviews, usage and feedback.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::evidence::{CheckResult, Verification};
use super::id::{Oid, SubgoalId};
pub use super::plan::{Plan, Subgoal};
use super::text::clip;
pub use super::text::one_line;
use super::timestamp::Timestamp;

/// Longest output of a failing check in the feedback, in bytes; the log holds more.
const FEEDBACK_OUTPUT: usize = 8 * 1024;

/// The result of a subgoal in one iteration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// Id of the subgoal.
    pub id: SubgoalId,
    /// True if an attempt succeeded.
    pub ok: bool,
    /// Reason why the last attempt failed.
    pub error: Option<String>,
    /// Number of attempts.
    pub attempts: u32,
    /// Commit of its work, if that is not in the run's tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmerged: Option<Oid>,
    /// Report of the worker.
    #[serde(skip)]
    pub output: String,
}

/// A reviewer's verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// True if the quality gates hold.
    pub gates_passed: bool,
    /// True if the goal is reached.
    pub goal_complete: bool,
    /// Faults that the reviewer found.
    pub issues: Vec<String>,
    /// Remarks: files that checks changed, and files that the reviewer changed and that were restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl Review {
    /// Reads a reviewer's JSON. An answer that cannot be read is a rejection, with the reason as its issue.
    #[must_use]
    pub fn settle(answer: Option<&Value>) -> Self {
        let Some(fields) = answer.and_then(Value::as_object) else {
            return Self::rejection("the review was not a JSON object with gates_passed, goal_complete and issues");
        };
        let mut issues = match fields.get("issues") {
            Some(Value::Array(items)) => items.iter().filter_map(issue_text).collect(),
            Some(Value::String(text)) if !text.trim().is_empty() => vec![text.trim().to_owned()],
            _ => Vec::new(),
        };
        let mut flag = |key: &str| {
            fields.get(key).and_then(as_bool).unwrap_or_else(|| {
                issues.push(format!("the review did not say whether {key}"));
                false
            })
        };
        let (gates_passed, goal_complete) = (flag("gates_passed"), flag("goal_complete"));
        Self { gates_passed, goal_complete, issues, remarks: Vec::new() }
    }

    /// Returns whether a reviewer's JSON has at least one field of a review.
    #[must_use]
    pub fn is_answer(answer: Option<&Value>) -> bool {
        let keys = ["gates_passed", "goal_complete", "issues"];
        answer.is_some_and(|answer| keys.iter().any(|key| answer.get(*key).is_some()))
    }

    /// Returns a rejection with the given reason.
    #[must_use]
    fn rejection(issue: impl Into<String>) -> Self {
        Self { issues: vec![issue.into()], ..Self::default() }
    }

    /// Returns whether the reviewer accepts the goal as reached.
    #[must_use]
    pub fn accepts(&self) -> bool {
        self.gates_passed && self.goal_complete
    }
}

/// Reads a boolean, which models may write as a word; `None` for any other value.
fn as_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" => Some(true),
            "false" | "no" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn issue_text(item: &Value) -> Option<String> {
    let text = match item {
        Value::String(text) => text.trim().to_owned(),
        Value::Null => String::new(),
        Value::Object(fields) => ["issue", "description", "message", "text"]
            .iter()
            .find_map(|key| fields.get(*key)?.as_str())
            .map_or_else(|| item.to_string(), |text| text.trim().to_owned()),
        other => other.to_string(),
    };
    (!text.is_empty()).then_some(text)
}

/// Usage of agents as they report it. Unreported tokens are 0, unreported costs are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub tokens_in: u64,
    /// Tokens written.
    pub tokens_out: u64,
    /// Of the tokens read, those from a cache.
    pub tokens_cached: u64,
    /// US dollars, where known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

impl Usage {
    /// Returns the tokens in and out together.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens_in.saturating_add(self.tokens_out)
    }

    /// Adds another call's usage.
    pub fn add(&mut self, other: &Self) {
        self.tokens_in = self.tokens_in.saturating_add(other.tokens_in);
        self.tokens_out = self.tokens_out.saturating_add(other.tokens_out);
        self.tokens_cached = self.tokens_cached.saturating_add(other.tokens_cached);
        if let Some(cost) = other.cost_usd.filter(|cost| cost.is_finite() && *cost >= 0.0) {
            self.cost_usd = Some((self.cost_usd.unwrap_or(0.0) + cost).min(f64::MAX));
        }
    }
}

/// Longest time until a limit's reset that is believed, in seconds: services have limits of a month.
const FARTHEST_RESET: f64 = 35.0 * 86_400.0;

/// Returns whether `reset` may be the reset of a limit: after `now`, and not absurdly far.
#[must_use]
pub fn is_believable_reset(reset: Timestamp, now: Timestamp) -> bool {
    reset > now && reset.since(now) <= FARTHEST_RESET
}

/// The kind of an agent call's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program is not installed.
    NotInstalled,
    /// It has no login, or its key is refused.
    NotLoggedIn,
    /// It does not know the model.
    UnknownModel,
    /// A usage limit is reached.
    RateLimited,
    /// The service is overloaded.
    Overloaded,
    /// The service cannot be reached.
    Network,
    /// It exceeded its time limit.
    Timeout,
    /// It was refused a permission that it needed.
    PermissionDenied,
    /// Its answer is empty.
    Empty,
    /// Its answer has not the promised form.
    Protocol,
    /// It failed without an explanation.
    Crashed,
    /// The driver stopped it.
    Cancelled,
}

impl FailureKind {
    /// Returns whether no retry can help before a person acts.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::NotInstalled | Self::NotLoggedIn | Self::UnknownModel)
    }

    /// Returns whether the failure is the service's and passes by itself.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded | Self::Network)
    }
}

/// A failed agent call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// Kind of the failure.
    pub kind: FailureKind,
    /// Message of the agent or service.
    pub message: String,
    /// Advice to the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Time at which the limit resets according to the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<Timestamp>,
    /// Time of a retry that does not count as an attempt; `None` without a retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Usage of the call before it failed; the record holds it beside the failure.
    #[serde(skip)]
    pub spent: Option<Box<Usage>>,
}

impl Failure {
    /// Returns a failure with its message.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, reset_at: None, retry_at: None, spent: None }
    }

    /// Returns whether the failure counts as one of the attempt: a usage limit, a cancellation or a missing login does not.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.retry_at.is_none() && !self.kind.is_permanent() && self.kind != FailureKind::Cancelled
    }

    /// Adds the usage of the call before it failed, if any.
    #[must_use]
    pub fn after(mut self, usage: Usage) -> Self {
        self.spent = (usage != Usage::default()).then(|| Box::new(usage));
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// Writes the workers' reports for the reviewer and the final report: `### id: description` sections in plan order.
#[must_use]
pub fn aggregate(subgoals: &[Subgoal], results: &[TaskResult]) -> String {
    let mut text = String::new();
    for subgoal in subgoals {
        let _ = write!(text, "### {}: {}\n\n", subgoal.id, subgoal.description);
        match results.iter().find(|result| result.id == subgoal.id) {
            Some(result) if result.ok => text.push_str(result.output.trim_end()),
            Some(result) => {
                let error = result.error.as_deref().unwrap_or("no attempt was made");
                let _ = write!(text, "FAILED after {} attempts: {error}", result.attempts);
            }
            None => text.push_str("FAILED: no attempt was made"),
        }
        text.push_str("\n\n");
    }
    text.trim_end().to_owned()
}

/// Writes the feedback for the next plan: failed subgoals, the reviewer's issues, failing checks, gates.
#[must_use]
pub fn feedback(plan: &Plan, results: &[TaskResult], verification: &Verification, review: &Review) -> String {
    let mut lines = Vec::new();
    for result in results.iter().filter(|result| !result.ok) {
        let error = result.error.as_deref().unwrap_or("no attempt was made");
        lines.push(format!("Subgoal {} failed after {} attempts: {error}", result.id, result.attempts));
        if let Some(commit) = &result.unmerged {
            lines.push(format!("What {} left is kept, not merged, as commit {commit}", result.id));
        }
    }
    if !plan.dropped.is_empty() {
        lines.push(format!("The plan was too long; these subgoals were left out:\n  {}", plan.dropped.join("\n  ")));
    }
    for check in verification.checks.iter().filter(|check| !check.ok) {
        let output = clip(&check.output(), FEEDBACK_OUTPUT);
        lines.push(format!("Check `{}` failed: {}\n{}", check.name, check.ended(), output));
    }
    lines.extend(verification.remarks.iter().map(|remark| format!("Note: {remark}")));
    if !review.gates_passed {
        lines.push("The reviewer's gates are not passed.".to_owned());
    }
    lines.extend(review.issues.iter().map(|issue| format!("Reviewer: {issue}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_review_must_say_yes_to_be_a_yes() {
        assert!(Review::settle(Some(&json!({"gates_passed": "yes", "goal_complete": true}))).accepts());
        for answer in [
            None,
            Some(json!([])),
            Some(json!({"goal_complete": true})),
            Some(json!({"gates_passed": 1, "goal_complete": true})),
            Some(json!({"gates_passed": "false", "goal_complete": "true", "issues": [""]})),
        ] {
            assert!(!Review::settle(answer.as_ref()).accepts(), "{answer:?}");
        }
        assert_eq!(
            Review::settle(Some(&json!({"issues": [{"issue": "a"}, "b", 3, null]}))).issues,
            [
                "a",
                "b",
                "3",
                "the review did not say whether gates_passed",
                "the review did not say whether goal_complete"
            ]
        );
    }
}
