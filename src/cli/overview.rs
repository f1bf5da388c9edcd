//! Makes the one screen of `git agentloop -h`: there are too many verbs to describe, so only the first ones are described
//! and the others are named by purpose. The manual describes them all.

use std::fmt::Write as _;

/// Verbs of daily use, in the order in which a newcomer needs them.
const FIRST: [&str; 7] = ["run", "list", "tail", "show", "merge", "resume", "cancel"];

/// The other verbs, by purpose.
const ALSO: [(&str, &[&str]); 5] = [
    ("to read", &["status", "result", "output", "log", "diff", "bisect"]),
    ("to drive", &["answer", "steer", "fork"]),
    ("to tidy", &["discard", "restore", "prune"]),
    ("to share", &["sync", "hooks"]),
    ("to set up", &["doctor", "backends", "config", "prompts", "mcp", "install"]),
];

/// Makes the screen for `command`, whose subcommands are the verbs.
pub fn screen(command: &clap::Command) -> String {
    let mut text = format!(
        "{}\n\nUsage: git agentloop <VERB> [OPTIONS]\n\n",
        command.get_about().map(ToString::to_string).unwrap_or_default()
    );
    for name in FIRST {
        let about = command.find_subcommand(name).and_then(clap::Command::get_about);
        let _ = writeln!(text, "  {name:<8} {}", about.map(ToString::to_string).unwrap_or_default());
    }
    text.push('\n');
    for (what, names) in ALSO {
        let _ = writeln!(text, "  {what:<10} {}", names.join(", "));
    }
    let _ = write!(
        text,
        "\n'git agentloop VERB -h' shows what a verb takes; -v says what is done inside.\n{}\n",
        command.get_after_help().map(ToString::to_string).unwrap_or_default()
    );
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    #[test]
    fn every_verb_is_on_the_screen_once() {
        let command = Cli::command();
        let mut shown: Vec<&str> = FIRST.iter().chain(ALSO.iter().flat_map(|(_, names)| *names)).copied().collect();
        let mut verbs: Vec<&str> =
            command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(clap::Command::get_name).collect();
        shown.sort_unstable();
        verbs.sort_unstable();
        assert_eq!(shown, verbs, "a new verb belongs into FIRST or ALSO");
    }
}
