//! Tests with real processes under /bin/sh. A FIFO reports how far a child has come.

use super::os::Process;
use super::*;
use std::process::Command as Plain;
use tempfile::TempDir;

const MIB: usize = 1 << 20;

fn spec(argv: &[&str]) -> Spec {
    become_subreaper();
    Spec { argv: argv.iter().map(OsString::from).collect(), keep: 4096, ..Spec::default() }
}

fn sh(script: &str) -> Spec {
    spec(&["/bin/sh", "-c", script])
}

/// Marks are searched on the whole machine, where these tests may run more than once at a time.
fn mark(run: &str, call: &str) -> Mark {
    Mark { run: format!("{run}-{}", std::process::id()), call: call.into() }
}

async fn ends(spec: Spec) -> Finished {
    run(spec, &CancellationToken::new()).await.unwrap()
}

/// A FIFO to which a child reports a process, with `echo $! > "$FIFO"`.
struct Report(TempDir);

impl Report {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        assert!(Plain::new("mkfifo").arg(scratch.path().join("fifo")).status().unwrap().success());
        Self(scratch)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("fifo")
    }

    fn sh(&self, script: &str) -> Spec {
        Spec { env: vec![("FIFO".into(), Some(self.path().into()))], ..sh(script) }
    }

    async fn process(&self) -> Process {
        let text = tokio::fs::read_to_string(self.path()).await.unwrap();
        let process = Process::of(text.trim().parse().unwrap());
        assert!(process.runs(), "{process:?} does not run");
        process
    }
}

#[tokio::test]
async fn a_program_is_talked_with_until_nothing_more_is_said() {
    let (say, input) = mpsc::channel(1);
    say.try_send(b"one\n".to_vec()).unwrap();
    let mut heard = Vec::new();
    let mut ends = 0;
    let mut hear = |source, bytes: &[u8]| match (source, bytes) {
        (Source::Stdout, b"") | (Source::Stderr, _) => ends += 1,
        (Source::Stdout, bytes) => {
            heard.extend_from_slice(bytes);
            say.try_send(if heard.len() < 8 { b"two\n".to_vec() } else { Vec::new() }).unwrap();
        }
    };
    let spec = Spec { stdin: Stdin::Bytes(b"not this".to_vec()), ..spec(&["cat"]) };
    let finished = converse(spec, &CancellationToken::new(), &mut hear, input).await.unwrap();
    assert_eq!((finished.status, heard.as_slice(), ends), (Status::Exited(0), &b"one\ntwo\n"[..], 2));
}

/// Starts a call in a task of its own and waits until it has reported a process.
async fn begun(
    spec: Spec,
    report: &Report,
) -> (CancellationToken, tokio::task::JoinHandle<Result<Finished, SpawnError>>, Process) {
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let call = tokio::spawn(async move { run(spec, &token).await });
    (cancel, call, report.process().await)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_mins(2), "never: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_call_has_an_exit_code_and_two_streams() {
    let finished = ends(sh("printf out; printf err >&2; exit 3")).await;
    assert_eq!(finished.status, Status::Exited(3));
    assert_eq!((finished.stdout.text(), finished.stderr.text()), ("out".into(), "err".into()));
}

#[tokio::test]
async fn a_signal_is_told_from_an_exit() {
    assert_eq!(ends(sh("kill -9 $$")).await.status, Status::Signaled(9));
}

#[tokio::test]
async fn stdin_is_null_or_the_given_bytes() {
    assert_eq!(ends(spec(&["cat"])).await.stdout.total, 0);
    let stdin = Stdin::Bytes(vec![b'x'; MIB]);
    assert_eq!(ends(Spec { stdin: stdin.clone(), ..spec(&["cat"]) }).await.stdout.total, MIB as u64);
    assert_eq!(ends(Spec { stdin, ..spec(&["true"]) }).await.status, Status::Exited(0));
}

