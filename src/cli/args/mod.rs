//! Definition of the command line for clap. The doc comments of arguments are the texts that `-h` prints.

mod flags;
mod fork;
mod hooks;
mod install;
mod mcp;
mod read;
mod review;
mod run;
mod share;
mod take;
mod value;

use clap::{Args, Parser, Subcommand};

pub use self::flags::Flags;
pub use self::fork::{BisectArgs, ForkArgs, SteerArgs};
pub use self::hooks::{HookArgs, HooksArgs, HooksVerb};
pub use self::install::{CompleteArgs, InstallArgs};
pub use self::mcp::{Host, McpArgs};
pub use self::read::{ListArgs, OutputArgs, ResultArgs, StatusArgs, TailArgs};
pub use self::review::{DiffArgs, LogArgs, ShowArgs};
pub use self::run::{AnswerArgs, Driving, ResumeArgs, RunArgs};
pub use self::share::SyncArgs;
pub use self::take::{DiscardArgs, MergeArgs, PruneArgs, RestoreArgs};
pub(super) use self::value::MARK;
use self::value::text;

const EXAMPLE: &str = "Example: git agentloop run \"add a /health endpoint\" --verify \"cargo test\"";

/// Drives coding agents in a loop until the goal is reached; the record is git
#[derive(Debug, Parser)]
#[command(
    name = "git-agentloop",
    bin_name = "git agentloop",
    version,
    disable_help_subcommand = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    max_term_width = 80,
    after_help = EXAMPLE
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// Say on stderr what is being done inside
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Start a run and see it to its end
    #[command(after_help = run::EXAMPLES)]
    Run(Box<RunArgs>),
    /// Where a run stands
    #[command(after_help = read::STATUS_EXAMPLES)]
    Status(StatusArgs),
    /// Every run, newest first
    #[command(after_help = read::LIST_EXAMPLES)]
    List(ListArgs),
    /// What happened in a run; with -f, what happens
    #[command(after_help = "Example:\n  git agentloop tail -f")]
    Tail(TailArgs),
    /// What a run came to
    #[command(after_help = "\
Examples:
  git agentloop result
  git agentloop result fix-login-3k9vqp --wait --timeout 600 --json

The exit code is the run's: 0 complete (or still running), 1 stopped by a
limit, 2 failed, 3 questions wait, 4 cancelled; 124 where --timeout ran out.")]
    Result(ResultArgs),
    /// A run at a glance: verdict, iterations, files, cost, what to do next
    #[command(after_help = review::SHOW_EXAMPLES)]
    Show(ShowArgs),
    /// git's own log of a run's branch, its events beside its commits
    #[command(after_help = review::LOG_EXAMPLES)]
    Log(LogArgs),
    /// What a run changed, or one iteration of it
    #[command(after_help = review::DIFF_EXAMPLES)]
    Diff(DiffArgs),
    /// Take a run's work into your branch
    #[command(after_help = take::MERGE_EXAMPLES)]
    Merge(MergeArgs),
    /// Take a run out of the repository; its work is kept on rescue refs
    #[command(after_help = take::DISCARD_EXAMPLES)]
    Discard(DiscardArgs),
    /// Bring back a run that was discarded or pruned
    #[command(after_help = take::RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
    /// Remove worktrees and branches of merged runs; says which unless --yes
    #[command(after_help = take::PRUNE_EXAMPLES)]
    Prune(PruneArgs),
    /// Give a live run's next plan guidance
    #[command(after_help = fork::STEER_EXAMPLES)]
    Steer(SteerArgs),
    /// Start a run from where another one was, with another goal or budget
    #[command(after_help = fork::FORK_EXAMPLES)]
    Fork(Box<ForkArgs>),
    /// Put the manual and the shells' completions where they are looked for
    #[command(after_help = install::EXAMPLES)]
    Install(InstallArgs),
    /// What may come next on a command line; not for people
    #[command(hide = true, after_help = "Example:\n  git agentloop install    has shells call it")]
    Complete(CompleteArgs),
    /// Which iteration of a run broke a check
    #[command(after_help = fork::BISECT_EXAMPLES)]
    Bisect(BisectArgs),
    /// Exchange runs with a remote
    #[command(after_help = share::EXAMPLES)]
    Sync(SyncArgs),
    /// Hooks that keep runs and their records together with your commits
    #[command(after_help = hooks::EXAMPLES)]
    Hooks(HooksArgs),
    /// What git's hooks call; not for people
    #[command(hide = true, after_help = "Example:\n  git agentloop hooks install    has git call it")]
    Hook(HookArgs),
    /// What a worker or a check printed; an agent's stream as text
    #[command(after_help = "\
Examples:
  git agentloop output fix-login-3k9vqp                 lists the transcripts
  git agentloop output fix-login-3k9vqp iter1/s1        prints a worker's
  git agentloop output fix-login-3k9vqp iter1/check1    prints a check's
  git agentloop output -f iter1/s1                      follows the newest run's

iter0/check1 is what the first check printed before any work.")]
    Output(OutputArgs),
    /// Answer the questions that a run waits with
    #[command(after_help = "Example:\n  git agentloop answer fix-login-3k9vqp \"use OAuth\" \"keep the old page\"")]
    Answer(AnswerArgs),
    /// Go on with a run: after a crash, a cancel or a spent budget
    #[command(after_help = "\
Examples:
  git agentloop resume
  git agentloop resume fix-login-3k9vqp --max-iterations 8

What is not given stays as the run has it. One that is running takes a new
budget too, and nothing else: --max-iterations, --max-seconds and their like.")]
    Resume(Box<ResumeArgs>),
    /// Stop a run; the work so far is committed
    #[command(after_help = "Example:\n  git agentloop cancel fix-login-3k9vqp")]
    Cancel(RunJson),
    /// The agents that can be driven from here
    #[command(after_help = "\
Examples:
  git agentloop backends
  git config agentloop.backend.mine.command 'my-agent --ask {prompt}'")]
    Backends(Json),
    /// Whether everything is there that a run needs, and what to do if not
    #[command(after_help = "\
Examples:
  git agentloop doctor
  git agentloop doctor --json | jq -r '.checks[] | select(.state != \"ok\").hint'

No agent is asked anything. The exit code is 0 where a run can begin, else 2.")]
    Doctor(Json),
    /// Every setting, its value and where it comes from
    #[command(after_help = "Examples:\n  git agentloop config\n  git config agentloop.maxIterations 8")]
    Config(Json),
    /// Serve this repository's runs to agents, over MCP
    #[command(after_help = mcp::EXAMPLES)]
    Mcp(McpArgs),
    /// What the agents are told, a role each; --dump writes it to be edited
    #[command(after_help = "\
Examples:
  git agentloop prompts reviewer
  git agentloop prompts --dump prompts && git config agentloop.prompts prompts

A file <role>.md in the folder that 'agentloop.prompts' names replaces the
built-in text; files that are there already are left as they are.")]
    Prompts(PromptsArgs),
    /// The driver of a detached run; not for people
    #[command(hide = true, after_help = "Example:\n  git agentloop run --detach \"a goal\"    starts one")]
    Drive,
}

/// Options of verbs that read.
#[derive(Debug, Args)]
pub struct Json {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `prompts`.
#[derive(Debug, Args)]
pub struct PromptsArgs {
    /// Print what this role is told [default: the names of all roles]
    #[arg(value_parser = text, conflicts_with = "dump")]
    pub role: Option<String>,
    /// Write the built-in texts to this folder, a file a role
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub dump: Option<std::path::PathBuf>,
}

/// Options of verbs that read one run.
#[derive(Debug, Args)]
pub struct RunJson {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
