//! The agents whose command line and answer are all there is to say about them: one row of data each.
//!
//! The command lines are those under which each was driven against a test server (`tests/agents.rs`); what they print is
//! read by `parse`.

use serde_json::json;

use super::parse::{self, Parse};
use super::program::{Invocation, Retries, Spent, combined, judged, tells_nothing};
use super::{Agent, Reply, Request, Response};
use crate::process::Finished;
use crate::run::goal::Permissions;
use crate::run::work::{Failure, FailureKind};

/// An agent that is driven by a row of data.
#[derive(Debug)]
pub struct Preset {
    /// Its program.
    pub program: &'static str,
    /// How one logs in to it.
    pub log_in: &'static str,
    /// Arguments of every call, before those that depend on the request.
    arguments: &'static [&'static str],
    /// Arguments that a permission adds.
    permissions: fn(Permissions) -> &'static [&'static str],
    /// The option that names a model.
    model: &'static str,
    /// Arguments that every call ends with.
    last: &'static [&'static str],
    /// How it takes the role's text; without such a way the text precedes the task.
    system: System,
    env: &'static [(&'static str, &'static str)],
    parse: Parse,
    spent: Spent,
    retries: Retries,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum System {
    /// A setting of its own, as a JSON string (which TOML reads too).
    CodexConfig,
    /// An agent in a configuration in its environment.
    OpencodeAgent,
    None,
}

/// `OpenAI` Codex.
pub static CODEX: Preset = Preset {
    program: "codex",
    log_in: "run 'codex login'; a provider of your own in its config.toml needs none",
    arguments: &["exec", "--json", "-c", "check_for_update_on_startup=false"],
    permissions: |permissions| match permissions {
        Permissions::Ask => &["--sandbox", "read-only"],
        Permissions::Edit => &["--sandbox", "workspace-write"],
        Permissions::All => &["--dangerously-bypass-approvals-and-sandbox"],
    },
    model: "-m",
    last: &["-"],
    system: System::CodexConfig,
    env: &[],
    parse: parse::codex,
    spent: parse::codex_spent,
    retries: parse::codex_retries,
};

/// opencode.
pub static OPENCODE: Preset = Preset {
    program: "opencode",
    log_in: "run 'opencode auth login'",
    // Its log alone shows its retries.
    arguments: &["run", "--format", "json", "--title", "agentloop", "--print-logs", "--log-level", "ERROR"],
    // The rest is in its configuration.
    permissions: |permissions| match permissions {
        Permissions::Ask | Permissions::Edit => &[],
        Permissions::All => &["--auto"],
    },
    model: "-m",
    last: &[],
    system: System::OpencodeAgent,
    env: &[("OPENCODE_DISABLE_AUTOUPDATE", "1"), ("OPENCODE_DISABLE_MODELS_FETCH", "1")],
    parse: parse::opencode,
    spent: parse::opencode_spent,
    retries: parse::opencode_retries,
};

/// Gemini CLI. With `-o stream-json` it would show its work while it goes on, but its errors then have no status.
pub static GEMINI: Preset = Preset {
    program: "gemini",
    log_in: "run 'gemini' and log in, or set GEMINI_API_KEY",
    arguments: &["--skip-trust", "-o", "json"],
    permissions: |permissions| match permissions {
        Permissions::Ask => &[],
        Permissions::Edit => &["--approval-mode", "auto_edit"],
        Permissions::All => &["--yolo"],
    },
    model: "-m",
    last: &[],
    system: System::None,
    env: &[],
    parse: parse::gemini,
    spent: parse::gemini_spent,
    retries: parse::gemini_retries,
};

/// GitHub Copilot CLI.
pub static COPILOT: Preset = Preset {
    program: "copilot",
    log_in: "run 'copilot' and '/login', or set GH_TOKEN",
    arguments: &["--output-format", "json"],
    permissions: |permissions| match permissions {
        Permissions::Ask => &[],
        Permissions::Edit => &["--allow-tool", "write"],
        Permissions::All => &["--allow-all-tools"],
    },
    model: "--model",
    last: &[],
    system: System::None,
    env: &[("COPILOT_AUTO_UPDATE", "false")],
    parse: parse::copilot,
    spent: tells_nothing,
    retries: parse::copilot_retries,
};

