//! Processes: the only place that starts other programs.
//!
//! Every child starts without git's local environment, leads a process group of its own and reads nothing unless it is given
//! input. Its output is captured in bounded memory. When its call ends, all processes that it started are stopped.

mod capture;
mod descent;
mod environment;
mod mark;
mod os;
mod programs;
mod tree;

#[cfg(test)]
mod tests;

pub use capture::{Captured, Source, Spool, Transcript};
pub use descent::{ancestors, is_open, is_our_program, locked_files};
pub use environment::{clone_of, git_env_to_remove, global_config, state_dir};
pub use mark::{CLONE_VAR, Mark, RUN_VAR};
pub use os::hangup_ends_us;
pub use programs::{become_program, in_our_place, outliving, output, quiet, spawn_aside, terminate, works_for};
pub use tree::Leftovers;

use capture::Capture;
use mark::CALL_VAR;
use std::convert::Infallible;
use std::ffi::OsString;
use std::fmt;
use std::future::{Future, pending};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tree::Tree;

/// Time between SIGTERM and SIGKILL for a call that is cancelled or out of time: agents clean up on SIGTERM.
pub const GRACE: Duration = Duration::from_secs(3);
/// Time between SIGTERM and SIGKILL for processes that a call leaves behind when it ends by itself.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// Time in which output is still read after the process ended: a background process may hold the pipe.
const DRAIN: Duration = Duration::from_millis(500);
/// Length of one read: as much as a pipe holds by default (pipe(7)).
const CHUNK: usize = 64 << 10;

/// The specification of a call.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// Program, searched on `PATH` if it has no slash, and its arguments.
    pub argv: Vec<OsString>,
    /// Directory that it starts in; this process's own by default.
    pub cwd: Option<PathBuf>,
    /// Changes to the inherited environment: `None` removes a variable. They are applied after git's local variables are
    /// removed.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Standard input.
    pub stdin: Stdin,
    /// Time limit, without the grace that follows it.
    pub timeout: Option<Duration>,
    /// Length of stdout and of stderr that is kept in memory, in bytes each: half from the head, half from the tail.
    pub keep: usize,
    /// File that gets stdout and stderr line by line, without secrets. It is truncated first. Output longer than 16 MiB is
    /// cut in the middle; until the call ends, the last 8 MiB of the file are unordered.
    pub spool: Option<Transcript>,
    /// Mark of the processes. Without one, a daemon that the call leaves behind is stopped only once no older call is
    /// running; whatever runs code of others should carry one.
    pub mark: Option<Mark>,
}

/// The standard input of a child.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// `/dev/null`.
    #[default]
    Null,
    /// These bytes, then end of file, even if this process dies. A child that does not read them all is no error.
    Bytes(Vec<u8>),
}

/// Callback for output as it comes; it is called with nothing at the end of a stream.
pub type Hear<'a> = dyn FnMut(Source, &[u8]) + Send + 'a;

/// A call that has ended, with everything that it started.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit status.
    pub status: Status,
    /// Standard output.
    pub stdout: Captured,
    /// Standard error.
    pub stderr: Captured,
    /// Seconds from its start until all of its processes had ended.
    pub seconds: f64,
}

/// The end of a call's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It exited with this code.
    Exited(i32),
    /// It was killed by this signal, which this program did not send.
    Signaled(i32),
    /// It was stopped because it reached its time limit.
    TimedOut,
    /// It was cancelled.
    Cancelled,
}

/// The reason why a program could not be started.
#[derive(Debug)]
pub enum SpawnError {
    /// There is no such program.
    NotFound(OsString),
    /// The file or the interpreter in its first line cannot be executed.
    NotExecutable(OsString),
    /// Its working directory is missing or cannot be entered.
    BadCwd(PathBuf),
    /// The arguments and the environment are longer than the system allows.
    TooLong,
    /// Its input could not be written to this directory for temporary files.
    NoInput(PathBuf, io::Error),
    /// Another error.
    Other(io::Error),
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(program) => write!(f, "program '{}' was not found", program.display()),
            Self::NotExecutable(program) => write!(f, "program '{}' cannot be executed", program.display()),
            Self::BadCwd(path) => write!(f, "'{}' is not a directory that can be entered", path.display()),
            Self::TooLong => f.write_str("the arguments and the environment are longer than the system allows"),
            Self::NoInput(dir, _) => write!(
                f,
                "no temporary file can be made in '{}': set TMPDIR to a directory that can be written",
                dir.display()
            ),
            Self::Other(_) => f.write_str("the program could not be run"),
        }
    }
}

impl std::error::Error for SpawnError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::NoInput(_, error) | Self::Other(error) => Some(error),
            _ => None,
        }
    }
}

