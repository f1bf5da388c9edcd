use std::path::Path;

use super::*;

fn parts(stream: &str) -> Vec<Part> {
    let mut reader = Reader::default();
    stream.lines().filter_map(|line| reader.read(line)).flatten().collect()
}

fn capture(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(path)).unwrap()
}

fn command(words: &str) -> Part {
    Part::Command(words.to_owned())
}

fn text(words: &str) -> Part {
    Part::Text(words.to_owned())
}

fn failed_with(failure: &str, text: &str) -> Part {
    Part::Result { failure: Some(failure.to_owned()), text: text.to_owned() }
}

#[test]
fn every_family_tells_of_a_command_that_failed() {
    const TRIED: &str = "echo fatal: out of luck >&2; exit 3";
    for family in ["claude", "codex", "copilot", "opencode"] {
        let stream = capture(&format!("streams/{family}_failed_command.out"));
        let told: Vec<Part> = parts(&stream)
            .into_iter()
            .filter(|part| !matches!(part, Part::Start(_) | Part::End(_) | Part::Error(_)))
            .collect();
        let [Part::Command(tried), Part::Result { failure, text: printed }, answer] = &told[..] else {
            panic!("{family}: {told:#?}");
        };
        assert!(tried.contains(TRIED), "{family}: {tried}");
        assert_eq!((failure.as_deref(), answer), (Some("exit code 3"), &text("I could not do it.")), "{family}");
        assert_eq!(printed.lines().next(), Some("fatal: out of luck"), "{family}");
        let failed = failed(&stream);
        assert_eq!(failed.len(), 1, "{family}");
        assert!(failed[0].contains(TRIED) && failed[0].ends_with("(exit code 3: fatal: out of luck)"), "{failed:?}");
    }
}

