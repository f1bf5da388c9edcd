//! Interface to the operating system's processes, the only part that differs between systems.

use rustix::process::{Pid, Signal};

/// A process, distinguished from a later one with the same id by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Process {
    pub(super) pid: i32,
    /// Start time in clock ticks since boot; always 0 if the system does not report it.
    pub(super) started: u64,
}

impl Process {
    pub(super) fn of(pid: i32) -> Self {
        Self { pid, started: started(pid) }
    }

    /// Returns whether the process is still running; a zombie is not.
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
    /// True if it has ended and was not reaped yet.
    pub dead: bool,
}

/// File name of this program.
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

    /// True if orphans can become this process's children.
    pub(in super::super) const CAN_ADOPT: bool = true;

    /// Returns whether SIGHUP ends this process, and is not ignored as by nohup(1) (`proc_pid_status(5)`, `SigIgn`).
    #[must_use]
    pub fn hangup_ends_us() -> bool {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        ignored.is_some_and(|mask| mask & (1 << (Signal::HUP.as_raw() - 1)) == 0)
    }

    /// Lists every visible process.
    pub(in super::super) fn table() -> Vec<Row> {
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries.flatten().filter_map(|entry| row(entry.file_name().to_str()?.parse().ok()?)).collect()
    }

    /// Reads the entry of a process, if it exists.
    pub(in super::super) fn row(pid: i32) -> Option<Row> {
        parse(pid, &stat_line(pid)?)
    }

    fn stat_line(pid: i32) -> Option<Vec<u8>> {
        // A single read suffices: a stat line is generated whole at the first, and is far shorter than this.
        let mut line = vec![0; 1024];
        let length = fs::File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
        line.truncate(length);
        Some(line)
    }

    /// Returns the start time of a process, in clock ticks since boot; 0 if there is no such process.
    pub(in super::super) fn started(pid: i32) -> u64 {
        row(pid).map_or(0, |row| row.process.started)
    }

    /// Parses a stat line: the name, in parentheses, may itself contain spaces and parentheses.
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
            // A process whose first thread has ended while others run is shown as a zombie too.
            dead: matches!(fields[0], "Z" | "X" | "x") && threads <= 1,
        })
    }

    /// Returns the environment that a process was started with, as NUL-separated assignments; `None` if it may not be read.
    pub(in super::super) fn environ(pid: i32) -> Option<Vec<u8>> {
        fs::read(format!("/proc/{pid}/environ")).ok()
    }

    /// Returns the processes whose initial environment has each of these assignments.
    pub(in super::super) fn marked(rows: &[Row], assignments: &[Vec<u8>]) -> HashSet<i32> {
        let carries = |row: &&Row| {
            environ(row.process.pid).is_some_and(|environ| {
                let has = |wanted: &Vec<u8>| environ.split(|&byte| byte == 0).any(|found| found == wanted);
                assignments.iter().all(has)
            })
        };
        rows.iter().filter(|row| !row.dead).filter(carries).map(|row| row.process.pid).collect()
    }

    /// Returns the id of this boot.
    pub(in super::super) fn boot() -> Option<String> {
        Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim_end().to_owned())
    }

    /// Lists these children and all of their descendants.
    pub(in super::super) fn descendants(children: Vec<i32>) -> Vec<Process> {
        let (mut found, mut next) = (Vec::new(), children);
        let mut seen: HashSet<i32> = next.iter().copied().collect();
        while let Some(pid) = next.pop() {
            let Some(row) = row(pid) else { continue };
            found.push(row.process);
            // A process that has ended has no children.
            next.extend(children_of(&pid.to_string()).unwrap_or_default().into_iter().filter(|pid| seen.insert(*pid)));
        }
        found
    }

    /// Returns this user's daemons that work in one of `places` and that no login started: they have no terminal, no other
    /// process of their session started them, and their environment, which was cleaned, has no HOME. A terminal, an editor
    /// or a language server that the user has open there is not one.
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

    /// Lists the working directory, the program and the open files of a process.
    fn uses(pid: i32) -> Vec<PathBuf> {
        let at = format!("/proc/{pid}");
        let open = fs::read_dir(format!("{at}/fd")).into_iter().flatten().flatten().map(|entry| entry.path());
        let links = [Path::new(&at).join("cwd"), Path::new(&at).join("exe")].into_iter().chain(open);
        let target = |link: PathBuf| {
            let path = fs::read_link(link).ok()?;
            // A removed file is marked so (proc_pid_fd(5)).
            let name = path.as_os_str().as_bytes();
            let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(name)))
        };
        links.filter_map(target).collect()
    }

    /// Returns this process's children, adopted ones included; `None` if the kernel does not list them.
    pub(in super::super) fn children() -> Option<Vec<i32>> {
        children_of("self")
    }

    fn children_of(process: &str) -> Option<Vec<i32>> {
        let mut found = Vec::new();
        // The list is read twice: it may miss a process when another ends meanwhile (proc_tid_children(5)).
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

    /// Signals exactly this process, never a later one with its id.
    pub(in super::super) fn signal(process: Process, signal: Signal) -> Result<()> {
        let pid = raw(process.pid)?;
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => Some(handle),
            // The kernel is older than 5.3, or a sandbox does not allow the call.
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

    /// Returns the files that a process holds exclusive locks on (flock(2)); `None` if they may not be read.
    pub(in super::super) fn locked_files(pid: i32) -> Option<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()?.flatten() {
            // A descriptor that was closed meanwhile holds no lock.
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

    /// Removes the kernel's mark of a deleted file.
    fn without_mark(path: PathBuf) -> PathBuf {
        let bytes = path.as_os_str().as_bytes();
        bytes.strip_suffix(b" (deleted)").map(|path| PathBuf::from(OsStr::from_bytes(path))).unwrap_or(path)
    }

    /// Returns whether a process runs this program, from this installation or another.
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

    /// Returns whether a process has the file open, among those that this user may inspect.
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

    /// Makes orphaned descendants this process's children. Returns whether that is possible.
    pub(in super::super) fn adopt_orphans() -> bool {
        // Pid 1 gets the orphans of its whole namespace, which are not all descendants of its calls.
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

/// Other systems: the output of ps(1). This is weaker than Linux: start times are not known, so a reused process id is not
/// noticed; orphans go to pid 1, so one in a session of its own is found by its mark alone; and marks of protected programs
/// are not shown. Members of the process group are always found.
#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Process, Row, Signal, raw};
    use rustix::io::Result;
    use std::collections::HashSet;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Stdio};

    pub(in super::super) const CAN_ADOPT: bool = false;

    /// This is not known here: SIGHUP keeps its effect.
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

    /// This is needed for adopted orphans only, and there are none here.
    pub(in super::super) fn environ(_: i32) -> Option<Vec<u8>> {
        None
    }

    /// The option `-E` prints the environment after the command line, as words.
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

    /// This is not known here, where orphans are not adopted and start times are not reported.
    pub(in super::super) fn boot() -> Option<String> {
        None
    }

    pub(in super::super) fn descendants(_: Vec<i32>) -> Vec<Process> {
        Vec::new()
    }

    /// Daemons are not looked for here: lsof(8) shows neither the start time of a process nor its initial environment.
    pub(in super::super) fn daemons_in(_: &[Row], _: &[PathBuf]) -> HashSet<i32> {
        HashSet::new()
    }

    pub(in super::super) fn signal(process: Process, signal: Signal) -> Result<()> {
        rustix::process::kill_process(raw(process.pid)?, signal)
    }

    /// This is not known here: the driver of a run is then known from the content of its lock.
    pub(in super::super) fn locked_files(_: i32) -> Option<Vec<PathBuf>> {
        None
    }

    pub(in super::super) fn is_our_program(pid: i32) -> bool {
        let path = ps(&["-o", "comm=", "-p", &pid.to_string()]);
        Path::new(path.trim()).file_name().is_some_and(|name| name == super::PROGRAM)
    }

    /// Asks lsof(8), which exits with 1 if no process has the file open.
    pub(in super::super) fn is_open(file: &Path) -> bool {
        let asked = Command::new("lsof").arg("--").arg(file).stdin(Stdio::null()).stderr(Stdio::null()).output();
        asked.map_or(true, |asked| asked.status.code() != Some(1))
    }

    pub(in super::super) fn adopt_orphans() -> bool {
        false
    }
}
