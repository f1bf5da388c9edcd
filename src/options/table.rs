//! The table that lists each option and setting once. Flags, variables, git's configuration, MCP arguments, the help, the
//! manual and [`Changes`] are generated from it.
//!
//! A new option of runs is a field of [`Options`], an entry here, and the line that uses it.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use super::value::{Kind, Value};
use super::wrong::Wrong;
use crate::ledger::{Cleanup, Durability, Home, Output};
use crate::run::amount::{Dollars, Iterations, Jobs, Patience, Retries, Seconds, Subgoals};
use crate::run::goal::{AgentChoice, Check, Isolation, Options, Permissions, Role};

/// An option of runs, or a setting.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Position in the table.
    pub id: Id,
    /// Name of the flag, without dashes.
    pub name: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Key in git's configuration.
    pub key: &'static str,
    /// Value if nothing is set; empty for none.
    pub default: &'static str,
    /// Meaning, in a line.
    pub meaning: &'static str,
    /// Kind of the values.
    pub kind: Kind,
    /// Validates the texts of a value.
    pub check: fn(&[String]) -> Result<(), Wrong>,
    /// Flag; `None` for a setting that is not an option of runs.
    pub flag: Option<Flag>,
    /// Argument of MCP tools.
    pub argument: Option<Argument>,
    /// Time until which it can change.
    pub changes: When,
}

/// A flag of `run`.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Placeholder of the value; empty for a switch.
    pub value: &'static str,
    /// Line in `-h`.
    pub help: &'static str,
    /// Heading in `-h`; empty for the first.
    pub heading: &'static str,
    /// A switch that sets one of the values.
    pub switch: Option<Switch>,
}

/// A switch that sets a value of another flag.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    /// Name, without dashes.
    pub name: &'static str,
    /// Value that it sets.
    pub value: &'static str,
    /// Line in `-h`.
    pub help: &'static str,
}

/// An argument of MCP tools.
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    /// Name.
    pub name: &'static str,
    /// Description.
    pub meaning: &'static str,
}

/// The time until which an option can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It is set when a run starts.
    Start,
    /// It can also change when a run is resumed or forked.
    Resume,
    /// It can also change while a run is live.
    Live,
}

const AGENTS: &str = "Agents";
const LIMITS: &str = "Checks and limits";

impl Entry {
    const fn new(
        name: &'static str,
        env: &'static str,
        key: &'static str,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self {
            id: Id::Backend,
            name,
            env,
            key,
            default,
            meaning,
            kind: Kind::Text,
            check: |_| Ok(()),
            flag: None,
            argument: None,
            changes: When::Resume,
        }
    }

    const fn flag(self, heading: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { flag: Some(Flag { value, help, heading, switch: None }), ..self }
    }

    const fn switch(self, name: &'static str, value: &'static str, help: &'static str) -> Self {
        match self.flag {
            Some(flag) => Self { flag: Some(Flag { switch: Some(Switch { name, value, help }), ..flag }), ..self },
            None => self,
        }
    }

    const fn argument(self, name: &'static str, meaning: &'static str) -> Self {
        Self { argument: Some(Argument { name, meaning }), ..self }
    }

    const fn changes(self, changes: When) -> Self {
        Self { changes, ..self }
    }
}

