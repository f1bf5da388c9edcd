//! Runs as tasks (`io.modelcontextprotocol/tasks`): a task's id is the run's id, and its state is read from git, so that it
//! is valid after a restart and in every other server of the repository.

use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{
    CreateTaskResult, DetailedTask, ErrorData, GetTaskResult, JsonObject, Task, TaskPayload, TaskStatus,
    UpdateTaskParams,
};
use rmcp::service::RequestContext;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::reply::{report, structured};
use super::scope::{blocking, run_of};
use super::server::Server;
use super::{asking, waiting};
use crate::app::{self, Listed};
use crate::error::{Error, Result};
use crate::run::State;
use crate::run::event::Timestamp;
use crate::run::goal::RunId;
use crate::run::view::RunResult;

/// Interval at which a client should poll, in milliseconds.
const POLL: u64 = 1000;

/// Reports whether the caller supports tasks.
#[must_use]
pub fn are_declared(context: &RequestContext<RoleServer>) -> bool {
    asking::is_stateless(context) && context.client_capabilities().is_some_and(|client| client.supports_tasks())
}

impl Server {
    /// Makes the task of a run, which is already recorded.
    pub(super) async fn task_for(&self, run: RunId) -> Result<CreateTaskResult> {
        let listed = self.scope.read(move |site| app::listed(site, Some(run.as_str()))).await?;
        Ok(CreateTaskResult::new(task(&listed)))
    }

    /// Returns a task's status and result.
    pub(super) async fn task(
        &self,
        id: String,
        context: &RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let read = self.scope.read(move |site| {
            let id = run_of(site, &id)?;
            Ok((app::listed(site, Some(id.as_str()))?, app::result(site, Some(id.as_str()))?))
        });
        let (listed, result) = read.await.map_err(|error| invalid(&error))?;
        let payload = payload(&listed, &result, asking::channel(context).is_some()).map_err(|error| invalid(&error))?;
        Ok(GetTaskResult::new(DetailedTask::new(task(&listed), payload)))
    }

    /// Answers a task's questions.
    ///
    /// # Errors
    /// Fails if the task has no questions, or the answers do not match them.
    pub(super) async fn update(&self, request: UpdateTaskParams) -> Result<(), ErrorData> {
        let id = request.task_id;
        let read = self.scope.read(move |site| app::result(site, Some(run_of(site, &id)?.as_str())));
        let result = read.await.map_err(|error| invalid(&error))?;
        let Some(token) = result.token else {
            return Err(invalid(&Error::usage(format!("{} waits with no questions", result.run_id))));
        };
        let answers = asking::given(&request.input_responses, result.questions.len());
        if let Some(answers) = answers.map_err(|error| invalid(&error))? {
            self.answer(token, answers).await.map_err(|error| invalid(&error))?;
        }
        Ok(())
    }

    /// Cancels a task and returns at once; its status shows the progress.
    pub(super) async fn stop(&self, id: String) -> Result<(), ErrorData> {
        let listed = self.scope.read(move |site| app::listed(site, Some(run_of(site, &id)?.as_str()))).await;
        let status = listed.map_err(|error| invalid(&error))?.status;
        if status.completed.is_none() {
            let scope = Arc::clone(&self.scope);
            tokio::spawn(async move {
                let run = status.run_id.clone();
                if let Err(error) = blocking(move || app::cancel_detached(&*scope.fresh()?, run.as_str())).await {
                    tracing::warn!("{} could not be stopped: {}", status.run_id, error.chain());
                }
            });
        }
        Ok(())
    }
}

fn task(listed: &Listed) -> Task {
    let status = &listed.status;
    Task::new(status.run_id.as_str(), TaskStatus::Working, moment(status.started_at), moment(listed.updated_at))
        .with_poll_interval_ms(POLL)
        .with_status_message(waiting::status_line(status))
}

/// Makes the state of a task, which has ended when a call that waits would return.
fn payload(listed: &Listed, result: &RunResult, can_be_asked: bool) -> Result<TaskPayload> {
    if listed.status.running {
        return Ok(TaskPayload::Working);
    }
    if result.token.is_some() && can_be_asked {
        return Ok(TaskPayload::InputRequired { input_requests: asking::requests(result) });
    }
    if result.status == State::Cancelled {
        return Ok(TaskPayload::Cancelled);
    }
    let result = serde_json::to_value(structured(result)?).unwrap_or_default();
    Ok(TaskPayload::Completed { result: result.as_object().cloned().unwrap_or_else(JsonObject::new) })
}

fn moment(at: Timestamp) -> String {
    let nanoseconds = i128::from(at.0) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds)
        .ok()
        .and_then(|moment| moment.format(&Rfc3339).ok())
        .unwrap_or_default()
}

fn invalid(error: &Error) -> ErrorData {
    ErrorData::invalid_params(report(error), None)
}
