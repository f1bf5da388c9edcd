//! Marks by which a process is known to belong to a run: variables of its environment.

/// Environment variable that names the run of a process.
pub const RUN_VAR: &str = "AGENTLOOP_RUN";
/// Environment variable that names the call of a process.
pub(super) const CALL_VAR: &str = "AGENTLOOP_CALL";
/// Environment variable that names the clone of the run: copies of a repository have runs with the same id.
pub const CLONE_VAR: &str = "AGENTLOOP_CLONE";

/// The run and the call of a tree of processes. They are in its environment as [`RUN_VAR`] and [`CALL_VAR`], so that a later
/// driver finds its leftovers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Id of the run.
    pub run: String,
    /// Name of the call, unique within the run.
    pub call: String,
}
