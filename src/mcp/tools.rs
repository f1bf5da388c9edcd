//! Table of the tools: names, arguments, results and annotations.

use std::sync::{Arc, LazyLock};

use rmcp::model::{Tool as Described, ToolAnnotations};
use serde_json::Value;

use super::arguments::{Argument, Default, Kind, LARGEST, schema};
use super::schemas;
use super::scope::RUN_ID_LENGTH;
use crate::options::{self, When};
use crate::run::amount;

/// A tool.
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    arguments: Taken,
    title: &'static str,
    meaning: &'static str,
    output: fn() -> Value,
    does: Does,
}

/// Arguments of a tool.
enum Taken {
    These(&'static [Argument]),
    OfOptions(&'static LazyLock<Vec<Argument>>),
}

/// Effect of a tool.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Read only.
    Read,
    /// Start agents, which may reach any system.
    Work,
    /// Send guidance or answers to a run.
    Guide,
    /// Stop a run.
    Stop,
}

/// Finds a tool by its name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// Lists all tools as clients see them.
#[must_use]
pub fn described() -> &'static [Described] {
    static DESCRIBED: LazyLock<Vec<Described>> = LazyLock::new(|| TOOLS.iter().map(Tool::described).collect());
    &DESCRIBED
}

impl Tool {
    /// Its arguments.
    #[must_use]
    pub fn arguments(&self) -> &'static [Argument] {
        match self.arguments {
            Taken::These(arguments) => arguments,
            Taken::OfOptions(arguments) => arguments,
        }
    }

    fn described(&self) -> Described {
        let annotations = ToolAnnotations::with_title(self.title)
            .read_only(self.does == Does::Read)
            .destructive(self.does == Does::Stop)
            .idempotent(!matches!(self.does, Does::Work | Does::Guide))
            .open_world(self.does == Does::Work);
        Described::new(self.name, self.meaning, schema(self.arguments()))
            .with_title(self.title)
            .with_raw_output_schema(Arc::new(schemas::as_object((self.output)())))
            .with_annotations(annotations)
    }
}

/// Longest goal or criteria, in bytes.
const GOAL: usize = crate::run::event::GOAL_LIMIT;
/// Longest name, path, command or revision, in bytes.
const WORDS: usize = 4096;
/// Longest answer, in bytes.
const ANSWER: usize = 64 * 1024;
/// Largest number of an iteration or attempt.
const MANY: u64 = u32::MAX as u64;

const fn argument(name: &'static str, kind: Kind, default: Default, meaning: &'static str) -> Argument {
    Argument { name, kind, default, meaning }
}

const fn words(name: &'static str, default: Default, meaning: &'static str) -> Argument {
    argument(name, Kind::Text { most: WORDS, empty: false }, default, meaning)
}

const fn whole(name: &'static str, least: u64, most: u64, default: Default, meaning: &'static str) -> Argument {
    argument(name, Kind::Whole { least, most }, default, meaning)
}

const fn seconds(name: &'static str, meaning: &'static str) -> Argument {
    argument(name, Kind::Seconds, Default::None, meaning)
}

const fn flag(name: &'static str, default: bool, meaning: &'static str) -> Argument {
    argument(name, Kind::Flag, Default::Flag(default), meaning)
}

const RUN_ID: Argument = argument(
    "run_id",
    Kind::Text { most: RUN_ID_LENGTH, empty: false },
    Default::Required,
    "The run: its id, or the beginning of it where no other run's id begins so.",
);

const DETACH: Argument = flag(
    "detach",
    true,
    "Whether to return at once. With false the call waits for the end; the run goes on even where the call is cancelled.",
);

