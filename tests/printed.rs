//! What the program prints to be typed: every command in an error, a hint or a report is run, in the situation that
//! printed it.
//!
//! `tests/printed/*.txt` holds the situations. A block is a title (`#`), shell lines that bring the situation about
//! (`.`), the command that meets it (`$`), its exit code and those of its lines that matter (`|`), and the commands that
//! these lines name, each with the exit code that it has in a fresh situation of the same kind (`>`).
//! `AGENTLOOP_TEST_WRITE=1` writes the files anew: read the difference.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex};

use crate::support::{Ran, Repo, processes_with};

/// What stands for something of the user's in a printed command, and what a test types in its place.
const PLACEHOLDERS: [(&str, &str); 17] = [
    ("/usr/local", "../local"),
    ("claude_code/opus", "mock"),
    ("claude_code/sonnet", "mock"),
    ("openai_api --model MODEL", "mock"),
    ("-F goal.md", "-F ../goal.md"),
    ("my-agent", "cat"),
    ("VERB", "run"),
    ("cargo test", "true"),
    (".command …", ".command 'cat {prompt}'"),
    ("<goal>", "a goal"),
    ("\"GOAL\"", "\"another goal\""),
    (" GOAL", " 'another goal'"),
    ("NAME URL", "upstream ../upstream"),
    ("TEXT…", "yes"),
    (" FILE", " ../goal.md"),
    (" DIR", " ../elsewhere"),
    ("codex", "mock"),
];

/// The user's own settings.
const CONFIG: &str = "[agentloop]\n\tbackend = mock\n[init]\n\tdefaultBranch = main\n\
                      [user]\n\tname = A User\n\temail = user@example.com\n";

/// Texts that no situation here prints: the tests that bring theirs about, or why none does.
const ELSEWHERE: [(&str, &[&str]); 7] = [
    (
        "what is not typed: a git process that is named in an error, a line of a file, an option's help, a tool's text",
        &[
            "git update-ref ended",
            "git diff-tree cannot",
            "git status printed",
            "git config --worktree",
            "git config --file",
            "uninstall' removes from here",
            "or one that 'git agentloop backends",
            "comes before the default",
            "does what 'git agentloop",
            "git agentloop mcp -h",
        ],
    ),
    (
        "tests of hooks::, file_systems::, forging::, moved::, places::, merging:: print these",
        &[
            "git agentloop hooks status' shows",
            "sync' tries again",
            "make room",
            "where workers can write: only",
            "what is on record stays: from where it is now",
            "what is committed stays",
            "to take it and mend the message",
            "merges what was resolved",
            "once that is mended: git merge",
            "git commit' concludes it",
            "or a remote may still have",
            "takes in what was added",
            "see which program runs 'git gc",
            "shows which file says so; run in a plain clone",
            "then: git agentloop resume {id} --take-over",
        ],
    ),
    (
        "MCP tools print these: mcp::, doctor::, preview::",
        &[
            "fetch its branch: git fetch",
            "fetch --unshallow",
            "git agentloop mcp --repo",
            "list_backends names",
            "shows the questions and the token",
            "every worktree holds",
            "git ls-files -o -i",
        ],
    ),
    (
        "another user, another git, or a program that does not react is needed",
        &[
            "safe.directory",
            "git refs migrate",
            "that holds it, stop it",
            "kill -9",
            "let it: echo",
            "update git-agentloop;",
        ],
    ),
    (
        "without a private store, or with a driver that cannot be reached",
        &[
            "will ask again what may run",
            "asks for what may run",
            "make the state directory writable",
            "shows whether it is still at work",
        ],
    ),
    (
        "a fault of the machine while a run works",
        &[
            "what is on record stays: 'git agentloop resume",
            "look at 'git agentloop tail",
            "guidance came after the last plan",
            "git agentloop backends' lists what it has",
            "git config agentloop.worktreeDir' names another place",
            "says where worktrees go",
            "says where else they go",
        ],
    ),
    ("the library's own face, and what a program prints alone", &["say what is to be done"]),
];

/// The runs of examples.
const EXAMPLES: [&str; 3] = ["fix-login-3k9vqp", "mend-quote-7x2kq9", "RUN"];

