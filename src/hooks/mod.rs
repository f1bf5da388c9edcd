//! git's hooks: putting them in place, taking them away, and what they do.
//!
//! A hook is one line of shell that calls this program (`hooks/` in this project's source): where the program is missing
//! or broken, the shell says so in a line and git goes on.

mod act;
mod beside;
mod config;
mod place;
mod shim;

pub use self::act::act;
pub use self::place::{Hook, Scope, Standing, install, status, uninstall};
