use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::*;
use crate::agent::Transcript;
use crate::agent::tests::request;
use crate::redact::Redactor;
use crate::run::goal::{Permissions, Role};
use crate::run::work::Usage;

/// A scripted agent, and a worktree for it.
struct Scene {
    dir: tempfile::TempDir,
    agent: Acp,
}

impl Scene {
    /// `body` is Python, after `tests/support/acp_agent.py`.
    fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tree")).unwrap();
        let script = dir.path().join("agent.py");
        std::fs::write(&script, format!("{}\n{body}\n", include_str!("../../../tests/support/acp_agent.py"))).unwrap();
        let agent = Acp::named(&format!("acp:python3 {}", script.display())).unwrap();
        Self { dir, agent }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn transcript(&self) -> PathBuf {
        self.dir.path().join("transcript")
    }

    fn request(&self) -> Request {
        let run = format!("acp-{:06}", fastrand::u32(..1_000_000));
        let transcript = Some(Transcript { path: self.transcript(), redactor: Redactor::default() });
        Request { run, transcript, ..request(Role::Subagent, &self.tree()) }
    }

    async fn answer(&self) -> Result<Response, Failure> {
        self.agent.run(&self.request()).await
    }
}

async fn answer(body: &str) -> Result<Response, Failure> {
    Scene::new(body).answer().await
}

#[track_caller]
fn assert_failed(result: Result<Response, Failure>, kind: FailureKind, words: &str) -> Failure {
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, kind, "{failure:?}");
    assert!(failure.to_string().contains(words), "{failure}");
    failure
}

