//! One turn between the loop and a model, in terms that every service's dialect is translated from and to.

use serde_json::Value;

use crate::run::work::{Failure, Usage};

/// The part of a call that stays the same in all its turns.
pub(super) struct Task<'a> {
    pub(super) model: &'a str,
    pub(super) system: &'a str,
    pub(super) tools: &'a [Tool],
}

/// A model's answer in one turn, put together from its stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) calls: Vec<Call>,
    pub(super) usage: Usage,
    /// Why it ended; nothing where the stream broke off.
    pub(super) stop: Option<String>,
    pub(super) failure: Option<Failure>,
}

/// One call of a tool, its arguments as the model wrote them.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) arguments: String,
}

/// A tool as it is offered.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: Value,
}

/// The result of a tool call, as text for the model.
pub(super) struct Outcome {
    pub(super) ok: bool,
    pub(super) text: String,
}