/// What the ids of the situations' runs begin with.
const SLUGS: [&str; 3] = ["a-goal", "another-goal", "greet"];

#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    title: String,
    /// Comments below the title.
    notes: Vec<String>,
    situation: Vec<String>,
    command: String,
    code: i32,
    lines: Vec<String>,
    /// Printed commands and their exit codes.
    next: Vec<(String, i32)>,
}

impl Block {
    fn parse(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines() {
            let (mark, rest) = line.split_at(1);
            let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
            match mark {
                "#" if block.title.is_empty() => block.title = rest,
                "#" => block.notes.push(rest),
                "." => block.situation.push(rest),
                "$" => block.command = rest,
                "=" => block.code = rest.parse().unwrap(),
                "|" => block.lines.push(rest),
                ">" => {
                    let (code, command) = rest.split_once(' ').unwrap();
                    block.next.push((command.to_owned(), code.parse().unwrap()));
                }
                _ => panic!("cannot read {line:?}"),
            }
        }
        assert!(!block.command.is_empty(), "no command: {text}");
        block
    }

    fn written(&self) -> String {
        let mut text = format!("# {}\n", self.title);
        let mut add = |mark: &str, rest: &str| {
            text.push_str(format!("{mark} {rest}").trim_end());
            text.push('\n');
        };
        self.notes.iter().for_each(|line| add("#", line));
        self.situation.iter().for_each(|line| add(".", line));
        add("$", &self.command);
        add("=", &self.code.to_string());
        self.lines.iter().for_each(|line| add("|", line));
        self.next.iter().for_each(|(command, code)| add(">", &format!("{code} {command}")));
        text
    }

    /// The block as it comes out now, and everything that its command printed.
    fn met(&self) -> (Self, String) {
        let (place, ran) = self.meet();
        let printed = format!("{}{}", ran.stderr, ran.stdout);
        let plain = |text: &str| normal(&place, text);
        let mut block = Self { code: ran.code, lines: Vec::new(), next: Vec::new(), ..self.clone() };
        let mut in_error = false;
        for line in printed.lines() {
            in_error |= line.starts_with("error: ") || line.starts_with("hint: ");
            if in_error || printed.lines().count() <= 3 || !commands(line).is_empty() {
                block.lines.push(plain(line));
            }
        }
        // Those that only read are run where they were printed, each other one in a situation of its own.
        let all = commands(&printed);
        let (reading, changing): (Vec<usize>, Vec<usize>) = (0..all.len()).partition(|&index| only_reads(&all[index]));
        let mut codes = vec![0; all.len()];
        for (count, &index) in reading.iter().chain(&changing).enumerate() {
            let again = (count > reading.len()).then(|| self.meet());
            let (there, printed) = match &again {
                Some((place, ran)) => (place, format!("{}{}", ran.stderr, ran.stdout)),
                None => (&place, printed.clone()),
            };
            let same = commands(&printed).into_iter().nth(index);
            let same = same.unwrap_or_else(|| panic!("{}: not printed again: {}", self.title, all[index]));
            codes[index] = shell(there, &format!("{}{}", self.place(), filled(there, &same))).code;
            if let Some((place, _)) = again {
                end(&place);
            }
        }
        block.next = all.iter().map(|command| plain(command)).zip(codes).collect();
        end(&place);
        (block, normal(&place, &printed))
    }

    /// How the command goes to another folder, where it does.
    fn place(&self) -> &str {
        let end = self.command.find("&& ").filter(|_| self.command.starts_with("cd "));
        end.map_or("", |end| &self.command[..end + 3])
    }

    fn meet(&self) -> (Repo, Ran) {
        let repo = Repo::new().with_only(&git());
        std::fs::write(repo.home().join("gitconfig"), CONFIG).unwrap();
        std::fs::write(repo.home().join("goal.md"), "a goal\n").unwrap();
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"), repo.home().join("README.md")).unwrap();
        repo.git(&["init", "-q", "--bare", "../upstream"]);
        for line in &self.situation {
            let ran = shell(&repo, line);
            assert_eq!(ran.code, 0, "{}: {line}\n{}{}", self.title, ran.stdout, ran.stderr);
        }
        let ran = shell(&repo, &self.command);
        (repo, ran)
    }
}