static TOOLS: [Tool; 13] = [
    Tool {
        name: "orchestrate",
        title: "Start a run",
        meaning: "Starts a run: agents plan, work, are checked and reviewed, again and again, until the goal is reached. \
            Returns the run's id at once unless detach is false: then poll orchestrate_status or orchestrate_tail.",
        arguments: Taken::OfOptions(&ORCHESTRATE),
        output: schemas::started,
        does: Does::Work,
    },
    Tool {
        name: "orchestrate_resume",
        title: "Answer a run's questions",
        meaning: "Answers the questions of a run whose status is needs_input, so that it goes on.",
        arguments: Taken::These(&[
            words("token", Default::Required, "The token that came with the questions."),
            argument(
                "answers",
                Kind::Texts { count: 1000, most: ANSWER },
                Default::Required,
                "One answer a question, in the order of the questions.",
            ),
            DETACH,
        ]),
        output: schemas::started,
        does: Does::Work,
    },
    Tool {
        name: "orchestrate_status",
        title: "Where a run stands",
        meaning: "Says where a run stands: its state, phase and iteration.",
        arguments: Taken::These(&[RUN_ID]),
        output: schemas::status,
        does: Does::Read,
    },
    Tool {
        name: "orchestrate_tail",
        title: "What happened in a run",
        meaning: "Gives a run's events after a cursor, oldest first. Call it again with the cursor that it returns.",
        arguments: Taken::These(&[
            RUN_ID,
            whole("cursor", 0, LARGEST, Default::Whole(0), "The number of the last event that is known already."),
            whole("limit", 1, 10_000, Default::Whole(200), "The most events to return."),
        ]),
        output: schemas::tail,
        does: Does::Read,
    },
    Tool {
        name: "orchestrate_result",
        title: "What a run came to",
        meaning: "Gives what a run came to, or how far it has come: history, checks, reviews, changed files, questions.",
        arguments: Taken::These(&[
            RUN_ID,
            flag("wait", false, "Whether to wait until the run ends or has questions."),
            seconds("timeout", "The most seconds to wait; the result is then given as it stands."),
        ]),
        output: schemas::result,
        does: Does::Read,
    },
    Tool {
        name: "orchestrate_list",
        title: "Every run",
        meaning: "Lists the runs of this repository, newest first.",
        arguments: Taken::These(&[]),
        output: schemas::runs,
        does: Does::Read,
    },
    Tool {
        name: "orchestrate_continue",
        title: "Go on with a run",
        meaning: "Goes on with a run that was interrupted, was cancelled or has spent a budget, from where its record \
            ends. A spent budget must be raised.",
        arguments: Taken::OfOptions(&CONTINUE),
        output: schemas::started,
        does: Does::Work,
    },
    Tool {
        name: "orchestrate_steer",
        title: "Guide a run",
        meaning: "Gives guidance to a run that is running: its next plan hears it.",
        arguments: Taken::These(&[
            RUN_ID,
            argument(
                "guidance",
                Kind::Text { most: ANSWER, empty: false },
                Default::Required,
                "What the next plan must hear.",
            ),
        ]),
        output: schemas::status,
        does: Does::Guide,
    },
    Tool {
        name: "orchestrate_cancel",
        title: "Stop a run",
        meaning: "Stops a run and its agents. What they did so far is committed on the run's branch.",
        arguments: Taken::These(&[RUN_ID]),
        output: schemas::status,
        does: Does::Stop,
    },
    Tool {
        name: "orchestrate_output",
        title: "What a worker or a check printed",
        meaning: "Gives what a worker or a check printed, to the letter, a page at a time. Call it again with the cursor that it returns.",
        arguments: Taken::These(&[
            RUN_ID,
            whole("iteration", 1, MANY, Default::Required, "The pass, from 1."),
            words(
                "subgoal",
                Default::Required,
                "The subgoal's id, as orchestrate_result names it; check1 is the first check.",
            ),
            whole("attempt", 1, MANY, Default::None, "The attempt, from 1; the last one where it is left out."),
            whole("cursor", 0, LARGEST, Default::Whole(0), "Bytes that are known already."),
            whole("limit", 1, 1_000_000, Default::Whole(32_768), "The most bytes to return."),
        ]),
        output: schemas::output,
        does: Does::Read,
    },
    Tool {
        name: "orchestrate_merge_preview",
        title: "What merging would do",
        meaning: "Says what merging a run's branch into the current branch would do: files, diffstat, conflicts, and the \
            command that merges. It merges nothing.",
        arguments: Taken::These(&[RUN_ID]),
        output: schemas::merge_preview,
        does: Does::Read,
    },
    Tool {
        name: "list_backends",
        title: "The agents",
        meaning: "Lists the agents that can be driven from here, and whether they are installed.",
        arguments: Taken::These(&[]),
        output: schemas::backends,
        does: Does::Read,
    },
    Tool {
        name: "doctor",
        title: "Check the set-up",
        meaning: "Checks whether runs can work here: git, the repository, the disk, the agents and their logins.",
        arguments: Taken::These(&[words(
            "cwd",
            Default::None,
            "A directory in the repository of this server. Of others it is only told that they are outside.",
        )]),
        output: schemas::doctor,
        does: Does::Read,
    },
];

