//! The picture of a run in the README: what a terminal shows of a real one, as an SVG that is kept beside the tests.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::num::NonZeroU16;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{PROGRAM, Repo};

const COLUMNS: u16 = 96;
const ROWS: u16 = 60;
/// Set where the picture is to be made anew.
const REWRITE: &str = "AGENTLOOP_TEST_REWRITE_PICTURE";
const COMMAND: &str = "git agentloop run \"mend quote()\" --verify \"sh test.sh\"";
/// What takes the place of a run's random end, of its commits and of the time that things took.
const SUFFIX: &str = "7x2kq9";
const COMMITS: [&str; 8] = [
    "5441685c9c6b",
    "93be0d4c1f72",
    "c7a2e1905d3f",
    "1c8a1680bf37",
    "e05b7c64a1d9",
    "7fd3912b80ce",
    "a90c13fe2d58",
    "2b6e70d4915a",
];
const TIMES: [&str; 6] = ["41s", "63s", "1.2s", "38s", "1.3s", "1.3s"];

/// Agents and a project that a run has something to do in.
fn project() -> Repo {
    let repo = Repo::new();
    repo.write("quote.sh", "quote() { printf \"'%s'\" \"$1\"; }\n");
    repo.write("test.sh", ". ./quote.sh\neval \"word=$(quote \"two words\")\"\n[ \"$word\" = \"two words\" ]\n");
    repo.commit("quote()");
    let agent = repo.script(
        "agent",
        r#"read -r role; cat > /dev/null
case "$role $AGENTLOOP_ITERATION $AGENTLOOP_SUBGOAL" in
*criteria*) echo "eval gives back every word that quote() has quoted" ;;
*clarifier*) echo '[]' ;;
*decomposer*1\ ) echo '[{"id": "mend", "description": "escape single quotes in quote()"}, {"id": "cover", "description": "test words that hold single quotes"}]' ;;
*decomposer*) echo '[{"id": "newlines", "description": "keep newlines at the end of a word"}]' ;;
*subagent*mend)
    cat > quote.sh <<'X'
quote() { printf "'%s'" "$(printf %s "$1" | sed "s/'/'\\\\''/g")"; }
X
    echo "quote() escapes single quotes now" ;;
*subagent*cover)
    echo '[ "$(quote "a
" | wc -l)" -eq 1 ] && eval "word=$(quote "it'"'"'s")" && [ "$word" = "it'"'"'s" ] || { echo "a newline is lost" >&2; exit 1; }' >> test.sh
    echo "two more words, one with a newline at its end" ;;
*subagent*newlines)
    cat > quote.sh <<'X'
quote() { word=$(printf %sx "$1" | sed "s/'/'\\\\''/g"); printf "'%s'" "${word%x}"; }
X
    echo "a newline at the end of a word stays" ;;
*reviewer*1\ ) echo '{"gates_passed": false, "goal_complete": false, "issues": ["a newline at the end of a word is lost"]}' ;;
*reviewer*) echo '{"gates_passed": true, "goal_complete": true, "issues": []}' ;;
esac"#,
    );
    repo.git(&["config", "agentloop.backend.scripted.command", &agent]);
    repo.git(&["config", "agentloop.backend", "scripted"]);
    // In the order of the plan, so that the picture is always the same.
    repo.git(&["config", "agentloop.jobs", "1"]);
    // It ends before or after an agent's answer, as it happens.
    repo.git(&["config", "agentloop.baseline", "false"]);
    repo
}

/// What a terminal shows at the end of `words`, run on it: its rows, each as pieces of one style.
fn shown(repo: &Repo, words: &[&str]) -> Vec<Vec<(&'static str, String)>> {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!("stty cols {COLUMNS} rows {ROWS}; exec env -u NO_COLOR {PROGRAM} {}", quoted.join(" "));
    let mut terminal = repo.command("script");
    terminal.args(["-qec", &script, "/dev/null"]).env("TERM", "xterm-256color").stdin(Stdio::null());
    let output = terminal.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let mut parser = vt100::Parser::new(NonZeroU16::new(ROWS).unwrap(), NonZeroU16::new(COLUMNS).unwrap(), 0);
    parser.process(&output.stdout);
    let rows = (0..ROWS).map(|row| {
        let mut pieces: Vec<(&str, String)> = Vec::new();
        for cell in (0..COLUMNS).filter_map(|column| parser.screen().cell(row, column)) {
            let style = match (cell.fgcolor(), cell.bold()) {
                (vt100::Color::Idx(1), _) => "r",
                (vt100::Color::Idx(2), _) => "g",
                (vt100::Color::Idx(3), _) => "y",
                (_, true) => "b",
                _ => "",
            };
            let text = if cell.has_contents() { cell.contents() } else { " " };
            match pieces.last_mut() {
                Some((last, piece)) if *last == style => piece.push_str(text),
                _ => pieces.push((style, text.to_owned())),
            }
        }
        if let Some((_, last)) = pieces.last_mut() {
            last.truncate(last.trim_end().len());
        }
        pieces.retain(|(_, piece)| !piece.is_empty());
        pieces
    });
    let mut rows: Vec<_> = rows.collect();
    while rows.last().is_some_and(Vec::is_empty) {
        rows.pop();
    }
    rows
}

