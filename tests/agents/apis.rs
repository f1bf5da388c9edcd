//! The model APIs: whole runs with real file edits, and every way in which a service fails, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use git_agentloop::agent::api::{Api, Dialect};
use git_agentloop::agent::{Agent as _, Request, Response};
use git_agentloop::run::goal::{Permissions, Role};
use git_agentloop::run::work::{Failure, FailureKind};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::whole::story;
use crate::support::model_server::{Brain, LoopRoles, ModelServer, Reply};
use crate::support::{PROGRAM, Ran, Repo, hermetic};

const DIALECTS: [(Dialect, &str); 2] = [(Dialect::Anthropic, "claude_api"), (Dialect::OpenAi, "openai_api")];
/// A key of no known shape, so that only its value gives it away.
const KEY: &str = "api-key-that-nobody-may-see-0123456789";

fn url(dialect: Dialect, server: &ModelServer) -> String {
    match dialect {
        Dialect::Anthropic => server.url(),
        Dialect::OpenAi => format!("{}/v1", server.url()),
    }
}

fn run(repo: &Repo, servers: &[(Dialect, &ModelServer)], arguments: &[&str]) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.current_dir(repo.path());
    hermetic(&mut command, repo.home());
    for (dialect, server) in servers {
        command.env(dialect.url_variable(), url(*dialect, server)).env(dialect.key_variable(), KEY);
    }
    command.args(["run", "make it right", "--criteria", "- sh check.sh succeeds", "--json"]).args(arguments);
    Ran::of(&command.stdin(Stdio::null()).output().unwrap())
}

fn checked_repo() -> Repo {
    let repo = Repo::new();
    repo.write("check.sh", "test \"$(cat a.txt)\" = right && test \"$(cat b.txt)\" = right\n");
    repo.commit("a check");
    repo
}

/// The key is in no object, note, log or file of the repository and of its worktrees.
fn assert_no_key(repo: &Repo) {
    let mut batch = repo.command("git");
    batch.args(["cat-file", "--batch-all-objects", "--batch", "--unordered"]);
    let objects = batch.output().unwrap().stdout;
    assert!(objects.len() > 1000, "the objects are there to be looked at");
    let holds = |bytes: &[u8]| bytes.windows(KEY.len()).any(|window| window == KEY.as_bytes());
    assert!(!holds(&objects), "the key is in an object");
    let mut folders = vec![repo.home().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else {
                assert!(!holds(&std::fs::read(&path).unwrap_or_default()), "the key is in {}", path.display());
            }
        }
    }
}

#[test]
fn a_key_is_all_it_takes_to_get_the_work_done() {
    for (dialect, name) in DIALECTS {
        let (repo, server) = (checked_repo(), ModelServer::start(Brain::loop_roles(story())));
        let ran =
            run(&repo, &[(dialect, &server)], &["--backend", &format!("{name}/test-model"), "--verify", "sh check.sh"]);
        let result = ran.expect(0).json();
        assert_eq!(result["stop_reason"], "goal_complete", "{name}");
        let checks = result["history"].as_array().unwrap().iter().map(|pass| pass["verification"][0]["ok"].clone());
        assert_eq!(checks.collect::<Vec<_>>(), [false, true], "{name}");
        assert_eq!(result["worktree"]["changed_files"], json!(["a.txt", "b.txt", "draft.txt"]), "{name}");
        let counted = server.usage();
        let told = &result["usage"];
        let told = ["tokens_in", "tokens_cached", "tokens_out"].map(|key| told[key].as_u64().unwrap());
        assert_eq!(told, [counted.input, counted.cached, counted.output], "{name}");
        assert!(server.turns().iter().all(|turn| turn.api_key.as_deref() == Some(KEY)), "{name}");
        let said = repo.agentloop(&["output", result["run_id"].as_str().unwrap(), "iter1/one"]).expect(0).stdout;
        assert!(said.contains("[write_file ") && said.contains("The first file is right."), "{said}");
        assert_no_key(&repo);
        repo.assert_sound();
    }
}

