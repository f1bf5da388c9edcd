//! The meaning of a failed call, from the status of its service and from its words.

use std::time::SystemTime;

use jiff::tz::TimeZone;

use super::reset;
use crate::run::event::{Timestamp, clip};
use crate::run::work::{Failure, FailureKind};

/// Longest excerpt of an agent's output in a failure, in bytes.
pub(super) const EXCERPT: usize = 2 << 10;

/// Words that tell how a call failed, most telling first; all of a row's must occur. They were seen in the answers of
/// the agents under `tests/captures`, or are those of the errors of Node.js that they pass on (`errno(3)` names).
const WORDS: [(FailureKind, &[&str]); 49] = [
    (FailureKind::NotLoggedIn, &["not logged in"]),
    (FailureKind::NotLoggedIn, &["please run /login"]),
    (FailureKind::NotLoggedIn, &["invalid api key"]),
    (FailureKind::NotLoggedIn, &["incorrect api key"]),
    (FailureKind::NotLoggedIn, &["no api key"]),
    (FailureKind::NotLoggedIn, &["no authentication"]),
    (FailureKind::NotLoggedIn, &["missing environment variable"]),
    (FailureKind::NotLoggedIn, &["authenticationerror"]),
    (FailureKind::NotLoggedIn, &["authentication failed"]),
    (FailureKind::NotLoggedIn, &["authentication_error"]),
    (FailureKind::NotLoggedIn, &["oauth token"]),
    (FailureKind::NotLoggedIn, &["set an auth method"]),
    (FailureKind::NotLoggedIn, &["credit balance is too low"]),
    // Claude Code: "You're out of usage credits · resets Dec 4", and without a reset where only money helps.
    (FailureKind::RateLimited, &["out of usage credits", "resets"]),
    (FailureKind::NotLoggedIn, &["out of usage credits"]),
    // Codex: "Your workspace is out of credits.", "Quota exceeded. Check your plan and billing details."
    (FailureKind::NotLoggedIn, &["out of credits"]),
    (FailureKind::NotLoggedIn, &["quota exceeded. check your plan"]),
    // OpenAI's API says so of a spent account, and Gemini's of a limit.
    (FailureKind::NotLoggedIn, &["insufficient_quota"]),
    (FailureKind::RateLimited, &["exceeded your current quota", "retry"]),
    (FailureKind::NotLoggedIn, &["exceeded your current quota"]),
    (FailureKind::UnknownModel, &["issue with the selected model"]),
    (FailureKind::UnknownModel, &["model", "does not exist"]),
    (FailureKind::UnknownModel, &["model", "not found"]),
    (FailureKind::UnknownModel, &["unknown model"]),
    (FailureKind::RateLimited, &["rate limit"]),
    (FailureKind::RateLimited, &["rate_limit"]),
    (FailureKind::RateLimited, &["ratelimiterror"]),
    (FailureKind::RateLimited, &["usage limit"]),
    // "You've hit your session limit · resets 8pm (Europe/Berlin)", "weekly limit", "Opus limit", "monthly spend limit".
    (FailureKind::RateLimited, &["hit your", "limit"]),
    (FailureKind::RateLimited, &["monthly spend limit"]),
    (FailureKind::RateLimited, &["spending cap reached"]),
    (FailureKind::RateLimited, &["limit reached"]),
    // Z.ai: "Weekly/Monthly Limit Exhausted"; Gemini: "You have exhausted your capacity|daily quota on this model."
    (FailureKind::RateLimited, &["limit exhausted"]),
    (FailureKind::RateLimited, &["exhausted your"]),
    (FailureKind::RateLimited, &["resource_exhausted"]),
    // Copilot: "your request was rate-limited"; opencode: "Free usage exceeded, subscribe to Go".
    (FailureKind::RateLimited, &["rate-limited"]),
    (FailureKind::RateLimited, &["free usage exceeded"]),
    (FailureKind::RateLimited, &["too many requests"]),
    (FailureKind::Overloaded, &["overloaded"]),
    (FailureKind::Overloaded, &["at capacity"]),
    (FailureKind::Network, &["request timed out"]),
    (FailureKind::Network, &["connection"]),
    (FailureKind::Network, &["unable to connect"]),
    (FailureKind::Network, &["econn"]),
    (FailureKind::Network, &["enotfound"]),
    (FailureKind::Network, &["fetch failed"]),
    (FailureKind::Network, &["stream disconnected"]),
    (FailureKind::Network, &["stream closed"]),
    (FailureKind::Network, &["empty or malformed response"]),
];

