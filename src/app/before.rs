//! Checks before a run begins that its checks can run and that its protected paths exist.

use std::cmp::Reverse;

use super::Site;
use crate::error::{Error, Result};
use crate::options::{command, pathspec};
use crate::run::folder::Folder;
use crate::run::goal::Check;

/// Files that suggest how a project is tested, the words that must occur in them if any, and the test command.
const TESTED: [(&str, &str, &str); 14] = [
    ("Cargo.toml", "", "cargo test"),
    ("package.json", "\"test\"", "npm test"),
    ("go.mod", "", "go test ./..."),
    ("pytest.ini", "", "python3 -m pytest"),
    ("tox.ini", "", "tox"),
    ("pyproject.toml", "", "python3 -m pytest"),
    ("setup.py", "", "python3 -m pytest"),
    ("pom.xml", "", "mvn test"),
    ("gradlew", "", "./gradlew test"),
    ("mix.exs", "", "mix test"),
    ("deno.json", "", "deno test"),
    ("Gemfile", "rspec", "bundle exec rspec"),
    ("Makefile", "\ntest:", "make test"),
    ("Makefile", "\ncheck:", "make check"),
];
/// Number of similar paths that an error names.
const NEAREST: usize = 3;

/// Refuses commands whose program is not found: an agent would be paid for work that no check can pass. `what` names the
/// kind of command in the error.
pub fn runnable(site: &Site, what: &str, commands: &[Check]) -> Result<()> {
    for check in commands {
        if let Some(program) = command::program(check).filter(|program| !site.registry().finds(program)) {
            return Err(Error::usage(format!("{what} '{}': program '{program}' not found", check.name)).hint(
                "install it or mend the command; a program in the repository is named by its path, such as ./check",
            ));
        }
    }
    Ok(())
}

/// Lists warnings about the checks of a run that starts from `base`, one per line.
pub fn notices(site: &Site, checks: &[Check], base: &str) -> Result<Vec<String>> {
    if checks.is_empty() {
        let text = "no checks: nothing but the reviewer will judge the work";
        return Ok(vec![match suggested(site, base)? {
            Some(command) => format!("{text}; add --verify \"{command}\""),
            None => format!("{text}; add --verify \"COMMAND\""),
        }]);
    }
    let hidden = checks.iter().filter(|check| command::hides_failures(check));
    let hidden = hidden.map(|check| {
        format!(
            "the check '{}' is a pipeline: only its last command decides; bash -o pipefail -c '…' has all of them count",
            check.name
        )
    });
    Ok(hidden.collect())
}

/// Suggests a test command from the project's files.
fn suggested(site: &Site, base: &str) -> Result<Option<&'static str>> {
    for (file, words, command) in TESTED {
        let content = site.repo.file_at(base, file)?;
        if content.is_some_and(|content| {
            words.is_empty() || format!("\n{}", String::from_utf8_lossy(&content)).contains(words)
        }) {
            return Ok(Some(command));
        }
    }
    Ok(None)
}

/// Refuses what git does not accept as a pathspec; the error shows it relative to `folder`.
pub fn check_paths(site: &Site, pathspecs: &[String], folder: &Folder) -> Result<()> {
    site.repo.check_paths(pathspecs, |pathspec| pathspec::seen_from(folder, pathspec))
}

/// Refuses pathspecs that match no file of `base`; the error names the most similar paths, relative to `folder`.
pub fn protects(site: &Site, pathspecs: &[String], base: &str, folder: &Folder) -> Result<()> {
    check_paths(site, pathspecs, folder)?;
    for pathspec in pathspecs {
        if site.repo.matches_at(base, pathspec)? {
            continue;
        }
        let near = nearest(pathspec, &site.repo.paths_at(base)?);
        let hint = if near.is_empty() {
            "'git ls-files' lists the files".to_owned()
        } else {
            let near: Vec<String> = near.iter().map(|path| pathspec::seen_from(folder, path)).collect();
            format!("near it: {}", near.join(", "))
        };
        let given = pathspec::seen_from(folder, pathspec);
        return Err(Error::usage(format!("--protect '{given}' matches no file of the commit to start from")).hint(hint));
    }
    Ok(())
}

/// Returns the paths most similar to a pathspec, compared by the whole path or by its last part.
fn nearest(pathspec: &str, paths: &[String]) -> Vec<String> {
    let name = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = pathspec.rsplit(')').next().unwrap_or(pathspec).trim_end_matches("/**").trim_end_matches("/*");
    let folders = paths.iter().flat_map(|path| path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
    let mut all: Vec<String> = folders.chain(paths.iter().cloned()).collect();
    all.sort_unstable();
    all.dedup();
    let likeness = |path: &str| {
        strsim::normalized_levenshtein(path, wanted).max(strsim::normalized_levenshtein(&name(path), &name(wanted)))
    };
    #[allow(clippy::cast_possible_truncation)] // from 0 to 100
    let mut near: Vec<(i32, String)> = all
        .into_iter()
        .map(|path| ((likeness(&path) * 100.0) as i32, path))
        .filter(|(likeness, _)| *likeness >= 50)
        .collect();
    near.sort_by_key(|(likeness, path)| (Reverse(*likeness), path.len()));
    near.into_iter().take(NEAREST).map(|(_, path)| path).collect()
}
