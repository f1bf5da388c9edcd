//! Starts every git process of this program.
//!
//! [`Git`] gives it a known environment and known settings (`known`), so that neither the user's display settings nor a
//! hook's environment change git's answers. Two modes differ: [`Git::with_credentials`] reaches remotes as the user does,
//! and [`Git::as_user`] is the user's own git.

mod known;

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use gix::ObjectId;
use gix::bstr::BString;

use super::identity::Identity;
use super::run_dir::run_dir;
use crate::error::{Error, Result};
use crate::process;
use crate::run::goal::RunId;

/// A git process that is about to start.
pub(crate) struct Git {
    verb: &'static str,
    command: Command,
    settings: Vec<(String, OsString)>,
    arguments: Vec<OsString>,
    operands: Operands,
    input: Option<Vec<u8>>,
    mode: Mode,
}

/// How much of the user's environment and settings git sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// None of it that changes git's behaviour: no hooks, prompts or signatures.
    Own,
    /// For remotes: the user's credentials, prompts and `git -c` settings too.
    Remote,
    /// All of it.
    User,
}

/// The kind of the last operand: git takes options, then revisions, then paths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operands {
    None,
    Revisions,
    Paths,
}

impl Git {
    /// Builds a git command that needs no repository.
    pub(crate) fn anywhere(verb: &'static str) -> Self {
        Self::start(verb, Mode::Own)
    }

    /// Builds a git command for the repository with this `git_dir`, started in `dir`, on the files at `work_dir` if there
    /// are any.
    pub(super) fn of(git_dir: &Path, dir: &Path, work_dir: Option<&Path>, verb: &'static str) -> Self {
        let mut git = Self::start(verb, Mode::Own);
        git.command.current_dir(dir).env("GIT_DIR", git_dir);
        if let Some(work_dir) = work_dir {
            git.command.env("GIT_WORK_TREE", work_dir);
        }
        git
    }

    /// Builds a git command on the files at `path` with this `git_dir`, even if the link between them is broken.
    pub(super) fn on(path: &Path, git_dir: &Path, verb: &'static str) -> Self {
        let mut git = Self::start(verb, Mode::Own);
        git.command.current_dir(path).env("GIT_DIR", git_dir).env("GIT_WORK_TREE", path);
        git
    }

    /// Builds a git command in a git directory, without its files. It stays there if that directory is moved.
    pub(super) fn in_git_dir(git_dir: &Path, verb: &'static str) -> Self {
        let mut git = Self::start(verb, Mode::Own);
        git.command.current_dir(git_dir).env("GIT_DIR", ".");
        git
    }

    /// Builds a git command that finds the repository of `dir` by itself.
    pub(super) fn discovering(dir: Option<&Path>, verb: &'static str) -> Self {
        let mut git = Self::start(verb, Mode::Own);
        if let Some(dir) = dir {
            git.command.current_dir(dir);
        }
        git
    }

    /// Builds a git command for the repository with this `git_dir`, started in `dir`, that reaches a remote with the user's
    /// credentials and prompts. The user's hooks do not see our refs.
    pub(super) fn with_credentials(git_dir: &Path, dir: &Path, verb: &'static str) -> Self {
        let mut git = Self::start(verb, Mode::Remote);
        git.command.current_dir(dir).env("GIT_DIR", git_dir);
        git
    }

    /// Builds a command of the user's own git, with their terminal, hooks, editor, pager, signatures and settings.
    pub(crate) fn as_user(verb: &'static str) -> Self {
        Self::start(verb, Mode::User)
    }

    fn start(verb: &'static str, mode: Mode) -> Self {
        let command = match mode {
            Mode::User => process::in_our_place("git"),
            Mode::Own => {
                let mut command = process::quiet("git");
                known::remove(&mut command, known::is_kept);
                command.envs(known::ENVIRONMENT);
                command
            }
            Mode::Remote => {
                let mut command = process::in_our_place("git");
                known::remove(&mut command, known::is_kept_for_remotes);
                command.stdin(Stdio::null());
                command
            }
        };
        let settings = match mode {
            Mode::User => Vec::new(),
            Mode::Own | Mode::Remote => {
                known::SETTINGS.iter().map(|(name, value, _)| ((*name).to_owned(), OsString::from(value))).collect()
            }
        };
        Self { verb, command, settings, arguments: Vec::new(), operands: Operands::None, input: None, mode }
    }