/// Defines the table, the ids of its entries, and [`Changes`]. An option of runs has the name and type of its field in
/// [`Changes`], and the function that writes it into [`Options`].
macro_rules! table {
    (
        options { $($id:ident $field:ident: $type:ty, $write:expr, $entry:expr;)* }
        settings { $($other:ident: $kind:ty, $setting:expr;)* }
    ) => {
        /// The position of an entry in the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Id { $($id,)* $($other,)* }

        /// The entries, in the order of `git agentloop config`.
        pub const TABLE: &[Entry] = &[
            $(Entry { id: Id::$id, kind: <$type as Value>::KIND, check: |texts| <$type as Value>::read(texts).map(|_| ()), ..$entry },)*
            $(Entry { id: Id::$other, kind: <$kind as Value>::KIND, check: |texts| <$kind as Value>::read(texts).map(|_| ()), ..$setting },)*
        ];

        /// Options that are given for a run.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        #[allow(missing_docs)]
        pub struct Changes {
            $(pub $field: Option<$type>,)*
            /// True if the run is resumed although another machine may still drive it.
            pub take_over: bool,
            /// True if all permissions may be given in the user's checkout.
            pub force: bool,
        }

        impl Changes {
            /// Parses the option `id` from `texts`.
            pub fn set(&mut self, id: Id, texts: &[String]) -> Result<(), Wrong> {
                match id {
                    $(Id::$id => self.$field = Some(<$type as Value>::read(texts)?),)*
                    $(Id::$other)|* => {}
                }
                Ok(())
            }

            /// Returns whether there is a value for `id`.
            #[must_use]
            pub fn has(&self, id: Id) -> bool {
                match id {
                    $(Id::$id => self.$field.is_some(),)*
                    $(Id::$other)|* => false,
                }
            }

            /// Writes the given values into `options`.
            pub fn write(&self, options: &mut Options) {
                $(if let Some(value) = &self.$field {
                    let write: fn(&mut Options, $type) = $write;
                    write(options, value.clone());
                })*
            }
        }
    };
}

impl Changes {
    /// Returns `options` with the changes, or `None` if nothing changes.
    #[must_use]
    pub fn apply(&self, options: &Options) -> Option<Options> {
        let mut changed = options.clone();
        self.write(&mut changed);
        (changed != *options).then_some(changed)
    }

    /// Returns the agents of single roles.
    #[must_use]
    pub fn roles(&self) -> BTreeMap<Role, AgentChoice> {
        let mut options = Options::default();
        let roles = [&self.planner, &self.worker, &self.reviewer, &self.integrator];
        for (place, choice) in roles.into_iter().enumerate() {
            if let Some(choice) = choice {
                set_roles(&mut options, place, choice);
            }
        }
        options.roles
    }
}

/// Sets the agent of the roles of [`Role::CHOICES`] at `place`.
fn set_roles(options: &mut Options, place: usize, choice: &AgentChoice) {
    let roles = Role::CHOICES[place].1;
    options.roles.extend(roles.iter().map(|role| (*role, choice.clone())));
}

