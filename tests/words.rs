//! One word a thing: what every `--json` and every MCP result calls a run's state and what it used, and what events say.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::mcp::client::Client;
use crate::support::Repo;

/// Flags that choose agents, and the roles that they choose them for.
const FLAGS: [(&str, &[&str]); 4] = [
    ("planner", &["criteria", "clarifier", "decomposer"]),
    ("worker", &["subagent"]),
    ("reviewer", &["reviewer"]),
    ("integrator", &["integrator"]),
];
/// The figures of a usage.
const FIGURES: [&str; 3] = ["tokens_in", "tokens_out", "tokens_cached"];

/// Adds to `wrong` what lacks its other name in `value`, and to `seen` the names that were looked for.
fn walk(at: &str, value: &Value, seen: &mut BTreeSet<&'static str>, wrong: &mut Vec<String>) {
    if let Value::Array(items) = value {
        for (index, item) in items.iter().enumerate() {
            walk(&format!("{at}[{index}]"), item, seen, wrong);
        }
    }
    let Value::Object(fields) = value else { return };
    if fields.contains_key("run_id") && (fields.contains_key("state") || fields.contains_key("status")) {
        seen.insert("state");
        if fields.get("state") != fields.get("status") {
            wrong.push(format!("{at}: state {:?}, status {:?}", fields.get("state"), fields.get("status")));
        }
    }
    if let Some(usage) = fields.get("usage").filter(|_| fields.contains_key("run_id")) {
        seen.insert("usage");
        for name in ["tokens", "cost_usd"] {
            if fields.get(name) != usage.get(name) {
                wrong.push(format!("{at}: {name} {:?}, in usage {:?}", fields.get(name), usage.get(name)));
            }
        }
        if !fields["tokens"].is_u64() {
            wrong.push(format!("{at}: no tokens"));
        }
    } else if fields.contains_key("tokens") && fields.contains_key("run_id") {
        wrong.push(format!("{at}: tokens without usage"));
    }
    if let Some(by_role) = fields.get("usage_by_role") {
        seen.insert("usage_by_flag");
        for (flag, roles) in FLAGS {
            for figure in FIGURES {
                let used: Vec<u64> = roles.iter().filter_map(|role| by_role[role][figure].as_u64()).collect();
                let wanted = if used.is_empty() { Value::Null } else { json!(used.iter().sum::<u64>()) };
                if fields["usage_by_flag"][flag][figure] != wanted {
                    wrong.push(format!("{at}: {flag} used {}, {wanted} by role", fields["usage_by_flag"][flag]));
                }
            }
        }
    }
    // The record's own events are as they were written.
    for (name, field) in fields.iter().filter(|(name, _)| *name != "events") {
        walk(&format!("{at}.{name}"), field, seen, wrong);
    }
}

#[test]
fn every_json_has_one_word_for_a_thing() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.edit", "{subgoal}.txt={iteration}\n"]);
    let remote = repo.home().join("remote.git").display().to_string();
    repo.git(&["init", "-q", "--bare", &remote]);
    repo.git(&["remote", "add", "origin", &remote]);
    let json = |words: &[&str], codes: &[i32]| {
        let ran = repo.agentloop(&[words, &["--json"]].concat());
        assert!(codes.contains(&ran.code), "{words:?}: {ran:?}");
        (words.join(" "), ran.json())
    };
    let mut answers = vec![
        json(&["run", "one", "--name", "one", "--backend", "mock"], &[0]),
        json(&["run", "two", "--name", "two", "--backend", "mock", "-d"], &[0]),
        json(&["result", "two", "--wait"], &[0]),
        json(&["fork", "one@1", "--name", "three", "--max-iterations", "1"], &[0, 1]),
        json(&["resume", "three", "--max-iterations", "5"], &[0]),
    ];
    repo.git(&["config", "agentloop.mock.questions", "[\"Which?\"]"]);
    answers.push(json(&["run", "four", "--name", "four", "--backend", "mock", "--ask"], &[3]));
    answers.push(json(&["answer", "four", "this"], &[0]));
    let reads: [&[&str]; 12] = [
        &["status"],
        &["list"],
        &["tail", "one"],
        &["result", "one"],
        &["show", "one"],
        &["output", "one"],
        &["bisect", "one", "--verify", "true"],
        &["sync"],
        &["backends"],
        &["config"],
        &["hooks", "status"],
        &["doctor"],
    ];
    answers.extend(reads.iter().map(|words| json(words, &[0, 1, 2])));
    repo.git(&["config", "agentloop.mock.delay", "60000"]);
    answers.push(json(&["run", "five", "--name", "five", "--backend", "mock", "-d"], &[0]));
    answers.push(json(&["cancel", "five"], &[0]));
    answers.push(json(&["discard", "one", "--yes"], &[0]));
    answers.push(json(&["restore", "one"], &[0]));
    answers.push(json(&["prune"], &[0]));

    // Each verb that prints JSON is among them.
    let overview = repo.agentloop(&["-h"]).expect(0).stdout;
    let named = |line: &str| line.starts_with("  ") && !line.trim().is_empty();
    let words = overview.lines().filter(|line| named(line)).flat_map(|line| line.split([' ', ',']));
    let asked: BTreeSet<&str> = answers.iter().filter_map(|(words, _)| words.split(' ').next()).collect();
    for verb in words.filter(|word| word.chars().all(|letter| letter.is_ascii_lowercase()) && !word.is_empty()) {
        let help = repo.agentloop(&[verb, "-h"]);
        let prints_json = help.code == 0 && help.stdout.contains("      --json");
        assert!(!prints_json || asked.contains(verb), "no answer of '{verb}' was looked at");
    }

    let mut client = Client::start(&repo);
    repo.git(&["config", "--unset", "agentloop.mock.delay"]);
    repo.git(&["config", "--unset", "agentloop.mock.questions"]);
    for (tool, arguments) in [
        ("orchestrate", json!({ "goal": "six", "backend": "mock" })),
        ("orchestrate", json!({ "goal": "seven", "backend": "mock", "detach": false })),
        ("orchestrate_status", json!({ "run_id": "one" })),
        ("orchestrate_result", json!({ "run_id": "one" })),
        ("orchestrate_list", json!({})),
        ("orchestrate_tail", json!({ "run_id": "one" })),
    ] {
        answers.push((tool.to_owned(), client.call(tool, arguments)));
    }
    let (mut seen, mut wrong) = (BTreeSet::new(), Vec::new());
    for (words, answer) in &answers {
        walk(words, answer, &mut seen, &mut wrong);
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["state", "usage", "usage_by_flag"]);
}

