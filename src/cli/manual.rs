//! The manual: a page for the command and one for each verb, from the definitions that `-h` prints.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};

use super::args::Cli;
use crate::error::{Context as _, Result};

/// A page and its file's name: `git-agentloop-run.1`.
pub struct Page {
    /// The file's name.
    pub name: String,
    /// It, as roff.
    pub text: Vec<u8>,
}

/// Every page.
///
/// # Errors
/// Where one cannot be written down.
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
    // roff joins lines and takes one that starts with a dot for a request: examples stay as they are written.
    let mut examples = String::new();
    for line in after.lines() {
        let _ = writeln!(examples, "\\&{}", line.replace('\\', "\\\\").replace('-', "\\-"));
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
    // What comes after the options is ours: examples in their lines, and the way to the other pages.
    let own = match text.find(".SH EXTRA") {
        Some(at) => text[..at].to_owned(),
        None => text,
    };
    let see = if name == "git-agentloop" { ".BR git (1)\n" } else { ".BR git\\-agentloop (1)\n" };
    let text = format!("{own}.SH EXAMPLES AND NOTES\n.nf\n{examples}.fi\n.SH \"SEE ALSO\"\n{see}");
    all.push(Page { name: format!("{name}.1"), text: text.into_bytes() });
    Ok(())
}
