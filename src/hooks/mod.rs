//! git hooks: their installation, their removal and their actions.
//!
//! A hook is one line of shell that calls this program (`hooks/` in this project's source): if the program is missing or
//! broken, the shell prints a line and git continues.

mod act;
mod beside;
mod config;
mod place;
mod shim;

pub use self::act::act;
pub use self::place::{Hook, Scope, Standing, install, status, uninstall};
