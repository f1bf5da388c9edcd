//! Standard output and standard error. Whatever is printed for a person goes through here, and what a terminal would act on
//! is taken out of it: what others wrote cannot reach a terminal because a verb forgot it.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use crate::error::{Error, Result};
use crate::run::sanitize;

/// Prints an answer; `false` where nobody reads any more.
///
/// # Errors
/// Where it cannot be written for another reason: the disk behind it is full, say.
pub fn out(text: impl AsRef<str>) -> Result<bool> {
    raw(sanitize::shown(text.as_ref()).as_bytes())
}

/// Prints bytes as they are, for a program; `false` where nobody reads any more.
///
/// # Errors
/// As [`out`].
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

/// Says a line on standard error, to whoever may listen.
pub fn note(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Standard error, for what is written piece by piece.
#[must_use]
pub fn stderr() -> Clean {
    Clean(std::io::stderr())
}

/// Standard error without what a terminal would act on.
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

/// Whether a person reads standard output.
#[must_use]
pub fn person_reads() -> bool {
    std::io::stdout().is_terminal()
}

/// Whether a person reads standard error.
#[must_use]
pub fn person_listens() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether a person can be asked.
#[must_use]
pub fn person_answers() -> bool {
    std::io::stdin().is_terminal() && person_listens()
}

/// Whether the person at the terminal says yes.
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
    /// Standard output, where following is what was asked for.
    Out,
    /// Standard error, beside an answer.
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

    /// Draws on it, control sequences included, so that text of others must be cleaned before. A terminal that is gone misses
    /// nothing.
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
