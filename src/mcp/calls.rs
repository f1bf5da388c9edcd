//! Runs the tools: each calls `app` and returns its view.

use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{CallToolResponse, InputResponses};
use rmcp::service::RequestContext;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::arguments::Given;
use super::asking::{self, Channel};
use super::reply::view;
use super::scope::{blocking, run_of};
use super::server::Server;
use super::waiting::{Wait, deadline};
use super::{starting, tasks};
use crate::app::{self, Doctor, Site};
use crate::error::{Context as _, Error, Result};
use crate::run::id::is_subgoal_id;
use crate::run::text::{a_few, count};
use crate::run::view::Status;

/// Number of transcripts that an error names.
const NAMED: usize = 20;

/// The context of a tool's call.
pub struct Call {
    /// The caller and its capabilities.
    pub context: RequestContext<RoleServer>,
    /// The token that the client sends back with answers, if an earlier call returned questions.
    pub state: Option<String>,
    /// The answers to those questions.
    pub responses: InputResponses,
}

impl Server {
    /// Runs the tool `name`.
    pub(super) async fn perform(&self, name: &str, given: Given, call: Call) -> Result<CallToolResponse> {
        if let Some(token) = call.state.clone() {
            return self.answered(&token, call).await;
        }
        match name {
            "orchestrate" => self.orchestrate(given, call).await,
            "orchestrate_resume" => self.resume(given, call).await,
            "orchestrate_continue" => self.go_on(given, call).await,
            "orchestrate_steer" => self.steer(given).await,
            "orchestrate_result" => self.result(&given, call).await,
            "orchestrate_status" => self.read(&given, |site, id| app::status(site, Some(id))).await,
            "orchestrate_tail" => {
                let cursor = given.whole("cursor").unwrap_or(0);
                let limit = given.size("limit").unwrap_or(usize::MAX);
                self.read(&given, move |site, id| app::tail(site, Some(id), cursor, limit)).await
            }
            "orchestrate_output" => self.output(&given).await,
            "orchestrate_merge_preview" => self.read(&given, merge_preview).await,
            "orchestrate_cancel" => {
                let (scope, run_id) = (Arc::clone(&self.scope), run_id(&given));
                view(
                    &blocking(move || {
                        let site = scope.fresh()?;
                        app::cancel_detached(&site, run_of(&site, &run_id)?.as_str())
                    })
                    .await?,
                )
            }
            "orchestrate_list" => view(&json!({ "runs": self.scope.read(app::list).await? })),
            "list_backends" => {
                let scope = Arc::clone(&self.scope);
                let look = move || {
                    let site = scope.fresh()?;
                    asking_agents(app::examined_backends(&site))
                };
                let backends = blocking(look).await?;
                let (default, resolved) = self.scope.read(|site| Ok(app::default_backend(site))).await?;
                view(&json!({ "backends": backends, "default": default, "resolved_default": resolved }))
            }
            "doctor" => {
                let scope = Arc::clone(&self.scope);
                let look = move || {
                    let (dir, cwd) = scope.asked_about(given.text("cwd"))?;
                    asking_agents(async { Doctor { cwd, ..app::doctor(Some(&dir)).await } })
                };
                view(&blocking(look).await?)
            }
            _ => Err(Error::failed(format!("{name} is listed, and nothing does it"))),
        }
    }

