//! Runs as resources: `agentloop://run/<id>` is a run's result, and below it are its events, its diff and its transcripts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rmcp::model::{
    CompleteRequestParams, CompleteResult, CompletionInfo, ErrorData, ListResourceTemplatesResult, ListResourcesResult,
    ReadResourceResult, Reference, Resource, ResourceContents, ResourceTemplate,
};
use serde_json::json;

use super::scope::{Scope, run_of};
use super::waiting;
use crate::app::{self, Listed, Site};
use crate::error::{Context as _, Result};
use crate::run::goal::RunId;
use crate::run::id::is_subgoal_id;
use crate::run::sanitize;

/// Prefix of all URIs.
const RUNS: &str = "agentloop://run/";
/// Runs on one page of the list.
const PAGE: usize = 100;
/// Longest diff, in bytes.
const DIFF: usize = 4 * 1024 * 1024;

/// Parsed URI of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The run as it is written in the URI.
    pub run: String,
    part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Result,
    Events,
    Diff,
    Output { iteration: u32, subgoal: String },
}

impl Address {
    /// Parses `uri`; `None` if this server has no such resource.
    #[must_use]
    pub fn parse(uri: &str) -> Option<Self> {
        let mut words = uri.strip_prefix(RUNS)?.split('/');
        let run = words.next().filter(|run| !run.is_empty())?.to_owned();
        let rest: Vec<&str> = words.collect();
        let part = match rest.as_slice() {
            [] => Part::Result,
            ["events"] => Part::Events,
            ["diff"] => Part::Diff,
            ["output", iteration, subgoal] if is_subgoal_id(subgoal) => {
                Part::Output { iteration: iteration.parse().ok()?, subgoal: (*subgoal).to_owned() }
            }
            _ => return None,
        };
        Some(Self { run, part })
    }

