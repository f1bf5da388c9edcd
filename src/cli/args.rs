//! The command line as clap reads it. The words here are what `-h` prints.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::run::goal::{Check, Permissions};
use crate::settings::{check, seconds, whole};

/// What stands before an argument that begins with a dash and is no flag; no argument can hold it by itself.
pub(super) const MARK: char = '\0';

const EXAMPLE: &str = "Example: git agentloop run \"add a /health endpoint\" --verify \"cargo test\"";

const RUN_EXAMPLES: &str = "\
Examples:
  git agentloop run \"add a /health endpoint\" --verify \"cargo test\"
  git agentloop run -F goal.md --max-iterations 8 --max-seconds 3600 --detach
  git agentloop run \"see how it works\" --backend mock

Exit codes: 0 goal complete, 1 stopped by a limit, 2 error, 3 questions wait,
4 cancelled. Settings for every option: 'git agentloop config'.";

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
    #[command(after_help = RUN_EXAMPLES)]
    Run(Box<RunArgs>),
    /// Where a run stands
    #[command(after_help = "Example:\n  git agentloop status fix-login-3k9vqp --json")]
    Status(RunJson),
    /// Every run, newest first
    #[command(after_help = "Example:\n  git agentloop list")]
    List(Json),
    /// What happened in a run; with -f, what happens
    #[command(after_help = "Example:\n  git agentloop tail -f")]
    Tail(TailArgs),
    /// What a run came to
    #[command(after_help = "\
Examples:
  git agentloop result
  git agentloop result fix-login-3k9vqp --wait --timeout 600 --json

The exit code is the run's: 0 complete (or still running), 1 stopped by a
limit, 2 failed, 3 questions wait, 4 cancelled.")]
    Result(ResultArgs),
    /// What a worker printed, to the letter
    #[command(after_help = "\
Examples:
  git agentloop output fix-login-3k9vqp             lists the transcripts
  git agentloop output fix-login-3k9vqp iter1/s1    prints one")]
    Output(OutputArgs),
    /// Answer the questions that a run waits with
    #[command(after_help = "Example:\n  git agentloop answer fix-login-3k9vqp \"use OAuth\" \"keep the old page\"")]
    Answer(AnswerArgs),
    /// Go on with a run: after a crash, a cancel or a spent budget
    #[command(after_help = "Example:\n  git agentloop resume fix-login-3k9vqp --max-iterations 8")]
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
    /// Every setting, its value and where it comes from
    #[command(after_help = "Examples:\n  git agentloop config\n  git config agentloop.maxIterations 8")]
    Config(Json),
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

/// Options of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Go on until the run ends
    #[arg(short, long)]
    pub follow: bool,
    /// Start after this event
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cursor: u64,
    /// Print at most this many events
    #[arg(long, value_name = "N", value_parser = at_least_one_usize)]
    pub limit: Option<usize>,
    /// Print JSON; with -f, one event a line
    #[arg(long)]
    pub json: bool,
}

/// Options of `result`.
#[derive(Debug, Args)]
pub struct ResultArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// Wait until the run ends, or waits for answers
    #[arg(long)]
    pub wait: bool,
    /// Wait no longer than this many seconds
    #[arg(long, value_name = "S", requires = "wait", value_parser = seconds)]
    pub timeout: Option<f64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Options of `output`.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// The worker, like iter1/s1 or iter1/s1/2 for its second attempt
    #[arg(value_name = "ITER/SUBGOAL", value_parser = text)]
    pub which: Option<String>,
    /// Go on while the worker runs
    #[arg(short, long, requires = "which")]
    pub follow: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "follow")]
    pub json: bool,
}

/// Options of `answer`.
#[derive(Debug, Args)]
pub struct AnswerArgs {
    /// The run's id or its beginning, or the token that came with the questions
    #[arg(value_parser = text)]
    pub run: String,
    /// The answers, one a question, in order
    #[arg(value_name = "TEXT", required = true, value_parser = text)]
    pub answers: Vec<String>,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}

/// Options of `resume`.
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// The run's id or its beginning [default: the newest run]
    #[arg(value_parser = text)]
    pub run: Option<String>,
    /// What may change.
    #[command(flatten)]
    pub common: Common,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}

/// Options of `run`.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub struct RunArgs {
    /// What is to be reached, in your words; '-' reads it from stdin
    #[arg(value_parser = text)]
    pub goal: Option<String>,
    /// Read the goal from a file; '-' is stdin
    #[arg(short = 'F', long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "goal")]
    pub goal_file: Option<PathBuf>,
    /// What must hold for the goal to be reached [default: an agent proposes]
    #[arg(long, value_name = "TEXT", value_parser = text, conflicts_with = "criteria_file")]
    pub criteria: Option<String>,
    /// Read the criteria from a file; '-' is stdin
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub criteria_file: Option<PathBuf>,
    /// The revision to start from [default: HEAD]
    #[arg(long, value_name = "REV", value_parser = text)]
    pub base: Option<String>,
    /// What to call the run [default: words of the goal]
    #[arg(long, value_parser = text)]
    pub name: Option<String>,
    /// Put the agent's questions on record and wait for 'answer'
    #[arg(long, conflicts_with = "non_interactive")]
    pub ask: bool,
    /// Answer the questions of a waiting run, with --answer
    #[arg(long, value_name = "TOKEN", value_parser = text, requires = "answers", conflicts_with_all = ["goal", "goal_file"])]
    pub resume: Option<String>,
    /// The answers, one a question, in order
    #[arg(long = "answer", value_name = "TEXT", num_args = 1.., requires = "resume", value_parser = text)]
    pub answers: Vec<String>,
    /// Let agents edit your checkout instead of a worktree
    #[arg(long)]
    pub no_isolate: bool,
    /// Permit everything even in your checkout
    #[arg(long)]
    pub force: bool,
    /// Subgoals an iteration [default: 32]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Checks and limits")]
    pub max_subgoals: Option<u32>,
    /// Seconds one check may take
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Checks and limits")]
    pub verify_timeout: Option<f64>,
    /// Test in a browser: adds the check 'npx playwright test'
    #[arg(long, help_heading = "Checks and limits")]
    pub playwright: bool,
    /// What a resumed run can change too.
    #[command(flatten)]
    pub common: Common,
    /// How it is driven.
    #[command(flatten)]
    pub driving: Driving,
}

