//! The pure core: a run *is* the fold of its events, and its next step is a pure function of the run.
//!
//! There is no I/O, no clock and no async code here. [`Run::replay`] and [`Run::apply`] fold; [`Run::next_step`] decides (in
//! `step.rs`).

pub mod amount;
mod choice;
pub mod contract;
pub mod event;
mod evidence;
mod fold;
pub mod folder;
pub mod goal;
pub mod id;
pub(crate) mod message;
mod plan;
mod proof;
mod range;
pub mod retries;
pub mod sanitize;
pub mod shadow;
mod snapshot;
mod state;
mod step;
pub mod text;
mod timestamp;
pub mod view;
mod word;
pub(crate) mod words;
pub mod work;

pub use self::snapshot::{Awaited, Snapshot, State};
pub use self::state::{
    Checkpoint, Conflict, Ended, IntakeFacts, Integration, Iteration, Pause, RoleFailure, Run, Session, Task,
};
pub use self::step::{Intake, Phase, Step};
pub use self::word::Word;