    fn read(&self, site: &Site, id: &RunId) -> Result<(String, &'static str)> {
        let run = Some(id.as_str());
        Ok(match &self.part {
            Part::Result => {
                let result = app::result(site, run)?;
                (
                    sanitize::json(serde_json::to_string(&result).context("the result cannot be written as JSON")?),
                    "application/json",
                )
            }
            Part::Events => {
                let events = app::tail(site, run, 0, usize::MAX)?.events;
                (events.iter().map(|event| event.to_line() + "\n").collect(), "application/jsonl")
            }
            Part::Diff => (app::diff(site, run, None, DIFF)?.text, "text/x-diff"),
            Part::Output { iteration, subgoal } => {
                let text = app::output(site, run, Some(&format!("iter{iteration}/{subgoal}")))?.text;
                (String::from_utf8_lossy(&text.unwrap_or_default()).into_owned(), "text/plain")
            }
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{RUNS}{}", self.run)?;
        match &self.part {
            Part::Result => Ok(()),
            Part::Events => f.write_str("/events"),
            Part::Diff => f.write_str("/diff"),
            Part::Output { iteration, subgoal } => write!(f, "/output/{iteration}/{subgoal}"),
        }
    }
}

/// Reads the resource `uri`.
///
/// # Errors
/// Fails if there is no such resource.
pub async fn read(scope: &Arc<Scope>, uri: String) -> Result<ReadResourceResult, ErrorData> {
    let address = Address::parse(&uri).ok_or_else(|| none_such(&uri))?;
    let read = scope.read(move |site| address.read(site, &run_of(site, &address.run)?)).await;
    let (text, kind) =
        read.map_err(|error| ErrorData::resource_not_found(error.report(), Some(json!({ "uri": uri }))))?;
    Ok(ReadResourceResult::new(vec![ResourceContents::text(text, uri).with_mime_type(kind)]))
}

/// Makes the error that `uri` is unknown.
#[must_use]
pub fn none_such(uri: &str) -> ErrorData {
    let shown: String = uri.chars().take(200).collect();
    ErrorData::resource_not_found(
        format!(
            "there is no resource {shown:?}: {RUNS}<run_id> is one, and below it are /events, /diff and \
                 /output/<iteration>/<subgoal>"
        ),
        Some(json!({ "uri": shown })),
    )
}

/// Lists the runs, newest first, after the one that `cursor` names.
pub async fn list(scope: &Arc<Scope>, cursor: Option<String>) -> Result<ListResourcesResult, ErrorData> {
    let runs = scope.read(app::list).await.map_err(|error| ErrorData::internal_error(error.report(), None))?;
    let (page, next) = page(runs, cursor.as_deref())?;
    let mut result = ListResourcesResult::with_all_items(page.iter().map(resource).collect());
    result.next_cursor = next;
    Ok(result)
}

/// Runs are ordered by their start, which does not change between two pages.
fn page(mut runs: Vec<Listed>, cursor: Option<&str>) -> Result<(Vec<Listed>, Option<String>), ErrorData> {
    runs.sort_by(|a, b| (b.status.started_at, &a.status.run_id).cmp(&(a.status.started_at, &b.status.run_id)));
    let start = match cursor {
        None => 0,
        Some(cursor) => {
            let at = runs.iter().position(|run| run.status.run_id.as_str() == cursor);
            1 + at.ok_or_else(|| ErrorData::invalid_params(format!("there is no page after {cursor:?}"), None))?
        }
    };
    let more = runs.len() > start + PAGE;
    let page: Vec<Listed> = runs.into_iter().skip(start).take(PAGE).collect();
    let next = page.last().filter(|_| more).map(|run| run.status.run_id.to_string());
    Ok((page, next))
}

fn resource(run: &Listed) -> Resource {
    let status = &run.status;
    Resource::new(format!("{RUNS}{}", status.run_id), status.run_id.as_str())
        .with_title(status.goal.clone())
        .with_description(waiting::status_line(status))
        .with_mime_type("application/json")
}

/// Lists the resources of every run.
#[must_use]
pub fn templates() -> ListResourceTemplatesResult {
    let template = |path: &str, name: &str, meaning: &str, kind: &str| {
        ResourceTemplate::new(format!("{RUNS}{{run_id}}{path}"), name).with_description(meaning).with_mime_type(kind)
    };
    ListResourceTemplatesResult::with_all_items(vec![
        template("", "result", "What a run came to, or how far it has come.", "application/json"),
        template("/events", "events", "A run's events, one a line.", "application/jsonl"),
        template("/diff", "diff", "What a run changed against where it began.", "text/x-diff"),
        template(
            "/output/{iteration}/{subgoal}",
            "output",
            "What a worker, or a check (check1), printed.",
            "text/plain",
        ),
    ])
}

/// Completes an argument of a template from its beginning and the arguments before it.
pub async fn complete(scope: &Arc<Scope>, request: CompleteRequestParams) -> Result<CompleteResult, ErrorData> {
    let known = match &request.r#ref {
        Reference::Resource(reference) => {
            templates().resource_templates.iter().any(|template| template.uri_template == reference.uri)
        }
        _ => false,
    };
    if !known {
        return Err(ErrorData::invalid_params("there is no such template: resources/templates/list has all", None));
    }
    let context = request.context.and_then(|context| context.arguments).unwrap_or_default();
    let (name, begins) = (request.argument.name, request.argument.value);
    let found = scope.read(move |site| match name.as_str() {
        "run_id" => Ok(app::list(site)?.into_iter().map(|run| run.status.run_id.to_string()).collect()),
        "iteration" | "subgoal" => {
            let Some(run) = context.get("run_id") else { return Ok(Vec::new()) };
            let mut words: Vec<String> = app::output(site, Some(run_of(site, run)?.as_str()), None)?
                .paths
                .iter()
                .filter_map(|path| {
                    let (iteration, rest) = path.strip_prefix("iter")?.split_once('/')?;
                    let subgoal = rest.split('/').next()?.trim_end_matches(".out");
                    let fits = name == "iteration" || context.get("iteration").is_none_or(|given| given == iteration);
                    fits.then(|| if name == "iteration" { iteration } else { subgoal }.to_owned())
                })
                .collect();
            let mut seen = BTreeSet::new();
            words.retain(|word| seen.insert(word.clone()));
            Ok(words)
        }
        _ => Ok(Vec::new()),
    });
    let mut words: Vec<String> = found.await.map_err(|error| ErrorData::invalid_params(error.report(), None))?;
    words.retain(|word| word.starts_with(&begins));
    let total = u32::try_from(words.len()).ok();
    let more = words.len() > CompletionInfo::MAX_VALUES;
    words.truncate(CompletionInfo::MAX_VALUES);
    let info =
        CompletionInfo::with_pagination(words, total, more).map_err(|why| ErrorData::internal_error(why, None))?;
    Ok(CompleteResult::new(info))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for uri in
            ["agentloop://run/x", "agentloop://run/x/events", "agentloop://run/x/diff", "agentloop://run/x/output/2/s1"]
        {
            assert_eq!(Address::parse(uri).unwrap().to_string(), uri);
        }
        for uri in [
            "agentloop://run/",
            "agentloop://run/x/",
            "agentloop://run/x/else",
            "agentloop://run/x/output/1",
            "agentloop://run/x/output/one/s1",
            "agentloop://run/x/output/1/..",
            "file:///etc/passwd",
            "",
        ] {
            assert_eq!(Address::parse(uri), None, "{uri}");
        }
    }
}
