//! Makes the reply to a call from a view or an error.

use std::collections::BTreeSet;

use rmcp::model::{CallToolResponse, CallToolResult, ContentBlock};
use serde::Serialize;

use crate::error::{Context as _, Error, Result};
use crate::run::sanitize;

/// Verbs that hints name, and the tools for the same purpose.
const VERBS: [(&str, &str); 12] = [
    ("run", "orchestrate"),
    ("answer", "orchestrate_resume"),
    ("resume", "orchestrate_continue"),
    ("status", "orchestrate_status"),
    ("tail", "orchestrate_tail"),
    ("result", "orchestrate_result"),
    ("list", "orchestrate_list"),
    ("steer", "orchestrate_steer"),
    ("cancel", "orchestrate_cancel"),
    ("output", "orchestrate_output"),
    ("backends", "list_backends"),
    ("doctor", "doctor"),
];

/// Makes a response from a view: structured, and as text.
pub fn view(view: &impl Serialize) -> Result<CallToolResponse> {
    Ok(structured(view)?.into())
}

/// Makes a result from a view: structured, and as text.
pub fn structured(view: &impl Serialize) -> Result<CallToolResult> {
    let cannot = "the answer cannot be written as JSON";
    // The text keeps the order of the view's fields, the most important first.
    let text = sanitize::json(serde_json::to_string(view).context(cannot)?);
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    result.structured_content = Some(serde_json::to_value(view).context(cannot)?);
    Ok(result)
}

/// Makes a result from an error, for the caller to read.
pub fn failed(error: &Error) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(sanitize::lines(&report(error)))])
}

/// Formats an error, with the tools that correspond to the verbs in its hint.
pub fn report(error: &Error) -> String {
    let report = error.report();
    let named = report.split("git agentloop ").skip(1).filter_map(|rest| {
        let word = rest.split(|character: char| !character.is_ascii_lowercase()).next()?;
        VERBS.iter().find(|(verb, _)| *verb == word)
    });
    let tools: BTreeSet<String> =
        named.map(|(verb, tool)| format!("{tool} does what 'git agentloop {verb}' does")).collect();
    if tools.is_empty() {
        return report;
    }
    let tools: Vec<String> = tools.into_iter().collect();
    format!("{report}\ntools: {}", tools.join("; "))
}
