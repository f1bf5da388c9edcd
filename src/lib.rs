//! `git agentloop`: a deterministic loop over coding agents, recorded in git.

pub mod agent;
pub mod app;
pub mod cli;
pub mod engine;
pub mod error;
pub mod interaction;
pub mod ledger;
pub mod process;
pub mod run;
pub mod settings;