    /// Returns what `read` reads from the run in the arguments.
    async fn read<T: Serialize + Send + 'static>(
        &self,
        given: &Given,
        read: impl Fn(&Site, &str) -> Result<T> + Send + 'static,
    ) -> Result<CallToolResponse> {
        let run_id = run_id(given);
        view(&self.scope.read(move |site| read(site, run_of(site, &run_id)?.as_str())).await?)
    }

    async fn orchestrate(&self, given: Given, call: Call) -> Result<CallToolResponse> {
        let (scope, detach) = (Arc::clone(&self.scope), given.flag("detach"));
        let client = call.context.client_info().map(|client| client.name);
        let (status, notices) = blocking(move || {
            let site = scope.at(given.text("cwd"))?;
            let new = starting::new_run(&given, &site, client.as_deref())?;
            let notices = if detach { app::notices(&site, &new)? } else { Vec::new() };
            Ok((app::run_detached(&site, new)?, notices))
        })
        .await?;
        self.opened(status, detach.then_some(&notices), &call).await
    }

    async fn resume(&self, given: Given, call: Call) -> Result<CallToolResponse> {
        let token = given.text("token").unwrap_or_default().to_owned();
        let status = self.answer(token, given.texts("answers").unwrap_or_default()).await?;
        self.opened(status, given.flag("detach").then_some(&[]), &call).await
    }

    async fn go_on(&self, given: Given, call: Call) -> Result<CallToolResponse> {
        let (scope, detach) = (Arc::clone(&self.scope), given.flag("detach"));
        let status = blocking(move || {
            let site = scope.fresh()?;
            let changes = starting::changes(&given)?;
            app::resume_detached(&site, run_of(&site, &run_id(&given))?.as_str(), changes)
        })
        .await?;
        self.opened(status, detach.then_some(&[]), &call).await
    }

    async fn steer(&self, given: Given) -> Result<CallToolResponse> {
        let scope = Arc::clone(&self.scope);
        let steered = move || {
            let site = scope.fresh()?;
            let run = run_of(&site, &run_id(&given))?;
            app::steer(&site, Some(run.as_str()), given.text("guidance").unwrap_or_default())?;
            app::status(&site, Some(run.as_str()))
        };
        view(&blocking(steered).await?)
    }

    async fn result(&self, given: &Given, call: Call) -> Result<CallToolResponse> {
        let run_id = run_id(given);
        let run = self.scope.read(move |site| run_of(site, &run_id)).await?;
        let until = if given.flag("wait") { deadline(given.seconds("timeout")) } else { Some(Instant::now()) };
        view(&Wait::new(&self.scope, run, &call.context, &self.closed).result(until).await?)
    }

    /// Continues a call whose `input_required` result the client has answered.
    async fn answered(&self, token: &str, call: Call) -> Result<CallToolResponse> {
        let waiting = self.asked(token.to_owned()).await?;
        match asking::given(&call.responses, waiting.questions.len())? {
            Some(answers) => {
                let status = self.answer(token.to_owned(), answers).await?;
                self.opened(status, None, &call).await
            }
            None => view(&waiting),
        }
    }

    /// Completes a call that started or resumed a run: returns at once with the notices if the call is detached, else waits
    /// for the end of the run.
    async fn opened(&self, status: Status, detached: Option<&[String]>, call: &Call) -> Result<CallToolResponse> {
        let run = status.run_id.clone();
        if let Some(notices) = detached {
            return view(&started(&status, notices));
        }
        if tasks::are_declared(&call.context) {
            return Ok(self.task_for(run).await?.into());
        }
        let mut wait = Wait::new(&self.scope, run, &call.context, &self.closed);
        loop {
            let result = wait.result(None).await?;
            let channel = asking::channel(&call.context).filter(|_| result.token.is_some());
            match channel {
                None => return view(&result),
                Some(Channel::Result) => return Ok(asking::required(&result).into()),
                Some(Channel::Request) => {}
            }
            // The run changes if another process answered first.
            let Some(asked) = wait.meanwhile(asking::ask(&call.context, &result)).await? else { continue };
            let (Ok(Some(answers)), Some(token)) = (asked, result.token.clone()) else { return view(&result) };
            self.answer(token, answers).await?;
        }
    }

    async fn output(&self, given: &Given) -> Result<CallToolResponse> {
        let subgoal = given.text("subgoal").unwrap_or_default().to_owned();
        if !is_subgoal_id(&subgoal) {
            return Err(Error::usage(format!("argument 'subgoal': {subgoal:?} is no subgoal's id"))
                .hint("orchestrate_result names them: history[].subgoals[].id; check1 is the first check"));
        }
        let iteration = given.small("iteration").unwrap_or_default();
        let attempt = given.small("attempt").map(|attempt| format!("/{attempt}")).unwrap_or_default();
        let which = format!("iter{iteration}/{subgoal}{attempt}");
        let cursor = given.size("cursor").unwrap_or(0);
        let limit = given.size("limit").unwrap_or(usize::MAX);
        self.read(given, move |site, id| {
            let transcript = app::output(site, Some(id), Some(&which)).map_err(|error| no_output(site, id, &error))?;
            let text = transcript.text.unwrap_or_default();
            let (page, cursor) = page(&text, cursor, limit);
            Ok(json!({
                "run_id": id,
                "path": transcript.paths.first(),
                "text": page,
                "cursor": cursor,
                "total": text.len(),
                "more": cursor < text.len(),
                "running": transcript.live.is_some(),
            }))
        })
        .await
    }
}

