//! The program as a process: how soon it starts, how much it takes.

use std::time::Duration;

use crate::measure::{Aim, Row, pairs, times};
use crate::scratch::{PROGRAM, Scratch};

/// One line of a gibibyte, from an agent or a check.
const GIBIBYTE: &str = "head -c 1073741824 /dev/zero | tr '\\0' x";

/// The most memory that `program` has held, in bytes: `VmHWM` of proc(5).
pub fn peak(scratch: &Scratch, arguments: &[&str], exit_code: i32) -> u64 {
    let mut child = scratch.command(PROGRAM).args(arguments).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        let kibibytes: u64 = line.map_or(0, |number| number.trim().parse().unwrap());
        most = most.max(kibibytes);
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(ended.code(), Some(exit_code), "{arguments:?}");
    assert!(most > 0, "memory cannot be measured on this system");
    most * 1024
}

pub fn memory() -> Vec<Row> {
    if !std::path::Path::new("/proc/self/status").exists() {
        println!("memory: left out, this system has no /proc");
        return Vec::new();
    }
    let scratch = Scratch::new();
    let agent = format!(
        "#!/bin/sh\nread -r role; cat > /dev/null\ncase \"$role\" in\n*decomposer*) echo '[\"print\"]' ;;\n\
         *reviewer*) echo '{{\"gates_passed\":true,\"goal_complete\":true}}' ;;\n\
         *subagent*) {GIBIBYTE} ;;\n*) echo fine ;;\nesac\n"
    );
    let script = scratch.home().join("agent");
    std::fs::write(&script, agent).unwrap();
    let command = format!("sh {}", script.display());
    scratch.git(&["config", "agentloop.backend.loud.command", &command]);
    let quiet = peak(&scratch, &["run", "a goal", "--backend", "mock"], 0);
    let worker = peak(&scratch, &["run", "a goal", "--backend", "loud"], 0);
    let verify = format!("sh -c \"{GIBIBYTE}\"");
    let check = peak(&scratch, &["run", "a goal", "--backend", "mock", "--verify", &verify], 0);
    vec![
        Row::bytes("peak memory of a driver, mock run", quiet, Aim::None),
        Row::bytes("peak memory of a driver whose worker prints 1 GiB", worker, Aim::Mebibytes(40.0)),
        Row::bytes("peak memory of a driver whose check prints 1 GiB", check, Aim::Mebibytes(40.0)),
    ]
}

pub fn start() -> Vec<Row> {
    let scratch = Scratch::new();
    let version = pairs(200, || scratch.run(PROGRAM, &["--version"]), || scratch.run("true", &[]));
    scratch.git(&["config", "agentloop.mock.delay", "1"]);
    let detach = times(25, || scratch.run(PROGRAM, &["run", "-d", "a goal", "--backend", "mock"]));
    loop {
        let runs = scratch.agentloop(&["list"]);
        if runs.as_array().unwrap().iter().all(|run| run["running"] == false) {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let size = std::fs::metadata(PROGRAM).unwrap().len();
    vec![
        Row::pairs("'--version', whole process / true", &version, Aim::Median(Duration::from_millis(5))),
        Row::times("'run --detach' returns", &detach, Aim::Median(Duration::from_millis(150))),
        Row::bytes("the program", size, Aim::None),
    ]
}