#[tokio::test]
async fn a_failed_start_says_why() {
    let scratch = tempfile::tempdir().unwrap();
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, mode: &str, text: &str| {
        std::fs::write(path(name), text).unwrap();
        assert!(Plain::new("chmod").args([mode, &path(name)]).status().unwrap().success());
    };
    write("plain", "600", "");
    write("lost", "700", "#!/nonexistent/interpreter\n");
    let says = async |spec: Spec| run(spec, &CancellationToken::new()).await.unwrap_err().to_string();
    assert_eq!(says(spec(&["no-such-program"])).await, "program 'no-such-program' was not found");
    assert_eq!(says(spec(&["/no/such"])).await, "program '/no/such' was not found");
    for name in ["plain", "lost", ""] {
        assert_eq!(says(spec(&[&path(name)])).await, format!("program '{}' cannot be executed", path(name)));
    }
    let cwd = Some(path("gone").into());
    assert_eq!(
        says(Spec { cwd, ..spec(&["true"]) }).await,
        format!("'{}' is not a directory that can be entered", path("gone"))
    );
    assert!(matches!(
        run(spec(&["true", &"x".repeat(MIB)]), &CancellationToken::new()).await,
        Err(SpawnError::TooLong)
    ));
    assert_eq!(says(Spec::default()).await, "the program could not be run");
}

#[tokio::test]
async fn a_program_out_of_time_is_stopped() {
    let finished = ends(Spec { timeout: Some(Duration::from_millis(50)), ..spec(&["sleep", "1000"]) }).await;
    assert_eq!(finished.status, Status::TimedOut);
    assert!(finished.seconds < GRACE.as_secs_f64(), "it did not need the grace: {}", finished.seconds);
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
    let limit = Duration::from_secs(1);
    let script = "trap '' TERM; sleep 1000 & echo $!; wait; wait; sleep 1000";
    let finished = ends(Spec { timeout: Some(limit), ..sh(script) }).await;
    assert_eq!(finished.status, Status::TimedOut);
    assert!(finished.seconds >= (limit + GRACE).as_secs_f64() && finished.seconds < 8.0, "{}", finished.seconds);
    assert!(os::row(finished.stdout.text().trim().parse().unwrap()).is_none());
}

#[tokio::test]
async fn a_cancelled_program_may_clean_up_and_what_it_then_says_is_read() {
    let report = Report::new();
    let script = "trap 'seq 1 100000; echo bye; exit' TERM; sleep 1000 & echo $! > $FIFO; wait";
    let (cancel, call, _) = begun(report.sh(script), &report).await;
    cancel.cancel();
    let finished = call.await.unwrap().unwrap();
    assert_eq!(finished.status, Status::Cancelled);
    assert!(finished.stdout.text().ends_with("bye\n"));
}

#[tokio::test]
async fn a_call_that_is_cancelled_before_it_begins_starts_nothing() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert_eq!(run(spec(&["/no/such"]), &cancel).await.unwrap().status, Status::Cancelled);
}

#[tokio::test]
async fn a_session_of_its_own_does_not_save_a_grandchild() {
    for cleaned in ["", "env -i"] {
        let report = Report::new();
        let script = format!("{cleaned} setsid sleep 1000 & echo $! > $FIFO; wait");
        let (cancel, call, grandchild) =
            begun(Spec { mark: Some(mark("r-session", "1")), ..report.sh(&script) }, &report).await;
        cancel.cancel();
        assert_eq!(call.await.unwrap().unwrap().status, Status::Cancelled);
        assert_eq!(os::row(grandchild.pid), None, "gone and reaped");
    }
}