/// Runs agents' programs on a separate runtime: the server's has neither child processes nor signals enabled.
fn asking_agents<T>(look: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("no runtime can be started")?.block_on(look))
}

fn run_id(given: &Given) -> String {
    given.text("run_id").unwrap_or_default().to_owned()
}

/// Makes the result for a caller that does not wait.
fn started(status: &Status, notices: &[String]) -> serde_json::Value {
    let id = &status.run_id;
    let mut view = json!({
        "status": status.state,
        "state": status.state,
        "run_id": id,
        "branch": status.branch,
        "tail_command": format!("git agentloop tail -f {id}"),
        "message": format!(
            "The run goes on by itself: poll orchestrate_status or orchestrate_tail with run_id \"{id}\", and read \
             orchestrate_result once it is not running. Where you cannot poll, wait=true there holds the call open."
        ),
    });
    if !notices.is_empty() {
        view["notices"] = json!(notices);
    }
    view
}

fn merge_preview(site: &Site, id: &str) -> Result<serde_json::Value> {
    let preview = app::merge_preview(site, Some(id))?;
    let lines = |lines: fn(&app::FileStat) -> Option<u64>| preview.files.iter().filter_map(lines).sum::<u64>();
    let files = count(preview.files.len(), "file");
    let diffstat = format!("{files} changed, +{} -{}", lines(|file| file.added), lines(|file| file.removed));
    let mut view = serde_json::to_value(&preview).context("the preview cannot be written as JSON")?;
    view["diffstat"] = json!(diffstat);
    Ok(view)
}

/// Adds the list of existing transcripts to the error about a missing one.
fn no_output(site: &Site, id: &str, error: &Error) -> Error {
    let paths = app::output(site, Some(id), None).map(|transcript| transcript.paths).unwrap_or_default();
    let named: Vec<&str> = paths.iter().map(|path| path.trim_end_matches(".out")).collect();
    let hint = if named.is_empty() {
        "it has none yet".to_owned()
    } else {
        format!("there are, as iteration/subgoal/attempt: {}", a_few(&named, NAMED))
    };
    Error::usage(format!("arguments 'iteration' and 'subgoal': {error}")).hint(hint)
}

/// Returns at most `limit` bytes of `text` after `cursor`, and the next cursor. No character is split.
fn page(text: &[u8], cursor: usize, limit: usize) -> (String, usize) {
    let start = cursor.min(text.len());
    let mut end = start.saturating_add(limit).min(text.len());
    let continues = |at: usize| text.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    let whole = (end.saturating_sub(3)..=end).rev().find(|at| !continues(*at)).filter(|at| *at > start);
    if end < text.len() {
        end = whole.unwrap_or(end);
    }
    (String::from_utf8_lossy(&text[start..end]).into_owned(), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_make_the_whole_and_cut_no_character() {
        let text = "aé漢💥\n".repeat(20);
        for limit in 4..40 {
            let (mut whole, mut cursor) = (String::new(), 0);
            while cursor < text.len() {
                let (part, next) = page(text.as_bytes(), cursor, limit);
                assert!(next > cursor && next - cursor <= limit);
                whole.push_str(&part);
                cursor = next;
            }
            assert_eq!(whole, text);
        }
        assert_eq!(page(b"abc", 9, 2), (String::new(), 3));
        // Bytes that are not UTF-8 are passed, too.
        assert_eq!(page(&[0x80; 10], 0, 2).1, 2);
    }
}
