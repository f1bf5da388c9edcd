//! The common part of all agents that are programs: one call is one process.

use std::ffi::OsString;

use tokio_util::sync::CancellationToken;

use super::{Request, Response, explain, stream};
use crate::process::{self, Finished, Mark, Source, SpawnError, Spec, Status, Stdin};
use crate::run::work::{Failure, FailureKind, Usage};

/// Bytes of each output stream that are kept in memory: the transcript holds more.
const KEEP: usize = 4 << 20;
/// Longest excerpt of a failed program's last output in its failure, in bytes.
const LAST_WORDS: usize = 2 << 10;
/// The longest line in which an agent's own retries are looked for, in bytes.
const LONGEST_LINE: usize = 256 << 10;
/// How often an agent may ask a service again that is overloaded or cannot be reached: what it has done so far is in its
/// memory alone, so a hiccup is better left to it.
const OWN_RETRIES: u32 = 2;
/// How often after it was refused: it may have renewed its login meanwhile.
const OWN_RETRIES_REFUSED: u32 = 1;

/// Recognises a line of an agent's output about a request that failed and that the agent makes again by itself.
pub(super) type Retries = fn(Source, &str) -> Option<Failure>;

/// An agent that announces no retries, or makes none.
pub(super) fn announces_none(_: Source, _: &str) -> Option<Failure> {
    None
}

/// Reads the usage so far from an agent's stdout, which may be cut short.
pub(super) type Spent = fn(&str) -> Usage;

/// An agent that tells nothing of what it used before its end, or never does.
pub(super) fn tells_nothing(_: &str) -> Usage {
    Usage::default()
}

/// A command line, what it reads, and what its environment has beside the request's: `None` removes a variable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    pub(super) argv: Vec<OsString>,
    pub(super) stdin: String,
    pub(super) env: Vec<(&'static str, Option<String>)>,
}

impl Invocation {
    /// Runs it for `request` until it ends by itself; not being able to, or being stopped, is a failure. It is stopped
    /// as well when `retries` shows that it goes on asking a service that refuses it: when to ask again, and whether, is
    /// the loop's to decide, which says so and asks for all workers at once. What one that was stopped has used by then
    /// is what `spent` reads.
    pub(super) async fn run(self, request: &Request, retries: Retries, spent: Spent) -> Result<Finished, Failure> {
        let program = self.program();
        let spec = self.spec(request);
        let mut listener = Listener::new(retries, request.cancel.child_token());
        let stop = listener.stop.clone();
        let finished = process::run_heard(spec, &stop, &mut |source, bytes| listener.hear(source, bytes)).await;
        let finished = finished.map_err(|error| unstarted(&error))?;
        let stopped = match finished.status {
            Status::Cancelled if listener.enough() && !request.cancel.is_cancelled() => {
                listener.failure.take().unwrap_or_else(|| Failure::new(FailureKind::Cancelled, "stopped"))
            }
            Status::TimedOut => late(&program),
            Status::Cancelled => Failure::new(FailureKind::Cancelled, "stopped"),
            Status::Exited(_) | Status::Signaled(_) => return Ok(finished),
        };
        Err(stopped.after(spent(&finished.stdout.text())))
    }

    /// The program's name.
    pub(super) fn program(&self) -> String {
        self.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// The process that it is.
    pub(super) fn spec(self, request: &Request) -> Spec {
        let own = self.env.into_iter().map(|(name, value)| (name.into(), value.map(OsString::from)));
        let env = own.chain(request.env.iter().map(|(name, value)| (name.into(), Some(value.into())))).collect();
        Spec {
            argv: self.argv,
            cwd: Some(request.cwd.clone()),
            env,
            stdin: Stdin::Bytes(self.stdin.into_bytes()),
            timeout: request.timeout,
            keep: KEEP,
            spool: request.transcript.clone(),
            mark: Some(Mark { run: request.run.clone(), call: request.call.to_string() }),
        }
    }
}

/// The failure of a call whose time is over.
pub(super) fn late(program: &str) -> Failure {
    Failure::new(FailureKind::Timeout, format!("'{program}' took longer than it may"))
        .hint("'--timeout' says how long a call may take")
}

/// Follows an agent's output for retries of its own.
struct Listener {
    retries: Retries,
    stop: CancellationToken,
    /// The unfinished lines of stdout and stderr.
    lines: [Vec<u8>; 2],
    reported: u32,
    failure: Option<Failure>,
}

impl Listener {
    fn new(retries: Retries, stop: CancellationToken) -> Self {
        Self { retries, stop, lines: [Vec::new(), Vec::new()], reported: 0, failure: None }
    }

    fn hear(&mut self, source: Source, bytes: &[u8]) {
        let mut parts = bytes.split(|byte| *byte == b'\n');
        let last = parts.next_back().unwrap_or_default();
        let mut line = std::mem::take(&mut self.lines[source as usize]);
        for part in parts {
            line.extend_from_slice(part);
            self.read(source, &line);
            line.clear();
        }
        if line.len() + last.len() <= LONGEST_LINE {
            line.extend_from_slice(last);
        }
        self.lines[source as usize] = line;
    }

