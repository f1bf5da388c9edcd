//! The tools of a model behind an API, which work in its worktree and nowhere else: read, list, write, edit, run a command, finish.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::turn::{Call, Outcome, Tool};
use crate::agent::{Request, place};
use crate::process::{self, Mark, Spec, Status, Stdin};
use crate::run::event::clip;
use crate::run::goal::{Permissions, Role};
use crate::run::text::count;
use crate::run::work::{Failure, FailureKind};

/// Largest part of a file that one call of `read` returns, in bytes.
const READ: usize = 64 << 10;
/// Largest file that is written or edited, in bytes.
const LARGEST: u64 = 4 << 20;
/// Files that one listing names.
const LISTED: usize = 500;
/// Bytes of a command's output that go back to the model, each of stdout and stderr.
const OUTPUT: usize = 16 << 10;
/// Seconds a command may take where the model names none, and the most that it may name.
const COMMAND: (u64, u64) = (120, 1800);

/// Outcome of a tool call.
pub(super) enum Done {
    /// The work is over; this is the report.
    Finished(String),
    /// It went, well or not.
    Went(Outcome),
}

/// The tools of one call of an agent.
pub(super) struct Toolbox<'a> {
    request: &'a Request,
    root: PathBuf,
    /// The variable that holds the service's key: no command of the model's sees it.
    key: &'static str,
}

impl<'a> Toolbox<'a> {
    pub(super) async fn new(request: &'a Request, key: &'static str) -> Result<Self, Failure> {
        let root = tokio::fs::canonicalize(&request.cwd).await;
        let root = root.map_err(|error| {
            let message = format!("'{}' cannot be worked in: {error}", request.cwd.display());
            Failure::new(FailureKind::Crashed, message)
        })?;
        Ok(Self { request, root, key })
    }

    /// Lists the tools that the role and the permissions allow. Planners and reviewers only read.
    pub(super) fn offered(&self) -> Vec<Tool> {
        let works = works(self.request.role);
        let edits = works && self.request.permissions != Permissions::Ask;
        let runs = works && self.request.permissions == Permissions::All;
        let text = |what: &str| json!({"type": "string", "description": what});
        let number = |what: &str| json!({"type": "integer", "description": what});
        let path = || text("path in the worktree, relative to its root");
        let schema = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
        let tool = |name, description, schema| Tool { name, description, schema };
        let mut tools = vec![
            tool("list_files", "Names the files below a folder.", schema(json!({"path": path()}), &[])),
            tool(
                "read_file",
                "Gives a text file's lines. Long files are given in parts: say from which line on.",
                schema(json!({"path": path(), "line": number("the first line to give, from 1")}), &["path"]),
            ),
        ];
        if edits {
            tools.push(tool(
                "write_file",
                "Writes a whole file, new or in place of what is there.",
                schema(json!({"path": path(), "content": text("all that the file is to hold")}), &["path", "content"]),
            ));
            tools.push(tool(
                "edit_file",
                "Replaces a piece of a text file. The old piece must occur exactly once.",
                schema(
                    json!({"path": path(), "old": text("the piece as it stands, to the letter"), "new": text("what replaces it")}),
                    &["path", "old", "new"],
                ),
            ));
        }
        if runs {
            tools.push(tool(
                "run_command",
                "Runs a shell command in the worktree and gives its output. Nothing that it starts outlives it.",
                schema(
                    json!({"command": text("the command, for sh"), "seconds": number("how long it may take, 120 if not said")}),
                    &["command"],
                ),
            ));
        }
        if works {
            let report = text("what was done, file by file; what was run and how it came out; what is left");
            let description = "Ends the work. Call it once everything is done, or cannot be.";
            tools.push(tool("finish", description, schema(json!({"report": report}), &["report"])));
        }
        tools
    }

    /// Does what the model asks for; `left` is what the whole call may still take.
    pub(super) async fn call(&self, call: &Call, left: Option<Duration>) -> Done {
        let written = if call.arguments.trim().is_empty() { "{}" } else { &call.arguments };
        let arguments: Value = match serde_json::from_str(written) {
            Ok(arguments @ Value::Object(_)) => arguments,
            Ok(_) => return went(Err("the arguments are no JSON object".to_owned())),
            Err(error) => return went(Err(format!("the arguments are not JSON, or were cut off: {error}"))),
        };
        if !self.offered().iter().any(|tool| tool.name == call.name) {
            let names: Vec<&str> = self.offered().iter().map(|tool| tool.name).collect();
            return went(Err(format!("there is no tool '{}' here: there are {}", call.name, names.join(", "))));
        }
        let text = |name: &str| {
            arguments[name]
                .as_str()
                .map(ToOwned::to_owned)
                .ok_or_else(|| format!("the argument '{name}' must be a string"))
        };
        let done = match call.name.as_str() {
            "finish" => return Done::Finished(arguments["report"].as_str().unwrap_or_default().to_owned()),
            "run_command" => match text("command") {
                Ok(command) => self.run(&command, arguments["seconds"].as_u64(), left).await,
                Err(why) => Err(why),
            },
            "list_files" => self.place(arguments["path"].as_str().unwrap_or(".")).and_then(|path| self.list(&path)),
            "read_file" => text("path").and_then(|path| read(&self.place(&path)?, arguments["line"].as_u64())),
            "write_file" => text("path").and_then(|path| {
                let content = text("content")?;
                self.write(&path, &content)?;
                Ok(format!("wrote {} to {path}", count(content.len(), "byte")))
            }),
            _ => text("path").and_then(|path| self.edit(&path, &text("old")?, &text("new")?)),
        };
        went(done)
    }