/// The folder of the git on PATH.
fn git() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).find(|folder| folder.join("git").exists()).unwrap()
}

fn shell(repo: &Repo, line: &str) -> Ran {
    let mut command = repo.command("timeout");
    command.args(["60", "sh", "-c", line]).env("GIT_EDITOR", "true").stdin(Stdio::null());
    Ran::of(&command.output().unwrap())
}

/// Ends what a situation left running, before its folder goes.
fn end(repo: &Repo) {
    for pid in processes_with(repo.home().to_str().unwrap()) {
        let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// The commands in `text`: between quotes, or from the beginning of what a line says to its end.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut rest = line;
        let starts = |text: &str| {
            let mut words = text.split(' ');
            match words.next() {
                Some("git") => {
                    let is_command = words.next().is_some_and(is_verb);
                    is_command && !text.contains('[') && !text.contains(" failed (") && !text.contains("git version")
                }
                Some(first) => ["kill", "unset", "echo"].contains(&first) && words.next().is_some(),
                None => false,
            }
        };
        while let Some(at) = rest.find('\'') {
            let (before, quoted) = (&rest[..at], &rest[at + 1..]);
            let opens = before.chars().last().is_none_or(|last| !last.is_alphanumeric());
            let close = quoted.match_indices('\'').find(|(end, _)| {
                let follows = quoted[end + 1..].chars().next();
                quoted[..*end].matches('"').count() % 2 == 0 && follows.is_none_or(|next| !next.is_alphanumeric())
            });
            match close {
                Some((end, _)) if opens && starts(quoted) => {
                    found.push(quoted[..end].to_owned());
                    rest = &quoted[end + 1..];
                }
                _ => rest = quoted,
            }
        }
        let bare = line.match_indices("git ").chain(line.match_indices("echo ")).map(|(at, _)| at).find(|at| {
            let before = line[..*at].trim_end();
            let is_apart = before.ends_with(':') && line[..*at].ends_with(' ') || line[..*at].ends_with("  ");
            starts(&line[*at..]) && (before.is_empty() || is_apart)
        });
        if let Some(at) = bare {
            // What follows after some spaces explains it.
            let command = line[at..].split("  ").next().unwrap();
            let command = command.split(" # ").next().unwrap();
            let ends = [", fork ", ", or ", "; "].iter().filter_map(|end| command.find(end)).min();
            found.push(command[..ends.unwrap_or(command.len())].trim_end().to_owned());
        }
    }
    found
}

/// Whether a command leaves everything as it is, and ends by itself.
fn only_reads(command: &str) -> bool {
    let verbs = ["list", "show", "status", "result", "backends", "-h", "output"];
    let reads = |verb: &&str| command.split(' ').nth(2) == Some(*verb) && !command.contains("--wait");
    command.ends_with(" -h") || verbs.iter().any(reads) || command.starts_with("git log ")
}

/// Whether git has this verb.
fn is_verb(word: &str) -> bool {
    static VERBS: LazyLock<String> = LazyLock::new(|| {
        let listed = Command::new("git").arg("--list-cmds=main").output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    });
    word == "agentloop" || VERBS.lines().any(|verb| verb == word)
}

/// `command` as a person would type it, for the run that there is.
fn filled(repo: &Repo, command: &str) -> String {
    let runs = repo.git(&["for-each-ref", "--count=1", "--format=%(refname:lstrip=3)", "refs/heads/agentloop"]);
    let command = EXAMPLES.iter().fold(command.to_owned(), |text, example| text.replace(example, &runs));
    PLACEHOLDERS.iter().fold(command, |text, (name, value)| text.replace(name, value))
}