/// Runs a program until it and all that it started have ended. At `cancel` and at its time limit its whole tree is sent
/// SIGTERM and, after [`GRACE`], SIGKILL. If `cancel` is cancelled already, nothing is started. Dropping the future kills
/// the tree without grace.
///
/// Fails only if the program cannot be started or its spool file cannot be created; failures of the program are in
/// [`Finished`].
pub async fn run(spec: Spec, cancel: &CancellationToken) -> Result<Finished, SpawnError> {
    run_heard(spec, cancel, &mut |_, _| {}).await
}

/// Runs a program as [`run`] does, and calls `hear` with its output as it comes.
pub async fn run_heard(spec: Spec, cancel: &CancellationToken, hear: &mut Hear<'_>) -> Result<Finished, SpawnError> {
    run_to_end(spec, cancel, hear, None).await
}

/// Runs a program as [`run_heard`] does, and writes the texts of `input` to its standard input until one is empty or the
/// channel is closed.
pub async fn converse(
    spec: Spec,
    cancel: &CancellationToken,
    hear: &mut Hear<'_>,
    input: mpsc::Receiver<Vec<u8>>,
) -> Result<Finished, SpawnError> {
    run_to_end(spec, cancel, hear, Some(input)).await
}

async fn run_to_end(
    spec: Spec,
    cancel: &CancellationToken,
    hear: &mut Hear<'_>,
    input: Option<mpsc::Receiver<Vec<u8>>>,
) -> Result<Finished, SpawnError> {
    if cancel.is_cancelled() {
        let (stdout, stderr) = Default::default();
        return Ok(Finished { status: Status::Cancelled, stdout, stderr, seconds: 0.0 });
    }
    let begun = Instant::now();
    let spool = spec.spool.as_ref().map(Spool::create).transpose().map_err(SpawnError::Other)?;
    let (mut child, mut tree) = start(&spec, input.is_some()).await?;
    let mut output = Output {
        stdout: Stream::new(child.stdout.take(), spec.keep),
        stderr: Stream::new(child.stderr.take(), spec.keep),
        spool,
        hear,
    };
    let stdin = child.stdin.take();
    let talk = async {
        tokio::join!(output.drain(), write_input(stdin, input));
        pending::<Infallible>().await
    };
    let out_of_time = async {
        match spec.timeout {
            Some(limit) => sleep(limit).await,
            None => pending().await,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = child.wait() => Ok(ended.map_err(SpawnError::Other)?),
        () = cancel.cancelled() => Err(Status::Cancelled),
        () = out_of_time => Err(Status::TimedOut),
        never = talk => match never {},
    };
    let status = match ended {
        Ok(exit) => {
            _ = timeout(DRAIN, output.drain()).await;
            status_of(exit)
        }
        Err(status) => {
            output.drain_during(tree.stop(GRACE)).await;
            // The wait is bounded, as a process may hang in the kernel; tokio then reaps it when it ends.
            _ = timeout(DRAIN, child.wait()).await;
            status
        }
    };
    tree.mark_reaped();
    if tree.may_remain() {
        output.drain_during(tree.stop(LEFTOVER_GRACE)).await;
    }
    _ = timeout(DRAIN, output.drain()).await;
    tree.finish();
    let (stdout, stderr) = output.finish().await;
    Ok(Finished { status, stdout, stderr, seconds: begun.elapsed().as_secs_f64() })
}

/// Sends SIGKILL to every running call and all of its processes, before this process ends without waiting for them.
pub fn kill_calls() {
    tree::kill_calls();
}

/// Makes this process the parent of orphaned descendants, so that none escapes. Linux only; elsewhere nothing happens.
///
/// From then on, a child in another process group that this module did not start is taken for such an orphan.
pub fn become_subreaper() {
    tree::adopt_orphans();
}

/// Stops the processes that a dead driver left, and their descendants: SIGTERM, after `grace` SIGKILL, until none is left.
/// This process, its ancestors and its running calls are spared. Returns the number of stopped processes; one that cannot be
/// signalled or does not die is logged and not counted.
pub async fn stop_leftovers(left: &Leftovers<'_>, grace: Duration) -> usize {
    Tree::of_run(left).stop(grace).await
}

/// Writes the descendants of this process to `file`, for [`stop_leftovers`]; `known` is the last written content. Linux
/// only; elsewhere nothing happens.
pub fn list_descendants(file: &Path, known: &mut Vec<u8>) -> io::Result<()> {
    tree::list_descendants(file, known)
}

fn status_of(exit: ExitStatus) -> Status {
    // A process that ended has a code or a signal.
    exit.code().map_or_else(|| Status::Signaled(exit.signal().unwrap_or_default()), Status::Exited)
}

async fn start(spec: &Spec, talks: bool) -> Result<(Child, Tree), SpawnError> {
    let mut command = command(spec)?;
    command.process_group(0).kill_on_drop(true).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(match &spec.stdin {
        _ if talks => Stdio::piped(),
        Stdin::Null => Stdio::null(),
        Stdin::Bytes(bytes) => input_file(bytes).map_err(|error| SpawnError::NoInput(std::env::temp_dir(), error))?,
    });
    if let Some(mark) = &spec.mark {
        command.env(RUN_VAR, &mark.run).env(CALL_VAR, &mark.call);
    }
    let mut tries = 0;
    loop {
        match Tree::start(spec.mark.as_ref(), || command.spawn()) {
            Ok(started) => return Ok(started),
            // A program that was just written is busy for as long as a child that another thread forked meanwhile holds the
            // descriptor it was written through, that is, until the child's own exec.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 20 => tries += 1,
            Err(error) => return Err(explain_failed_start(spec, error)),
        }
        sleep(Duration::from_millis(5)).await;
    }
}

fn command(spec: &Spec) -> Result<Command, SpawnError> {
    let (program, arguments) =
        spec.argv.split_first().ok_or_else(|| SpawnError::Other(io::Error::other("no program was given")))?;
    let mut command = Command::new(program);
    command.args(arguments);
    for name in git_env_to_remove() {
        command.env_remove(name);
    }
    for (name, value) in &spec.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    Ok(command)
}

/// Determines the reason of a failed spawn: the system reports a missing directory and a missing program alike.
fn explain_failed_start(spec: &Spec, error: io::Error) -> SpawnError {
    let program = spec.argv.first().cloned().unwrap_or_default();
    let enterable = |path: &PathBuf| path.is_dir() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !enterable(cwd)) {
        return SpawnError::BadCwd(cwd.clone());
    }
    // A relative program is looked up from the directory that the child starts in.
    let file = spec.cwd.as_deref().unwrap_or(Path::new("")).join(&program);
    let is_path = program.as_encoded_bytes().contains(&b'/');
    match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::NOENT) if is_path && file.exists() => SpawnError::NotExecutable(program),
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => SpawnError::NotFound(program),
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::NOEXEC | rustix::io::Errno::ISDIR) => {
            SpawnError::NotExecutable(program)
        }
        Some(rustix::io::Errno::TOOBIG) => SpawnError::TooLong,
        _ => SpawnError::Other(error),
    }
}

