//! What the system tells about processes, and how it lets them be signalled: the one seam between systems.

use rustix::process::{Pid, Signal};

/// A process, told apart from a later one with the same id by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Clock ticks since boot; always 0 where the system does not say.
    pub(super) started: u64,
}

impl Process {
    pub(super) fn of(pid: i32) -> Self {
        Self { pid, started: started(pid) }
    }

    /// The same process, still running (a zombie is not).
    pub(super) fn runs(self) -> bool {
        row(self.pid).is_some_and(|row| row.process == self && !row.dead)
    }
}

/// A line of the process table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub process: Process,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// Ended, and not yet reaped by its parent.
    pub dead: bool,
}

/// The name of our program's file.
const PROGRAM: &str = "git-agentloop";

pub use system::hangup_ends_us;
pub(super) use system::{
    CAN_ADOPT, adopt_orphans, boot, children, daemons_in, descendants, environ, is_open, is_our_program, locked_files,
    marked, row, signal, started, table,
};

fn raw(pid: i32) -> rustix::io::Result<Pid> {
    Some(pid).filter(|&pid| pid > 0).and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)
}

/// Linux: `/proc` (proc(5)), pidfds and the child subreaper.
#[cfg(target_os = "linux")]
mod system {
    use super::{Process, Row, Signal, raw};
    use rustix::io::{Errno, Result};
    use rustix::process::{
        PidfdFlags, getpid, getuid, kill_process, pidfd_open, pidfd_send_signal, set_child_subreaper,
    };
    use std::collections::{HashMap, HashSet};
    use std::ffi::OsStr;
    use std::fs;
    use std::io::Read;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::MetadataExt as _;
    use std::path::{Path, PathBuf};

    /// Whether orphans can become our children.
    pub(in super::super) const CAN_ADOPT: bool = true;

