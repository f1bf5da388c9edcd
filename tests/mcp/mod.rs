//! The MCP server, driven as a process over standard input and output.

mod client;
mod faults;
mod foreign;
mod hosts;
mod questions;
mod resources;
mod tools;
