//! Secrets stay off the record, whatever prints them: agents, checks, goals, errors, and the transcripts that are being written.

use std::path::Path;

use crate::support::{Repo, wait_for};

/// Secrets by their shapes, and the environment's.
const GITHUB: &str = "ghp_7aQkd83LmZpQ0sYtB5vXcN2wErT6uIoP1aSd";
const CLASSIC: &str = "sk-7aQkd83LmZpQ0sYtB5vXcN2wErT6uIoP1aSdF4gH8jK2lZxC";
const TOKEN: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dBjftJeZ4CVPmB92K27uhbUJU1p1r7aQ";
const URL: &str = "postgres://user:7aQkd83LmZpQ@db.invalid/x";
const LINE: &str = "DB_PASSWORD=7aQkd83LmZpQ0sYt";
const VALUE: &str = "sesame7open2the9door";
const PEM_LINE: &str = "MIIEpAIBAAKCAQEA7aQkd83LmZpQ0sYtB5vXcN2wErT6uIoP1aSdF4gH8jK2lZxC";

fn secrets() -> [&'static str; 7] {
    [GITHUB, CLASSIC, TOKEN, URL, LINE, VALUE, PEM_LINE]
}

/// A program that prints every secret, each in its own way.
fn speaker(repo: &Repo) -> String {
    let key = format!("-----BEGIN RSA PRIVATE KEY-----\n{PEM_LINE}\n-----END RSA PRIVATE KEY-----");
    let escaped = serde_json::to_string(&key).unwrap();
    let body = format!(
        "cat >/dev/null\nprintf '\\033[31m%s\\033[0m\\n' {GITHUB}\nprintf '%s\\n' '{{\"text\":\"a\\n{CLASSIC}\"}}' 'key%20{TOKEN}' '{URL}' \
         '{LINE}' '{key}' '{escaped}'\nprintf sesame7; sleep 0.05; printf 'open2the9door\\n'\necho \"$GITHUB_PAT {GITHUB}\" >&2"
    );
    repo.script("speaker", &body)
}

/// Which secrets the repository's objects, refs and live files hold.
fn held(repo: &Repo) -> Vec<String> {
    let mut texts = vec![
        (
            "objects".to_owned(),
            repo.command("git").args(["cat-file", "--batch-all-objects", "--batch"]).output().unwrap().stdout,
        ),
        ("refs".to_owned(), repo.git(&["for-each-ref"]).into_bytes()),
    ];
    let mut folders = vec![repo.path().join(".git/agentloop"), repo.path().join(".git/logs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                texts.push((entry.path().display().to_string(), std::fs::read(entry.path()).unwrap_or_default()));
            }
        }
    }
    let holds = |text: &[u8], secret: &str| text.windows(secret.len()).any(|part| part == secret.as_bytes());
    let found = |(name, text): &(String, Vec<u8>)| {
        secrets()
            .into_iter()
            .filter(|secret| holds(text, secret))
            .map(|secret| format!("{name}: {secret}"))
            .collect::<Vec<_>>()
    };
    texts.iter().flat_map(found).collect()
}

#[test]
fn what_workers_and_checks_print_is_kept_without_secrets() {
    let repo = Repo::new();
    let speaker = speaker(&repo);
    repo.git(&["config", "agentloop.backend.leak.command", &speaker]);
    let check = format!("sh -c '{speaker} </dev/null; exit 1'");
    let arguments =
        ["run", "speak", "--backend", "mock", "--worker", "leak", "--verify", &check, "--max-iterations", "1"];
    repo.agentloop_with(&arguments, &[("GITHUB_PAT", VALUE)]).expect(1);
    assert_eq!(held(&repo), Vec::<String>::new());
    let run = repo.git(&["for-each-ref", "--format=%(refname:lstrip=3)", "refs/notes/agentloop/"]);
    let output = repo.agentloop(&["output", &run, "iter1/explore"]).expect(0).stdout;
    assert!(output.contains("[redacted]") && output.contains("key%20[redacted]"), "{output}");
    assert!(repo.events(&run).iter().any(|event| event["data"].to_string().contains("DB_PASSWORD=[redacted]")));
}

#[test]
fn goals_names_criteria_and_errors_are_kept_without_secrets() {
    let repo = Repo::new();
    let failing =
        repo.script("failing", &format!("cat >/dev/null; echo 'fatal: bad key {GITHUB} for {URL}' >&2; exit 2"));
    repo.git(&["config", "agentloop.backend.leak.command", &failing]);
    let goal = secrets()[..6].join(" and ");
    let criteria = format!("works with {CLASSIC}");
    let arguments = [
        "run",
        &goal,
        "--name",
        GITHUB,
        "--criteria",
        &criteria,
        "--backend",
        "mock",
        "--worker",
        "leak",
        "--max-iterations",
        "1",
    ];
    repo.agentloop_with(&arguments, &[("GITHUB_PAT", VALUE)]).expect(1);
    assert_eq!(held(&repo), Vec::<String>::new());
}

#[test]
fn a_live_transcript_holds_no_secrets_even_after_a_kill() {
    let repo = Repo::new();
    let speaker = speaker(&repo);
    let slow = repo.script("slow", &format!("{speaker}; echo all is told; exec sleep 100"));
    repo.git(&["config", "agentloop.backend.leak.command", &slow]);
    let arguments = ["run", "speak", "--backend", "mock", "--worker", "leak", "--max-iterations", "1"];
    let mut command = repo.command(crate::support::PROGRAM);
    let mut driver = command.args(arguments).env("GITHUB_PAT", VALUE).spawn().unwrap();
    let transcripts = || {
        let mut found = Vec::new();
        let mut folders = vec![repo.path().join(".git/agentloop")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found
    };
    let is_told = |path: &Path| std::fs::read_to_string(path).is_ok_and(|text| text.contains("all is told"));
    wait_for("a transcript", || transcripts().iter().any(|path| is_told(path)).then_some(()));
    assert_eq!(held(&repo), Vec::<String>::new());
    driver.kill().unwrap();
    driver.wait().unwrap();
    assert_eq!(held(&repo), Vec::<String>::new());
    repo.agentloop(&["cancel"]);
}

#[test]
fn transcripts_are_not_kept_where_they_are_not_wanted() {
    let repo = Repo::new();
    repo.git(&["config", "agentloop.output", "none"]);
    let run = repo.mock_run("a goal", &[])["run_id"].as_str().unwrap().to_owned();
    assert_eq!(repo.git(&["for-each-ref", &format!("refs/agentloop/run/{run}/output")]), "");
    assert!(repo.events(&run).iter().all(|event| event["data"]["output_path"].is_null()));
    repo.git(&["config", "agentloop.output", "raw"]);
    let refused = repo.agentloop(&["run", "--backend", "mock", "a goal"]).expect(2);
    assert!(refused.stderr.contains("'raw'") && refused.stderr.contains("redacted"), "{}", refused.stderr);
}