/// The same for every run of it.
fn settled(rows: &mut [Vec<(&'static str, String)>], repo: &Repo, run: &str) {
    let name = format!("{}-{SUFFIX}", run.rsplit_once('-').unwrap().0);
    let (mut commits, mut times) = (HashMap::new(), TIMES.iter().cycle());
    for (_, piece) in rows.iter_mut().flatten() {
        *piece = piece.replace(repo.home().to_str().unwrap(), "~").replace(run, &name);
        let words: Vec<&str> = piece.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '(').collect();
        let mut text = String::new();
        for word in words {
            let core = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            if core.len() == 12 && core.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                let next = commits.len();
                let known: &mut &str = commits.entry(core.to_owned()).or_insert(COMMITS[next]);
                text += &word.replace(core, known);
            } else {
                text += word;
            }
        }
        // `(0.4s)` is how long something took.
        let is_time = |inner: &str| inner.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok());
        *piece = match text.split_once('(').and_then(|(before, rest)| Some((before, rest.split_once(')')?))) {
            Some((before, (inner, after))) if is_time(inner) => {
                format!("{before}({}){after}", times.next().unwrap())
            }
            _ => text,
        };
    }
}

/// The rows below the command, one after the other, in the colours of a light or a dark page.
fn svg(rows: &[Vec<(&'static str, String)>]) -> String {
    let (line, width) = (18, u32::from(COLUMNS) * 8 + 32);
    let height = (rows.len() + 3) * line;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"A run on a terminal\">\n\
         <style>\n\
         svg {{ color-scheme: light dark; --page: #f6f8fa; --text: #24292f; --good: #116329; --bad: #b3261e; --note: #7d4e00; }}\n\
         @media (prefers-color-scheme: dark) {{ svg {{ --page: #161b22; --text: #d0d7de; --good: #56d364; --bad: #ff8a80; --note: #e3b341; }} }}\n\
         rect {{ fill: var(--page); }}\n\
         text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: var(--text); white-space: pre; }}\n\
         .g {{ fill: var(--good); }} .r {{ fill: var(--bad); }} .y {{ fill: var(--note); }} .b {{ font-weight: bold; }}\n\
         </style>\n\
         <rect width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n"
    );
    let command = vec![("", "$ ".to_owned()), ("b", COMMAND.to_owned())];
    for (number, row) in std::iter::once(&command).chain(rows).enumerate() {
        let pieces: String = row
            .iter()
            .map(|(style, piece)| {
                let piece = piece.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                if style.is_empty() { piece } else { format!("<tspan class=\"{style}\">{piece}</tspan>") }
            })
            .collect();
        if !pieces.is_empty() {
            let _ =
                writeln!(text, "<text x=\"16\" y=\"{}\" xml:space=\"preserve\">{pieces}</text>", (number + 2) * line);
        }
    }
    text + "</svg>\n"
}

#[test]
fn the_picture_is_what_a_terminal_shows() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("there is no script(1) here to make a terminal with");
        return;
    }
    let repo = project();
    let mut rows = shown(&repo, &["run", "mend quote()", "--verify", "sh test.sh"]);
    let run = repo.agentloop(&["status", "--json"]).expect(0).json()["run_id"].as_str().unwrap().to_owned();
    settled(&mut rows, &repo, &run);
    let made = svg(&rows);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/picture/run.svg");
    if std::env::var_os(REWRITE).is_some() {
        std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
        std::fs::write(&kept, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(made == kept, "the picture shows what is no longer shown; {REWRITE}=1 makes it anew:\n{made}");
}
