//! Helpers that the tests of the agents share.

use super::*;
use crate::run::goal::{Permissions, Role};
use tokio_util::sync::CancellationToken;

/// A first call of `role` in `dir`.
pub(crate) fn request(role: Role, dir: &std::path::Path) -> Request {
    Request {
        role,
        system: format!("You are the {role} of a test."),
        prompt: "the task\n".to_owned(),
        model: None,
        cwd: dir.to_owned(),
        permissions: Permissions::Edit,
        timeout: None,
        tokens_left: None,
        env: vec![(crate::process::CLONE_VAR.into(), "here".into())],
        run: "a-run-1a2b3c".to_owned(),
        call: 1,
        iteration: 1,
        subgoal: (role == Role::Subagent).then(|| "s1".to_owned()),
        attempt: 1,
        transcript: None,
        cancel: CancellationToken::new(),
    }
}

/// The command of a shell script with this body, in `dir`.
pub(crate) fn script(dir: &std::path::Path, body: &str) -> String {
    let path = dir.join(format!("agent-{}", fastrand::u64(..)));
    std::fs::write(&path, format!("{body}\n")).expect("a script can be written");
    shell_words::join(["sh", path.to_string_lossy().as_ref()])
}
