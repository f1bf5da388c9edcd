//! An agent that is any command of the user's.
//!
//! `git config agentloop.backend.<name>.command 'my-agent --ask {prompt}'` makes one. Its words are split as a shell
//! would split them, but no shell runs: what is put in for a placeholder is part of one argument, whatever it holds.

use super::program::{Invocation, announces_none, combined, crash, tells_nothing};
use super::template::Template;
use super::{Agent, Reply, Request, Response};
use crate::error::Result;
use crate::process::Status;
use crate::run::work::{Failure, FailureKind};

/// A command with placeholders.
///
/// | placeholder | value |
/// | --- | --- |
/// | `{prompt}` | the task |
/// | `{system}` | the role's text |
/// | `{combined}` | the role's text, a blank line, the task |
/// | `{model}` | the model; where none was chosen, its word is left out and so is a bare option before it |
///
/// If it names neither `{prompt}` nor `{combined}`, the combined text is its standard input. Its answer is what it
/// writes to standard output; any exit status but 0 is a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    template: Template,
}

impl Command {
    /// Builds the command of `template`.
    ///
    /// # Errors
    /// A template that is empty, or has a quote that is not closed.
    pub fn new(name: &str, template: &str) -> Result<Self> {
        let key = format!("agentloop.backend.{name}.command");
        let example = format!("git config {key} 'my-agent --ask {{prompt}}'");
        Ok(Self { template: Template::new(&key, template, &example)? })
    }

    /// The program, as the template names it.
    #[must_use]
    pub fn program(&self) -> &str {
        self.template.program()
    }

    fn invocation(&self, request: &Request) -> Invocation {
        let both = combined(request);
        let texts = [("{prompt}", request.prompt.as_str()), ("{system}", &request.system), ("{combined}", &both)];
        let argv = self.template.argv(request.model.as_deref(), &texts);
        let on_stdin = !self.template.names("{prompt}") && !self.template.names("{combined}");
        Invocation { argv, stdin: if on_stdin { both } else { String::new() }, env: Vec::new() }
    }

    async fn answer(&self, request: &Request) -> Result<Response, Failure> {
        let invocation = self.invocation(request);
        if invocation.argv.iter().any(|word| word.as_encoded_bytes().contains(&0)) {
            return Err(Failure::new(FailureKind::Crashed, "the text holds a NUL, which no argument can")
                .hint("a command without {prompt} and {combined} gets the text on its standard input"));
        }
        let finished = invocation.run(request, announces_none, tells_nothing).await?;
        if finished.status != Status::Exited(0) {
            return Err(crash(self.program(), &finished));
        }
        Ok(Response::text(finished.stdout.text()))
    }
}

impl Agent for Command {
    fn run<'a>(&'a self, request: &'a Request) -> Reply<'a> {
        Box::pin(self.answer(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Transcript;
    use crate::agent::tests::{request, script};
    use crate::redact::Redactor;
    use crate::run::goal::Role;
    use std::time::Duration;

    fn argv(template: &str, request: &Request) -> Vec<String> {
        let invocation = Command::new("x", template).unwrap().invocation(request);
        invocation.argv.into_iter().map(|word| word.into_string().unwrap()).collect()
    }

    #[test]
    fn placeholders_become_parts_of_words() {
        let request = Request {
            system: "SYS".into(),
            prompt: "$(rm) '{system}' -x\n{model}".into(),
            model: Some("m".into()),
            ..request(Role::Criteria, "/".as_ref())
        };
        let task = &request.prompt;
        assert_eq!(
            argv("'my agent' -s={system} {prompt} {other} {model} '{combined}'", &request),
            ["my agent", "-s=SYS", task, "{other}", "m", &format!("SYS\n\n{task}")]
        );
        let none = Request { model: None, ..request };
        assert_eq!(argv("a --model {model} -m={model} run {model} x", &none), ["a", "run", "x"]);
        assert_eq!(argv("a -k=v {model}", &none), ["a", "-k=v"]);
    }

    #[test]
    fn the_text_is_on_stdin_where_no_word_has_it() {
        let request = request(Role::Criteria, "/".as_ref());
        let stdin = |template| Command::new("x", template).unwrap().invocation(&request).stdin;
        assert_eq!(stdin("a"), "You are the criteria of a test.\n\nthe task\n");
        assert!(!stdin("a {system}").is_empty());
        assert!(stdin("a {prompt}").is_empty() && stdin("a x{combined}").is_empty());
    }

    #[test]
    fn a_template_that_is_no_command_is_refused() {
        for template in ["", "  ", "'' x", "a 'b"] {
            assert!(Command::new("x", template).unwrap_err().hint_text().is_some(), "{template}");
        }
    }

    #[tokio::test]
    async fn a_command_answers_on_stdout() {
        let dir = tempfile::tempdir().unwrap();
        let body =
            "read -r role; echo \"$role\"; pwd; echo \"$EXTRA $AGENTLOOP_RUN $AGENTLOOP_CALL\"; printf '\\377'; cat";
        let agent = Command::new("x", &script(dir.path(), body)).unwrap();
        let transcript = dir.path().join("out");
        let request = Request {
            env: vec![("EXTRA".into(), "more".into())],
            transcript: Some(Transcript { path: transcript.clone(), redactor: Redactor::default() }),
            ..request(Role::Reviewer, dir.path())
        };
        let answer = agent.run(&request).await.unwrap().text;
        let cwd = dir.path().canonicalize().unwrap();
        let cwd = cwd.display();
        let wanted = format!("You are the reviewer of a test.\n{cwd}\nmore a-run-1a2b3c 1\n\u{fffd}\nthe task\n");
        assert_eq!(answer, wanted);
        assert_eq!(String::from_utf8_lossy(&std::fs::read(transcript).unwrap()), wanted);
    }

    #[tokio::test]
    async fn a_command_fails_in_known_ways() {
        let dir = tempfile::tempdir().unwrap();
        let request = request(Role::Criteria, dir.path());
        let fails = async |template: &str, request: &Request| {
            Command::new("x", template).unwrap().run(request).await.unwrap_err()
        };
        let failure = fails(&script(dir.path(), "echo out; echo boom >&2; exit 3"), &request).await;
        assert_eq!(failure.kind, FailureKind::Crashed);
        assert!(failure.message.ends_with("exited with status 3: boom"), "{}", failure.message);
        let failure = fails("no-such-agent-anywhere", &request).await;
        assert_eq!(failure.kind, FailureKind::NotInstalled);
        assert!(failure.hint.is_some());
        let hang = script(dir.path(), "sleep 60");
        let late = Request { timeout: Some(Duration::from_millis(50)), ..request.clone() };
        assert_eq!(fails(&hang, &late).await.kind, FailureKind::Timeout);
        let huge = Request { prompt: "x".repeat(8 << 20), ..request.clone() };
        let failure = fails("true {prompt}", &huge).await;
        assert!(failure.kind == FailureKind::Crashed && failure.hint.is_some(), "{failure}");
        let torn = Request { prompt: "a\0b".into(), ..request.clone() };
        assert!(fails("true {prompt}", &torn).await.message.contains("NUL"));
        let (failure, ()) = tokio::join!(fails(&hang, &request), async { request.cancel.cancel() });
        assert_eq!(failure.kind, FailureKind::Cancelled);
    }
}
