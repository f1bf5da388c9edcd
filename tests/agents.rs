//! Agents against the test model server.

#[path = "agents/real.rs"]
mod real;
mod support;
#[path = "agents/wire.rs"]
mod wire;