#[tokio::test]
async fn an_orphan_is_found_by_its_mark() {
    let report = Report::new();
    let script = "(setsid sleep 1000 & echo $! > $FIFO); sleep 1000";
    let (cancel, call, orphan) = begun(Spec { mark: Some(mark("r-orphan", "1")), ..report.sh(script) }, &report).await;
    cancel.cancel();
    call.await.unwrap().unwrap();
    assert!(!orphan.runs());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_orphan_without_any_trace_ends_with_the_last_call_that_may_own_it() {
    let report = Report::new();
    // The process reports itself, when its environment is clean.
    let clean = r#"env -i FIFO="$FIFO" setsid sh -c 'echo $$ > $FIFO; exec sleep 1000'"#;
    let script = format!("({clean} >/dev/null 2>&1 &); sleep 1000");
    let spec = Spec { mark: Some(mark("r-trace", "1")), ..report.sh(&script) };
    let (cancel, call, orphan) = begun(spec, &report).await;
    cancel.cancel();
    call.await.unwrap().unwrap();
    // Other tests' calls are running, and may be older.
    until("the orphan is stopped", async || {
        ends(spec_true()).await;
        !orphan.runs()
    })
    .await;
}

fn spec_true() -> Spec {
    spec(&["true"])
}

#[tokio::test]
async fn a_background_process_that_holds_stdout_does_not_hold_the_call() {
    let finished = ends(sh("sleep 1000 & echo $!; exit 5")).await;
    assert_eq!(finished.status, Status::Exited(5));
    assert!(finished.seconds < 5.0, "{}", finished.seconds);
    assert_eq!(os::row(finished.stdout.text().trim().parse().unwrap()), None);
}

#[tokio::test]
async fn a_silent_background_process_does_not_outlive_the_call() {
    let finished =
        ends(Spec { mark: Some(mark("r-silent", "1")), ..sh("setsid sleep 1000 >/dev/null 2>&1 & echo $!") }).await;
    assert_eq!(finished.status, Status::Exited(0));
    assert_eq!(os::row(finished.stdout.text().trim().parse().unwrap()), None);
}

#[tokio::test]
async fn a_dropped_call_takes_its_tree_along() {
    let report = Report::new();
    let (_, call, grandchild) = begun(report.sh("setsid sleep 1000 & echo $! > $FIFO; wait"), &report).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    until("the grandchild is gone", async || !grandchild.runs()).await;
}

#[tokio::test]
async fn stopping_one_call_leaves_the_others_alone() {
    let (first, second) = (Report::new(), Report::new());
    let script = "setsid sleep 1000 & echo $! > $FIFO; wait";
    // Both calls carry the same mark.
    let marked = |report: &Report| Spec { mark: Some(mark("r-two", "1")), ..report.sh(script) };
    let (cancel_first, first_call, first_child) = begun(marked(&first), &first).await;
    let (cancel_second, second_call, second_child) = begun(marked(&second), &second).await;
    cancel_first.cancel();
    first_call.await.unwrap().unwrap();
    ends(spec_true()).await;
    assert!(!first_child.runs() && second_child.runs());
    cancel_second.cancel();
    second_call.await.unwrap().unwrap();
    assert!(!second_child.runs());
}

fn transcript(path: &Path) -> Transcript {
    Transcript { path: path.to_owned(), redactor: crate::redact::Redactor::default() }
}

#[tokio::test]
async fn much_output_costs_little() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("spool");
    let script = "echo first; head -c 209715200 /dev/zero; echo last";
    let finished = ends(Spec { spool: Some(transcript(&path)), ..sh(script) }).await;
    let total = 200 * MIB as u64 + 11;
    assert_eq!((finished.stdout.total, finished.stdout.kept.len()), (total, 4096));
    let text = finished.stdout.text();
    assert!(text.starts_with("first\n") && text.ends_with("last\n"));
    assert!(text.contains(&format!("\n[{} bytes left out]\n", total - 4096)));
    let spool = std::fs::read(path).unwrap();
    assert!(spool.starts_with(b"first\n") && spool.ends_with(b"last\n"));
    assert!(spool.len() < 16 * MIB + 100, "{}", spool.len());
}

#[tokio::test]
async fn a_long_spool_is_in_order() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("spool");
    ends(Spec { spool: Some(transcript(&path)), ..spec(&["seq", "1", "3000000"]) }).await;
    let text = std::fs::read_to_string(path).unwrap();
    let (head, tail) = text.split_once("\n[").unwrap();
    let (cut, tail) = tail.split_once(" bytes left out]\n").unwrap();
    let whole = (1..=3_000_000).flat_map(|number: u32| [number.to_string(), "\n".into()]).collect::<String>();
    assert_eq!(cut.parse::<usize>().unwrap() + 16 * MIB, whole.len());
    assert!(head == &whole[..8 * MIB] && tail == &whole[whole.len() - 8 * MIB..]);
}