/// Returns the kind of failure of a call whose service answered with this HTTP status, and whose agent printed `words`.
///
/// 529 is what Anthropic's API says when it is overloaded (its documentation, "Errors"); the rest is RFC 9110.
pub(super) fn kind(status: Option<u64>, words: &str) -> FailureKind {
    match status {
        Some(401..=403) => FailureKind::NotLoggedIn,
        Some(404) => FailureKind::UnknownModel,
        Some(408) => FailureKind::Network,
        Some(429) => FailureKind::RateLimited,
        Some(500..=599) => FailureKind::Overloaded,
        _ => {
            let words = words.to_lowercase();
            let known = WORDS.iter().find(|(_, all)| all.iter().all(|word| words.contains(word)));
            known.map_or(FailureKind::Crashed, |(kind, _)| *kind)
        }
    }
}

/// Returns the failure of a call whose service answered with this HTTP status, and whose agent printed `words`.
pub(super) fn failure(status: Option<u64>, words: &str) -> Failure {
    let kind = kind(status, words);
    let mut failure = Failure::new(kind, clip(words.trim(), EXCERPT));
    failure.reset_at = reset(kind, words);
    failure
}

/// Reads when the limit resets that a call has met, in this machine's zone where the words name none.
pub(super) fn reset(kind: FailureKind, words: &str) -> Option<Timestamp> {
    (kind == FailureKind::RateLimited).then(|| reset::read(words, now(), &TimeZone::system())).flatten()
}

/// The time.
pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Seconds since the Unix epoch as a moment, where they are of this century.
pub(super) fn epoch(seconds: u32) -> Option<Timestamp> {
    (seconds > 946_684_800).then(|| Timestamp(0).plus(f64::from(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_speaks_before_the_words() {
        for (status, words, expected) in [
            (Some(401), "overloaded", FailureKind::NotLoggedIn),
            (Some(404), "", FailureKind::UnknownModel),
            (Some(429), "", FailureKind::RateLimited),
            (Some(529), "", FailureKind::Overloaded),
            (Some(400), "stub error", FailureKind::Crashed),
            (Some(400), "The model x does not exist", FailureKind::UnknownModel),
            (None, "Not logged in · Please run /login", FailureKind::NotLoggedIn),
            (None, "You've hit your session limit · resets 8pm (America/Indianapolis)", FailureKind::RateLimited),
            (None, "You've hit your weekly limit · resets Dec 3, 5pm (UTC)", FailureKind::RateLimited),
            (None, "Spending cap reached resets 6pm", FailureKind::RateLimited),
            (None, "You're out of usage credits · resets Dec 4", FailureKind::RateLimited),
            (None, "You're out of usage credits", FailureKind::NotLoggedIn),
            (None, "Your workspace is out of credits. Add credits to continue.", FailureKind::NotLoggedIn),
            (None, "You exceeded your current quota. Please retry in 41.5s.", FailureKind::RateLimited),
            (None, "You exceeded your current quota, please check your plan", FailureKind::NotLoggedIn),
            (None, "You have exhausted your daily quota on this model.", FailureKind::RateLimited),
            (
                None,
                "Weekly/Monthly Limit Exhausted. Your limit resets at 2026-08-14T00:00:00Z",
                FailureKind::RateLimited,
            ),
            (Some(400), "You have reached your specified API usage limits.", FailureKind::RateLimited),
            (None, "connect ECONNREFUSED 127.0.0.1:1", FailureKind::Network),
            (None, "out of cheese", FailureKind::Crashed),
        ] {
            assert_eq!(kind(status, words), expected, "{status:?} {words}");
        }
    }

    #[test]
    fn only_a_limit_resets() {
        let reset = |words: &str| failure(None, words).reset_at;
        assert!(reset("You've hit your session limit · resets in 2h").is_some());
        assert!(reset("You've hit your session limit").is_none());
        assert!(reset("connect ECONNREFUSED; try again in 2h").is_none());
    }
}
