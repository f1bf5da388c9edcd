//! Agents against the test model server: `wire` is the server over plain sockets, `real` the agents' own command lines,
//! `whole` whole runs of the program through them.
//!
//! The real agents run where `AGENTLOOP_TEST_AGENTS` names a directory that `tests/agents/install.sh` filled; without
//! it each of their tests says that it was left out. What follows was seen on the versions pinned there. Everywhere the
//! environment is cleared first and `PATH` and a `HOME` of the test's own are set; URL is the server without a path.
//!
//! # Calls
//!
//! The prompt goes to stdin, which is then closed. `+S` means that the agent has no place for a system text: it stands
//! before the prompt, a blank line between.
//!
//! | agent | argv | environment of the call |
//! | --- | --- | --- |
//! | claude | `claude -p --output-format stream-json --verbose --append-system-prompt SYSTEM --dangerously-skip-permissions --model M` | `CLAUDE_CODE_MAX_RETRIES=0` |
//! | codex | `codex exec --json --dangerously-bypass-approvals-and-sandbox -c developer_instructions="SYSTEM as a JSON string" -c model_providers.test.request_max_retries=0 -c model_providers.test.stream_max_retries=0 -m M -` | |
//! | opencode | `opencode run --format json --auto --title t --agent agentloop -m PROVIDER/M` | `OPENCODE_CONFIG_CONTENT={"agent":{"agentloop":{"mode":"primary","prompt":"SYSTEM"}}}` |
//! | gemini `+S` | `gemini --yolo --skip-trust -o json -m M` |  |
//! | copilot `+S` | `copilot --allow-all-tools --output-format json --model M` | |
//! | aider `+S` | `aider --model openai/M --message-file /dev/stdin --yes-always --no-auto-commits --no-gitignore --chat-history-file /dev/null --input-history-file /dev/null --no-check-update --no-show-release-notes --no-show-model-warnings --no-pretty --no-stream --no-detect-urls --map-tokens 0` | `COLUMNS=100000` |
//!
//! # The way to a server of one's own
//!
//! [`support::agent_home::settle`] writes these; they stand for what a user has configured.
//!
//! | agent | speaks | environment | file below `HOME` |
//! | --- | --- | --- | --- |
//! | claude | Anthropic Messages | `ANTHROPIC_BASE_URL=URL ANTHROPIC_API_KEY=K CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1 DISABLE_AUTOUPDATER=1`, as root `IS_SANDBOX=1` | |
//! | codex | Responses | `TEST_API_KEY=K` | `.codex/config.toml`: `model`, `model_provider = "test"`, `check_for_update_on_startup = false`, `[analytics] enabled = false`, `[model_providers.test]` with `name`, `base_url = "URL/v1"`, `env_key = "TEST_API_KEY"`, `wire_api = "responses"` |
//! | opencode | Chat Completions | `TEST_API_KEY=K OPENCODE_DISABLE_AUTOUPDATE=1 OPENCODE_DISABLE_MODELS_FETCH=1 OPENCODE_DISABLE_LSP_DOWNLOAD=1` | `.config/opencode/opencode.json`: `model`, `provider.test` with `npm: "@ai-sdk/openai-compatible"`, `options.baseURL: "URL/v1"`, `options.apiKey: "{env:TEST_API_KEY}"`, `models.M.tool_call: true` |
//! | gemini | Gemini | `GEMINI_API_KEY=K GOOGLE_GEMINI_BASE_URL=URL` | `.gemini/settings.json`: `security.auth.selectedType: "gemini-api-key"`; its retries can be capped only here, by `general.maxAttempts: 1` (`GEMINI_CLI_SYSTEM_SETTINGS_PATH` is skipped unless only root can write there) |
//! | copilot | Chat Completions | `COPILOT_PROVIDER_BASE_URL=URL/v1 COPILOT_PROVIDER_TYPE=openai COPILOT_PROVIDER_API_KEY=K COPILOT_MODEL=M COPILOT_OFFLINE=true COPILOT_AUTO_UPDATE=false` | |
//! | aider | Chat Completions | `OPENAI_API_KEY=K OPENAI_API_BASE=URL/v1 AIDER_ANALYTICS_DISABLE=1 AIDER_CHECK_UPDATE=false LITELLM_LOCAL_MODEL_COST_MAP=True` | `.aider/caches/model_prices_and_context_window.json`, not empty: else it fetches one |
//!
//! # Answers
//!
//! Seconds and requests are those of the calls above, on two busy cores.
//!
//! | agent | text | usage (what the server counted) | a 401 | 429 and 529 | a stream cut each time | HTML with 200 |
//! | --- | --- | --- | --- | --- | --- | --- |
//! | claude | its last line, of type `result` → `.result` | `.usage`: `input_tokens` + `cache_read_input_tokens`, `output_tokens` | exit 1, `.is_error`, `.api_error_status` 401; 0.5 s | the same; one request | exit 1, `.result` "Connection to the API was lost"; asks again without a stream | exit 1, `.result` "empty or malformed response" |
//! | codex | last `item.completed` of type `agent_message` → `.item.text` | `turn.completed.usage`: `input_tokens` (cached in it), `output_tokens` | exit 1, `turn.failed.error.message` "unexpected status 401"; 0.3 s | "exceeded retry limit, last status: 429", "unexpected status 529"; one request | "stream disconnected before completion: Transport error" | "stream closed before response.completed" |
//! | opencode | last `text` → `.part.text` | sum of `step_finish.part.tokens`: `input` + `cache.read`, `output` | exit 1, `error` → `.error.data.statusCode`; 4.5 s | 429: 18 s with a `retry-after` of 3, six requests; 529: over 28 s | over 28 s | over 28 s |
//! | gemini | `.response` | `.stats.models.M.tokens`: `prompt` (cached in it), `candidates` | exit 145 (the status modulo 256), nothing on stdout, JSON at the end of stderr with `.error.code`; 2 s | exit 173 and 17; one request (over 150 s without `maxAttempts`) | exit 1, "terminated" | exit 1, "Incomplete JSON segment" |
//! | copilot | last `assistant.message` → `.data.content` | none for models of one's own | exit 1, `session.error` → `.data.statusCode`, `.data.errorType` `authentication`; 3 requests | exit 1, `rate_limit` and `query`; 16-20 s, six requests | exit 1, no `statusCode`; 7 s, six requests | the same |
//! | aider | stdout | `Tokens: 1.0k sent, 11 received.` (rounded) | exit **0**, `litellm.AuthenticationError`; 7 s | over 28 s | over 28 s | over 28 s |
//!
//! # Retries of their own
//!
//! How an agent says, while it works, that a request failed and that it makes it again; `parse` reads these, and the
//! call is stopped where it goes on for too long.
//!
//! | agent | where | what |
//! | --- | --- | --- |
//! | codex | stdout | `{"type":"error","message":"Reconnecting... 1/5 (unexpected status 529 …)"}`, after five requests each |
//! | opencode | stderr, with `--print-logs --log-level ERROR` | `… level=ERROR … message="stream error" … error.error="AI_APICallError: …"`, no status |
//! | gemini | stderr | `Attempt 1 failed with status 429. Retrying with backoff... …` |
//! | copilot | stdout | `{"type":"model.call_failure","data":{… "statusCode":529 … "source":"top_level" …}}` |
//! | aider | stdout | `litellm.RateLimitError: …`, then `Retrying in 0.2 seconds...` |
//!
//! # The Agent Client Protocol
//!
//! `initialize`, `session/new`, the choice of a model, `session/prompt`; all three leave when their input ends.
//!
//! | agent | argv | model | asks before it | usage (what the server counted) | a 401 |
//! | --- | --- | --- | --- | --- | --- |
//! | opencode | `opencode acp` | `configOptions`, category `model`; `session/set_config_option` refuses one it does not know (-32602) | nothing, by itself | `usage` of its last request, `inputTokens` without `cachedReadTokens` | error -32603 with the service's words, no status |
//! | gemini | `gemini --acp` | `models`; `session/set_model` takes any name | edits and commands; a refusal lets it go on | `_meta.quota.token_count`, all requests | error with `code` 401; without a key -32000 from `session/new` |
//! | copilot | `copilot --acp --model M` | none for a model of one's own | edits and commands; a refusal ends its turn with "Info: Operation cancelled by user" and `end_turn` | `usage`, all requests, `inputTokens` with `cachedReadTokens` | |

mod apis;
pub mod real;
mod tls;
mod whole;
mod wire;
