//! JSON Schemas of the tools' results. The views are those of `run::view` and `app`, as `--json` prints them.
#![allow(clippy::needless_pass_by_value, reason = "schemas are built from the inside out and used once")]

use rmcp::model::JsonObject;
use serde_json::{Value, json};

/// Makes an object schema; the properties in `required` are always present.
fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

fn text(meaning: &str) -> Value {
    json!({ "type": "string", "description": meaning })
}

fn count(meaning: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": meaning })
}

fn number(meaning: &str) -> Value {
    json!({ "type": "number", "description": meaning })
}

fn flag(meaning: &str) -> Value {
    json!({ "type": "boolean", "description": meaning })
}

fn list(items: Value, meaning: &str) -> Value {
    json!({ "type": "array", "items": items, "description": meaning })
}

/// Allows null for an absent value.
fn or_null(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "null" }] })
}

fn run_id() -> Value {
    text("The run.")
}

fn state() -> Value {
    json!({
        "type": "string",
        "enum": ["running", "waiting", "needs_input", "completed", "stopped", "failed", "cancelled", "interrupted"],
        "description": "Where the run stands; interrupted: its driver died, and orchestrate_continue goes on.",
    })
}

fn status_properties() -> Value {
    json!({
        "run_id": run_id(),
        "running": flag("Whether a driver works on it."),
        "state": state(),
        "status": text("The same as state."),
        "phase": text("What it is doing, or was doing last."),
        "iteration": count("The pass under way, or the last one."),
        "max_iterations": count("Passes it may take."),
        "events": count("Events recorded."),
        "started_at": number("When it was started, in seconds since the Unix epoch."),
        "goal": text("The goal in one line."),
        "branch": text("Its branch."),
        "tokens": count("Tokens that its agents used, in and out together."),
        "cost_usd": number("What that cost in US dollars, where known."),
        "usage": json!({ "type": "object", "description": "tokens and cost_usd again, where results have them." }),
        "completed": flag("Whether the goal is reached; absent while that is open."),
        "stop_reason": text("Why it ended, or waits for the user."),
        "verified": flag("Whether drivers of this clone recorded all of it."),
        "waiting": object(
            &["until", "why"],
            json!({
                "until": number("When it goes on, in seconds since the Unix epoch."),
                "why": text("The backend and what it said."),
            }),
        ),
    })
}

const STATUS: [&str; 10] =
    ["run_id", "running", "state", "phase", "iteration", "max_iterations", "events", "started_at", "goal", "branch"];

/// A run's status.
pub fn status() -> Value {
    object(&STATUS, status_properties())
}

/// A started run, or its result if the call waited.
pub fn started() -> Value {
    let mut schema = result();
    let properties = &mut schema["properties"];
    properties["branch"] = text("Where its work goes.");
    properties["tail_command"] = text("A command that shows what it does, for a terminal.");
    properties["message"] = text("What to do next.");
    properties["notices"] =
        list(text("A notice."), "What the user should know, such as changes that are not part of it.");
    schema["required"] = json!(["run_id", "status"]);
    schema
}

