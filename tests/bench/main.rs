//! `cargo bench`: every figure that this program promises, each beside a floor of the same process and file system.
//!
//! It prints and judges; a slow machine fails nothing. `cargo bench -- WORD…` measures the figures whose name holds a word.

mod hooks;
mod hostile;
mod mcp;
mod measure;
mod processes;
mod provision;
mod record;
mod runs;
mod scratch;
mod worktrees;

use std::time::{Duration, Instant};

use self::measure::{Row, print, times};
use self::scratch::Scratch;

/// A group of figures that share a repository; its name is what a filter is held against.
type Figures = (&'static str, fn() -> Vec<Row>);

const ALL: [Figures; 21] = [
    ("flush", record::flush),
    ("read", record::read),
    ("list status 1000", || record::many_runs(1_000)),
    ("list status 10000", || record::many_runs(10_000)),
    ("checkpoint", runs::checkpoint),
    ("run", runs::whole),
    ("agent calls", runs::calls),
    ("worktrees 1k", || worktrees::made(1_000, 10)),
    ("worktrees 10k", || worktrees::made(10_000, 5)),
    ("worktrees 100k", || worktrees::made(100_000, 1)),
    ("worktrees fan-out", worktrees::run),
    ("delay", runs::delay),
    ("memory", processes::memory),
    ("version detach size", processes::start),
    ("hooks 1", || hooks::beside_runs(1)),
    ("hooks 1k", || hooks::beside_runs(1_000)),
    ("hooks 10k", || hooks::beside_runs(10_000)),
    ("provision copy", provision::copying),
    ("hostile records", hostile::records),
    ("mcp calls", mcp::calls),
    ("mcp load", mcp::load),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let begun = Instant::now();
    measure::header(&machine());
    for (name, figures) in ALL {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            print(&figures());
        }
    }
    println!("\nmeasured in {:.0} s", begun.elapsed().as_secs_f64());
}

/// What the figures were measured on: cores, git, and what one process and one fsync cost here.
fn machine() -> String {
    let scratch = Scratch::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let git = scratch.git(&["--version"]);
    let spawn = times(50, || assert!(scratch.command("true").status().unwrap().success()));
    let sync = times(50, || {
        let file = std::fs::File::create(scratch.home().join("synced")).unwrap();
        std::io::Write::write_all(&mut &file, &[b'x'; 4096]).unwrap();
        file.sync_all().unwrap();
    });
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    format!(
        "{cores} cores; {git}; a process {:.2} ms; an fsync {:.2} ms",
        milliseconds(spawn.p50()),
        milliseconds(sync.p50())
    )
}
