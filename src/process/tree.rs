//! Process trees of calls: they are kept apart from those of other calls, and stopped.
//!
//! Agents run their tools in sessions of their own, so signalling a process group leaves orphans. A process belongs to a
//! call by descent, by a process group or session that a process of the call leads, or by the mark in its environment. A
//! process without any of these (a daemon with a cleaned environment) gets this process as its parent if that is its
//! subreaper. It then belongs to a call that has ended as soon as no running call could have started it.
//!
//! A driver that is killed adopts no orphans. So it lists its descendants for as long as it lives, and the next driver finds
//! them by process id and start time; a daemon that was started later is found by the run's folders that it works in.

use super::environment;
use super::mark::{CALL_VAR, CLONE_VAR, Mark, RUN_VAR};
use super::os::{self, Process, Row};
use rustix::process::{
    Pid, Signal, WaitOptions, getpgrp, getpid, kill_process_group, test_kill_process_group, waitpid,
};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::Child;

/// Time in which SIGKILL is repeated before a process is given up: one that hangs in the kernel does not die of it.
const LAST_RESORT: Duration = Duration::from_secs(5);
/// Time after which SIGKILL is repeated, and new processes are looked for.
const KILL_AGAIN: Duration = Duration::from_millis(200);

/// The running calls of this process. The lock is held while a child is spawned, so that no other call sees an unlisted
/// child and takes it for an orphan.
static CALLS: Mutex<Calls> = Mutex::new(Calls { adopts: false, roots: Vec::new(), unowned: Vec::new() });

struct Calls {
    adopts: bool,
    roots: Vec<Root>,
    /// Children that belong to no call.
    unowned: Vec<Process>,
}

/// A call's first process.
#[derive(Clone)]
struct Root {
    process: Process,
    mark: Vec<Vec<u8>>,
}

fn calls() -> MutexGuard<'static, Calls> {
    CALLS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    /// Returns whether a child was adopted, not started: it is in no list, and not in this process's group, where children
    /// that other code starts are.
    fn is_adopted(&self, row: &Row) -> bool {
        self.adopts
            && row.parent == own_pid()
            && row.group != own_group()
            && !self.unowned.contains(&row.process)
            && self.roots.iter().all(|root| root.process != row.process)
    }

    /// Reaps an adopted orphan that has ended, by its id alone: waiting for any child would take the exit statuses that
    /// others wait for.
    fn reap(&self, row: &Row) -> bool {
        row.dead
            && self.is_adopted(row)
            && matches!(waitpid(Pid::from_raw(row.process.pid), WaitOptions::NOHANG), Ok(Some(_)))
    }
}

fn own_pid() -> i32 {
    getpid().as_raw_nonzero().get()
}

fn own_group() -> i32 {
    getpgrp().as_raw_nonzero().get()
}

/// Makes this process the parent of orphaned descendants.
pub(super) fn adopt_orphans() {
    calls().adopts = os::adopt_orphans();
}

/// Spawns a child that belongs to no call.
pub(super) fn spawn_unowned<T>(spawn: impl FnOnce() -> io::Result<(T, u32)>) -> io::Result<(T, Process)> {
    let mut calls = calls();
    let (child, id) = spawn()?;
    let process = Process::of(i32::try_from(id).map_err(io::Error::other)?);
    if os::CAN_ADOPT {
        // A child that has ended stays listed until it is reaped: until then it could be taken for an orphan, and its exit
        // status taken with it.
        calls.unowned.retain(|process| os::row(process.pid).is_some_and(|row| row.process == *process));
        calls.unowned.push(process);
    }
    Ok((child, process))
}

