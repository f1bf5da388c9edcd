//! Running other programs: the only place that spawns a process.
//!
//! Every child starts without git's local environment, leads a process group of its own and reads nothing unless it is
//! given something. Its output is streamed into bounded room. When its call ends, in whatever way, so does all that it
//! started.

mod aside;
mod capture;
mod descent;
mod environment;
mod mark;
mod os;
mod tree;

#[cfg(test)]
mod tests;

pub use aside::{become_program, in_our_place, outliving, output, quiet, spawn_aside, terminate, works_for};
pub use capture::{Captured, Source, Spool, Transcript};
pub use descent::{ancestors, is_open, is_our_program, locked_files};
pub use environment::{clone_of, git_env_to_remove, global_config, state_dir};
pub use mark::{CLONE_VAR, Mark, RUN_VAR};
pub use os::hangup_ends_us;
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

/// Between SIGTERM and SIGKILL for a call that is cancelled or out of time: agents clean up after themselves on SIGTERM.
pub const GRACE: Duration = Duration::from_secs(3);
/// The same for what a call leaves behind when it ends by itself.
const LEFTOVER_GRACE: Duration = Duration::from_millis(500);
/// How long output is still read once nobody who should write it is there: a background process may hold the pipe.
const DRAIN: Duration = Duration::from_millis(500);
/// What one read takes: as much as a pipe holds by default (pipe(7)).
const CHUNK: usize = 64 << 10;

/// What to run and how.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    /// The program, searched on `PATH` if it has no slash, and its arguments.
    pub argv: Vec<OsString>,
    /// Where it starts; our own working directory if not given.
    pub cwd: Option<PathBuf>,
    /// What its environment has beside ours: `None` removes a variable. Applied after git's local variables are gone.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// What it reads.
    pub stdin: Stdin,
    /// How long it may take, the grace it then gets not counted.
    pub timeout: Option<Duration>,
    /// Bytes of stdout, and as many of stderr, that are kept in memory: half from the head, half from the tail.
    pub keep: usize,
    /// A file that gets stdout and stderr line by line, without their secrets. It is emptied first. Longer output than
    /// 16 MiB is cut in the middle; until the call ends the later 8 MiB of the file are then in no order.
    pub spool: Option<Transcript>,
    /// Whose process it is. Without a mark, a daemon that it leaves behind is stopped only once no older call is in
    /// flight; whatever runs code of others should carry one.
    pub mark: Option<Mark>,
}

/// What a child reads from its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stdin {
    /// Nothing: it is `/dev/null`.
    #[default]
    Null,
    /// These bytes, then end of file, whatever becomes of us meanwhile. A child that does not read them all is no error.
    Bytes(Vec<u8>),
}

/// Hears what a program writes, as it comes; nothing where that stream has come to its end.
pub type Hear<'a> = dyn FnMut(Source, &[u8]) + Send + 'a;

/// A call that has ended, and everything it started with it.
#[derive(Clone, Debug)]
pub struct Finished {
    /// How it ended.
    pub status: Status,
    /// What it wrote to standard output.
    pub stdout: Captured,
    /// What it wrote to standard error.
    pub stderr: Captured,
    /// Wall-clock seconds from its start until nothing of it was left.
    pub seconds: f64,
}

/// How a call's first process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// By itself, with this exit code.
    Exited(i32),
    /// By this signal, which was not ours.
    Signaled(i32),
    /// It was stopped when its time was over.
    TimedOut,
    /// It was stopped on request.
    Cancelled,
}

