use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;

const BERLIN: &str = "Europe/Berlin";
const NEW_YORK: &str = "America/New_York";

/// Texts of limits: the words, when and where they are read, and the moment that they name; "" where none is believed.
///
/// Each group names its source. Repositories are GitHub's; "strings" are those of the installed program.
#[rustfmt::skip] // a row is a line
const TEXTS: &[(&str, &str, &str, &str)] = &[
    // Claude Code 2.1.330, strings: "You've hit your ${limit}${ · resets …}", the time as "3pm" or "3:30pm" where it is less
    // than 24 hours ahead, else as "Dec 4, 9am", with a year where it is another, and with the machine's zone.
    // anthropics/claude-code issues 79136, 54698, 77082, 21111.
    ("You've hit your session limit · resets 10:30pm (Europe/Berlin)", "2026-07-19T16:00Z", BERLIN, "2026-07-19T20:30Z"),
    ("You've hit your limit · resets 1:30am (Asia/Dhaka)", "2026-04-29T15:00Z", BERLIN, "2026-04-29T19:30Z"),
    ("You've hit your session limit · resets 8:30pm (Asia/Tokyo)", "2026-07-13T07:00Z", "UTC", "2026-07-13T11:30Z"),
    ("You've hit your limit · resets 2am (Europe/Berlin)", "2026-01-26T22:30Z", NEW_YORK, "2026-01-27T01:00Z"),
    ("You've hit your session limit · resets 8pm (America/Indianapolis)", "2026-12-01T12:00Z", BERLIN, "2026-12-02T01:00Z"),
    ("You've hit your session limit · resets 12:50am (America/Los_Angeles)", "2026-07-04T07:20Z", BERLIN, "2026-07-04T07:50Z"),
    ("You've hit your session limit · resets 11:50pm (Asia/Riyadh) · progress saved", "2026-07-11T16:00Z", "UTC", "2026-07-11T20:50Z"),
    ("You've hit your weekly limit · resets Dec 3, 5pm (UTC)", "2026-11-30T12:00Z", BERLIN, "2026-12-03T17:00Z"),
    ("You've hit your Opus limit · resets Dec 4 at 9am", "2026-11-30T12:00Z", BERLIN, "2026-12-04T08:00Z"),
    ("You've hit your weekly limit · resets Jan 2, 2027, 9:15am (America/New_York)", "2026-12-30T12:00Z", BERLIN, "2027-01-02T14:15Z"),
    ("You've hit your weekly limit · resets Jan 2, 9am", "2026-12-30T12:00Z", NEW_YORK, "2027-01-02T14:00Z"),
    ("You've hit your monthly spend limit · your session limit resets 8pm (UTC)", "2026-12-01T12:00Z", BERLIN, "2026-12-01T20:00Z"),
    ("You've hit your group's spend limit · resets Jan 1, 12am (UTC) · your session limit resets 8pm (UTC)", "2026-12-20T12:00Z", BERLIN, "2026-12-20T20:00Z"),
    ("You've hit your org's shared limit. It resets 3pm.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T14:00Z"),
    ("You're out of usage credits · resets Dec 4, 5pm (Etc/GMT+5)", "2026-11-30T12:00Z", BERLIN, "2026-12-04T22:00Z"),
    ("API Error: 429 spend limit reached · resets Dec 4", "2026-11-30T12:00Z", "UTC", "2026-12-04T00:00Z"),
    // Older versions: issues 10333, 2087, 8620, 9236, 11429, 15064, 80062.
    ("Opus weekly limit reached ∙ resets Oct 31, 9am", "2025-10-25T12:00Z", NEW_YORK, "2025-10-31T13:00Z"),
    ("Opus weekly limit reached ∙ resets Oct 24", "2025-10-20T12:00Z", "UTC", "2025-10-24T00:00Z"),
    ("5-hour limit reached ∙ resets 3pm", "2025-10-25T12:30Z", NEW_YORK, "2025-10-25T19:00Z"),
    ("Spending cap reached resets 6pm", "2026-11-30T12:00Z", BERLIN, "2026-11-30T17:00Z"),
    ("Claude usage limit reached. Your limit will reset at 1pm (Etc/GMT+5).", "2025-06-14T16:57Z", BERLIN, "2025-06-14T18:00Z"),
    ("Claude usage limit reached. Your limit will reset at Oct 7, 1am.", "2025-10-01T12:00Z", BERLIN, "2025-10-06T23:00Z"),
    ("Claude usage limit reached. Your limit will reset \n     at 3pm (America/Santiago).", "2025-10-09T12:00Z", "UTC", "2025-10-09T18:00Z"),
    ("You’ve hit your limit for Claude messages. Limits will reset at 9:30\u{202f}AM. View your usage", "2026-07-22T04:00Z", BERLIN, "2026-07-22T07:30Z"),
    ("Claude AI usage limit reached|1762952400", "2025-11-12T12:00Z", BERLIN, "2025-11-12T13:00Z"),
    ("Claude AI usage limit reached and won't reset|1766502000", "2025-12-23T12:00Z", BERLIN, "2025-12-23T15:00Z"),
    ("Claude AI usage limit reached|1749924000", "2025-06-14T18:57Z", BERLIN, ""),
    // Anthropic's API: issues 2127 and 38035.
    ("You have reached your specified API usage limits. You will regain access on 2026-04-01 at 00:00 UTC.", "2026-03-23T23:08Z", NEW_YORK, "2026-04-01T00:00Z"),
    ("This request would exceed your account's rate limit. Please try again later.", "2026-03-23T23:08Z", BERLIN, ""),
    // Codex 0.169.0, strings: "%-I:%M %p" and "%b %-d" + "th" + ", %Y %-I:%M %p", in local time. openai/codex issues 26668, 3899,
    // 3124, 3257, 4104 (before 0.50: spans), 28089 (the app, in the language of its user).
    ("You've hit your usage limit. Upgrade to Pro (https://chatgpt.com/explore/pro) or try again at 11:27 PM.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T22:27Z"),
    ("You've hit your usage limit. Visit https://chatgpt.com/settings/usage to purchase more credits or try again at 12:05 AM.", "2026-12-01T20:00Z", BERLIN, "2026-12-01T23:05Z"),
    ("You've hit your usage limit. Upgrade to Plus (https://chatgpt.com/explore/plus), or try again at Jul 5th, 2026 8:19 PM.", "2026-06-05T12:00Z", NEW_YORK, "2026-07-06T00:19Z"),
    ("You've hit your usage limit for GPT-6. Try again at Dec 4th, 2026 1:05 PM.", "2026-12-01T12:00Z", "UTC", "2026-12-04T13:05Z"),
    ("You've hit your usage limit. Upgrade to Pro or try again in 5 days 22 hours 11 minutes.", "2025-09-19T00:00Z", BERLIN, "2025-09-24T22:11Z"),
    ("You've hit your usage limit. Try again in 3 hours 12 minutes.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T15:12Z"),
    ("try again in 1 minute.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:01Z"),
    ("You've hit your usage limit. Upgrade to Pro or try again later.", "2026-12-01T12:00Z", BERLIN, ""),
    ("You've hit your usage limit. Upgrade your plan, or try again at 10 de jul. de 2026, 11:52.", "2026-06-13T15:00Z", BERLIN, ""),
    // The service behind it: earendil-works/pi issue 4172.
    (r#"{"type":"usage_limit_reached","resets_at":1777936568,"eligible_promo":null,"resets_in_seconds":13872}"#, "2026-05-04T19:24:56Z", BERLIN, "2026-05-04T23:16:08Z"),
    (r#"{"type":"usage_limit_reached","resets_in_seconds":602705}"#, "2026-03-28T12:00Z", BERLIN, "2026-04-04T11:25:05Z"),
    // OpenAI's and Groq's APIs: codex strings `try again in\s*(\d+(?:\.\d+)?)\s*(s|ms|seconds?)`; continuedev/continue issues
    // 10920 and 11580, groq's elizaOS/eliza issue 4040.
    ("Rate limit reached for gpt-6 on tokens per min (TPM): Limit 30000, Used 29000. Please try again in 1.898s. Visit", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:00:01.898Z"),
    ("Rate limit reached. Please try again in 28ms.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:00:00.028Z"),
    ("tokens per day (TPD): Limit 100000, Used 97050. Please try again in 9m38.016s. Need more tokens?", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:09:38.016Z"),
    // Gemini CLI 0.61.0, strings: "Please retry in ", "Suggested retry after "; google-gemini/gemini-cli issues 13004, 22107, 15576.
    ("You have exhausted your capacity on this model. Your quota will reset after 8h44m7s.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T20:44:07Z"),
    ("Attempt 1 failed: You have exhausted your capacity on this model. Your quota will reset after 5s.. Retrying after 6173ms...", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:00:05Z"),
    ("You have exhausted your capacity on this model. Your quota will reset after 0s.", "2026-12-01T12:00Z", BERLIN, ""),
    ("You exceeded your current quota. Please retry in 41.5s.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:00:41.500Z"),
    ("Quota exceeded\nSuggested retry after 60s.", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:01Z"),
    (r#""@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "35s""#, "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:00:35Z"),
    ("You have exhausted your daily quota on this model.", "2026-12-01T12:00Z", BERLIN, ""),
    // GitHub Copilot: github/copilot-cli issues 2336, 2696, 2754, 2828 and microsoft/vscode-copilot-release issue 6479.
    ("Sorry, you've hit a rate limit. Please try again in 2 hours. Please review our Terms", "2026-12-01T12:00Z", BERLIN, "2026-12-01T14:00Z"),
    ("Please try again in 15 hours 23 minutes. Please review our Terms", "2026-12-01T12:00Z", BERLIN, "2026-12-02T03:23Z"),
    ("You've reached your weekly rate limit. Please wait for your limit to reset on April 20, 2026 at 2:00 AM or switch", "2026-04-18T12:00Z", BERLIN, "2026-04-20T00:00Z"),
    ("Sorry, your request was rate-limited. Please wait 587 hours 33 minutes before trying again.", "2025-03-13T00:00Z", BERLIN, "2025-04-06T11:33Z"),
    // opencode 1.18.33, strings: "It will reset in ${span}", where a span may be "less than a minute".
    ("5-hour usage limit reached. It will reset in 3 hours 12 minutes. To continue using this model now", "2026-12-01T12:00Z", BERLIN, "2026-12-01T15:12Z"),
    ("Usage limit reached. It will reset in less than a minute. To continue", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:01Z"),
    // Z.ai: hugalafutro/model-hotel pull request 955 and LionSR/TeXRA pull request 9865.
    ("Usage limit reached for 5 hour. Your limit will reset at 2026-09-09 05:38:28", "2026-09-09T03:00Z", BERLIN, "2026-09-09T03:38:28Z"),
    ("Weekly/Monthly Limit Exhausted. Your limit resets at 2026-08-14T00:00:00Z", "2026-08-07T12:00Z", BERLIN, "2026-08-14T00:00Z"),
    // CodebuffAI/freebuff issue 1050; OpenRouter's header in an error's metadata.
    ("Come back in 3h 47m — your free usage resets automatically at midnight Pacific.", "2026-08-19T03:13Z", BERLIN, "2026-08-19T07:00Z"),
    (r#"{"X-RateLimit-Limit":"50","X-RateLimit-Reset":"1790000000000"}"#, "2026-09-21T12:00Z", BERLIN, "2026-09-21T14:13:20Z"),
    ("rate limited; retry-after: 30", "2026-12-01T12:00Z", BERLIN, "2026-12-01T12:00:30Z"),
    // Other ways to say it.
    ("resets in 2h 5m", "2026-12-01T12:00Z", BERLIN, "2026-12-01T14:05Z"),
    ("limit reached, resets in 1 day and 2 hours", "2026-12-01T12:00Z", BERLIN, "2026-12-02T14:00Z"),
    ("try again in an hour", "2026-12-01T12:00Z", BERLIN, "2026-12-01T13:00Z"),
    ("resets at 17:00", "2026-12-01T12:00Z", BERLIN, "2026-12-01T16:00Z"),
    ("resets at 5 p.m. on Dec 4", "2026-12-01T12:00Z", BERLIN, "2026-12-04T16:00Z"),
    ("resets tomorrow at noon", "2026-12-01T23:30Z", BERLIN, "2026-12-03T11:00Z"),
    ("resets Friday, 9am", "2026-12-01T12:00Z", BERLIN, "2026-12-04T08:00Z"),
    ("resets Friday, December 4th at 9am (CET)", "2026-12-01T12:00Z", NEW_YORK, "2026-12-04T08:00Z"),
    ("resets 4 December 2026 at 9:00", "2026-12-01T12:00Z", BERLIN, "2026-12-04T08:00Z"),
    ("resets at UTC midnight", "2026-12-01T12:00Z", NEW_YORK, "2026-12-02T00:00Z"),
    ("resets 3pm PST", "2026-12-01T12:00Z", BERLIN, "2026-12-01T23:00Z"),
    ("resets 3pm (UTC+5:30)", "2026-12-01T08:00Z", BERLIN, "2026-12-01T09:30Z"),
    ("resets 2026-12-01T15:00:00+02:00", "2026-12-01T12:00Z", NEW_YORK, "2026-12-01T13:00Z"),
    ("resets 3pm (in 2 hours)", "2026-12-01T12:00Z", BERLIN, "2026-12-01T14:00Z"),
    ("resets 3pm (local time)", "2026-12-01T12:00Z", BERLIN, "2026-12-01T14:00Z"),
    ("resets 3pm (Middle/Earth)", "2026-12-01T12:00Z", BERLIN, ""),
    ("resets 3pm (IST)", "2026-12-01T08:00Z", "Asia/Kolkata", "2026-12-01T09:30Z"),
    ("resets 3pm (IST)", "2026-12-01T08:00Z", BERLIN, ""),
    // Midnight, the month, the year.
    ("resets 12am", "2026-12-31T22:59Z", BERLIN, "2026-12-31T23:00Z"),
    ("resets 1am", "2026-11-30T22:30Z", "UTC", "2026-12-01T01:00Z"),
    ("resets Mar 1, 12:30am", "2028-02-29T20:00Z", "UTC", "2028-03-01T00:30Z"),
    ("resets Feb 29", "2028-02-20T20:00Z", "UTC", "2028-02-29T00:00Z"),
    ("resets Feb 29", "2027-02-20T20:00Z", "UTC", ""),
    // The hour that daylight saving skips, and the one that comes twice.
    ("resets 2:30am (Europe/Berlin)", "2026-03-29T00:30Z", "UTC", "2026-03-29T01:30Z"),
    ("resets Mar 8, 2:30am (America/New_York)", "2026-03-07T12:00Z", "UTC", "2026-03-08T07:30Z"),
    ("resets 3pm (Europe/Berlin)", "2026-03-28T22:00Z", "UTC", "2026-03-29T13:00Z"),
    ("resets 2:30am (Europe/Berlin)", "2026-10-25T00:10Z", "UTC", "2026-10-25T00:30Z"),
    ("resets 2:30am (Europe/Berlin)", "2026-10-25T00:31Z", "UTC", "2026-10-25T01:30Z"),
    ("resets 2:30am (Europe/Berlin)", "2026-10-25T01:45Z", "UTC", "2026-10-26T01:30Z"),
    ("resets 3am (Europe/Berlin)", "2026-10-25T00:10Z", "UTC", "2026-10-25T02:00Z"),
    // What was a moment ago is over; what was earlier today comes again tomorrow; what is long past, or far off, is not believed.
    ("resets 3pm", "2026-12-01T14:00:20Z", BERLIN, ""),
    ("resets 3pm", "2026-12-01T14:30Z", BERLIN, "2026-12-02T14:00Z"),
    ("resets Nov 28, 9am", "2026-12-01T12:00Z", BERLIN, ""),
    ("try again at Dec 4th, 2025 1:05 PM", "2026-12-01T12:00Z", BERLIN, ""),
    ("try again at Dec 4th, 2096 1:05 PM", "2026-12-01T12:00Z", BERLIN, ""),
    ("try again in 900 days", "2026-12-01T12:00Z", BERLIN, ""),
    ("usage limit reached|4102444800", "2026-12-01T12:00Z", BERLIN, ""),
    ("|99999999999999999999", "2026-12-01T12:00Z", BERLIN, ""),
    // No moment at all.
    ("", "2026-12-01T12:00Z", BERLIN, ""),
    ("a|b", "2026-12-01T12:00Z", BERLIN, ""),
    ("limit reached|12", "2026-12-01T12:00Z", BERLIN, ""),
    ("resets 25:00", "2026-12-01T12:00Z", BERLIN, ""),
    ("resets 13pm", "2026-12-01T12:00Z", BERLIN, ""),
    ("resets Dec 45", "2026-12-01T12:00Z", BERLIN, ""),
    ("resets soon", "2026-12-01T12:00Z", BERLIN, ""),
    ("please try again. 3 hours of work were lost", "2026-12-01T12:00Z", BERLIN, ""),
    ("Limit 30000, Used 29000, see 2026-12-04", "2026-12-01T12:00Z", BERLIN, ""),
];

fn moment(text: &str) -> Timestamp {
    let moment: Instant = if text.matches(':').count() == 1 { text.replace('Z', ":00Z") } else { text.to_owned() }
        .parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"));
    Timestamp(moment.as_millisecond())
}

#[test]
fn a_reset_is_read_from_what_agents_print() {
    assert!(TEXTS.len() > 60);
    let mut wrong = Vec::new();
    for (words, now, zone, expected) in TEXTS {
        let here = TimeZone::get(zone).unwrap();
        let read = read(words, moment(now), &here);
        if read != (!expected.is_empty()).then(|| moment(expected)) {
            let read = read.map(|read| Instant::from_millisecond(read.0).unwrap().to_string());
            wrong.push(format!("{words}\n  at {now} in {zone}: {read:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = moment("2026-12-01T12:00Z");
    for (value, expected) in [
        ("30", "2026-12-01T12:00:30Z"),
        (" 1.5 ", "2026-12-01T12:00:01.500Z"),
        ("Tue, 01 Dec 2026 13:05:09 GMT", "2026-12-01T13:05:09Z"),
        ("Tuesday, 01-Dec-26 13:05:09 GMT", "2026-12-01T13:05:09Z"),
        ("Tue Dec  1 13:05:09 2026", "2026-12-01T13:05:09Z"),
        ("Tue, 01 Dec 2026 11:05:09 GMT", ""),
        ("Sun, 06 Nov 1994 08:49:37 GMT", ""),
        ("Tue, 01 Dec 2099 13:05:09 GMT", ""),
        ("0", ""),
        ("-1", ""),
        ("NaN", ""),
        ("inf", ""),
        ("1e300", ""),
        ("99999999", ""),
        ("soon", ""),
        ("", ""),
    ] {
        assert_eq!(retry_after(value, now), (!expected.is_empty()).then(|| moment(expected)), "{value}");
    }
}

/// Words that look like a reset, in any order.
fn garbled() -> impl Strategy<Value = String> {
    let parts = TEXTS.iter().flat_map(|(words, ..)| words.split_inclusive([' ', ':', ',', '(', '·', '|']));
    let mut parts: Vec<String> = parts.map(ToOwned::to_owned).collect();
    parts.extend(
        [
            "resets ",
            "99999999999999999999",
            "99:99",
            "(",
            ")",
            "-",
            "+99:99 ",
            "25:00",
            "24:60 ",
            "Dec ",
            "\u{130}",
            "²",
            "٣pm",
        ]
        .map(Into::into),
    );
    let part = prop_oneof![2 => prop::sample::select(parts), 1 => Just("resets ".to_owned())];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn a_reset_is_ahead_and_not_far_whatever_the_words(
        words in prop_oneof![garbled(), any::<String>(), any::<String>().prop_map(|words| format!("resets {words}"))],
        now in prop_oneof![0_i64..4_102_444_800_000, any::<i64>()],
        zone in prop::sample::select(vec!["UTC", BERLIN, NEW_YORK, "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]),
    ) {
        let now = Timestamp(now);
        for reset in [read(&words, now, &TimeZone::get(zone).unwrap()), retry_after(&words, now)].into_iter().flatten() {
            prop_assert!(reset > now && reset.since(now) <= 35.0 * 86_400.0, "{reset:?}");
        }
    }

    #[test]
    fn a_time_of_day_is_met_at_that_time(
        hour in 1_u8..=12, minute in 0_u8..60, is_pm: bool, now in 1_700_000_000_000_i64..1_900_000_000_000,
        zone in prop::sample::select(vec!["UTC", "Asia/Kolkata", "America/Bogota", "Asia/Tokyo"]),
    ) {
        let here = TimeZone::get(zone).unwrap();
        let half = if is_pm { "pm" } else { "am" };
        let words = format!("You've hit your session limit · resets {hour}:{minute:02}{half} ({zone})");
        let met = read(&words, Timestamp(now), &TimeZone::UTC);
        let shown = met.map(|met| Instant::from_millisecond(met.0).unwrap().to_zoned(here).strftime("%-I:%M%P").to_string());
        let named = format!("{hour}:{minute:02}{half}");
        prop_assert!(shown.is_none_or(|shown| shown == named));
        prop_assert!(met.is_none_or(|met| met.since(Timestamp(now)) <= 86_400.0));
    }
}
