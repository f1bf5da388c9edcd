//! A home directory from which each agent finds the test model server: the configuration that its user would have.
#![allow(dead_code, reason = "every test binary that takes this module in uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

/// The key that every agent is given here. Long enough for copilot, which finds shorter ones implausible.
pub const KEY: &str = "test-key-0123456789";
/// The model that every agent is told to use; [`model`] is its name on the agent's command line.
pub const MODEL: &str = "test-model";

/// The environment variable that names the directory `tests/agents/install.sh` filled.
pub const AGENTS: &str = "AGENTLOOP_TEST_AGENTS";

/// An agent's binary, where the tests were given agents and this one is among them.
///
/// # Errors
/// Why it is not there, for the tests' output.
pub fn installed(agent: &str) -> Result<PathBuf, String> {
    let Some(dir) = std::env::var_os(AGENTS) else {
        return Err(format!("{AGENTS} is not set; 'tests/agents/install.sh DIR {agent}' fills a directory for it"));
    };
    let binary = Path::new(&dir).join("bin").join(agent);
    if binary.exists() {
        return Ok(binary);
    }
    Err(format!("{} is not there; 'tests/agents/install.sh DIR {agent}' installs it", binary.display()))
}

/// The model's name as the agent's `--model` wants it.
pub fn model(agent: &str) -> &'static str {
    match agent {
        "opencode" => "test/test-model",
        "aider" => "openai/test-model",
        // gemini refuses no name, but knows the abilities of its own models only.
        "gemini" => "gemini-2.5-flash",
        _ => MODEL,
    }
}

/// Writes the agent's configuration below `home` and gives the whole environment it needs to speak to `server`
/// (a base URL without a path). Set it over a cleared environment that keeps `PATH`: no key of the user's leaks in.
pub fn settle(agent: &str, home: &Path, server: &str) -> Vec<(&'static str, String)> {
    let mut environment = vec![("HOME", home.display().to_string())];
    let mut set = |name, value: &str| environment.push((name, value.to_owned()));
    match agent {
        "claude" => {
            set("ANTHROPIC_BASE_URL", server);
            set("ANTHROPIC_API_KEY", KEY);
            set("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
            set("DISABLE_AUTOUPDATER", "1");
            // As root it refuses --dangerously-skip-permissions outside of a sandbox.
            set("IS_SANDBOX", "1");
        }
        "codex" => {
            set("TEST_API_KEY", KEY);
            let config = format!(
                "model = \"{MODEL}\"\nmodel_provider = \"test\"\ncheck_for_update_on_startup = false\n\n\
                 [analytics]\nenabled = false\n\n[model_providers.test]\nname = \"test\"\n\
                 base_url = \"{server}/v1\"\nenv_key = \"TEST_API_KEY\"\nwire_api = \"responses\"\n"
            );
            put(home, ".codex/config.toml", &config);
        }
        "opencode" => {
            set("TEST_API_KEY", KEY);
            set("OPENCODE_DISABLE_AUTOUPDATE", "1");
            set("OPENCODE_DISABLE_MODELS_FETCH", "1");
            set("OPENCODE_DISABLE_LSP_DOWNLOAD", "1");
            let config = json!({
                "model": format!("test/{MODEL}"),
                "provider": { "test": {
                    "npm": "@ai-sdk/openai-compatible", "name": "test",
                    "options": { "baseURL": format!("{server}/v1"), "apiKey": "{env:TEST_API_KEY}" },
                    "models": { MODEL: { "name": MODEL, "tool_call": true } },
                } },
            });
            put(home, ".config/opencode/opencode.json", &config.to_string());
        }
        "gemini" => {
            set("GEMINI_API_KEY", KEY);
            set("GOOGLE_GEMINI_BASE_URL", server);
            // Only here can its retries be capped: it has no flag, and skips a system settings file that is not in a
            // directory which only root writes.
            let settings = json!({
                "security": { "auth": { "selectedType": "gemini-api-key" } },
                "privacy": { "usageStatisticsEnabled": false },
                "general": { "maxAttempts": 1, "enableAutoUpdate": false },
            });
            put(home, ".gemini/settings.json", &settings.to_string());
        }
        "copilot" => {
            set("COPILOT_PROVIDER_BASE_URL", &format!("{server}/v1"));
            set("COPILOT_PROVIDER_TYPE", "openai");
            set("COPILOT_PROVIDER_API_KEY", KEY);
            set("COPILOT_MODEL", MODEL);
            set("COPILOT_OFFLINE", "true");
            set("COPILOT_AUTO_UPDATE", "false");
        }
        "aider" => {
            set("OPENAI_API_KEY", KEY);
            set("OPENAI_API_BASE", &format!("{server}/v1"));
            set("AIDER_ANALYTICS_DISABLE", "1");
            set("AIDER_CHECK_UPDATE", "false");
            // Without these litellm and aider each fetch a price list at the start, from the network.
            set("LITELLM_LOCAL_MODEL_COST_MAP", "True");
            let prices = json!({ model(agent): { "litellm_provider": "openai", "mode": "chat" } });
            put(home, ".aider/caches/model_prices_and_context_window.json", &prices.to_string());
            // It wraps what it prints, JSON too.
            set("COLUMNS", "100000");
        }
        other => panic!("no home is known for the agent '{other}'"),
    }
    environment
}

fn put(home: &Path, path: &str, text: &str) {
    let path = home.join(path);
    fs::create_dir_all(path.parent().expect("a path in a directory")).expect("a writable home");
    fs::write(path, text).expect("a writable home");
}
