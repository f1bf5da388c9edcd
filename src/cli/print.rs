//! Standard output and standard error.

use std::io::{ErrorKind, IsTerminal as _, Write as _};

use crate::error::{Error, Result};

/// Prints an answer; `false` where nobody reads any more.
///
/// # Errors
/// Where it cannot be written for another reason: the disk behind it is full, say.
pub fn out(text: impl AsRef<[u8]>) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::failed("the answer could not be written to standard output")
            .because(error)
            .hint("the run's record is in git all the same: 'git agentloop result' shows it")),
    }
}

/// Says a line on standard error, to whoever may listen.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
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
    let _ = write!(std::io::stderr().lock(), "{question} [y/N] ");
    let mut answer = String::new();
    let heard = std::io::stdin().read_line(&mut answer);
    heard.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
