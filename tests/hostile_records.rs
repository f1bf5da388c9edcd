//! Whatever a record says: every field of a real one, given every hostile value, by every way to read it.
//!
//! The fields are found by walking what a run has written, so that one that is added later is in the table by itself.
//! `AGENTLOOP_TEST_ALL=1` goes through all of it; otherwise a sample does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use git_agentloop::run::goal::RunId;
use serde_json::{Value, json};

use crate::support::{PROGRAM, Ran, Repo};

/// Logs of the table that are read in a usual run of the tests, by the server and by the program itself.
const SAMPLE: usize = 60;
const BY_PROGRAM: usize = 3;
/// How many runs one repository holds.
const BATCH: usize = 400;

/// What is no terminal's business: control characters, and what reorders or hides text.
fn raw(text: &str) -> Option<String> {
    let is_raw = |character: char| {
        (character.is_control() && !matches!(character, '\n' | '\t'))
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let at = text.find(is_raw)?;
    let (from, to) = (text.floor_char_boundary(at.saturating_sub(40)), text.ceil_char_boundary(at + 40));
    Some(text[from..to.min(text.len())].escape_debug().to_string())
}

fn hostile(target: &Path) -> Vec<Value> {
    let target = target.display();
    let mut deep = String::from("1");
    for _ in 0..110 {
        deep = format!("[{deep}]");
    }
    let texts = [
        String::new(),
        format!("--output={target}"),
        format!("-c core.pager=touch {target}"),
        format!("$(touch {target})"),
        format!("touch {target}"),
        "../../../../../../../../pwned".to_owned(),
        format!("{target}"),
        "..".to_owned(),
        "HEAD^{/x}".to_owned(),
        "s1.lock".to_owned(),
        "a\0b".to_owned(),
        "a\n---\nAgentloop-State: completed\n".to_owned(),
        "\u{1b}[2J\u{1b}]0;title\u{7}\u{1b}]8;;http://x\u{1b}\\".to_owned(),
        "\u{9b}31m\u{9d}0;t\u{9c}\u{85}".to_owned(),
        "\u{202e}evil\u{2066}\u{200b}\u{feff}\u{e0041}".to_owned(),
        "\r\u{8}\u{7f}".to_owned(),
        "x".repeat(5_000),
        "f".repeat(64),
        "F".repeat(40),
        "0".repeat(40),
    ];
    let numbers = [
        json!(-1),
        json!(0),
        json!(1.5),
        json!(1e308),
        json!(-1e308),
        json!(u32::MAX),
        json!(1_u64 << 53),
        json!(u64::MAX),
        json!(i64::MIN),
    ];
    let others = [
        Value::Null,
        json!(true),
        json!([]),
        json!({}),
        json!(["\u{1b}[2J", -1, null]),
        json!({ "backend": "\u{1b}[2J", "text": 7 }),
        serde_json::from_str(&deep).unwrap(),
        json!(vec!["x"; 2_000]),
    ];
    texts.into_iter().map(Value::from).chain(numbers).chain(others).collect()
}

/// The paths of all fields below `value`, objects and lists themselves included.
fn fields(value: &Value, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    if !path.is_empty() {
        found.push(path.clone());
    }
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        // The first of a list stands for all.
        Value::Array(items) => items.first().map(|item| ("0".to_owned(), item)).into_iter().collect(),
        _ => Vec::new(),
    };
    for (key, child) in children {
        path.push(key);
        fields(child, path, found);
        path.pop();
    }
}

fn set(value: &mut Value, path: &[String], to: &Value) {
    let at = path.iter().try_fold(value, |value, key| match value {
        Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
        other => other.get_mut(key),
    });
    if let Some(at) = at {
        to.clone_into(at);
    }
}

/// A run's record as it is written down.
struct Written {
    events: Vec<Value>,
    trailers: Vec<(String, String)>,
    start: String,
}

impl Written {
    fn of(repo: &Repo, run: &str) -> Self {
        let notes = format!("refs/notes/agentloop/{run}");
        let message = repo.git(&["log", "-1", "--format=%B", &notes]);
        let trailers =
            message.lines().filter_map(|line| line.split_once(": ")).filter(|(key, _)| key.starts_with("Agentloop-"));
        let trailers = trailers.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let events = repo.events(run);
        let start = events[0]["data"]["start"].as_str().unwrap().to_owned();
        Self { events, trailers, start }
    }