/// aider.
pub static AIDER: Preset = Preset {
    program: "aider",
    log_in: "set the key of its provider, such as OPENAI_API_KEY, and name a model with '--model'",
    arguments: &[
        "--message-file",
        "/dev/stdin",
        "--no-auto-commits",
        "--no-gitignore",
        "--chat-history-file",
        "/dev/null",
        "--input-history-file",
        "/dev/null",
        "--no-check-update",
        "--no-show-release-notes",
        "--no-show-model-warnings",
        "--no-pretty",
        "--no-stream",
        "--no-detect-urls",
        "--map-tokens",
        "0",
    ],
    // Without the first option it waits for answers; without the second it only suggests commands.
    permissions: |permissions| match permissions {
        Permissions::Ask => &["--dry-run", "--yes-always", "--no-suggest-shell-commands"],
        Permissions::Edit => &["--yes-always", "--no-suggest-shell-commands"],
        Permissions::All => &["--yes-always"],
    },
    model: "--model",
    last: &[],
    system: System::None,
    // It wraps what it prints at the width of the terminal, inside JSON strings too.
    env: &[("COLUMNS", "100000"), ("AIDER_ANALYTICS_DISABLE", "1")],
    parse: parse::aider,
    spent: parse::aider_spent,
    retries: parse::aider_retries,
};

/// An agent under the row that describes it.
#[derive(Clone, Debug)]
pub struct Described {
    preset: &'static Preset,
    program: String,
}

impl Described {
    /// The agent that `preset` describes.
    #[must_use]
    pub fn new(preset: &'static Preset) -> Self {
        Self { preset, program: preset.program.to_owned() }
    }

    fn invocation(&self, request: &Request) -> Invocation {
        let preset = self.preset;
        let mut argv = vec![self.program.clone()];
        let mut add = |words: &[&str]| argv.extend(words.iter().map(ToString::to_string));
        add(preset.arguments);
        add((preset.permissions)(request.permissions));
        let mut env: Vec<_> = preset.env.iter().map(|(name, value)| (*name, Some((*value).to_owned()))).collect();
        let apart = preset.system != System::None || request.system.trim().is_empty();
        match preset.system {
            System::CodexConfig if request.system.trim().is_empty() => {}
            System::CodexConfig => add(&["-c", &format!("developer_instructions={}", json!(request.system))]),
            System::OpencodeAgent => {
                add(&["--agent", "agentloop"]);
                // By itself it edits, and runs commands, without asking.
                let permission = match request.permissions {
                    Permissions::Ask => json!({"edit": "deny", "bash": "deny"}),
                    Permissions::Edit => json!({"edit": "allow", "bash": "deny"}),
                    Permissions::All => json!({"edit": "allow", "bash": "allow"}),
                };
                let mut agent = json!({"mode": "primary", "permission": permission});
                if !request.system.trim().is_empty() {
                    agent["prompt"] = json!(request.system);
                }
                let agent = json!({"agent": {"agentloop": agent}});
                env.push(("OPENCODE_CONFIG_CONTENT", Some(agent.to_string())));
            }
            System::None => {}
        }
        if let Some(model) = &request.model {
            add(&[preset.model, model]);
        }
        add(preset.last);
        let stdin = if apart { request.prompt.clone() } else { combined(request) };
        Invocation { argv: argv.into_iter().map(Into::into).collect(), stdin, env }
    }

    async fn answer(&self, request: &Request) -> Result<Response, Failure> {
        self.asked(request).await.map_err(|mut failure| {
            if failure.kind == FailureKind::NotLoggedIn {
                failure.hint = Some(self.preset.log_in.to_owned());
            }
            failure
        })
    }

    async fn asked(&self, request: &Request) -> Result<Response, Failure> {
        let Preset { retries, spent, .. } = *self.preset;
        let finished = self.invocation(request).run(request, retries, spent).await?;
        self.read(&finished).map_err(|failure| failure.after(spent(&finished.stdout.text())))
    }

    fn read(&self, finished: &Finished) -> Result<Response, Failure> {
        let read = (self.preset.parse)(&finished.stdout.text(), &finished.stderr.text());
        // What is cut out of a long stream is its middle: the answer is at its end.
        if read.is_none() && !finished.stdout.is_whole() {
            return Err(Failure::new(FailureKind::Protocol, "the answer is too long to be read"));
        }
        judged(&self.program, finished, read)
    }
}

impl Agent for Described {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
#[path = "presets_tests.rs"]
mod tests;
