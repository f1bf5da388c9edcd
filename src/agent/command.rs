//! Agents that are programs: one runner for all of them, and a template for the user's own.

use std::ffi::OsString;
use std::path::PathBuf;

use super::{Agent, Reply, Request, Response};
use crate::error::{Error, Result};
use crate::process::{self, Captured, Finished, Mark, SpawnError, Spec, Status, Stdin};
use crate::run::event::clip;
use crate::run::work::{Failure, FailureKind};

/// Bytes of an agent's output that are kept to be read; its transcript holds more.
const KEEP: usize = 4 * 1024 * 1024;
/// Bytes of an agent's complaints that a failure repeats.
const COMPLAINT: usize = 2 * 1024;

/// One call of a program.
#[derive(Clone, Debug, Default)]
pub(super) struct Call {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// What it reads.
    pub stdin: String,
    /// Further environment.
    pub env: Vec<(&'static str, String)>,
}

/// Runs `call` for `request`. That it could not be started, was stopped or ran out of time is a failure; whatever else
/// it did is for its backend to judge.
pub(super) async fn run(call: Call, request: &Request) -> Result<Finished, Failure> {
    let program = call.argv.first().map(|program| program.to_string_lossy().into_owned()).unwrap_or_default();
    let own = call.env.into_iter().map(|(name, value)| (name.into(), Some(value.into())));
    let given = request.env.iter().map(|(name, value)| (name.into(), Some(value.into())));
    let spec = Spec {
        argv: call.argv,
        cwd: Some(request.cwd.clone()),
        env: own.chain(given).collect(),
        stdin: if call.stdin.is_empty() { Stdin::Null } else { Stdin::Bytes(call.stdin.into_bytes()) },
        timeout: request.timeout,
        keep: KEEP,
        spool: request.transcript.clone(),
        mark: Some(Mark { run: request.run.clone(), call: request.call.to_string() }),
    };
    let finished = process::run(spec, &request.cancel).await.map_err(|error| not_started(&program, &error))?;
    match finished.status {
        Status::Exited(_) | Status::Signaled(_) => Ok(finished),
        Status::TimedOut => {
            let seconds = request.timeout.unwrap_or_default().as_secs_f64();
            Err(Failure::new(FailureKind::Timeout, format!("'{program}' was not done after {seconds} s")))
        }
        Status::Cancelled => Err(Failure::new(FailureKind::Cancelled, "stopped")),
    }
}

fn not_started(program: &str, error: &SpawnError) -> Failure {
    match error {
        SpawnError::NotFound(_) | SpawnError::NotExecutable(_) => {
            Failure::new(FailureKind::NotInstalled, error.to_string())
                .hint(format!("install '{program}', or see that it is on PATH and may be run"))
        }
        _ => Failure::new(FailureKind::Crashed, error.to_string()),
    }
}

/// A failure for a program that ended otherwise than well, in its own last words.
pub(super) fn crashed(program: &str, finished: &Finished) -> Failure {
    let how = match finished.status {
        Status::Exited(code) => format!("exit code {code}"),
        Status::Signaled(signal) => format!("killed by signal {signal}"),
        Status::TimedOut | Status::Cancelled => "stopped".to_owned(),
    };
    let said = [&finished.stderr, &finished.stdout].map(Captured::text);
    let said = said.iter().map(|text| text.trim()).find(|text| !text.is_empty()).unwrap_or("it said nothing");
    Failure::new(FailureKind::Crashed, format!("'{program}' failed ({how}): {}", tail(said)))
}

fn tail(text: &str) -> String {
    if text.len() <= COMPLAINT {
        return text.to_owned();
    }
    format!("… {}", &text[text.ceil_char_boundary(text.len() - COMPLAINT)..])
}

/// A user's own agent: `git config agentloop.backend.<name>.command`.
///
/// `{prompt}`, `{system}`, `{combined}` and `{model}` are replaced inside the words of the template, without a shell.
/// Where neither `{prompt}` nor `{combined}` is named, system text and prompt go to standard input.
#[derive(Clone, Debug)]
pub struct Template {
    words: Vec<String>,
}

impl Template {
    /// The template `text`, split into words as a shell would split it.
    ///
    /// # Errors
    /// Where it is empty or its quotes do not match.
    pub fn new(name: &str, text: &str) -> Result<Self> {
        let key = format!("agentloop.backend.{name}.command");
        let wrong = |why: String| {
            Error::usage(format!("{key} {why}"))
                .hint(format!("for instance: git config {key} 'my-agent --ask {{prompt}}'"))
        };
        let words = shell_words::split(text).map_err(|error| wrong(format!("is '{}': {error}", clip(text, 200))))?;
        if words.is_empty() {
            return Err(wrong("is empty".to_owned()));
        }
        Ok(Self { words })
    }

    /// The program that it names.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.words.first().map(PathBuf::from).unwrap_or_default()
    }

    fn call(&self, request: &Request) -> Call {
        let combined = format!("{}\n\n{}", request.system.trim_end(), request.prompt);
        let model = request.model.as_deref().unwrap_or_default();
        let values = [
            ("{prompt}", request.prompt.as_str()),
            ("{system}", &request.system),
            ("{combined}", &combined),
            ("{model}", model),
        ];
        let names = |placeholder: &str| self.words.iter().any(|word| word.contains(placeholder));
        let on_stdin = !names("{prompt}") && !names("{combined}");
        Call {
            argv: self.words.iter().map(|word| fill(word, &values).into()).collect(),
            stdin: if on_stdin { combined } else { String::new() },
            env: Vec::new(),
        }
    }
}

/// Replaces placeholders in one pass: what a value holds is not looked at again.
fn fill(word: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::new();
    let mut rest = word;
    while !rest.is_empty() {
        let next = values
            .iter()
            .filter_map(|(name, value)| Some((rest.find(name)?, *name, *value)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, name, value)) = next else { break };
        filled.push_str(&rest[..at]);
        filled.push_str(value);
        rest = &rest[at + name.len()..];
    }
    filled + rest
}

impl Agent for Template {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(async move {
            let finished = run(self.call(request), request).await?;
            if finished.status != Status::Exited(0) {
                return Err(crashed(&self.program().to_string_lossy(), &finished));
            }
            Ok(Response::text(finished.stdout.text()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_whole_words_and_are_not_filled_again() {
        let template = Template::new("x", "agent --model={model} '{system}' -- {prompt}").unwrap();
        let request = super::super::tests::request("be {model}", "a \"quoted\" $(thing) {system}\n--flag");
        let call = template.call(&request);
        let words: Vec<_> = call.argv.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words, ["agent", "--model=m", "be {model}", "--", "a \"quoted\" $(thing) {system}\n--flag"]);
        assert_eq!(call.stdin, "");
    }

    #[test]
    fn without_a_placeholder_for_the_prompt_it_goes_to_stdin() {
        let template = Template::new("x", "agent {model}").unwrap();
        assert_eq!(template.call(&super::super::tests::request("system\n", "prompt")).stdin, "system\n\nprompt");
        assert!(Template::new("x", "  ").is_err());
        assert!(Template::new("x", "unclosed '").is_err());
    }
}
