//! The dialects of model APIs.

use serde_json::Value;

use super::turn::{Answer, Outcome, Task};
use super::{anthropic, openai};

/// Protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Anthropic Messages: <https://docs.anthropic.com/en/api/messages>.
    Anthropic,
    /// `OpenAI` Chat Completions, which others speak too: <https://platform.openai.com/docs/api-reference/chat>.
    OpenAi,
}

impl Dialect {
    /// The variable that holds the key.
    #[must_use]
    pub fn key_variable(self) -> &'static str {
        match self {
            Self::Anthropic => "ANTHROPIC_API_KEY",
            Self::OpenAi => "OPENAI_API_KEY",
        }
    }

    /// The variable that names another base URL.
    #[must_use]
    pub fn url_variable(self) -> &'static str {
        match self {
            Self::Anthropic => "ANTHROPIC_BASE_URL",
            Self::OpenAi => "OPENAI_BASE_URL",
        }
    }

    pub(super) fn body(self, task: &Task<'_>, messages: &[Value]) -> Value {
        match self {
            Self::Anthropic => anthropic::body(task, messages),
            Self::OpenAi => openai::body(task, messages),
        }
    }

    pub(super) fn hear(self, event: &Value, answer: &mut Answer) {
        match self {
            Self::Anthropic => anthropic::hear(event, answer),
            Self::OpenAi => openai::hear(event, answer),
        }
    }

    /// The answer as the model's message, and what its calls came to, as they go back to it.
    pub(super) fn exchange(self, answer: &Answer, outcomes: &[Outcome]) -> Vec<Value> {
        match self {
            Self::Anthropic => anthropic::exchange(answer, outcomes),
            Self::OpenAi => openai::exchange(answer, outcomes),
        }
    }
}
