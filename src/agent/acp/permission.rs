//! The replies to an agent that asks for permission.

use std::path::Path;

use serde_json::{Value, json};

use crate::agent::place;
use crate::run::goal::Permissions;

/// Kinds of tools that look at files or change them (the protocol's "Tool Calls", `ToolKind`). What is of another kind,
/// or of none, runs, fetches, or is unknown.
const ON_FILES: [&str; 6] = ["read", "search", "think", "edit", "delete", "move"];

/// Reports whether a tool of this kind may work on these files.
pub(super) fn permits(permissions: Permissions, kind: &str, root: &Path, paths: &[String]) -> bool {
    match permissions {
        Permissions::Ask => false,
        Permissions::Edit => ON_FILES.contains(&kind) && paths.iter().all(|path| place::inside(root, path).is_ok()),
        Permissions::All => true,
    }
}

/// The answer, from what there is to choose from: once rather than always, since an agent may remember for its user what
/// is always to be so. Whether it permits, and the reply.
pub(super) fn choose(permitted: bool, options: &Value) -> (bool, Value) {
    let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
    let offered = |kind: &str| options.iter().find(|option| option["kind"] == kind).map(|option| &option["optionId"]);
    let selected = |id: &Value| json!({"outcome": {"outcome": "selected", "optionId": id}});
    if permitted && let Some(id) = offered("allow_once").or_else(|| offered("allow_always")) {
        return (true, selected(id));
    }
    let refused = offered("reject_once").or_else(|| offered("reject_always"));
    (false, refused.map_or_else(cancelled, selected))
}

/// The answer to an agent whose turn is cancelled.
pub(super) fn cancelled() -> Value {
    json!({"outcome": {"outcome": "cancelled"}})
}