/// Why a program could not be started.
#[derive(Debug)]
pub enum SpawnError {
    /// There is no such program.
    NotFound(OsString),
    /// There is such a file, but it cannot be executed, or what its first line names cannot.
    NotExecutable(OsString),
    /// Its working directory is missing or cannot be entered.
    BadCwd(PathBuf),
    /// The arguments and the environment are longer than the system takes.
    TooLong,
    /// Its input could not be kept in this directory for temporary files.
    NoInput(PathBuf, io::Error),
    /// Anything else.
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

/// Runs a program until it and everything it started have ended. It is stopped when `cancel` is cancelled, and when its
/// time is over: SIGTERM for its whole tree, [`GRACE`], then SIGKILL for what is left. Where `cancel` is cancelled
/// already, nothing is started. Dropping the future kills the tree without grace.
pub async fn run(spec: Spec, cancel: &CancellationToken) -> Result<Finished, SpawnError> {
    run_heard(spec, cancel, &mut |_, _| {}).await
}

/// The same, with `hear` called for everything that the program writes, as it comes: whoever hears enough cancels.
pub async fn run_heard(spec: Spec, cancel: &CancellationToken, hear: &mut Hear<'_>) -> Result<Finished, SpawnError> {
    attend(spec, cancel, hear, None).await
}

/// The same for a program that is talked with: instead of what the spec says it reads what comes out of `said`, until
/// that is an empty text or nobody is left to say anything.
pub async fn converse(
    spec: Spec,
    cancel: &CancellationToken,
    hear: &mut Hear<'_>,
    said: mpsc::Receiver<Vec<u8>>,
) -> Result<Finished, SpawnError> {
    attend(spec, cancel, hear, Some(said)).await
}

async fn attend(
    spec: Spec,
    cancel: &CancellationToken,
    hear: &mut Hear<'_>,
    said: Option<mpsc::Receiver<Vec<u8>>>,
) -> Result<Finished, SpawnError> {
    if cancel.is_cancelled() {
        let (stdout, stderr) = Default::default();
        return Ok(Finished { status: Status::Cancelled, stdout, stderr, seconds: 0.0 });
    }
    let begun = Instant::now();
    let spool = spec.spool.as_ref().map(Spool::create).transpose().map_err(SpawnError::Other)?;
    let (mut child, mut tree) = start(&spec, said.is_some()).await?;
    let mut output = Output {
        stdout: Stream::new(child.stdout.take(), spec.keep),
        stderr: Stream::new(child.stderr.take(), spec.keep),
        spool,
        hear,
    };
    let stdin = child.stdin.take();
    let talk = async {
        tokio::join!(output.drain(), relay(stdin, said));
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
            // Bounded, as a process may hang in the kernel: tokio then reaps it when it ends.
            _ = timeout(DRAIN, child.wait()).await;
            status
        }
    };
    tree.reaped();
    if tree.may_remain() {
        output.drain_during(tree.stop(LEFTOVER_GRACE)).await;
    }
    _ = timeout(DRAIN, output.drain()).await;
    tree.finish();
    let (stdout, stderr) = output.finish().await;
    Ok(Finished { status, stdout, stderr, seconds: begun.elapsed().as_secs_f64() })
}

/// SIGKILL for every call in flight and all that came of it, before we end ourselves without waiting for them.
pub fn kill_calls() {
    tree::kill_calls();
}

/// Makes us the parent of every orphan below us, so that none escapes. Linux only; elsewhere nothing happens.
///
/// From then on a child of ours that this module did not start, and that is in another process group than ours, is
/// taken for such an orphan.
pub fn become_subreaper() {
    tree::adopt_orphans();
}

/// Stops what a driver left of a run, with what descends from it: SIGTERM, up to `grace`, SIGKILL, until nothing is left.
/// Ourselves, our ancestors and the calls we have in flight are spared. How many processes were stopped; one that may not
/// be signalled or does not die is reported to the log and not counted.
pub async fn stop_leftovers(left: &Leftovers<'_>, grace: Duration) -> usize {
    Tree::of_run(left).stop(grace).await
}

/// Writes down in `file` the processes that descend from us, for [`stop_leftovers`]; `known` is what it wrote last. Linux
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
        Stdin::Bytes(bytes) => whole(bytes).map_err(|error| SpawnError::NoInput(std::env::temp_dir(), error))?,
    });
    if let Some(mark) = &spec.mark {
        command.env(RUN_VAR, &mark.run).env(CALL_VAR, &mark.call);
    }
    let mut tries = 0;
    loop {
        match Tree::start(spec.mark.as_ref(), || command.spawn()) {
            Ok(started) => return Ok(started),
            // A program written a moment ago is busy for as long as a child forked meanwhile by another thread holds
            // the descriptor it was written through: until that child's own exec.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 20 => tries += 1,
            Err(error) => return Err(blame(spec, error)),
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

/// Says what a failed spawn means: the system reports a missing directory and a missing program alike.
fn blame(spec: &Spec, error: io::Error) -> SpawnError {
    let program = spec.argv.first().cloned().unwrap_or_default();
    let enterable = |path: &PathBuf| path.is_dir() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !enterable(cwd)) {
        return SpawnError::BadCwd(cwd.clone());
    }
    // A relative program is looked up from the directory the child starts in.
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

/// Input that is all there when its reader starts. Through a pipe, a child whose writer is killed half-way would take
/// what it got for all of it, and act on half a task.
fn whole(bytes: &[u8]) -> io::Result<Stdio> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Writes what is said to a child, as it comes.
async fn relay(pipe: Option<ChildStdin>, said: Option<mpsc::Receiver<Vec<u8>>>) {
    let (Some(mut pipe), Some(mut said)) = (pipe, said) else { return };
    while let Some(text) = said.recv().await.filter(|text| !text.is_empty()) {
        if let Err(error) = pipe.write_all(&text).await {
            tracing::debug!(%error, "a child did not read what it was told");
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

    /// Reads once; waits for ever when the stream has ended. Nothing is lost when it is dropped before it is ready.
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
    /// Reads both streams to their ends. It can be dropped and called again.
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

    /// Goes on reading while something else is done: a process that is to end must not hang in a write to us.
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