#[test]
fn a_line_is_the_parts_that_its_family_means() {
    let claude = |content: &str| format!(r#"{{"type":"assistant","message":{{"content":[{content}]}}}}"#);
    let codex = |item: &str| format!(r#"{{"type":"item.completed","item":{item}}}"#);
    let file = |how: &str, path: &str| Part::File { how: how.to_owned(), path: path.to_owned() };
    let tool = |name: &str, about: &str| Part::Tool { name: name.to_owned(), about: about.to_owned() };
    let cases: Vec<(String, Vec<Part>)> = vec![
        (claude(r#"{"type":"text","text":"hello"}"#), vec![text("hello")]),
        (claude(r#"{"type":"thinking","thinking":"hm"}"#), vec![Part::Thought("hm".to_owned())]),
        (
            claude(r#"{"type":"tool_use","id":"1","name":"Write","input":{"file_path":"a.rs","content":"x"}}"#),
            vec![file("Write", "a.rs")],
        ),
        (
            claude(r#"{"type":"tool_use","id":"1","name":"Bash","input":{"command":"a\nb"}},{"type":"text","text":"y"}"#),
            vec![command("a …"), text("y")],
        ),
        (
            claude(r#"{"type":"tool_use","id":"1","name":"Grep","input":{"pattern":"fn main"}}"#),
            vec![tool("Grep", "fn main")],
        ),
        (
            r#"{"type":"user","message":{"content":[{"type":"tool_result","tool_use_id":"x","content":[{"type":"text","text":"a"},{"type":"image"}]}]}}"#.to_owned(),
            vec![Part::Result { failure: None, text: "a\n[image]".to_owned() }],
        ),
        (
            r#"{"type":"result","is_error":true,"result":"no money","num_turns":1,"total_cost_usd":0.5}"#.to_owned(),
            vec![Part::Error("no money".to_owned()), Part::End("1 turn, 0.50 USD".to_owned())],
        ),
        (r#"{"type":"system","subtype":"status"}"#.to_owned(), vec![]),
        (codex(r#"{"type":"agent_message","text":"done"}"#), vec![text("done")]),
        (codex(r#"{"type":"reasoning","text":"so"}"#), vec![Part::Thought("so".to_owned())]),
        (
            codex(r#"{"type":"file_change","status":"completed","changes":[{"path":"a","kind":"add"},{"path":"b","kind":"update"}]}"#),
            vec![file("add", "a"), file("update", "b")],
        ),
        (
            codex(r#"{"id":"1","type":"command_execution","command":"ls","aggregated_output":"a\n","exit_code":0,"status":"completed"}"#),
            vec![command("ls"), Part::Result { failure: None, text: "a".to_owned() }],
        ),
        (
            codex(r#"{"id":"1","type":"mcp_tool_call","server":"s","tool":"t","arguments":{"query":"q"},"error":{"message":"gone"},"status":"failed"}"#),
            vec![tool("s t", "q"), failed_with("failed", "gone")],
        ),
        (r#"{"type":"turn.failed","error":{"message":"limit"}}"#.to_owned(), vec![Part::Error("limit".to_owned())]),
        (
            r#"{"type":"tool_use","part":{"tool":"edit","callID":"1","state":{"status":"error","input":{"filePath":"a"},"error":"denied"}}}"#.to_owned(),
            vec![file("edit", "a"), failed_with("failed", "denied")],
        ),
        (r#"{"type":"error","error":{"name":"X","data":{"message":"bad key"}}}"#.to_owned(), vec![Part::Error("bad key".to_owned())]),
        (
            r#"{"type":"tool.execution_complete","data":{"toolCallId":"1","success":false,"error":{"message":"exists"}}}"#.to_owned(),
            vec![failed_with("failed", "exists")],
        ),
        (r#"{"type":"assistant.message_delta","data":{"deltaContent":"h"}}"#.to_owned(), vec![]),
        (r#"{"type":"init","session_id":"1","model":"gemini"}"#.to_owned(), vec![Part::Start("gemini".to_owned())]),
        (r#"{"type":"message","role":"assistant","content":"hi","delta":true}"#.to_owned(), vec![text("hi")]),
        (
            r#"{"type":"tool_use","tool_name":"run_shell_command","tool_id":"1","parameters":{"command":"ls"}}"#.to_owned(),
            vec![command("ls")],
        ),
        (
            r#"{"type":"tool_result","tool_id":"1","status":"error","error":{"message":"no"}}"#.to_owned(),
            vec![failed_with("failed", "no")],
        ),
    ];
    for (line, expected) in cases {
        assert_eq!(Reader::default().read(&line), Some(expected), "{line}");
    }
}

#[test]
fn what_is_no_line_of_a_stream_is_left_alone() {
    let nested = format!("{{\"type\":\"text\",\"part\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let huge = format!("{{\"type\":\"text\",\"part\":{{\"text\":\"{}\"}}}}", "x".repeat(LONGEST_LINE));
    for line in [
        "",
        "plain",
        "{",
        "{}",
        "[1]",
        "null",
        r#"{"type":1}"#,
        r#"{"type":"something else"}"#,
        r#"{"type":"text"}"#,
        r#"{"type":"assistant"}"#,
        r#"{"type":"x.y","data":{}}"#,
        r#"{"type":"tool_use"}"#,
        r#"{"type":"text","part":{"text":"torn"#,
        &nested,
        &huge,
    ] {
        assert_eq!(Reader::default().read(line), None, "{}", line.get(..60).unwrap_or(line));
    }
}

#[test]
fn hostile_lines_cost_no_more_than_others() {
    let mut reader = Reader::default();
    let long = "x".repeat(LONGEST_LINE / 2);
    for number in 0..1000 {
        let line = format!(
            r#"{{"type":"tool_use","tool_name":"{long}","tool_id":"{number}{long}","parameters":{{"a":"{long}"}}}}"#
        );
        let line = if number < 3 { line } else { line.replace(&long, "y") };
        reader.read(&line);
        let line = format!(r#"{{"type":"tool_result","tool_id":"{}","status":"error","output":"x"}}"#, number + 1);
        reader.read(&line);
    }
    assert!(reader.under_way.len() <= UNDER_WAY && reader.failed.len() <= FAILED);
    let kept = reader.under_way.iter().map(|(id, what)| id.len() + what.len()).sum::<usize>();
    assert!(kept < UNDER_WAY * 4 * 3 * WIDTH, "{kept}");
    let said = format!(r#"{{"type":"text","part":{{"text":"{long}"}}}}"#);
    let Some(parts) = reader.read(&said) else { panic!("it is no line of a stream") };
    let [Part::Text(said)] = &parts[..] else { panic!("{} parts", parts.len()) };
    assert!(said.len() < LONGEST_TEXT + 100);
}

#[test]
fn words_are_what_is_no_stream_and_its_errors() {
    let stream = concat!(
        "{\"type\":\"system\",\"subtype\":\"init\",\"model\":\"m\"}\n",
        "cannot open the file\n",
        "{\"type\":\"error\",\"message\":\"rate limit\"}\n"
    );
    assert_eq!(words(stream), "cannot open the file\nrate limit");
}
