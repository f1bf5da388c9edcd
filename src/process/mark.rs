//! How a process is known to be of a run: by what its environment holds.

/// The environment variable that names the run a process belongs to.
pub const RUN_VAR: &str = "AGENTLOOP_RUN";
/// The environment variable that names the call a process belongs to.
pub(super) const CALL_VAR: &str = "AGENTLOOP_CALL";
/// The environment variable that tells in which clone of a repository the run is: copies have runs of the same id.
pub const CLONE_VAR: &str = "AGENTLOOP_CLONE";

/// The run and the call that a tree of processes belongs to. It travels in their environment as [`RUN_VAR`] and
/// [`CALL_VAR`], so that a later process of ours finds what is left of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The run's id.
    pub run: String,
    /// The call's name, unique within the run.
    pub call: String,
}
