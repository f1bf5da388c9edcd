//! A turn: what the agent says, does and asks while it works, and how it ends.

use serde_json::{Value, json};

use super::{Conversation, EXCERPT, METHOD_NOT_FOUND, NAME, Stage, ToolCall};
use crate::agent::Response;
use crate::agent::acp::permission;
use crate::agent::story::Voice;
use crate::run::event::clip;
use crate::run::work::{Failure, FailureKind, Usage, one_line};

/// Bytes of an answer at most.
const ANSWER: usize = 4 << 20;
/// Uses of tools that are remembered.
const CALLS: usize = 1024;

/// Text of an agent since it last used a tool: its answer, if the turn ends there.
#[derive(Default)]
pub(super) struct Answer {
    text: String,
    is_cut: bool,
    /// True if a tool was used since, so that further text starts anew.
    is_over: bool,
}

impl Answer {
    fn push(&mut self, text: &str) {
        if self.is_over && !text.trim().is_empty() {
            *self = Self::default();
        }
        self.is_cut |= self.text.len() + text.len() > ANSWER;
        if !self.is_cut {
            self.text.push_str(text);
        }
    }
}

impl Conversation<'_> {
    /// It asks something, or tells what it does.
    pub(super) fn asked(&mut self, message: &Value) -> Vec<Value> {
        let params = &message["params"];
        // A session of another's, such as an agent's own helper, is not what we asked.
        let is_ours = self.session.is_none() || params["sessionId"].as_str() == self.session.as_deref();
        let Some(id) = message.get("id").filter(|id| !id.is_null()) else {
            if message["method"] == "session/update" && is_ours && self.outcome.is_none() {
                self.update(&params["update"]);
            }
            return Vec::new();
        };
        if message["method"] == "session/request_permission" {
            return vec![json!({"jsonrpc": "2.0", "id": id, "result": self.permit(params)})];
        }
        let method = message["method"].as_str().unwrap_or_default();
        let error = json!({"code": METHOD_NOT_FOUND, "message": format!("'{method}' is not offered here")});
        vec![json!({"jsonrpc": "2.0", "id": id, "error": error})]
    }

    fn update(&mut self, update: &Value) {
        match update["sessionUpdate"].as_str().unwrap_or_default() {
            "agent_message_chunk" => {
                let text = update["content"]["text"].as_str().unwrap_or_default();
                self.story.say(Voice::Answer, text);
                self.answer.push(text);
            }
            "agent_thought_chunk" => {
                self.story.say(Voice::Thought, update["content"]["text"].as_str().unwrap_or_default());
            }
            kind @ ("tool_call" | "tool_call_update") => {
                self.answer.is_over |= kind == "tool_call";
                self.uses(update);
            }
            "usage_update" if update["cost"]["currency"] == "USD" => {
                let amount = update["cost"]["amount"].as_f64();
                self.usage.cost_usd = amount.filter(|amount| amount.is_finite() && *amount >= 0.0);
            }
            _ => {}
        }
    }

    /// Takes down what it says of the use of a tool, and gives what is known of it now.
    fn uses(&mut self, update: &Value) -> &mut ToolCall {
        if self.calls.len() >= CALLS {
            self.calls.clear();
        }
        let id = update["toolCallId"].as_str().unwrap_or_default().to_owned();
        let call = self.calls.entry(id).or_default();
        if let Some(kind) = update["kind"].as_str() {
            call.kind = one_line(kind, NAME);
        }
        if let Some(title) = update["title"].as_str() {
            call.title = one_line(title, NAME);
        }
        let content = update["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        let places = update["locations"].as_array().into_iter().flatten().chain(content);
        let paths: Vec<String> = places.filter_map(|place| place["path"].as_str()).map(ToOwned::to_owned).collect();
        if !paths.is_empty() {
            call.paths = paths;
        }
        let status = update["status"].as_str().unwrap_or_default();
        let shown = match status {
            "completed" | "failed" => format!("[{} {}: {status}]", call.kind, call.title),
            _ => format!("[{} {}]", call.kind, call.title),
        };
        if call.shown != shown {
            self.story.line(&shown);
            call.shown = shown;
            for text in content.iter().filter_map(|part| part["content"]["text"].as_str()) {
                self.story.line(&clip(text.trim_end(), EXCERPT));
            }
        }
        call
    }

    /// Answers a request for permission.
    fn permit(&mut self, params: &Value) -> Value {
        if self.interrupted.is_some() {
            return permission::cancelled();
        }
        self.answer.is_over = true;
        let (permissions, root) = (self.request.permissions, self.root.clone());
        let call = self.uses(&params["toolCall"]);
        let permitted = permission::permits(permissions, &call.kind, &root, &call.paths);
        let title = call.title.clone();
        let (permitted, answer) = permission::choose(permitted, &params["options"]);
        self.refusals += u32::from(!permitted);
        self.story.line(&format!("[{}: {title}]", if permitted { "permitted" } else { "refused" }));
        answer
    }

    /// The end of its turn.
    pub(super) fn turned(&mut self, result: &Value) -> Result<Response, Failure> {
        debug_assert_eq!(self.stage, Stage::Working);
        self.usage = Usage { cost_usd: self.usage.cost_usd, ..usage(result) };
        let said = clip(self.answer.text.trim(), EXCERPT);
        let failed = |kind, message: &str| {
            let message = if said.is_empty() { message.to_owned() } else { format!("{message}: {said}") };
            Err(Failure::new(kind, message))
        };
        // Copilot ends its turn so where it is refused something.
        let gave_up = said.is_empty() || said.ends_with("cancelled by user");
        match result["stopReason"].as_str() {
            Some("cancelled") if self.interrupted.is_some() => failed(FailureKind::Cancelled, "stopped"),
            Some("cancelled" | "end_turn") if self.refusals > 0 && gave_up => self.denied(&said),
            Some("end_turn") if self.answer.is_cut => {
                failed(FailureKind::Protocol, "the answer is too long to be read")
            }
            Some("end_turn") => Ok(Response {
                text: std::mem::take(&mut self.answer.text),
                usage: self.usage,
                session_id: self.session.clone(),
                ..Response::default()
            }),
            Some("max_tokens") => failed(FailureKind::Protocol, "the model's answer was cut off at its longest"),
            Some("max_turn_requests") => {
                failed(FailureKind::Crashed, "it made as many requests as it makes in a turn, and did not finish")
            }
            Some("refusal") => failed(FailureKind::Crashed, "it refused to go on"),
            Some("cancelled") => failed(FailureKind::Crashed, "it says that it was cancelled, and nobody did that"),
            reason => {
                failed(FailureKind::Protocol, &format!("it ended its turn for no reason that is known: {reason:?}"))
            }
        }
    }

    fn denied(&self, said: &str) -> Result<Response, Failure> {
        let message = format!("it was refused {} actions that it wanted to take: {said}", self.refusals);
        Err(Failure::new(FailureKind::PermissionDenied, message.trim_end_matches([':', ' ']))
            .hint("'--permissions edit' lets it edit files, '--permissions all' everything"))
    }
}

/// Reads the usage of a turn: `usage` of the protocol (not stable yet), or what Gemini CLI reports instead. Some agents
/// count cached tokens as part of the input, some beside it: the total shows which.
fn usage(result: &Value) -> Usage {
    let usage = &result["usage"];
    let count = |key: &str| usage[key].as_u64().unwrap_or(0);
    if !usage.is_object() {
        let usage = &result["_meta"]["quota"]["token_count"];
        let count = |key: &str| usage[key].as_u64().unwrap_or(0);
        return Usage { tokens_in: count("input_tokens"), tokens_out: count("output_tokens"), ..Usage::default() };
    }
    let cached = count("cachedReadTokens");
    let tokens_out = count("outputTokens").saturating_add(count("thoughtTokens"));
    let parts = count("inputTokens").saturating_add(cached).saturating_add(count("cachedWriteTokens"));
    let tokens_in = count("totalTokens").checked_sub(tokens_out).filter(|rest| *rest >= count("inputTokens"));
    Usage { tokens_in: tokens_in.unwrap_or(parts), tokens_out, tokens_cached: cached, cost_usd: None }
}