const CWD: Argument = words(
    "cwd",
    Default::None,
    "A directory in the repository of this server: the run starts from what is checked out there. Others are refused.",
);

/// Arguments of `orchestrate`: its own, and those of the table of options.
static ORCHESTRATE: LazyLock<Vec<Argument>> = LazyLock::new(|| {
    let own = [
        argument(
            "goal",
            Kind::Text { most: GOAL, empty: false },
            Default::Required,
            "What is to be reached, in words: complete, since the agents see nothing else of the conversation.",
        ),
        argument(
            "success_criteria",
            Kind::Text { most: GOAL, empty: true },
            Default::Text(""),
            "What must hold for the goal to be reached; empty lets an agent propose it.",
        ),
        words(
            "caller_agent",
            Default::None,
            "The agent that calls, where auto should pick it: claude_code, codex, opencode, …",
        ),
        CWD,
        flag(
            "skip_permissions",
            false,
            "Whether agents may do everything unasked. Refused together with isolate=false.",
        ),
        flag(
            "isolate",
            true,
            "Whether agents work in a worktree of the run's own. With false they edit the user's checkout.",
        ),
        argument(
            "isolation",
            Kind::Word(&["worktree", "shared"]),
            Default::None,
            "Whether each worker has a worktree of its own, or all share the run's; the user's setting where it is left out.",
        ),
        DETACH,
        flag(
            "ask",
            true,
            "Whether agents may put questions before they begin: the run then waits with status needs_input.",
        ),
        words("base", Default::None, "The revision to start from; HEAD where it is left out."),
        words("name", Default::None, "What to call the run; words of the goal where it is left out."),
    ];
    own.into_iter().chain(options::TABLE.iter().filter_map(|entry| option(entry, true))).collect()
});

/// Arguments of `orchestrate_continue`: the options that may change in a live run.
static CONTINUE: LazyLock<Vec<Argument>> = LazyLock::new(|| {
    let live = options::TABLE.iter().filter(|entry| entry.changes == When::Live);
    [RUN_ID].into_iter().chain(live.filter_map(|entry| option(entry, false))).chain([DETACH]).collect()
});

/// Makes an argument from an option of runs; `new` adds its default.
fn option(entry: &options::Entry, new: bool) -> Option<Argument> {
    let options::Argument { name, meaning } = entry.argument?;
    let kind = match entry.kind {
        options::Kind::Flag => Kind::Flag,
        options::Kind::Count { least, most } => Kind::Whole { least, most: most.min(LARGEST) },
        options::Kind::Seconds => Kind::Seconds,
        options::Kind::Dollars => Kind::Positive { most: amount::LARGEST },
        options::Kind::Word(words) => Kind::Word(words),
        options::Kind::Agent | options::Kind::Text => Kind::Text { most: WORDS, empty: false },
        options::Kind::Texts | options::Kind::Commands => Kind::Texts { count: 100, most: WORDS },
    };
    let default = match entry.kind {
        options::Kind::Flag => Default::Flag(false),
        options::Kind::Count { .. } if new => {
            entry.default.parse().map_or(Default::None, |number| Default::Setting(entry.key, number))
        }
        options::Kind::Agent if !entry.default.is_empty() => Default::Text(entry.default),
        _ => Default::None,
    };
    Some(argument(name, kind, default, meaning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_and_argument_says_what_it_is() {
        for tool in described() {
            let schema = serde_json::to_value(tool).unwrap();
            assert!(schema["description"].as_str().is_some_and(|text| text.len() > 20), "{schema}");
            assert_eq!(schema["outputSchema"]["type"], "object");
            for (name, argument) in schema["inputSchema"]["properties"].as_object().unwrap() {
                assert!(argument["description"].as_str().is_some_and(|text| text.ends_with(['.', '…'])), "{name}");
                assert!(argument["type"].is_string(), "{name}: {argument}");
            }
            // Strict clients may refuse these keywords.
            let text = schema.to_string();
            assert!(!text.contains("\"format\"") && !text.contains("\"type\":["), "{text}");
        }
    }
}