/// `text` without what differs from time to time.
fn normal(repo: &Repo, text: &str) -> String {
    let mut text = text.replace(repo.home().to_str().unwrap(), "~");
    let is_time =
        |at: &[u8]| at.iter().zip(b"00:00:00").all(|(is, like)| is == like || is.is_ascii_digit() && *like == b'0');
    while let Some(at) = text.as_bytes().windows(8).position(is_time) {
        text.replace_range(at..at + 8, "HH:MM:SS");
    }
    // Of every repository that the situation made.
    let mut commits = String::new();
    for folder in std::fs::read_dir(repo.home()).unwrap() {
        let folder = folder.unwrap().path();
        let git = |arguments: &[&str]| repo.try_git(&[&["-C", folder.to_str().unwrap()], arguments].concat()).stdout;
        commits += &git(&["rev-list", "--all"]);
        for name in git(&["for-each-ref", "--format=%(refname:lstrip=4)", "refs/agentloop/rescue"]).lines() {
            text = text.replace(name.split('/').next().unwrap(), "TIME");
        }
    }
    for slug in SLUGS {
        let start = format!("{slug}-");
        let parts: Vec<String> = text.split(&start).map(ToOwned::to_owned).collect();
        let short = |part: &String| {
            let is_id = part.len() >= 6 && part.bytes().take(6).all(|byte| byte.is_ascii_alphanumeric());
            if is_id { format!("XXXXXX{}", &part[6..]) } else { part.clone() }
        };
        text = [vec![parts[0].clone()], parts[1..].iter().map(short).collect()].concat().join(&start);
    }
    let mut plain = String::new();
    let mut word = String::new();
    for next in text.chars().chain(['\n']) {
        if next.is_ascii_alphanumeric() {
            word.push(next);
            continue;
        }
        let is_id = word.len() >= 7 && commits.lines().any(|commit| commit.starts_with(&word));
        let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let names_process = is_number && ["process ", "pid ", "kill -9 "].iter().any(|end| plain.ends_with(end));
        if word == "seconds" && plain.ends_with(' ') {
            let end = plain.trim_end_matches(|last: char| last.is_ascii_digit() || last == ' ').len();
            plain.replace_range(end.., " N ");
        }
        plain.push_str(if is_id {
            "COMMIT"
        } else if names_process {
            "PID"
        } else {
            &word
        });
        word.clear();
        plain.push(next);
    }
    plain.pop();
    plain
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/printed").join(name)
}

/// Meets every block of a file; everything that was printed.
fn check(name: &str) -> String {
    let text = std::fs::read_to_string(file(name)).unwrap();
    let wanted: Vec<Block> = text.split("\n\n").filter(|text| !text.trim().is_empty()).map(Block::parse).collect();
    let todo = Mutex::new(wanted.iter().enumerate());
    let done = Mutex::new(vec![None; wanted.len()]);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((index, block)) = todo.lock().unwrap().next() else { break };
                    let met = std::panic::catch_unwind(|| block.met());
                    done.lock().unwrap()[index] = met.ok();
                }
            });
        }
    });
    let done = done.into_inner().unwrap();
    let lacks: Vec<&str> =
        wanted.iter().zip(&done).filter(|(_, met)| met.is_none()).map(|(block, _)| &*block.title).collect();
    assert!(lacks.is_empty(), "situations that did not come about: {lacks:?}");
    let met: Vec<(Block, String)> = done.into_iter().flatten().collect();
    if std::env::var_os("AGENTLOOP_TEST_WRITE").is_some() {
        let blocks: Vec<String> = met.iter().map(|(block, _)| block.written()).collect();
        std::fs::write(file(name), blocks.join("\n")).unwrap();
    } else {
        for (wanted, (met, _)) in wanted.iter().zip(&met) {
            assert!(wanted == met, "wanted\n{}\nbut\n{}", wanted.written(), met.written());
        }
    }
    for (block, _) in &met {
        for (command, code) in &block.next {
            // Not: a usage error, no such program, a signal, what git refuses.
            let is_good = matches!(code, 0 | 1 | 3) || block.notes.iter().any(|note| note.contains(command));
            assert!(is_good, "'{}' prints a command that ends with {code}: {command}", block.title);
        }
    }
    met.into_iter().map(|(_, printed)| printed).collect()
}

#[test]
fn a_newcomer_s_mistakes_are_answered_with_what_can_be_typed() {
    check("mistakes.txt");
}

#[test]
fn commands_that_are_printed_can_be_typed() {
    check("hints.txt");
}

