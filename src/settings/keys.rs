//! The table of settings: each key once, with its flag, variable, default and meaning.

/// A setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its flag's name, without dashes, where it has a flag.
    pub name: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// Its key in git's configuration.
    pub config: &'static str,
    /// Its value where nothing is set; empty is none.
    pub default: &'static str,
    /// What it is, in a line.
    pub meaning: &'static str,
}

/// Defines every key once; `Index` numbers them.
macro_rules! keys {
    ($($id:ident $name:literal $env:literal $config:literal $default:literal $meaning:literal;)*) => {
        /// A setting's place in the table.
        #[derive(Clone, Copy)]
        pub(super) enum Index { $($id,)* }

        /// Every setting, in the order of `git agentloop config`.
        pub const KEYS: &[Key] =
            &[$(Key { name: $name, env: $env, config: $config, default: $default, meaning: $meaning },)*];
    };
}

keys! {
    Backend "backend" "AGENTLOOP_BACKEND" "agentloop.backend" "auto" "the agent that plans, works and reviews";
    Model "model" "AGENTLOOP_MODEL" "agentloop.model" "" "the model that the agent uses; empty = its own choice";
    Planner "planner" "AGENTLOOP_PLANNER" "agentloop.planner" "" "who plans, as backend or backend/model; empty = the agent";
    Worker "worker" "AGENTLOOP_WORKER" "agentloop.worker" "" "who works on the subgoals; empty = the agent";
    Reviewer "reviewer" "AGENTLOOP_REVIEWER" "agentloop.reviewer" "" "who reviews; empty = the agent";
    Integrator "integrator" "AGENTLOOP_INTEGRATOR" "agentloop.integrator" ""
        "who resolves conflicts between workers; empty = the agent";
    NoWait "no-wait" "AGENTLOOP_NO_WAIT" "agentloop.noWait" "false"
        "whether a usage limit ends a run instead of being waited out";
    MaxIterations "max-iterations" "AGENTLOOP_MAX_ITERATIONS" "agentloop.maxIterations" "4" "iterations a run may take";
    MaxTaskRetries "max-task-retries" "AGENTLOOP_MAX_TASK_RETRIES" "agentloop.maxTaskRetries" "1"
        "further attempts at a subgoal after its first";
    MaxSeconds "max-seconds" "AGENTLOOP_MAX_SECONDS" "agentloop.maxSeconds" "" "seconds a run may take; empty = no limit";
    MaxAgentCalls "max-agent-calls" "AGENTLOOP_MAX_AGENT_CALLS" "agentloop.maxAgentCalls" ""
        "agent calls a run may make; empty = no limit";
    MaxTokens "max-tokens" "AGENTLOOP_MAX_TOKENS" "agentloop.maxTokens" ""
        "tokens a run may use, in and out together; empty = no limit";
    MaxCost "max-cost" "AGENTLOOP_MAX_COST" "agentloop.maxCost" "" "US dollars a run may cost; empty = no limit";
    Timeout "timeout" "AGENTLOOP_TIMEOUT" "agentloop.timeout" "" "seconds one agent call may take; empty = no limit";
    Verify "verify" "AGENTLOOP_VERIFY" "agentloop.verify" "" "a command that must pass; may be set several times";
    VerifyTimeout "verify-timeout" "AGENTLOOP_VERIFY_TIMEOUT" "agentloop.verifyTimeout" ""
        "seconds one check may take; empty = no limit";
    Recheck "recheck" "AGENTLOOP_RECHECK" "agentloop.recheck" "false"
        "whether a check is run again on a tree that it passed on before";
    Protect "protect" "AGENTLOOP_PROTECT" "agentloop.protect" ""
        "files that workers may not change, as git pathspecs; may be set several times";
    AllowProtected "allow-protected" "AGENTLOOP_ALLOW_PROTECTED" "agentloop.allowProtected" "false"
        "whether workers may change protected files all the same";
    Permissions "permissions" "AGENTLOOP_PERMISSIONS" "agentloop.permissions" "edit"
        "what agents may do unasked: ask, edit or all";
    Isolation "isolation" "AGENTLOOP_ISOLATION" "agentloop.isolation" "worktree"
        "where workers work: worktree (each its own), shared or none (your checkout)";
    Jobs "jobs" "AGENTLOOP_JOBS" "agentloop.jobs" "4" "workers at a time";
    MaxSubgoals "max-subgoals" "AGENTLOOP_MAX_SUBGOALS" "agentloop.maxSubgoals" "32" "subgoals an iteration";
    Patience "patience" "AGENTLOOP_PATIENCE" "agentloop.patience" "5"
        "iterations without a change before a run is stopped as stuck; 0 = never";
    Copy "copy" "AGENTLOOP_COPY" "agentloop.copy" ""
        "ignored files that worktrees get of your checkout, as in .gitignore; several";
    Setup "setup" "AGENTLOOP_SETUP" "agentloop.setup" ""
        "a command that is run once in each new worktree; may be set several times";
    SetupTimeout "setup-timeout" "AGENTLOOP_SETUP_TIMEOUT" "agentloop.setupTimeout" ""
        "seconds one setup command may take; empty = no limit";
    Durable "durable" "AGENTLOOP_DURABLE" "agentloop.durable" "answers"
        "what is synced to disk at once: answers, always or never";
    Cleanup "cleanup" "AGENTLOOP_CLEANUP" "agentloop.cleanup" "auto"
        "when an ended run's worktree is removed: auto, always or never";
    WorktreeDir "worktree-dir" "AGENTLOOP_WORKTREE_DIR" "agentloop.worktreeDir" ""
        "where worktrees go; empty = beside the repository";
    Sign "sign" "AGENTLOOP_SIGN" "agentloop.sign" "false" "whether checkpoints are signed, with the key that git signs with";
    AllowNested "allow-nested" "AGENTLOOP_ALLOW_NESTED" "agentloop.allowNested" "false"
        "whether a worker may start runs of its own";
    PushNotes "push-notes" "AGENTLOOP_PUSH_NOTES" "agentloop.pushNotes" "true"
        "whether the pre-push hook sends the records of what is pushed";
    OutputRemote "output-remote" "AGENTLOOP_OUTPUT_REMOTE" "agentloop.outputRemote" ""
        "where 'sync --output' sends transcripts; empty = where the runs go";
    Prompts "prompts" "AGENTLOOP_PROMPTS" "agentloop.prompts" "" "a folder of prompts that replace the built-in ones";
    ReviewBytes "review-bytes" "AGENTLOOP_REVIEW_BYTES" "agentloop.reviewBytes" "65536"
        "bytes of an iteration's diff that the reviewer sees";
}
