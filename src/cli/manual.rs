//! Makes the manual: a page for the command and one for each verb, from the definitions that `-h` prints.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::args::Cli;
use crate::error::{Context as _, Result};
use crate::options::TABLE;

/// Exit codes of verbs that drive or read a run.
const EXITS: [(&str, &str); 5] = [
    ("0", "the goal is complete"),
    ("1", "a limit stopped the run"),
    ("2", "an error"),
    ("3", "questions wait for answers"),
    ("4", "the run was cancelled"),
];
/// Refs of a run.
const REFS: [(&str, &str); 5] = [
    ("refs/heads/agentloop/RUN", "a start commit, then a commit an iteration"),
    ("refs/notes/agentloop/RUN", "the events, noted on the commit that was newest when they happened"),
    ("refs/agentloop/run/RUN/output", "what workers and checks printed"),
    ("refs/agentloop/run/RUN/iterN/SUBGOAL", "a worker's own commit, merged or not"),
    ("refs/agentloop/rescue/RUN/TIME", "what would otherwise have been lost"),
];
/// Settings of git that apply here too.
const OF_GIT: [(&str, &str); 3] = [
    ("color.agentloop", "when to show colours: auto, always or never [default: color.ui]; NO_COLOR turns them off"),
    ("core.pager", "what shows answers that are longer than a screen"),
    ("pager.agentloop", "whether anything does"),
];

/// A page of the manual.
pub struct Page {
    /// Name of its file, such as `git-agentloop-run.1`.
    pub name: String,
    /// Its text in roff.
    pub text: Vec<u8>,
}

/// Makes all pages.
pub fn pages() -> Result<Vec<Page>> {
    let mut all = Vec::new();
    collect(&Cli::command(), "git-agentloop", "git agentloop", &mut all)?;
    Ok(all)
}

fn collect(command: &Command, name: &str, words: &str, all: &mut Vec<Page>) -> Result<()> {
    let verbs: Vec<Command> = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned().collect();
    for verb in &verbs {
        let own = verb.get_name();
        collect(verb, &format!("{name}-{own}"), &format!("{words} {own}"), all)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    // roff joins lines and reads one that starts with a dot as a request, so examples are escaped.
    let mut examples = String::new();
    for line in after.lines() {
        let _ = writeln!(examples, "{}", literal(line));
    }
    let page = command.clone().display_name(name).bin_name(words).after_help("");
    let man = clap_mangen::Man::new(page)
        .title(name.to_uppercase())
        .section("1")
        .manual("Git Agentloop")
        .source(concat!("git-agentloop ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    let failed = "a page of the manual cannot be written";
    man.render(&mut text).context(failed)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    // The sections after the options are written here: examples with their line breaks, and references to the other pages.
    let own = match text.find(".SH EXTRA") {
        Some(at) => text[..at].to_owned(),
        None => text,
    };
    let own = own.replace(".SH Verbs\n", ".SH VERBS\n");
    let (whole, see) = if name == "git-agentloop" {
        (about_all(), ".BR git (1), git\\-config (1), git\\-notes (1)\n")
    } else {
        (String::new(), ".BR git\\-agentloop (1)\n")
    };
    let text = format!("{own}.SH EXAMPLES AND NOTES\n.nf\n{examples}.fi\n{whole}.SH \"SEE ALSO\"\n{see}");
    all.push(Page { name: format!("{name}.1"), text: text.into_bytes() });
    Ok(())
}

/// Escapes a line so that roff prints it unchanged.
fn literal(line: &str) -> String {
    format!("\\&{}", line.replace('\\', "\\\\").replace('-', "\\-"))
}

/// Returns the sections that apply to every verb.
fn about_all() -> String {
    let mut text = String::from(".SH EXIT STATUS\n");
    for (code, meaning) in EXITS {
        let _ = write!(text, ".TP\n\\fB{code}\\fR\n{meaning}\n");
    }
    text += ".SH REFS\n";
    for (name, holds) in REFS {
        let _ = write!(text, ".TP\n\\fI{}\\fR\n{}\n", literal(name), literal(holds));
    }
    text += ".SH CONFIGURATION\nA flag wins over the environment, the environment over git's configuration.\n";
    for entry in TABLE {
        let default = if entry.default.is_empty() { String::new() } else { format!(" [default: {}]", entry.default) };
        let meaning = literal(&format!("{}{default}", entry.meaning));
        let _ = write!(text, ".TP\n\\fB{}\\fR, \\fB{}\\fR\n{meaning}\n", literal(entry.key), literal(entry.env));
    }
    for (key, meaning) in OF_GIT {
        let _ = write!(text, ".TP\n\\fB{key}\\fR\n{}\n", literal(meaning));
    }
    text
}