#[test]
fn examples_can_be_typed() {
    check("examples.txt");
}

/// Every text in the sources that names a command is met by a situation.
#[test]
fn no_printed_command_is_left_untried() {
    let lines: Vec<String> = ["mistakes.txt", "hints.txt"]
        .iter()
        .flat_map(|name| {
            std::fs::read_to_string(file(name)).unwrap().lines().map(ToOwned::to_owned).collect::<Vec<_>>()
        })
        .filter_map(|line| line.strip_prefix("| ").map(ToOwned::to_owned))
        .collect();
    let met = lines.join("\n");
    let mut untried = Vec::new();
    let mut excused = BTreeSet::new();
    for (path, text) in texts(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let parts = pieces(text.trim());
        // Two words name what git was called for.
        if text.split(' ').count() < 3 || commands(&parts.join("VALUE")).is_empty() || is_met(&parts, &met) {
            continue;
        }
        match ELSEWHERE.iter().flat_map(|(_, texts)| *texts).find(|some| text.contains(**some)) {
            Some(some) => drop(excused.insert(*some)),
            None => untried.push(format!("{}: {text}", path.display())),
        }
    }
    assert!(untried.is_empty(), "no situation prints:\n{}", untried.join("\n"));
    let idle: Vec<_> = ELSEWHERE.iter().flat_map(|(_, texts)| *texts).filter(|some| !excused.contains(*some)).collect();
    assert!(idle.is_empty(), "excused in vain: {idle:?}");
}

/// Whether the parts of a text come one after the other, a short value between each two.
fn is_met(parts: &[String], met: &str) -> bool {
    met.match_indices(parts[0].as_str()).any(|(start, first)| {
        let mut rest = &met[start + first.len()..];
        parts[1..].iter().all(|part| {
            let within = rest.char_indices().nth(300 + part.len()).map_or(rest.len(), |(end, _)| end);
            let found = rest[..within].find(part.as_str());
            found.inspect(|at| rest = &rest[at + part.len()..]).is_some()
        })
    })
}

/// The parts of a format string between its values.
fn pieces(text: &str) -> Vec<String> {
    let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut parts = vec![String::new()];
    let mut is_value = false;
    for next in text.chars() {
        match next {
            '{' => {
                is_value = true;
                parts.push(String::new());
            }
            '}' => is_value = false,
            _ if is_value => {}
            '\u{1}' => parts.last_mut().unwrap().push('{'),
            '\u{2}' => parts.last_mut().unwrap().push('}'),
            _ => parts.last_mut().unwrap().push(next),
        }
    }
    parts
}

/// The string literals of the sources below `folder`, without tests and the texts of `-h`.
fn texts(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            // The texts of `-h` are tried as examples, prompts are read by agents.
            if !path.ends_with("cli/args") && !path.ends_with("prompts") {
                all.extend(texts(&path));
            }
        } else if !path.to_str().unwrap().ends_with("tests.rs") && path.extension().is_some_and(|end| end == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let lines = literals(source);
            let lines = lines.iter().flat_map(|text| text.lines().map(ToOwned::to_owned));
            all.extend(lines.map(|text| (path.clone(), text)));
        }
    }
    all
}

/// The string literals of a source file, as they come out.
fn literals(source: &str) -> Vec<String> {
    let code: Vec<&str> = source.lines().map(str::trim_start).filter(|line| !line.starts_with("//")).collect();
    let code = code.join("\n");
    let (mut all, mut chars, mut before) = (Vec::new(), code.chars().peekable(), ' ');
    while let Some(next) = chars.next() {
        if next == '"' && before != '\'' {
            let mut text = String::new();
            while let Some(next) = chars.next().filter(|next| *next != '"') {
                match (next, chars.peek()) {
                    ('\\', Some('n')) => text.push('\n'),
                    ('\\', Some('\n')) => {
                        while chars.next_if(|next| next.is_whitespace()).is_some() {}
                        continue;
                    }
                    ('\\', Some(other)) => text.push(*other),
                    _ => {
                        text.push(next);
                        continue;
                    }
                }
                chars.next();
            }
            all.push(text);
        }
        before = next;
    }
    all
}
