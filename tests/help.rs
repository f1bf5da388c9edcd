//! Help as git users expect it: the manual, completion in real shells, the pager, formats that stay.

use std::process::{Command, Stdio};

use crate::review::run_with_files;
use crate::support::{PROGRAM, Ran, Repo, gits};

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A repository whose user has the program on PATH, its manual and its completions installed.
fn installed() -> Repo {
    let git = gits().into_iter().next_back().unwrap();
    let repo = Repo::new().using(&git);
    let said = repo.agentloop_with(&["install"], &[("XDG_DATA_HOME", "")]).expect(0);
    assert!(said.stdout.contains("pages in") && said.stdout.contains("conf.d/git-agentloop.fish"), "{said:?}");
    repo
}

/// A page without the overstrikes that a terminal shows as bold and underlined.
fn plain(page: &str) -> String {
    let mut text: Vec<char> = Vec::new();
    for character in page.chars() {
        if character == '\u{8}' { _ = text.pop() } else { text.push(character) }
    }
    text.into_iter().collect()
}

#[test]
fn every_page_of_the_manual_renders_without_a_warning() {
    let repo = installed();
    let pages = repo.home().join(".local/share/man/man1");
    let names: Vec<String> =
        std::fs::read_dir(&pages).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    for name in ["git-agentloop.1", "git-agentloop-run.1", "git-agentloop-hooks-install.1", "git-agentloop-merge.1"] {
        assert!(names.iter().any(|have| have == name), "{name} is not among {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("drive") || name.contains("complete")), "{names:?}");
    if !has("man") || !has("groff") {
        eprintln!("there is no man here to render the pages with");
        return;
    }
    for name in &names {
        let mut man = repo.command("man");
        man.args(["--warnings", "-E", "UTF-8", "-Tutf8", "-P", "cat", "-l"])
            .arg(pages.join(name))
            .env("MANWIDTH", "80");
        let output = man.output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{name}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = plain(&String::from_utf8_lossy(&output.stdout));
        let words = name.trim_end_matches(".1");
        assert!(text.contains("NAME") && text.contains("SYNOPSIS") && text.contains("EXAMPLES"), "{name}:\n{text}");
        assert!(text.replace('\u{2010}', "-").contains(words), "{name}:\n{text}");
    }
    let whole = std::fs::read_to_string(pages.join("git-agentloop.1")).unwrap();
    for words in ["agentloop.maxIterations", "AGENTLOOP_MAX_ITERATIONS", "color.agentloop", "refs/notes/agentloop/RUN"]
    {
        assert!(whole.contains(words), "{words}");
    }
    // As git itself shows it.
    for arguments in [["help", "agentloop"], ["agentloop", "--help"]] {
        let shown = repo
            .command("git")
            .args(arguments)
            .env("MANPAGER", "cat")
            .env("MANPATH", repo.home().join(".local/share/man"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.status.success() && plain(&text).contains("AGENTLOOP"), "{shown:?}");
    }
    let all = repo.git(&["help", "-a"]);
    assert!(all.contains("agentloop"), "{all}");
    repo.agentloop_with(&["install", "--uninstall"], &[("XDG_DATA_HOME", "")]).expect(0);
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), 0);
}

#[test]
fn fish_completes_verbs_options_and_runs() {
    if !has("fish") {
        eprintln!("there is no fish here");
        return;
    }
    let repo = installed();
    let run = run_with_files(&repo, "write files");
    let complete = |line: &str| {
        let script = format!("complete -C '{line}'");
        let output = repo.command("fish").args(["-c", &script]).output().unwrap();
        Ran {
            code: 0,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    };
    for (line, wanted) in [
        ("git-agentloop re", "resume\t"),
        ("git agentloop sho", "show\tA run at a glance"),
        ("git agentloop show wri", &format!("{run}\twrite files")),
        ("git agentloop run --max-it", "--max-iterations\tIterations the run may take"),
        ("git agentloop run --backend mo", "mock"),
        ("git agentloop hooks ins", "install\tPut them in place"),
    ] {
        let found = complete(line);
        assert!(found.stdout.lines().any(|have| have.starts_with(wanted)), "{line}: {found:?}");
    }
}

#[test]
fn bash_completes_through_git_s_own_completion() {
    let git_completion =
        ["/usr/share/bash-completion/completions/git", "/usr/local/share/bash-completion/completions/git"];
    let Some(git_completion) = git_completion.into_iter().find(|path| std::path::Path::new(path).exists()) else {
        eprintln!("there is no completion of git for bash here");
        return;
    };
    let repo = installed();
    let run = run_with_files(&repo, "write files");
    let ours = repo.home().join(".local/share/bash-completion/completions/git-agentloop");
    let complete = |words: &[&str]| {
        let line = words.join(" ");
        let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let script = format!(
            "source {git_completion}; source {}; COMP_WORDS=({}); COMP_CWORD={}; COMP_LINE='{line}'; COMP_POINT={}; \
             __git_wrap__git_main; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            ours.display(),
            quoted.join(" "),
            words.len() - 1,
            line.len()
        );
        let output = repo.command("bash").args(["--norc", "-c", &script]).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let has_line = |words: &[&str], wanted: &str| {
        let found = complete(words);
        assert!(found.lines().any(|have| have.trim() == wanted), "{words:?}: {found}");
    };
    has_line(&["git", "agentloop", "resu"], "resume");
    has_line(&["git", "agentloop", "show", "wri"], &run);
    has_line(&["git", "agentloop", "run", "--max-it"], "--max-iterations");
    has_line(&["git", "--no-pager", "agentloop", "hooks", "un"], "uninstall");
    has_line(&["git", "agentloop", "merge", "--integrator", "mo"], "mock");
}

#[test]
fn zsh_s_own_completion_of_git_calls_ours() {
    if !has("zsh") || !has("script") {
        eprintln!("there is no zsh here");
        return;
    }
    let repo = installed();
    let function = std::fs::read_to_string(repo.home().join(".local/share/zsh/site-functions/_git-agentloop")).unwrap();
    assert!(function.starts_with("#compdef git-agentloop\n"));
    let script = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; (( $+functions[_git-agentloop] )) && \
         _describe() {{ print -l ${{(P)2}} }}; words=(git-agentloop resu); CURRENT=2; _git-agentloop",
        repo.home().join(".local/share/zsh/site-functions").display()
    );
    let output = repo.command("zsh").args(["-f", "-c", &script]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("resume:Go on with a run"), "{output:?}");
}

#[test]
fn long_answers_go_through_git_s_pager() {
    if !has("script") {
        eprintln!("there is no script(1) here to make a terminal with");
        return;
    }
    let repo = installed();
    run_with_files(&repo, "write files");
    let pager = repo.script("pager", "echo PAGED; cat");
    repo.git(&["config", "core.pager", &pager]);
    repo.git(&["config", "color.ui", "auto"]);
    let on_terminal = |arguments: &str| {
        let mut script = repo.command("script");
        script
            .args(["-qec", &format!("env -u NO_COLOR {arguments}"), "/dev/null"])
            .env("TERM", "xterm")
            .stdin(Stdio::null());
        String::from_utf8_lossy(&script.output().unwrap().stdout).into_owned()
    };
    let shown = on_terminal(&format!("{PROGRAM} show"));
    assert!(shown.contains("PAGED") && shown.contains("made-build.txt"), "{shown}");
    assert!(shown.contains("\u{1b}[32m+"), "git colours as for a terminal: {shown}");
    assert!(on_terminal(&format!("{PROGRAM} config")).contains("PAGED"));
    assert!(!on_terminal("git --no-pager agentloop show").contains("PAGED"));
    assert!(!on_terminal("git -c pager.agentloop=false agentloop show").contains("PAGED"));
    assert!(!on_terminal(&format!("{PROGRAM} status")).contains("PAGED"));
    repo.git(&["config", "color.ui", "false"]);
    assert!(!on_terminal(&format!("{PROGRAM} show")).contains("\u{1b}[32m+"));
}

#[test]
fn colours_and_pager_are_those_of_git_s_settings() {
    if !has("script") {
        eprintln!("there is no script(1) here to make a terminal with");
        return;
    }
    let repo = installed();
    let run = run_with_files(&repo, "write files");
    let pager = repo.script("pager", "echo PAGED; cat");
    repo.git(&["config", "core.pager", &pager]);
    let on_terminal = |env: &str, arguments: &str| {
        let mut script = repo.command("script");
        let command = format!("env -u NO_COLOR {env} {PROGRAM} {arguments}");
        script.args(["-qec", &command, "/dev/null"]).env("TERM", "xterm").stdin(Stdio::null());
        String::from_utf8_lossy(&script.output().unwrap().stdout).into_owned()
    };
    let is_coloured = |text: &str| text.contains("\u{1b}[3");
    assert!(on_terminal("", "list").contains("\u{1b}[32mcompleted\u{1b}[m  2/4"), "{}", on_terminal("", "list"));
    for verb in ["list", "status", "show", "tail", "result", "tail -f"] {
        assert!(is_coloured(&on_terminal("", verb)), "{verb}");
        for env in ["NO_COLOR=1", "TERM=dumb", "GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=color.ui GIT_CONFIG_VALUE_0=never"]
        {
            let text = on_terminal(env, verb);
            // What is under way is still drawn, but on a terminal that cannot.
            let is_plain = if env == "TERM=dumb" { !text.contains('\u{1b}') } else { !is_coloured(&text) };
            assert!(is_plain, "{env} {verb}: {text:?}");
        }
        let plain = repo.command(PROGRAM).env_remove("NO_COLOR").args(verb.split(' ')).output().unwrap();
        assert!(!plain.stdout.contains(&0x1b), "{verb} to a file");
    }
    // What is long, and nobody follows, is paged.
    let long = repo.script(
        "long",
        "read -r role; cat > /dev/null; case \"$role\" in *subagent*) seq 1 99 ;; *reviewer*) \
        echo '{\"gates_passed\": true, \"goal_complete\": true}' ;; *) echo '[\"one\"]' ;; esac",
    );
    repo.git(&["config", "agentloop.backend.long.command", &long]);
    for _ in 0..23 {
        repo.mock_run("another", &["--max-iterations", "2"]);
    }
    repo.agentloop(&["run", "a long one", "--criteria", "x", "--backend", "long"]).expect(0);
    let shown = ["list", "output a-long iter1/s1", &format!("tail {run}")].map(|verb| on_terminal("", verb));
    assert!(shown.iter().all(|text| text.contains("PAGED")), "{shown:?}");
    assert!(!on_terminal("", "status").contains("PAGED") && !on_terminal("", "tail -f").contains("PAGED"));
    // The closer setting wins, and 'always' is for files too.
    repo.git(&["config", "color.ui", "always"]);
    let list = || {
        String::from_utf8(repo.command(PROGRAM).env_remove("NO_COLOR").arg("list").output().unwrap().stdout).unwrap()
    };
    assert!(is_coloured(&list()));
    repo.git(&["config", "color.agentloop", "false"]);
    assert!(!is_coloured(&list()));
}

#[test]
fn formats_for_scripts_and_prompts() {
    let repo = Repo::new();
    assert_eq!(repo.agentloop(&["status", "--short"]).expect(0).stdout, "");
    let run = run_with_files(&repo, "write files");
    let json = repo.status(&run);
    let porcelain = repo.agentloop(&["status", "--porcelain"]).expect(0).stdout;
    let expected = format!(
        "run_id {run}\nstate completed\nrunning 0\nphase done\niteration 2\nmax_iterations 4\nevents {}\nstarted_at {}\n\
         stop_reason goal_complete\nbranch agentloop/{run}\ngoal write files\nverified 1\n",
        json["events"], json["started_at"]
    );
    assert_eq!(porcelain, expected);
    let updated = repo.agentloop(&["list", "--json"]).expect(0).json()[0]["updated_at"].as_f64().unwrap();
    let list = repo.agentloop(&["list", "--porcelain"]).expect(0).stdout;
    assert_eq!(list, format!("{run}\tcompleted\t2\t4\t{}\t{updated}\t0\twrite files\n", json["started_at"]));
    assert_eq!(repo.agentloop(&["status", "--short"]).expect(0).stdout, "completed\n");
    let nowhere = Command::new(PROGRAM).args(["status", "--short"]).current_dir("/").output().unwrap();
    assert!(nowhere.status.success() && nowhere.stdout.is_empty() && nowhere.stderr.is_empty(), "{nowhere:?}");
}
