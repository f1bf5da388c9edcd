//! Conversion of pathspecs between a folder and the top level (gitglossary(7), "pathspec").

use super::wrong::Wrong;
use crate::run::folder::Folder;

/// Rewrites `pathspec`, which is relative to `folder`, to be relative to the top level.
pub fn from_top(folder: &Folder, pathspec: &str) -> Result<String, Wrong> {
    let outside = || Wrong::new(pathspec, "files inside the repository");
    let below = |path: &str, literal: bool| join(folder, path, literal).ok_or_else(outside);
    if folder.is_top() {
        return Ok(pathspec.to_owned());
    }
    let Some(magic) = pathspec.strip_prefix(':') else { return below(pathspec, false) };
    if let Some((words, path)) = magic.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        let has = |word: &str| words.split(',').any(|one| one.trim() == word);
        let path = if has("top") { path.to_owned() } else { below(path, has("literal"))? };
        return Ok(format!(":({words}){path}"));
    }
    let end = magic.find(|character| !"/!^".contains(character)).unwrap_or(magic.len());
    let (signs, path) = magic.split_at(end);
    if signs.is_empty() || signs.contains('/') {
        return Ok(pathspec.to_owned());
    }
    Ok(format!(":{signs}{}", below(path, false)?))
}

/// Rewrites `pathspec`, which is relative to the top level, to be relative to `folder`.
#[must_use]
pub fn seen_from(folder: &Folder, pathspec: &str) -> String {
    if folder.is_top() {
        return pathspec.to_owned();
    }
    let Some(magic) = pathspec.strip_prefix(':') else { return relative(folder, pathspec, false) };
    if let Some((words, path)) = magic.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        let has = |word: &str| words.split(',').any(|one| one.trim() == word);
        let path = if has("top") { path.to_owned() } else { relative(folder, path, has("literal")) };
        return format!(":({words}){path}");
    }
    let end = magic.find(|character| !"/!^".contains(character)).unwrap_or(magic.len());
    let (signs, path) = magic.split_at(end);
    if signs.is_empty() || signs.contains('/') {
        return pathspec.to_owned();
    }
    format!(":{signs}{}", relative(folder, path, false))
}

/// Rewrites `path`, which is relative to the top level, to be relative to `folder`.
fn relative(folder: &Folder, path: &str, literal: bool) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let own: Vec<String> = folder.as_str().split('/').map(|part| escape(part, literal)).collect();
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let common = own.iter().zip(&parts).take_while(|(own, part)| own == *part).count();
    let up = own[common..].iter().map(|_| "..");
    let way: Vec<&str> = up.chain(parts[common..].iter().copied()).collect();
    let end = if path.ends_with('/') { "/" } else { "" };
    if way.is_empty() { format!(".{end}") } else { way.join("/") + end }
}

/// Escapes a part of a path so that it matches only itself.
fn escape(part: &str, literal: bool) -> String {
    let special = |character: char| !literal && "*?[\\".contains(character);
    part.chars().flat_map(|one| special(one).then_some('\\').into_iter().chain([one])).collect()
}

/// Joins `folder` and `path`; `None` if the result is outside of the top level.
fn join(folder: &Folder, path: &str, literal: bool) -> Option<String> {
    if path.starts_with('/') {
        return Some(path.to_owned());
    }
    let mut parts: Vec<String> = folder.as_str().split('/').map(|part| escape(part, literal)).collect();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        if part == ".." {
            parts.pop()?;
        } else {
            parts.push(part.to_owned());
        }
    }
    let end = if path.ends_with('/') { "/" } else { "" };
    Some(if parts.is_empty() { ".".to_owned() } else { parts.join("/") + end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pathspec_relative_to_a_folder_means_the_same_as_at_the_top() {
        for (folder, pathspec, wanted) in [
            ("services/api", "services/api/test.txt", "test.txt"),
            ("services/api", "services/api", "."),
            ("services/api", "services/web/*.ts", "../web/*.ts"),
            ("services/api", "docs/", "../../docs/"),
            ("services/api", ".", "../.."),
            ("services/api", ":(glob)services/**/*.rs", ":(glob)../**/*.rs"),
            ("services/api", ":!services/api/x", ":!x"),
            ("services/api", ":(top)docs", ":(top)docs"),
            ("services/api", ":/docs", ":/docs"),
            ("a[b]", "a\\[b]/x", "x"),
            ("a[b]", ":(literal)a[b]/x", ":(literal)x"),
            ("", "docs/x", "docs/x"),
        ] {
            let folder = Folder::try_from(folder.to_owned()).unwrap();
            let shown = seen_from(&folder, pathspec);
            assert_eq!(shown, wanted, "{pathspec}");
            assert_eq!(from_top(&folder, &shown).unwrap(), pathspec);
        }
    }

    #[test]
    fn a_pathspec_means_the_same_from_the_top() {
        let at = |folder: &str, pathspec: &str| from_top(&Folder::try_from(folder.to_owned()).unwrap(), pathspec).ok();
        for (pathspec, wanted) in [
            ("test.txt", Some("services/api/test.txt")),
            ("./test.txt", Some("services/api/test.txt")),
            ("tests/", Some("services/api/tests/")),
            (".", Some("services/api")),
            ("..", Some("services")),
            ("../..", Some(".")),
            ("../web/*.ts", Some("services/web/*.ts")),
            ("../../..", None),
            ("*.lock", Some("services/api/*.lock")),
            (":/ci", Some(":/ci")),
            (":(top)ci", Some(":(top)ci")),
            (":(glob)ci/**/*.yml", Some(":(glob)services/api/ci/**/*.yml")),
            (":(top,glob)**/*.yml", Some(":(top,glob)**/*.yml")),
            (":!x", Some(":!services/api/x")),
            (":^../x", Some(":^services/x")),
            (":!/x", Some(":!/x")),
            (":", Some(":")),
        ] {
            assert_eq!(at("services/api", pathspec).as_deref(), wanted, "{pathspec}");
            assert_eq!(at("", pathspec).as_deref(), Some(pathspec));
        }
        assert_eq!(at("a[b]", "x*").as_deref(), Some("a\\[b]/x*"));
        assert_eq!(at("a[b]", ":(literal)x*").as_deref(), Some(":(literal)a[b]/x*"));
    }
}
