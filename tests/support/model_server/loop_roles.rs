//! The ready-made brain: every role of our loop, scripted.

use std::sync::Mutex;
use std::sync::PoisonError;

use git_agentloop::run::goal::Role;
use serde_json::{Map, Value, json};

use super::{Reply, Tool, Turn};

/// Names that clients give the tool which writes a whole file: claude `Write`, opencode `write`, gemini `write_file`,
/// copilot `create`.
const WRITERS: [&str; 4] = ["write", "write_file", "create_file", "create"];
/// Names for the tool that runs a command: claude `Bash`, codex `exec_command` or `shell`, gemini `run_shell_command`.
const SHELLS: [&str; 7] =
    ["bash", "exec_command", "shell_command", "shell", "run_shell_command", "run_command", "command"];

/// What the subagents whose prompt holds a certain text do.
pub struct Work {
    about: String,
    rounds: Script<Vec<(String, String)>>,
    command: Option<String>,
    answer: String,
}

impl Work {
    /// The work of subagents whose prompt contains `text`, such as a subgoal's description. An empty text fits all.
    pub fn about(text: &str) -> Self {
        let answer = "The subgoal is done.".to_owned();
        Self { about: text.to_owned(), rounds: Script::of(Vec::new()), command: None, answer }
    }

    /// Adds a round: the files (path in the worktree, content) that the next call on this subgoal writes. The last
    /// round repeats. Two agents that work under one text at the same time would mix up their rounds.
    #[must_use]
    pub fn writes(mut self, files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, content)| ((*path).to_owned(), (*content).to_owned())).collect();
        self.rounds = self.rounds.then(files);
        self
    }

    /// The command that the subagent runs before anything else.
    #[must_use]
    pub fn runs(mut self, command: &str) -> Self {
        self.command = Some(command.to_owned());
        self
    }

    /// What the subagent says in the end.
    #[must_use]
    pub fn says(mut self, answer: &str) -> Self {
        answer.clone_into(&mut self.answer);
        self
    }

    fn reply(&self, turn: &Turn) -> Reply {
        let mut done = turn.tool_results.len();
        if let Some(command) = self.command.as_ref().filter(|_| !turn.tools.is_empty()) {
            if done == 0 {
                return run(turn, command);
            }
            done -= 1;
        }
        let files = if done == 0 { self.rounds.next() } else { self.rounds.current() }.unwrap_or_default();
        if turn.tools.is_empty() && !files.is_empty() {
            return Reply::text(format!("{}\n\n{}", listing(turn, &files), self.answer));
        }
        match files.get(done) {
            Some((path, content)) => write(turn, path, content),
            None => Reply::text(self.answer.clone()),
        }
    }
}

/// The script of a whole run, one part a role.
///
/// ```ignore
/// Brain::loop_roles(
///     LoopRoles::new()
///         .plan(json!([{ "id": "a", "description": "write a" }]))
///         .work(Work::about("write a").writes(&[("a.txt", "wrong\n")]).writes(&[("a.txt", "right\n")]))
///         .verdict(LoopRoles::rejects(&["a.txt is wrong"]))
///         .verdict(LoopRoles::accepts()),
/// )
/// ```
pub struct LoopRoles {
    criteria: String,
    questions: Value,
    plans: Script<Value>,
    works: Vec<Work>,
    verdicts: Script<Value>,
    integrator: Work,
    predicates: Vec<(Role, Predicate)>,
}

type Predicate = Box<dyn Fn(&Turn) -> bool + Send + Sync>;

impl LoopRoles {
    /// One subgoal, no edits, and the first review accepts; everything can be replaced.
    pub fn new() -> Self {
        Self {
            criteria: "- The goal is reached.".to_owned(),
            questions: json!([]),
            plans: Script::of(json!([{ "id": "all", "description": "do it all" }])),
            works: Vec::new(),
            verdicts: Script::of(Self::accepts()),
            integrator: Work::about("").says("Everything is merged."),
            predicates: Vec::new(),
        }
    }

    /// The verdict that ends the run.
    pub fn accepts() -> Value {
        json!({ "gates_passed": true, "goal_complete": true, "issues": [] })
    }

    /// The verdict that asks for another iteration because of `issues`.
    pub fn rejects(issues: &[&str]) -> Value {
        json!({ "gates_passed": false, "goal_complete": false, "issues": issues })
    }

    /// What the criteria role proposes.
    #[must_use]
    pub fn criteria(mut self, text: &str) -> Self {
        text.clone_into(&mut self.criteria);
        self
    }

    /// What the clarifier asks: a JSON array. Without it the clarifier has no questions.
    #[must_use]
    pub fn questions(mut self, questions: Value) -> Self {
        self.questions = questions;
        self
    }

    /// Adds the plan of the next iteration; the last one repeats.
    #[must_use]
    pub fn plan(mut self, subgoals: Value) -> Self {
        self.plans = self.plans.then(subgoals);
        self
    }

    /// Adds work; the first whose text stands in the prompt is done.
    #[must_use]
    pub fn work(mut self, work: Work) -> Self {
        self.works.push(work);
        self
    }

