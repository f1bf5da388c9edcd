use super::*;
use crate::agent::tests::request;
use std::time::Instant;

fn mock(settings: &[(&str, &str)]) -> Result<Mock> {
    Mock::new(&|key| {
        let values = settings.iter().filter(|(name, _)| key == format!("agentloop.mock.{name}"));
        values.map(|(_, value)| (*value).to_owned()).collect()
    })
}

async fn text(mock: &Mock, request: &Request) -> String {
    mock.run(request).await.unwrap().text
}

#[tokio::test]
async fn unscripted_it_shows_the_loop() {
    let dir = tempfile::tempdir().unwrap();
    let mock = Mock::default();
    let ask = |role| request(role, dir.path());
    assert!(!text(&mock, &ask(Role::Criteria)).await.is_empty());
    assert_eq!(text(&mock, &ask(Role::Clarifier)).await, "[]");
    let plan: Value = serde_json::from_str(&text(&mock, &ask(Role::Decomposer)).await).unwrap();
    assert_eq!(plan.as_array().map(Vec::len), Some(3));
    assert!(!text(&mock, &ask(Role::Subagent)).await.is_empty());
    assert!(!text(&mock, &ask(Role::Integrator)).await.is_empty());
    for (iteration, accepted) in [(1, false), (2, true), (3, true)] {
        let review = text(&mock, &Request { iteration, ..ask(Role::Reviewer) }).await;
        let review: Value = serde_json::from_str(&review).unwrap();
        assert_eq!(review["goal_complete"], accepted);
        assert_eq!(review["issues"].as_array().unwrap().is_empty(), accepted);
    }
    let usage = mock.run(&ask(Role::Criteria)).await.unwrap().usage;
    assert!(usage.tokens_in > 0 && usage.tokens_out > 0 && usage.cost_usd.is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn it_answers_as_scripted() {
    let dir = tempfile::tempdir().unwrap();
    let mock =
        mock(&[("questions", r#"["Which?"]"#), ("plan", "not even JSON"), ("acceptIteration", "1"), ("delay", "1")]);
    let mock = mock.unwrap();
    assert_eq!(text(&mock, &request(Role::Clarifier, dir.path())).await, r#"["Which?"]"#);
    assert_eq!(text(&mock, &request(Role::Decomposer, dir.path())).await, "not even JSON");
    assert!(text(&mock, &request(Role::Reviewer, dir.path())).await.contains("true"));
}

#[tokio::test]
async fn workers_write_files_in_their_worktree() {
    let dir = tempfile::tempdir().unwrap();
    let mock = mock(&[
        ("edit", "sub/{subgoal}-{attempt}.txt=round {iteration}\n"),
        ("edit", "+log=a=b\n"),
        ("edit", "empty="),
    ]);
    let mock = mock.unwrap();
    let request = request(Role::Subagent, dir.path());
    text(&mock, &request).await;
    assert!(text(&mock, &Request { iteration: 2, ..request }).await.contains("Wrote sub/s1-1.txt"));
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(read("sub/s1-1.txt"), "round 2\n");
    assert_eq!(read("log"), "a=b\na=b\n");
    assert_eq!(read("empty"), "");
}

#[tokio::test]
async fn workers_write_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("new"), dir.path().join("dangling")).unwrap();
    let absolute = format!("{}/x=1", elsewhere.path().display());
    for edit in ["../x=1", "a/../../x=1", ".git/config=1", "sub/.GIT/x=1", "link/x=1", "dangling=1", &absolute] {
        let failure = mock(&[("edit", edit)]).unwrap().run(&request(Role::Subagent, dir.path())).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::PermissionDenied, "{edit}");
    }
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn calls_fail_as_scripted() {
    let dir = tempfile::tempdir().unwrap();
    let mock = mock(&[
        ("fail", "subagent:s1@2#1=crashed:a: b"),
        ("fail", "reviewer=rate_limited:reset=90"),
        ("fail", "criteria=not_logged_in"),
    ]);
    let mock = mock.unwrap();
    let worker = request(Role::Subagent, dir.path());
    assert!(mock.run(&worker).await.is_ok());
    assert!(mock.run(&Request { iteration: 2, attempt: 2, ..worker.clone() }).await.is_ok());
    assert!(mock.run(&Request { iteration: 2, subgoal: Some("s2".into()), ..worker.clone() }).await.is_ok());
    let failure = mock.run(&Request { iteration: 2, ..worker }).await.unwrap_err();
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Crashed, "a: b"));
    let failure = mock.run(&request(Role::Reviewer, dir.path())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::RateLimited);
    let wait = failure.reset_at.unwrap().since(explain::now());
    assert!((80.0..=90.0).contains(&wait), "{wait}");
    let failure = mock.run(&request(Role::Criteria, dir.path())).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotLoggedIn);
}

#[tokio::test]
async fn it_stops_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mock = mock(&[("delay", "60000")]).unwrap();
    let begun = Instant::now();
    let request = request(Role::Criteria, dir.path());
    let (answer, ()) = tokio::join!(mock.run(&request), async { request.cancel.cancel() });
    assert_eq!(answer.unwrap_err().kind, FailureKind::Cancelled);
    let late = Request {
        timeout: Some(Duration::from_millis(5)),
        cancel: tokio_util::sync::CancellationToken::new(),
        ..request
    };
    assert_eq!(mock.run(&late).await.unwrap_err().kind, FailureKind::Timeout);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn what_cannot_be_understood_is_refused() {
    for (key, value) in [
        ("questions", "Which?"),
        ("questions", "[1]"),
        ("acceptIteration", "soon"),
        ("delay", "-1"),
        ("edit", "nothing"),
        ("edit", "=x"),
        ("fail", "subagent"),
        ("fail", "nobody=crashed"),
        ("fail", "subagent=exploded"),
        ("fail", "subagent@x=crashed"),
    ] {
        let error = mock(&[(key, value)]).unwrap_err();
        assert!(error.hint_text().is_some() && error.to_string().contains(key), "{error}");
    }
}