    /// Sets `name` for this process only; the last value counts.
    pub(super) fn setting(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Keeps git from writing caches such as the user's index.
    pub(super) fn only_reads(self) -> Self {
        self.env("GIT_OPTIONAL_LOCKS", "0")
    }

    pub(crate) fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a revision, which git never takes for an option. Not for `checkout` and similar commands: before git 2.44 they
    /// do not know `--end-of-options` and take [`id`](Self::id).
    pub(crate) fn revision(mut self, revision: impl Into<OsString>) -> Self {
        if self.operands == Operands::None {
            self.operands = Operands::Revisions;
            self.arguments.push("--end-of-options".into());
        }
        self.arguments.push(revision.into());
        self
    }

    /// Adds an object by its id.
    pub(super) fn id(self, id: ObjectId) -> Self {
        self.arg(id.to_string())
    }

    /// Adds paths or pathspecs, after `--`.
    pub(crate) fn paths(mut self, paths: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        if self.operands != Operands::Paths {
            self.operands = Operands::Paths;
            self.arguments.push("--".into());
        }
        self.args(paths)
    }

    pub(super) fn path(self, path: impl Into<OsString>) -> Self {
        self.paths([path])
    }

    /// Passes `input` to git's standard input.
    pub(super) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Marks the process as working for `run` of the repository at `common_dir`: it survives its driver, and is stopped
    /// before another driver begins.
    pub(super) fn works_for(mut self, common_dir: &Path, run: &RunId) -> Self {
        process::works_for(&mut self.command, run.as_str(), &process::clone_of(&run_dir(common_dir, run)));
        self
    }

    /// Lets git write commits in the name of `identity`.
    pub(super) fn identity(mut self, identity: &Identity) -> Self {
        identity.apply_to(&mut self.command);
        self
    }

    pub(crate) fn into_command(self) -> Command {
        let Self { verb, mut command, settings, arguments, mode, .. } = self;
        match mode {
            Mode::User => {}
            // Stronger than the user's own `GIT_CONFIG_COUNT`, which this mode keeps.
            Mode::Remote => {
                for (name, value) in settings {
                    let mut setting = OsString::from(name + "=");
                    setting.push(value);
                    command.arg("-c").arg(setting);
                }
            }
            Mode::Own => {
                command.env("GIT_CONFIG_COUNT", settings.len().to_string());
                for (number, (name, value)) in settings.into_iter().enumerate() {
                    command.env(format!("GIT_CONFIG_KEY_{number}"), name);
                    command.env(format!("GIT_CONFIG_VALUE_{number}"), value);
                }
            }
        }
        command.arg(verb).args(arguments);
        command
    }

    /// Starts git; `shape` sets up its streams.
    pub(super) fn spawn(self, shape: impl FnOnce(&mut Command)) -> Result<Child> {
        let mut command = self.into_command();
        shape(&mut command);
        process::spawn_aside(&mut command).map_err(cannot_start)
    }

    /// Runs git and returns its output, whatever its status.
    pub(crate) fn output(mut self) -> Result<Output> {
        let Some(input) = self.input.take() else {
            return process::output(&mut self.into_command()).map_err(cannot_start);
        };
        let mut child = self.spawn(|command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        })?;
        let stdin = child.stdin.take();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.map(|mut stdin| stdin.write_all(&input))); // its status reports failures
            child.wait_with_output().map_err(cannot_start)
        })
    }

    /// Runs git on the user's terminal and returns its exit status.
    pub(super) fn status(self) -> Result<i32> {
        let status = self.into_command().status().map_err(cannot_start)?;
        Ok(status.code().unwrap_or(1))
    }

    /// Runs git and returns its output. A status other than 0 is an error with git's message as the cause.
    pub(super) fn run(self) -> Result<Vec<u8>> {
        let verb = self.verb;
        let output = self.output()?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(failure(&format!("git {verb}"), output.status, &String::from_utf8_lossy(&output.stderr)))
    }

    /// Runs git and reports whether it succeeded.
    pub(super) fn succeeds(self) -> Result<bool> {
        self.output().map(|output| output.status.success())
    }

    /// Runs git and returns the one word that it printed.
    pub(crate) fn word(self) -> Result<String> {
        self.run().map(|printed| String::from_utf8_lossy(&printed).trim_end().to_owned())
    }

    /// Runs git with `-z` and returns the records that it printed.
    pub(super) fn records(self) -> Result<Vec<BString>> {
        self.arg_before_operands("-z").run().map(|printed| nul_separated(&printed).map(BString::from).collect())
    }

    /// Runs `status` and returns the paths that differ from HEAD or the index, or are untracked. The arguments are git's own
    /// values, so that no setting decides: `untracked` is `all` or `normal`, `ignore_submodules` is `all`, `dirty`,
    /// `untracked` or `none`.
    pub(super) fn changed_paths(self, untracked: &str, ignore_submodules: &str) -> Result<Vec<BString>> {
        let git = self.only_reads().args(["--porcelain=v1", "--no-renames"]);
        let git = git.arg(format!("--untracked-files={untracked}"));
        let records = git.arg(format!("--ignore-submodules={ignore_submodules}")).records()?;
        Ok(records.iter().filter_map(|entry| entry.get(3..)).map(BString::from).collect())
    }

    fn arg_before_operands(mut self, argument: &str) -> Self {
        self.arguments.insert(0, argument.into());
        self
    }
}

/// Splits output that git printed with `-z` into its records.
pub(super) fn nul_separated(printed: &[u8]) -> impl Iterator<Item = &[u8]> {
    let printed = printed.strip_suffix(b"\0").unwrap_or(printed);
    let is_empty = printed.is_empty();
    printed.split(|byte| *byte == 0).filter(move |_| !is_empty)
}

/// Joins records for git's `-z --stdin`.
pub(super) fn nul_terminated(records: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut joined = Vec::new();
    for record in records {
        joined.extend_from_slice(record.as_ref());
        joined.push(0);
    }
    joined
}

pub(super) fn cannot_start(error: std::io::Error) -> Error {
    let error = Error::failed("git cannot be started").because(error);
    error.hint("install git 2.39 or newer, and see that it is on PATH")
}

/// Makes an error of a failed git command, with git's message as the cause.
pub(super) fn failure(what: &str, status: ExitStatus, stderr: &str) -> Error {
    let stderr = stderr.trim();
    let code = status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
    let error = Error::failed(format!("{what} failed ({code})"));
    if stderr.is_empty() { error } else { error.because(stderr.to_owned()) }
}