/// A run's result so far.
pub fn result() -> Value {
    let subgoal = object(&["id", "description"], json!({ "id": text("Its id."), "description": text("The work.") }));
    let outcome = object(
        &["id", "ok", "attempts"],
        json!({
            "id": text("The subgoal."),
            "ok": flag("Whether an attempt succeeded."),
            "error": or_null(text("Why the last attempt failed.")),
            "attempts": count("Attempts made."),
        }),
    );
    let review = object(
        &["gates_passed", "goal_complete", "issues"],
        json!({
            "gates_passed": flag("Whether the quality gates hold."),
            "goal_complete": flag("Whether the reviewer holds the goal for reached."),
            "issues": list(text("An issue."), "What is wrong or missing."),
            "remarks": list(text("A remark."), "What was noticed: files that the checks or the reviewer changed."),
        }),
    );
    let check = object(
        &["name", "ok"],
        json!({
            "name": text("The command."),
            "ok": flag("Whether it exited with 0."),
            "exit_code": or_null(json!({ "type": "integer" })),
            "stdout": text("What it printed, cut where long."),
            "stderr": text("What it printed as errors, cut where long."),
            "error": or_null(text("Why it did not come to its end.")),
            "duration": number("Seconds."),
        }),
    );
    let pass = object(
        &["iteration", "subgoals", "results", "verification"],
        json!({
            "iteration": count("Its number, from 1."),
            "subgoals": list(subgoal, "What was planned."),
            "results": list(outcome, "What became of it."),
            "review": or_null(review),
            "verification": list(check, "The verify commands' results."),
        }),
    );
    let worktree = object(
        &["branch", "base", "changed_files", "checkpoints"],
        json!({
            "path": or_null(text("The worktree on this machine, where there is one.")),
            "branch": text("The run's branch."),
            "base": text("The commit that it starts from."),
            "changed_files": list(text("A path."), "Files that differ from the base."),
            "checkpoints": list(text("A commit."), "A commit an iteration, oldest first."),
        }),
    );
    object(
        &["run_id", "status", "completed", "iterations", "final_output", "summary", "history", "usage"],
        json!({
            "run_id": run_id(),
            "status": state(),
            "state": text("The same as status."),
            "completed": flag("Whether the goal is reached."),
            "iterations": count("Passes that were committed."),
            "stop_reason": or_null(text("Why it ended, or waits for the user.")),
            "questions": list(text("A question."), "The questions that wait, where they do."),
            "token": text("The handle that answers them: orchestrate_resume takes it."),
            "hint": text("What the user can do, where the reason calls for it."),
            "final_output": text("The workers' reports of the last pass."),
            "summary": text("The run in one line."),
            "history": list(pass, "Its passes, in order."),
            "usage": json!({ "type": "object", "description": "Tokens and dollars, as the agents report them." }),
            "tokens": count("Tokens in and out together."),
            "cost_usd": number("US dollars, where known."),
            "usage_by_role": json!({ "type": "object", "description": "The same for each role." }),
            "usage_by_flag": json!({ "type": "object", "description": "The same for each flag that chooses an agent: planner, worker, reviewer, integrator." }),
            "worktree": or_null(worktree),
            "set_aside": text("What of the log could not be read and was set aside."),
            "verified": flag("Whether drivers of this clone recorded all of it."),
        }),
    )
}

/// Events after a cursor.
pub fn tail() -> Value {
    let event = object(
        &["seq", "ts", "session", "kind", "iteration", "data"],
        json!({
            "seq": count("Its place in the run, from 1, without gaps."),
            "ts": number("When, in seconds since the Unix epoch."),
            "session": text("The driver that recorded it."),
            "kind": text("What happened."),
            "iteration": count("The pass that it belongs to; 0 before the first."),
            "data": json!({ "type": "object", "description": "What is to be said of it." }),
        }),
    );
    object(
        &["run_id", "events", "cursor", "running", "more"],
        json!({
            "run_id": run_id(),
            "events": list(event, "The events, oldest first."),
            "cursor": count("Where to go on."),
            "running": flag("Whether a driver works on the run."),
            "more": flag("Whether there are more events already."),
            "set_aside": text("What of the log could not be read and was set aside."),
        }),
    )
}

/// Every run.
pub fn runs() -> Value {
    let mut properties = status_properties();
    properties["merged"] = flag("Whether its work is in the history of HEAD.");
    properties["updated_at"] = number("When its record was last written, in seconds since the Unix epoch.");
    object(&["runs"], json!({ "runs": list(object(&STATUS, properties), "The runs, newest first.") }))
}

