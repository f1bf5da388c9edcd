//! Whole runs of the program through each real agent: planned, worked on by two workers, checked red and then green,
//! reviewed and committed; and what a run says when its agent cannot work.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use git_agentloop::run::goal::Role;
use serde_json::{Value, json};

use super::real::left_out;
use crate::support::agent_home;
use crate::support::model_server::{Brain, LoopRoles, ModelServer, Reply, Turn, Usage, Work};
use crate::support::{PROGRAM, Ran, Repo, hermetic, processes_with, wait_for};

/// What a call of an agent may take: far more than the slowest takes on a busy machine.
const CALL: &str = "90";
/// How much later than a trivial call a refused one ends.
const REFUSED_WITHIN: f64 = 5.0;

/// An agent's program, and the backend that drives it.
type Agent = (&'static str, &'static str);

/// A repository, a model server, and an agent whose user has pointed it there.
struct Scene {
    agent: &'static str,
    backend: &'static str,
    repo: Repo,
    server: ModelServer,
    environment: Vec<(&'static str, String)>,
    bin: PathBuf,
}

impl Scene {
    /// Nothing where the agent is not installed.
    fn new((agent, backend): Agent, brain: Brain) -> Option<Self> {
        let bin = left_out(agent, agent_home::installed(agent))?.parent()?.to_owned();
        let (repo, server) = (Repo::new(), ModelServer::start(brain));
        repo.write("check.sh", "test \"$(cat a.txt)\" = right && test \"$(cat b.txt)\" = right\n");
        repo.commit("a check");
        let environment = agent_home::settle(agent, repo.home(), &server.url());
        Some(Self { agent, backend, repo, server, environment, bin })
    }

    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.bin.clone()).chain(std::env::split_paths(&path));
        command.current_dir(self.repo.path()).env_clear();
        hermetic(&mut command, self.repo.home());
        // The agents' configuration is below HOME.
        command.env_remove("XDG_CONFIG_HOME").env_remove("XDG_STATE_HOME");
        command.env("PATH", std::env::join_paths(path).unwrap()).envs(self.environment.iter().cloned());
        command.args(["run", "make it right", "--criteria", "- sh check.sh succeeds", "--backend", self.backend]);
        command.args(["--model", agent_home::model(self.agent), "--json"]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn ran(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.run(arguments).output().unwrap())
    }

    fn spawned(&self, arguments: &[&str]) -> Child {
        self.run(arguments).spawn().unwrap()
    }

    fn newest(&self) -> String {
        self.repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned()
    }

    /// The data of the calls that came to an end, in order.
    fn calls(&self) -> Vec<Value> {
        let mut events = self.repo.events(&self.newest());
        events.retain(|event| event["kind"] == "agent_finished");
        events.iter_mut().map(|event| event["data"].take()).collect()
    }

    /// The last call must have failed, and like this.
    #[track_caller]
    fn assert_failed(&self, kind: &str, ran: &Ran) -> Value {
        let calls = self.calls();
        let last = calls.last().unwrap_or_else(|| panic!("{}: no call\n{}", self.agent, ran.stderr)).clone();
        assert_eq!(last["error"]["kind"], kind, "{}: {last:#}\n{}", self.agent, ran.stderr);
        last
    }

    #[track_caller]
    fn assert_nothing_left(&self) {
        let run = self.newest();
        wait_for("the end of every process of the run", || processes_with(&run).is_empty().then_some(()));
        let own = self.repo.home().to_str().unwrap();
        wait_for("the end of every process of the agent", || processes_with(own).is_empty().then_some(()));
        self.repo.assert_sound();
    }
}

/// Two subgoals; the one is done well, the other only at the second try.
pub(super) fn story() -> LoopRoles {
    LoopRoles::new()
        .plan(json!([
            { "id": "one", "description": "put the right word into the first file" },
            { "id": "two", "description": "put the right word into the second file" },
        ]))
        .work(Work::about("Your subgoal, 'one'").writes(&[("a.txt", "right\n")]).says("The first file is right."))
        .work(
            Work::about("Your subgoal, 'two'")
                .writes(&[("draft.txt", "wrong\n")])
                .writes(&[("b.txt", "right\n")])
                .says("The second file is right."),
        )
        .verdict(LoopRoles::rejects(&["b.txt: is not there"]))
        .verdict(LoopRoles::accepts())
}

/// How an agent's own count compares with the server's.
#[derive(PartialEq)]
enum Counts {
    Exactly,
    /// In thousands.
    Roughly,
    /// But for what came from a cache.
    WithoutCache,
    /// The last request of each call.
    Partly,
    /// Not at all.
    Nothing,
}

