//! Files that can change the result of a check without a change to what it tests.

use serde_json::Value;

use super::goal::Check;

/// Names of files, or ends of paths, that test and build tools read by themselves, and the effect. `*` is any text within a
/// name; a pattern that ends with `/` matches everything in such a folder.
const TABLE: [(&str, &str); 89] = [
    ("GNUmakefile", "make reads it before makefile and Makefile"),
    ("makefile", "make reads it before Makefile"),
    ("Makefile", "make runs its rules"),
    ("*.mk", "makefiles include it"),
    ("CMakeLists.txt", "CMake builds and tests by it"),
    ("CMakePresets.json", "CMake is configured by it"),
    ("meson.build", "Meson builds and tests by it"),
    ("justfile", "just runs its recipes"),
    ("Justfile", "just runs its recipes"),
    (".justfile", "just runs its recipes"),
    ("Taskfile.y*ml", "task runs its tasks"),
    ("Rakefile", "rake runs its tasks"),
    ("conftest.py", "pytest runs it before the tests"),
    ("pytest.ini", "pytest is configured by it, before other files"),
    (".pytest.ini", "pytest is configured by it, before other files"),
    (".pytest_cache/", "pytest picks tests by what it remembers there"),
    ("tox.ini", "tox and pytest are configured by it"),
    ("setup.cfg", "Python's build and test tools are configured by it"),
    ("setup.py", "Python's build tools run it"),
    ("pyproject.toml", "Python's build and test tools are configured by it"),
    ("noxfile.py", "nox runs its sessions"),
    (".coveragerc", "coverage is configured by it"),
    ("sitecustomize.py", "Python runs it at every start"),
    ("usercustomize.py", "Python runs it at every start"),
    ("*.pth", "Python runs its lines at every start"),
    ("__pycache__/", "Python loads it in the place of the source"),
    ("*.pyc", "Python loads it in the place of the source"),
    ("mypy.ini", "mypy is configured by it"),
    ("ruff.toml", "ruff is configured by it"),
    (".ruff.toml", "ruff is configured by it"),
    (".flake8", "flake8 is configured by it"),
    (".cargo/config.toml", "cargo takes compiler flags, runners and sources from it"),
    (".cargo/config", "cargo takes compiler flags, runners and sources from it"),
    ("Cargo.toml", "cargo picks targets, tests and dependencies by it"),
    ("build.rs", "cargo runs it before it builds"),
    ("rust-toolchain*", "rustup picks the compiler by it"),
    ("clippy.toml", "clippy is configured by it"),
    (".clippy.toml", "clippy is configured by it"),
    (".config/nextest.toml", "nextest picks and retries tests by it"),
    (".npmrc", "npm is configured by it, its shell and scripts too"),
    (".yarnrc*", "yarn is configured by it"),
    (".pnpmfile.cjs", "pnpm runs it"),
    ("pnpm-workspace.yaml", "pnpm is configured by it"),
    ("node_modules/", "node loads it in the place of what is installed"),
    ("jest.config.*", "jest picks and prepares tests by it"),
    ("vitest.config.*", "vitest picks and prepares tests by it"),
    ("vitest.workspace.*", "vitest picks and prepares tests by it"),
    ("vite.config.*", "vite and vitest are configured by it"),
    ("playwright.config.*", "playwright picks and prepares tests by it"),
    ("cypress.config.*", "cypress picks and prepares tests by it"),
    ("karma.conf.*", "karma picks and prepares tests by it"),
    (".mocharc*", "mocha picks and prepares tests by it"),
    ("ava.config.*", "ava picks and prepares tests by it"),
    ("babel.config.*", "babel rewrites the code by it"),
    (".babelrc*", "babel rewrites the code by it"),
    ("tsconfig*.json", "TypeScript picks files and strictness by it"),
    ("eslint.config.*", "eslint picks rules and files by it"),
    (".eslintrc*", "eslint picks rules and files by it"),
    (".eslintignore", "eslint leaves out what it names"),
    ("biome.json*", "biome picks rules and files by it"),
    ("bunfig.toml", "bun is configured by it"),
    ("deno.json*", "deno runs its tasks"),
    ("go.work", "go builds the modules that it names in the place of others"),
    ("go.mod", "go may build other modules in the place of those required"),
    (".golangci.*", "golangci-lint picks rules and files by it"),
    (".rspec", "rspec is configured by it"),
    ("spec_helper.rb", "rspec runs it before the tests"),
    ("test_helper.rb", "Ruby's tests run it first"),
    ("Gemfile", "bundler runs it"),
    ("phpunit.xml*", "PHPUnit picks and prepares tests by it"),
    ("composer.json", "composer runs its scripts"),
    ("pom.xml", "Maven builds and tests by it"),
    (".mvn/", "Maven takes extensions and options from it"),
    ("mvnw", "it runs in the place of Maven"),
    ("build.gradle*", "Gradle builds and tests by it"),
    ("settings.gradle*", "Gradle builds and tests by it"),
    ("gradle.properties", "Gradle is configured by it"),
    ("init.gradle*", "Gradle runs it first"),
    ("gradlew", "it runs in the place of Gradle"),
    ("Directory.Build.*", "MSBuild takes it into every project"),
    ("*.runsettings", "dotnet test picks tests by it"),
    ("mix.exs", "mix builds and tests by it"),
    (".bazelrc", "bazel is configured by it"),
    ("BUILD.bazel", "bazel builds and tests by it"),
    (".pre-commit-config.yaml", "pre-commit runs what it names"),
    (".gitattributes", "git converts files by it as it checks them out"),
    (".env", "programs take their environment from it"),
    (".envrc", "direnv runs it"),
    (".tool-versions", "version managers pick programs by it"),
];

