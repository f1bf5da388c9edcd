//! A record that somebody wrote to hurt whoever looks at it: what the worst of it costs.

use std::io::Write as _;
use std::time::Duration;

use serde_json::json;

use crate::measure::{Aim, Row, times};
use crate::processes::peak;
use crate::scratch::{PROGRAM, Scratch};

/// Bytes of a long line.
const LONG: usize = 15 * 1024 * 1024;

/// Logs that are cheap to write: nested, wide, long, and of many lines.
fn logs() -> [(&'static str, String); 5] {
    let line = |seq: usize, kind: &str, data: &str| {
        format!("{{\"seq\":{seq},\"ts\":1790000000,\"session\":\"aaaaaa\",\"kind\":\"{kind}\",\"data\":{data}}}\n")
    };
    let start = line(1, "run_started", r#"{"format":1,"run_id":"hostile-000000","goal":{"text":"a goal"}}"#);
    let wide = format!("{{\"remarks\":[{}\"\"]}}", "\"\",".repeat(LONG / 3));
    let subgoal = |number| json!({ "id": format!("s{number}"), "description": "x" });
    let plan = json!({ "plan": { "subgoals": (0..4096).map(subgoal).collect::<Vec<_>>() } }).to_string();
    let begun = line(2, "iteration_started", "{}") + &line(3, "decomposed", &plan);
    let works: String = (0..40_000)
        .map(|number| {
            line(4 + number, "subagent_failed", &format!("{{\"id\":\"s{}\",\"error\":\"no\"}}", number % 4096))
        })
        .collect();
    [
        ("nested", start.clone() + &line(2, "checkpoint", &"[".repeat(LONG))),
        ("wide", start.clone() + &line(2, "checkpoint", &wide).repeat(3)),
        ("long", start.clone() + &line(2, "steered", &format!("{{\"text\":\"{}\"}}", "x".repeat(LONG))).repeat(3)),
        ("lines", start.clone() + &begun + &works),
        ("torn", start + &"{\"seq\":1,\n".repeat(LONG / 10)),
    ]
}

pub fn records() -> Vec<Row> {
    let scratch = Scratch::new();
    let base = scratch.git(&["rev-parse", "HEAD"]).trim().to_owned();
    let mut rows = Vec::new();
    for (number, (name, log)) in logs().into_iter().enumerate() {
        let run = format!("hostile-00000{number}");
        let state = "agentloop: 1 event\n\nAgentloop-State: stopped\nAgentloop-Seq: 1\nAgentloop-Goal: a goal\n";
        let mut stream = Vec::new();
        let _ = write!(
            stream,
            "commit refs/notes/agentloop/{run}\ncommitter A <a@b> 1790000000 +0000\ndata {}\n{state}\n\
             M 100644 inline {base}\ndata {}\n{log}\n",
            state.len(),
            log.len()
        );
        scratch.import(&stream);
        let result = ["result", run.as_str(), "--json"];
        let took = times(3, || drop(scratch.command(PROGRAM).args(result).output().unwrap()));
        let held = peak(&scratch, &result, 2);
        rows.push(Row::times(&format!("hostile record, {name}: result"), &took, Aim::Median(Duration::from_secs(5))));
        rows.push(Row::bytes(&format!("hostile record, {name}: memory"), held, Aim::Mebibytes(256.0)));
    }
    rows
}