#[tokio::test]
async fn a_spool_can_be_read_while_the_call_runs() {
    let report = Report::new();
    let path = report.0.path().join("spool");
    let script = "echo out; echo err >&2; sleep 1000 & echo $! > $FIFO; wait";
    let (cancel, call, _) = begun(Spec { spool: Some(transcript(&path)), ..report.sh(script) }, &report).await;
    until("both lines are there", async || std::fs::read_to_string(&path).unwrap().len() == 8).await;
    cancel.cancel();
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_is_left_of_a_run_is_found_and_stopped() {
    become_subreaper();
    let run = mark("r-leftovers", "").run;
    let report = Report::new();
    // The second process descends from the first, and is no longer marked once it reports.
    let cleaned = r#"env -i FIFO="$FIFO" sh -c 'echo $$ > "$FIFO"; exec sleep 1000'; exit"#;
    let script = r#"setsid sh -c "$CLEANED" & exit"#;
    let mut left = Plain::new("/bin/sh");
    left.args(["-c", script])
        .env(RUN_VAR, &run)
        .env(CLONE_VAR, "here")
        .env("FIFO", report.path())
        .env("CLEANED", cleaned);
    assert!(left.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let cleaned = report.process().await;
    assert_eq!(stop_leftovers(&Leftovers { run: &run, clone: "elsewhere", ..Default::default() }, GRACE).await, 0);
    assert!(cleaned.runs());
    assert_eq!(stop_leftovers(&Leftovers { run: &run, clone: "here", ..Default::default() }, GRACE).await, 2);
    assert!(!cleaned.runs());
    assert_eq!(stop_leftovers(&Leftovers { run: &run, clone: "here", ..Default::default() }, GRACE).await, 0);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_shed_its_mark_is_found_by_what_its_driver_wrote_down_or_by_where_it_works() {
    become_subreaper();
    let dir = tempfile::tempdir().unwrap();
    let (list, place) = (dir.path().join("processes"), dir.path().join("place"));
    std::fs::create_dir(&place).unwrap();
    let daemon = async |environment: &str, cwd: &Path| {
        let report = Report::new();
        // The process is marked as another run's, so that calls of other tests do not take it for theirs.
        let script = format!(
            "setsid env {environment} AGENTLOOP_RUN=another FIFO=\"$FIFO\" sh -c 'echo $$ > \"$FIFO\"; exec sleep 1000' &"
        );
        let mut left = Plain::new("/bin/sh");
        left.args(["-c", &script])
            .env("FIFO", report.path())
            .current_dir(cwd)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        assert!(left.status().unwrap().success());
        report.process().await
    };
    // Processes of the user: they were started by a login, or work elsewhere.
    let editor = daemon("HOME=/", &place).await;
    let other = daemon("-i", dir.path()).await;
    let scrubbed = daemon("-i", &place).await;
    let listed = daemon("HOME=/", dir.path()).await;
    let head = super::tree::list_head(&list).unwrap() + "\n";
    let elsewhere = super::tree::list_head(&place.join("processes")).unwrap() + "\n";
    let line = |process: &Process| format!("{} {}\n", process.pid, process.started);
    let reused = Process { pid: other.pid, started: other.started + 1 };
    let left = Leftovers { run: "r-shed", clone: "here", listed: Some(&list), places: vec![place] };
    std::fs::write(&list, format!("of another boot\n{}", line(&other))).unwrap();
    assert_eq!(stop_leftovers(&left, GRACE).await, 1);
    assert!(!scrubbed.runs() && listed.runs());
    // A copy of the repository has a copy of the list.
    std::fs::write(&list, elsewhere + &line(&other)).unwrap();
    assert_eq!(stop_leftovers(&left, GRACE).await, 0);
    std::fs::write(&list, format!("{head}{}{}1 1\nx\n", line(&listed), line(&reused))).unwrap();
    assert_eq!(stop_leftovers(&left, GRACE).await, 1);
    assert!(!listed.runs() && editor.runs() && other.runs());
    let mut known = Vec::new();
    list_descendants(&list, &mut known).unwrap();
    let text = std::fs::read_to_string(&list).unwrap();
    assert!(text.contains(&line(&editor)) && text.starts_with(&head), "{text}");
    for process in [editor, other] {
        os::signal(process, rustix::process::Signal::KILL).unwrap();
    }
}

#[tokio::test]
async fn a_child_knows_its_mark_and_what_it_is_given() {
    let echo = sh("echo $AGENTLOOP_RUN/$AGENTLOOP_CALL $GIT_INDEX_FILE${HOME-none}");
    let env = vec![("GIT_INDEX_FILE".into(), Some("index".into())), ("HOME".into(), None)];
    let finished = ends(Spec { mark: Some(mark("r-mark", "c")), env, ..echo }).await;
    assert_eq!(finished.stdout.text(), format!("{}/c indexnone\n", mark("r-mark", "c").run));
}

#[test]
fn a_child_starts_without_gits_local_environment() {
    let command = command(&sh("")).unwrap();
    let removed: Vec<_> = command.as_std().get_envs().filter(|(_, value)| value.is_none()).collect();
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT"] {
        assert!(removed.contains(&(name.as_ref(), None)), "{name}");
    }
}
