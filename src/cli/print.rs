//! Prints to standard output and standard error. All text for a person goes through here and is cleaned of control
//! sequences, so that no verb can let text of others act on a terminal.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use crate::error::{Error, Result};
use crate::run::sanitize;

/// Prints an answer; returns `false` if the pipe is closed.
pub fn out(text: impl AsRef<str>) -> Result<bool> {
    raw(sanitize::shown(text.as_ref()).as_bytes())
}

/// Prints bytes unchanged, for a program; returns `false` if the pipe is closed.
pub fn raw(bytes: &[u8]) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::failed("the answer could not be written to standard output")
            .because(error)
            .hint("the run's record is in git all the same: 'git agentloop result' shows it")),
    }
}

/// Prints a line on standard error and ignores errors.
pub fn note(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Returns standard error, for text that is written in pieces.
#[must_use]
pub fn stderr() -> Clean {
    Clean(std::io::stderr())
}

/// Standard error without control sequences.
pub struct Clean(std::io::Stderr);

impl std::io::Write for Clean {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(sanitize::shown(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// Reports whether standard output is a terminal.
#[must_use]
pub fn person_reads() -> bool {
    std::io::stdout().is_terminal()
}

/// Reports whether standard error is a terminal.
#[must_use]
pub fn person_listens() -> bool {
    std::io::stderr().is_terminal()
}

/// Reports whether the user can be asked at a terminal.
#[must_use]
pub fn person_answers() -> bool {
    std::io::stdin().is_terminal() && person_listens()
}

/// Asks the user a question and returns whether the answer is yes.
#[must_use]
pub fn person_agrees(question: &str) -> bool {
    let _ = write!(stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let heard = std::io::stdin().read_line(&mut answer);
    heard.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

/// A stream that may lead to a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, for `tail`.
    Out,
    /// Standard error, for verbs with an answer.
    Err,
}

impl Stream {
    /// Returns the columns and rows of the terminal behind it.
    #[must_use]
    pub fn size(self) -> Option<(usize, usize)> {
        let size = match self {
            Self::Out => rustix::termios::tcgetwinsize(std::io::stdout()),
            Self::Err => rustix::termios::tcgetwinsize(std::io::stderr()),
        };
        let size = size.ok().filter(|size| size.ws_col > 0 && size.ws_row > 0)?;
        Some((size.ws_col.into(), size.ws_row.into()))
    }

    /// Draws on the terminal. Control sequences are kept, so text of others must be cleaned before. Errors are ignored.
    pub fn draw(self, text: &str) {
        let _ = match self {
            Self::Out => {
                let mut stream = std::io::stdout().lock();
                stream.write_all(text.as_bytes()).and_then(|()| stream.flush())
            }
            Self::Err => std::io::stderr().lock().write_all(text.as_bytes()),
        };
    }
}