#[tokio::test]
async fn a_task_is_put_and_its_answer_heard() {
    let scene = Scene::new(
        r#"
hello = initialize()
assert hello["protocolVersion"] == 1 and hello["clientInfo"]["name"] == "git-agentloop", hello
assert hello["clientCapabilities"] == {"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False}
new = open_session()
assert new == {"cwd": os.getcwd(), "mcpServers": []}, new
prompt = expect("session/prompt")
assert text_of(prompt) == "You are the subagent of a test.\n\nthe task\n", prompt
update("agent_thought_chunk", content={"type": "text", "text": "Let me "})
update("agent_thought_chunk", content={"type": "text", "text": "see."})
say("I begin.")
update("tool_call", toolCallId="c1", title="write a.txt", kind="edit", status="pending")
update("tool_call_update", toolCallId="c1", status="in_progress")
open("a.txt", "w").write(os.environ["AGENTLOOP_RUN"])
update("tool_call_update", toolCallId="c1", status="completed", content=[{"type": "content", "content": {"type": "text", "text": "6 lines"}}])
update("surprise", of="a later version")
send(method="session/update", params={"sessionId": "another", "update": {"sessionUpdate": "agent_message_chunk", "content": {"text": "not ours"}}})
update("usage_update", used=10, size=20, cost={"amount": 0.25, "currency": "USD"})
say("All "); say("done.")
end(prompt, usage={"totalTokens": 1011, "inputTokens": 900, "outputTokens": 11, "cachedReadTokens": 100})
"#,
    );
    let request = scene.request();
    let response = scene.agent.run(&request).await.unwrap();
    assert_eq!((response.text.as_str(), response.session_id.as_deref()), ("All done.", Some("s1")));
    let usage = Usage { tokens_in: 1000, tokens_out: 11, tokens_cached: 100, cost_usd: Some(0.25) };
    assert_eq!(response.usage, usage);
    assert_eq!(std::fs::read_to_string(scene.tree().join("a.txt")).unwrap(), request.run);
    let told = std::fs::read_to_string(scene.transcript()).unwrap();
    let wanted =
        "[thinking] Let me see.\nI begin.\n[edit write a.txt]\n[edit write a.txt: completed]\n6 lines\nAll done.";
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn what_an_agent_prints_beside_the_protocol_is_a_line_of_the_transcript() {
    let scene = Scene::new(
        "initialize(); open_session(); prompt = expect(\"session/prompt\")\n\
         say(\"I \"); sys.stderr.write(\"a log\\n\"); sys.stderr.flush(); say(\"begin.\")\nend(prompt)\n",
    );
    assert_eq!(scene.answer().await.unwrap().text, "I begin.");
    let told = std::fs::read_to_string(scene.transcript()).unwrap();
    // The two streams are in no order.
    assert!(told.lines().any(|line| line == "a log"), "{told}");
}

#[tokio::test]
async fn the_roles_text_goes_its_own_way_where_there_is_one() {
    let body = r#"
initialize(capabilities={"sessionCapabilities": {"systemPrompt": {}}})
new = open_session()
assert new["systemPrompt"] == {"mode": "append", "content": [{"type": "text", "text": "You are the subagent of a test."}]}, new
prompt = expect("session/prompt")
say(text_of(prompt))
end(prompt)
"#;
    assert_eq!(answer(body).await.unwrap().text, "the task\n");
}

#[tokio::test]
async fn a_model_is_chosen_in_the_agents_own_way() {
    let option = r#"configOptions=[{"id": "m", "category": "model", "type": "select", "currentValue": "a", "options": [{"group": "g", "options": [{"value": "a"}, {"value": "b"}]}]}]"#;
    let models = r#"models={"currentModelId": "a", "availableModels": [{"modelId": "a"}, {"modelId": "b"}]}"#;
    let take = |session: &str, method: &str, key: &str| {
        format!(
            "initialize()\nopen_session({session})\nm = expect('{method}')\nasked = m['params']['{key}']\n\
             reply(m, {{}}) if asked == 'b' else fail(m, -32602, 'Invalid params: no such thing')\n\
             prompt = expect('session/prompt')\nsay(asked)\nend(prompt)\n"
        )
    };
    for body in [take(option, "session/set_config_option", "value"), take(models, "session/set_model", "modelId")] {
        let scene = Scene::new(&body);
        let with = |model: &str| Request { model: Some(model.to_owned()), ..scene.request() };
        assert_eq!(scene.agent.run(&with("b")).await.unwrap().text, "b");
        let failure = assert_failed(scene.agent.run(&with("x")).await, FailureKind::UnknownModel, "no such thing");
        assert_eq!(failure.hint.as_deref(), Some("it offers a, b"));
    }
    let scene = Scene::new("prompt = begin()\nsay(sys.argv[2])\nend(prompt)");
    let request = Request { model: Some("b".into()), ..scene.request() };
    assert_failed(scene.agent.run(&request).await, FailureKind::UnknownModel, "offers no choice");
    let script = scene.dir.path().join("agent.py");
    let agent = Acp::named(&format!("acp:python3 {} -m {{model}}", script.display())).unwrap();
    assert_eq!(agent.run(&request).await.unwrap().text, "b", "its command takes it");
}

#[tokio::test]
async fn what_it_asks_for_is_answered_by_the_permissions() {
    let scene = Scene::new(
        r#"
prompt = begin()
os.symlink("/", "way-out")
cases = [("read", None), ("edit", os.path.join(os.getcwd(), "new/a.txt")), ("delete", "a.txt"), ("move", None),
         ("edit", "../a.txt"), ("edit", "/etc/passwd"), ("edit", "way-out/tmp/x"), ("edit", ".git/config"),
         ("execute", None), ("fetch", None), ("other", None), ("switch_mode", None)]
say(" ".join(ask(kind, path)[3:] for kind, path in cases))
os.remove("way-out")
end(prompt)
"#,
    );
    let allow = "allow_once";
    let refuse = "reject_once";
    for (permissions, allowed) in [(Permissions::Ask, 0), (Permissions::Edit, 4), (Permissions::All, 12)] {
        let request = Request { permissions, ..scene.request() };
        let said = scene.agent.run(&request).await.unwrap().text;
        let wanted: Vec<&str> = (0..12).map(|at| if at < allowed { allow } else { refuse }).collect();
        assert_eq!(said, wanted.join(" "), "{permissions:?}");
    }
    let told = std::fs::read_to_string(scene.transcript()).unwrap();
    assert!(told.contains("[execute do execute]\n[permitted: do execute]\n"), "{told}");

    let odd = "prompt = begin()\nsay(' '.join([ask('edit', options=['allow_always']), ask('edit', options=['reject_always']), ask('execute', options=[])]))\nend(prompt)";
    assert_eq!(answer(odd).await.unwrap().text, "id-allow_always id-reject_always cancelled");
    // The kind was reported when the tool was called.
    let earlier = "prompt = begin()\nupdate('tool_call', toolCallId='x', title='t', kind='edit')\n\
        send(id=1, method='session/request_permission', params={'sessionId': 's1', 'toolCall': {'toolCallId': 'x'}, 'options': [{'optionId': 'yes', 'kind': 'allow_once'}]})\n\
        say(read()['result']['outcome']['optionId'])\nend(prompt)";
    assert_eq!(answer(earlier).await.unwrap().text, "yes");
    for end in ["end(prompt)", "say('Operation cancelled by user')\nend(prompt)", "end(prompt, 'cancelled')"] {
        let failure = answer(&format!("prompt = begin()\nask('execute')\n{end}")).await;
        assert_failed(failure, FailureKind::PermissionDenied, "--permissions all");
    }
}

#[tokio::test]
async fn nothing_else_is_offered() {
    let body = r#"
prompt = begin()
codes = []
for method, params in [("fs/read_text_file", {"path": "/etc/passwd"}), ("fs/write_text_file", {"path": "a", "content": "x"}),
                       ("terminal/create", {"command": "id"}), ("elicitation/create", {}), ("_own/method", {})]:
    send(id=[1], method=method, params={"sessionId": "s1", **params})
    answer = read()
    assert answer["id"] == [1], answer
    codes.append(answer["error"]["code"])
say(str(codes))
end(prompt)
"#;
    assert_eq!(answer(body).await.unwrap().text, format!("{:?}", [-32601; 5]));
}

#[tokio::test]
async fn a_turn_ends_for_reasons_that_are_told_apart() {
    for (end, kind, words) in [
        ("end(prompt, 'max_tokens')", FailureKind::Protocol, "cut off at its longest: so far"),
        ("end(prompt, 'max_turn_requests')", FailureKind::Crashed, "did not finish"),
        ("end(prompt, 'refusal')", FailureKind::Crashed, "refused to go on: so far"),
        ("end(prompt, 'cancelled')", FailureKind::Crashed, "nobody did that"),
        ("end(prompt, 'because')", FailureKind::Protocol, "because"),
        ("reply(prompt, None)", FailureKind::Protocol, "no reason"),
        ("fail(prompt, -32000, 'Authentication required')", FailureKind::NotLoggedIn, "log in"),
        ("fail(prompt, 401, 'no')", FailureKind::NotLoggedIn, "no"),
        ("fail(prompt, 429, 'limit, resets in 2h')", FailureKind::RateLimited, "limit"),
        ("fail(prompt, 529, 'no')", FailureKind::Overloaded, "no"),
        (
            "fail(prompt, -32603, 'Internal error', data={'details': 'Invalid API key'})",
            FailureKind::NotLoggedIn,
            "key",
        ),
        ("fail(prompt, -32603, 'Internal error', data='fetch failed')", FailureKind::Network, "error: fetch failed"),
        ("fail(prompt, -32603, 'out of cheese')", FailureKind::Crashed, "out of cheese"),
        ("send(id=prompt['id'], error=5)", FailureKind::Crashed, "it failed"),
    ] {
        let failure = assert_failed(answer(&format!("prompt = begin()\nsay('so far')\n{end}")).await, kind, words);
        assert_eq!(failure.reset_at.is_some(), kind == FailureKind::RateLimited, "{failure:?}");
    }
    let body =
        "prompt = begin()\nend(prompt, 'max_tokens', usage={'inputTokens': 7, 'outputTokens': -1, 'totalTokens': 'x'})";
    let spent = answer(body).await.unwrap_err().spent.unwrap();
    assert_eq!((spent.tokens_in, spent.tokens_out), (7, 0));
    let gemini = "prompt = begin()\nsay('x')\nend(prompt, _meta={'quota': {'token_count': {'input_tokens': 3, 'output_tokens': 2}}})";
    let usage = answer(gemini).await.unwrap().usage;
    assert_eq!((usage.tokens_in, usage.tokens_out), (3, 2));
}

#[tokio::test]
async fn one_that_nobody_has_logged_in_to_says_how() {
    let body = r#"
initialize(logins=[{"id": "a", "name": "Account", "description": "Run 'agent login'"}, {"id": "b", "name": "Key"}])
fail(expect("session/new"), -32000, "Authentication required")
"#;
    let failure = assert_failed(answer(body).await, FailureKind::NotLoggedIn, "Authentication required");
    assert_eq!(failure.hint.as_deref(), Some("log in first: Account (Run 'agent login'); or Key"));
}

#[tokio::test]
async fn noise_is_no_harm_and_no_answer() {
    let banner = "print('Welcome!')\nprint('{ not: json }')\nprint('[1]')\nprint('')\nsys.stdout.flush()\nprompt = begin()\nprint('warning')\nsay('fine')\nend(prompt)";
    let scene = Scene::new(banner);
    assert_eq!(scene.answer().await.unwrap().text, "fine");
    let told = std::fs::read_to_string(scene.transcript()).unwrap();
    assert!(told.starts_with("Welcome!\n{ not: json }\n") && told.contains("warning\nfine"), "{told}");

    for (body, kind, words) in [
        ("print('usage: agent')", FailureKind::Protocol, "exited with status 0 before it answered: usage: agent"),
        ("print('x'); sys.exit(3)", FailureKind::Crashed, "exited with status 3 before it answered: x"),
        ("sys.stderr.write('not logged in'); sys.exit(1)", FailureKind::NotLoggedIn, "log in"),
        ("os.kill(os.getpid(), 9)", FailureKind::Crashed, "signal 9"),
        ("reply(read(), {'protocolVersion': 2})", FailureKind::Protocol, "speaks version 2"),
        ("reply(read(), {})", FailureKind::Protocol, "speaks version null"),
        ("fail(read(), -32601, 'Method not found')", FailureKind::Protocol, "speaks the Agent Client Protocol"),
        ("initialize()\nreply(read(), {})", FailureKind::Protocol, "sessionId"),
        ("begin()", FailureKind::Protocol, "before it answered"),
        ("begin()\nsys.stdout.write('{\"jsonrpc\":\"2.0\",\"id\":3,\"res')", FailureKind::Protocol, "no JSON"),
        (
            "begin()\nprint('{\"jsonrpc\":\"2.0\",\"id\":3,\"res')\nsys.stdout.flush()\ntime.sleep(60)",
            FailureKind::Protocol,
            "no JSON",
        ),
        (
            "begin()\nprint('[' * 9999 + '\"jsonrpc\"')\nsys.stdout.flush()\ntime.sleep(60)",
            FailureKind::Protocol,
            "no JSON",
        ),
        ("begin()\nos.close(1)\ntime.sleep(60)", FailureKind::Protocol, "closed its output before it answered"),
    ] {
        let failure = assert_failed(answer(body).await, kind, words);
        let speaks = failure.hint.as_deref() == Some(SPEAKS);
        assert!(!speaks || !body.contains("begin"), "{body}: {failure}");
    }
    let agent = Acp::named("acp:no-such-agent-anywhere --acp").unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert_failed(agent.run(&request(Role::Criteria, dir.path())).await, FailureKind::NotInstalled, "no-such-agent");
    let echo = Acp::named("acp:cat").unwrap();
    assert_failed(echo.run(&request(Role::Criteria, dir.path())).await, FailureKind::Protocol, "not offered here");
}

#[tokio::test]
async fn one_that_never_begins_is_not_waited_for() {
    for body in ["time.sleep(60)", "initialize()\ntime.sleep(60)", "while True: print('x', flush=True)"] {
        let mut scene = Scene::new(body);
        scene.agent.patience = Duration::from_secs(1);
        let request = scene.request();
        assert_failed(scene.agent.run(&request).await, FailureKind::Protocol, "opened no session in 1 s");
        assert_eq!(
            process::stop_leftovers(
                &process::Leftovers { run: &request.run, clone: "here", ..Default::default() },
                Duration::ZERO
            )
            .await,
            0
        );
    }
}

#[tokio::test]
async fn a_message_of_any_length_is_read_in_bounded_room() {
    let long = "'x' * (20 << 20)";
    let update =
        format!("prompt = begin()\nupdate('tool_call', toolCallId='c', title={long})\nsay('fine')\nend(prompt)");
    assert_eq!(answer(&update).await.unwrap().text, "fine", "nobody waits for an update");
    let message = format!("prompt = begin()\nend(prompt, _meta={long})");
    assert_failed(answer(&message).await, FailureKind::Protocol, "too long");
    let noise =
        format!("prompt = begin()\nfor _ in range(4): sys.stdout.write({long})\nprint()\nsay('fine')\nend(prompt)");
    assert_failed(answer(&noise).await, FailureKind::Protocol, "too long");
    let text = "prompt = begin()\nfor _ in range(5): say('x' * (1 << 20))\nend(prompt)";
    assert_failed(answer(text).await, FailureKind::Protocol, "too long to be read");
    let early = "prompt = begin()\nfor _ in range(5): say('x' * (1 << 20))\nupdate('tool_call', toolCallId='c')\nsay('fine')\nend(prompt)";
    assert_eq!(answer(early).await.unwrap().text, "fine", "that was not the answer");
    let deaf =
        "prompt = begin()\nfor n in range(1 << 20): send(id=n, method='fs/read_text_file', params={'sessionId': 's1'})";
    assert_failed(answer(deaf).await, FailureKind::Protocol, "does not read");
}

/// The agent's turn is under way once this file is there.
async fn under_way(tree: &Path) {
    while !tree.join("begun").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_turn_that_must_stop_is_cancelled_first() {
    let polite = "prompt = begin()\nopen('begun', 'w').close()\nassert expect('session/cancel')['params'] == {'sessionId': 's1'}\n\
        assert ask('execute') == 'cancelled'\nopen('told', 'w').close()\nend(prompt, 'cancelled', usage={'inputTokens': 5})";
    let deaf = "import signal, subprocess\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nsubprocess.Popen(['sleep', '60'], start_new_session=True)\n\
        begin()\nopen('begun', 'w').close()\ntime.sleep(60)";
    for (body, told) in [(polite, true), (deaf, false)] {
        let scene = Scene::new(body);
        let request = scene.request();
        let stop = async {
            under_way(&scene.tree()).await;
            request.cancel.cancel();
            Instant::now()
        };
        let (result, begun) = tokio::join!(scene.agent.run(&request), stop);
        let failure = assert_failed(result, FailureKind::Cancelled, "stopped");
        assert_eq!(failure.spent.is_some(), told, "{failure:?}");
        assert_eq!(scene.tree().join("told").exists(), told);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert_eq!(
            process::stop_leftovers(
                &process::Leftovers { run: &request.run, clone: "here", ..Default::default() },
                Duration::ZERO
            )
            .await,
            0
        );
    }
    let scene = Scene::new(polite);
    let request = Request { timeout: Some(Duration::from_secs(3)), ..scene.request() };
    assert_failed(scene.agent.run(&request).await, FailureKind::Timeout, "--timeout");
    assert!(scene.tree().join("told").exists());
    request.cancel.cancel();
    assert_failed(scene.agent.run(&request).await, FailureKind::Cancelled, "stopped");
}

#[tokio::test]
async fn an_answer_is_kept_whatever_the_agent_does_next() {
    let scene =
        Scene::new("prompt = begin()\nsay('fine')\nend(prompt)\nos.close(0)\nwhile True: print('noise', flush=True)");
    let request = scene.request();
    assert_eq!(scene.agent.run(&request).await.unwrap().text, "fine");
    assert_eq!(
        process::stop_leftovers(
            &process::Leftovers { run: &request.run, clone: "here", ..Default::default() },
            Duration::ZERO
        )
        .await,
        0
    );
    assert_eq!(answer("prompt = begin()\nsay('fine')\nend(prompt)\nsys.exit(7)").await.unwrap().text, "fine");
}
