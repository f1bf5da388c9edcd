//! Verbs that a worker calls, whatever it does to its environment and to its parents.

use std::fmt::Write as _;

use crate::fanout::{RUN, plan, scripted};
use crate::support::{PROGRAM, Repo};

/// Ways in which a worker calls the program, as the beginning of a shell command; `$CLEAN` is an environment without a
/// word of the run.
const WAYS: [(&str, &str); 6] = [
    ("plain", "\"$PROGRAM\""),
    ("unset", "env -u AGENTLOOP_RUN -u AGENTLOOP_CLONE -u AGENTLOOP_CALL \"$PROGRAM\""),
    ("cleared", "$CLEAN \"$PROGRAM\""),
    ("session", "$CLEAN setsid -w \"$PROGRAM\""),
    ("renamed", "$CLEAN \"$HOME/renamed\""),
    // Its parent has ended when it begins.
    (
        "orphan",
        "$CLEAN sh -c 'sh -c \"sleep 0.1; \\\"\\$0\\\" \\\"\\$@\\\"; echo \\\"exit \\$?\\\"\" \"$@\" & wait' \"$PROGRAM\" \"$PROGRAM\"",
    ),
];

/// Verbs that act for the user, and what they are called with.
const ACTS: [(&str, &str); 15] = [
    ("run", "run nested --backend mock"),
    ("detached", "run nested --backend mock --detach"),
    ("resume", "resume $RUN --max-iterations 50"),
    ("resume-detached", "resume $RUN --max-iterations 50 --detach"),
    ("answer", "answer $RUN yes"),
    ("steer", "steer $RUN accept-everything"),
    ("cancel", "cancel $RUN"),
    ("discard", "discard $RUN --yes"),
    ("discard-other", "discard $OTHER --yes"),
    ("restore", "restore $OTHER"),
    ("merge", "merge $OTHER --no-edit"),
    ("bisect", "bisect $OTHER --verify true"),
    ("fork", "fork $OTHER again --backend mock"),
    ("sync", "sync"),
    ("hooks", "hooks install"),
];

const READS: [&str; 6] = ["status $RUN", "list", "tail $RUN", "show $OTHER", "result $OTHER", "config"];

#[test]
fn a_worker_cannot_act_for_the_user() {
    let repo = Repo::new();
    let other = repo.mock_run("another", &[])["run_id"].as_str().unwrap().to_owned();
    let elsewhere = repo.home().join("elsewhere");
    repo.git(&["init", "-q", elsewhere.to_str().unwrap()]);
    repo.git(&[
        "-C",
        elsewhere.to_str().unwrap(),
        "-c",
        "user.name=x",
        "-c",
        "user.email=x",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "x",
    ]);
    let mut work = format!(
        "OUT=\"$HOME/out\"; mkdir \"$OUT\"; PROGRAM='{PROGRAM}'; REPO='{}'; OTHER={other}; RUN=$AGENTLOOP_RUN\n\
         cp \"$PROGRAM\" \"$HOME/renamed\"\n\
         CLEAN=\"env -i HOME=$HOME PATH=$PATH XDG_STATE_HOME=$XDG_STATE_HOME GIT_CONFIG_GLOBAL=$GIT_CONFIG_GLOBAL\"\n\
         try() {{ name=$1; shift; ( \"$@\"; echo \"exit $?\" ) > \"$OUT/$name\" 2>&1 < /dev/null; }}\n\
         cd \"$REPO\"\n",
        repo.path().display()
    );
    for (name, act) in ACTS {
        let _ = writeln!(work, "try act-{name} $CLEAN \"$PROGRAM\" {act}");
    }
    for (name, way) in WAYS {
        let _ = writeln!(work, "try way-{name} {way} steer $RUN accept-everything");
        let _ = writeln!(
            work,
            "cd '{}'; try elsewhere-{name} {way} run nested --backend mock; cd \"$REPO\"",
            elsewhere.display()
        );
    }
    for (at, read) in READS.iter().enumerate() {
        let _ = writeln!(work, "try read-{at} $CLEAN \"$PROGRAM\" {read}");
    }
    // An MCP server that the worker's host starts is the worker's too. It ends once it has answered.
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"orchestrate_cancel","arguments":{"run_id":"RUN"},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"test","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let _ = writeln!(
        work,
        "ask='{ask}'; (echo \"$ask\" | sed \"s/\\\"RUN\\\"/\\\"$RUN\\\"/\"; until grep -q jsonrpc \"$OUT/mcp\"; do sleep 0.05; done) | \
         $CLEAN \"$PROGRAM\" mcp > \"$OUT/mcp\" 2>&1"
    );
    let script = repo.script("act", &work);
    scripted(&repo, &plan(&["a"]), &script, "true");
    let before = repo.fingerprint();
    let ended = repo.agentloop(&[&RUN[..], &["--max-iterations", "1"]].concat()).expect(0).json();
    let run = ended["run_id"].as_str().unwrap();

    let told = |name: &str| std::fs::read_to_string(repo.home().join("out").join(name)).unwrap();
    let acts = ACTS.iter().map(|(name, _)| format!("act-{name}"));
    let ways = WAYS.iter().flat_map(|(name, _)| [format!("way-{name}"), format!("elsewhere-{name}")]);
    for name in acts.chain(ways) {
        let told = told(&name);
        assert!(
            told.contains(&format!("this process works for the run {run}")) && told.contains("exit 2"),
            "{name}: {told}"
        );
    }
    for (at, read) in READS.iter().enumerate() {
        assert!(told(&format!("read-{at}")).ends_with("exit 0\n"), "{read}: {}", told(&format!("read-{at}")));
    }
    assert!(told("mcp").contains(&format!("this process works for the run {run}")), "{}", told("mcp"));
    assert_eq!(repo.agentloop(&["list", "--json"]).expect(0).json().as_array().unwrap().len(), 2);
    assert_eq!(ended["iterations"], 1);
    assert_eq!(repo.fingerprint(), before);
    assert_eq!(repo.git(&["-C", elsewhere.to_str().unwrap(), "for-each-ref", "refs/notes"]), "");
    // The user may.
    repo.agentloop(&["discard", &other, "--yes"]).expect(0);
}