    fn place(&self, path: &str) -> Result<PathBuf, String> {
        place::inside(&self.root, path)
    }

    fn list(&self, folder: &Path) -> Result<String, String> {
        let mut names = Vec::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).map_err(|error| format!("the folder cannot be read: {error}"))?;
            for entry in entries.flatten().filter(|entry| entry.file_name() != ".git") {
                if names.len() >= LISTED {
                    names.push(format!("… more than {LISTED} files: name a folder further down"));
                    return Ok(names.join("\n"));
                }
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(entry.path());
                } else if let Ok(path) = entry.path().strip_prefix(&self.root) {
                    names.push(path.display().to_string());
                }
            }
        }
        names.sort();
        Ok(if names.is_empty() { "no files".to_owned() } else { names.join("\n") })
    }

    fn write(&self, path: &str, content: &str) -> Result<(), String> {
        if content.len() as u64 > LARGEST {
            return Err(format!("'{path}' would be larger than {LARGEST} bytes"));
        }
        let place = self.place(path)?;
        let says = |error: std::io::Error| format!("'{path}' cannot be written: {error}");
        if let Some(folder) = place.parent() {
            std::fs::create_dir_all(folder).map_err(says)?;
        }
        if place.symlink_metadata().is_ok_and(|found| !found.is_file()) {
            return Err(format!("'{path}' is no regular file"));
        }
        std::fs::write(&place, content).map_err(says)
    }

    fn edit(&self, path: &str, old: &str, new: &str) -> Result<String, String> {
        let place = self.place(path)?;
        let found = regular(&place)?;
        if found.len() > LARGEST {
            return Err(format!("'{path}' is larger than {LARGEST} bytes"));
        }
        let text = std::fs::read_to_string(&place).map_err(|error| format!("'{path}' cannot be read: {error}"))?;
        match text.matches(old).count() {
            _ if old.is_empty() => Err("the old piece is empty: write_file makes a new file".to_owned()),
            0 => Err(format!("the old piece does not occur in '{path}': read it again")),
            1 => {
                self.write(path, &text.replacen(old, new, 1))?;
                Ok(format!("edited {path}"))
            }
            many => Err(format!("the old piece occurs {many} times in '{path}': take in more of what is around it")),
        }
    }

    /// Runs a command by the rules of all our processes: its whole tree ends with it.
    async fn run(&self, command: &str, seconds: Option<u64>, left: Option<Duration>) -> Result<String, String> {
        let asked = Duration::from_secs(seconds.unwrap_or(COMMAND.0).clamp(1, COMMAND.1));
        let limit = left.map_or(asked, |left| left.min(asked));
        let env = self.request.env.iter().map(|(name, value)| (name.into(), Some(value.into())));
        let spec = Spec {
            argv: ["sh", "-c", command].map(Into::into).to_vec(),
            cwd: Some(self.root.clone()),
            env: env.chain([(self.key.into(), None)]).collect(),
            stdin: Stdin::Null,
            timeout: Some(limit),
            keep: OUTPUT,
            spool: None,
            mark: Some(Mark { run: self.request.run.clone(), call: self.request.call.to_string() }),
        };
        let finished = process::run(spec, &self.request.cancel).await.map_err(|error| error.to_string())?;
        let ended = match finished.status {
            Status::Exited(code) => format!("exit status {code}"),
            Status::Signaled(signal) => format!("killed by signal {signal}"),
            Status::TimedOut => format!("stopped after {} s", limit.as_secs()),
            Status::Cancelled => "stopped".to_owned(),
        };
        let said = [finished.stdout.text(), finished.stderr.text()].join("\n");
        let text = format!("{ended}\n{}", said.trim());
        if finished.status == Status::Exited(0) { Ok(text) } else { Err(text) }
    }
}

/// Reports whether the role changes files.
pub(super) fn works(role: Role) -> bool {
    matches!(role, Role::Subagent | Role::Integrator)
}

fn went(done: Result<String, String>) -> Done {
    Done::Went(match done {
        Ok(text) => Outcome { ok: true, text },
        Err(text) => Outcome { ok: false, text: format!("error: {text}") },
    })
}

/// A pipe or a device would never come to its end.
fn regular(path: &Path) -> Result<std::fs::Metadata, String> {
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(found),
        Ok(_) => Err("it is no regular file: list_files names those there are".to_owned()),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

fn read(path: &Path, line: Option<u64>) -> Result<String, String> {
    regular(path)?;
    let first = usize::try_from(line.unwrap_or(1)).unwrap_or(usize::MAX).max(1);
    let file = std::fs::File::open(path).map_err(|error| format!("it cannot be read: {error}"))?;
    // Files of any size are read no further than they are wanted; one without line breaks is cut.
    let mut reader = BufReader::new(file);
    let mut text = String::new();
    let mut number = 0_usize;
    loop {
        let mut bytes = Vec::new();
        let read = (&mut reader).take(READ as u64).read_until(b'\n', &mut bytes);
        if read.map_err(|error| format!("it cannot be read: {error}"))? == 0 {
            break;
        }
        number += 1;
        if number < first {
            continue;
        }
        if bytes.contains(&0) {
            return Err("it is no text".to_owned());
        }
        if text.len() + bytes.len() > READ {
            let _ = write!(text, "\n[… more: read on from line {number}]");
            return Ok(clip(&text, 2 * READ));
        }
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    Ok(if text.is_empty() { "(nothing)".to_owned() } else { text })
}
