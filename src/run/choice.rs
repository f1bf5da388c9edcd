//! An agent: a backend and perhaps a model.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::range;

/// Prefix of a backend; the rest of its name is the command of an agent that speaks the Agent Client Protocol.
pub const ACP: &str = "acp:";

/// An agent: a backend and perhaps a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentChoice {
    /// Name of the backend.
    #[serde(deserialize_with = "range::name")]
    pub backend: String,
    /// Model, if one is named.
    #[serde(default, deserialize_with = "range::optional_name", skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

impl fmt::Display for AgentChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.model {
            Some(model) => write!(f, "{}/{model}", self.backend),
            None => f.write_str(&self.backend),
        }
    }
}

impl FromStr for AgentChoice {
    type Err = String;

    /// Parses `backend` or `backend/model`; the model may contain slashes. All text after [`ACP`] is a command. The error is
    /// the expected form.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(command) = text.strip_prefix(ACP) {
            return match command.trim() {
                "" => Err(format!("a command after '{ACP}', such as '{ACP}opencode acp'")),
                command if command.contains(char::is_control) => Err("a command without control characters".to_owned()),
                command => Ok(Self { backend: format!("{ACP}{command}"), model: None }),
            };
        }
        let (backend, model) = match text.split_once('/') {
            Some((backend, model)) => (backend, Some(model.to_owned())),
            None => (text, None),
        };
        if backend.is_empty() || model.as_deref() == Some("") {
            return Err("BACKEND or BACKEND/MODEL".to_owned());
        }
        if text.contains(char::is_control) {
            return Err("the name contains control characters".to_owned());
        }
        Ok(Self { backend: backend.to_owned(), model })
    }
}

/// The role of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Proposes success criteria if the user gave none.
    Criteria,
    /// Asks what it must know before the work can be planned.
    Clarifier,
    /// Plans an iteration.
    Decomposer,
    /// Works on one subgoal.
    Subagent,
    /// Judges the iteration.
    Reviewer,
    /// Resolves a conflict between workers.
    Integrator,
}

impl Role {
    /// Returns the role's name in prompts, events and trailers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Criteria => "criteria",
            Self::Clarifier => "clarifier",
            Self::Decomposer => "decomposer",
            Self::Subagent => "subagent",
            Self::Reviewer => "reviewer",
            Self::Integrator => "integrator",
        }
    }

    /// Roles that share a choice of agent, by the name of the choice.
    pub const CHOICES: [(&'static str, &'static [Self]); 4] = [
        ("planner", &[Self::Criteria, Self::Clarifier, Self::Decomposer]),
        ("worker", &[Self::Subagent]),
        ("reviewer", &[Self::Reviewer]),
        ("integrator", &[Self::Integrator]),
    ];

    /// Every role, in the order of a run.
    pub const ALL: [Self; 6] =
        [Self::Criteria, Self::Clarifier, Self::Decomposer, Self::Subagent, Self::Reviewer, Self::Integrator];
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<(String, Option<String>), String> {
        text.parse::<AgentChoice>().map(|choice| (choice.backend, choice.model))
    }

    #[test]
    fn an_agent_is_a_backend_and_perhaps_a_model() {
        assert_eq!(read("codex"), Ok(("codex".into(), None)));
        assert_eq!(read("opencode/anthropic/x"), Ok(("opencode".into(), Some("anthropic/x".into()))));
        for text in ["", " ", "/m", "codex/"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_command_is_a_backend_to_its_end() {
        for (text, backend) in [
            ("acp:opencode acp", "acp:opencode acp"),
            (" acp: /opt/agent --acp --config=/etc/x ", "acp:/opt/agent --acp --config=/etc/x"),
            ("acp:npx -y @zed-industries/claude-code-acp", "acp:npx -y @zed-industries/claude-code-acp"),
        ] {
            assert_eq!(read(text), Ok((backend.into(), None)));
            let choice: AgentChoice = backend.parse().unwrap();
            assert_eq!(choice.to_string(), backend);
        }
        for text in ["acp:", "acp:  ", "acp:a\nb", "acp:a\0b"] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }
}
