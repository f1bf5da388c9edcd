//! A terminal: a program runs on it, it can be resized meanwhile, and what it shows can be read.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::support::{PROGRAM, Repo, wait_for};

/// What a terminal does with lines that it wrapped when it gets another width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resizing {
    /// It cuts rows where they are, as xterm does.
    Cuts,
    /// It wraps lines anew, as most others do.
    Wraps,
}

/// The program under test on a terminal of its own.
pub struct Terminal {
    child: Child,
    /// Open, so that the terminal's input does not end.
    _input: ChildStdin,
    name: PathBuf,
    screen: Arc<Mutex<Screen>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Runs the program with `words`, which need no quoting for a shell but single quotes, on a terminal so wide.
    pub fn run(repo: &Repo, words: &[&str], columns: usize, resizing: Resizing, env: &[(&str, &str)]) -> Self {
        let name = repo.home().join("tty");
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let name_file = name.display();
        let script = format!(
            "stty cols {columns} rows 30; tty > {name_file}.new; mv {name_file}.new {name_file}; exec {PROGRAM} {}",
            quoted.join(" ")
        );
        let mut command: Command = repo.command("script");
        command.args(["-qec", &script, "/dev/null"]).env("TERM", "xterm-256color").envs(env.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let screen = Arc::new(Mutex::new(Screen::new(columns, resizing)));
        let shown = Arc::clone(&screen);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().feed(&bytes[..read]);
            }
        });
        let name = wait_for("the terminal's name", || std::fs::read_to_string(&name).ok());
        Self { child, _input: input, name: name.trim().into(), screen, reader }
    }

    /// Gives the terminal another width.
    pub fn resize(&self, columns: usize) {
        // Under one lock: nothing is read between the two.
        let mut screen = self.screen.lock().unwrap();
        let resized = Command::new("stty").arg("-F").arg(&self.name).args(["cols", &columns.to_string()]).status();
        assert!(resized.unwrap().success());
        screen.resize(columns);
    }

    /// The rows that it shows, without blanks at their ends.
    pub fn rows(&self) -> Vec<String> {
        self.screen.lock().unwrap().rows()
    }

    /// Waits until the rows are as `wanted`, which says what is wrong with them.
    #[track_caller]
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&[String]) -> bool) -> Vec<String> {
        let mut rows = Vec::new();
        let begun = std::time::Instant::now();
        while begun.elapsed().as_secs() < 60 {
            rows = self.rows();
            if wanted(&rows) {
                return rows;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("waited in vain for {what}:\n{}", rows.join("\n"));
    }

    /// Waits for the program's end: its exit code and what is left on the terminal.
    pub fn end(mut self) -> (i32, Vec<String>) {
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.reader.join().unwrap();
        let rows = self.screen.lock().unwrap().rows();
        (code, rows)
    }
}

/// What is on a terminal of many rows, and the lines that were wrapped.
struct Screen {
    columns: usize,
    resizing: Resizing,
    rows: Vec<Row>,
    row: usize,
    column: usize,
    wraps: bool,
    pending: Vec<u8>,
}

#[derive(Clone, Default)]
struct Row {
    cells: Vec<char>,
    /// Whether the line goes on in the next row.
    is_wrapped: bool,
}

impl Screen {
    fn new(columns: usize, resizing: Resizing) -> Self {
        let (rows, pending) = (vec![Row::default()], Vec::new());
        Self { columns, resizing, rows, row: 0, column: 0, wraps: true, pending }
    }

    fn rows(&self) -> Vec<String> {
        let mut rows: Vec<String> =
            self.rows.iter().map(|row| row.cells.iter().collect::<String>().trim_end().to_owned()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }

    fn resize(&mut self, columns: usize) {
        self.columns = columns;
        if self.resizing == Resizing::Cuts {
            self.rows.iter_mut().for_each(|row| row.cells.truncate(columns));
            self.column = self.column.min(columns - 1);
            return;
        }
        let (mut rows, mut cursor) = (Vec::new(), None);
        let mut at = 0;
        while at < self.rows.len() {
            let mut line = Vec::new();
            loop {
                if at == self.row {
                    cursor = Some((rows.len(), line.len() + self.column));
                }
                line.extend_from_slice(&self.rows[at].cells);
                at += 1;
                if at >= self.rows.len() || !self.rows[at - 1].is_wrapped {
                    break;
                }
            }
            while line.last() == Some(&' ') {
                line.pop();
            }
            let first = rows.len();
            rows.extend(line.chunks(columns).map(|cells| Row { cells: cells.to_vec(), is_wrapped: true }));
            if rows.len() == first {
                rows.push(Row::default());
            }
            rows.last_mut().unwrap().is_wrapped = false;
        }
        let (first, offset) = cursor.unwrap();
        (self.row, self.column) = (first + offset / columns, offset % columns);
        self.rows = rows;
        self.rows.resize(self.rows.len().max(self.row + 1), Row::default());
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        let pending = std::mem::take(&mut self.pending);
        let text = String::from_utf8_lossy(&pending).into_owned();
        let mut rest = text.as_str();
        while let Some(character) = rest.chars().next() {
            if character == '\u{1b}' {
                let Some(end) = rest.find(|one: char| one.is_ascii_alphabetic()) else { break };
                self.control(&rest[1..=end]);
                rest = &rest[end + 1..];
                continue;
            }
            // The rest of a character that was cut.
            if character == '\u{fffd}' && rest.len() < 9 {
                break;
            }
            self.put(character);
            rest = &rest[character.len_utf8()..];
        }
        self.pending = pending[pending.len() - rest.len().min(pending.len())..].to_vec();
    }

    fn control(&mut self, sequence: &str) {
        match sequence {
            "[J" => {
                self.rows.truncate(self.row + 1);
                self.rows[self.row].cells.truncate(self.column);
            }
            "[K" => self.rows[self.row].cells.truncate(self.column),
            "[?7l" => self.wraps = false,
            "[?7h" => self.wraps = true,
            _ if sequence.ends_with('A') => {
                let up: usize = sequence[1..sequence.len() - 1].parse().unwrap_or(1);
                self.row = self.row.saturating_sub(up);
            }
            // Colours and the like.
            _ => {}
        }
    }

    fn put(&mut self, character: char) {
        match character {
            '\r' => self.column = 0,
            '\n' => {
                self.rows[self.row].is_wrapped = false;
                self.next_row();
            }
            _ => {
                if self.column == self.columns && self.wraps {
                    self.rows[self.row].is_wrapped = true;
                    self.next_row();
                    self.column = 0;
                }
                self.column = self.column.min(self.columns - 1);
                let cells = &mut self.rows[self.row].cells;
                cells.resize(cells.len().max(self.column + 1), ' ');
                cells[self.column] = character;
                self.column += 1;
            }
        }
    }

    fn next_row(&mut self) {
        self.row += 1;
        self.rows.resize(self.rows.len().max(self.row + 1), Row::default());
    }
}
