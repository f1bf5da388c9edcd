//! `git agentloop run "goal"`: a deterministic loop over coding agents, recorded in git.
//!
//! ```text
//! goal ─▶ intake ─▶ plan ─▶ work ─▶ verify ─▶ review ─▶ checkpoint ─▶ done?
//!                    ▲     (fan-out)                                   │ no
//!                    └──────────────────── feedback ◀──────────────────┘
//! ```
//!
//! A run **is** the fold of its events ([`run::Run`]), and what it does next is one pure function of it
//! ([`run::Run::next_step`]). The engine performs steps and reports what came of them as further events; a driver that
//! resumes a run is the same code after a replay. The events are in git notes, the work is on a branch: there is no
//! database, and `status`, `tail` and `result` read git.
//!
//! # A run, from a program
//!
//! ```
//! use git_agentloop::app::{self, Drive, NewRun, Site};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let here = home.path().join("repository");
//! # let git = |words: &[&str]| std::process::Command::new("git").args(words).status();
//! # git(&["init", "-q", here.to_str().unwrap()])?;
//! # git(&["-C", here.to_str().unwrap(), "-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgSign=false", "commit", "-q", "--allow-empty", "-m", "first"])?;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let site = Site::open(Some(&here))?;
//! let result = app::run(&site, NewRun::new("see the loop", "mock"), Drive::default()).await?;
//! assert!(result.completed);
//! println!("{} is on {}", result.summary, result.worktree.unwrap().branch);
//! # Ok::<(), git_agentloop::error::Error>(())
//! # })?;
//! # Ok(())
//! # }
//! ```
//!
//! # A backend of one's own
//!
//! A backend is one method. It gets a role's instructions and a task, and answers with text; what it does to the files
//! in `request.cwd` is the work.
//!
//! ```
//! use git_agentloop::agent::{Agent, Reply, Request, Response};
//! use git_agentloop::run::goal::Role;
//!
//! struct Mine;
//!
//! impl Agent for Mine {
//!     fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
//!         Box::pin(async move {
//!             Ok(Response::text(match request.role {
//!                 Role::Decomposer => r#"["write a greeting"]"#,
//!                 Role::Reviewer => r#"{"gates_passed": true, "goal_complete": true, "issues": []}"#,
//!                 _ => "done",
//!             }))
//!         })
//!     }
//! }
//! # use git_agentloop::app::{self, Drive, NewRun, Site};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let home = tempfile::tempdir()?;
//! # let here = home.path().join("repository");
//! # let git = |words: &[&str]| std::process::Command::new("git").args(words).status();
//! # git(&["init", "-q", here.to_str().unwrap()])?;
//! # git(&["-C", here.to_str().unwrap(), "-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgSign=false", "commit", "-q", "--allow-empty", "-m", "first"])?;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//!
//! let site = Site::open(Some(&here))?.with_agent("mine", std::sync::Arc::new(Mine));
//! let result = app::run(&site, NewRun::new("greet the world", "mine"), Drive::default()).await?;
//! # assert!(result.completed);
//! # Ok::<(), git_agentloop::error::Error>(())
//! # })?;
//! # Ok(())
//! # }
//! ```
//!
//! # Where a change goes
//!
//! Arrows point down only, and `tests/layers.rs` holds them to it: a module names those below it in this table. It also
//! refuses files that need each other in a circle, but for a file and its own submodules.
//!
//! | module | what it is | a change that belongs there |
//! | --- | --- | --- |
//! | [`cli`] | surface: flags, help, what a terminal shows | a verb, a flag, a line of output |
//! | [`app`] | one function a verb; the only place that picks implementations | what a verb does, what is refused |
//! | `engine` | performs steps through the three seams below | how agents are called, checks run, events recorded |
//! | [`agent`] | seam 1: [`agent::Agent`], a file a family of backends, the prompts | a backend, a prompt |
//! | [`interaction`] | seam 2: where the user answers | another way to ask |
//! | [`ledger`] | seam 3: [`ledger::Ledger`] in git and in memory; the only user of `gix` | refs, notes, commits, worktrees |
//! | [`host`] | what one user's runs share on a machine: the private store of a clone | what is kept outside the record |
//! | `options` | one table of options and settings; flag > environment > `git config agentloop.*` > default | an option, a setting |
//! | `process` | the only place that starts processes, and that stops them with all their descendants | limits, signals |
//! | `redact` | keeps secrets off the record: the table of their shapes, texts, streams | a shape of a secret |
//! | [`run`] | the pure core: events, the fold, the decision, the views | what the loop decides, what is on record |
//! | [`error`] | what went wrong, why, and what to do next | |
//!
//! # The record
//!
//! | ref | holds |
//! | --- | --- |
//! | `refs/heads/agentloop/<run>` | a start commit, then a checkpoint commit an iteration (`run::message`) |
//! | `refs/notes/agentloop/<run>` | the event log ([`run::event`]), a JSON line an event, noted on the commit that was newest when it happened; each notes commit carries the state after it as trailers ([`run::Snapshot`]) |
//! | `refs/agentloop/run/<run>/output` | transcripts of workers and checks |
//! | `refs/agentloop/rescue/<run>/<time>` | what would otherwise have been lost |

pub mod agent;
pub mod app;
pub mod cli;
mod engine;
pub mod error;
mod hooks;
pub mod host;
pub mod interaction;
pub mod ledger;
pub mod mcp;
mod options;
mod process;
mod redact;
pub mod run;