/// Kills every running call and the orphans of earlier ones; nothing can be started meanwhile.
pub(super) fn kill_calls() {
    let calls = calls();
    let begun = Instant::now();
    let mut known = calls.roots.iter().map(|root| (root.process.pid, root.process.started)).collect();
    while begun.elapsed() < KILL_AGAIN {
        let rows = os::table();
        let orphans = rows.iter().filter(|row| calls.is_adopted(row)).map(|row| row.process.pid).collect();
        let spared = with_ancestors(own_pid(), &rows)
            .into_iter()
            .chain(calls.unowned.iter().map(|process| process.pid))
            .collect();
        let found = collect_tree(&rows, &mut known, &orphans, &spared);
        let mut living = rows.iter().filter(|row| !row.dead && found.contains(&row.process.pid)).peekable();
        if living.peek().is_none() {
            return;
        }
        for row in living {
            let _ = os::signal(row.process, Signal::KILL); // it may have ended by itself, or belong to another user
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Writes the descendants of this process to `file`, except those that are to outlive it. Writes nothing if they are
/// unchanged.
pub(super) fn list_descendants(file: &Path, known: &mut Vec<u8>) -> io::Result<()> {
    let (Some(head), Some(mut children)) = (list_head(file), os::children()) else { return Ok(()) };
    {
        let calls = calls();
        children.retain(|pid| calls.unowned.iter().all(|process| process.pid != *pid));
    }
    let mut found = os::descendants(children);
    found.sort_unstable();
    let lines: Vec<String> = found.iter().map(|Process { pid, started }| format!("{pid} {started}")).collect();
    let text = format!("{head}\n{}\n", lines.join("\n")).into_bytes();
    if text != *known {
        let staged = file.with_added_extension("new");
        std::fs::write(&staged, &text)?;
        std::fs::rename(staged, file)?;
        *known = text;
    }
    Ok(())
}

/// Returns the first line of a list in `file`: the list is valid until the machine is restarted, and in this folder alone,
/// since a copy of the repository has other processes.
pub(super) fn list_head(file: &Path) -> Option<String> {
    Some(format!("{} {}", os::boot()?, environment::clone_of(file.parent()?)))
}

/// Reads the processes that a driver of this clone listed since this boot.
fn read_list(file: &Path) -> HashSet<Process> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut lines = text.lines();
    if lines.next().map(ToOwned::to_owned) != list_head(file) {
        return HashSet::new();
    }
    let process = |line: &str| {
        let (pid, started) = line.split_once(' ')?;
        Some(Process { pid: pid.parse().ok().filter(|pid| *pid > 1)?, started: started.parse().ok()? })
    };
    lines.filter_map(process).collect()
}

fn pid_of(child: &Child) -> io::Result<i32> {
    child.id().and_then(|id| i32::try_from(id).ok()).ok_or_else(|| io::Error::other("the child has no process id"))
}

/// The traces by which the processes of a dead driver are found.
#[derive(Clone, Debug, Default)]
pub struct Leftovers<'a> {
    /// Id of the run.
    pub run: &'a str,
    /// Mark of the clone, [`clone_of`](super::clone_of) the run's folder.
    pub clone: &'a str,
    /// List that the driver wrote with [`list_descendants`](super::list_descendants).
    pub listed: Option<&'a Path>,
    /// Folders of the run: daemons that work in one of them, and that no login started, belong to the run.
    pub places: Vec<PathBuf>,
}

/// The processes of one call, or those that a dead driver left.
pub(super) struct Tree {
    root: Option<Process>,
    /// Assignments that a process of this tree carries in its environment, unless it cleaned it; none if unmarked.
    mark: Vec<Vec<u8>>,
    /// Every process found so far, ended or not: processes that it started belong to this tree.
    known: HashMap<i32, u64>,
    /// Processes that may not be signalled or do not die.
    given_up: HashSet<Process>,
    in_flight: bool,
    finished: bool,
    /// Further traces of a dead driver's processes.
    traces: Option<Traces>,
}

struct Traces {
    /// Processes that the driver listed.
    listed: HashSet<Process>,
    /// Folders of its run.
    places: Vec<PathBuf>,
}

impl Tree {
    /// Spawns a call's first process, which must lead a process group.
    pub(super) fn start(mark: Option<&Mark>, spawn: impl FnOnce() -> io::Result<Child>) -> io::Result<(Child, Self)> {
        let mut calls = calls();
        let child = spawn()?;
        let root = Process::of(pid_of(&child)?);
        let mark = mark.map_or_else(Vec::new, |mark| vec![assign(RUN_VAR, &mark.run), assign(CALL_VAR, &mark.call)]);
        calls.roots.push(Root { process: root, mark: mark.clone() });
        let known = HashMap::from([(root.pid, root.started)]);
        let given_up = HashSet::new();
        let tree = Self { root: Some(root), mark, known, given_up, in_flight: true, finished: false, traces: None };
        Ok((child, tree))
    }

    /// Returns the tree of the processes that a dead driver left.
    pub(super) fn of_run(left: &Leftovers<'_>) -> Self {
        let mark = vec![assign(RUN_VAR, left.run), assign(CLONE_VAR, left.clone)];
        let traces = Traces { listed: left.listed.map(read_list).unwrap_or_default(), places: left.places.clone() };
        let (known, given_up) = (HashMap::new(), HashSet::new());
        Self { root: None, mark, known, given_up, in_flight: false, finished: true, traces: Some(traces) }
    }

    /// Removes the call from the running ones. To be called when the first process was reaped: its id may be reused from
    /// then on.
    pub(super) fn mark_reaped(&mut self) {
        self.in_flight = false;
        calls().roots.retain(|root| Some(root.process) != self.root);
    }

    /// Marks the tree as ended: one that is dropped before that is killed.
    pub(super) fn finish(mut self) {
        self.finished = true;
    }

    /// Returns whether processes may remain after the first one was reaped; cheap if none does.
    pub(super) fn may_remain(&mut self) -> bool {
        let leads_group = self.root.and_then(|root| Pid::from_raw(root.pid));
        match Self::adopted_children() {
            // Any remaining process descends from an orphan, and this process has adopted the orphan.
            Some(adopted) if adopted > 0 => true,
            _ if leads_group.is_some_and(|group| test_kill_process_group(group) != Err(rustix::io::Errno::SRCH)) => {
                true
            }
            Some(_) => false,
            None => !self.mark.is_empty() && !self.find().is_empty(),
        }
    }

    /// Counts the adopted orphans that still run; `None` if orphans are not adopted.
    fn adopted_children() -> Option<usize> {
        let calls = calls();
        if !calls.adopts {
            return None;
        }
        loop {
            let rows: Vec<Row> = os::children()?.into_iter().filter_map(os::row).collect();
            // An orphan that ended may just have left its own children.
            if rows.iter().filter(|row| calls.reap(row)).count() == 0 {
                return Some(rows.iter().filter(|row| !row.dead && calls.is_adopted(row)).count());
            }
        }
    }

    /// Returns the running processes of this tree.
    pub(super) fn find(&mut self) -> Vec<Process> {
        let rows = os::table();
        let own = with_ancestors(own_pid(), &rows);
        // Locked after the table was read: a process that was spawned in between is not in it, and one that was being
        // spawned is listed now.
        let (others, orphans) = {
            let calls = calls();
            for row in &rows {
                calls.reap(row);
            }
            let others: Vec<Root> =
                calls.roots.iter().filter(|root| Some(root.process) != self.root).cloned().collect();
            let orphans: Vec<Row> =
                rows.iter().filter(|row| self.root.is_some() && calls.is_adopted(row)).copied().collect();
            (others, orphans)
        };
        let ambiguous = others.iter().any(|other| other.mark == self.mark);
        let mut seeds = if self.mark.is_empty() || ambiguous { HashSet::new() } else { os::marked(&rows, &self.mark) };
        seeds.extend(orphans.iter().filter(|row| is_stray(row, &others)).map(|row| row.process.pid));
        if let Some(Traces { listed, places }) = &self.traces {
            seeds.extend(rows.iter().filter(|row| listed.contains(&row.process)).map(|row| row.process.pid));
            seeds.extend(os::daemons_in(&rows, places));
        }
        let mut theirs = others.iter().map(|root| (root.process.pid, root.process.started)).collect();
        let theirs = collect_tree(&rows, &mut theirs, &HashSet::new(), &own);
        let spared = theirs.union(&own).copied().collect();
        let mine = collect_tree(&rows, &mut self.known, &seeds, &spared);
        let running = rows.iter().filter(|row| !row.dead && mine.contains(&row.process.pid)).map(|row| row.process);
        running.filter(|process| !self.given_up.contains(process)).collect()
    }

    /// Sends SIGTERM to every process of this tree and, after `grace`, SIGKILL to those that are left and that they start
    /// meanwhile, until none is left. Returns the number of stopped processes.
    pub(super) async fn stop(&mut self, grace: Duration) -> usize {
        let begun = Instant::now();
        let mut asked = HashSet::new();
        loop {
            let found = self.find();
            let spent = begun.elapsed();
            if found.is_empty() {
                return asked.difference(&self.given_up).count();
            }
            for &process in &found {
                let new = asked.insert(process);
                if spent >= grace {
                    self.send(process, Signal::KILL);
                } else if new {
                    self.send(process, Signal::TERM);
                    // A stopped process acts on no signal until it continues.
                    self.send(process, Signal::CONT);
                }
            }
            if spent >= grace + LAST_RESORT {
                self.give_up(found);
            } else {
                let left = grace.checked_sub(spent).filter(|left| !left.is_zero());
                wait_until_ended(&found, left.unwrap_or(KILL_AGAIN)).await;
            }
        }
    }

    fn send(&mut self, process: Process, signal: Signal) {
        if os::signal(process, signal) == Err(rustix::io::Errno::PERM) {
            self.give_up([process]);
        }
    }

    fn give_up(&mut self, processes: impl IntoIterator<Item = Process>) {
        for process in processes {
            tracing::warn!(pid = process.pid, "a process of ours could not be stopped");
            self.given_up.insert(process);
        }
    }
}

impl Drop for Tree {
    /// Kills the tree of a call that was not waited for. It cannot wait itself, so it looks three times for processes that
    /// were started meanwhile.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        if let Some(group) = self.root.filter(|_| self.in_flight).and_then(|root| Pid::from_raw(root.pid)) {
            _ = kill_process_group(group, Signal::KILL);
        }
        for _ in 0..3 {
            self.find().into_iter().for_each(|process| self.send(process, Signal::KILL));
        }
        self.mark_reaped();
    }
}

