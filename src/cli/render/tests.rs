use super::*;
use crate::run::goal::RunId;
use crate::run::view::{Pass, WorktreeView};
use crate::run::words::Spent;
use crate::run::work::{Review, Usage};
use crate::run::{Phase, Word};

const BRANCH: &str = "agentloop/fix-login-000000";

fn a_status(state: State, running: bool) -> Status {
    Status {
        run_id: RunId::new("fix login", 0),
        running,
        state,
        phase: Word::Known(Phase::Execute),
        iteration: 2,
        max_iterations: 4,
        events: 40,
        started_at: Timestamp(0),
        goal: "fix the login\u{1b}[31m page".to_owned(),
        branch: BRANCH.to_owned(),
        spent: Spent::default(),
        completed: None,
        stop_reason: None,
        verified: true,
        waiting: None,
    }
}

fn a_result(status: State) -> RunResult {
    let check = CheckResult {
        name: "cargo test".to_owned(),
        ok: status == State::Completed,
        exit_code: Some(101),
        stderr: "\u{1b}]0;x\u{7}assertion failed\n".to_owned(),
        duration: 1.5,
        ..CheckResult::default()
    };
    let review =
        Review { gates_passed: false, goal_complete: false, issues: vec!["no\ntests".to_owned()], ..Review::default() };
    RunResult {
        run_id: RunId::new("fix login", 0),
        status,
        completed: status == State::Completed,
        iterations: 1,
        stop_reason: None,
        questions: Vec::new(),
        token: None,
        hint: None,
        final_output: String::new(),
        summary: "2/2 subgoals".to_owned(),
        history: vec![Pass {
            iteration: 1,
            subgoals: Vec::new(),
            results: Vec::new(),
            review: Some(review),
            verification: vec![check],
        }],
        usage: Usage::default(),
        usage_by_role: std::collections::BTreeMap::new(),
        set_aside: None,
        verified: true,
        worktree: Some(WorktreeView {
            name: Some(BRANCH.into()),
            branch: BRANCH.to_owned(),
            base: "0123456789abcdef".to_owned(),
            changed_files: vec!["a".to_owned()],
            ..WorktreeView::default()
        }),
    }
}

#[test]
fn a_running_status_says_what_it_does_and_what_to_do() {
    assert_eq!(
        paint::plain(&status(&a_status(State::Running, true), Some(BRANCH), Timestamp(300_000))),
        "fix-login-000000: running, execute, iteration 2 of 4\n\
         goal:    fix the login page\n\
         started: 5m ago\n\
         branch:  agentloop/fix-login-000000\n\
         next:    'git agentloop tail -f fix-login-000000' follows it\n"
    );
    let interrupted = status(&a_status(State::Interrupted, false), Some(BRANCH), Timestamp(0));
    assert!(interrupted.contains("'git agentloop resume fix-login-000000' goes on"), "{interrupted}");
}

#[test]
fn a_list_is_aligned() {
    let listed = |state: State| Listed { status: a_status(state, false), updated_at: Timestamp(0), merged: false };
    let coloured = list(&[listed(State::Completed), listed(State::NeedsInput)], Timestamp(7_300_000));
    assert!(coloured.contains("\u{1b}[32mcompleted\u{1b}[m    2/4"), "{coloured}");
    let text = paint::plain(&coloured);
    assert_eq!(
        text,
        "RUN               STATE        ITERATION  AGE  GOAL\n\
         fix-login-000000  completed    2/4        2h   fix the login page\n\
         fix-login-000000  needs input  2/4        2h   fix the login page\n"
    );
    assert!(list(&[], Timestamp(0)).contains("no runs yet"));
}

#[test]
fn a_result_says_how_to_review_and_merge() {
    assert_eq!(
        paint::plain(&result(&a_result(State::Completed))),
        "fix-login-000000: 2/2 subgoals\n\
         check passed: cargo test (1.5s)\n\
         branch: agentloop/fix-login-000000, 1 file changed\n\
         review: git log --first-parent agentloop/fix-login-000000\n        \
         git diff 0123456789ab...agentloop/fix-login-000000\n\
         merge:  git agentloop merge fix-login-000000\n"
    );
    let stopped = paint::plain(&result(&a_result(State::Stopped))).into_owned();
    assert!(stopped.contains("check failed: cargo test: exit code 101 (1.5s)\n    assertion failed\n"), "{stopped}");
    assert!(stopped.contains("issue: no tests\n"), "{stopped}");
}

#[test]
fn questions_come_with_the_command_that_answers_them() {
    let waiting = RunResult { questions: vec!["Which?".into(), "Why?".into()], ..a_result(State::NeedsInput) };
    let text = result(&waiting);
    assert!(text.contains("1. Which?\n2. Why?\n"), "{text}");
    assert!(text.ends_with("answer: git agentloop answer fix-login-000000 \"…\" \"…\"\n"), "{text}");
}

#[test]
fn spans() {
    let spans = [(-1.0, "0.0s"), (0.44, "0.4s"), (12.3, "12s"), (300.0, "5m"), (7_300.0, "2h"), (200_000.0, "2d")];
    for (seconds, text) in spans {
        assert_eq!(span(seconds), text);
    }
}

#[test]
fn every_setting_is_on_a_line() {
    let settings = crate::options::Settings::new(|_| Vec::new(), |_| None);
    let text = config(settings.all());
    assert_eq!(text.lines().count(), crate::options::TABLE.len() + 1);
    assert!(text.contains("agentloop.maxIterations"), "{text}");
}
