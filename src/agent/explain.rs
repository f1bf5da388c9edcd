//! What a failed call means, from the status of its service and from its words.

use crate::run::event::{Timestamp, clip};
use crate::run::work::{Failure, FailureKind};

/// How much of what an agent said goes into a failure, in bytes.
pub(super) const SAID: usize = 2 << 10;

/// Words that tell how a call failed, most telling first; all of a row's must occur. They were seen in the answers of
/// the agents under `tests/captures`, or are those of the errors of Node.js that they pass on (`errno(3)` names).
const WORDS: [(FailureKind, &[&str]); 37] = [
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

/// How a call failed whose service answered with this HTTP status, and whose agent said `words`.
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

/// The failure of a call whose service answered with this HTTP status, and whose agent said `words`.
pub(super) fn failure(status: Option<u64>, words: &str) -> Failure {
    let kind = kind(status, words);
    let mut failure = Failure::new(kind, clip(words.trim(), SAID));
    if kind == FailureKind::RateLimited {
        failure.reset_at = reset(words);
    }
    failure
}

/// When a limit resets, where the words end in it: `usage limit reached|1790000000`, seconds since the Unix epoch.
fn reset(words: &str) -> Option<Timestamp> {
    let (_, after) = words.rsplit_once('|')?;
    let digits: String = after.trim().chars().take_while(char::is_ascii_digit).collect();
    epoch(digits.parse().ok()?)
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
            (None, "connect ECONNREFUSED 127.0.0.1:1", FailureKind::Network),
            (None, "out of cheese", FailureKind::Crashed),
        ] {
            assert_eq!(kind(status, words), expected, "{status:?} {words}");
        }
    }

    #[test]
    fn a_reset_is_read_where_it_is_told() {
        assert_eq!(reset("Claude AI usage limit reached|1790000000"), Some(Timestamp(1_790_000_000_000)));
        assert_eq!(reset("a|b"), None);
        assert_eq!(reset("limit reached|12"), None);
        assert_eq!(reset("|99999999999999999999"), None);
    }
}