/// Returns input that is complete when its reader starts. Through a pipe, a child whose writer is killed half-way would act
/// on half of its task.
fn input_file(bytes: &[u8]) -> io::Result<Stdio> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Writes texts to a child's standard input, as they come.
async fn write_input(pipe: Option<ChildStdin>, input: Option<mpsc::Receiver<Vec<u8>>>) {
    let (Some(mut pipe), Some(mut input)) = (pipe, input) else { return };
    while let Some(text) = input.recv().await.filter(|text| !text.is_empty()) {
        if let Err(error) = pipe.write_all(&text).await {
            tracing::debug!(%error, "a child did not read its input");
            return;
        }
    }
}

struct Stream<P> {
    pipe: Option<P>,
    buffer: Box<[u8]>,
    capture: Capture,
}

impl<P: AsyncRead + Unpin> Stream<P> {
    fn new(pipe: Option<P>, keep: usize) -> Self {
        Self { pipe, buffer: vec![0; CHUNK].into(), capture: Capture::new(keep) }
    }

    /// Reads once; waits forever when the stream has ended. It is cancel-safe.
    async fn fill(&mut self) -> &[u8] {
        let Some(pipe) = &mut self.pipe else { return pending().await };
        let read = pipe.read(&mut self.buffer).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a child's output could not be read");
            0
        });
        if read == 0 {
            self.pipe = None;
        }
        self.capture.push(&self.buffer[..read]);
        &self.buffer[..read]
    }
}

struct Output<'a, 'b> {
    stdout: Stream<ChildStdout>,
    stderr: Stream<ChildStderr>,
    spool: Option<Spool>,
    hear: &'a mut Hear<'b>,
}

impl Output<'_, '_> {
    /// Reads both streams to their ends. It is cancel-safe and can be called again.
    async fn drain(&mut self) {
        while self.stdout.pipe.is_some() || self.stderr.pipe.is_some() {
            let (from, bytes) = tokio::select! {
                bytes = self.stdout.fill() => (Source::Stdout, bytes),
                bytes = self.stderr.fill() => (Source::Stderr, bytes),
            };
            (self.hear)(from, bytes);
            if let Some(spool) = &mut self.spool {
                spool.push(from, bytes);
            }
        }
    }

    /// Reads while `work` is done: a process that is to end must not hang in a write to its pipe.
    async fn drain_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = self.drain() => {}
        }
        work.await
    }

    async fn finish(self) -> (Captured, Captured) {
        if let Some(spool) = self.spool
            && let Ok(Err(error)) = tokio::task::spawn_blocking(|| spool.finish()).await
        {
            tracing::warn!(%error, "the log of a child's output is incomplete");
        }
        (self.stdout.capture.finish(), self.stderr.capture.finish())
    }
}