/// Files from which agents take instructions, servers or permissions, with patterns as in [`TABLE`].
const AGENTS: [&str; 38] = [
    ".claude/",
    "CLAUDE.md",
    "CLAUDE.local.md",
    ".mcp.json",
    "AGENTS.md",
    "AGENTS.override.md",
    "AGENT.md",
    "opencode.json*",
    ".opencode/",
    ".cursor/",
    ".cursorrules",
    ".cursorignore",
    ".gemini/",
    "GEMINI.md",
    ".codex/",
    ".agents/",
    ".github/copilot-instructions.md",
    ".github/instructions/",
    ".github/prompts/",
    ".github/agents/",
    ".github/chatmodes/",
    ".vscode/mcp.json",
    ".copilot/",
    ".aider*",
    "CONVENTIONS.md",
    ".windsurf/",
    ".windsurfrules",
    ".clinerules",
    ".clinerules/",
    ".roo/",
    ".roorules*",
    ".continue/",
    ".goosehints",
    ".goose/",
    ".junie/",
    ".kiro/",
    ".qwen/",
    "QWEN.md",
];

/// A file that differs between the base and the work.
#[derive(Clone, Debug, Default)]
pub struct Changed {
    /// Path of the file.
    pub path: String,
    /// Content in the base; needed for a `package.json` only.
    pub before: Option<Vec<u8>>,
    /// Content in the work.
    pub after: Option<Vec<u8>>,
}

/// Returns whether the content of a file decides if it can change the result of a check.
#[must_use]
pub fn wants_content(path: &str) -> bool {
    name(path) == "package.json"
}

/// Returns the changed files that can change the results of `checks`, each with the reason.
#[must_use]
pub fn shadows(changed: &[Changed], checks: &[Check]) -> Vec<String> {
    if checks.is_empty() {
        return Vec::new();
    }
    let describe = |file: &Changed| Some(format!("{}: {}", file.path, reason(file, checks)?));
    changed.iter().filter_map(describe).collect()
}

fn reason(file: &Changed, checks: &[Check]) -> Option<String> {
    if let Some(check) = checks.iter().find(|check| names_file(check, &file.path)) {
        return Some(format!("the check '{}' names it", check.name));
    }
    if wants_content(&file.path) {
        let scripts = |content: &Option<Vec<u8>>| scripts(content.as_deref());
        return (scripts(&file.before) != scripts(&file.after))
            .then(|| "its scripts or test settings changed".to_owned());
    }
    TABLE.iter().find(|(pattern, _)| matches_pattern(pattern, &file.path)).map(|(_, reason)| (*reason).to_owned())
}

/// Returns the scripts and test settings of a `package.json`; all of its text if it is not JSON.
fn scripts(content: Option<&[u8]>) -> Vec<Value> {
    let Some(content) = content else { return Vec::new() };
    let Ok(package) = serde_json::from_slice::<Value>(content) else {
        return vec![Value::String(String::from_utf8_lossy(content).into_owned())];
    };
    let keys = ["scripts", "jest", "vitest", "mocha", "ava", "babel", "type", "main", "exports", "imports", "config"];
    keys.iter().map(|key| package.get(key).cloned().unwrap_or_default()).collect()
}

/// Returns whether the check's command names the file, or a Python module that is in it.
fn names_file(check: &Check, path: &str) -> bool {
    let words =
        || check.argv.iter().flat_map(|word| word.split([' ', '\t', '\n', '=', ';', '&', '|', '(', ')', '"', '\'']));
    let is_named = |word: &str| {
        let word = word.trim_start_matches("./");
        !word.is_empty()
            && (word == path || path.strip_suffix(word).is_some_and(|rest| rest.ends_with('/') && word.contains('/')))
    };
    let modules =
        words().zip(words().skip(1)).filter(|(flag, _)| *flag == "-m").map(|(_, module)| module.replace('.', "/"));
    let is_module = |module: String| {
        let package = module.split('/').next().unwrap_or_default().to_owned();
        let places = ["", "/__init__", "/__main__"].map(|end| format!("{module}{end}.py"));
        places.iter().any(|place| place == path)
            || path == format!("{package}.py")
            || path == format!("{package}/__init__.py")
    };
    words().any(is_named) || modules.into_iter().any(is_module)
}