fn whole_run(agent @ (_, name): Agent, counts: &Counts) {
    // Where it is not told one, opencode asks the model for a title of the task that it shows it.
    let title = |turn: &Turn| turn.system.contains("title generator").then(|| Reply::text("A title"));
    let Some(scene) = Scene::new(agent, Brain::loop_roles(story()).first(title)) else { return };
    let before = scene.repo.fingerprint();
    let ran = scene.ran(&["--verify", "sh check.sh", "--timeout", CALL]).expect(0);
    let result = ran.json();
    assert_eq!(result["stop_reason"], "goal_complete", "{name}: {result:#}");
    let checks = result["history"].as_array().unwrap().iter().map(|pass| pass["verification"][0]["ok"].clone());
    assert_eq!(checks.collect::<Vec<_>>(), [false, true], "{name}");
    // Nothing but the work: no agent leaves anything of its own behind.
    assert_eq!(result["worktree"]["changed_files"], json!(["a.txt", "b.txt", "draft.txt"]), "{name}");
    let reports = result["final_output"].as_str().unwrap();
    assert!(reports.contains("The first file is right.") && reports.contains("The second file is right."), "{reports}");

    let branch = format!("agentloop/{}", scene.newest());
    for file in ["a.txt", "b.txt"] {
        assert_eq!(scene.repo.git(&["show", &format!("{branch}:{file}")]), "right", "{name}");
    }
    let subjects = scene.repo.git(&["log", "--first-parent", "--format=%s", "--reverse", &format!("main..{branch}")]);
    assert_eq!(
        subjects.lines().collect::<Vec<_>>(),
        [
            "agentloop: make it right",
            "agentloop: iteration 1/4: 2/2 subgoals, checks fail, goal incomplete",
            "agentloop: iteration 2/4: 2/2 subgoals, checks pass, goal complete",
        ]
    );
    assert_eq!(scene.repo.fingerprint(), before, "{name}: the user's checkout");

    let calls = scene.calls();
    let (answered, failed): (Vec<&Value>, Vec<_>) = calls.iter().partition(|call| call["error"].is_null());
    let roles: Vec<&str> = answered.iter().map(|call| call["role"].as_str().unwrap()).collect();
    let pass = ["decomposer", "subagent", "subagent", "reviewer"];
    assert_eq!(roles, [pass, pass].concat(), "{name}");
    // A real agent may stumble once, two of them at once over the files that they share; then it was asked again.
    assert!(failed.len() <= 1, "{name}: {failed:#?}");
    let told = |chosen: &dyn Fn(&Value) -> bool| -> Usage {
        let usage = calls.iter().filter(|call| chosen(call)).map(|call| {
            let count = |key: &str| call["usage"][key].as_u64().unwrap_or(0);
            Usage { input: count("tokens_in"), cached: count("tokens_cached"), output: count("tokens_out") }
        });
        usage.sum()
    };
    let all = told(&|_| true);
    match counts {
        // What a call that failed has used is told by some agents only.
        _ if !failed.is_empty() => eprintln!("{name}: {failed:#?}"),
        Counts::Exactly => {
            let roles = [(Role::Decomposer, "decomposer"), (Role::Subagent, "subagent"), (Role::Reviewer, "reviewer")];
            for (role, word) in roles {
                assert_eq!(told(&|call| call["role"] == word), scene.server.usage_of(role), "{name}, {word}");
            }
            assert_eq!(all, scene.server.usage(), "{name}");
        }
        Counts::Roughly => assert_eq!(all.input / 1000, scene.server.usage().input / 1000, "{name}"),
        Counts::WithoutCache => assert_eq!(all, Usage { cached: 0, ..scene.server.usage() }, "{name}"),
        Counts::Partly => assert!((1..scene.server.usage().input).contains(&all.input), "{name}: {all:?}"),
        Counts::Nothing => assert_eq!(all, Usage::default(), "{name}"),
    }
    let total = &result["usage"];
    assert_eq!((total["tokens_in"].as_u64(), total["tokens_out"].as_u64()), (Some(all.input), Some(all.output)));
    scene.assert_nothing_left();
}

