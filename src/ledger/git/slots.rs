//! The worktrees of a run's workers, numbered and reused. Each is a slot.
//!
//! The task of a slot is recorded in the run's folder and not in the worktree, which a worker may remove.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Context as _, Result};
use crate::ledger::Task;
use crate::run::id::Oid;

/// Prefix of a slot's name in the run's folder, and of its worktree's suffix after the run's id. The number follows.
const PREFIX: &str = "w";

/// The slots of one run.
#[derive(Debug)]
pub(super) struct Slots {
    /// The run's folder.
    dir: PathBuf,
    /// Number of hexadecimal digits of the repository's object ids.
    digits: usize,
    known: Mutex<Option<Vec<Slot>>>,
}

#[derive(Clone, Debug)]
struct Slot {
    number: u32,
    /// The task whose work it holds; `None` once that is all committed and the worktree was cleared.
    claim: Option<Claim>,
    /// True if a worker is running in it.
    busy: bool,
    /// True if its task will continue in it.
    reserved: bool,
}

/// The task that has a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub task: Task,
    /// The commit that it started from: the run's newest or, for an integrator, the integrated one.
    pub tip: String,
}

/// A slot that was taken.
#[derive(Clone, Debug)]
pub(super) struct TakenSlot {
    pub number: u32,
    /// The work that it still holds.
    pub claim: Option<Claim>,
}

impl Slots {
    pub(super) fn new(dir: PathBuf, digits: usize) -> Self {
        Self { dir, digits, known: Mutex::new(None) }
    }

    /// Takes a slot for `task`: its own, or a free one, or a new one. `existing` returns the numbers of existing worktrees.
    pub(super) fn take(&self, task: &Task, existing: impl FnOnce() -> Vec<u32>) -> TakenSlot {
        let mut known = self.known(existing);
        let slots = known.get_or_insert_default();
        let own = slots.iter().position(|slot| slot.claim.as_ref().is_some_and(|claim| claim.task == *task));
        let is_free = |slot: &Slot| {
            let from_before = slot.claim.as_ref().is_none_or(|claim| claim.task.iteration < task.iteration);
            !slot.busy && (from_before || !slot.reserved)
        };
        let position = own.or_else(|| slots.iter().position(is_free)).unwrap_or_else(|| {
            let is_taken = |number: &u32| slots.iter().any(|slot| slot.number == *number);
            let number = (1..=u32::MAX).find(|number| !is_taken(number)).unwrap_or(u32::MAX);
            slots.push(Slot { number, claim: None, busy: false, reserved: false });
            slots.len() - 1
        });
        slots[position].busy = true;
        TakenSlot { number: slots[position].number, claim: slots[position].claim.clone() }
    }

    /// Finds the slot of `task`.
    pub(super) fn of(&self, task: &Task) -> Option<TakenSlot> {
        let known = self.lock();
        let mut slots = known.iter().flatten();
        let slot = slots.find(|slot| slot.claim.as_ref().is_some_and(|claim| claim.task == *task))?;
        Some(TakenSlot { number: slot.number, claim: slot.claim.clone() })
    }

    /// Lists all slots with their tasks.
    pub(super) fn all(&self, existing: impl FnOnce() -> Vec<u32>) -> Vec<TakenSlot> {
        let known = self.known(existing);
        known.iter().flatten().map(|slot| TakenSlot { number: slot.number, claim: slot.claim.clone() }).collect()
    }

    /// Records the task of a slot; `None` if it holds nothing uncommitted.
    pub(super) fn claim(&self, number: u32, claim: Option<Claim>) -> Result<()> {
        let path = self.path(number);
        let staged = path.with_extension("new");
        let written = match &claim {
            Some(Claim { task, tip }) => {
                std::fs::write(&staged, format!("{} {} {tip}\n", task.iteration, task.subgoal))
                    .and_then(|()| std::fs::rename(&staged, &path))
            }
            None => {
                // A driver that is killed while it writes a claim leaves the staged file.
                [&path, &staged].into_iter().try_for_each(|file| match std::fs::remove_file(file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                })
            }
        };
        written.context(format!("'{}' cannot be written", path.display()))?;
        self.change(number, |slot| slot.claim = claim);
        Ok(())
    }

    /// Marks a slot as idle, and `reserved` if its task will continue in it.
    pub(super) fn leave(&self, number: u32, reserved: bool) {
        self.change(number, |slot| {
            slot.busy = false;
            slot.reserved = reserved;
        });
    }

    /// Removes a slot whose worktree is gone.
    pub(super) fn forget(&self, number: u32) -> Result<()> {
        self.claim(number, None)?;
        if let Some(slots) = self.lock().as_mut() {
            slots.retain(|slot| slot.number != number);
        }
        Ok(())
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Slot)) {
        let mut known = self.lock();
        if let Some(slot) = known.iter_mut().flatten().find(|slot| slot.number == number) {
            change(slot);
        }
    }

    fn known(&self, existing: impl FnOnce() -> Vec<u32>) -> MutexGuard<'_, Option<Vec<Slot>>> {
        let mut known = self.lock();
        if known.is_none() {
            let mut numbers: Vec<u32> = names(&self.dir).iter().filter_map(|name| number(name)).collect();
            numbers.extend(existing());
            numbers.sort_unstable();
            numbers.dedup();
            let slot = |number| {
                let claim = read(&self.path(number), self.digits);
                Slot { number, reserved: claim.is_some(), claim, busy: false }
            };
            *known = Some(numbers.into_iter().map(slot).collect());
        }
        known
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Slot>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(name(number))
    }
}

/// Returns the slot's name.
pub(super) fn name(number: u32) -> String {
    format!("{PREFIX}{number}")
}

/// Parses the number in a slot's name.
pub(super) fn number(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Lists the names in a folder.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read(path: &Path, digits: usize) -> Option<Claim> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let task = Task { iteration: words.next()?.parse().ok()?, subgoal: words.next()?.to_owned() };
    let tip: Oid = words.next()?.parse().ok()?;
    (is_name(&task.subgoal) && tip.as_str().len() == digits).then(|| Claim { task, tip: tip.into() })
}

/// Reports whether `name` can be a task: a subgoal's id, perhaps with the suffix of its conflict. A worker can write the
/// file that it is read from.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && name.strip_suffix(".lock").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_was_being_written_goes_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("w4.new"), "1 a").unwrap();
        let slots = Slots::new(dir.path().to_owned(), 40);
        assert_eq!(slots.all(|| vec![4]).len(), 1);
        slots.forget(4).unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