    fn read(&mut self, source: Source, line: &[u8]) {
        let Some(mut failure) = (self.retries)(source, &String::from_utf8_lossy(line)) else { return };
        if failure.kind == FailureKind::Crashed {
            failure.kind = FailureKind::Overloaded; // the agent holds it for something that passes
        }
        self.reported += 1;
        self.failure = Some(failure);
        if self.enough() {
            self.stop.cancel();
        }
    }

    fn enough(&self) -> bool {
        let patience = match &self.failure {
            None => return false,
            Some(failure) if failure.kind == FailureKind::RateLimited => 0,
            Some(failure) if failure.kind.is_permanent() => OWN_RETRIES_REFUSED,
            Some(_) => OWN_RETRIES,
        };
        self.reported > patience
    }
}

pub(super) fn unstarted(error: &SpawnError) -> Failure {
    match error {
        SpawnError::NotFound(_) => Failure::new(FailureKind::NotInstalled, error.to_string())
            .hint("install it, or choose another with '--backend'; 'git agentloop backends' lists them"),
        SpawnError::NotExecutable(_) => Failure::new(FailureKind::NotInstalled, error.to_string())
            .hint("make the file executable, and see that what its first line names is installed"),
        SpawnError::TooLong => Failure::new(FailureKind::Crashed, error.to_string())
            .hint("a command without {prompt}, {combined} and {system} gets the text on its standard input instead"),
        SpawnError::Other(source) => Failure::new(FailureKind::Crashed, format!("{error}: {source}")),
        SpawnError::BadCwd(_) | SpawnError::NoInput(..) => Failure::new(FailureKind::Crashed, error.to_string()),
    }
}

/// The failure of a program that exited other than with 0 and did not explain it in its own format: how it ended, and
/// the last words of its errors or, where there are none, of its output.
pub(super) fn crash(program: &str, finished: &Finished) -> Failure {
    let ended = how_it_ended(program, finished.status);
    Failure::new(FailureKind::Crashed, with_words(ended, &last_words(finished)))
}

/// Judges a call that ended by itself and whose output was read as `read`: nothing if it holds neither an answer nor an
/// error.
///
/// An answer counts only where the program then exited with 0. Where it did not, its answer is no explanation: it may be
/// about logins and limits.
pub(super) fn judged(
    program: &str,
    finished: &Finished,
    read: Option<Result<Response, Failure>>,
) -> Result<Response, Failure> {
    let has_succeeded = finished.status == Status::Exited(0);
    match read {
        Some(Ok(response)) if has_succeeded => {
            Ok(Response { failed_actions: stream::failed(&finished.stdout.text()), ..response })
        }
        Some(Ok(response)) => {
            let ended = format!("{} after it had answered", how_it_ended(program, finished.status));
            let said = finished.stderr.text();
            Err(Failure::new(FailureKind::Crashed, with_words(ended, end_of(&said))).after(response.usage))
        }
        Some(Err(failure)) => Err(failure),
        None => {
            let words = last_words(finished);
            let failure = explain::failure(None, &words);
            Err(match failure.kind {
                FailureKind::Crashed if has_succeeded => {
                    Failure::new(FailureKind::Protocol, with_words(format!("'{program}' gave no answer"), &words))
                }
                FailureKind::Crashed => crash(program, finished),
                _ => failure,
            })
        }
    }
}

/// How a program came to its end, in words.
pub(super) fn how_it_ended(program: &str, status: Status) -> String {
    match status {
        Status::Exited(code) => format!("'{program}' exited with status {code}"),
        Status::Signaled(signal) => format!("'{program}' was killed by signal {signal}"),
        Status::TimedOut | Status::Cancelled => format!("'{program}' was stopped"),
    }
}

/// Joins a failure and the program's own words about it, if it printed any.
pub(super) fn with_words(happened: String, words: &str) -> String {
    if words.is_empty() { happened } else { format!("{happened}: {words}") }
}

/// The end of what a program wrote to its standard error or, where that is nothing, to its standard output; of a stream of
/// JSON, its errors.
fn last_words(finished: &Finished) -> String {
    let errors = finished.stderr.text();
    end_of(&if errors.trim().is_empty() { stream::words(&finished.stdout.text()) } else { errors }).to_owned()
}

/// The end of `text`, as much of it as goes into a failure.
pub(super) fn end_of(text: &str) -> &str {
    let text = text.trim();
    text[text.ceil_char_boundary(text.len().saturating_sub(LAST_WORDS))..].trim_start()
}

/// The role's text and the task as one, for programs that have one place for both.
pub(super) fn combined(request: &Request) -> String {
    format!("{}\n\n{}", request.system.trim_end(), request.prompt)
}