#[test]
fn a_flag_s_word_names_the_prompt_of_its_role() {
    let repo = Repo::new();
    for (flag, roles) in FLAGS {
        let role = roles.last().unwrap();
        let prompt = |word: &str| repo.agentloop(&["prompts", word]).expect(0).stdout;
        assert_eq!(prompt(flag), prompt(role));
    }
}

#[test]
fn every_event_can_be_read_by_itself() {
    let repo = Repo::new();
    repo.write("services/api/file", "");
    repo.commit("a service");
    let mut command = repo.command(crate::support::PROGRAM);
    command.current_dir(repo.path().join("services/api")).stdin(std::process::Stdio::null());
    let words = ["run", "a goal", "--criteria", "it holds", "--name", "one", "--backend", "mock", "--verify", "true"];
    assert!(command.args(words).output().unwrap().status.success());
    let events = repo.events("one");
    let of = |kind: &str| {
        events.iter().filter(|event| event["kind"] == kind).map(|event| &event["data"]).collect::<Vec<_>>()
    };
    let has = |data: &Value, fields: Value| {
        for (name, value) in fields.as_object().unwrap() {
            assert_eq!(&data[name], value, "{name} in {data}");
        }
    };
    let start = json!({ "goal": "a goal", "success_criteria": "it holds", "backend": "mock", "cwd": "services/api", "max_iterations": 4 });
    has(of("run_started")[0], start);
    let phases: Vec<(&str, &str)> =
        of("phase_changed").iter().map(|data| (data["from"].as_str().unwrap(), data["to"].as_str().unwrap())).collect();
    assert_eq!(phases[0].0, "idle");
    assert!(phases.windows(2).all(|pair| pair[0].1 == pair[1].0), "{phases:?}");
    assert_eq!(of("decomposed")[0]["subgoals"][1], json!({ "id": "build", "description": "Make the change." }));
    for started in of("subagent_started") {
        assert!(started["id"].is_string() && started["attempt"] == 1, "{started}");
        assert!(started["description"].as_str().is_some_and(|text| text.ends_with('.')), "{started}");
    }
    let aggregated = of("aggregated")[0];
    assert!(
        aggregated["chars"].is_u64() && aggregated["preview"].as_str().unwrap().starts_with("### "),
        "{aggregated}"
    );
    let counts = json!({ "subgoals_ok": 3, "subgoals_total": 3, "verification_ok": true });
    for (finished, accepted) in of("iteration_finished").into_iter().zip([false, true]) {
        has(finished, counts.clone());
        has(finished, json!({ "gates_passed": accepted, "goal_complete": accepted }));
    }
    let end = of("run_finished")[0];
    has(end, json!({ "completed": true, "stop_reason": "goal_complete", "iterations": 2 }));
    assert!(end["summary"].is_string(), "{end}");

    // Every event says which iteration it belongs to, in pages and to whoever follows.
    let mut iterations: Vec<u64> = events.iter().map(|event| event["iteration"].as_u64().unwrap()).collect();
    assert_eq!((iterations[0], iterations.last()), (0, Some(&2)));
    iterations.dedup();
    assert_eq!(iterations, [0, 1, 2]);
    let followed = repo.agentloop(&["tail", "one", "-f", "--json"]).expect(0).stdout;
    let followed: Vec<Value> = followed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(followed, events);
    let page = repo.agentloop(&["tail", "one", "--json", "--cursor", "20", "--limit", "5"]).expect(0).json();
    assert_eq!(page["events"].as_array().unwrap()[..], events[20..25]);
}
