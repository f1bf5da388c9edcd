//! Seam 1: what answers a role.
//!
//! A backend is one method: [`Agent::run`]. The three roles of the loop are the same agent with other prompts.

mod acp;
pub mod api;
mod backend;
mod claude;
mod command;
mod explain;
pub(crate) mod json;
mod known;
mod mock;
mod parse;
mod place;
mod presets;
pub(crate) mod probe;
mod program;
pub(crate) mod prompts;
pub(crate) mod registry;
mod reset;
mod story;
pub(crate) mod stream;
mod template;

#[cfg(test)]
pub(crate) mod tests;

pub use self::backend::{Agent, Reply, Request, Response};
pub use self::known::Can;
pub use crate::process::Transcript;