    /// Whether a hangup ends us, and is not ignored, as nohup(1) has it for what it starts (`proc_pid_status(5)`, `SigIgn`).
    #[must_use]
    pub fn hangup_ends_us() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        ignored.is_some_and(|mask| mask & (1 << (Signal::HUP.as_raw() - 1)) == 0)
    }

    /// Every process that can be seen.
    pub(in super::super) fn table() -> Vec<Row> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries.flatten().filter_map(|entry| row(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// One process, if there is one.
    pub(in super::super) fn row(pid: i32) -> Option<Row> {
        parse(pid, &stat_line(pid)?)
    }

    fn stat_line(pid: i32) -> Option<Vec<u8>> {
        // One read: a stat line is made whole at the first, and is far shorter than this.
        let mut line = vec![0; 1024];
        let length = fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
        line.truncate(length);
        Some(line)
    }

    /// When a process started, in clock ticks since boot; 0 where there is none.
    pub(in super::super) fn started(pid: i32) -> u64 {
        row(pid).map_or(0, |row| row.process.started)
    }

    /// Reads a stat line: the name, in parentheses, may itself hold spaces and parentheses.
    fn parse(pid: i32, line: &[u8]) -> Option<Row> {
        let name_ends = line.iter().rposition(|&byte| byte == b')')?;
        let fields: Vec<&str> = str::from_utf8(&line[name_ends + 1..]).ok()?.split_ascii_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
        let threads = number(17)?;
        Some(Row {
            process: Process { pid, started: fields.get(19)?.parse().ok()? },
            parent: number(1)?,
            group: number(2)?,
            session: number(3)?,
            // A process whose first thread has ended while others run reads as a zombie too.
            dead: matches!(fields[0], "Z" | "X" | "x") && threads <= 1,
        })
    }

    /// The environment a process was started with, as NUL-separated assignments; `None` where we may not see it.
    pub(in super::super) fn environ(pid: i32) -> Option<Vec<u8>> {
        fs::read(format!("/proc/{pid}/environ")).ok()
    }

    /// Which of these were started with every one of these assignments in their environment.
    pub(in super::super) fn marked(rows: &[Row], assignments: &[Vec<u8>]) -> HashSet<i32> {
        let carries = |row: &&Row| {
            environ(row.process.pid).is_some_and(|environ| {
                let has = |wanted: &Vec<u8>| environ.split(|&byte| byte == 0).any(|found| found == wanted);
                assignments.iter().all(has)
            })
        };
        rows.iter().filter(|row| !row.dead).filter(carries).map(|row| row.process.pid).collect()
    }

    /// What tells the time since this boot from the time since others.
    pub(in super::super) fn boot() -> Option<String> {
        Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim_end().to_owned())
    }

    /// These children of ours and everything below them.
    pub(in super::super) fn descendants(children: Vec<i32>) -> Vec<Process> {
        let (mut found, mut next) = (Vec::new(), children);
        let mut seen: HashSet<i32> = next.iter().copied().collect();
        while let Some(pid) = next.pop() {
            let Some(row) = row(pid) else { continue };
            found.push(row.process);
            // One that has ended has no more.
            next.extend(children_of(&pid.to_string()).unwrap_or_default().into_iter().filter(|pid| seen.insert(*pid)));
        }
        found
    }

    /// Daemons of this user's that work in one of `places`, and that no login has started: they have no terminal, nobody of
    /// their session but themselves started them, and their environment has no HOME, as one has that was cleaned. A
    /// terminal, an editor or a language server that the user has open there is none.
    pub(in super::super) fn daemons_in(rows: &[Row], places: &[PathBuf]) -> HashSet<i32> {
        let sessions: HashMap<i32, i32> = rows.iter().map(|row| (row.process.pid, row.session)).collect();
        let is_daemon = |row: &&Row| {
            let leader = row.session;
            let is_led = leader != row.process.pid && sessions.contains_key(&leader);
            !row.dead && !is_led && sessions.get(&row.parent) != Some(&leader)
        };
        let is_meant = |row: &&Row| {
            let pid = row.process.pid;
            let is_ours = fs::metadata(format!("/proc/{pid}")).is_ok_and(|about| about.uid() == getuid().as_raw());
            let has_home = |environ: Vec<u8>| environ.split(|&byte| byte == 0).any(|entry| entry.starts_with(b"HOME="));
            is_ours
                && has_no_terminal(pid)
                && environ(pid).is_some_and(|environ| !has_home(environ))
                && uses(pid).iter().any(|path| places.iter().any(|place| path.starts_with(place)))
        };
        if places.is_empty() {
            return HashSet::new();
        }
        rows.iter().filter(is_daemon).filter(is_meant).map(|row| row.process.pid).collect()
    }

    fn has_no_terminal(pid: i32) -> bool {
        let terminal = |line: Vec<u8>| {
            let name_ends = line.iter().rposition(|&byte| byte == b')')?;
            let fields = str::from_utf8(&line[name_ends + 1..]).ok()?;
            fields.split_ascii_whitespace().nth(4)?.parse::<i32>().ok()
        };
        stat_line(pid).and_then(terminal) == Some(0)
    }

    /// Its working directory, its program and its open files.
    fn uses(pid: i32) -> Vec<PathBuf> {
        let at = format!("/proc/{pid}");
        let open = fs::read_dir(format!("{at}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let links = [Path::new(&at).join("cwd"), Path::new(&at).join("exe")].into_iter().chain(open);
        let target = |link: PathBuf| {
            let path = fs::read_link(link).ok()?;
            // What was removed is shown so (proc_pid_fd(5)).
            let name = path.as_os_str().as_bytes();
            let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(name)))
        };
        links.filter_map(target).collect()
    }

    /// Our own children, the adopted ones included; `None` where the kernel does not list them.
    pub(in super::super) fn children() -> Option<Vec<i32>> {
        children_of("self")
    }

    fn children_of(process: &str) -> Option<Vec<i32>> {
        let mut found = Vec::new();
        // Twice: a listing may miss a process when another ends in the middle of it (proc_tid_children(5)).
        for _ in 0..2 {
            for thread in fs::read_dir(format!("/proc/{process}/task")).ok()?.flatten() {
                match fs::read_to_string(thread.path().join("children")) {
                    Ok(list) => found.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
                    Err(_) if thread.path().exists() => return None,
                    Err(_) => {}
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        Some(found)
    }

    /// Signals this very process: never a later one that was given its id.
    pub(in super::super) fn signal(process: Process, signal: Signal) -> Result<()> {
        let pid = raw(process.pid)?;
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            // A kernel before 5.3, or a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => None,
            Err(error) => return Err(error),
        };
        if !process.runs() {
            return Err(Errno::SRCH);
        }
        match handle {
            Some(handle) => pidfd_send_signal(handle, signal),
            None => kill_process(pid, signal),
        }
    }

    /// The files that a process holds exclusive locks on (flock(2)); `None` where we may not see it.
    pub(in super::super) fn locked_files(pid: i32) -> Option<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten() {
            // A descriptor that was closed meanwhile holds none.
            let about = fs::read_to_string(entry.path()).unwrap_or_default();
            let is_lock =
                |line: &str| line.starts_with("lock:") && line.contains(" FLOCK ") && line.contains(" WRITE ");
            if about.lines().any(is_lock)
                && let Ok(path) = fs::read_link(Path::new(&format!("/proc/{pid}/fd")).join(entry.file_name()))
            {
                found.push(without_mark(path));
            }
        }
        Some(found)
    }

    /// The kernel marks the path of a file that was deleted.
    fn without_mark(path: PathBuf) -> PathBuf {
        let bytes = path.as_os_str().as_bytes();
        bytes.strip_suffix(b" (deleted)").map(|path| PathBuf::from(OsStr::from_bytes(path))).unwrap_or(path)
    }

    /// Whether a process runs the program that we run, this installation of it or another.
    pub(in super::super) fn is_our_program(pid: i32) -> bool {
        let place = |pid: &str| {
            let path = Path::new("/proc").join(pid).join("exe");
            let about = path.metadata().ok().map(|about| (about.dev(), about.ino()));
            (about, path.read_link().ok().and_then(|path| Some(without_mark(path).file_name()?.to_owned())))
        };
        let ((file, name), (own_file, own_name)) = (place(&pid.to_string()), place("self"));
        file.is_some() && file == own_file
            || name.is_some_and(|name| Some(&name) == own_name.as_ref() || name == super::PROGRAM)
    }

    /// Whether a process that we may look at has the file open.
    pub(in super::super) fn is_open(file: &Path) -> bool {
        let Ok(file) = file.symlink_metadata() else { return false };
        let is_it = |entry: &fs::DirEntry| {
            entry.path().metadata().is_ok_and(|about| (about.dev(), about.ino()) == (file.dev(), file.ino()))
        };
        let Ok(entries) = fs::read_dir("/proc") else { return true };
        let processes = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(is_number));
        let mut open =
            processes.flat_map(|entry| fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten());
        open.any(|entry| is_it(&entry))
    }

    fn is_number(text: &str) -> bool {
        text.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// Makes orphans below us our children; whether it could be done.
    pub(in super::super) fn adopt_orphans() -> bool {
        // To pid 1 come the orphans of everything in its namespace: those are not all ours.
        getpid().as_raw_nonzero().get() != 1 && set_child_subreaper(Some(getpid())).is_ok()
    }

    #[cfg(test)]
    #[test]
    fn a_stat_line_is_read_past_any_name() {
        let line = |state, threads| {
            format!("7 (a) Z 1 (b c) {state} 5 6 4 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 {threads} 0 12345 1 2\n")
        };
        let row = Row { process: Process { pid: 7, started: 12345 }, parent: 5, group: 6, session: 4, dead: false };
        assert_eq!(parse(7, line("S", 1).as_bytes()), Some(row));
        assert_eq!(parse(7, line("Z", 1).as_bytes()), Some(Row { dead: true, ..row }));
        assert_eq!(parse(7, line("Z", 2).as_bytes()), Some(row));
        assert_eq!(parse(7, b"7 (cut"), None);
    }
}

/// Elsewhere: what ps(1) prints. It is weaker than Linux: start times are not known, so a reused process id is not
/// noticed; orphans go to pid 1, so one that made its own session is found by its mark alone; and marks are not shown
/// for programs the system protects. What is in the process group is always found.
#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Process, Row, Signal, raw};
    use rustix::io::Result;
    use std::collections::HashSet;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    pub(in super::super) const CAN_ADOPT: bool = false;

    /// Not told here: a hangup does what it does.
    #[must_use]
    pub fn hangup_ends_us() -> bool {
        false
    }

    fn ps(arguments: &[&str]) -> String {
        let output = Command::new("ps").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    }

    pub(in super::super) fn table() -> Vec<Row> {
        ps(&["-A", "-o", "pid=,ppid=,pgid=,stat="]).lines().filter_map(parse).collect()
    }

    pub(in super::super) fn row(pid: i32) -> Option<Row> {
        ps(&["-o", "pid=,ppid=,pgid=,stat=", "-p", &pid.to_string()]).lines().find_map(parse)
    }

    fn parse(line: &str) -> Option<Row> {
        let mut fields = line.split_ascii_whitespace();
        let mut number = || fields.next()?.parse::<i32>().ok();
        let (pid, parent, group) = (number()?, number()?, number()?);
        let dead = fields.next()?.starts_with('Z');
        Some(Row { process: Process { pid, started: 0 }, parent, group, session: 0, dead })
    }

    pub(in super::super) fn started(_: i32) -> u64 {
        0
    }

    /// Asked of adopted orphans only, and here there are none.
    pub(in super::super) fn environ(_: i32) -> Option<Vec<u8>> {
        None
    }

    /// `-E` prints the environment after the command line, as words.
    pub(in super::super) fn marked(_: &[Row], assignments: &[Vec<u8>]) -> HashSet<i32> {
        let carries = |line: &str| {
            let words: HashSet<&[u8]> = line.split_ascii_whitespace().map(str::as_bytes).collect();
            assignments.iter().all(|wanted| words.contains(&wanted[..]))
        };
        let list = ps(&["-A", "-E", "-ww", "-o", "pid=,command="]);
        let found = list.lines().filter(|line| carries(line));
        found.filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok()).collect()
    }

    pub(in super::super) fn children() -> Option<Vec<i32>> {
        None
    }

    /// Not known here, where orphans are not adopted and start times are not told.
    pub(in super::super) fn boot() -> Option<String> {
        None
    }

    pub(in super::super) fn descendants(_: Vec<i32>) -> Vec<Process> {
        Vec::new()
    }

    /// Not looked for here: lsof(8) would tell, but neither when a process started nor what it was started with.
    pub(in super::super) fn daemons_in(_: &[Row], _: &[PathBuf]) -> HashSet<i32> {
        HashSet::new()
    }

    pub(in super::super) fn signal(process: Process, signal: Signal) -> Result<()> {
        rustix::process::kill_process(raw(process.pid)?, signal)
    }

    /// Not told here: who drives a run is then known by what its lock has on record.
    pub(in super::super) fn locked_files(_: i32) -> Option<Vec<PathBuf>> {
        None
    }

    pub(in super::super) fn is_our_program(pid: i32) -> bool {
        let path = ps(&["-o", "comm=", "-p", &pid.to_string()]);
        Path::new(path.trim()).file_name().is_some_and(|name| name == super::PROGRAM)
    }

    /// Asks lsof(8), which exits with 1 where no process has the file open.
    pub(in super::super) fn is_open(file: &Path) -> bool {
        let asked = Command::new("lsof").arg("--").arg(file).stdin(Stdio::null()).stderr(Stdio::null()).output();
        asked.map_or(true, |asked| asked.status.code() != Some(1))
    }

    pub(in super::super) fn adopt_orphans() -> bool {
        false
    }
}