    /// Adds the verdict of the next review; the last one repeats.
    #[must_use]
    pub fn verdict(mut self, verdict: Value) -> Self {
        self.verdicts = self.verdicts.then(verdict);
        self
    }

    /// What the integrator does.
    #[must_use]
    pub fn integrates(mut self, work: Work) -> Self {
        self.integrator = work;
        self
    }

    /// Recognises `role` by `predicate`, before the words of [`Turn::role`] are looked for.
    #[must_use]
    pub fn recognise(mut self, role: Role, predicate: impl Fn(&Turn) -> bool + Send + Sync + 'static) -> Self {
        self.predicates.push((role, Box::new(predicate)));
        self
    }

    pub(super) fn role(&self, turn: &Turn) -> Option<Role> {
        let by_predicate = self.predicates.iter().find(|(_, fits)| fits(turn)).map(|(role, _)| *role);
        by_predicate.or_else(|| turn.role())
    }

    pub(super) fn reply(&self, turn: &Turn) -> Reply {
        match self.role(turn) {
            Some(Role::Criteria) => Reply::text(self.criteria.clone()),
            Some(Role::Clarifier) => Reply::text(self.questions.to_string()),
            Some(Role::Decomposer) => Reply::text(self.plans.next().unwrap_or_default().to_string()),
            Some(Role::Reviewer) => Reply::text(self.verdicts.next().unwrap_or_default().to_string()),
            Some(Role::Integrator) => self.integrator.reply(turn),
            Some(Role::Subagent) => {
                let work = self.works.iter().find(|work| turn.prompt().contains(&work.about));
                work.map_or_else(|| Reply::text("There was nothing to do."), |work| work.reply(turn))
            }
            // Agents ask the model things of their own, such as a title for the conversation.
            None => Reply::text("A conversation"),
        }
    }
}

/// Values given out one after the other; the last one repeats.
struct Script<T> {
    values: Vec<T>,
    /// Whether the only value is the default, which the first value of a test's own replaces.
    default: bool,
    given: Mutex<usize>,
}

impl<T: Clone> Script<T> {
    fn of(default: T) -> Self {
        Self { values: vec![default], default: true, given: Mutex::new(0) }
    }

    fn then(mut self, value: T) -> Self {
        if self.default {
            self.values.clear();
            self.default = false;
        }
        self.values.push(value);
        self
    }

    fn next(&self) -> Option<T> {
        *self.given.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.current()
    }

    fn current(&self) -> Option<T> {
        let given = *self.given.lock().unwrap_or_else(PoisonError::into_inner);
        self.values.get(given.saturating_sub(1)).or(self.values.last()).cloned()
    }
}

/// Writes a file with the tool that the client has for it, else with its shell.
fn write(turn: &Turn, path: &str, content: &str) -> Reply {
    if let Some(tool) = WRITERS.iter().find_map(|name| turn.tool(name)) {
        let mut input = Map::new();
        input.insert(named(tool, &["file_path", "filePath", "path"]), json!(path));
        input.insert(named(tool, &["content", "file_text", "contents"]), json!(content));
        return Reply::Tool { name: tool.name.clone(), input: Value::Object(input) };
    }
    let folder = path.rsplit_once('/').map_or(".", |(folder, _)| folder);
    let (folder, path, content) = (shell_words::quote(folder), shell_words::quote(path), shell_words::quote(content));
    run(turn, &format!("mkdir -p {folder} && printf %s {content} > {path}"))
}

/// Runs a command with the client's shell.
fn run(turn: &Turn, script: &str) -> Reply {
    let Some(tool) = SHELLS.iter().find_map(|name| turn.tool(name)) else {
        return Reply::text("There is no tool to run a command with.");
    };
    let key = named(tool, &["command", "cmd"]);
    let words = tool.schema["properties"][&key]["type"] == "array";
    let command = if words { json!(["sh", "-c", script]) } else { json!(script) };
    Reply::Tool { name: tool.name.clone(), input: json!({ key: command, "description": "Try it" }) }
}

/// The first of `names` that the tool's schema knows, else the first.
fn named(tool: &Tool, names: &[&str]) -> String {
    let known = names.iter().find(|name| tool.schema["properties"].get(name).is_some());
    (*known.unwrap_or(&names[0])).to_owned()
}

/// Files as text, for a client without tools: aider's edit formats, which it applies itself. It says in its prompt
/// when it wants SEARCH/REPLACE blocks, and takes whole files otherwise
/// (<https://aider.chat/docs/more/edit-formats.html>).
fn listing(turn: &Turn, files: &[(String, String)]) -> String {
    let blocks = turn.system.contains("SEARCH/REPLACE") || turn.prompt().contains("SEARCH/REPLACE");
    let block = |(path, content): &(String, String)| {
        let content = content.trim_end_matches('\n');
        if blocks {
            format!("{path}\n```\n<<<<<<< SEARCH\n=======\n{content}\n>>>>>>> REPLACE\n```")
        } else {
            format!("{path}\n```\n{content}\n```")
        }
    };
    files.iter().map(block).collect::<Vec<_>>().join("\n\n")
}
