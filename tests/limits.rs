//! Usage limits, shared by all runs of a user; who plays which role; and what may be spent.

mod words;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use git_agentloop::run::goal::Role;

use crate::merging::conflicting;
use crate::support::model_server::{Brain, Gate, LoopRoles, ModelServer, Reply, Request, Turn, Usage, Work};
use crate::support::{PROGRAM, Ran, Repo, hermetic};

/// The program in `repo`, with two model APIs.
fn command(repo: &Repo, anthropic: &ModelServer, openai: &ModelServer, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(repo.path());
    hermetic(&mut command, repo.home());
    command.env("ANTHROPIC_API_KEY", "key-one").env("ANTHROPIC_BASE_URL", anthropic.url());
    command.env("OPENAI_API_KEY", "key-two").env("OPENAI_BASE_URL", format!("{}/v1", openai.url()));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn ran(repo: &Repo, server: &ModelServer, arguments: &[&str]) -> Ran {
    Ran::of(&command(repo, server, server, arguments).output().unwrap())
}

fn three() -> LoopRoles {
    let subgoal = |id: &str| json!({ "id": id, "description": format!("write {id}") });
    LoopRoles::new()
        .plan(json!([subgoal("a"), subgoal("b"), subgoal("c")]))
        .work(Work::about("").writes(&[("work.txt", "done\n")]))
}

#[test]
fn two_runs_and_six_workers_wait_once_and_go_on_by_themselves() {
    const RESET: u32 = 5;
    let server = ModelServer::start(
        Brain::loop_roles(three()).first(|turn| (turn.n == 1).then(|| Reply::retry_after(429, RESET))),
    );
    let repo = Repo::new();
    let start = |goal: &str| {
        let arguments = ["run", "-d", "--json", goal, "--criteria", "x", "--backend", "claude_api/m"];
        ran(&repo, &server, &arguments).expect(0).json()["run_id"].as_str().unwrap().to_owned()
    };
    let first = start("one");
    repo.await_status(&first, |status| status["state"] == "waiting");
    let second = start("two");
    repo.await_status(&second, |status| status["state"] == "waiting");
    for run in [&first, &second] {
        let ended = repo.await_status(run, |status| status["completed"].is_boolean());
        assert_eq!(ended["state"], "completed", "{ended:#}");
        let kinds = repo.kinds(run);
        assert_eq!(kinds.iter().filter(|kind| *kind == "waiting").count(), 1, "{kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| *kind == "subagent_finished").count(), 3, "{kinds:?}");
        let result = repo.agentloop(&["result", run, "--json"]).expect(0).json();
        assert_eq!(result["iterations"], 1, "a limit costs neither an iteration nor an attempt");
    }
    let requests = server.requests();
    let reset = requests[0].at + Duration::from_secs(RESET.into());
    let early = requests[1..].iter().filter(|request| request.at < reset).count();
    assert_eq!(early, 0, "requests before the reset");
    assert_eq!(requests.len(), 1 + 2 * (1 + 3 * 2 + 1), "and each role asked no more than it had to");

    let file = repo.home().join("state/git-agentloop/limits.json");
    let told: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let backends: Vec<&String> = told["resets"].as_object().unwrap().keys().collect();
    assert_eq!(backends, ["claude_api"], "it names backends and nothing else: {told}");
}

#[test]
fn six_workers_of_two_runs_meet_one_limit_together() {
    const RESET: u32 = 10;
    const WORKERS: usize = 6;
    let met = AtomicUsize::new(0);
    let all_at_work = Gate::closed();
    let gate = all_at_work.clone();
    // Each worker's first request is refused, and only once all of them are at work.
    let limit = move |turn: &Turn| {
        if turn.role() != Some(Role::Subagent) || met.load(Relaxed) == WORKERS {
            return None;
        }
        if met.fetch_add(1, Relaxed) + 1 == WORKERS {
            gate.open();
        }
        Some(gate.hold(Reply::retry_after(429, RESET)))
    };
    let server = ModelServer::start(Brain::loop_roles(three()).first(limit));
    let repo = Repo::new();
    let runs = ["one", "two"].map(|goal| {
        let arguments = ["run", "-d", "--json", goal, "--criteria", "x", "--backend", "claude_api/m"];
        ran(&repo, &server, &arguments).expect(0).json()["run_id"].as_str().unwrap().to_owned()
    });
    let working = |requests: &[Request]| requests.iter().filter(|one| one.role == Some(Role::Subagent)).count();
    assert!(server.wait_for(Duration::from_mins(1), |requests| working(requests) == WORKERS));
    let refused = Instant::now();
    for run in &runs {
        let ended = repo.await_status(run, |status| status["completed"].is_boolean());
        assert_eq!(ended["state"], "completed", "{ended:#}");
        let events = repo.events(run);
        let of = |kind: &str| events.iter().filter(|event| event["kind"] == kind).collect::<Vec<_>>();
        assert_eq!(of("waiting").len(), 1, "it waits once: {events:#?}");
        let limited = of("agent_finished").into_iter().filter(|one| one["data"]["error"]["kind"] == "rate_limited");
        assert_eq!(limited.count(), 3, "each of its workers met the limit");
        let result = repo.agentloop(&["result", run, "--json"]).expect(0).json();
        assert_eq!(result["iterations"], 1, "a limit costs neither an iteration nor an attempt");
    }
    let reset = refused + Duration::from_secs(RESET.into());
    let later: Vec<Request> = server.requests().split_off(2 + WORKERS);
    let early = later.iter().filter(|request| request.at < reset).count();
    assert_eq!(early, 0, "requests before the reset");
    assert_eq!(later.len(), WORKERS * 2 + 2, "each worker asks what it has to, then each reviewer");
}

#[test]
fn no_wait_stops_at_a_limit_and_before_one_that_is_known() {
    let server = ModelServer::start(Brain::new(|_| Reply::retry_after(429, 3600)));
    let repo = Repo::new();
    for goal in ["meets it", "knows of it"] {
        let arguments = ["run", "--json", goal, "--criteria", "x", "--backend", "claude_api/m", "--no-wait"];
        let result = ran(&repo, &server, &arguments).expect(1).json();
        assert_eq!(result["stop_reason"], "usage_limit", "{result:#}");
        let hint = result["hint"].as_str().unwrap();
        assert!(hint.contains("it resets at") && hint.contains("git agentloop resume"), "{hint}");
        assert_eq!(server.turns().len(), 1, "one request, whoever sent it");
    }
}

#[test]
fn a_merge_with_an_agent_waits_for_a_limit_and_counts_no_try() {
    let limit = |turn: &Turn| (turn.n == 1).then(|| Reply::retry_after(429, 2));
    for no_wait in [false, true] {
        let both = Work::about("").writes(&[("README", "main and run\n")]);
        let server = ModelServer::start(Brain::loop_roles(LoopRoles::new().integrates(both)).first(limit));
        let options =
            if no_wait { &["--max-task-retries", "0", "--no-wait"][..] } else { &["--max-task-retries", "0"] };
        let (repo, run) = conflicting("false", options);
        let before = repo.fingerprint();
        let merged = ran(&repo, &server, &["merge", &run, "--with-agent", "--integrator", "claude_api/m"]);
        if no_wait {
            assert!(merged.stderr.contains("429 Too Many Requests"), "{}", merged.stderr);
            assert_eq!((merged.code, server.turns().len()), (2, 1), "{}", merged.stderr);
            assert_eq!(repo.fingerprint(), before);
        } else {
            assert!(merged.stderr.contains("s for claude_api: "), "{}", merged.stderr);
            assert_eq!((merged.code, repo.git(&["show", "HEAD:README"])), (0, "main and run".to_owned()));
            let requests = server.requests();
            assert!(requests[1].at.duration_since(requests[0].at) >= Duration::from_secs(1), "it did not wait");
        }
    }
}

#[test]
fn roles_on_two_backends_are_counted_by_role() {
    let (anthropic, openai) =
        (ModelServer::start(Brain::loop_roles(three())), ModelServer::start(Brain::loop_roles(three())));
    let repo = Repo::new();
    let arguments = ["run", "x", "--json", "--backend", "claude_api/big", "--worker", "openai_api/small", "--ask"];
    let result = Ran::of(&command(&repo, &anthropic, &openai, &arguments).output().unwrap()).expect(0).json();
    let models = |server: &ModelServer| {
        let mut models: Vec<String> = server.turns().into_iter().map(|turn| turn.model).collect();
        models.dedup();
        models
    };
    assert_eq!((models(&anthropic), models(&openai)), (vec!["big".to_owned()], vec!["small".to_owned()]));
    let told = |role: &str| {
        let count = |key: &str| result["usage_by_role"][role][key].as_u64().unwrap();
        Usage { input: count("tokens_in"), cached: count("tokens_cached"), output: count("tokens_out") }
    };
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Integrator) {
        let server = if role == Role::Subagent { &openai } else { &anthropic };
        assert_eq!(told(role.name()), server.usage_of(role), "{role}");
    }
    let total = anthropic.usage() + openai.usage();
    assert_eq!(result["usage"]["tokens_in"], total.input);
    assert_eq!(result["usage"]["tokens_out"], total.output);
    let status = repo.status(result["run_id"].as_str().unwrap());
    assert_eq!(status["tokens"], total.input + total.output, "{status:#}");
    let branch = format!("agentloop/{}", result["run_id"].as_str().unwrap());
    let trailers = repo.git(&["log", "-1", "--format=%(trailers)", &branch]);
    for trailer in ["decomposer=claude_api/big", "subagent=openai_api/small", "reviewer=claude_api/big"] {
        assert!(trailers.contains(&format!("Agentloop-Agent: {trailer}")), "{trailers}");
    }
}

#[test]
fn a_cost_that_nobody_tells_cannot_be_capped() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.backend.mine.command", "true"]);
    for arguments in
        [&["--backend", "codex"][..], &["--backend", "mine"], &["--backend", "mock", "--reviewer", "openai_api/m"]]
    {
        let said = repo.agentloop(&[&["run", "x", "--max-cost", "1"], arguments].concat()).expect(2).stderr;
        assert!(said.contains("does not tell what a call costs") && said.contains("--max-tokens"), "{said}");
    }
    assert_eq!(repo.agentloop(&["list", "--json"]).expect(0).json(), json!([]), "nothing was begun");
    repo.mock_run("x", &["--max-cost", "1"]);
}

#[test]
fn a_run_stops_where_its_tokens_are_spent() {
    let server = ModelServer::start(Brain::loop_roles(three()));
    let repo = Repo::new();
    let arguments =
        ["run", "x", "--json", "--criteria", "y", "--backend", "openai_api/m", "--max-tokens", "2500", "--sequential"];
    let result = ran(&repo, &server, &arguments).expect(1).json();
    assert_eq!(result["stop_reason"], "max_tokens", "{result:#}");
    assert!(server.turns().len() <= 4, "{}", server.turns().len());
}