table! {
    options {
        Backend agent: AgentChoice, |options, agent| options.agent = agent,
            Entry::new("backend", "AGENTLOOP_BACKEND", "agentloop.backend", "auto", "the agent that plans, works and reviews")
                .flag(AGENTS, "AGENT", "The agent, as NAME or NAME/MODEL: auto, or one that 'git agentloop backends' lists; or acp:COMMAND")
                .argument("backend", "The agent, as list_backends names it, perhaps with /model. auto is the user's setting, else the calling agent, else the first installed.");
        Model model: String, |options, model| options.agent.model = Some(model),
            Entry::new("model", "AGENTLOOP_MODEL", "agentloop.model", "", "the model that the agent uses; empty = its own choice")
                .flag(AGENTS, "MODEL", "The model that the agent uses")
                .argument("model", "The model that the agent uses; its own choice where it is left out.");
        Planner planner: AgentChoice, |options, agent| set_roles(options, 0, &agent),
            Entry::new("planner", "AGENTLOOP_PLANNER", "agentloop.planner", "", "who plans, as backend or backend/model; empty = the agent")
                .flag(AGENTS, "AGENT", "Who plans, and asks before that [default: --backend]")
                .argument("planner", "Who plans, and asks before that, as backend or backend/model; backend where left out.");
        Worker worker: AgentChoice, |options, agent| set_roles(options, 1, &agent),
            Entry::new("worker", "AGENTLOOP_WORKER", "agentloop.worker", "", "who works on the subgoals; empty = the agent")
                .flag(AGENTS, "AGENT", "Who works on the subgoals [default: --backend]")
                .argument("worker", "Who works on the subgoals, as backend or backend/model; backend where left out.");
        Reviewer reviewer: AgentChoice, |options, agent| set_roles(options, 2, &agent),
            Entry::new("reviewer", "AGENTLOOP_REVIEWER", "agentloop.reviewer", "", "who reviews; empty = the agent")
                .flag(AGENTS, "AGENT", "Who reviews [default: --backend]")
                .argument("reviewer", "Who reviews, as backend or backend/model; backend where left out.");
        Integrator integrator: AgentChoice, |options, agent| set_roles(options, 3, &agent),
            Entry::new("integrator", "AGENTLOOP_INTEGRATOR", "agentloop.integrator", "", "who resolves conflicts between workers; empty = the agent")
                .flag(AGENTS, "AGENT", "Who resolves conflicts between workers [default: --backend]")
                .argument("integrator", "Who resolves conflicts between workers, as backend or backend/model; backend where left out.");
        Permissions permissions: Permissions, |options, permissions| options.permissions = permissions,
            Entry::new("permissions", "AGENTLOOP_PERMISSIONS", "agentloop.permissions", "edit", "what agents may do unasked: ask, edit or all")
                .flag(AGENTS, "WHAT", "What agents may do unasked: ask, edit or all [default: edit]")
                .switch("skip-permissions", "all", "The same as --permissions all")
                .argument("permissions", "What agents may do unasked: nothing that they would ask for, edit files in their worktree, or everything.");
        // `resume` has a flag of its own for isolation, and MCP an argument without `none`.
        Isolation isolation: Isolation, |options, isolation| options.isolation = isolation,
            Entry::new("isolation", "AGENTLOOP_ISOLATION", "agentloop.isolation", "worktree", "where workers work: worktree (each its own), shared or none (your checkout)")
                .flag("", "WHAT", "Where workers work: worktree (each its own), shared, or none")
                .switch("no-isolate", "none", "Let agents edit your checkout: the same as --isolation none")
                .changes(When::Start);
        Verify checks: Vec<Check>, |options, checks| options.checks = checks,
            Entry::new("verify", "AGENTLOOP_VERIFY", "agentloop.verify", "", "a command that must pass; may be set several times")
                .flag(LIMITS, "CMD", "A command that must pass; repeatable, with a shell where it uses its syntax")
                .argument("verify_commands", "Commands that must exit with 0 for the goal to be reached, such as \"cargo test\"; with a shell where they use its syntax.");
        Recheck recheck: bool, |options, recheck| options.recheck = recheck,
            Entry::new("recheck", "AGENTLOOP_RECHECK", "agentloop.recheck", "false", "whether a check is run again on a tree that it passed on before")
                .flag(LIMITS, "", "Run a check again even on a tree that it passed on before")
                .argument("recheck", "Whether a verify command runs again on a tree that it passed on before.");
        Protect protect: Vec<String>, |options, protect| options.protect = protect,
            Entry::new("protect", "AGENTLOOP_PROTECT", "agentloop.protect", "", "files that workers may not change, as git pathspecs; may be set several times")
                .flag(LIMITS, "PATHS", "Files that workers may not change; repeatable, a git pathspec")
                .argument("protect", "Files that workers may not change, as git pathspecs: tests, say, that define what success is.");
        AllowProtected allow_protected: bool, |options, allowed| options.allow_protected = allowed,
            Entry::new("allow-protected", "AGENTLOOP_ALLOW_PROTECTED", "agentloop.allowProtected", "false", "whether workers may change protected files all the same")
                .flag(LIMITS, "", "Let workers change protected files; the reviewer is told")
                .argument("allow_protected", "Whether workers may change protected files all the same; the reviewer is told.");
        MaxIterations max_iterations: Iterations, |options, most| options.budget.max_iterations = most,
            Entry::new("max-iterations", "AGENTLOOP_MAX_ITERATIONS", "agentloop.maxIterations", "4", "iterations a run may take")
                .flag(LIMITS, "N", "Iterations the run may take, at most 1000000 [default: 4]")
                .argument("max_iterations", "Passes the run may take, in all.")
                .changes(When::Live);
        MaxTaskRetries max_task_retries: Retries, |options, most| options.budget.max_task_retries = most,
            Entry::new("max-task-retries", "AGENTLOOP_MAX_TASK_RETRIES", "agentloop.maxTaskRetries", "1", "further attempts at a subgoal after its first")
                .flag(LIMITS, "N", "Further attempts at a subgoal after its first [default: 1]")
                .argument("max_task_retries", "Further attempts at a subgoal after its first.")
                .changes(When::Live);
        MaxSeconds max_seconds: Seconds, |options, most| options.budget.max_seconds = Some(most),
            Entry::new("max-seconds", "AGENTLOOP_MAX_SECONDS", "agentloop.maxSeconds", "", "seconds a run may take; empty = no limit")
                .flag(LIMITS, "S", "Seconds the run may take")
                .argument("max_seconds", "The most seconds that the run may take.")
                .changes(When::Live);
        MaxAgentCalls max_agent_calls: NonZeroU64, |options, most| options.budget.max_agent_calls = Some(most),
            Entry::new("max-agent-calls", "AGENTLOOP_MAX_AGENT_CALLS", "agentloop.maxAgentCalls", "", "agent calls a run may make; empty = no limit")
                .flag(LIMITS, "N", "Agent calls the run may make")
                .argument("max_agent_calls", "The most agent calls that the run may make.")
                .changes(When::Live);
        MaxTokens max_tokens: NonZeroU64, |options, most| options.budget.max_tokens = Some(most),
            Entry::new("max-tokens", "AGENTLOOP_MAX_TOKENS", "agentloop.maxTokens", "", "tokens a run may use, in and out together; empty = no limit")
                .flag(LIMITS, "N", "Tokens the run may use, in and out together")
                .argument("max_tokens", "The most tokens that the run may use, in and out together.")
                .changes(When::Live);
        MaxCost max_cost: Dollars, |options, most| options.budget.max_cost = Some(most),
            Entry::new("max-cost", "AGENTLOOP_MAX_COST", "agentloop.maxCost", "", "US dollars a run may cost; empty = no limit")
                .flag(LIMITS, "USD", "US dollars the run may cost, as the agents report them")
                .argument("max_cost", "The most US dollars that the run may cost, as the agents report them.")
                .changes(When::Live);
        Timeout timeout: Seconds, |options, timeout| options.agent_timeout = Some(timeout),
            Entry::new("timeout", "AGENTLOOP_TIMEOUT", "agentloop.timeout", "", "seconds one agent call may take; empty = no limit")
                .flag(LIMITS, "S", "Seconds one agent call may take")
                .argument("timeout", "The most seconds that one agent call may take.");
        NoWait no_wait: bool, |options, no_wait| options.no_wait = no_wait,
            Entry::new("no-wait", "AGENTLOOP_NO_WAIT", "agentloop.noWait", "false", "whether a usage limit ends a run instead of being waited out")
                .flag(LIMITS, "", "Stop at a usage limit instead of waiting until it resets")
                .argument("no_wait", "Whether to stop at a usage limit instead of waiting until it resets.");
        Jobs jobs: Jobs, |options, jobs| options.jobs = jobs,
            Entry::new("jobs", "AGENTLOOP_JOBS", "agentloop.jobs", "4", "workers at a time")
                .flag(LIMITS, "N", "Workers at a time [default: 4]")
                .switch("sequential", "1", "One worker at a time")
                .argument("jobs", "Workers at a time.");
        Patience patience: Patience, |options, patience| options.budget.patience = patience,
            Entry::new("patience", "AGENTLOOP_PATIENCE", "agentloop.patience", "5", "iterations without a change before a run is stopped as stuck; 0 = never")
                .flag(LIMITS, "N", "Iterations without a change before the run is stuck; 0 = never [default: 5]")
                .argument("patience", "Iterations without a change before the run is stopped as stuck; 0 is never.")
                .changes(When::Live);
        MaxSubgoals max_subgoals: Subgoals, |options, most| options.max_subgoals = most,
            Entry::new("max-subgoals", "AGENTLOOP_MAX_SUBGOALS", "agentloop.maxSubgoals", "32", "subgoals an iteration")
                .flag(LIMITS, "N", "Subgoals an iteration [default: 32]")
                .argument("max_subgoals", "Subgoals an iteration.")
                .changes(When::Start);
        VerifyTimeout check_timeout: Seconds, |options, timeout| options.check_timeout = Some(timeout),
            Entry::new("verify-timeout", "AGENTLOOP_VERIFY_TIMEOUT", "agentloop.verifyTimeout", "", "seconds one check may take; empty = no limit")
                .flag(LIMITS, "S", "Seconds one check may take")
                .argument("verify_timeout", "The most seconds that one verify command may take.")
                .changes(When::Start);
        Baseline baseline: bool, |options, baseline| options.baseline = baseline,
            Entry::new("baseline", "AGENTLOOP_BASELINE", "agentloop.baseline", "true", "whether the checks are run on the base too, before any work")
                .flag(LIMITS, "", "Run the checks on the base too, before any work; the default")
                .switch("no-baseline", "false", "Do not run the checks on the base")
                .argument("baseline", "Whether the verify commands run on the base too, before any work.")
                .changes(When::Start);
        Playwright playwright: bool, |options, playwright| options.set_playwright(playwright),
            Entry::new("playwright", "AGENTLOOP_PLAYWRIGHT", "agentloop.playwright", "false", "whether to test in a browser: adds the check 'npx playwright test'")
                .flag(LIMITS, "", "Test in a browser: adds the check 'npx playwright test'")
                .argument("playwright", "Whether to test in a browser: adds the verify command 'npx playwright test'.")
                .changes(When::Start);
    }
    settings {
        Copy: Vec<String>,
            Entry::new("copy", "AGENTLOOP_COPY", "agentloop.copy", "", "ignored files that worktrees get of your checkout, as in .gitignore; several");
        Setup: Vec<Check>,
            Entry::new("setup", "AGENTLOOP_SETUP", "agentloop.setup", "", "a command that is run once in each new worktree; may be set several times");
        SetupTimeout: Seconds,
            Entry::new("setup-timeout", "AGENTLOOP_SETUP_TIMEOUT", "agentloop.setupTimeout", "", "seconds one setup command may take; empty = no limit");
        SetupOn: Vec<String>,
            Entry::new("setup-on", "AGENTLOOP_SETUP_ON", "agentloop.setupOn", "", "files whose change runs the setup again; several; empty = manifests, lock files");
        CheckClean: bool,
            Entry::new("check-clean", "AGENTLOOP_CHECK_CLEAN", "agentloop.checkClean", "false", "whether ignored files are removed, and the setup run, before checks");
        CheckHome: Home,
            Entry::new("check-home", "AGENTLOOP_CHECK_HOME", "agentloop.checkHome", "shared", "the HOME of checks: shared (yours) or private (a new one)");
        Durable: Durability,
            Entry::new("durable", "AGENTLOOP_DURABLE", "agentloop.durable", "answers", "what is synced to disk at once: answers, always or never");
        Cleanup: Cleanup,
            Entry::new("cleanup", "AGENTLOOP_CLEANUP", "agentloop.cleanup", "auto", "when an ended run's worktree is removed: auto, always or never");
        WorktreeDir: String,
            Entry::new("worktree-dir", "AGENTLOOP_WORKTREE_DIR", "agentloop.worktreeDir", "", "where worktrees go; empty = beside the repository");
        Sign: bool,
            Entry::new("sign", "AGENTLOOP_SIGN", "agentloop.sign", "false", "whether checkpoints are signed, with the key that git signs with");
        AllowNested: bool,
            Entry::new("allow-nested", "AGENTLOOP_ALLOW_NESTED", "agentloop.allowNested", "false", "whether a worker may start runs of its own");
        PushNotes: bool,
            Entry::new("push-notes", "AGENTLOOP_PUSH_NOTES", "agentloop.pushNotes", "true", "whether the pre-push hook sends the records of what is pushed");
        Output: Output,
            Entry::new("output", "AGENTLOOP_OUTPUT", "agentloop.output", "redacted", "what is kept of the output of workers and checks: redacted or none");
        OutputRemote: String,
            Entry::new("output-remote", "AGENTLOOP_OUTPUT_REMOTE", "agentloop.outputRemote", "", "where 'sync --output' sends transcripts; empty = where the runs go");
        Prompts: String,
            Entry::new("prompts", "AGENTLOOP_PROMPTS", "agentloop.prompts", "", "a folder of prompts that replace the built-in ones");
        ReviewBytes: usize,
            Entry::new("review-bytes", "AGENTLOOP_REVIEW_BYTES", "agentloop.reviewBytes", "65536", "bytes of an iteration's diff that the reviewer sees");
    }
}
