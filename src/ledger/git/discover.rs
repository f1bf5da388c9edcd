//! Opens the repository that a directory is in, as git finds it.

use std::path::Path;

use gix::ThreadSafeRepository;
use gix::discover::upwards::Options;
use gix::sec::trust::Mapping;

use super::command::Git;
use super::guard;
use super::repository::Repository;
use crate::error::{Context as _, Error, Result};

impl Repository {
    /// Opens the repository that `dir`, or the current directory, is in; `GIT_DIR` and similar variables have their usual
    /// effect.
    ///
    /// # Errors
    /// Fails if there is none, another user owns it, or it is of a kind that cannot be read.
    pub fn open(dir: Option<&Path>) -> Result<Self> {
        // Absolute, so that it can be reached from any directory, and after the current one is removed.
        let from =
            std::path::absolute(dir.unwrap_or(Path::new("."))).context("the current directory cannot be found")?;
        let options = open_options()?;
        let discover = |from: &Path, options| match dir {
            Some(_) => ThreadSafeRepository::discover_opts(from, Options::default(), options),
            None => ThreadSafeRepository::discover_with_environment_overrides_opts(from, Options::default(), options),
        };
        // git and gix would block on it.
        if let Some(pipe) = guard::in_the_way(&from)
            && (!guard::put_back_configuration(&from)? || guard::in_the_way(&from).is_some())
        {
            return Err(Error::usage(format!(
                "'{}' is no file, and git would wait for it without end",
                pipe.display()
            ))
            .because("a pipe or a device is in the place of a file that git reads first")
            .hint("remove it, or put the file that belongs there in its place"));
        }
        let mut found = discover(&from, options);
        if found.is_err() && guard::put_back_configuration(&from)? {
            found = discover(&from, open_options()?);
        }
        let place = dir.map_or_else(|| "this directory".to_owned(), |dir| format!("'{}'", dir.display()));
        let shared = found.map_err(|error| not_opened(&place, dir, error))?;
        let gix = shared.to_thread_local();
        if gix.config_snapshot().string("extensions.refStorage").is_some_and(|format| format.as_slice() == b"reftable")
        {
            return Err(reftable());
        }
        if gix.git_dir_trust() != gix::sec::Trust::Full {
            let place = gix.workdir().unwrap_or(gix.git_dir());
            let path = std::path::absolute(place).unwrap_or_else(|_| place.to_owned());
            if !path.exists() {
                return Err(Error::usage(format!("the checkout '{}' does not exist", path.display()))
                    .because("the repository's configuration says that its files are there: core.worktree")
                    .hint("'git --work-tree=. config --show-origin core.worktree' shows which file says so"));
            }
            let path = path.display().to_string();
            return Err(Error::usage(format!("'{path}' belongs to somebody else, and git would not trust it")).hint(
                format!("'git config --global --add safe.directory {}' says that you do", shell_words::quote(&path)),
            ));
        }
        let absolute = |path: &Path| path.canonicalize().context(format!("'{}' cannot be reached", path.display()));
        let (git_dir, common_dir) = (absolute(gix.git_dir())?, absolute(gix.common_dir())?);
        let work_dir = gix.workdir().map(absolute).transpose()?;
        Ok(Self::new(shared, git_dir, common_dir, work_dir))
    }
}

/// Returns options with the settings of `git -c` and `git --config-env`, which gix does not read.
fn open_options() -> Result<Mapping<gix::open::Options>> {
    let given = std::env::var_os("GIT_CONFIG_PARAMETERS").unwrap_or_default();
    let settings = parse_config_parameters(&given.to_string_lossy()).context("GIT_CONFIG_PARAMETERS cannot be read")?;
    let Mapping { full, reduced } = Mapping::<gix::open::Options>::default();
    Ok(Mapping { full: full.cli_overrides(settings), reduced })
}

/// Parses `'a.key'='value' 'a.flag'=` as `a.key=value`, `a.flag`: each is quoted as for a shell, and a name without a value
/// ends at the equals sign (git's config.c, `git_config_push_split_parameter`).
fn parse_config_parameters(given: &str) -> std::result::Result<Vec<String>, shell_words::ParseError> {
    let (mut settings, mut is_quoted, mut is_escaped) = (vec![String::new()], false, false);
    for character in given.chars() {
        match (settings.last_mut(), character) {
            (_, ' ') if !is_quoted && !is_escaped => settings.push(String::new()),
            (setting, character) => setting.into_iter().for_each(|setting| setting.push(character)),
        }
        is_quoted ^= character == '\'' && !is_escaped;
        is_escaped = character == '\\' && !is_quoted && !is_escaped;
    }
    let unquoted = |setting: String| shell_words::split(setting.strip_suffix('=').unwrap_or(&setting));
    Ok(settings.into_iter().map(unquoted).collect::<std::result::Result<Vec<_>, _>>()?.concat())
}

fn not_opened(place: &str, dir: Option<&Path>, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    // git knows formats that gix does not, and names them with a stable word.
    let format = Git::discovering(dir, "rev-parse").arg("--show-ref-format").word();
    if format.is_ok_and(|format| format == "reftable") {
        return reftable();
    }
    Error::usage(format!("{place} is in no git repository that can be read"))
        .because(error.to_string())
        .hint("go to one, or make one: git init && git commit --allow-empty -m 'first'")
}

fn reftable() -> Error {
    Error::usage("this repository keeps its refs as a reftable, which cannot be read yet")
        .hint("'git refs migrate --ref-format=files' of git 2.48 or newer turns it into one that can")
}

#[cfg(test)]
mod tests {
    use super::parse_config_parameters;

    #[test]
    fn parameters_of_git_c_are_parsed_as_git_does() {
        let cases = [
            ("", &[][..]),
            ("'a.flag'=", &["a.flag"]),
            ("'a.empty'=''", &["a.empty="]),
            ("'a.b'='c' 'd.e f.g'='h i='", &["a.b=c", "d.e f.g=h i="]),
            (r"'a.b'='it'\''s not'\!'= ' 'c.d'=", &["a.b=it's not!= ", "c.d"]),
            ("'older.git=x y' 'older.flag'", &["older.git=x y", "older.flag"]),
        ];
        for (given, settings) in cases {
            assert_eq!(parse_config_parameters(given).unwrap(), settings, "{given}");
        }
        assert!(parse_config_parameters("'a.b'='c").is_err());
    }
}
