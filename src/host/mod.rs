//! State that one user's runs share on a machine.

pub mod authority;
mod private;
pub mod store;