fn backend() -> Value {
    object(
        &["name", "kind", "installed", "detail", "login"],
        json!({
            "name": text("What the argument backend takes."),
            "kind": text("Where it comes from."),
            "installed": flag("Whether its program can be found."),
            "path": or_null(text("Where its program is.")),
            "detail": text("How to get it, or the command that it runs."),
            "version": or_null(text("Its version, where that can be told.")),
            "login": text("Whether somebody has logged in."),
            "can": json!({ "type": "object", "description": "What it can do for a run." }),
            "note": text("Where it does not do what a permission says."),
            "hint": text("What to do before it can be used."),
        }),
    )
}

/// Every backend.
pub fn backends() -> Value {
    object(
        &["backends"],
        json!({
            "backends": list(backend(), "The backends."),
            "default": text("The user's setting; auto where there is none."),
            "resolved_default": or_null(text("What that comes to here; null where no agent is installed.")),
        }),
    )
}

/// Report of the doctor.
pub fn doctor() -> Value {
    let finding = object(
        &["name", "state", "detail"],
        json!({
            "name": text("What was looked at."),
            "state": json!({ "type": "string", "enum": ["ok", "warning", "failed"], "description": "How it stands." }),
            "detail": text("What was found."),
            "hint": text("What to do about it."),
        }),
    );
    object(
        &["ok", "version", "checks", "backends", "cwd", "timeouts", "recommendations"],
        json!({
            "ok": flag("Whether a run can begin here."),
            "version": text("This program's version."),
            "checks": list(finding, "The machine and the repository."),
            "backends": list(backend(), "The agents, and what stands ready of each."),
            "cwd": object(
                &["path", "outside"],
                json!({
                    "path": text("Where it is."),
                    "outside": flag("Whether it is outside of this server's repository, and nothing else is told."),
                    "exists": flag("Whether there is such a folder."),
                    "readable": flag("Whether it can be read."),
                    "writable": flag("Whether files can be made in it."),
                    "repository": text("The repository that it is in."),
                }),
            ),
            "timeouts": object(
                &["call", "check", "setup", "run"],
                json!({
                    "call": or_null(number("Seconds that one call of an agent may take; null is no limit.")),
                    "check": or_null(number("Of one check.")),
                    "setup": or_null(number("Of one setup command.")),
                    "run": or_null(number("Of a whole run. A host's own limit for a request is another thing.")),
                }),
            ),
            "recommendations": list(text("What to do."), "About everything that is not as it should be."),
        }),
    )
}

/// A page of a transcript.
pub fn output() -> Value {
    object(
        &["run_id", "path", "text", "cursor", "total", "more", "running"],
        json!({
            "run_id": run_id(),
            "path": text("The transcript: iteration, subgoal, attempt."),
            "text": text("The page."),
            "cursor": count("Where to go on, in bytes."),
            "total": count("Bytes of the whole transcript so far."),
            "more": flag("Whether there is more already."),
            "running": flag("Whether its worker still writes it."),
        }),
    )
}

/// Preview of a merge.
pub fn merge_preview() -> Value {
    let lines = |meaning| or_null(count(meaning));
    let file = object(
        &["path"],
        json!({
            "path": text("Its path."),
            "added": lines("Lines that come; null where it is binary."),
            "removed": lines("Lines that go; null where it is binary."),
        }),
    );
    object(
        &["run_id", "branch", "up_to_date", "files", "conflicts", "diffstat", "command"],
        json!({
            "run_id": run_id(),
            "branch": text("What would be merged."),
            "into": or_null(text("The user's branch; null where HEAD is detached.")),
            "up_to_date": flag("Whether everything is there already."),
            "files": list(file, "The files that the run's branch changes."),
            "conflicts": list(text("A path."), "Paths that would conflict."),
            "diffstat": text("The change in one line."),
            "command": text("The command that merges; nothing was merged."),
        }),
    )
}

/// Converts a schema to the protocol's type.
pub fn as_object(schema: Value) -> JsonObject {
    match schema {
        Value::Object(fields) => fields,
        _ => JsonObject::new(),
    }
}
