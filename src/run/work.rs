//! The values that work leaves behind: subgoals and what became of them, checks, reviews, usage, feedback.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use super::evidence::{CheckResult, Verification};
use super::id::{Oid, SubgoalId};
pub use super::plan::{Plan, Subgoal};
use super::text::clip;
pub use super::text::one_line;
use super::timestamp::Timestamp;

/// How much of a red check's output the feedback carries, in bytes; the log holds more.
const FEEDBACK_OUTPUT: usize = 8 * 1024;

/// What one subgoal came to in one iteration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The subgoal's id.
    pub id: SubgoalId,
    /// Whether an attempt succeeded.
    pub ok: bool,
    /// Why the last attempt failed.
    pub error: Option<String>,
    /// Attempts made.
    pub attempts: u32,
    /// The commit that holds its work, where that is not in the run's tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmerged: Option<Oid>,
    /// What the worker reported.
    #[serde(skip)]
    pub output: String,
}

/// A reviewer's verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Review {
    /// Whether the quality gates hold.
    pub gates_passed: bool,
    /// Whether the goal is reached.
    pub goal_complete: bool,
    /// What is wrong or missing.
    pub issues: Vec<String>,
    /// What was noticed: files that checks changed, and those that the reviewer changed and that were taken back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

impl Review {
    /// Settles a reviewer's JSON. What cannot be read is a rejection with that as its issue: silence is not consent.
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
            fields.get(key).and_then(truth).unwrap_or_else(|| {
                issues.push(format!("the review did not say whether {key}"));
                false
            })
        };
        let (gates_passed, goal_complete) = (flag("gates_passed"), flag("goal_complete"));
        Self { gates_passed, goal_complete, issues, remarks: Vec::new() }
    }

    /// Whether a reviewer's JSON is a review at all, whole or not.
    #[must_use]
    pub fn is_answer(answer: Option<&Value>) -> bool {
        let keys = ["gates_passed", "goal_complete", "issues"];
        answer.is_some_and(|answer| keys.iter().any(|key| answer.get(*key).is_some()))
    }

    /// A review that accepts nothing, for the reason given.
    #[must_use]
    fn rejection(issue: impl Into<String>) -> Self {
        Self { issues: vec![issue.into()], ..Self::default() }
    }

    /// Whether the reviewer accepts the goal as reached.
    #[must_use]
    pub fn accepts(&self) -> bool {
        self.gates_passed && self.goal_complete
    }
}

/// Models write booleans as words; anything but a clear yes or no is neither.
fn truth(value: &Value) -> Option<bool> {
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

/// What agents used, as they report it. What was not reported is 0, and for cost nothing.
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
    /// Tokens in and out together.
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

/// The farthest reset of a limit that is believed, in seconds: services have limits of a month.
const FARTHEST_RESET: f64 = 35.0 * 86_400.0;

/// Whether a limit may reset then: after `now`, and not absurdly far.
#[must_use]
pub fn is_believable_reset(reset: Timestamp, now: Timestamp) -> bool {
    reset > now && reset.since(now) <= FARTHEST_RESET
}

/// How an agent call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The program is not there.
    NotInstalled,
    /// It has no login or a key that is refused.
    NotLoggedIn,
    /// It does not know the model.
    UnknownModel,
    /// A usage limit.
    RateLimited,
    /// The service is overloaded.
    Overloaded,
    /// The service cannot be reached.
    Network,
    /// It took longer than it may.
    Timeout,
    /// It was refused a permission that it needed.
    PermissionDenied,
    /// It answered nothing.
    Empty,
    /// Its answer is not in the form it promises.
    Protocol,
    /// It failed in a way that it did not explain.
    Crashed,
    /// We stopped it.
    Cancelled,
}

impl FailureKind {
    /// Whether trying again cannot help before a person acts.
    #[must_use]
    pub fn is_permanent(self) -> bool {
        matches!(self, Self::NotInstalled | Self::NotLoggedIn | Self::UnknownModel)
    }

    /// Whether the failure is the service's and passes by itself.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::RateLimited | Self::Overloaded | Self::Network)
    }
}

/// A failed agent call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// How it failed.
    pub kind: FailureKind,
    /// What it said.
    pub message: String,
    /// What a person can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When the service says that its limit resets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_at: Option<Timestamp>,
    /// When the call is made again without counting as a retry; absent where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// What the call used before it failed; on record it stands beside the failure, not in it.
    #[serde(skip)]
    pub spent: Option<Box<Usage>>,
}

impl Failure {
    /// A failure with the words that explain it.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, reset_at: None, retry_at: None, spent: None }
    }

    /// Whether it says anything about the attempt: neither a limit, nor a stop, nor a missing login does.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.retry_at.is_none() && !self.kind.is_permanent() && self.kind != FailureKind::Cancelled
    }

    /// Adds what the call used before it failed, where that is anything.
    #[must_use]
    pub fn after(mut self, usage: Usage) -> Self {
        self.spent = (usage != Usage::default()).then(|| Box::new(usage));
        self
    }

    /// Adds what a person can do.
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

/// What the reviewer and the final report read: `### id: description` sections in plan order.
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

/// What the next plan must know of this iteration: failed subgoals, the reviewer's issues, red checks, gates.
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