/// A worker's only command fails, and it changes nothing: the record, its transcript as text, the lines of the run and the
/// reviewer's prompt tell of it.
fn failing_command(agent @ (_, name): Agent) {
    let roles = LoopRoles::new()
        .plan(json!([{ "id": "one", "description": "put the right word into the first file" }]))
        .work(Work::about("Your subgoal").runs("echo fatal: out of luck >&2; exit 3").says("I could not do it."))
        .verdict(LoopRoles::rejects(&["a.txt: is not there"]));
    let title = |turn: &Turn| turn.system.contains("title generator").then(|| Reply::text("A title"));
    let Some(scene) = Scene::new(agent, Brain::loop_roles(roles).first(title)) else { return };
    let ran = scene.ran(&["--timeout", CALL, "--max-iterations", "1", "--permissions", "all"]).expect(1);
    assert!(ran.stderr.contains("note: no worker changed a file"), "{name}: {}", ran.stderr);
    let text = scene.repo.agentloop(&["output", "iter1/one"]).expect(0).stdout;
    let raw = scene.repo.agentloop(&["output", "iter1/one", "--raw"]).expect(0).stdout;
    assert!(raw.contains("I could not do it."), "{name}: {raw}");
    let has = |wanted: &dyn Fn(&str) -> bool| text.lines().any(wanted);
    if agent.0 != "aider" {
        assert!(has(&|line| line == "text     I could not do it."), "{name}: {text}");
    }
    // The others print no stream of their work.
    if matches!(agent.0, "claude" | "codex" | "copilot" | "opencode") {
        assert!(
            has(&|line| line.starts_with("command  ") && line.contains("out of luck >&2; exit 3")),
            "{name}: {text}"
        );
        assert!(has(&|line| line == "result   exit code 3"), "{name}: {text}");
        let calls = scene.calls();
        let worker = calls.iter().find(|call| call["role"] == "subagent").unwrap();
        let failed = worker["failed_actions"][0].as_str().unwrap_or_default();
        assert!(failed.ends_with("(exit code 3: fatal: out of luck)"), "{name}: {worker:#}");
        let noted = format!("no worker changed a file; this failed: one: {failed}");
        assert!(ran.stderr.contains(&noted), "{name}: {}", ran.stderr);
        let asked = scene.server.turns();
        let review = asked.iter().find(|turn| turn.role() == Some(Role::Reviewer)).unwrap().prompt();
        assert!(review.contains(&noted), "{name}: {review}");
    }
}

/// A plan is asked for and given; from then on every worker is refused with `status`. The 401 ends the run, and soon.
fn refused(agent @ (_, name): Agent) {
    let refuse = |turn: &Turn| (turn.role() == Some(Role::Subagent)).then(|| Reply::error(401));
    let Some(scene) = Scene::new(agent, Brain::loop_roles(story()).first(refuse)) else { return };
    let ran = scene.ran(&["--timeout", CALL, "--sequential"]).expect(2);
    let refused = scene.assert_failed("not_logged_in", &ran);
    assert!(refused["error"]["hint"].is_string(), "{name}: {refused:#}");
    assert_eq!(ran.json()["stop_reason"], "loop_agent_error", "{name}");
    let calls = scene.calls();
    assert_eq!(calls.len(), 2, "{name}: asked again after a 401");
    let seconds = |call: &Value| call["seconds"].as_f64().unwrap();
    assert!(seconds(&calls[1]) <= seconds(&calls[0]) + REFUSED_WITHIN, "{name}: {calls:#?}");
    scene.assert_nothing_left();
}

/// The agent's service is overloaded, or says that a limit is reached, and the agent does not know when to stop asking:
/// the call ends, soon and as what it is, and is to be made again.
fn overloaded(agent @ (_, name): Agent, status: u16, kind: &str) {
    let Some(scene) = Scene::new(agent, Brain::new(move |_| Reply::error(status))) else { return };
    let ran = scene.ran(&["--timeout", CALL, "--max-agent-calls", "1"]).expect(1);
    let failed = scene.assert_failed(kind, &ran);
    assert!(failed["error"]["retry_at"].is_number(), "{name}: {failed:#}");
    // codex asks five times before it says that it asks again.
    assert!(scene.server.turns().len() <= 15, "{name} asked {} times", scene.server.turns().len());
    assert_eq!(ran.json()["stop_reason"], "max_agent_calls", "{name}");
    scene.assert_nothing_left();
}