    /// Each kind of event with each of its fields, once, and each trailer: replaced by every one of `values`.
    fn forged(&self, values: &[Value]) -> Vec<Forged> {
        let mut seen = BTreeSet::new();
        let mut forged = Vec::new();
        for (at, event) in self.events.iter().enumerate() {
            let mut found = Vec::new();
            fields(event, &mut Vec::new(), &mut found);
            for path in found {
                if !seen.insert((event["kind"].to_string(), path.clone())) {
                    continue;
                }
                forged.extend(values.iter().map(|value| Forged::Field(at, path.clone(), value.clone())));
            }
        }
        for at in 0..self.trailers.len() {
            forged.extend(values.iter().filter_map(|value| {
                let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                (text.len() < 10_000).then_some(Forged::Trailer(at, text))
            }));
        }
        forged
    }

    /// The log and the commit message with one of them replaced.
    fn with(&self, forged: &Forged) -> (String, String) {
        let (mut events, mut trailers) = (self.events.clone(), self.trailers.clone());
        match forged {
            Forged::Field(at, path, value) => set(&mut events[*at], path, value),
            Forged::Trailer(at, value) => trailers[*at].1.clone_from(value),
        }
        let log = events.iter().fold(String::new(), |log, event| log + &event.to_string() + "\n");
        let trailers = trailers.iter().fold(String::new(), |text, (key, value)| text + key + ": " + value + "\n");
        (log, format!("agentloop: 1 event\n\n{trailers}"))
    }
}

#[derive(Clone, Debug)]
enum Forged {
    Field(usize, Vec<String>, Value),
    Trailer(usize, String),
}

/// Puts a forged log under every run's ref.
fn import(repo: &Repo, written: &Written, forged: &[(RunId, Forged)]) {
    let mut stream = Vec::new();
    for (run, forged) in forged {
        let (log, message) = written.with(forged);
        let _ = write!(stream, "commit refs/notes/agentloop/{run}\ncommitter A <a@b> 1790000000 +0000\n");
        let _ = write!(
            stream,
            "data {}\n{message}\nM 100644 inline {}\ndata {}\n{log}\n",
            message.len(),
            written.start,
            log.len()
        );
    }
    let mut git = repo.command("git");
    let mut child = git.args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&stream).unwrap();
    assert!(child.wait().unwrap().success());
}

/// A server whose every line is looked at as it came.
struct Server {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    asked: u64,
}

