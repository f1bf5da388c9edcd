//! What test binaries share.

pub mod agent_home;
pub mod model_server;
pub mod raw_http;