/// Without a login a run ends at once, or does not begin, and says what to do.
fn logged_out(agent @ (_, name): Agent) {
    let refuse = |turn: &Turn| turn.api_key.is_none().then(|| Reply::error(401));
    let Some(mut scene) = Scene::new(agent, Brain::loop_roles(story()).first(refuse)) else { return };
    scene.environment.retain(|(name, _)| !name.ends_with("_KEY"));
    if agent.0 == "opencode" {
        let config = scene.repo.home().join(".config/opencode/opencode.json");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("{env:TEST_API_KEY}", "")).unwrap();
    }
    let ran = scene.ran(&["--timeout", CALL]).expect(2);
    if name == "claude_code" {
        // Its program can tell without a call, so that there is no run.
        assert_eq!(ran.json()["error"], "claude_code is not logged in");
        assert!(ran.json()["hint"].is_string(), "{}", ran.stdout);
        assert_eq!(scene.repo.git(&["for-each-ref", "refs/notes/agentloop"]), "");
        return;
    }
    let failed = scene.assert_failed("not_logged_in", &ran);
    assert!(failed["error"]["hint"].is_string(), "{name}: {failed:#}");
    assert_eq!(scene.calls().len(), 1, "{name}");
}

/// The service takes the request and never answers: the call ends when its time is over, and leaves nothing.
fn timed_out(agent @ (_, name): Agent) {
    let Some(scene) = Scene::new(agent, Brain::new(|_| Reply::Stall)) else { return };
    let ran = scene.ran(&["--timeout", "10", "--max-agent-calls", "1"]);
    let failed = scene.assert_failed("timeout", &ran);
    let seconds = failed["seconds"].as_f64().unwrap();
    assert!((10.0..20.0).contains(&seconds), "{name}: {seconds}");
    scene.assert_nothing_left();
}

/// The run is cancelled while its agent waits for an answer: nothing of it is left.
fn cancelled(agent @ (_, name): Agent) {
    let Some(scene) = Scene::new(agent, Brain::new(|_| Reply::Stall)) else { return };
    let mut child = scene.spawned(&[]);
    assert!(
        scene.server.wait_for(Duration::from_mins(1), |asked| asked.iter().any(|one| one.turn.is_some())),
        "{name}"
    );
    scene.repo.agentloop(&["cancel"]).expect(0);
    assert_eq!(child.wait().unwrap().code(), Some(4), "{name}");
    scene.assert_nothing_left();
    assert_eq!(scene.repo.status(&scene.newest())["state"], "cancelled", "{name}");
}

/// The tests of one agent; `$counts` is how its own count of tokens compares with the server's.
macro_rules! agents {
    ($($agent:ident $backend:literal $counts:ident;)*) => {$(
        mod $agent {
            use super::{Agent, Counts};

            const AGENT: Agent = (stringify!($agent), $backend);

            #[test]
            fn completes_a_whole_run() {
                super::whole_run(AGENT, &Counts::$counts);
            }

            #[test]
            fn tells_of_a_command_that_fails() {
                super::failing_command(AGENT);
            }

            #[test]
            fn is_refused() {
                super::refused(AGENT);
            }

            #[test]
            fn meets_a_limit() {
                super::overloaded(AGENT, 429, "rate_limited");
            }

            #[test]
            fn meets_overload() {
                super::overloaded(AGENT, 529, "overloaded");
            }

            #[test]
            fn is_logged_out() {
                super::logged_out(AGENT);
            }

            #[test]
            fn is_out_of_time() {
                super::timed_out(AGENT);
            }

            #[test]
            fn is_cancelled() {
                super::cancelled(AGENT);
            }
        }
    )*};
}

agents! {
    claude "claude_code" Exactly;
    codex "codex" Exactly;
    opencode "opencode" Exactly;
    gemini "gemini" Exactly;
    copilot "copilot" Nothing;
    aider "aider" Roughly;
}

/// The same agents where they speak the Agent Client Protocol, as far as it differs.
macro_rules! speakers {
    ($($agent:ident $backend:literal $counts:ident;)*) => {$(
        mod $agent {
            use crate::agents::whole::{self, Agent, Counts};

            const AGENT: Agent = (stringify!($agent), $backend);

            #[test]
            fn completes_a_whole_run() {
                whole::whole_run(AGENT, &Counts::$counts);
            }

            #[test]
            fn is_out_of_time() {
                whole::timed_out(AGENT);
            }

            #[test]
            fn is_cancelled() {
                whole::cancelled(AGENT);
            }
        }
    )*};
}

mod acp {
    speakers! {
        opencode "acp:opencode acp" Partly;
        gemini "acp:gemini --acp" WithoutCache;
        copilot "acp:copilot --acp --model {model}" Exactly;
    }

    #[test]
    fn a_status_in_an_error_is_told() {
        const GEMINI: super::Agent = ("gemini", "acp:gemini --acp");
        super::refused(GEMINI);
        super::logged_out(GEMINI);
        super::overloaded(GEMINI, 429, "rate_limited");
        super::overloaded(GEMINI, 529, "overloaded");
    }
}
