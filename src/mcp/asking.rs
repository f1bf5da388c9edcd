//! Asks the user at the client a run's questions: by a request of the server in older revisions of the protocol, by an
//! `input_required` result in newer ones.

use rmcp::RoleServer;
use rmcp::model::{
    ClientResult, ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema, InputRequest,
    InputRequests, InputRequiredResult, InputResponses, PrimitiveSchemaDefinition, ProtocolVersion, ServerRequest,
    StringSchema,
};
use rmcp::service::RequestContext;

use crate::error::{Error, Result};
use crate::run::view::RunResult;

/// Key of the only request in an `input_required` result.
const KEY: &str = "answers";

/// Ways to ask the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// By a request of the server.
    Request,
    /// By the result of the call; the client then repeats the call with the answers.
    Result,
}

/// Returns the way to ask the caller of `context`; `None` if it does not support questions.
#[must_use]
pub fn channel(context: &RequestContext<RoleServer>) -> Option<Channel> {
    let elicitation = context.client_capabilities()?.elicitation?;
    // A client that declares neither forms nor URLs supports forms.
    if elicitation.form.is_none() && elicitation.url.is_some() {
        return None;
    }
    Some(if is_stateless(context) { Channel::Result } else { Channel::Request })
}

/// Reports whether the caller uses a revision in which servers make no requests.
#[must_use]
pub fn is_stateless(context: &RequestContext<RoleServer>) -> bool {
    context.protocol_version().is_some_and(|version| version >= ProtocolVersion::V_2026_07_28)
}

/// Makes the result that asks the questions of `result`; the client sends its token back.
#[must_use]
pub fn required(result: &RunResult) -> InputRequiredResult {
    InputRequiredResult::new(Some(requests(result)), result.token.clone())
}

/// Makes requests, for a client to fulfil, from the questions of `result`.
#[must_use]
pub fn requests(result: &RunResult) -> InputRequests {
    InputRequests::from([(KEY.to_owned(), InputRequest::Elicitation(request(result)))])
}

/// Asks the questions and waits for the answers; returns `None` if the user declines.
pub async fn ask(context: &RequestContext<RoleServer>, result: &RunResult) -> Result<Option<Vec<String>>> {
    let asked = context.peer.send_request(ServerRequest::ElicitRequest(request(result))).await;
    match asked {
        Ok(ClientResult::ElicitResult(answer)) => answers(&answer, result.questions.len()),
        Ok(_) => Err(Error::failed("the client answered the questions with something else")),
        Err(error) => Err(Error::failed("the client could not be asked").because(error)),
    }
}

/// Reads the answers that a client gave to [`requests`], for `wanted` questions; `None` if the user declined.
pub fn given(responses: &InputResponses, wanted: usize) -> Result<Option<Vec<String>>> {
    let response = responses.get(KEY).ok_or_else(|| {
        Error::usage(format!("inputResponses holds no \"{KEY}\"")).hint("give a response under the key of each request")
    })?;
    let answer: ElicitResult = serde_json::from_value(response.clone())
        .map_err(|error| Error::usage(format!("inputResponses: \"{KEY}\" is no elicitation result")).because(error))?;
    answers(&answer, wanted)
}

fn answers(answer: &ElicitResult, wanted: usize) -> Result<Option<Vec<String>>> {
    if answer.action != ElicitationAction::Accept {
        return Ok(None);
    }
    let content = answer.content.as_ref();
    let one = |number: usize| {
        let text = content.and_then(|content| content.get(name(number))).and_then(serde_json::Value::as_str);
        text.map(ToOwned::to_owned).ok_or_else(|| Error::usage(format!("the answers lack a text \"{}\"", name(number))))
    };
    (1..=wanted).map(one).collect::<Result<_>>().map(Some)
}

fn request(result: &RunResult) -> ElicitRequest {
    let mut schema = ElicitationSchema::builder();
    for (number, question) in result.questions.iter().enumerate() {
        let field = StringSchema::new().title(question.clone()).min_length(1);
        schema = schema.required_property(name(number + 1), PrimitiveSchemaDefinition::String(field));
    }
    let list: Vec<String> =
        result.questions.iter().enumerate().map(|(number, question)| format!("{}. {question}", number + 1)).collect();
    ElicitRequest::new(ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: format!("Before {} begins, its agents ask:\n{}", result.run_id, list.join("\n")),
        requested_schema: schema.build_unchecked(),
    })
}

fn name(number: usize) -> String {
    format!("answer_{number}")
}
