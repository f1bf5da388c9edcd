//! State that all calls of a server share.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::changes::Subscriptions;
use super::scope::{Scope, blocking};
use crate::app::{self, Site};
use crate::error::{Error, Result};
use crate::run::goal::RunId;
use crate::run::text::count;
use crate::run::view::{RunResult, Status};

/// The server of one repository.
pub struct Server {
    pub(super) scope: Arc<Scope>,
    /// Cancelled once the client is gone.
    pub(super) closed: CancellationToken,
    pub(super) subscriptions: Arc<Subscriptions>,
}

impl Server {
    /// Opens a server of the repository that `dir`, or the current directory, is in. Its client is gone once `closed` is
    /// cancelled.
    ///
    /// # Errors
    /// Fails if `dir` is given and is not in a repository.
    pub fn open(dir: Option<&Path>, closed: CancellationToken) -> Result<Self> {
        Ok(Self { scope: Arc::new(Scope::open(dir)?), closed, subscriptions: Arc::default() })
    }

    /// Returns the run that waits for answers to `token`, with its questions.
    pub(super) async fn asked(&self, token: String) -> Result<RunResult> {
        self.scope.read(move |site| waiting_for(site, &token)).await
    }

    /// Answers the questions that `token` belongs to, and resumes the run.
    pub(super) async fn answer(&self, token: String, answers: Vec<String>) -> Result<Status> {
        let scope = Arc::clone(&self.scope);
        blocking(move || {
            let site = scope.fresh()?;
            let result = waiting_for(&site, &token)?;
            let (wanted, there) = (result.questions.len(), answers.len());
            if wanted != there {
                let (asked, given) = (count(wanted, "question"), count(there, "answer"));
                return Err(Error::usage(format!("argument 'answers': {asked}, and {given}"))
                    .hint(format!("one answer a question, in order: {}", json!(result.questions))));
            }
            app::answer_detached(&site, &token, answers)
        })
        .await
    }
}

/// Finds the run that waits for answers to `token`.
fn waiting_for(site: &Site, token: &str) -> Result<RunResult> {
    let refused = |why: String| {
        Error::usage(format!("argument 'token': {why}"))
            .hint("orchestrate_result gives the token of a run that waits, with its questions")
    };
    let shown: String = token.chars().take(80).collect();
    let run: Option<RunId> = token.split_once('.').and_then(|(run, _)| run.parse().ok());
    let run = run.ok_or_else(|| refused(format!("{shown:?} is no token")))?;
    let result = app::result(site, Some(run.as_str())).map_err(|error| refused(error.chain()))?;
    match &result.token {
        Some(newest) if newest == token => Ok(result),
        Some(_) => Err(refused(format!("{shown:?} is not the one that {run} waits with"))),
        None => Err(refused(format!("{run} waits with no questions; it is {}", result.status))),
    }
}