fn assign(name: &str, value: &str) -> Vec<u8> {
    format!("{name}={value}").into_bytes()
}

/// Waits until all of these processes have ended, at most for the given time.
async fn wait_until_ended(processes: &[Process], at_most: Duration) {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    while processes.iter().any(|process| process.runs()) {
        let Some(left) = at_most.checked_sub(begun.elapsed()) else { return };
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Returns whether an adopted orphan belongs to a call that has ended: no running call is old enough to have started it, and
/// it carries no mark but this process's own.
fn is_stray(orphan: &Row, others: &[Root]) -> bool {
    let run = |assignment: &[u8]| assignment.strip_prefix(RUN_VAR.as_bytes())?.strip_prefix(b"=").map(<[u8]>::to_vec);
    let ours = std::env::var_os(RUN_VAR);
    others.iter().all(|root| root.process.started > orphan.process.started)
        && os::environ(orphan.process.pid)
            .and_then(|environ| environ.split(|&byte| byte == 0).find_map(run))
            .is_none_or(|run| ours.is_some_and(|ours| ours.as_bytes() == run))
}

/// Returns a process and its ancestors, which are never signalled.
fn with_ancestors(pid: i32, rows: &[Row]) -> HashSet<i32> {
    let parents: HashMap<i32, i32> = rows.iter().map(|row| (row.process.pid, row.parent)).collect();
    let mut found = HashSet::new();
    let mut next = Some(pid);
    while let Some(pid) = next.filter(|&pid| found.insert(pid)) {
        next = parents.get(&pid).copied();
    }
    found
}

/// Returns the processes of a tree: the `known` ones, the seeds, their descendants, and the members of the process groups
/// and sessions that they lead; but neither spared ones nor those found through them alone. Adds them to `known`, so that
/// they count after they have ended.
fn collect_tree(
    rows: &[Row],
    known: &mut HashMap<i32, u64>,
    seeds: &HashSet<i32>,
    spared: &HashSet<i32>,
) -> HashSet<i32> {
    let present: HashMap<i32, u64> = rows.iter().map(|row| (row.process.pid, row.process.started)).collect();
    let mut found = HashSet::new();
    loop {
        let before = found.len();
        for row in rows {
            let Process { pid, started } = row.process;
            // A leader may have ended, but its id must not have been reused.
            let leads = |leader: &i32| {
                known.get(leader).is_some_and(|since| present.get(leader).is_none_or(|now| now == since))
            };
            let belongs = known.get(&pid) == Some(&started)
                || seeds.contains(&pid)
                || found.contains(&row.parent)
                || leads(&row.group)
                || leads(&row.session);
            if belongs && !spared.contains(&pid) && found.insert(pid) {
                known.insert(pid, started);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pid: i32, started: u64, parent: i32, group: i32, session: i32) -> Row {
        Row { process: Process { pid, started }, parent, group, session, dead: false }
    }

    fn found(rows: &[Row], known: &[(i32, u64)], spared: &[i32]) -> Vec<i32> {
        let mut known = known.iter().copied().collect();
        let mut found: Vec<_> =
            collect_tree(rows, &mut known, &HashSet::new(), &spared.iter().copied().collect()).into_iter().collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn descendants_and_members_of_led_groups_and_sessions_belong() {
        let rows = [
            row(5, 50, 4, 4, 4),
            row(4, 40, 2, 4, 4),
            row(2, 20, 1, 2, 1),
            row(3, 30, 1, 2, 1),
            row(6, 60, 1, 7, 4),
            row(8, 10, 1, 8, 1),
        ];
        assert_eq!(found(&rows, &[(2, 20)], &[]), [2, 3, 4, 5, 6]);
        assert_eq!(found(&rows, &[(2, 20)], &[4]), [2, 3], "nor what is reached through a spared one");
    }

    #[test]
    fn a_reused_id_leads_nothing() {
        let rows = [row(2, 99, 1, 2, 2), row(3, 100, 2, 2, 2)];
        assert!(found(&rows, &[(2, 20)], &[]).is_empty());
        assert_eq!(found(&rows[1..], &[(2, 20)], &[]), [3], "the ended leader's group is still its own");
    }
}
