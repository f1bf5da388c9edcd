//! The agents that we know how to drive, and what is worth knowing of each before it is driven.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Agent;
use super::api::Dialect;
use super::claude::{self, Claude};
use super::presets::{self, Described};

/// An agent that we know how to drive.
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) program: &'static str,
    /// How one gets it.
    pub(super) install: &'static str,
    /// Variables that it sets for what it starts, by which one knows who is calling.
    pub(super) markers: &'static [&'static str],
    pub(super) make: fn() -> Arc<dyn Agent>,
    pub(super) login: Login,
    /// How one logs in.
    pub(super) log_in: &'static str,
    /// Variables that let it work without a login.
    pub(super) keys: &'static [&'static str],
    /// Words after its program that exit with 1 where the sandbox of its permission `edit` cannot start.
    pub(super) sandbox: Option<&'static [&'static str]>,
    pub(super) can: Can,
    /// How it departs from a permission.
    pub(super) note: &'static str,
}

/// The model APIs by their names.
pub(super) const APIS: [(&str, Dialect); 2] = [("claude_api", Dialect::Anthropic), ("openai_api", Dialect::OpenAi)];

/// Abilities of a model behind an API, in our loop around it.
pub(super) const API_CAN: Can = Can { resume: false, cost: false, ..ALL };

/// How one finds out, without a word to a model, whether somebody has logged in.
pub(super) enum Login {
    /// These words after its program: exit status 0 is yes.
    Asked(&'static [&'static str]),
    /// Traces of a login: one of these variables, or one of these files below HOME. There may be other ways to log in, so
    /// their absence proves nothing.
    Traces { variables: &'static [&'static str], files: &'static [&'static str] },
}

/// Abilities of an agent that matter to a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools)] // each is an ability of its own
pub struct Can {
    /// It edits files.
    pub edit_files: bool,
    /// It runs commands, where it is permitted everything.
    pub run_commands: bool,
    /// It tells a session that can be taken up again.
    pub resume: bool,
    /// It tells how many tokens it used.
    pub usage: bool,
    /// It tells what that cost, at least for models whose price it knows.
    pub cost: bool,
}

const ALL: Can = Can { edit_files: true, run_commands: true, resume: true, usage: true, cost: true };

/// In the order in which `auto` prefers them.
pub(super) const KNOWN: [Known; 6] = [
    Known {
        name: "claude_code",
        program: claude::PROGRAM,
        install: "npm install -g @anthropic-ai/claude-code",
        markers: &["CLAUDECODE"],
        make: || Arc::new(Claude::default()),
        login: Login::Asked(&["auth", "status"]),
        log_in: claude::LOG_IN,
        // https://code.claude.com/docs/en/authentication, "Authentication precedence".
        keys: &[
            "ANTHROPIC_API_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "CLAUDE_CODE_OAUTH_TOKEN",
            "CLAUDE_CODE_USE_BEDROCK",
            "CLAUDE_CODE_USE_VERTEX",
            "CLAUDE_CODE_USE_FOUNDRY",
        ],
        sandbox: None,
        can: ALL,
        note: "",
    },
    Known {
        name: "codex",
        program: "codex",
        install: "npm install -g @openai/codex",
        markers: &["CODEX_SANDBOX", "CODEX_SANDBOX_NETWORK_DISABLED", "CODEX_THREAD_ID", "CODEX_CI"],
        make: || Arc::new(Described::new(&presets::CODEX)),
        login: Login::Asked(&["login", "status"]),
        log_in: presets::CODEX.log_in,
        keys: &["CODEX_API_KEY"],
        // With a bubblewrap that cannot start, 0.169 lets every command fail, says so only in prose, and exits with 0.
        sandbox: Some(&["sandbox", "true"]),
        can: Can { cost: false, ..ALL },
        note: "with 'edit' it runs commands too, in a sandbox that lets it write in the worktree alone",
    },
    Known {
        name: "opencode",
        program: "opencode",
        install: "npm install -g opencode-ai",
        markers: &["OPENCODE"],
        make: || Arc::new(Described::new(&presets::OPENCODE)),
        login: Login::Traces {
            variables: &["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY"],
            files: &[".local/share/opencode/auth.json"],
        },
        log_in: presets::OPENCODE.log_in,
        keys: &[],
        sandbox: None,
        can: ALL,
        note: "by itself it permits everything in its directory: 'ask' denies it edits and commands, 'edit' commands",
    },
    Known {
        name: "gemini",
        program: "gemini",
        install: "npm install -g @google/gemini-cli",
        markers: &["GEMINI_CLI"],
        make: || Arc::new(Described::new(&presets::GEMINI)),
        login: Login::Traces {
            variables: &["GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"],
            files: &[".gemini/oauth_creds.json"],
        },
        log_in: presets::GEMINI.log_in,
        keys: &[],
        sandbox: None,
        can: Can { cost: false, ..ALL },
        note: "",
    },
    Known {
        name: "copilot",
        program: "copilot",
        install: "npm install -g @github/copilot",
        markers: &[],
        make: || Arc::new(Described::new(&presets::COPILOT)),
        login: Login::Traces {
            variables: &["COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN", "COPILOT_PROVIDER_API_KEY"],
            files: &[],
        },
        log_in: presets::COPILOT.log_in,
        keys: &[],
        sandbox: None,
        can: Can { usage: false, cost: false, ..ALL },
        note: "",
    },
    Known {
        name: "aider",
        program: "aider",
        install: "pipx install aider-chat",
        markers: &[],
        make: || Arc::new(Described::new(&presets::AIDER)),
        login: Login::Traces {
            variables: &["OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY"],
            files: &[],
        },
        log_in: presets::AIDER.log_in,
        keys: &[],
        sandbox: None,
        can: Can { run_commands: false, resume: false, ..ALL },
        note: "with 'ask' it works on a dry run, so that it changes nothing",
    },
];
