//! `git agentloop`: a deterministic loop over coding agents, recorded in git.

pub mod agent;
pub mod error;
pub mod interaction;
pub mod ledger;
pub mod run;