#[test]
fn a_key_stays_off_the_record_whatever_the_agents_say() {
    let betray = |_: &_| Some(Reply::text(format!("the key is {KEY}")));
    for (dialect, name) in DIALECTS {
        for (brain, code) in [
            (Brain::loop_roles(LoopRoles::new()).first(betray), 1),
            (
                Brain::new(|_| Reply::Error {
                    status: 400,
                    kind: None,
                    message: format!("{KEY} is no key"),
                    headers: vec![],
                }),
                2,
            ),
        ] {
            let (repo, server) = (checked_repo(), ModelServer::start(brain));
            let tell = ["--verify", "sh -c 'echo $ANTHROPIC_API_KEY $OPENAI_API_KEY; false'", "--max-iterations", "1"];
            let backend = format!("{name}/m");
            let arguments = [&["--backend", &backend][..], &tell].concat();
            run(&repo, &[(dialect, &server)], &arguments).expect(code);
            assert_no_key(&repo);
        }
    }
}

#[test]
fn commands_run_where_everything_is_permitted() {
    let (repo, server) = (
        Repo::new(),
        ModelServer::start(Brain::loop_roles(LoopRoles::new()).first(|turn| {
            let works = turn.role() == Some(Role::Subagent) && turn.tool_results.is_empty();
            let command = "printf '%s' \"key:$OPENAI_API_KEY run:$AGENTLOOP_RUN\" > told.txt";
            works.then(|| Reply::Tool { name: "run_command".into(), input: json!({"command": command}) })
        })),
    );
    let arguments = ["--backend", "openai_api/m", "--permissions", "all", "--max-iterations", "1"];
    let result = run(&repo, &[(Dialect::OpenAi, &server)], &arguments).expect(0).json();
    let run = result["run_id"].as_str().unwrap();
    let told = repo.git(&["show", &format!("agentloop/{run}:told.txt")]);
    assert_eq!(told, format!("key: run:{run}"), "the key is no business of a command's");
}

fn request(dir: &std::path::Path) -> Request {
    Request {
        role: Role::Subagent,
        system: "You are the subagent of a test.".into(),
        prompt: "work".into(),
        model: Some("test-model".into()),
        cwd: dir.to_owned(),
        permissions: Permissions::Edit,
        timeout: Some(Duration::from_secs(3)),
        tokens_left: None,
        env: Vec::new(),
        run: "a-run-1a2b3c".into(),
        call: 1,
        iteration: 1,
        subgoal: None,
        attempt: 1,
        transcript: None,
        cancel: CancellationToken::new(),
    }
}

async fn asked(dialect: Dialect, url: String) -> Result<Response, Failure> {
    let dir = tempfile::tempdir().unwrap();
    Api::new(dialect, Some(url)).run(&request(dir.path())).await
}

