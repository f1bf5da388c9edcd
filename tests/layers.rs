//! The arrows between the layers point one way, no files need each other in a circle, and no file outgrows its reader.

mod circles;

use std::path::{Path, PathBuf};

/// What a layer may name of this crate. `error` and the layer itself go without saying.
const MAY_NAME: [(&str, &[&str]); 14] = [
    ("run", &[]),
    ("options", &["run", "ledger"]),
    ("process", &["redact"]),
    ("redact", &[]),
    ("host", &["run"]),
    ("agent", &["run", "process", "redact"]),
    ("interaction", &[]),
    ("ledger", &["run", "process", "host"]),
    ("engine", &["run", "agent", "interaction", "ledger", "process", "host", "redact"]),
    ("app", &["run", "agent", "interaction", "ledger", "process", "host", "engine", "options", "redact"]),
    ("cli", &["run", "agent", "interaction", "process", "engine", "options", "app", "hooks"]),
    ("mcp", &["run", "agent", "interaction", "process", "engine", "options", "app"]),
    ("hooks", &["run", "ledger", "process", "options", "app"]),
    ("error", &[]),
];

/// Implementations that only `app` picks: the engine knows traits.
const HIDDEN_FROM_ENGINE: [&str; 5] =
    ["ledger::git", "ledger::memory", "agent::mock", "agent::command", "agent::registry"];

/// Crates that one layer keeps to itself.
const OWNED: [(&str, &[&str]); 4] =
    [("gix", &["ledger"]), ("clap", &["cli"]), ("reqwest", &["agent"]), ("rmcp", &["mcp"])];

const LONGEST_FILE: usize = 500;

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.strip_prefix(&root).unwrap().to_owned(), std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 20, "the sources are not where this test looks");
    found
}

fn layer(path: &Path) -> String {
    let first = path.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The code of a file: no comments, and nothing from its test module on.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The names after `prefix` in `code`, those in braces too: `crate::{run::Run, error}` names `run` and `error`.
fn named_after(code: &str, prefix: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for (position, _) in code.match_indices(prefix) {
        let rest = &code[position + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => {
                let mut depth = 0;
                let mut start = true;
                for (at, character) in group.char_indices() {
                    match character {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            names.push(word(&group[at..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => names.push(word(rest)),
        }
    }
    names
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        let own = layer(&path);
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == own) else {
            assert!(matches!(own.as_str(), "lib" | "main" | "build"), "{} is in no layer", path.display());
            continue;
        };
        let code = code(&text);
        for name in named_after(&code, "crate::") {
            let known = MAY_NAME.iter().any(|(layer, _)| *layer == name);
            if known && name != own && name != "error" && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} names crate::{name}", path.display()));
            }
        }
        for (dependency, owners) in OWNED {
            let uses = code.contains(&format!("{dependency}::")) || code.contains(&format!("use {dependency};"));
            if uses && !owners.contains(&own.as_str()) {
                wrong.push(format!("{} uses {dependency}", path.display()));
            }
        }
        if own == "engine" {
            wrong.extend(
                HIDDEN_FROM_ENGINE
                    .iter()
                    .filter(|name| code.contains(**name))
                    .map(|name| format!("the engine names {name}")),
            );
        }
        if own == "run" {
            for outside in ["std::fs", "std::process", "std::net", "SystemTime", "Instant", "async ", "tokio"] {
                if code.contains(outside) {
                    wrong.push(format!("{}: the pure core uses {outside}", path.display()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn no_file_outgrows_its_reader() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > LONGEST_FILE)
        .map(|(path, text)| format!("{}: {} lines", path.display(), text.lines().count()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn git_is_started_in_one_place() {
    let starts = ["quiet(\"git\")", "in_our_place(\"git\")", "outliving(\"git\")", "Command::new(\"git\")"];
    let is_builder = |path: &Path| path == Path::new("ledger/git/command.rs");
    let elsewhere: Vec<String> = sources()
        .into_iter()
        .filter(|(path, _)| !is_builder(path) && !path.to_string_lossy().ends_with("fixture.rs"))
        .filter(|(path, _)| !path.to_string_lossy().ends_with("tests.rs"))
        .filter(|(_, text)| starts.iter().any(|start| code(text).contains(start)))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert_eq!(elsewhere, Vec::<String>::new(), "git is started by `Git` alone");
}

#[test]
fn the_test_sees_an_arrow_that_points_up() {
    assert_eq!(named_after("use crate::{run::Run, cli, error::{Error, Result}};", "crate::"), ["run", "cli", "error"]);
    assert_eq!(named_after("use crate::cli::args; crate::app::run()", "crate::"), ["cli", "app"]);
}
