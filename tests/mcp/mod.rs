//! The MCP server, driven as a process over standard input and output.

pub mod client;
mod conformance;
mod faults;
mod foreign;
mod hosts;
mod questions;
mod resources;
mod slow;
mod tools;