/// Options that a run is started with and that a resumed run can change.
#[derive(Debug, Default, Args)]
pub struct Common {
    /// The agent: auto, or a name that 'git agentloop backends' lists
    #[arg(long, value_name = "NAME", value_parser = text, help_heading = "Agents")]
    pub backend: Option<String>,
    /// The model that the agent uses
    #[arg(long, value_parser = text, help_heading = "Agents")]
    pub model: Option<String>,
    /// What agents may do unasked: ask, edit or all [default: edit]
    #[arg(long, value_name = "WHAT", value_parser = permissions, help_heading = "Agents")]
    pub permissions: Option<Permissions>,
    /// The same as --permissions all
    #[arg(long, conflicts_with = "permissions", help_heading = "Agents")]
    pub skip_permissions: bool,
    /// A command that must pass; repeatable, run without a shell
    #[arg(long, value_name = "CMD", value_parser = verify, help_heading = "Checks and limits")]
    pub verify: Vec<Check>,
    /// Iterations the run may take [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Checks and limits")]
    pub max_iterations: Option<u32>,
    /// Further attempts at a subgoal after its first [default: 1]
    #[arg(long, value_name = "N", value_parser = at_least_none, help_heading = "Checks and limits")]
    pub max_task_retries: Option<u32>,
    /// Seconds the run may take
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Checks and limits")]
    pub max_seconds: Option<f64>,
    /// Agent calls the run may make
    #[arg(long, value_name = "N", value_parser = at_least_one_u64, help_heading = "Checks and limits")]
    pub max_agent_calls: Option<u64>,
    /// Tokens the run may use, in and out together
    #[arg(long, value_name = "N", value_parser = at_least_one_u64, help_heading = "Checks and limits")]
    pub max_tokens: Option<u64>,
    /// US dollars the run may cost, as the agents report them
    #[arg(long, value_name = "USD", value_parser = dollars, help_heading = "Checks and limits")]
    pub max_cost: Option<f64>,
    /// Seconds one agent call may take
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "Checks and limits")]
    pub timeout: Option<f64>,
    /// Workers at a time [default: 4]
    #[arg(long, value_name = "N", value_parser = at_least_one, help_heading = "Checks and limits")]
    pub jobs: Option<u32>,
    /// One worker at a time
    #[arg(long, conflicts_with = "jobs", help_heading = "Checks and limits")]
    pub sequential: bool,
    /// Iterations without a change before the run is stuck; 0 = never [default: 5]
    #[arg(long, value_name = "N", value_parser = at_least_none, help_heading = "Checks and limits")]
    pub patience: Option<u32>,
}

/// How a run is driven and shown.
#[derive(Clone, Copy, Debug, Args)]
#[allow(clippy::struct_excessive_bools)] // each is a flag
pub struct Driving {
    /// Return at once and let the run go on by itself
    #[arg(short, long, help_heading = "Output")]
    pub detach: bool,
    /// Ask nothing, even on a terminal
    #[arg(long, help_heading = "Output")]
    pub non_interactive: bool,
    /// Print the result as JSON
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// A line of JSON on stderr for every iteration
    #[arg(long, help_heading = "Output")]
    pub progress: bool,
    /// Show nothing while the run goes on
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

/// An argument as it was given.
#[allow(clippy::unnecessary_wraps)] // what a value parser looks like
fn text(text: &str) -> Result<String, String> {
    Ok(unmarked(text).to_owned())
}

fn unmarked(text: &str) -> &str {
    text.strip_prefix(MARK).unwrap_or(text)
}

fn verify(text: &str) -> Result<Check, String> {
    check(unmarked(text))
}

fn permissions(text: &str) -> Result<Permissions, String> {
    text.parse()
}

fn at_least_none(text: &str) -> Result<u32, String> {
    whole(unmarked(text), 0)
}

fn at_least_one(text: &str) -> Result<u32, String> {
    whole(unmarked(text), 1)
}

fn at_least_one_u64(text: &str) -> Result<u64, String> {
    whole(unmarked(text), 1)
}

fn at_least_one_usize(text: &str) -> Result<usize, String> {
    whole(unmarked(text), 1)
}

fn dollars(text: &str) -> Result<f64, String> {
    seconds(unmarked(text)).map_err(|_| format!("'{}' is not an amount above 0", unmarked(text)))
}
