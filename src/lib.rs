//! Git-native loop over coding agents.

pub mod error;
