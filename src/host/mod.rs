//! What one user's runs share on a machine.

mod private;
pub mod store;
