//! Asks the person at the terminal.

use std::io::{BufRead, Write};

use super::print;
use crate::error::{Context as _, Result};
use crate::interaction::{Answers, Interaction};
use crate::run::sanitize;

/// Answer that is sent for an empty line.
const BEST_JUDGEMENT: &str = "use your best judgement";

/// Prints questions to standard error and reads one line for each from standard input.
#[derive(Clone, Copy, Debug, Default)]
pub struct Console;

impl Interaction for Console {
    fn ask<'a>(&'a self, questions: &'a [String]) -> Answers<'a> {
        let questions = questions.to_vec();
        Box::pin(async move {
            let ask = move || put(&questions, &mut std::io::stdin().lock(), &mut print::stderr());
            tokio::task::spawn_blocking(ask).await.context("the console's thread died")?
        })
    }
}

/// Returns one answer per question; `None` if the input ends before the last.
fn put(questions: &[String], input: &mut impl BufRead, output: &mut impl Write) -> Result<Option<Vec<String>>> {
    let _ = writeln!(output, "Before the work is planned (an empty answer leaves it to the agent):");
    let mut answers = Vec::with_capacity(questions.len());
    for question in questions {
        let _ = write!(output, "{}\n> ", sanitize::lines(question).trim()).and_then(|()| output.flush());
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line).context("the answer could not be read")? == 0 {
            let _ = writeln!(output);
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let answer = line.trim();
        answers.push(if answer.is_empty() { BEST_JUDGEMENT } else { answer }.to_owned());
    }
    Ok(Some(answers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_an_answer() {
        let questions = ["Which\u{1b}[31m one?".to_owned(), "Why?".to_owned()];
        let mut printed = Vec::new();
        let answers = put(&questions, &mut "  the first \n\n".as_bytes(), &mut printed).unwrap();
        assert_eq!(answers, Some(vec!["the first".to_owned(), BEST_JUDGEMENT.to_owned()]));
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.ends_with("Which one?\n> Why?\n> "), "{printed}");
        assert_eq!(put(&questions, &mut "one\n".as_bytes(), &mut Vec::new()).unwrap(), None);
    }
}