#[tokio::test]
async fn every_fault_is_told_as_what_it_is() {
    let faults: [(Reply, FailureKind); 16] = [
        (Reply::error(400), FailureKind::Crashed),
        (Reply::error(401), FailureKind::NotLoggedIn),
        (Reply::error(403), FailureKind::NotLoggedIn),
        (Reply::error(404), FailureKind::UnknownModel),
        (Reply::error(413), FailureKind::Crashed),
        (Reply::error(429), FailureKind::RateLimited),
        (Reply::retry_after(429, 30), FailureKind::RateLimited),
        (Reply::error(500), FailureKind::Overloaded),
        (Reply::error(529), FailureKind::Overloaded),
        (Reply::Redirect("http://elsewhere.invalid/".into()), FailureKind::Protocol),
        (Reply::Html, FailureKind::Protocol),
        (Reply::Torn, FailureKind::Protocol),
        (Reply::Hangup, FailureKind::Network),
        (Reply::CutStream, FailureKind::Network),
        (Reply::Stall, FailureKind::Timeout),
        (Reply::StallStream, FailureKind::Timeout),
    ];
    for (dialect, name) in DIALECTS {
        for (reply, kind) in &faults {
            let said = reply.clone();
            let server = ModelServer::start(Brain::new(move |_| said.clone()));
            let secret = url(dialect, &server).replace("http://", "http://user:hidden@");
            let failure = asked(dialect, secret).await.unwrap_err();
            assert_eq!(failure.kind, *kind, "{name} {reply:?}: {failure}");
            assert!(!failure.message.contains("hidden"), "{name} {reply:?}: {failure}");
            assert_eq!(failure.reset_at.is_some(), format!("{reply:?}").contains("retry-after"), "{reply:?}");
            assert_eq!(server.turns().len(), 1, "{name} {reply:?}: when to ask again is the loop's to decide");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_as_what_it_is() {
    // Nobody listens: the port was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(asked(Dialect::OpenAi, format!("http://{free}")).await.unwrap_err().kind, FailureKind::Network);
    // Somebody who does not speak TLS.
    let server = ModelServer::start(Brain::new(|_| Reply::text("x")));
    let failure = asked(Dialect::OpenAi, server.url().replace("http:", "https:")).await.unwrap_err();
    assert!(matches!(failure.kind, FailureKind::Protocol | FailureKind::Network), "{failure:?}");
    for url in ["", "nonsense", "http://", "ftp://127.0.0.1"] {
        let failure = asked(Dialect::Anthropic, url.to_owned()).await.unwrap_err();
        assert!(!failure.kind.is_permanent() && failure.kind != FailureKind::Timeout, "{url}: {failure:?}");
    }
    // Somebody who answers with anything but HTTP.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"SSH-2.0-OpenSSH\r\n\r\n");
    });
    assert_eq!(asked(Dialect::OpenAi, format!("http://{address}")).await.unwrap_err().kind, FailureKind::Network);
}

#[test]
fn a_key_that_cannot_be_one_is_refused_before_it_is_sent() {
    let repo = Repo::new();
    let server = ModelServer::start(Brain::new(|_| Reply::text("x")));
    for (key, words) in [("line\nbreak", "newline"), ("", "has no key")] {
        let mut command = repo.command(PROGRAM);
        command.args(["run", "x", "--backend", "claude_api/m", "--json"]).env("ANTHROPIC_API_KEY", key);
        if !key.is_empty() {
            command.env("ANTHROPIC_BASE_URL", server.url());
        }
        let ran = Ran::of(&command.stdin(Stdio::null()).output().unwrap()).expect(2);
        assert!(ran.json()["error"].as_str().unwrap().contains(words), "{}", ran.stdout);
        assert!(ran.json()["hint"].as_str().unwrap().contains("ANTHROPIC_API_KEY"), "{}", ran.stdout);
    }
    assert!(server.turns().is_empty());
}

#[tokio::test]
async fn a_model_that_never_finishes_is_stopped() {
    let again = |_: &_| Reply::Tool { name: "list_files".into(), input: json!({}) };
    for (dialect, name) in DIALECTS {
        let server = ModelServer::start(Brain::new(again));
        let dir = tempfile::tempdir().unwrap();
        let api = Api::new(dialect, Some(url(dialect, &server)));
        let patient = Request { timeout: Some(Duration::from_mins(1)), ..request(dir.path()) };
        let failure = api.run(&patient).await.unwrap_err();
        assert!(failure.message.contains("did not finish within 200 turns"), "{name}: {failure}");
        let counted = server.usage();
        assert_eq!(
            failure.spent.map(|spent| (spent.tokens_in, spent.tokens_out)),
            Some((counted.input, counted.output)),
            "{name}"
        );
        // The run's tokens are spent before.
        let short = Request { tokens_left: Some(3000), ..patient };
        let stopped = api.run(&short).await.unwrap();
        assert!(stopped.text.contains("tokens are spent") && stopped.usage.tokens() < 10_000, "{name}: {stopped:?}");
    }
}

#[tokio::test]
async fn a_call_is_stopped_at_once() {
    let server = ModelServer::start(Brain::new(|_| Reply::StallStream));
    let dir = tempfile::tempdir().unwrap();
    let request = Request { timeout: None, ..request(dir.path()) };
    let api = Api::new(Dialect::Anthropic, Some(server.url()));
    let begun = Instant::now();
    let (stopped, ()) = tokio::join!(api.run(&request), async { request.cancel.cancel() });
    assert_eq!(stopped.unwrap_err().kind, FailureKind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(5));
}
