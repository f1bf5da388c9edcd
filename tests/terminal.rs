//! What a terminal shows while a run goes on: lines that change in place, at any width, and one line for what is tried again.

mod screen;

use self::screen::{Resizing, Terminal};
use crate::support::Repo;
use crate::support::model_server::{Brain, LoopRoles, ModelServer, Reply, Turn};

/// Agents whose workers wait for a file to appear.
fn waiting_workers() -> Repo {
    let repo = Repo::new();
    let plan: Vec<String> = (1..=3)
        .map(|number| {
            format!(r#"{{"id": "s{number}", "description": "{}"}}"#, "a long description of the work ".repeat(9))
        })
        .collect();
    let gate = repo.home().join("gate").display().to_string();
    let agent = repo.script(
        "agent",
        &format!(
            r#"read -r role; cat > /dev/null
case "$role" in
*criteria*) echo fine ;;
*decomposer*) echo '[{}]' ;;
*reviewer*) echo '{{"gates_passed": true, "goal_complete": true, "issues": []}}' ;;
*subagent*) while [ ! -e {gate} ]; do sleep 0.05; done; echo "worked" ;;
esac"#,
            plan.join(", ")
        ),
    );
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    repo
}

/// The rows that show work under way.
fn under_way(rows: &[String]) -> Vec<&String> {
    let spins = |row: &&String| {
        let mut characters = row.trim_start().chars();
        characters.next().is_some_and(|first| "|/-\\".contains(first)) && characters.next() == Some(' ')
    };
    rows.iter().filter(spins).collect()
}

#[test]
fn nothing_is_left_of_a_line_when_the_terminal_is_resized() {
    for resizing in [Resizing::Cuts, Resizing::Wraps] {
        let repo = waiting_workers();
        let words = ["run", "a goal", "--backend", "scripted", "--criteria", "x", "--max-iterations", "1"];
        let terminal = Terminal::run(&repo, &words, 100, resizing, &[]);
        let is_whole = |rows: &[String], columns: usize| {
            let fills = |row: &String| (columns - 4..columns).contains(&row.chars().count());
            let (lines, last) = (under_way(rows), rows.iter().skip(rows.len().saturating_sub(3)));
            lines.len() == 3 && lines.iter().all(|row| fills(row)) && last.eq(lines)
        };
        let before = terminal.wait_for("three workers", |rows| is_whole(rows, 100));
        let printed = before.len() - 3;
        for columns in [40, 90, 33, 80, 20, 100] {
            terminal.resize(columns);
            terminal.wait_for("lines of the new width", |rows| is_whole(rows, columns));
        }
        let after = terminal.rows();
        if resizing == Resizing::Wraps {
            assert_eq!(after[..printed], before[..printed], "what was printed stays");
        }
        std::fs::write(repo.home().join("gate"), "").unwrap();
        let (code, rows) = terminal.end();
        assert_eq!((code, under_way(&rows).len()), (0, 0), "{}", rows.join("\n"));
        assert!(rows.iter().any(|row| row.contains("goal complete after 1 iteration")), "{}", rows.join("\n"));
    }
}

/// A service that fails for a while in two ways, and then answers.
fn failing() -> ModelServer {
    let fails = |turn: &Turn| match turn.n {
        1..=3 => Some(Reply::error(500)),
        4 => Some(Reply::retry_after(429, 1)),
        _ => None,
    };
    ModelServer::start(Brain::loop_roles(LoopRoles::new()).first(fails))
}

const GOAL: [&str; 6] = ["run", "a goal", "--backend", "openai_api/m", "--max-iterations", "1"];

#[test]
fn a_service_that_fails_is_one_line_on_a_terminal() {
    let (repo, server) = (Repo::new(), failing());
    let url = format!("http://user:password@{}/v1", server.address());
    let env = [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_API_KEY", "key-one")];
    let terminal = Terminal::run(&repo, &GOAL, 160, Resizing::Wraps, &env);
    let shown = format!("http://{}/v1/chat/completions answered", server.address());
    for attempt in 1..=4 {
        let failed = format!("attempt {attempt} failed");
        let rows = terminal.wait_for(&failed, |rows| rows.iter().any(|row| row.contains(&failed)));
        let told: Vec<&String> = rows.iter().filter(|row| row.contains("attempt")).collect();
        assert!(told.len() == 1 && told == under_way(&rows) && told[0].contains(&shown), "{}", rows.join("\n"));
    }
    let (code, rows) = terminal.end();
    let told: Vec<&String> = rows.iter().filter(|row| row.contains("attempt")).collect();
    assert_eq!((code, told), (0, vec![&"  openai_api answers again, at attempt 5".to_owned()]));
    assert!(!rows.join("").contains("password"), "{}", rows.join("\n"));
}

#[test]
fn a_service_that_fails_is_a_line_for_each_new_fact_elsewhere() {
    let (repo, server) = (Repo::new(), failing());
    let url = format!("http://{}/v1", server.address());
    let env = [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_API_KEY", "key-one")];
    let ran = repo.agentloop_with(&GOAL, &env).expect(0);
    let tail = repo.agentloop(&["tail"]).expect(0).stdout;
    for text in [&ran.stderr, &tail] {
        let told: Vec<&str> = text.lines().filter(|line| line.contains("attempt")).collect();
        let [first, limit, again] = told[..] else { panic!("{text}") };
        assert!(first.contains(&format!("attempt 1 failed: {url}/chat/completions answered 500")), "{first}");
        assert!(limit.contains("attempt 4 failed: ") && limit.contains("429 Too Many Requests"), "{limit}");
        assert!(again.ends_with("openai_api answers again, at attempt 5"), "{again}");
    }
}

#[test]
fn a_refused_connection_is_told_once() {
    let repo = Repo::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    drop(listener);
    let env = [("OPENAI_BASE_URL", url.as_str()), ("OPENAI_API_KEY", "key-one")];
    let words = [&GOAL[..], &["--max-seconds", "6"]].concat();
    let ran = repo.agentloop_with(&words, &env).expect(1);
    let told = ran.stderr.matches(&format!("{url}/chat/completions cannot be reached")).count();
    assert_eq!(told, 1, "{}", ran.stderr);
    let waits = repo.kinds(repo.agentloop(&["list", "--json"]).json()[0]["run_id"].as_str().unwrap());
    assert!(waits.iter().filter(|kind| *kind == "waiting").count() >= 2, "{waits:?}");
}

#[test]
fn a_command_that_fails_the_same_way_is_told_once() {
    let repo = Repo::new();
    let agent = repo.script("agent", "cat > /dev/null; echo 'cannot open the model' >&2; exit 3");
    repo.git(&["config", "agentloop.backend.mine.command", &agent]);
    let ran = repo.agentloop(&["run", "a goal", "--backend", "mine", "--criteria", "x"]);
    assert_eq!((ran.code, ran.stderr.matches("cannot open the model").count()), (2, 1), "{}", ran.stderr);
}
