//! `git agentloop run "goal"`: a deterministic loop over coding agents, recorded in git.
//!
//! ```text
//! goal ─▶ intake ─▶ plan ─▶ work ─▶ verify ─▶ review ─▶ checkpoint ─▶ done?
//!                    ▲     (fan-out)                                   │ no
//!                    └──────────────────── feedback ◀──────────────────┘
//! ```
//!
//! A run **is** the fold of its events ([`run::Run`]), and its next step is one pure function of it
//! ([`run::Run::next_step`]). The engine performs steps and records their outcomes as further events; a driver that
//! resumes a run is the same code after a replay. The events are in git notes, the work is on a branch: there is no
//! database, and `status`, `tail` and `result` read git.
//!
//! # Drive a run from a program
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
//! # Write your own backend
//!
//! A backend is one method. It gets a role's instructions and a task, and answers with text; its changes to the files in
//! `request.cwd` are the work.
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
//! A module uses only those below it in this table, and `tests/layers.rs` enforces that. It also fails on import circles of
//! files, except between a file and its own submodules.
//!
//! | module | what it is | changes that belong there |
//! | --- | --- | --- |
//! | [`cli`] | surface: flags, help, terminal output | a verb, a flag, a line of output |
//! | [`app`] | one function a verb; the only place that picks implementations | the actions and the checks of a verb |
//! | `engine` | performs steps through the three seams below | how agents are called, checks run, events recorded |
//! | [`agent`] | seam 1: [`agent::Agent`], a file a family of backends, the prompts | a backend, a prompt |
//! | [`interaction`] | seam 2: questions to the user | another way to ask |
//! | [`ledger`] | seam 3: [`ledger::Ledger`] in git and in memory; the only user of `gix` | refs, notes, commits, worktrees |
//! | [`host`] | state that one user's runs share on a machine: the private store of a clone | state outside of the record |
//! | `options` | one table of options and settings; flag > environment > `git config agentloop.*` > default | an option, a setting |
//! | `process` | the only place that starts processes, and that stops them with all their descendants | limits, signals |
//! | `redact` | removes secrets from the record: the table of their forms, texts, streams | a form of a secret |
//! | [`run`] | the pure core: events, the fold, the decision, the views | the decisions of the loop, the content of the record |
//! | [`error`] | the error type: what went wrong, why, and what to do next | |
//!
//! # The record
//!
//! | ref | holds |
//! | --- | --- |
//! | `refs/heads/agentloop/<run>` | a start commit, then a checkpoint commit an iteration (`run::message`) |
//! | `refs/notes/agentloop/<run>` | the event log ([`run::event`]), a JSON line an event, in a note on the commit that was the newest then; each notes commit has the state after it in trailers ([`run::Snapshot`]) |
//! | `refs/agentloop/run/<run>/output` | transcripts of workers and checks |
//! | `refs/agentloop/rescue/<run>/<time>` | work that would otherwise be lost |

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