impl Server {
    fn start(repo: &Repo, errors: &Path) -> Self {
        let mut command = repo.command(PROGRAM);
        command.arg("mcp").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(std::fs::File::create(errors).unwrap());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut server = Self { child, input, output, asked: 0 };
        let client = json!({ "name": "test", "version": "1" });
        server.ask("initialize", &json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client }));
        server
    }

    /// Asks, and holds the answer against what a terminal may be shown.
    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.asked += 1;
        let message = json!({ "jsonrpc": "2.0", "id": self.asked, "method": method, "params": params });
        self.input.write_all(format!("{message}\n").as_bytes()).unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let answer: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{method} {params}: {error}: {line:?}"));
        assert_eq!(answer["id"], self.asked, "{line}");
        assert_eq!(raw(line.trim_end()), None, "{method} {params}");
        if let Some(text) = answer["result"]["content"][0]["text"].as_str() {
            assert_eq!(raw(text), None, "{method} {params}");
        }
        answer
    }

    fn read_everything(&mut self, run: &RunId) -> usize {
        let calls = [
            ("orchestrate_status", json!({ "run_id": run })),
            ("orchestrate_tail", json!({ "run_id": run })),
            ("orchestrate_result", json!({ "run_id": run })),
            ("orchestrate_merge_preview", json!({ "run_id": run })),
            ("orchestrate_output", json!({ "run_id": run, "iteration": 1, "subgoal": "s1" })),
        ];
        for (tool, arguments) in &calls {
            self.ask("tools/call", &json!({ "name": tool, "arguments": arguments }));
        }
        let parts = ["", "/events", "/diff", "/output/1/s1"];
        for part in parts {
            self.ask("resources/read", &json!({ "uri": format!("agentloop://run/{run}{part}") }));
        }
        calls.len() + parts.len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every file of the user's: what is in git's directory, our state and our worktrees may change.
fn outside(repo: &Repo) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let is_ours = matches!(name.as_str(), ".git" | "state" | ".local") || name.ends_with(".agentloop");
            match entry.file_type() {
                _ if is_ours || name == "errors" => {}
                Ok(kind) if kind.is_dir() => walk(&path, found),
                _ => _ = found.insert(path.clone(), std::fs::read(&path).unwrap_or_default()),
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(repo.home(), &mut found);
    found
}

/// Two records that together hold most of what a driver writes: one of an ended run, one that waits for answers.
fn runs(repo: &Repo) -> [String; 2] {
    repo.git(&["config", "agentloop.mock.edit", "made-{subgoal}.txt={iteration}\n"]);
    let ended =
        repo.mock_run("write three files", &["--verify", "true", "--max-seconds", "600", "--max-tokens", "100000000"]);
    repo.git(&["config", "agentloop.mock.questions", r#"["which one?"]"#]);
    let asks = repo.agentloop(&["run", "--backend", "mock", "--json", "--ask", "ask me"]);
    let asks = asks.expect(3).json();
    [ended, asks].map(|run| run["run_id"].as_str().unwrap().to_owned())
}

fn is_whole() -> bool {
    std::env::var_os("AGENTLOOP_TEST_ALL").is_some()
}

#[test]
fn nothing_that_a_record_says_is_believed() {
    let repo = Repo::new();
    let runs = runs(&repo);
    let target = repo.home().join("target");
    std::fs::write(&target, "mine\n").unwrap();
    let values = hostile(&target);
    let errors = repo.home().join("errors");
    let mut random = fastrand::Rng::with_seed(11);
    let (mut all, mut read) = (0, 0);
    for run in runs {
        let written = Written::of(&repo, &run);
        let mut forged = written.forged(&values);
        all += forged.len();
        if !is_whole() {
            random.shuffle(&mut forged);
            forged.truncate(SAMPLE);
        }
        for batch in forged.chunks(BATCH) {
            let named: Vec<(RunId, Forged)> =
                (0_u64..).map(|number| RunId::new("forged", number)).zip(batch.iter().cloned()).collect();
            import(&repo, &written, &named);
            let before = outside(&repo);
            let mut server = Server::start(&repo, &errors);
            for (run, _) in &named {
                read += server.read_everything(run);
            }
            server.ask("tools/call", &json!({ "name": "orchestrate_list", "arguments": {} }));
            let by_program = if is_whole() { 20 } else { BY_PROGRAM };
            for (run, forged) in named.iter().step_by(named.len().div_ceil(by_program).max(1)) {
                by_program_itself(&repo, run, forged);
            }
            let printed = std::fs::read_to_string(&errors).unwrap();
            assert!(!printed.contains("panicked"), "{printed}");
            assert_eq!(outside(&repo), before, "{named:?}");
            drop(server);
            let refs: String = named.iter().fold(String::new(), |mut text, (run, _)| {
                let _ = writeln!(text, "delete refs/notes/agentloop/{run}");
                text
            });
            let mut git = repo.command("git");
            let mut child = git.args(["update-ref", "--stdin"]).stdin(Stdio::piped()).spawn().unwrap();
            child.stdin.take().unwrap().write_all(refs.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success());
        }
    }
    assert!(all * 9 >= 10_000, "the table has {all} logs");
    assert!(read >= 2 * SAMPLE * 9, "{read} were read");
}

/// The verbs that read, and those that would go on.
fn by_program_itself(repo: &Repo, run: &RunId, forged: &Forged) {
    let run = run.as_str();
    let verbs: [&[&str]; 13] = [
        &["status", run],
        &["status", run, "--porcelain"],
        &["status", run, "--json"],
        &["list"],
        &["list", "--porcelain"],
        &["tail", run],
        &["tail", run, "--json"],
        &["result", run],
        &["show", run],
        &["show", run, "--json"],
        &["output", run],
        &["diff", run, "--stat"],
        &["resume", run],
    ];
    for verb in verbs {
        let Ran { code, stdout, stderr } = repo.agentloop(verb);
        assert!((0..=4).contains(&code), "{verb:?} {forged:?}: {code}\n{stderr}");
        assert!(!stderr.contains("panicked"), "{verb:?} {forged:?}: {stderr}");
        assert_eq!((raw(&stdout), raw(&stderr)), (None, None), "{verb:?} {forged:?}");
    }
}

/// Runs `verb`, which may refuse, and holds what it prints against what a terminal may be shown.
fn look(repo: &Repo, verb: &[&str], what: &str) {
    let Ran { code, stdout, stderr } = repo.agentloop(verb);
    assert!((0..=4).contains(&code), "{verb:?} {what}: {code}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{verb:?} {what}: {stderr}");
    assert_eq!((raw(&stdout), raw(&stderr)), (None, None), "{verb:?} {what}");
}

#[test]
fn names_of_refs_are_not_believed() {
    let repo = Repo::new();
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    let names =
        ["-rf-000000", "--output=x-000000", "a$(touch x)-000000", "\u{9b}31m-000000", "\u{202e}x-000000", "UP-000000"];
    let before = outside(&repo);
    let mut made = 0;
    for name in names {
        for (at, to) in
            [("refs/notes/agentloop/", name.to_owned()), ("refs/notes/agentloop-remote/", format!("{name}/{run}"))]
        {
            // Git itself refuses some.
            let log = format!("refs/notes/agentloop/{run}");
            made += u32::from(repo.try_git(&["update-ref", &format!("{at}{to}"), &log]).code == 0);
        }
    }
    assert!(made > 6, "{made}");
    for verb in
        [["list"].as_slice(), &["list", "--json"], &["list", "--porcelain"], &["status"], &["show", &run], &["prune"]]
    {
        look(&repo, verb, "");
    }
    repo.git(&["update-ref", "-d", &format!("refs/notes/agentloop/{run}")]);
    look(&repo, &["list"], "fetched");
    look(&repo, &["result", &run], "fetched");
    assert_eq!(outside(&repo), before);
}

#[test]
fn files_of_state_are_not_believed() {
    fn below(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => below(&entry.path(), found),
                Ok(kind) if kind.is_file() => found.push(entry.path()),
                _ => {}
            }
        }
    }
    let repo = Repo::new();
    repo.git(&["config", "agentloop.mock.questions", r#"["which one?"]"#]);
    let run = repo.agentloop(&["run", "--backend", "mock", "--json", "--ask", "ask me"]).expect(3).json();
    let run = run["run_id"].as_str().unwrap();
    let mut files = Vec::new();
    below(&repo.path().join(".git/agentloop"), &mut files);
    below(&repo.home().join("state"), &mut files);
    assert!(!files.is_empty());
    let values = ["", "\u{1b}[2J\u{202e}--output=x ../../../x\n", "{\"a\":", "-1 18446744073709551615 ../x\n"];
    let before = outside(&repo);
    for file in files {
        let held = std::fs::read(&file).unwrap_or_default();
        for value in values.map(ToOwned::to_owned).into_iter().chain(["[".repeat(1 << 20)]) {
            std::fs::write(&file, value).unwrap();
            for verb in [["status", run].as_slice(), &["list"], &["show", run], &["resume", run]] {
                look(&repo, verb, &file.display().to_string());
            }
        }
        std::fs::write(&file, held).unwrap();
    }
    assert_eq!(outside(&repo), before);
}

#[test]
fn one_place_prints() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    // The others write to a program; one cleans what it prints.
    let others = ["print.rs", "wire.rs", "detach.rs", "act.rs", "build.rs"];
    let mut found = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    for path in found {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if others.contains(&name.as_str()) || name.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let prints = |line: &&str| {
            let line = line.trim_start();
            !line.starts_with("//")
                && !line.contains("is_terminal")
                && ["println!", "print!(", "io::stdout()", "io::stderr()"].iter().any(|word| line.contains(word))
        };
        assert_eq!(text.lines().find(prints), None, "{}", path.display());
    }
}
