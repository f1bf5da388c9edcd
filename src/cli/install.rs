//! `install`: the manual and completions, in the directories where man and the shells look.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::args::InstallArgs;
use super::{complete, manual, print};
use crate::error::{Context as _, Error, Result};
use crate::process;

/// Writes the manual and completions and prints their paths; with `--uninstall`, removes them.
pub fn install(arguments: &InstallArgs) -> Result<u8> {
    let data = match &arguments.prefix {
        Some(prefix) => prefix.join("share"),
        None => base("XDG_DATA_HOME", ".local/share")?,
    };
    let man = data.join("man/man1");
    let mut files: Vec<(PathBuf, Vec<u8>)> =
        manual::pages()?.into_iter().map(|page| (man.join(page.name), page.text)).collect();
    // Not in fish's directory of completions: those of git complete `git agentloop` only if these are loaded before them.
    let fish = match &arguments.prefix {
        Some(_) => data.join("fish/vendor_conf.d"),
        None => base("XDG_CONFIG_HOME", ".config")?.join("fish/conf.d"),
    };
    let zsh = data.join("zsh/site-functions");
    files.extend([
        (data.join("bash-completion/completions/git-agentloop"), complete::BASH.into()),
        (fish.join("git-agentloop.fish"), complete::FISH.into()),
        (zsh.join("_git-agentloop"), complete::ZSH.into()),
    ]);
    let pages = files.len() - 3;
    if arguments.uninstall {
        for (path, _) in &files {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).context(format!("'{}' cannot be removed", path.display()));
                }
                _ => {}
            }
        }
        print::out("removed\n")?;
        return Ok(0);
    }
    for (path, text) in &files {
        write(path, text)?;
    }
    let mut text = format!("manual      {} pages in {}\n", pages, man.display());
    for (path, _) in &files[pages..] {
        let _ = writeln!(text, "completion  {}", path.display());
    }
    print::out(text)?;
    if !man_looks_in(&data.join("man")) {
        print::note(&format!(
            "hint: man does not look there: export MANPATH=\"{}:\" in your shell's startup file",
            data.join("man").display()
        ));
    }
    print::note(&format!("hint: zsh looks where fpath says: fpath=({} $fpath), before compinit", zsh.display()));
    Ok(0)
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    let written = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(path, text));
    written.context(format!("'{}' cannot be written", path.display()))
}

/// Reports whether manpath(1) lists `dir`; without that program it is assumed.
fn man_looks_in(dir: &Path) -> bool {
    let Ok(output) = process::in_our_place("manpath").arg("-q").output() else { return true };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    std::env::split_paths(text.trim()).any(|place| place == dir)
}

/// Returns a base directory of the user (XDG Base Directory Specification).
fn base(variable: &str, below_home: &str) -> Result<PathBuf> {
    let set = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(below_home));
    set.or_else(home).ok_or_else(|| {
        Error::usage("there is no HOME").hint("set HOME, or say where: git agentloop install --prefix DIR")
    })
}