/// Returns whether agents take instructions, servers or permissions from the file.
#[must_use]
pub fn configures_agents(path: &str) -> bool {
    AGENTS.iter().any(|pattern| matches_pattern(pattern, path))
}

/// Returns whether the path, or a folder that contains it, ends with `pattern`.
fn matches_pattern(pattern: &str, path: &str) -> bool {
    let Some(folder) = pattern.strip_suffix('/') else { return ends_with_pattern(pattern, path) };
    path.match_indices('/').any(|(at, _)| ends_with_pattern(folder, &path[..at]))
}

fn ends_with_pattern(pattern: &str, path: &str) -> bool {
    let parts = pattern.matches('/').count();
    let start = path.rmatch_indices('/').nth(parts).map_or(0, |(at, _)| at + 1);
    let (mut pattern, mut path) = (pattern.split('/'), path[start..].split('/'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if matches_name(pattern, part) => {}
            _ => return false,
        }
    }
}

fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            name.char_indices().map(|(at, _)| at).chain([name.len()]).any(|at| matches_name(rest, &name[at..]))
        }),
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &[&str]) -> Check {
        Check { name: command.join(" "), argv: command.iter().map(|word| (*word).to_owned()).collect() }
    }

    fn describe(path: &str, command: &[&str]) -> Option<String> {
        let changed = Changed { path: path.to_owned(), ..Changed::default() };
        shadows(&[changed], &[check(command)]).pop()
    }

    #[test]
    fn files_that_commands_name_and_tools_read_are_shadows() {
        let cases: &[(&str, &[&str], &str)] = &[
            ("GNUmakefile", &["make", "test"], "GNUmakefile: make reads it before makefile and Makefile"),
            ("sub/conftest.py", &["pytest"], "sub/conftest.py: pytest runs it before the tests"),
            ("tests/check.sh", &["sh", "./tests/check.sh"], "tests/check.sh: the check 'sh ./tests/check.sh' names it"),
            ("run.sh", &["sh", "-c", "cd x && ./run.sh"], "run.sh: the check 'sh -c cd x && ./run.sh' names it"),
            ("pytest.py", &["python3", "-m", "pytest"], "pytest.py: the check 'python3 -m pytest' names it"),
            (
                "unittest/__init__.py",
                &["python", "-m", "unittest.main"],
                "unittest/__init__.py: the check 'python -m unittest.main' names it",
            ),
            (
                "a/.cargo/config.toml",
                &["cargo", "test"],
                "a/.cargo/config.toml: cargo takes compiler flags, runners and sources from it",
            ),
            ("a/__pycache__/x.pyc", &["pytest"], "a/__pycache__/x.pyc: Python loads it in the place of the source"),
            ("jest.config.cjs", &["npm", "test"], "jest.config.cjs: jest picks and prepares tests by it"),
            ("rust-toolchain", &["cargo", "test"], "rust-toolchain: rustup picks the compiler by it"),
        ];
        for (path, command, line) in cases {
            assert_eq!(describe(path, command).as_deref(), Some(*line));
        }
        for path in ["src/lib.rs", "makefile.txt", "docs/Makefile.md", "tests/test_x.py", "config.toml", "xconftest.py"]
        {
            assert_eq!(describe(path, &["pytest", "tests"]), None, "{path}");
        }
        assert_eq!(shadows(&[Changed { path: "Makefile".into(), ..Changed::default() }], &[]), [""; 0], "no check");
    }

    #[test]
    fn of_a_package_only_what_it_runs_and_how_it_tests_matters() {
        let changed = |before: &str, after: &str| {
            let [before, after] = [before, after].map(|text| (!text.is_empty()).then(|| text.as_bytes().to_vec()));
            let file = Changed { path: "web/package.json".to_owned(), before, after };
            !shadows(&[file], &[check(&["npm", "test"])]).is_empty()
        };
        let plain = r#"{"scripts":{"test":"jest"},"dependencies":{"a":"1"}}"#;
        assert!(!changed(plain, r#"{"dependencies":{"a":"2"},"scripts":{"test":"jest"}}"#));
        for after in
            [r#"{"scripts":{"test":"true"}}"#, r#"{"scripts":{"test":"jest"},"jest":{"testMatch":[]}}"#, "", "no"]
        {
            assert!(changed(plain, after), "{after}");
        }
        assert!(changed("", plain));
    }

    #[test]
    fn agents_are_configured_by_these() {
        for path in [
            ".claude/settings.json",
            "a/b/.cursor/rules/x.mdc",
            "AGENTS.md",
            "web/CLAUDE.md",
            "opencode.jsonc",
            ".github/copilot-instructions.md",
            ".aider.conf.yml",
            ".mcp.json",
        ] {
            assert!(configures_agents(path), "{path}");
        }
        for path in
            ["claude/settings.json", "github/copilot-instructions.md", "src/AGENTS.rs", ".github/workflows/ci.yml"]
        {
            assert!(!configures_agents(path), "{path}");
        }
    }
}
